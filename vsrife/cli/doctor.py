"""`vsrife doctor`: what is installed, whether it works, and how fast, in text for a bug report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vsrife.doctor import Diagnosis


@click.command(epilog="Example:  vsrife doctor > report.txt")
@click.option("--benchmark/--no-benchmark", default=True, help="Measure the speed; takes ten seconds.  [yes]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def doctor(benchmark: bool, as_json: bool) -> int:
    """Look for problems, and print what a bug report needs.

    Versions, devices, plugins, encoders, models and folders, a small test and a benchmark; problems and what to do
    about them come first. Nothing private is printed. The exit code is 1 if no frame can be made here.
    """
    from vsrife.doctor import diagnose

    diagnosis = diagnose(benchmark=benchmark)
    if as_json:
        problems = [asdict(problem) for problem in diagnosis.problems]
        report = {"usable": diagnosis.usable, "problems": problems, "sections": diagnosis.sections}
        click.echo(json.dumps(report, indent=2))
    else:
        click.echo(_text(diagnosis))
    return 0 if diagnosis.usable else 1


def _text(diagnosis: Diagnosis) -> str:
    lines = ["problems: none found"] if not diagnosis.problems else ["problems:"]
    lines += [f"  {problem.text}\n    -> {problem.remedy}" for problem in diagnosis.problems]
    for title, rows in diagnosis.sections.items():
        lines += ["", f"{title}:"]
        width = max(map(len, rows), default=0)
        lines += [f"  {name:<{width}}  {value}" for name, value in rows.items()] or ["  nothing"]
    return "\n".join(lines)
