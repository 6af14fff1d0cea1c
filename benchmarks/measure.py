"""Shared by the benchmarks: command-line options, timing, and reports in markdown."""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

import torch

import vsrife
from vsrife.engine.device_thread import run_on
from vsrife.engine.devices import parse_device, parse_precision
from vsrife.engine.keywords import Precision

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "sample.mp4"
LEAST_PSNR_DB = 48.0  # of whatever is timed, against float32
LONGEST_S = 10.0  # that one figure may take, as far as a single call is not slower
CPU_FLAGS = ("avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
# The libraries that print their versions where they are installed; vspipe's core is VapourSynth's.
LIBRARIES = ("triton", "numba", "vapoursynth")

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Size:
        width, _, height = text.partition("x")
        return cls(int(width), int(height))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


HD, FULL_HD, UHD = Size(1280, 720), Size(1920, 1080), Size(3840, 2160)
QUICK = Size(64, 64)
MODELS = ["4.6", "4.25", "default"]


# --- times ------------------------------------------------------------------------------------------------------------


def wait(device: torch.device) -> None:
    """Block until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(ways: Sequence[Callable[[], object]], device: torch.device, repeats: int) -> list[float]:
    """Median milliseconds of a call of each way, after an untimed one.

    The ways take turns, so that what else the machine does meets all alike. On a GPU the times are those of its own
    clock between two events, and short calls are repeated within a measurement. Slow ways get fewer repeats, so that
    all of them together stay near `LONGEST_S`.
    """
    once = [_once(way, device) for way in ways]
    counts = [1 if device.type == "cpu" else max(1, min(20, int(0.005 / seconds))) for seconds in once]
    needed = sum(seconds * count for seconds, count in zip(once, counts, strict=True))
    rounds = max(1, min(repeats, int(LONGEST_S / needed)))
    times = [[_time(way, device, n) for way, n in zip(ways, counts, strict=True)] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def _once(way: Callable[[], object], device: torch.device) -> float:
    """Seconds of a second call; the first one compiles."""
    way()
    wait(device)
    start = time.perf_counter()
    way()
    wait(device)
    return time.perf_counter() - start


def _time(way: Callable[[], object], device: torch.device, count: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        way()
        return 1e3 * (time.perf_counter() - start)
    begin, end = (torch.Event(device=device, enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(count):
        way()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / count


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured peak rates of the device.

    Attributes:
        bandwidth: bytes/s that a copy of a large tensor reads and writes.
        arithmetic: operations/s of a matrix product of 4096, or of 1024 on a CPU.
    """

    bandwidth: float
    arithmetic: float

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Rates:
        source = torch.empty((64 if device.type == "cpu" else 512) << 20, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        side = 1024 if device.type == "cpu" else 4096
        a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        multiply = torch._int_mm if dtype == torch.int8 else torch.mm
        copying, multiplying = milliseconds([lambda: target.copy_(source), lambda: multiply(a, b)], device, 5)
        return cls(2e3 * source.nbytes / copying, 2e3 * side**3 / multiplying)

    def floor_ms(self, operations: float, moved: float) -> float:
        """Lower bound on the time, ms: the larger of arithmetic and memory."""
        return 1e3 * max(operations / self.arithmetic, moved / self.bandwidth)

    def __str__(self) -> str:
        return f"copies {self.bandwidth / 1e9:.3g} GB/s, matrix products {self.arithmetic / 1e12:.2f} TFLOP/s"


# --- what it ran on ---------------------------------------------------------------------------------------------------


def facts(device: torch.device, dtype: torch.dtype | None = None) -> str:
    """Device, CPU and library versions, as a paragraph."""
    parts = [f"{_cpu()}, {torch.get_num_threads()} threads"]
    if device.type == "cuda":
        parts.insert(0, f"{torch.cuda.get_device_name(device)}, driver {_driver()}, CUDA {torch.version.cuda}")
    parts += [f"PyTorch {torch.__version__}", *_libraries(), f"vsrife {vsrife.__version__}"]
    return ", ".join([*parts, str(dtype).removeprefix("torch.")] if dtype else parts)


def _cpu() -> str:
    """Name of the CPU, and its instructions for bf16 and int8."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    units = ", ".join(flag if flag in flags else f"no {flag}" for flag in CPU_FLAGS)
    return f"{name} ({torch.backends.cpu.get_cpu_capability()}; {units})"


def _libraries() -> Iterable[str]:
    from importlib.metadata import PackageNotFoundError, version

    for name in LIBRARIES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"no {name}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0]


# --- options and results ----------------------------------------------------------------------------------------------


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--device", help="default: the best present")
    made.add_argument("--precision", choices=get_args(Precision), help="default: the best for the device")
    made.add_argument("--sizes", nargs="+", type=Size.parse, help="default: 1280x720 1920x1080 3840x2160")
    made.add_argument(
        "--models", nargs="+",
        help="published versions, with made weights, or `default`, the bundled model; default: 4.6 4.25 default",
    )  # fmt: skip
    made.add_argument("--repeats", type=int, default=15)
    made.add_argument("--minutes", type=float, default=10, help="start no row after this time")
    made.add_argument("--quick", action="store_true", help="tiny frames and few repeats, to check that it works")
    made.add_argument("--output", type=Path, help="also write the tables here")
    made.add_argument("--figures", type=Path, help="append figures that have a target here, one JSON object per line")
    return made


def arguments(description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the shared options; `device` and `dtype` become PyTorch's."""
    given = parser(description).parse_args(argv)
    given.device = parse_device(given.device)
    given.dtype = parse_precision(given.precision, given.device)
    given.sizes = given.sizes or ([QUICK] if given.quick else [HD, FULL_HD, UHD])
    # The bundled weights cannot be read without safetensors.
    given.models = given.models or (MODELS if importlib.util.find_spec("safetensors") else MODELS[:-1])
    given.repeats = 2 if given.quick else given.repeats
    return given


def number(value: float) -> str:
    """Format with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def line(cells: Iterable[object]) -> str:
    """A row of a markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def heading(cells: Sequence[str]) -> str:
    return f"{line(cells)}\n{line(['---'] * len(cells))}"


class Report:
    """Prints markdown and writes it to a file at once; a row that fails does not stop the others."""

    def __init__(self, output: Path | None, minutes: float = 10, figures: Path | None = None) -> None:
        self.output, self.figures, self.text = output, figures, ""
        self.until = time.monotonic() + 60 * minutes

    def add(self, *parts: str) -> None:
        """Add paragraphs."""
        for part in parts:
            self._write(f"{part}\n\n")

    def table(self, head: Sequence[str], rows: Iterable[Callable[[], Row]]) -> list[Row]:
        """Add a table whose rows are measured one after the other, and return the rows that succeeded.

        A row that fails is reported below with its traceback. Once out of time, the remaining rows are counted.
        """
        self._write(heading(head) + "\n")
        done, lost, left = list[Row](), list[str](), 0
        for measure in rows:
            if time.monotonic() > self.until:
                left += 1
                continue
            try:
                done.append(measure())
            except Exception:  # of whatever kind: the other rows are worth having
                lost.append(f"A row failed:\n\n```\n{traceback.format_exc().strip()}\n```")
            else:
                self._write(line(done[-1]) + "\n")
        self._write("\n")
        self.add(*lost, *([f"Rows skipped for lack of time: {left}."] if left else []))
        return done

    def seen(self, what: str, value: float, floor: float | None = None) -> None:
        """Record a figure that has a target, and its floor."""
        if self.figures is not None:
            with self.figures.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"what": what, "value": value, "floor": floor}) + "\n")

    def _write(self, text: str) -> None:
        self.text += text
        print(text, end="", flush=True)
        if self.output is not None:
            self.output.write_text(self.text, encoding="utf-8")


def begin(
    given: argparse.Namespace, title: str, device: torch.device, dtype: torch.dtype | None, *notes: str
) -> Report:
    """Start a report with its heading, and with the machine unless `all.py` names it."""
    report = Report(given.output, given.minutes, given.figures)
    about = notes if given.figures else (facts(device, dtype), *notes)
    text = "; ".join(about)
    report.add(f"## {title}", *([f"{text[0].upper()}{text[1:]}."] if about else []))
    return report


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Settings that the rows of a table share."""

    report: Report
    device: torch.device
    dtype: torch.dtype
    rates: Rates
    repeats: int

    @classmethod
    def of(cls, given: argparse.Namespace, title: str, **more: Any) -> Self:
        """From the options, with a started report; `more` are fields of a subclass."""
        run_on(given.device, lambda: None, lambda: None)  # switches cuDNN as the filter does, for the process
        rates = Rates.of(given.device, given.dtype)
        report = begin(given, title, given.device, given.dtype, str(rates))
        return cls(report, given.device, given.dtype, rates, given.repeats, **more)
