"""Time and memory traffic of every op, as a markdown table.

    python benchmarks/ops.py [--device cuda] [--precision fp16] [--sizes 1920x1080] [--quick] [--output FILE]

Tensors are those of the last block of 4.25, and of a YUV420P8 picture. Bytes are what the op has to move at least once;
the share is that of the bandwidth which copying a large tensor reaches in the same run. Accuracy comes first: an op
that is wrong on this device is not timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor

from benchmarks.accuracy import wrong_ops
from benchmarks.inputs import BT709
from benchmarks.measure import Benchmark, Row, Size, arguments, milliseconds, number
from vsrife.engine.color import rgb_transform
from vsrife.engine.formats import PictureFormat
from vsrife.networks.catalogue import BODY_LAYERS
from vsrife.ops.dispatch import choose
from vsrife.ops.protocol import Axis, Conv, RgbTransform, TransposedConv, WarpInputs
from vsrife.ops.reference import reference

HEAD = ("op", "size", "ms", "plain PyTorch, ms", "ratio", "MB", "GB/s", "share of copying")


@dataclass(frozen=True, slots=True)
class Load:
    """An op with arguments of the size that a frame needs."""

    op: str
    note: str
    given: tuple[Any, ...]


def loads(size: Size, dtype: torch.dtype, device: torch.device) -> Iterable[Load]:
    """All ops as 4.25 uses them at full resolution."""
    height, width = -(-size.height // 64) * 64, -(-size.width // 64) * 64
    generator = torch.Generator().manual_seed(0)

    def maps(channels: int, factor: int, kind: torch.dtype = torch.float32) -> Tensor:
        shape = (1, channels, height // factor, width // factor)
        values = torch.rand(shape, generator=generator).to(device, kind)
        return values.contiguous(memory_format=torch.channels_last)

    def weights(*shape: int) -> Tensor:
        values = torch.rand(shape, generator=generator).sub_(0.5).div_(shape[1] ** 0.5).to(device, dtype)
        return values.contiguous(memory_format=torch.channels_last)

    flows, stacks = [20 * maps(4, factor) for factor in (2, 4, 8, 16)], (maps(7, 1), maps(7, 1))
    flow = reference.upsample(flows, height, width)
    grid = torch.arange(height, device=device).float()[:, None], torch.arange(width, device=device).float()
    time = torch.full((1, 1, 1, 1), 0.5, device=device)
    planes = [(255 * maps(1, 1)).to(torch.uint8).contiguous() for _ in range(2)]
    axes = [
        Axis.at((torch.arange(n // 2).double() + 0.5) * 2 - 0.5, n).to(device, torch.float32) for n in (height, width)
    ]
    bias = torch.zeros(32, dtype=dtype, device=device)
    fmt = PictureFormat("YUV", 8, False, width, height, 1, 1)
    picture = [planes[0], *(plane[..., ::2, ::2].contiguous() for plane in planes)]
    yield Load("planes_to_rgb", "YUV420P8", (picture, rgb_transform(fmt, BT709, device), True, maps(3, 1)))
    yield Load("sample", "chroma", (flow, *axes))
    yield Load("upsample", "1/2 to 1/16", (flows, height, width))
    warping = WarpInputs(*stacks, flows, lambda: flow, *grid, 1, maps(9, 2), time)
    yield Load("warp_stacks", "last block", (warping, 32, dtype))
    yield Load("warp_stacks", "flow known", (replace(warping, maps=[flow]), 32, dtype))
    first = Conv(weights(16, 32, 3, 3), torch.zeros(16, dtype=dtype, device=device), stride=2)
    yield Load("warp_convolve", "last block", (warping, first))
    yield Load("blend", "RGB", (stacks[0][:, :3], stacks[1][:, :3], flow, maps(1, 1)))
    yield Load("static_radius", "uint8", tuple(planes))
    yield Load("static_edges", "uint8", (*planes, reference.static_radius(*planes), 40.0))
    yield Load("blend_plane", "uint8", (*planes, flow, maps(1, 1), reference.static_radius(*planes), 255))
    yield Load("convolve", "32 to 32 at 1/4", (maps(32, 4, dtype), Conv(weights(32, 32, 3, 3), bias, residual=True)))
    yield Load("convolve", "32 to 16 at 1/2", (maps(32, 1, dtype), Conv(weights(16, 32, 3, 3), bias[:16], stride=2)))
    chain = tuple(Conv(weights(32, 32, 3, 3), bias, residual=True) for _ in range(BODY_LAYERS))
    yield Load("convolve_chain", "32 at 1/4", (maps(32, 4, dtype), chain))
    encoder = Conv(weights(16, 3, 3, 3), bias[:16], stride=2), *(Conv(weights(16, 16, 3, 3), bias[:16]),) * 2
    features = TransposedConv.of(weights(16, 4, 4, 4), bias[:4], False)
    yield Load("head", "16 to 4 channels", (maps(3, 1, dtype), encoder, features, stacks[0][:, 3:]))
    conv = TransposedConv.of(weights(32, 20, 4, 4), bias[:20], True)
    yield Load("conv_transpose", "32 to 5 at 1/1", (maps(32, 4, dtype), conv))


def nbytes(value: Any) -> int:
    """Bytes of all tensors in an argument or a result."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    if isinstance(value, Axis | Conv | TransposedConv | RgbTransform | WarpInputs):
        return sum(nbytes(getattr(value, name)) for name in value.__dataclass_fields__)
    return 0


class Rows(Benchmark):
    """Rows of the table on one device."""

    def row(self, load: Load, size: Size) -> Row:
        fast: Callable[..., Tensor] = getattr(choose(self.device, self.dtype), load.op)
        plain: Callable[..., Tensor] = getattr(reference, load.op)
        ms, plain_ms = milliseconds([partial(op, *load.given) for op in (fast, plain)], self.device, self.repeats)
        moved = sum(nbytes(value) for value in load.given) + nbytes(fast(*load.given))
        return (
            f"{load.op}, {load.note}", str(size), number(ms), number(plain_ms), number(plain_ms / ms),
            number(moved / 1e6), number(moved / ms / 1e6), f"{moved / ms * 1e5 / self.rates.bandwidth:.0f} %",
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("time and memory traffic of every op", argv)
    device, dtype = given.device, given.dtype
    with torch.inference_mode():
        rows = Rows.of(given, "Ops")
        report = rows.report
        # Where `all.py` runs this, accuracy came before.
        if not given.figures and (wrong := wrong_ops(choose(device, dtype), dtype, device)):
            report.add("Nothing is timed, since results are wrong:", "\n".join(wrong))
            return 1
        for size in given.sizes:
            report.table(HEAD, (partial(rows.row, load, size) for load in loads(size, dtype, device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
