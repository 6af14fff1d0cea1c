"""A running clip through the engine: times, memory, the first frame, and what moves through memory where.

    python benchmarks/engine.py [--device cuda] [--sizes 1920x1080] [--models 4.6 default] [--quick] [--output FILE]

Needs PyTorch, NumPy and a checkout. Pictures are YUV420P8; weights of published versions are made. The traffic counts
what every step reads and writes, once each; its floor is that over the bandwidth of a large copy in the same run.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.inputs import folded, format_of, pictures, weights_of
from benchmarks.measure import (
    FULL_HD,
    ROOT,
    Benchmark,
    Rates,
    Row,
    Size,
    arguments,
    milliseconds,
    number,
    wait,
)
from benchmarks.network import work
from benchmarks.ops import nbytes
from benchmarks.traffic import of_kernels, of_plain
from vsrife.engine.engine import Engine
from vsrife.engine.sources import InputFrame
from vsrife.networks.cancellation import never
from vsrife.networks.fold import FoldedNet
from vsrife.ops import dispatch
from vsrife.ops.protocol import OP_NAMES, Ops

HEAD = (
    "model", "size", "ms per new frame", "output frames/s at 2x", "after a seek, ms", "GB a pair", "launches a pair",
    "floor moved once, ms", "device MiB", "host MiB",
)  # fmt: skip
FIRST_HEAD = ("model", "size", "nothing compiled, s", "another filter, same process, s")
TRAFFIC_HEAD = ("step", "calls", "ms", "MB", "GB/s", "floor, ms", "share of time")
COLD = ("TRITON_CACHE_DIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME")
FIRST_FRAME = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
sys.path.insert(0, {root!r})
import torch
from benchmarks.inputs import folded, format_of, pictures, weights_of
from benchmarks.measure import Size
from vsrife.engine.engine import Engine
device = torch.device({device!r})
torch.zeros(1, device=device)
size = Size({width}, {height})
frames = pictures(size, torch.device("cpu"), 2)
weights_of({model!r})
net = None
def first_frame():
    global net
    start = time.perf_counter()
    net = net or folded({model!r}, device, torch.{dtype})
    planes = Engine(net, format_of(size)).interpolate(*frames, 0.5).planes()
    print(time.perf_counter() - start)
for _ in range(2):  # a thread for each, as each filter has its own
    with ThreadPoolExecutor(1) as pool:
        pool.submit(first_frame).result()
"""


@dataclass(frozen=True, slots=True)
class Rows(Benchmark):
    """The tables' rows on one device."""

    steps: int  # pairs of a running clip that are timed together

    def row(self, model: str, size: Size) -> Row:
        """Arrays in and out, one frame in flight, as the filter has them: nothing else waits for the device."""
        net, frames = folded(model, self.device, self.dtype), _arrays(size, self.steps + 1)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        engine = Engine(net, format_of(size))
        (ms,) = milliseconds([partial(_clip, engine, frames)], self.device, max(2, self.repeats // 3))
        per_frame = ms / self.steps
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as pool:  # a new filter brings a thread and an engine of its own
            pool.submit(lambda: _clip(Engine(net, format_of(size)), frames[:2])).result()
        seek = 1e3 * (time.perf_counter() - start)
        done = work(net.layout, size, self.dtype.itemsize)
        floor = self.rates.floor_ms(done.operations, done.least)
        self.report.seen(f"engine, {model}, {size}, ms per new frame", per_frame, floor)
        self.report.seen(f"engine with transfers, {model}, {size}, output frames/s", 2e3 / per_frame, 2e3 / floor)
        peak = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        counted = self._counted(model, size)
        return (
            model, str(size), *map(number, (per_frame, 2e3 / per_frame, seek)), *counted,
            *map(number, (floor, peak, host)),
        )  # fmt: skip

    def _counted(self, model: str, size: Size) -> tuple[str, str]:
        """GB and launches of a pair on CUDA; kernels of a CPU are not counted."""
        if self.device.type != "cuda":
            return "", ""
        way = of_kernels if dispatch.uses_kernels(self.device) else of_plain
        counted = way(model, size, self.dtype)
        return number(counted.moved / 1e9), str(counted.launches)

    def first_frame_row(self, model: str, size: Size, cold: bool) -> Row:
        first, again = first_frames(model, size, self.device, self.dtype, cold)
        self.report.seen("first frame, nothing compiled, s", first)
        self.report.seen("first frame, same process, s", again)
        return model, str(size), number(first), number(again)


def _arrays(size: Size, count: int) -> list[InputFrame]:
    """`pictures` as the filter hands them over."""
    frames = pictures(size, torch.device("cpu"), count)
    return [InputFrame(f.key, [torch.as_tensor(plane).numpy() for plane in f.planes], f.color) for f in frames]


def _clip(engine: Engine, frames: Sequence[InputFrame]) -> None:
    """The new frames of a clip; each is read when the next has been begun."""
    engine.cache.clear()
    before = None
    for frame0, frame1 in pairwise(frames):
        begun = engine.interpolate(frame0, frame1, 0.5)
        if before is not None:
            before.planes()
        before = begun
    if before is not None:
        before.planes()


def first_frames(model: str, size: Size, device: torch.device, dtype: torch.dtype, cold: bool) -> tuple[float, float]:
    """Seconds to the first frame of a new process, with nothing compiled if `cold`, and of the next filter in it."""
    with tempfile.TemporaryDirectory() as folder:
        script = FIRST_FRAME.format(
            root=str(ROOT), device=str(device), width=size.width, height=size.height, model=model,
            dtype=str(dtype).removeprefix("torch."),
        )  # fmt: skip
        environment = os.environ | dict.fromkeys(COLD if cold else (), folder)
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the first frame failed: {done.stderr[-2000:]}")
    first, second = (float(text) for text in done.stdout.split())
    return first, second


# --- memory traffic ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Step:
    """What one kind of step did in a pair."""

    calls: int = 0
    seconds: float = 0.0
    moved: int = 0  # bytes read and written


@dataclass
class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the ops of a network, and PyTorch's own between them."""

    device: torch.device
    steps: dict[str, Step] = field(default_factory=dict)
    inside: bool = False  # an op of the network: what PyTorch does for it is not counted again
    others: float = 0  # seconds of steps within the present one: on a CPU, warping asks for flow that is put together

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        wait(self.device)
        start, around, self.others = time.perf_counter(), self.others, 0
        step = self.steps.setdefault(name, Step())
        yield step
        wait(self.device)
        seconds = time.perf_counter() - start
        step.seconds += seconds - self.others
        step.calls += 1
        self.others = around + seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.inside:
            return func(*args, **(kwargs or {}))
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        with self._step(f"PyTorch: {func.__name__.partition('.')[0]}") as step:
            result = func(*args, **(kwargs or {}))
        written = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        known = {_memory(x) for x in read if x.numel()}
        view = all(_memory(x) in known for x in written)
        if not view or func._schema.is_mutable:
            step.moved += sum(map(nbytes, read)) + sum(map(nbytes, written))
        return result

    def watched(self, ops: Ops) -> Ops:
        """The same ops, counted."""

        class Watched:
            def __getattr__(_, name: str) -> Any:  # noqa: N805
                return partial(self._op, name, getattr(ops, name)) if name in OP_NAMES else getattr(ops, name)

        return cast(Ops, Watched())

    def _op(self, name: str, op: Callable[..., Any], *given: Any) -> Any:
        around = self.inside
        with self._step(name) as step:
            self.inside = True
            try:
                result = op(*given)
            finally:
                self.inside = around
        step.moved += sum(map(nbytes, (*given, result)))
        return result


def _memory(tensor: Tensor) -> int:
    """The address of what a tensor shares with its views."""
    return tensor.data_ptr() - int(tensor.storage_offset()) * tensor.itemsize


def with_ops(net: FoldedNet, ops: Ops) -> FoldedNet:
    """The same network with other ops."""

    class Other(FoldedNet):
        @property
        def ops(self) -> Ops:
            return ops

    return Other(**{each.name: getattr(net, each.name) for each in fields(net)})


def traffic(model: str, size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Step]:
    """The steps of one pair of a running clip: one frame prepared, one made. Times include the counting."""
    net, counter = folded(model, device, dtype), Traffic(device)
    engine = Engine(with_ops(net, counter.watched(net.ops)), format_of(size))
    first, second, third = pictures(size, device, 3)
    engine._interpolate(first, second, 0.5, never)  # on this thread, whose operations alone are counted
    counter.steps.clear()
    with counter:
        engine._interpolate(second, third, 0.5, never)
    return counter.steps


def traffic_rows(steps: dict[str, Step], rates: Rates) -> Iterable[Row]:
    """The largest first; what moves less than a hundredth is one row."""
    total = Step(*(sum(getattr(s, name) for s in steps.values()) for name in ("calls", "seconds", "moved")))
    large = {n: s for n, s in steps.items() if max(s.moved / total.moved, s.seconds / total.seconds) >= 0.01}
    small = [s for name, s in steps.items() if name not in large]
    rest = Step(*(sum(getattr(s, name) for s in small) for name in ("calls", "seconds", "moved")))
    ordered = sorted(large.items(), key=lambda item: -item[1].seconds)
    for name, step in (*ordered, ("the rest", rest), ("all", total)):
        floor = step.moved / rates.bandwidth
        rate = step.moved / step.seconds / 1e9 if step.seconds else 0.0
        yield (
            name, str(step.calls), number(1e3 * step.seconds), number(step.moved / 1e6), number(rate),
            number(1e3 * floor), f"{floor / step.seconds:.0%}" if step.seconds else "-",
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("a running clip through the engine", argv)
    device, dtype = given.device, given.dtype
    size = FULL_HD if device.type == "cuda" and FULL_HD in given.sizes else given.sizes[0]
    with torch.inference_mode():
        rows = Rows.of(given, "Engine", steps=2 if given.quick else 4 if device.type == "cpu" else 8)
        report = rows.report
        report.table(HEAD, [partial(rows.row, model, size) for size in given.sizes for model in given.models])
        report.add("The first frame, loading PyTorch and making the weights apart:")
        report.table(FIRST_HEAD, [partial(rows.first_frame_row, given.models[0], size, not given.quick)])
        for layout, model in {weights_of(model)[0].id: model for model in given.models}.items():
            report.add(f"Memory traffic of one pair at {size}, {model} (layout {layout}), step by step:")
            seen = traffic(model, size, device, dtype)
            report.table(TRAFFIC_HEAD, [partial(tuple[str, ...], row) for row in traffic_rows(seen, rows.rates)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
