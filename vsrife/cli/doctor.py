"""`vsrife doctor`: a report on the installation, for bug reports."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING

import click

from vsrife.cli.completion import complete_device
from vsrife.cli.console import DONE, FAILED
from vsrife.errors import OptionError, shown

if TYPE_CHECKING:
    from vsrife.doctor import Diagnosis


@click.command(
    epilog="""\b
Examples:
  vsrife doctor > report.txt
  vsrife doctor --choose 1280x720@24"""
)
@click.option("--benchmark/--no-benchmark", default=True, help="Measure the speed, which takes ten seconds.  [yes]")
@click.option(
    "--choose", "target", metavar="WxH@FPS", help="Instead, find the best model that doubles such a video in real time."
)
@click.option("--device", metavar="DEVICE", shell_complete=complete_device, help="For --choose.  [best available]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doctor(benchmark: bool, target: str | None, device: str | None, as_json: bool) -> int:
    """Check the installation, and print what a bug report needs.

    Reports problems and their remedies first, then versions, devices, plugins, encoders, models, folders, a self-test
    and a benchmark. Paths in your home directory, passwords and other environment variables are left out. The exit code
    is 1 if interpolation does not work.

    With --choose, it measures models, precisions and flow scales for a few seconds each, best quality first, and prints
    the first that keeps up with a line for a player's script. The exit code is 1 if none does.
    """
    if target is not None:
        return _choose(target, device, as_json)
    if device is not None:
        raise OptionError(f"--device needs --choose, got {device} without it; add --choose 1280x720@24")
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


def _choose(target: str, device: str | None, as_json: bool) -> int:
    from vsrife.evaluation.speed import Measurement, choose

    width, height, rate = _parse_target(target)

    def tried(each: Measurement) -> None:
        rate = f"{each.frames_per_second:.1f} frames/s, {2000 / each.frames_per_second:.0f} ms a new frame"
        print(f"{each.candidate}: {rate}", file=sys.stderr)

    choice = choose(width, height, rate, device=device, tried=tried)
    best = choice.best
    line = choice.script_line(device)
    if as_json:
        measured = [asdict(each.candidate) | {"fps": each.frames_per_second} for each in choice.measured]
        report = {"keeps_up": choice.keeps_up, "needed_fps": choice.needed, "line": line, "measured": measured}
        click.echo(json.dumps(report, indent=2))
    else:
        verdict = (
            "keeps up" if choice.keeps_up else "is the fastest, but does not keep up; realtime shows source frames"
        )
        click.echo(
            f"{best.candidate}: {best.frames_per_second:.1f} of {choice.needed:.1f} frames/s, {verdict}\n\n{line}"
        )
    return DONE if choice.keeps_up else FAILED


_LONGEST_SIDE = 16384


def _parse_target(text: str) -> tuple[int, int, Fraction]:
    from vsrife.timing.parsing import parse_fps

    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})@(.+)", text)
    if match is None:
        raise OptionError(f"--choose must be a size and a frame rate, got {shown(text)}; write it like 1280x720@24")
    width, height = int(match[1]), int(match[2])
    if width % 2 or height % 2 or max(width, height) > _LONGEST_SIDE:
        raise OptionError(f"--choose must be an even size up to {_LONGEST_SIDE} pixels, got {shown(text)}; round it")
    return width, height, parse_fps(match[3], "--choose")
