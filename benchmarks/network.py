"""Milliseconds per pair of the network alone, against the published forward and torch.compile of it, in one run.

    python benchmarks/network.py [--device cuda] [--sizes 1920x1080] [--models 4.6 default] [--quick] [--output FILE]

Both forwards have the same weights and precision and take turns. Ours encodes the new frame of a running clip alone;
the published one encodes both. Floors stand beside: operations over the rate of a large matrix product or bytes over
the bandwidth of a large copy, whichever is longer. `moved once` counts two frames read and one written, `layers` lets
every layer read its input and write its output.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.inputs import folded, published, weights_of
from benchmarks.measure import FULL_HD, HD, Benchmark, Row, Size, arguments, milliseconds, number
from vsrife.networks import pyramid
from vsrife.networks.catalogue import BODY_LAYERS, IMAGE_CHANNELS, Layout

HEAD = ("model", "size", "ms per pair", "published, ms", "ratio", "floor moved once, ms", "floor layers, ms")
COMPILED_HEAD = ("model", "size", "ms per pair", "published, ms", "ratio", "torch.compile of it, ms", "ratio")


@dataclass(frozen=True, slots=True)
class Work:
    """Work of one pair with one newly encoded frame.

    Attributes:
        operations: multiplications and additions.
        least: bytes, when two frames are read, one is written, weights are read once and heads are kept per frame.
        layers: bytes, when every convolution reads its input and writes its output once.
    """

    operations: float
    least: float
    layers: float


def work(layout: Layout, size: Size, itemsize: int) -> Work:
    """Count operations and bytes from the channels of a layout."""
    width, height = layout.padded(size.width, size.height, 1.0)
    area = width * height
    macs, values = 0.0, 0.0

    def layer(inputs: int, outputs: int, places: float, read: float, taps: int = 9, groups: int = 1) -> None:
        nonlocal macs, values
        macs += taps * inputs * outputs / groups * places
        values += inputs * read + outputs * (places if taps == 9 else 4 * places) + taps * inputs * outputs / groups

    if layout.head:
        layer(IMAGE_CHANNELS, layout.head.hidden, area / 4, area)
        for _ in range(layout.head.inner):
            layer(layout.head.hidden, layout.head.hidden, area / 4, area / 4)
        layer(layout.head.hidden, layout.head.channels, area / 4, area / 4, taps=16)
    for i, (c, s) in enumerate(zip(layout.widths, layout.scales, strict=True)):
        cells = area / s**2
        layer(layout.block_inputs(i), c // 2, cells / 4, cells)
        layer(c // 2, c, cells / 16, cells / 4)
        for _ in range(BODY_LAYERS):
            layer(c, c, cells / 16, cells / 16, groups=layout.groups)
        used = layout.outputs if i < layout.blocks - 1 and layout.carried_channels else 5
        layer(c, used * (4 if layout.shuffles else 1), cells / 16, cells / 16, taps=16)
    least = (3 * IMAGE_CHANNELS + 3 * layout.feature_channels) * area + layout.parameters()
    return Work(2 * macs, least * itemsize, values * itemsize)


def ways(model: str, size: Size, device: torch.device, dtype: torch.dtype) -> list[Callable[[], Tensor]]:
    """One pair by our forward and by the published one, same precision and weights."""
    net, naive = folded(model, device, dtype), published(model, device, dtype)
    width, height = net.layout.padded(size.width, size.height, 1.0)
    frames = [f.clamp(0, 1) for f in torch.rand((2, 1, 3, height // 8, width // 8), device=device)]
    frame0, frame1 = (F.interpolate(f, size=(height, width), mode="bicubic").clamp(0, 1) for f in frames)
    half0, half1 = (frame.to(next(naive.parameters()).dtype) for frame in (frame0, frame1))
    known = pyramid.encode(net, frame0)

    def ours() -> Tensor:
        new = pyramid.encode(net, frame1)
        field = pyramid.estimate(net, known, new, 0.5)
        weight0 = torch.sigmoid(field.mask(height, width))
        return net.ops.blend(known.stack[:, :3], new.stack[:, :3], field.flow(), weight0)

    def naively() -> Tensor:
        image: Tensor = naive(half0, half1, 0.5).image
        return image

    return [ours, naively]


@dataclass(frozen=True, slots=True)
class Rows(Benchmark):
    """Rows of the tables on one device."""

    backend: str  # of torch.compile

    def row(self, model: str, size: Size) -> Row:
        ms, theirs = milliseconds(ways(model, size, self.device, self.dtype), self.device, self.repeats)
        done = work(weights_of(model)[0], size, self.dtype.itemsize)
        floors = [self.rates.floor_ms(done.operations, moved) for moved in (done.least, done.layers)]
        self.report.seen(f"network, {model}, {size}, times the published forward", theirs / ms, theirs / floors[0])
        return model, str(size), *map(number, (ms, theirs, theirs / ms, *floors))

    def compiled_row(self, model: str, size: Size) -> Row:
        ours, naively = ways(model, size, self.device, self.dtype)
        all_ways = [ours, naively, torch.compile(naively, backend=self.backend)]
        ms, theirs, compiled = milliseconds(all_ways, self.device, self.repeats)
        return model, str(size), *map(number, (ms, theirs, theirs / ms, compiled, compiled / ms))


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("milliseconds per pair of the network alone", argv)
    with torch.inference_mode():
        rows = Rows.of(given, "Network", backend="eager" if given.quick else "inductor")
        report = rows.report
        report.table(HEAD, [partial(rows.row, model, size) for size in given.sizes for model in given.models])
        # Compiling takes a minute for each shape, so that one size has to do.
        usual = HD if given.device.type == "cpu" else FULL_HD
        size = usual if usual in given.sizes else given.sizes[0]
        report.add("Against torch.compile of the published forward, compiled for this size:")
        models = {weights_of(model)[0].id: model for model in given.models}  # one of each layout
        report.table(COMPILED_HEAD, [partial(rows.compiled_row, model, size) for model in models.values()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
