"""What the benchmarks share: what they run on, how they time, how they write."""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout is enough, nothing has to be installed

import vsrife

LEAST_PSNR_DB = 48.0  # of whatever is timed, against float32; below, no time is printed


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


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(ways: Sequence[Callable[[], object]], device: torch.device, repeats: int) -> list[float]:
    """Median time of a call of each way, after one that does not count.

    The ways take turns, so that what else the machine does meets all alike. On a GPU the times are those of its own
    clock between two events, and short calls are repeated within a measurement.
    """
    inner = []
    for way in ways:
        way()
        wait(device)
        start = time.perf_counter()
        way()
        wait(device)
        inner.append(1 if device.type == "cpu" else max(1, min(20, int(0.005 / (time.perf_counter() - start)))))
    times = [[_time(way, device, n) for way, n in zip(ways, inner, strict=True)] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


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
    """What the device reaches in this run.

    Attributes:
        bandwidth: bytes/s that a copy of a large tensor reads and writes.
        arithmetic: operations/s of a matrix product of 4096, or of 1024 on a CPU.
    """

    bandwidth: float
    arithmetic: float

    @classmethod
    def of(cls, device: torch.device, dtype: torch.dtype) -> Rates:
        source = torch.empty((16 if device.type == "cpu" else 512) << 20, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        side = 1024 if device.type == "cpu" else 4096
        a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
        copying, multiplying = milliseconds([lambda: target.copy_(source), lambda: a @ b], device, 5)
        return cls(2e3 * source.nbytes / copying, 2e3 * side**3 / multiplying)

    def floor_ms(self, operations: float, moved: float) -> float:
        """The larger of the times that arithmetic and memory need at least."""
        return 1e3 * max(operations / self.arithmetic, moved / self.bandwidth)

    def __str__(self) -> str:
        return f"copies {self.bandwidth / 1e9:.0f} GB/s, matrix products {self.arithmetic / 1e12:.2f} TFLOP/s"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def facts(device: torch.device, dtype: torch.dtype) -> str:
    """What was measured on what, as a paragraph."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    name += f", {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, driver {_driver()}, CUDA {torch.version.cuda}, {name}"
    try:
        import triton

        name += f", Triton {triton.__version__}"
    except ImportError:
        pass
    return f"{name}, PyTorch {torch.__version__}, vsrife {vsrife.__version__}, {str(dtype).removeprefix('torch.')}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0]


def arguments(description: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options that all benchmarks have."""
    from vsrife.devices import parse_device, parse_precision

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", help="default: the best present")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16"], help="default: the best for the device")
    parser.add_argument("--sizes", nargs="+", type=Size.parse, help="default: 1280x720 1920x1080 3840x2160")
    parser.add_argument("--models", nargs="+", default=["4.6", "4.25"], help="published versions, with made weights")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="tiny pictures and few repeats: only whether it works")
    parser.add_argument("--output", type=Path, help="also write the tables here")
    given = parser.parse_args(argv)
    given.device = parse_device(given.device)
    given.dtype = parse_precision(given.precision, given.device)
    given.sizes = given.sizes or ([QUICK] if given.quick else [HD, FULL_HD, UHD])
    given.repeats = 2 if given.quick else given.repeats
    return given


class Report:
    """Prints what it is told, and keeps it for a file."""

    def __init__(self, output: Path | None) -> None:
        self.output, self.parts = output, list[str]()

    def add(self, *parts: str) -> None:
        self.parts += parts
        print("\n\n".join(parts), end="\n\n", flush=True)
        if self.output is not None:
            self.output.write_text("\n\n".join(self.parts) + "\n", encoding="utf-8")
