"""Every op in plain PyTorch: the ground truth that faster twins are tested against.

Coordinates are pixels with half-pixel centres: sample i covers [i, i + 1) and its centre is i + 0.5. Arithmetic is in
the dtype of the arguments; coordinates, flow and blend weights are float32 (float64 in tests), never half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LEAKY_SLOPE = 0.2  # of every LeakyReLU in the network


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Conv:
    """A 3x3 convolution with its activation: LeakyReLU, or PReLU where `slopes` is given, or none.

    Where `scales` is given the weights are int8 and the input is used in eight bits as well (`quantize`).
    """

    weight: Tensor  # (out, in / groups, 3, 3)
    bias: Tensor | None  # (out,)
    stride: int = 1
    groups: int = 1
    slopes: Tensor | None = None  # (out,)
    residual: bool = False  # add the input before the activation
    activated: bool = True
    scales: Tensor | None = None  # (out,), what a weight of 1 stands for


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize by bilinear interpolation with half-pixel centres and no antialiasing.

    Args:
        image: (N, C, H, W).
        height: of the result.
        width: of the result.

    Returns:
        (N, C, height, width). Output pixel i reads source position (i + 0.5) * H / height - 0.5, clamped to the image.
        Reducing by an even integer s reads the 2x2 samples at the centre of each s x s cell. Equal sizes give a copy
        of the input unchanged.
    """
    if image.shape[-2:] == (height, width):
        return image
    if image.shape[1] == 0:  # layouts without carried features; PyTorch refuses to enlarge nothing
        return image.new_empty((image.shape[0], 0, height, width))
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the samples of one axis are read: two neighbours and the weight of the second.

    Attributes:
        low: (L,) int64, index of the first neighbour.
        high: (L,) int64, index of the second.
        weight: (L,) weight of the second, 0..1.
    """

    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def at(cls, positions: Tensor, size: int) -> Axis:
        """Read at `positions` (L,), as sample indices, of an axis of `size` samples; outside, the border sample counts.

        Args:
            positions: (L,) float64, since 1/3 pixel of error at 8K is what float32 positions times scale would cost.
            size: number of samples on the axis.
        """
        clamped = positions.clamp(0, size - 1)
        low = clamped.floor()
        return cls(
            low=low.long(),
            high=(low.long() + 1).clamp_max(size - 1),
            weight=(clamped - low),
        )

    @classmethod
    def resizing(cls, count: int, size: int) -> Axis:
        """Where the samples of an axis of `size` lie that is resized to `count` samples, as `resize` does it."""
        return cls.at((torch.arange(count, dtype=torch.float64) + 0.5) * (size / count) - 0.5, size)

    def to(self, device: torch.device, dtype: torch.dtype) -> Axis:
        return Axis(self.low.to(device), self.high.to(device), self.weight.to(device, dtype))


@dataclass(frozen=True, slots=True, eq=False)
class RgbTransform:
    """How RGB follows from the samples of a picture: one linear map for all formats.

    Attributes:
        weight: (3, planes), what one code of each plane adds to red, green and blue.
        bias: (3,), what codes of 0 give.
        rows: where the rows of the first plane lie in the second and third; None where all are of one size.
        columns: the same along the other axis.
    """

    weight: Tensor
    bias: Tensor
    rows: Axis | None = None
    columns: Axis | None = None


def sample(image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
    """Bilinear interpolation of `image` on the grid rows x columns.

    Args:
        image: (N, C, H, W), of a float dtype.
        rows: where along H.
        columns: where along W.
        accumulate: (N, C, len(rows), len(columns)), a sum to add the result to; it may be overwritten.

    Returns:
        (N, C, len(rows), len(columns)), dtype of `image`.
    """
    top = image.index_select(-2, rows.low)
    image = torch.lerp(top, image.index_select(-2, rows.high), rows.weight[:, None].to(image.dtype))
    left = image.index_select(-1, columns.low)
    result = torch.lerp(left, image.index_select(-1, columns.high), columns.weight.to(image.dtype))
    return result if accumulate is None else accumulate.add_(result)


def planes_to_rgb(planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
    """RGB of a picture, with zeros to its right and below.

    Args:
        planes: per plane (1, 1, h, w), in any samples.
        transform: what they mean.
        clamps: whether RGB is limited to 0..1.
        out: (1, 3, H, W), at least as large as the first plane, of any float dtype and memory; it is overwritten.

    Returns:
        `out`.
    """
    samples = [plane.to(transform.weight.dtype) for plane in planes]
    if transform.rows is not None and transform.columns is not None:
        samples[1:] = [sample(plane, transform.rows, transform.columns) for plane in samples[1:]]
    image = transform.bias[:, None, None]
    for plane, weight in zip(samples, transform.weight.unbind(1), strict=True):
        image = torch.addcmul(image, weight[:, None, None], plane)
    if clamps:
        image = image.clamp_(0, 1)
    height, width = image.shape[-2:]
    return out.copy_(F.pad(image, (0, out.shape[-1] - width, 0, out.shape[-2] - height)))


def warp(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read `image` at positions given for every output pixel (backward warp).

    Args:
        image: (N, C, H, W), or (1, C, H, W) for any N.
        x: (N, h, w) or (1, h, w), position in samples of `image`: 0 is the centre of the first column.
        y: the same along H.

    Returns:
        (N, C, h, w), dtype of `image`; bilinear; outside the image the nearest border sample counts.

    Source: `model/warplayer.py` of the authors' release (Huang et al., RIFE, ECCV 2022), without its grid in -1..1
    over `linspace`, whose float32 error is two to four times that of adding the flow to the index.
    """
    height, width = image.shape[-2:]
    # grid_sample wants -1..1; clamping first keeps flows of any size (and an axis of one sample) finite.
    grid_x = x.clamp(0, width - 1) * (2 / max(width - 1, 1)) - 1
    grid_y = y.clamp(0, height - 1) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack((grid_x, grid_y), dim=-1).to(image.dtype)
    count = max(len(grid), len(image))
    grid, image = grid.expand(count, -1, -1, -1), image.expand(count, -1, -1, -1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def upsample(maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
    """The sum of small maps, each enlarged once.

    Args:
        maps: each (N, C, any, any).
        height: of the result.
        width: of the result.
        accumulate: (N, C, height, width), a sum to add them to.

    Returns:
        (N, C, height, width): `accumulate` and `resize` of each map.
    """
    for small in maps:
        enlarged = resize(small, height, width)
        accumulate = enlarged if accumulate is None else accumulate + enlarged
    assert accumulate is not None
    return accumulate


@dataclass(frozen=True, slots=True, eq=False)
class WarpInputs:
    """What a block's first convolution reads, before it is put together.

    Attributes:
        stack0: (N, C, H, W), or (1, C, H, W) for any N: the earlier frame and its features.
        stack1: the later one.
        maps: each (N, 4, any, any), whose sum, enlarged to H x W, is the flow in pixels: x and y into `stack0`, then
            into `stack1`.
        flow: gives that sum at the taps, (N, 4, taps * h, taps * w), for those who do not put it together themselves.
        rows: (taps * h, 1), the taps' rows in pixels.
        columns: (taps * w,), their columns.
        taps: samples along each axis of a cell, 1 or 2.
        extra: (N, E, any, any), maps to put between, enlarged to the size.
        times: (N, T, 1, 1) or (N, T, h, w), put last as they are.
    """

    stack0: Tensor
    stack1: Tensor
    maps: Sequence[Tensor]
    flow: Callable[[], Tensor]
    rows: Tensor
    columns: Tensor
    taps: int
    extra: Tensor
    times: Tensor

    @property
    def count(self) -> int:
        """How many flows there are."""
        return max(map(len, self.maps))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the block."""
        return len(self.rows) // self.taps, len(self.columns) // self.taps


def warp_stacks(inputs: WarpInputs, weight: Tensor) -> Tensor:
    """Both stacks warped and averaged over each cell's taps, and further maps.

    Args:
        inputs: all of it.
        weight: of the convolution, (any, channels, any, any): its dtype is that of the result.

    Returns:
        (N, channels, h, w): the stacks, `extra`, the averaged flow, `times`, zeros as far as the weight has
        more channels.
    """
    height, width = inputs.size
    flow, rows, columns = inputs.flow(), inputs.rows, inputs.columns
    warped0 = warp(inputs.stack0, columns + flow[:, 0], rows + flow[:, 1])
    warped1 = warp(inputs.stack1, columns + flow[:, 2], rows + flow[:, 3])
    parts = [resize(part, height, width) for part in (warped0, warped1, inputs.extra, flow)]
    parts.append(inputs.times.to(flow.dtype).expand(-1, -1, height, width))
    filled = torch.cat(parts, dim=1).to(weight.dtype)
    missing = weight.shape[1] - filled.shape[1]
    return F.pad(filled, (0, 0, 0, 0, 0, missing)) if missing else filled


def warp_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
    """A block's first convolution: `convolve` of `warp_stacks`."""
    return convolve(warp_stacks(inputs, conv.weight), conv)


def blend(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
    """Warp both neighbours of a picture to the time in between and mix them.

    Args:
        a: (N, C, H, W), the earlier picture, in any units and of any dtype.
        b: the later one, same shape.
        flow: (N, 4, h, w) in samples of the pictures: x and y into `a`, then into `b`; h <= H and w <= W.
        weight0: (N, 1, h, w), weight of `a`, 0..1.

    Returns:
        (N, C, h, w), dtype of `flow`. Outside the pictures the nearest border sample counts.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    warped_a = warp(a.to(flow.dtype), x + flow[:, 0], y + flow[:, 1])
    warped_b = warp(b.to(flow.dtype), x + flow[:, 2], y + flow[:, 3])
    return torch.lerp(warped_b, warped_a, weight0)


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """A 3x3 convolution with zero padding, then residual and activation as `conv` says.

    Args:
        x: (N, C, H, W), dtype of the weights; float32 or float64 where those are int8.
        conv: weights and what follows them.
    """
    y = _filtered(x, conv, conv.stride, conv.groups)
    if conv.residual:
        y += x
    return activate(y, conv.slopes) if conv.activated else y


def _filtered(x: Tensor, conv: Conv | TransposedConv, stride: int, groups: int) -> Tensor:
    """The convolution itself, with its bias."""
    if conv.scales is None:
        return F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=1, groups=groups)
    codes, step = quantize(x)
    sums = F.conv2d(codes.to(torch.float64), conv.weight.to(torch.float64), stride=stride, padding=1, groups=groups)
    y = sums.to(x.dtype) * (conv.scales.to(x.dtype)[:, None, None] * step)
    return y if conv.bias is None else y + conv.bias.to(x.dtype)[:, None, None]


CODES = 255  # steps between the least and the largest value of a map in eight bits


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """A map in eight bits: whole steps from the least to the largest value of each sample, 0 among them.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, C, H, W) whole numbers, at most 255 apart, and (N, 1, 1, 1), what 1 stands for; both of the dtype of `x`.

    Source: affine quantization for each tensor, its range that of the values themselves (Jacob et al., "Quantization
    and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    """
    least, largest = x.amin((1, 2, 3), keepdim=True).clamp_max(0), x.amax((1, 2, 3), keepdim=True).clamp_min(0)
    step = (largest - least) / CODES
    step = torch.where(step > 0, step, 1)
    zero = (-least / step).round()
    return (x * (1 / step) + zero).round().clamp_(0, CODES) - zero, step


def convolve_chain(x: Tensor, convs: Sequence[Conv]) -> Tensor:
    """`convolve` one after the other.

    Args:
        x: (N, C, H, W), dtype of the weights.
        convs: in their order.
    """
    for conv in convs:
        x = convolve(x, conv)
    return x


def activate(x: Tensor, slopes: Tensor | None) -> Tensor:
    """LeakyReLU in place, or PReLU with `slopes` (C,)."""
    return F.leaky_relu_(x, LEAKY_SLOPE) if slopes is None else F.prelu(x, slopes)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TransposedConv:
    """A transposed convolution of 4x4 with stride 2 and padding 1, with or without a pixel shuffle by 2 behind it.

    Each output reads 2x2 inputs, and which ones depends on its parity. So it is held as a convolution of 2x2 with
    padding 1 to (H + 1) x (W + 1) places, of which parity (p, q) uses those from (p, q) on.

    Attributes:
        weight: (4 * out, in, 2, 2); in the order of rows' parity, rows of the shuffle, columns' parity, columns of the
            shuffle, channels.
        bias: (4 * out,).
        factor: 2, or 4 with the pixel shuffle.
        scales: (4 * out,), as those of `Conv`.
    """

    weight: Tensor
    bias: Tensor
    factor: int
    scales: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, shuffles: bool) -> TransposedConv:
        """From the transposed convolution's weight (in, out, 4, 4) and bias (out,)."""
        inputs, outputs = weight.shape[:2]
        side = 2 if shuffles else 1
        channels = outputs // side**2
        # Output 2i + p reads input i - 1 + p + k with the tap 3 - 2k - p of the transposed kernel, k = 0, 1.
        parities = weight.flip(-1, -2).reshape(inputs, channels, side, side, 2, 2, 2, 2)
        ordered = parities.permute(5, 2, 7, 3, 1, 0, 4, 6)
        return cls(
            ordered.reshape(4 * outputs, inputs, 2, 2),
            bias.reshape(1, channels, side, 1, side).permute(0, 2, 3, 4, 1).expand(2, -1, 2, -1, -1).flatten(),
            2 * side,
        )


def conv_transpose(x: Tensor, conv: TransposedConv) -> Tensor:
    """Transposed convolution and pixel shuffle as `conv` says.

    Args:
        x: (N, C, H, W), dtype of the weights.
        conv: the weights.

    Returns:
        (N, out, factor * H, factor * W) in channels-last memory; float64 where the weights are, else float32.
    """
    count, _, height, width = x.shape
    factor = conv.factor
    channels = conv.weight.shape[0] // factor**2
    places = _filtered(x, conv, 1, 1).permute(0, 2, 3, 1)
    places = places.reshape(count, height + 1, width + 1, 2, factor // 2, 2, factor // 2 * channels)
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.new_empty((count, height, 2, factor // 2, width, 2, factor // 2 * channels), dtype=exact)
    for p in range(2):
        for q in range(2):
            out[:, :, p, :, :, q] = places[:, p : p + height, q : q + width, p, :, q].permute(0, 1, 3, 2, 4)
    return out.reshape(count, factor * height, factor * width, channels).permute(0, 3, 1, 2)


def head(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
    """The features of a frame.

    Args:
        x: (1, 3, H, W), dtype of the weights; H and W are even.
        convs: the first with stride 2.
        last: with factor 2.
        out: (1, C, H, W) of any float dtype and memory; it is overwritten.

    Returns:
        `out`.
    """
    return out.copy_(conv_transpose(convolve_chain(x, convs), last))


STATIC_RADII_PX = (1, 2, 4, 8, 16, 32)


def static_radius(a: Tensor, b: Tensor) -> Tensor:
    """How far around every sample two planes are equal.

    Args:
        a: (1, 1, H, W), the earlier plane in its own samples.
        b: the later one.

    Returns:
        (1, 1, H, W) int8: the largest radius r of 0 and `STATIC_RADII_PX` whose box of side 2r + 1 holds no difference;
        -1 where the samples themselves differ.
    """
    moved = a != b
    result = torch.where(moved, -1, 0).to(torch.int8)
    for step, radius in zip((1, *(r // 2 for r in STATIC_RADII_PX[1:])), STATIC_RADII_PX, strict=True):
        moved = _dilate(moved, step)
        result.masked_fill_(~moved, radius)
    return result


def _dilate(mask: Tensor, step: int) -> Tensor:
    """Spread True by `step` samples along both axes, given that it already fills boxes of that size."""
    wide = mask.clone()
    wide[..., step:] |= mask[..., :-step]
    wide[..., :-step] |= mask[..., step:]
    tall = wide.clone()
    tall[..., step:, :] |= wide[..., :-step, :]
    tall[..., :-step, :] |= wide[..., step:, :]
    return tall


def is_static(radius: Tensor, flow: Tensor) -> Tensor:
    """Where nothing can have moved: both neighbours are equal as far as the flow reaches.

    A sample that moves by less than r would differ between the two pictures somewhere within r of its way. Where they
    are equal there, a flow other than 0 is the network's error, and the sample itself is right.

    Args:
        radius: (1, 1, H, W), of `static_radius`.
        flow: (N, 4, H, W) in samples of the plane.

    Returns:
        (N, 1, H, W) bool.
    """
    return flow.abs().amax(1, keepdim=True) <= radius


def blend_plane(a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
    """A plane between two in its own samples: `blend`, but the sample itself where it is `is_static`.

    Args:
        a: (1, 1, H, W), the earlier plane in its own samples.
        b: the later one.
        flow: (N, 4, H, W) in samples of the plane.
        mask: (N, 1, H, W), logit of the weight of `a`.
        radius: (1, 1, H, W), of `static_radius`.
        peak: the largest sample value of an integer plane; float planes are neither rounded nor limited.

    Returns:
        (N, 1, H, W), dtype of `a`.
    """
    values = blend(a, b, flow, torch.sigmoid(mask))
    if not a.dtype.is_floating_point:
        values = values.round().clamp_(0, peak)
    return torch.where(is_static(radius, flow), a, values.to(a.dtype))
