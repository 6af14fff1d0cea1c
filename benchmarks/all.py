"""All benchmarks of one device as markdown tables, with the targets, in bounded time.

    python benchmarks/all.py --output FILE                       # on the best device present, ten minutes
    python benchmarks/all.py --device cpu --sizes 1280x720 --minutes 6 --output FILE

A checkout with PyTorch and NumPy is enough; VapourSynth is needed for the filter, safetensors for the bundled model.
Each part is a command in this folder and runs in its own process. A part that fails is reported with its traceback and
the others go on; results are written to the file at once; parts that do not fit the time are named. Accuracy comes
first: if results are wrong, nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.measure import ROOT, Report, facts, heading, line, number, parser
from vsrife.engine.devices import parse_device, parse_precision

GRACE_S = 20.0  # for a part to end by itself, once its time is over
LEAST_S = 5.0  # no part begins with less
WRONG, FAILED, STOPPED = 1, 2, 3  # what may become of a part


@dataclass(frozen=True, slots=True)
class Part:
    """A benchmark command in this folder."""

    name: str
    title: str
    share: float  # of the time that is left when it begins, at most
    only: str = ""  # type of the devices that it is for; empty: all


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach."""

    what: str
    value: float
    most: bool = False  # whether less is better

    @property
    def limit(self) -> str:
        return f"at {'most' if self.most else 'least'} {self.value:g}"

    def met(self, seen: float) -> bool:
        return seen <= self.value if self.most else seen >= self.value


# What has a target comes first: the time may not suffice for all.
PARTS = (
    Part("accuracy", "Accuracy", 0.5),
    Part("pairs", "Pairs on a CPU", 0.5, only="cpu"),
    Part("engine", "Engine", 0.5),
    Part("filter", "Filter", 0.5),
    Part("ops", "Ops", 0.5),
    Part("network", "Network", 0.8),
    Part("memory", "Memory", 1.0),
)
CUDA_TARGETS = (
    Target("engine, 4.6, 1920x1080, ms per new frame", 0.6, most=True),
    Target("engine, 4.25, 1920x1080, ms per new frame", 0.6, most=True),
    Target("network, 4.6, 1920x1080, times the published forward", 8),
    Target("network, 4.25, 1920x1080, times the published forward", 8),
    Target("filter, 1920x1080 YUV420P8, output frames/s", 800),
    Target("filter, 3840x2160 YUV420P8, output frames/s", 220),
    Target("first frame, nothing compiled, s", 10, most=True),
    Target("first frame, same process, s", 0.2, most=True),
)
CPU_TARGETS = tuple(
    Target(f"filter on a CPU, {model}, {precision}, {what}", value)
    for precision in ("fp32", "bf16", "int8")
    for model, ratio in (("4.6", 3.5), ("4.25", 6.0))
    for what, value in (("times the naive forward", ratio), ("PSNR in dB", 48.0))
)
STAND_INS = {  # where VapourSynth is not installed
    f"filter, {size} YUV420P8, output frames/s": f"engine with transfers, 4.25, {size}, output frames/s"
    for size in ("1920x1080", "3840x2160")
}
TARGET_HEAD = ("what", "seen", "target", "met", "floor")


@dataclass(slots=True)
class Run:
    """A run of all parts on one device."""

    report: Report
    options: Sequence[str]
    folder: Path

    @property
    def left_s(self) -> float:
        return self.report.until - time.monotonic()

    @property
    def figures(self) -> Path:
        return self.folder / "figures.jsonl"

    def part(self, part: Part) -> int:
        """Run a part and return its exit status, `FAILED` or `STOPPED`."""
        if self.left_s < LEAST_S:
            self.report.add(f"## {part.title}", "Skipped: out of time.")
            return STOPPED
        output, seconds = self.folder / f"{part.name}.md", part.share * self.left_s
        command = [
            sys.executable, str(Path(__file__).parent / f"{part.name}.py"), *self.options, "--minutes",
            str(seconds / 60), "--output", str(output), "--figures", str(self.figures),
        ]  # fmt: skip
        print(f"{part.title} …", flush=True)
        status, errors = self.process(command, seconds + min(GRACE_S, max(self.left_s - seconds, 0)))
        self.report.add(output.read_text(encoding="utf-8").strip() if output.exists() else f"## {part.title}")
        if status == STOPPED:
            self.report.add("Stopped: this part is out of time; the rest is skipped.")
        elif status == FAILED:
            self.report.add(f"It failed:\n\n```\n{errors.strip()[-3000:]}\n```")
        return status

    def process(self, command: Sequence[str], seconds: float) -> tuple[int, str]:
        """Run a command and return its exit status and stderr; its child processes end with it."""
        errors = self.folder / "errors.txt"
        with errors.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=file, cwd=ROOT, start_new_session=True
            )  # fmt: skip
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return STOPPED, ""
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        text = errors.read_text(encoding="utf-8", errors="replace")
        return (FAILED, text) if "Traceback" in text or status not in (0, WRONG) else (status, "")

    def seen(self) -> dict[str, tuple[float, float | None]]:
        """Measured figures with their floors, by target."""
        if not self.figures.exists():
            return {}
        lines = map(json.loads, self.figures.read_text(encoding="utf-8").splitlines())
        return {each["what"]: (each["value"], each["floor"]) for each in lines}


def against(targets: Iterable[Target], seen: Mapping[str, tuple[float, float | None]]) -> Iterable[Sequence[str]]:
    """Rows of the table of targets."""
    for target in targets:
        name = shown = target.what
        if name not in seen and STAND_INS.get(name) in seen:
            name = STAND_INS[name]
            shown = f"{name}, standing in for the {target.what}"
        value, floor = seen.get(name, (None, None))
        if value is None:
            yield shown, "not measured", target.limit, "", ""
        else:
            met = "yes" if target.met(value) else "no"
            yield shown, number(value), target.limit, met, "" if floor is None else number(floor)


def options_of(given: argparse.Namespace, device: torch.device) -> list[str]:
    """Options passed to every part."""
    options = ["--device", str(device), "--repeats", str(given.repeats)]
    for name in ("precision", "sizes", "models"):
        value = getattr(given, name)
        if value:
            options += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return [*options, "--quick"] if given.quick else options


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("all benchmarks of one device, with the targets")
    given = options.parse_args(argv)
    if given.precision == "int8":
        options.error(
            "int8 is one of the pairs on a CPU in any case; for the filter: benchmarks/filter.py --precision int8"
        )
    device = parse_device(given.device)
    report = Report(given.output, given.minutes)
    report.add("# Speed", f"{facts(device, parse_precision(given.precision, device))}.")
    cpu = device.type == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        run = Run(report, options_of(given, device), Path(folder))
        for part in (part for part in PARTS if part.only in ("", device.type)):
            status = run.part(part)
            if part.name == "accuracy" and status == WRONG:
                return WRONG
            if part.name == "accuracy" and status:
                report.add("Whether results are right was not found out; what follows is timed all the same.")
        report.add(f"## Targets {'on 2 cores with AVX512-bf16' if cpu else 'on an H100, fp16'}")
        rows = against(CPU_TARGETS if cpu else CUDA_TARGETS, run.seen())
        report.add("\n".join([heading(TARGET_HEAD), *map(line, rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
