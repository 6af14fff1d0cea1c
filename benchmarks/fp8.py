"""What fp8 would bring on a GPU: the body convolutions in eight bits, their quality anywhere and their time on a GPU.

    python benchmarks/fp8.py [--device cuda] [--sizes 1920x1080] [--clips FILE ...] [--output FILE]

Time is that of the product of matrices which such a convolution amounts to (pixels by 9 * channels, by channels) in fp8
and in the network's precision. That is the most an fp8 convolution could save, since gathering and rounding its inputs
are left out. It needs a GPU that multiplies fp8 (compute capability 8.9 or later).

Quality is emulated: weights and inputs of the body convolutions are rounded to float8_e4m3fn, weights with a scale for
each output channel, inputs with one for each tensor; sums, residual and what follows stay as they are. PSNR is that of
RGB frames against the same network without it, for the bundled model. It needs PyAV.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy import RGB, psnr
from benchmarks.engine import with_ops
from benchmarks.inputs import BUNDLED, folded
from benchmarks.measure import FULL_HD, SAMPLE, Report, Row, Size, begin, milliseconds, number, parser
from vsrife.engine.color import PictureFormat
from vsrife.engine.devices import parse_device, parse_precision
from vsrife.engine.engine import Engine, Picture
from vsrife.networks.fold import FoldedNet
from vsrife.ops.dispatch import Ops
from vsrife.ops.reference import Conv, activate

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
LEAST_CAPABILITY = (8, 9)
FIRST_FRAME = 20  # of each clip's pair
WIDTH_PX = 640  # that clips are reduced to
SPEED_HEAD = ("block", "product", "precision, ms", "fp8, ms", "ratio", "TFLOP/s in fp8")


def rounded(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`x` as fp8 holds it, with a scale for what lies along `axes`."""
    scale = (x.abs().amax(axes, keepdim=True) / LARGEST).clamp_min(1e-12)
    return (x / scale).to(FP8).to(x.dtype) * scale


@dataclass(frozen=True, slots=True)
class Rounding:
    """The ops of a network, with some convolutions in eight bits."""

    ops: Ops
    weights: dict[Conv, Tensor]

    @classmethod
    def of(cls, net: FoldedNet, blocks: Iterable[int]) -> Rounding:
        return cls(net.ops, {conv: _weight(conv) for i in blocks for conv in net.blocks[i].body})

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        if conv not in self.weights:
            return self.ops.convolve(x, conv)
        y = F.conv2d(rounded(x, (0, 1, 2, 3)), self.weights[conv], conv.bias, padding=1) + x
        return activate(y, conv.slopes)

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor:
        for conv in convs:
            x = self.convolve(x, conv)
        return x


def _weight(conv: Conv) -> Tensor:
    """Without the identity that float32 weights have taken in: it would decide their scale."""
    weight = conv.weight.clone()
    if not conv.residual:
        index = torch.arange(len(weight), device=weight.device)
        weight[index, index, 1, 1] -= 1
    return rounded(weight, (1, 2, 3))


def pair_of(path: Path) -> tuple[Picture, Picture]:
    """Two consecutive frames as RGB."""
    import av  # here, so that speed can be measured where only PyTorch is installed

    with av.open(str(path)) as container:
        frames = list(islice(container.decode(video=0), FIRST_FRAME, FIRST_FRAME + 2))
    width = min(frames[0].width, WIDTH_PX)
    height = frames[0].height * width // frames[0].width
    pictures = list[Picture]()
    for frame in frames:
        pixels = torch.from_numpy(frame.reformat(width, height, "rgb24").to_ndarray()).float() / 255
        pictures.append(Picture(len(pictures), [plane.contiguous() for plane in pixels.unbind(-1)], RGB))
    return pictures[0], pictures[1]


def between(net: FoldedNet, pair: tuple[Picture, Picture]) -> Tensor:
    height, width = pair[0].planes[0].shape
    planes = Engine(net, PictureFormat("RGB", 32, True, width, height)).interpolate(*pair, 0.5)
    assert planes is not None
    return torch.stack(planes)


def quality(report: Report, device: torch.device, dtype: torch.dtype, clips: Sequence[Path]) -> None:
    net = folded(BUNDLED, device, dtype)
    pairs = {path.stem: pair_of(path) for path in clips}
    exact = {name: between(net, pair) for name, pair in pairs.items()}
    blocks = range(net.layout.blocks)
    variants = {"all": blocks, "0 to 2": range(3), "last": blocks[-1:]}

    def row(name: str) -> Row:
        other = with_ops(net, Rounding.of(net, variants[name]))
        return name, *(f"{psnr(between(other, pairs[pair]) - exact[pair]):.1f}" for pair in pairs)

    report.add("PSNR against the network without fp8, dB, the bundled model, by the blocks whose bodies are fp8:")
    report.table(("blocks", *pairs), [partial(row, name) for name in variants])


def speed_row(net: FoldedNet, index: int, size: Size, repeats: int) -> Row:
    """A body layer of one block as a product of matrices."""
    conv, scale = net.blocks[index].body[0], 4 * net.blocks[index].scale
    width, height = net.layout.padded(size.width, size.height, 1.0)
    outputs, inputs = len(conv.weight), 9 * conv.weight.shape[1]
    pixels = -(-int(width / scale) * int(height / scale) // 16) * 16
    a = torch.rand((pixels, inputs), device=net.device).to(net.dtype)
    b = torch.rand((outputs, inputs), device=net.device).to(net.dtype).t()  # fp8 wants columns in a row
    small_a, small_b, one = a.to(FP8), b.to(FP8), torch.ones((), device=net.device)
    ways: list[Callable[[], object]] = [
        lambda: a @ b,
        lambda: torch._scaled_mm(small_a, small_b, scale_a=one, scale_b=one, out_dtype=net.dtype),
    ]
    ms, fp8_ms = milliseconds(ways, net.device, repeats)
    rate = 2 * pixels * inputs * outputs / fp8_ms / 1e9
    return (
        str(index), f"{pixels}x{inputs}x{outputs}", number(ms), number(fp8_ms), number(ms / fp8_ms), number(rate),
    )  # fmt: skip


def speed(report: Report, net: FoldedNet, sizes: Sequence[Size], repeats: int) -> None:
    if net.device.type != "cuda" or torch.cuda.get_device_capability(net.device) < LEAST_CAPABILITY:
        report.add(f"Not timed: {net.device} does not multiply fp8.")
        return
    for size in sizes:
        report.add(f"4.25, a layer of each block's body as a product of matrices, {size}:")
        report.table(SPEED_HEAD, [partial(speed_row, net, i, size, repeats) for i in range(net.layout.blocks)])


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("what fp8 would bring on a GPU")
    options.add_argument("--clips", nargs="*", type=Path, default=[])
    given = options.parse_args(argv)
    device = parse_device(given.device)
    dtype = parse_precision(given.precision, device)
    report = begin(given, "fp8", device, dtype)
    with torch.inference_mode():
        speed(report, folded("4.25", device, dtype), given.sizes or [FULL_HD], given.repeats)
        if importlib.util.find_spec("av") is None:
            report.add("PSNR was not measured: PyAV is not installed.")
        else:
            quality(report, device, dtype, [SAMPLE, *given.clips])
    return 0


if __name__ == "__main__":
    sys.exit(main())
