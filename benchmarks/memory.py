"""Memory that a pair of frames needs, whole and in parts, as a markdown table.

    python benchmarks/memory.py [--device cuda] [--precision fp16] [--sizes 1920x1080] [--models 4.6] [--output FILE]

Each figure is the most that PyTorch's allocator had given out at one moment, from an engine without any prepared frame
to the finished new frame (YUV420P8), less what it held before: so without the weights, which are told apart, without
the two source frames, and without what the libraries take for themselves. A recorded graph, which an engine on CUDA
keeps for pairs that are not divided, is part of it. Columns in parts show what an engine falls back to.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor

from benchmarks.inputs import folded, format_of, pictures
from benchmarks.measure import Row, Size, arguments, begin, number
from vsrife.engine import Engine
from vsrife.fold import FoldedNet

PARTS = (1, 2, 4, 8, 16)
HEAD = ("model", "size", "weights, MB", "whole, MB", *(f"in {parts} parts, MB" for parts in PARTS[1:]))


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that PyTorch's allocator has given out while `work` runs, beyond what it had before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # negative where memory is given back
        most = max(most, held)
    return most


def pair_bytes(net: FoldedNet, size: Size, parts: int) -> int | None:
    """The peak of a pair that is looked at in so many parts; None: this size is not divided so far."""
    fmt = format_of(size)
    left, right = pictures(size, net.device, 2)

    def work() -> None:
        engine = Engine(net, fmt)
        engine.thrift.parts = parts
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # that it is divided
            engine.compute(left, right, 0.5)

    if parts > Engine(net, fmt).thrift.most_parts:
        return None
    Engine(net, format_of(Size(128, 128))).compute(*pictures(Size(128, 128), net.device, 2), 0.5)  # what loads once
    return peak_bytes(work, net.device)


def weight_bytes(net: FoldedNet) -> int:
    """Of all weights as they are held for the network, without copies that libraries reorder for themselves."""
    convs = [*net.head, *(conv for block in (*net.blocks, *net.retry) for conv in _layers(block))]
    tensors = (
        t for conv in (*convs, net.head_last) for name in ("weight", "bias") for t in [getattr(conv, name, None)]
    )
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor))


def _layers(block: object) -> Iterable[object]:
    return (block.first, block.time, block.second, *block.body, block.last)  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments(__doc__.splitlines()[0], argv)
    report = begin(given, "Memory", given.device, given.dtype)

    def row(model: str, size: Size) -> Row:
        net = folded(model, given.device, given.dtype)
        peaks = (pair_bytes(net, size, parts) for parts in PARTS)
        cells = ("" if peak is None else number(peak / 1e6) for peak in peaks)
        return (model, str(size), number(weight_bytes(net) / 1e6), *cells)

    rows = report.table(HEAD, [partial(row, model, size) for model in given.models for size in given.sizes])
    return 0 if len(rows) == len(given.models) * len(given.sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
