"""What int8 would bring on a CPU: the body convolutions of some blocks in eight bits, their quality and their time.

    python benchmarks/int8.py [--clips FILE ...] [--size 640x360] [--timed 1280x720] [--rounds 9]

Weights are symmetric for each output channel, activations affine for each tensor, their range that of four pairs of
`examples/sample.mp4`. The convolution is oneDNN's for uint8 and int8 (VNNI); residual and LeakyReLU stay float32 and
quantise what the next layer reads on the way. PSNR is that of RGB frames against float32, for a pair of the sample that
the ranges have not seen and a pair of each clip. Times are CPU seconds of one thread, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numba
import numpy as np
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.accuracy import RGB, psnr
from benchmarks.engine import with_ops
from benchmarks.inputs import BUNDLED, folded, format_of, pictures
from benchmarks.measure import HD, SAMPLE, Report, Row, Size, facts, number
from vsrife.engine import Engine, Picture
from vsrife.fold import FoldedNet
from vsrife.ops import Ops
from vsrife.ops.reference import LEAKY_SLOPE, Conv
from vsrife.planes import PictureFormat

CPU = torch.device("cpu")
CALIBRATED = (2, 14, 26, 50)  # first frames of the pairs whose ranges count; a cut lies before frame 36
TESTED = 20
WINDOW = [1, 1], [1, 1], [1, 1], 1  # stride, padding, dilation, groups
Pair = tuple[Picture, Picture]
SPEED_HEAD = ("block", "channels", "map", "float32, ms", "int8, ms", "ratio")


@numba.njit(fastmath={"contract", "nsz"}, cache=True)
def _finish(sums, x, step, zero, y, small):  # type: ignore[no-untyped-def]
    """Residual and LeakyReLU, and the result in eight bits, in one pass."""
    slope, top, half = np.float32(LEAKY_SLOPE), np.float32(255), np.float32(0.5)
    for i in range(y.size):
        value = sums[i] + x[i]
        value = max(value, value * slope)
        y[i] = value
        small[i] = np.uint8(min(max(value * step + zero + half, np.float32(0)), top))


def _flat(x: Tensor) -> NDArray[Any]:
    """The values in the order of memory, channels last."""
    return x.permute(0, 2, 3, 1).reshape(-1).numpy()


@dataclass(slots=True)
class Layer:
    """A body convolution in eight bits, once its input's range is known."""

    conv: Conv
    low: float = 0.0
    high: float = 0.0
    scale: float = 1.0
    zero: int = 0
    weight: Tensor | None = None
    weight_scales: Tensor | None = None
    following: Layer | None = None

    def widen(self, x: Tensor) -> None:
        self.low, self.high = min(self.low, x.min().item()), max(self.high, x.max().item())

    def quantise(self) -> None:
        """The identity that was folded into float32 weights comes out again: it would decide their range."""
        self.scale = (self.high - self.low) / 255
        self.zero = round(-self.low / self.scale)
        weight = self.conv.weight.clone()
        index = torch.arange(len(weight))
        weight[index, index, 1, 1] -= 1
        self.weight_scales = weight.abs().amax((1, 2, 3)) / 127
        whole = (weight / self.weight_scales[:, None, None, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qconv_prepack(whole, self.weight_scales, self.scale, self.zero, *WINDOW, None)

    def small(self, x: Tensor) -> Tensor:
        return (x / self.scale + self.zero).round_().clamp_(0, 255).to(torch.uint8)

    def run(self, x: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's output, and the same as the following layer reads it."""
        assert self.weight is not None
        assert self.weight_scales is not None
        sums = torch.ops.onednn.qconv2d_pointwise(
            small, self.scale, self.zero, self.weight, self.weight_scales,
            torch.zeros(len(self.weight_scales), dtype=torch.int8), self.conv.bias, *WINDOW, 1.0, 0, torch.float32,
            "none", [], "",
        )  # fmt: skip
        y, reduced, reader = torch.empty_like(x), torch.empty_like(x, dtype=torch.uint8), self.following or self
        step, zero = np.float32(1 / reader.scale), np.float32(reader.zero)
        _finish(_flat(sums), _flat(x), step, zero, _flat(y), _flat(reduced))
        return y, reduced


@dataclass(slots=True)
class Mixed:
    """The ops of a network, with some convolutions in eight bits."""

    ops: Ops
    layers: dict[Conv, Layer]
    learns: bool = True
    last: tuple[Tensor | None, Tensor | None] = (None, None)
    inputs: dict[Conv, Tensor] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor:
        if not any(conv in self.layers for conv in convs):
            return self.ops.convolve_chain(x, convs)
        for conv in convs:
            x = self.convolve(x, conv)
        return x

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        layer = self.layers.get(conv)
        if layer is None:
            return self.ops.convolve(x, conv)
        if self.learns:
            layer.widen(x)
            self.inputs[conv] = x.clone(memory_format=torch.channels_last)
            return self.ops.convolve(x, conv)
        known, small = self.last
        y, reduced = layer.run(x, small if known is x and small is not None else layer.small(x))
        self.last = y, reduced
        return y


def mixed(net: FoldedNet, blocks: Iterable[int]) -> Mixed:
    """Ops with the bodies of these blocks in eight bits, still to learn the ranges."""
    layers: dict[Conv, Layer] = {}
    for index in blocks:
        chain = [Layer(conv) for conv in net.blocks[index].body]
        for layer, following in pairwise(chain):
            layer.following = following
        layers |= {layer.conv: layer for layer in chain}
    return Mixed(net.ops, layers)


def pair_of(path: Path, size: Size, first: int) -> Pair:
    """Two consecutive frames as RGB."""
    clip = vs.core.bs.VideoSource(str(path), cachemode=0)
    clip = clip.std.SetFrameProps(_Matrix=vs.MATRIX_BT709).resize.Bicubic(size.width, size.height, format=vs.RGBS)
    frames = [clip.get_frame(first + i) for i in range(2)]
    a, b = (Picture((str(path), first, i), [np.array(f[p]) for p in range(3)], RGB) for i, f in enumerate(frames))
    return a, b


def between(net: FoldedNet, pair: Pair) -> Tensor:
    height, width = pair[0].planes[0].shape
    planes = Engine(net, PictureFormat("RGB", 32, True, width, height)).interpolate(*pair, 0.5)
    assert planes is not None
    return torch.stack(planes)


def cpu_ms(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU time of each way, in turns, after one that does not count."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, seen in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            if turn:
                seen.append(1e3 * (time.process_time() - start))
    return [statistics.median(seen) for seen in times]


def speed_row(net: FoldedNet, ops: Mixed, index: int, rounds: int) -> Row:
    """The body of one block, with the inputs that it last had."""
    body = net.blocks[index].body
    x = ops.inputs[body[0]]
    float_ms, int_ms = cpu_ms([partial(each.convolve_chain, x, body) for each in (net.ops, ops)], rounds)
    shape = f"{x.shape[-1]}x{x.shape[-2]}"
    return str(index), str(x.shape[1]), shape, *map(number, (float_ms, int_ms, float_ms / int_ms))


def new_frame(engine: Engine, left: Picture, right: Picture) -> None:
    """What a running clip does for each frame: one prepared, one made."""
    engine.prepared.pop(right.key, None)
    engine.compute(left, right, 0.5)


def pair_row(net: FoldedNet, name: str, blocks: Iterable[int], size: Size, rounds: int) -> Row:
    """The whole engine."""
    nets = net, with_ops(net, learnt(net, blocks, size))
    frames = pictures(size, CPU, 2)
    float_ms, int_ms = cpu_ms([partial(new_frame, Engine(each, format_of(size)), *frames) for each in nets], rounds)
    return name, *map(number, (float_ms, int_ms, float_ms / int_ms))


def measure(report: Report, given: argparse.Namespace) -> None:
    net = folded(BUNDLED, CPU, torch.float32)
    pairs = {"sample": pair_of(SAMPLE, given.size, TESTED)}
    pairs |= {path.stem: pair_of(path, given.size, TESTED) for path in given.clips}
    exact = {name: between(net, pair) for name, pair in pairs.items()}
    variants = {"0 to 2": range(3), "all": range(net.layout.blocks), **{str(i): [i] for i in range(net.layout.blocks)}}
    report.add("PSNR against float32, dB, by the blocks whose bodies are int8:")

    def quality(name: str) -> Row:
        ops = learnt(net, variants[name], given.size)
        found = {pair: between(with_ops(net, ops), pairs[pair]) for pair in pairs}
        return name, *(f"{psnr(found[pair] - exact[pair]):.1f}" for pair in pairs)

    report.table(("blocks", *pairs), [partial(quality, name) for name in variants])
    ops = learnt(net, variants["all"], given.timed)
    report.add(f"CPU time of the eight layers of a block's body in a pair of {given.timed}, one thread:")
    report.table(SPEED_HEAD, [partial(speed_row, net, ops, i, given.rounds) for i in variants["all"]])
    report.add(f"CPU time of a new frame of {given.timed} YUV420P8 in the engine, one thread:")
    pair_rows = [partial(pair_row, net, n, variants[n], given.timed, given.rounds) for n in ("0 to 2", "all")]
    report.table(("blocks", "float32, ms", "int8, ms", "ratio"), pair_rows)


def learnt(net: FoldedNet, blocks: Iterable[int], size: Size) -> Mixed:
    """Ops that know the ranges."""
    ops = mixed(net, blocks)
    for first in CALIBRATED:
        between(with_ops(net, ops), pair_of(SAMPLE, size, first))
    for layer in ops.layers.values():
        layer.quantise()
    ops.learns = False
    return ops


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="what int8 would bring on a CPU")
    parser.add_argument("--clips", nargs="*", type=Path, default=[])
    parser.add_argument("--size", type=Size.parse, default=Size(640, 360), help="of the pairs that are compared")
    parser.add_argument("--timed", type=Size.parse, default=HD, help="of the pairs whose layers are timed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    report = Report(given.output, minutes=60)
    report.add("## int8 on a CPU", f"{facts(CPU)}. The bundled model.")
    with torch.inference_mode():
        measure(report, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
