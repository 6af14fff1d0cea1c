"""Memory that a pair of frames needs, whole and in parts, as a markdown table.

    python benchmarks/memory.py [--device cpu] [--precision fp16] [--sizes 1920x1080] [--models 4.6] [--output FILE]

Each figure is the most that tensors hold at one moment, from an engine without any prepared frame to the finished new
frame (YUV420P8): without the weights, the two source frames, and what the libraries take for themselves. The parts are
what an engine falls back to when memory does not suffice.

On CUDA it is measured: what PyTorch's allocator had given out, with the graph that is recorded for pairs that are not
divided; below the table stands what all of that took on the host. On a CPU it is counted: every op gives a result of
its kind, size and precision without computing it, as the fused kernels do that need nothing besides. So it takes
seconds, for the half precision of a GPU too; nothing moves in these pictures, and parts overlap as little as they ever
do.
"""

from __future__ import annotations

import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.inputs import folded, format_of, pictures
from benchmarks.measure import Row, Size, arguments, begin, number
from vsrife.engine.engine import Engine
from vsrife.networks.fold import FoldedNet
from vsrife.ops.protocol import Axis, Conv, TransposedConv, WarpInputs

PARTS = (1, 2, 4, 8, 16)
HEAD = ("model", "size", "weights, MB", "whole, MB", *(f"in {parts} parts, MB" for parts in PARTS[1:]))


class Results:
    """Ops that make their result and leave it at zero."""

    @staticmethod
    def stack_dtype(dtype: torch.dtype) -> torch.dtype:
        """As on a GPU."""
        return torch.float16 if dtype == torch.float16 else torch.float32

    @staticmethod
    def planes_to_rgb(_planes: object, _transform: object, _clamps: bool, out: Tensor) -> Tensor:
        return out

    @staticmethod
    def sample(image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        return image.new_zeros(*image.shape[:2], len(rows.low), len(columns.low)) if accumulate is None else accumulate

    @staticmethod
    def upsample(maps: Sequence[Tensor], height: int, width: int, _accumulate: Tensor | None = None) -> Tensor:
        return maps[0].new_zeros(*maps[0].shape[:2], height, width)

    @staticmethod
    def warp_stacks(inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        return inputs.stack0.new_zeros(inputs.count, channels, *inputs.size, dtype=dtype)

    @staticmethod
    def warp_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
        """As on a GPU in half precision: flow is put together inside, but the stacks are written. Else as on a CPU."""
        if conv.weight.dtype.itemsize == 2:
            return Results.convolve(Results.warp_stacks(inputs, conv.weight.shape[1], conv.weight.dtype), conv)
        inputs.flow()
        height, width = (-(-side // conv.stride) for side in inputs.size)
        return conv.weight.new_zeros(inputs.count, len(conv.weight), height, width)

    @staticmethod
    def blend(a: Tensor, _b: Tensor, flow: Tensor, _weight0: Tensor) -> Tensor:
        return flow.new_zeros(len(flow), a.shape[1], *flow.shape[-2:])

    @staticmethod
    def static_radius(a: Tensor, _b: Tensor) -> Tensor:
        return torch.zeros_like(a, dtype=torch.int8)

    @staticmethod
    def static_edges(a: Tensor, *_rest: object) -> Tensor:
        return torch.zeros_like(a, dtype=torch.uint8)

    @staticmethod
    def blend_plane(a: Tensor, *_rest: object) -> Tensor:
        return torch.zeros_like(a)

    @staticmethod
    def convolve(x: Tensor, conv: Conv) -> Tensor:
        height, width = (-(-side // conv.stride) for side in x.shape[-2:])
        return x.new_zeros(len(x), len(conv.weight), height, width)

    @staticmethod
    def convolve_chain(x: Tensor, _convs: object) -> Tensor:
        return torch.zeros_like(x)

    @staticmethod
    def conv_transpose(x: Tensor, conv: TransposedConv) -> Tensor:
        factor = conv.factor
        height, width = (factor * side for side in x.shape[-2:])
        return x.new_zeros(len(x), len(conv.weight) // factor**2, height, width, dtype=torch.float32)

    @staticmethod
    def head(x: Tensor, convs: Sequence[Conv], _last: TransposedConv, out: Tensor) -> Tensor:
        """As on a GPU in half precision, layer by layer. Else as on a CPU, tile by tile."""
        if x.dtype.itemsize == 2:
            for conv in convs:
                x = Results.convolve(x, conv)
        return out


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """How much memory the tensors hold that are made inside, and the most that they ever did."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        for storage in (x.untyped_storage() for x in tree_leaves(result) if isinstance(x, Tensor)):
            if storage._cdata not in known:
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()  # type: ignore[no-untyped-call]
        self._storages = {key: held for key, held in self._storages.items() if not held[0].expired()}  # type: ignore[no-untyped-call]
        self.most = max(self.most, sum(size for _, size in self._storages.values()))
        return result


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most memory held at one moment of `work`, beyond what was held before."""
    if device.type != "cuda":
        results, anew = (
            patch("vsrife.networks.fold.choose", lambda *_given: Results),
            patch("vsrife.networks.pyramid.empty_channels_last", _anew),
        )
        with results, anew, Held() as held:
            work()
        most: int = held.most
        return most
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def _anew(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """In place of `empty_channels_last`, whose memory PyTorch knows nothing of."""
    return torch.empty(tuple(shape), dtype=dtype, device=device, memory_format=torch.channels_last)


def pair_bytes(net: FoldedNet, size: Size, parts: int) -> int | None:
    """The peak of a pair that is looked at in so many parts; None: this size is not divided so far."""
    fmt = format_of(size)
    left, right = pictures(size, net.device, 2)

    def work() -> None:
        engine = Engine(net, fmt)
        engine.oom.parts = parts
        engine.interpolate(left, right, 0.5, out="device")

    if parts > Engine(net, fmt).oom.most_parts:
        return None
    if net.device.type == "cuda":  # checks and workspaces of the first pair of a process
        work()
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # that it is divided
        return peak_bytes(work, net.device)


def weight_bytes(net: FoldedNet) -> int:
    """Of the weights as the network holds them, without copies that libraries reorder for themselves."""
    convs = [*net.head, net.head_last, *(conv for block in (*net.blocks, *net.retry) for conv in _layers(block))]
    tensors = (getattr(conv, name, None) for conv in convs for name in ("weight", "bias"))
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _layers(block: Any) -> Iterable[object]:
    return (block.first, block.time, block.second, *block.body, block.last)


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments((__doc__ or "").splitlines()[0], argv)
    report = begin(given, "Memory", given.device, given.dtype)

    def row(model: str, size: Size) -> Row:
        net = folded(model, given.device, given.dtype)
        peaks = (pair_bytes(net, size, parts) for parts in PARTS)
        cells = ("" if peak is None else number(peak / 1e6) for peak in peaks)
        return (model, str(size), number(weight_bytes(net) / 1e6), *cells)

    with torch.inference_mode():
        rows = report.table(HEAD, [partial(row, model, size) for model in given.models for size in given.sizes])
    if given.device.type == "cuda":  # elsewhere nothing was computed
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        report.add(f"This process, PyTorch and pinned memory included, held {number(held)} MiB of host memory at most.")
    return 0 if len(rows) == len(given.models) * len(given.sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
