"""Every operation in plain PyTorch: the ground truth that kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.ops.protocol import (
    LEAKY_SLOPE,
    STATIC_RADII_PX,
    Axis,
    Conv,
    Ops,
    RgbTransform,
    TransposedConv,
    WarpInputs,
)  # fmt: skip

LARGEST_CODE = 255  # of an input in eight bits


class Reference(Ops):
    """The operations as their definitions; `Ops` documents them."""

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        samples = [plane.to(transform.weight.dtype) for plane in planes]
        if transform.rows is not None and transform.columns is not None:
            samples[1:] = [self.sample(plane, transform.rows, transform.columns) for plane in samples[1:]]
        image = transform.bias[:, None, None]
        for plane, weight in zip(samples, transform.weight.unbind(1), strict=True):
            image = torch.addcmul(image, weight[:, None, None], plane)
        if clamps:
            image = image.clamp_(0, 1)
        height, width = image.shape[-2:]
        out[..., height:, :].zero_()
        out[..., :height, width:].zero_()
        out[..., :height, :width].copy_(image)
        return out

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        top = image.index_select(-2, rows.low)
        image = torch.lerp(top, image.index_select(-2, rows.high), rows.weight[:, None].to(image.dtype))
        left = image.index_select(-1, columns.low)
        result = torch.lerp(left, image.index_select(-1, columns.high), columns.weight.to(image.dtype))
        return result if accumulate is None else accumulate.add_(result)

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
        for small in maps:
            resized = resize(small, height, width)
            accumulate = resized if accumulate is None else accumulate + resized
        assert accumulate is not None
        return accumulate

    def warp_stacks(self, inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        height, width = inputs.size
        flow = inputs.flow()
        warped = warp_both(inputs.stack0, inputs.stack1, flow, inputs.rows, inputs.columns)
        parts = [resize(part, height, width) for part in (*warped, inputs.extra, flow)]
        parts.append(inputs.times.to(flow.dtype).expand(-1, -1, height, width))
        shape = (len(flow), channels, height, width)
        out = torch.empty(shape, dtype=dtype, device=flow.device, memory_format=torch.channels_last)
        end = 0
        for part in parts:
            start, end = end, end + part.shape[1]
            out[:, start:end].copy_(part)
        out[:, end:].zero_()
        return out

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
        height, width = flow.shape[-2:]
        columns = torch.arange(width, device=flow.device, dtype=flow.dtype)
        rows = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
        warped_a, warped_b = warp_both(a.to(flow.dtype), b.to(flow.dtype), flow, rows, columns)
        return torch.lerp(warped_b, warped_a, weight0)

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[-2:]
        margin = STATIC_RADII_PX[-1]
        differs = (a != b).view(torch.int8)
        result = margin - differs
        windows = F.pad(differs, (margin,) * 4)  # at each position: any difference in the box that begins there
        for radius in STATIC_RADII_PX:
            windows = _widen(windows, radius) if radius > 1 else _widen(_widen(windows, 1), 1)
            inner = slice(margin - radius, margin - radius + height), slice(margin - radius, margin - radius + width)
            result.sub_(windows[..., *inner], alpha=max(1, radius // 2))  # to the next smaller radius
        return result

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
        values = self.blend(a, b, flow, torch.sigmoid(mask))
        if not a.dtype.is_floating_point:
            values = values.round().clamp_(0, peak)
        return torch.where(is_static(radius, flow), a, values.to(a.dtype))

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        y = _convolution(x, conv, conv.stride, conv.groups)
        if conv.residual:
            y += x
        return activate(y, conv.slopes) if conv.activated else y

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor:
        count, _, height, width = x.shape
        factor = conv.factor
        channels = conv.weight.shape[0] // factor**2
        grid = _convolution(x, conv, 1, 1).permute(0, 2, 3, 1)
        grid = grid.reshape(count, height + 1, width + 1, 2, factor // 2, 2, factor // 2 * channels)
        exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        # Parity (p, q) starts at position (p, q): one step along a parity is also one along the rows or columns.
        n, y, x_step, p, r, q, rest = grid.stride()
        shape = count, height, 2, factor // 2, width, 2, factor // 2 * channels
        shuffled = grid.as_strided(shape, (n, y, y + p, r, x_step, x_step + q, rest))
        out = torch.empty(shape, dtype=exact, device=x.device).copy_(shuffled)
        return out.reshape(count, factor * height, factor * width, channels).permute(0, 3, 1, 2)


reference = Reference()


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize by bilinear interpolation with half-pixel centres and no antialiasing.

    Args:
        image: (N, C, H, W).
        height: of the result.
        width: of the result.

    Returns:
        (N, C, height, width). Output pixel i reads source position (i + 0.5) * H / height - 0.5, clamped to the image.
        Reducing by an even integer s reads the 2x2 samples at the centre of each s x s cell. An image that already has
        this size is returned itself.
    """
    if image.shape[-2:] == (height, width):
        return image
    if image.shape[1] == 0:  # layouts without carried features; PyTorch refuses to resize no channels
        return image.new_empty((image.shape[0], 0, height, width))
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


def warp(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read an image at a position for every output pixel (backward warp).

    Args:
        image: (N, C, H, W), or (1, C, H, W) for any N.
        x: (N, h, w) or (1, h, w), position in samples of `image`: 0 is the centre of the first column.
        y: the same along H.

    Returns:
        (N, C, h, w), dtype of `image`; bilinear; positions outside the image read the border sample.

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


def warp_both(a: Tensor, b: Tensor, flow: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """`warp` two images along a flow, in fewer passes over memory.

    Args:
        a: (N, C, H, W), or (1, C, H, W) for any N; dtype of the flow.
        b: an image of the same shape.
        flow: (N, 4, h, w) in samples of the images: x and y into `a`, then into `b`.
        rows: (h, 1), rows of the images that the flow starts from.
        columns: (w,), their columns.

    Returns:
        Both warped, each (N, C, h, w).
    """
    height, width = a.shape[-2:]
    vectors = flow.permute(0, 2, 3, 1)
    grid = torch.empty_like(vectors, memory_format=torch.contiguous_format)
    for component, start, size in ((0, columns, width), (1, rows, height)):
        scale = 2 / max(size - 1, 1)
        origin = (start * scale - 1)[..., None]
        torch.add(origin, vectors[..., component::2], alpha=scale, out=grid[..., component::2])
    images = (image.expand(len(flow), -1, -1, -1) for image in (a, b))
    warped_a, warped_b = (
        F.grid_sample(image, grid[..., i : i + 2], mode="bilinear", padding_mode="border", align_corners=True)
        for image, i in zip(images, (0, 2), strict=True)
    )
    return warped_a, warped_b


def activate(x: Tensor, slopes: Tensor | None) -> Tensor:
    """LeakyReLU in place, or PReLU with `slopes` (C,)."""
    return F.leaky_relu_(x, LEAKY_SLOPE) if slopes is None else F.prelu(x, slopes)


def quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round a map to eight bits: `LARGEST_CODE` equal steps from its least to its largest value, 0 being exact.

    Args:
        x: (N, C, H, W); each sample has its own range.

    Returns:
        (N, C, H, W) whole numbers, at most `LARGEST_CODE` apart, and (N, 1, 1, 1), the value of 1; both of the dtype
        of `x`.

    Source: affine quantization for each tensor, its range that of the values themselves (Jacob et al., "Quantization
    and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).
    """
    least, largest = x.amin((1, 2, 3), keepdim=True).clamp_max(0), x.amax((1, 2, 3), keepdim=True).clamp_min(0)
    step = (largest - least) / LARGEST_CODE
    step = torch.where(step > 0, step, 1)
    zero = (-least / step).round()
    return (x * (1 / step) + zero).round().clamp_(0, LARGEST_CODE) - zero, step


def is_static(radius: Tensor, flow: Tensor) -> Tensor:
    """Find the samples that cannot have moved: both planes are equal as far as the flow reaches.

    A sample that moves by less than r would differ between the planes somewhere within r of its path. Where they are
    equal there, a flow other than 0 is the network's error, and the sample itself is right.

    Args:
        radius: (1, 1, H, W), the `static_radius` of the planes.
        flow: (N, 4, H, W) in samples of the plane.

    Returns:
        (N, 1, H, W) bool.
    """
    return flow.abs().amax(1, keepdim=True) <= radius


def _convolution(x: Tensor, conv: Conv | TransposedConv, stride: int, groups: int) -> Tensor:
    """The convolution alone, with its bias."""
    if conv.scales is None:
        return F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=1, groups=groups)
    codes, step = quantize(x)
    sums = F.conv2d(codes.to(torch.float64), conv.weight.to(torch.float64), stride=stride, padding=1, groups=groups)
    y = sums.to(x.dtype) * (conv.scales.to(x.dtype)[:, None, None] * step)
    return y if conv.bias is None else y + conv.bias.to(x.dtype)[:, None, None]


def _widen(windows: Tensor, shift: int) -> Tensor:
    """Boxes larger by `shift`, as the union of two that touch or overlap along each axis."""
    wide = windows[..., :-shift] | windows[..., shift:]
    return wide[..., :-shift, :] | wide[..., shift:, :]
