"""`vsrife doctor`: a report on the installation, for bug reports."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vsrife.cli.console import DONE, FAILED

if TYPE_CHECKING:
    from vsrife.doctor import Diagnosis


@click.command(epilog="Example:  vsrife doctor > report.txt")
@click.option("--benchmark/--no-benchmark", default=True, help="Measure the speed, which takes ten seconds.  [yes]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor(benchmark: bool, as_json: bool) -> int:
    """Check the installation, and print what a bug report needs.

    Reports problems and their remedies first, then versions, devices, plugins, encoders, models, folders, a self-test
    and a benchmark. Paths in your home directory, passwords and other environment variables are left out. The exit code
    is 1 if interpolation does not work.
    """
    from vsrife.doctor import diagnose, issues_url

    diagnosis = diagnose(benchmark=benchmark)
    if as_json:
        problems = [asdict(problem) for problem in diagnosis.problems]
        report = {"usable": diagnosis.usable, "problems": problems, "sections": diagnosis.sections}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(_text(diagnosis))
        if url := issues_url():
            print(f"\nto report a bug, paste this into an issue: {url}", file=sys.stderr)
    return DONE if diagnosis.usable else FAILED


def _text(diagnosis: Diagnosis) -> str:
    lines = ["problems: none"] if not diagnosis.problems else ["problems:"]
    lines += [f"  {problem.text}\n    -> {problem.remedy}" for problem in diagnosis.problems]
    for title, rows in diagnosis.sections.items():
        lines += ["", f"{title}:"]
        width = max(map(len, rows), default=0)
        lines += [f"  {name:<{width}}  {value}" for name, value in rows.items()] or ["  none"]
    return "\n".join(lines)
