"""What half-precision stacks cost, the frames and features that are warped: PSNR against float32, on a CPU.

    python benchmarks/half_stacks.py FOLDER [--models base lite] [--limit 6]

FOLDER holds triplets or videos, as for `training.evaluate`; their first and last pictures are the pairs, of videos at
2x. Frames are float RGB, not rounded to codes. The CUDA kernels hold stacks in half precision; here the reference does,
once with convolutions in float32, which shows the stacks' share alone, and once with all in half precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor

from benchmarks.accuracy import RGB, psnr
from benchmarks.engine import with_ops
from benchmarks.inputs import folded
from benchmarks.measure import Report, Row
from training.evalsets import EvalSet, Item, find_sets
from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.networks.fold import FoldedNet
from vsrife.ops.protocol import Conv, RgbTransform, TransposedConv
from vsrife.ops.reference import Reference, reference

CPU = torch.device("cpu")
HEAD = (
    "model", "set", "pairs", "half stacks, least", "mean", "half convolutions, least", "mean", "both, least", "mean",
)  # fmt: skip


class HalfStacks(Reference):
    """The reference with every number of a stack rounded to half precision."""

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        return out.copy_(super().planes_to_rgb(planes, transform, clamps, out).half())

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
        return out.copy_(super().head(x, convs, last, out).half())


def nets_of(model: str) -> list[FoldedNet]:
    """In float32; with stacks, with convolutions, and with both in half precision."""
    exact, half = (folded(model, CPU, dtype) for dtype in (torch.float32, torch.float16))
    ways = ((exact, reference), (exact, HalfStacks()), (half, reference), (half, HalfStacks()))
    return [with_ops(net, ops) for net, ops in ways]


def between(net: FoldedNet, item: Item) -> Tensor:
    """The middle frame, (3, H, W) of 0..1."""
    height, width = item.first.shape[:2]
    first, last = (
        InputFrame(i, list(torch.from_numpy(picture.transpose(2, 0, 1) / 255).float()), RGB)
        for i, picture in enumerate((item.first, item.last))
    )
    planes = Engine(net, PictureFormat("RGB", 32, True, width, height)).interpolate(first, last, 0.5, out="device")
    assert planes is not None
    return torch.stack(planes)


def row(model: str, evalset: EvalSet) -> Row:
    nets, scores = nets_of(model), []
    for item in evalset.items():
        exact, *others = (between(net, item) for net in nets)
        scores.append([psnr(other - exact) for other in others])
    cells = [f"{figure(column):.1f}" for column in zip(*scores, strict=True) for figure in (min, _mean)]
    return (model, evalset.name, str(len(scores)), *cells)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="PSNR of half-precision stacks against float32")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=["base", "lite"])
    parser.add_argument("--limit", type=int, default=6, help="pairs of each set")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    sets = [evalset.limited(given.limit) for evalset in find_sets(given.folder, (2,))]
    with torch.inference_mode():
        rows = [partial(row, model, evalset) for model in given.models for evalset in sets]
        Report(given.output, minutes=60).table(HEAD, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
