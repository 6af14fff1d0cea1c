"""Triton twins for CUDA devices: each op in one pass over memory, any strides, any size, any batch.

Coordinates, sums and what comes from a small map are float32; planes and convolutions keep their own types. Kernels are
compiled on first use and kept on disk by Triton.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from vsrife.ops.protocol import LEAKY_SLOPE, STATIC_RADII_PX, Axis, Conv, RgbTransform, TransposedConv, WarpInputs

PIXELS = 128  # of one program
FUSION = {"enable_fp_fusion": True}  # sums with products in one instruction; left open, Triton warns
# Numbers that change nothing about how memory is read and written. Compiling kernels for multiples of 16 among them and
# for 1, as Triton does by itself, gives the same reads and writes, but more kernels: for each picture, block and batch.
SIZES = (
    "height", "width", "out_height", "out_width", "stack_height", "stack_width", "extra_height", "extra_width",
    "picture_height", "picture_width", "sides", "times_n",
)  # fmt: skip
SLOPE = tl.constexpr(LEAKY_SLOPE)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton starts kernels on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _start(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    kernel[grid](*arguments, **constants, **FUSION)


def _lanes(channels: int) -> int:
    """The power of two that holds this many channels."""
    return max(1, 1 << (channels - 1).bit_length())


def _blocks(count: int, size: int) -> int:
    return -(-count // size)


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(N, channels, height, width) in channels-last memory; N as that of `like`."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _strides(image: Tensor) -> tuple[int, int, int, int]:
    """In samples; 0 along a batch of one, which then serves any batch."""
    n, c, y, x = image.stride()
    return (n if image.shape[0] > 1 else 0), c, y, x


# --- reading between samples ------------------------------------------------------------------------------------------


@triton.jit
def _inside(position, size):
    """Clamp to 0..size - 1; not a number becomes 0, since addresses follow from it."""
    return tl.minimum(tl.where(position > 0, position, 0.0), (size - 1) * 1.0)


@triton.jit
def _bilinear(image, x, y, width, height, sy, sx, channel, use):
    """Values at (x, y) of every pixel and channel, float32; `channel` holds offsets (1, C), `use` masks (P, C)."""
    x, y = _inside(x, width), _inside(y, height)
    left, top = x.to(tl.int32), y.to(tl.int32)
    weight_x, weight_y = (x - left.to(tl.float32))[:, None], (y - top.to(tl.float32))[:, None]
    right, low = tl.minimum(left + 1, width - 1), tl.minimum(top + 1, height - 1)
    upper, lower = top.to(tl.int64) * sy, low.to(tl.int64) * sy
    a = tl.load(image + (upper + left * sx)[:, None] + channel, mask=use, other=0).to(tl.float32)
    b = tl.load(image + (upper + right * sx)[:, None] + channel, mask=use, other=0).to(tl.float32)
    c = tl.load(image + (lower + left * sx)[:, None] + channel, mask=use, other=0).to(tl.float32)
    d = tl.load(image + (lower + right * sx)[:, None] + channel, mask=use, other=0).to(tl.float32)
    above = a + (b - a) * weight_x
    below = c + (d - c) * weight_x
    return above + (below - above) * weight_y


@triton.jit
def _grid_sample(image, upper, lower, first, second, down, along, use):
    """Values between four samples at these offsets, float32."""
    p = tl.load(image + upper + first, mask=use, other=0).to(tl.float32)
    q = tl.load(image + upper + second, mask=use, other=0).to(tl.float32)
    r = tl.load(image + lower + first, mask=use, other=0).to(tl.float32)
    s = tl.load(image + lower + second, mask=use, other=0).to(tl.float32)
    before, after = p + (r - p) * down, q + (s - q) * down
    return before + (after - before) * along


@triton.jit(do_not_specialize=SIZES)
def _planes_to_rgb_kernel(
    first, first_y, first_x, second, second_y, second_x, third, third_y, third_x, weight, bias,
    top, low, weight_y, left, right, weight_x, out, oc, oy, ox, height, width, out_height, out_width,
    PLANES: tl.constexpr, SUBSAMPLED: tl.constexpr, CLAMPS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    y, x, k = pixel // out_width, pixel % out_width, tl.arange(0, 4)[None, :]
    use = (y < height) & (x < width)
    known = k < 3
    row = y.to(tl.int64)
    sample = tl.load(first + row * first_y + x * first_x, mask=use, other=0).to(tl.float32)
    value = tl.load(bias + k, mask=known, other=0)
    value += sample[:, None] * tl.load(weight + k * PLANES, mask=known, other=0)
    if PLANES == 3:
        if SUBSAMPLED:
            upper, lower = tl.load(top + y, mask=use, other=0), tl.load(low + y, mask=use, other=0)
            before, after = tl.load(left + x, mask=use, other=0), tl.load(right + x, mask=use, other=0)
            down, along = tl.load(weight_y + y, mask=use, other=0), tl.load(weight_x + x, mask=use, other=0)
            u = _grid_sample(
                second, upper * second_y, lower * second_y, before * second_x, after * second_x, down, along, use
            )  # fmt: skip
            v = _grid_sample(
                third, upper * third_y, lower * third_y, before * third_x, after * third_x, down, along, use
            )  # fmt: skip
        else:
            u = tl.load(second + row * second_y + x * second_x, mask=use, other=0).to(tl.float32)
            v = tl.load(third + row * third_y + x * third_x, mask=use, other=0).to(tl.float32)
        value += u[:, None] * tl.load(weight + k * PLANES + 1, mask=known, other=0)
        value += v[:, None] * tl.load(weight + k * PLANES + 2, mask=known, other=0)
    if CLAMPS:
        value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    inside = (pixel < out_height * out_width)[:, None] & known
    tl.store(out + (row * oy + x * ox)[:, None] + k * oc, tl.where(use[:, None], value, 0.0), mask=inside)


def planes_to_rgb(planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
    """Twin of `reference.planes_to_rgb`."""
    height, width = planes[0].shape[-2:]
    first, second, third = planes if len(planes) == 3 else (planes[0],) * 3
    rows, columns, bias = transform.rows, transform.columns, transform.bias
    axes = (bias,) * 6 if rows is None or columns is None else (
        rows.low, rows.high, rows.weight, columns.low, columns.high, columns.weight
    )  # fmt: skip
    with _on(out):
        _start(
            _planes_to_rgb_kernel, (_blocks(out.shape[-2] * out.shape[-1], PIXELS),),
            first, *first.stride()[2:], second, *second.stride()[2:], third, *third.stride()[2:],
            transform.weight.contiguous(), bias, *axes, out, *out.stride()[1:], height, width, *out.shape[-2:],
            PLANES=len(planes), SUBSAMPLED=rows is not None, CLAMPS=clamps, P=PIXELS,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=SIZES)
def _sample_kernel(
    image, in_, ic, iy, ix, total, tn, tc, ty, tx, out, on, oc, oy, ox,
    top, low, weight_y, left, right, weight_x, height, width, channels,
    ADDS: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    y, x, c = pixel // width, pixel % width, tl.arange(0, C)[None, :]
    inside = pixel < height * width
    use = inside[:, None] & (c < channels)
    upper = tl.load(top + y, mask=inside, other=0) * iy
    lower = tl.load(low + y, mask=inside, other=0) * iy
    first = tl.load(left + x, mask=inside, other=0) * ix
    second = tl.load(right + x, mask=inside, other=0) * ix
    down = tl.load(weight_y + y, mask=inside, other=0)[:, None]
    along = tl.load(weight_x + x, mask=inside, other=0)[:, None]
    source = image + n * in_ + c * ic
    value = _grid_sample(
        source, upper[:, None], lower[:, None], first[:, None], second[:, None], down, along, use
    )  # fmt: skip
    if ADDS:
        place = total + n * tn + c * tc + (y.to(tl.int64) * ty + x * tx)[:, None]
        value += tl.load(place, mask=use, other=0).to(tl.float32)
    tl.store(out + n * on + c * oc + (y.to(tl.int64) * oy + x * ox)[:, None], value, mask=use)


def sample(image: Tensor, rows: Axis, columns: Axis, total: Tensor | None = None) -> Tensor:
    """Twin of `reference.sample`."""
    channels, height, width = image.shape[1], len(rows.low), len(columns.low)
    out = _empty(image, channels, height, width, image.dtype)
    summand = out if total is None else total
    with _on(image):
        _start(
            _sample_kernel, (_blocks(height * width, PIXELS), len(image)),
            image, *_strides(image), summand, *_strides(summand), out, *out.stride(),
            rows.low, rows.high, rows.weight.float(), columns.low, columns.high, columns.weight.float(),
            height, width, channels, ADDS=total is not None, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
    return out


@triton.jit
def _summed(maps, strides, sides, n, y, x, channel, use, MAPS: tl.constexpr):
    """The sum of small maps at rows y and columns x of the picture, (P, C) float32; tuples as `_spread` has them."""
    value = tl.full(use.shape, 0.0, tl.float32)
    for i in tl.static_range(MAPS):
        at_y = (y.to(tl.float32) + 0.5) * sides[4 * i + 2] - 0.5
        at_x = (x.to(tl.float32) + 0.5) * sides[4 * i + 3] - 0.5
        value += _bilinear(
            maps[i] + n * strides[4 * i], at_x, at_y, sides[4 * i + 1], sides[4 * i],
            strides[4 * i + 2], strides[4 * i + 3], channel * strides[4 * i + 1], use,
        )  # fmt: skip
    return value


def _spread(maps: Sequence[Tensor], height: int, width: int) -> tuple[tuple[Any, ...], ...]:
    """Maps of any sizes as a kernel takes them: their memory, four strides of each, then of each height, width, and its
    samples for a row and for a column of the picture.
    """
    sides = ((h, w, h / height, w / width) for h, w in (small.shape[-2:] for small in maps))
    return tuple(maps), tuple(chain.from_iterable(map(_strides, maps))), tuple(chain.from_iterable(sides))


@triton.jit(do_not_specialize=SIZES)
def _upsample_kernel(
    total, tn, tc, ty, tx, maps, strides, sides, out, on, oc, oy, ox, height, width, channels,
    ADDS: tl.constexpr, MAPS: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    y, x, c = pixel // width, pixel % width, tl.arange(0, C)[None, :]
    use = (pixel < height * width)[:, None] & (c < channels)
    value = _summed(maps, strides, sides, n, y, x, c, use, MAPS)
    if ADDS:
        value += tl.load(total + n * tn + c * tc + (y.to(tl.int64) * ty + x * tx)[:, None], mask=use, other=0)
    tl.store(out + n * on + c * oc + (y.to(tl.int64) * oy + x * ox)[:, None], value, mask=use)


def upsample(maps: Sequence[Tensor], height: int, width: int, total: Tensor | None = None) -> Tensor:
    """Twin of `reference.upsample`."""
    like = max(maps, key=len) if total is None else max(*maps, total, key=len)
    out = _empty(like, like.shape[1], height, width, like.dtype)
    summand = out if total is None else total
    with _on(out):
        _start(
            _upsample_kernel, (_blocks(height * width, PIXELS), len(out)),
            summand, *_strides(summand), *_spread(maps, height, width), out, *out.stride(),
            height, width, out.shape[1], ADDS=total is not None, MAPS=len(maps), C=_lanes(out.shape[1]), P=PIXELS,
        )  # fmt: skip
    return out


# --- warping ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def _warp_stacks_kernel(
    stack0, an, ac, ay, ax, stack1, bn, bc, by, bx, maps, strides, sides, rows, columns,
    extra, en, ec, ey, ex, times, times_n, tc, ty, tx, out, on, oc, oy, ox,
    height, width, stack_height, stack_width, extra_height, extra_width, step_y, step_x,
    channels, extras, moments, filled,
    TAPS: tl.constexpr, MAPS: tl.constexpr, C: tl.constexpr, E: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    inside = pixel < height * width
    y, x = pixel // width, pixel % width
    place = out + n * on + (y.to(tl.int64) * oy + x * ox)[:, None]
    c = tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    k = tl.arange(0, 4)[None, :]
    from0, from1 = tl.full((P, C), 0.0, tl.float32), tl.full((P, C), 0.0, tl.float32)
    mean = tl.full((P, 4), 0.0, tl.float32)
    for tap in range(TAPS * TAPS):
        tap_y, tap_x = y * TAPS + tap // TAPS, x * TAPS + tap % TAPS
        row, column = tl.load(rows + tap_y, mask=inside, other=0), tl.load(columns + tap_x, mask=inside, other=0)
        flow = _summed(maps, strides, sides, n, row, column, k, inside[:, None] & (k < 4), MAPS)
        along, down = tl.split(tl.reshape(flow, (P, 2, 2)))
        x0, x1 = tl.split(along)
        y0, y1 = tl.split(down)
        from0 += _bilinear(
            stack0 + n * an, column + x0, row + y0, stack_width, stack_height, ay, ax, c * ac, use
        )  # fmt: skip
        from1 += _bilinear(
            stack1 + n * bn, column + x1, row + y1, stack_width, stack_height, by, bx, c * bc, use
        )  # fmt: skip
        mean += flow
    tap_weight = 1.0 / (TAPS * TAPS)
    tl.store(place + c * oc, from0 * tap_weight, mask=use)
    tl.store(place + (channels + c) * oc, from1 * tap_weight, mask=use)
    e = tl.arange(0, E)[None, :]
    wanted = inside[:, None] & (e < extras)
    at_y, at_x = (y.to(tl.float32) + 0.5) * step_y - 0.5, (x.to(tl.float32) + 0.5) * step_x - 0.5
    further = _bilinear(extra + n * en, at_x, at_y, extra_width, extra_height, ey, ex, e * ec, wanted)
    tl.store(place + (2 * channels + e) * oc, further, mask=wanted)
    tl.store(place + (2 * channels + extras + k) * oc, mean * tap_weight, mask=inside[:, None])
    # The times, and zeros in what is left over.
    r = tl.arange(0, R)[None, :]
    moment = times + n * times_n + (y.to(tl.int64) * ty + x * tx)[:, None] + r * tc
    time = tl.load(moment, mask=inside[:, None] & (r < moments), other=0)
    behind = 2 * channels + extras + 4
    tl.store(place + (behind + r) * oc, time, mask=inside[:, None] & (behind + r < filled))


def warp_stacks(inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
    """Twin of `reference.warp_stacks`: flow is put together at the taps and never written."""
    height, width = inputs.size
    stack0, stack1, extra = inputs.stack0, inputs.stack1, inputs.extra
    stacked, extras = stack0.shape[1], extra.shape[1]
    out = _empty(max(inputs.maps, key=len), channels, height, width, dtype)
    rest = channels - 2 * stacked - extras - 4
    times = inputs.times.to(extra.dtype).expand(-1, -1, height, width)
    with _on(out):
        _start(
            _warp_stacks_kernel, (_blocks(height * width, PIXELS), len(out)),
            stack0, *_strides(stack0), stack1, *_strides(stack1), *_spread(inputs.maps, *stack0.shape[-2:]),
            inputs.rows, inputs.columns, extra, *_strides(extra), times, *_strides(times), out, *out.stride(),
            height, width, *stack0.shape[-2:], *extra.shape[-2:], extra.shape[-2] / height, extra.shape[-1] / width,
            stacked, extras, times.shape[1], channels,
            TAPS=inputs.taps, MAPS=len(inputs.maps), C=_lanes(stacked), E=_lanes(extras), R=_lanes(rest), P=PIXELS,
        )  # fmt: skip
    return out


def warp_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
    """Twin of `reference.warp_convolve`."""
    return convolve(warp_stacks(inputs, conv.weight.shape[1], conv.weight.dtype), conv)


@triton.jit
def _mix(a, an, ac, ay, ax, b, bn, bc, by, bx, n, flow, fc, weight0, x, y, width, height, c, use, inside):
    """Both pictures moved and mixed, (P, C) float32; the largest component of the flow, (P,)."""
    x0, y0 = tl.load(flow, mask=inside, other=0), tl.load(flow + fc, mask=inside, other=0)
    x1, y1 = tl.load(flow + 2 * fc, mask=inside, other=0), tl.load(flow + 3 * fc, mask=inside, other=0)
    at_x, at_y = x.to(tl.float32), y.to(tl.float32)
    earlier = _bilinear(a + n * an, at_x + x0, at_y + y0, width, height, ay, ax, c * ac, use)
    later = _bilinear(b + n * bn, at_x + x1, at_y + y1, width, height, by, bx, c * bc, use)
    reach = tl.maximum(tl.maximum(tl.abs(x0), tl.abs(y0)), tl.maximum(tl.abs(x1), tl.abs(y1)))
    return later + (earlier - later) * weight0[:, None], reach


@triton.jit(do_not_specialize=SIZES)
def _blend_kernel(
    a, an, ac, ay, ax, b, bn, bc, by, bx, flow, fn, fc, fy, fx, weight0, sn, sc, sy, sx, out, on, oc, oy, ox,
    height, width, picture_height, picture_width, channels,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    inside = pixel < height * width
    y, x, c = pixel // width, pixel % width, tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    row = y.to(tl.int64)
    weight = tl.load(weight0 + n * sn + row * sy + x * sx, mask=inside, other=0)
    value, _ = _mix(
        a, an, ac, ay, ax, b, bn, bc, by, bx, n, flow + n * fn + row * fy + x * fx, fc, weight, x, y,
        picture_width, picture_height, c, use, inside,
    )  # fmt: skip
    tl.store(out + n * on + c * oc + (row * oy + x * ox)[:, None], value, mask=use)


def blend(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
    """Twin of `reference.blend`."""
    height, width = flow.shape[-2:]
    channels = a.shape[1]
    out = _empty(flow, channels, height, width, flow.dtype)
    with _on(flow):
        _start(
            _blend_kernel, (_blocks(height * width, PIXELS), len(flow)),
            a, *_strides(a), b, *_strides(b), flow, *_strides(flow), weight0, *_strides(weight0), out, *out.stride(),
            height, width, *a.shape[-2:], channels, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=SIZES)
def _blend_plane_kernel(
    a, ay, ax, b, by, bx, flow, fn, fc, fy, fx, mask, mn, mc, my, mx, radius, cy, cx, out, on, oc, oy, ox,
    height, width, peak,
    ROUNDS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    inside = pixel < height * width
    y, x, c = pixel // width, pixel % width, tl.arange(0, 1)[None, :]
    row = y.to(tl.int64)
    logit = tl.load(mask + n * mn + row * my + x * mx, mask=inside, other=0)
    value, reach = _mix(
        a, 0, 0, ay, ax, b, 0, 0, by, bx, n, flow + n * fn + row * fy + x * fx, fc, 1.0 / (1.0 + tl.exp(-logit)), x, y,
        width, height, c, inside[:, None], inside,
    )  # fmt: skip
    value = tl.reshape(value, (P,))
    if ROUNDS:
        # Half to even, as everywhere: adding and taking away 1.5 * 2^23 leaves no digits behind the point.
        value = tl.minimum(tl.maximum((value + 12582912.0) - 12582912.0, 0.0), peak)
    quiet = tl.load(radius + row * cy + x * cx, mask=inside, other=0).to(tl.float32)
    same = tl.load(a + row * ay + x * ax, mask=inside, other=0)
    kind = out.dtype.element_ty
    tl.store(out + n * on + row * oy + x * ox, tl.where(reach <= quiet, same, value.to(kind)), mask=inside)


def blend_plane(a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
    """Twin of `reference.blend_plane`."""
    height, width = flow.shape[-2:]
    out = torch.empty((len(flow), 1, height, width), dtype=a.dtype, device=a.device)
    with _on(flow):
        _start(
            _blend_plane_kernel, (_blocks(height * width, PIXELS), len(flow)),
            a, *a.stride()[2:], b, *b.stride()[2:], flow, *_strides(flow), mask, *_strides(mask),
            radius, *radius.stride()[2:], out, *out.stride(), height, width, float(peak),
            ROUNDS=not a.dtype.is_floating_point, P=PIXELS,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=SIZES)
def _reach_kernel(
    a, ay, ax, b, by, bx, out, height, width, RADIUS: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """How far along the row the nearest difference is, RADIUS + 1 at most."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    inside = pixel < height * width
    y, x = pixel // width, pixel % width
    row, nearest = y.to(tl.int64), tl.full((P,), RADIUS + 1, tl.int32)
    for d in range(-RADIUS, RADIUS + 1):
        at = x + d
        use = inside & (at >= 0) & (at < width)
        first = tl.load(a + row * ay + at * ax, mask=use, other=0)
        second = tl.load(b + row * by + at * bx, mask=use, other=0)
        nearest = tl.where(use & (first != second), tl.minimum(nearest, tl.maximum(d, -d)), nearest)
    tl.store(out + pixel, nearest.to(tl.int8), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _static_radius_kernel(near, out, height, width, RADIUS: tl.constexpr, P: tl.constexpr):
    """From the distances along the rows: the largest radius below the distance in both axes."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    inside = pixel < height * width
    y = pixel // width
    nearest = tl.full((P,), RADIUS + 1, tl.int32)
    for d in range(-RADIUS, RADIUS + 1):
        use = inside & (y + d >= 0) & (y + d < height)
        along = tl.load(near + pixel + d * width, mask=use, other=RADIUS + 1).to(tl.int32)
        nearest = tl.minimum(nearest, tl.maximum(along, tl.maximum(d, -d)))
    radius = tl.where(nearest > 0, 0, -1)
    for power in tl.static_range(6):
        radius = tl.where(nearest > (1 << power), 1 << power, radius)
    tl.store(out + pixel, radius.to(tl.int8), mask=inside)


def static_radius(a: Tensor, b: Tensor) -> Tensor:
    """Twin of `reference.static_radius`."""
    height, width = a.shape[-2:]
    near = torch.empty((1, 1, height, width), dtype=torch.int8, device=a.device)
    out = torch.empty_like(near)
    grid = (_blocks(height * width, PIXELS),)
    radius = STATIC_RADII_PX[-1]
    with _on(a):
        _start(
            _reach_kernel, grid,
            a, *a.stride()[2:], b, *b.stride()[2:], near, height, width, RADIUS=radius, P=PIXELS
        )  # fmt: skip
        _start(_static_radius_kernel, grid, near, out, height, width, RADIUS=radius, P=PIXELS)
    return out


# --- convolutions -----------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def _finish_kernel(
    y, yn, yc, yy, yx, x, xn, xc, xy, xx, bias, slopes, height, width, channels,
    BIASED: tl.constexpr, RESIDUAL: tl.constexpr, PRELU: tl.constexpr, LEAKY: tl.constexpr,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """What follows a convolution, in place: bias, residual, activation."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    row, column = (pixel // width).to(tl.int64), pixel % width
    c = tl.program_id(2) * C + tl.arange(0, C)
    use = (pixel < height * width)[:, None] & (c < channels)[None, :]
    place = y + n * yn + (row * yy + column * yx)[:, None] + (c * yc)[None, :]
    value = tl.load(place, mask=use, other=0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)[None, :]
    if RESIDUAL:
        same = x + n * xn + (row * xy + column * xx)[:, None] + (c * xc)[None, :]
        value += tl.load(same, mask=use, other=0).to(tl.float32)
    if PRELU:
        value = tl.where(
            value > 0, value, value * tl.load(slopes + c, mask=c < channels, other=0).to(tl.float32)[None, :]
        )
    if LEAKY:
        value = tl.where(value > 0, value, value * SLOPE)
    tl.store(place, value, mask=use)


def _tail(conv: Conv) -> dict[str, bool]:
    """What follows a convolution, as the kernels want to know it."""
    prelu = conv.activated and conv.slopes is not None
    leaky = conv.activated and not prelu
    return {"BIASED": conv.bias is not None, "RESIDUAL": conv.residual, "PRELU": prelu, "LEAKY": leaky}


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve`: the library's convolution, then one pass for all that follows."""
    y = F.conv2d(x, conv.weight, None, stride=conv.stride, padding=1, groups=conv.groups)
    _, channels, height, width = y.shape
    lanes = min(32, _lanes(channels))
    bias = y if conv.bias is None else conv.bias
    slopes = y if conv.slopes is None else conv.slopes
    with _on(x):
        _start(
            _finish_kernel, (_blocks(height * width, PIXELS), len(y), _blocks(channels, lanes)),
            y, *_strides(y), x, *_strides(x), bias, slopes, height, width, channels,
            **_tail(conv), C=lanes, P=PIXELS,
        )  # fmt: skip
    return y


def convolve_chain(x: Tensor, convs: Sequence[Conv]) -> Tensor:
    """Twin of `reference.convolve_chain`."""
    for conv in convs:
        x = convolve(x, conv)
    return x


@triton.jit(do_not_specialize=SIZES)
def _interleave_kernel(
    places, pn, pc, py, px, bias, out, on, oc, oy, ox, height, width, channels,
    SIDE: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The four parities of a transposed convolution, each with its shuffle, side by side."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    y, x, c = pixel // width, pixel % width, tl.arange(0, C)[None, :]
    use = (pixel < height * width)[:, None] & (c < channels)
    p, r, q, s = y // SIDE % 2, y % SIDE, x // SIDE % 2, x % SIDE
    index = ((((p * SIDE + r) * 2 + q) * SIDE + s) * channels)[:, None] + c
    row, column = (y // (2 * SIDE) + p).to(tl.int64), x // (2 * SIDE) + q
    value = tl.load(places + n * pn + (row * py + column * px)[:, None] + index * pc, mask=use, other=0).to(tl.float32)
    value += tl.load(bias + index, mask=use, other=0).to(tl.float32)
    tl.store(out + n * on + c * oc + (y.to(tl.int64) * oy + x * ox)[:, None], value, mask=use)


def conv_transpose(x: Tensor, conv: TransposedConv) -> Tensor:
    """Twin of `reference.conv_transpose`."""
    height, width = (conv.factor * side for side in x.shape[-2:])
    return _conv_transpose(x, conv, _empty(x, len(conv.weight) // conv.factor**2, height, width, torch.float32))


def head(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
    """Twin of `reference.head`."""
    return _conv_transpose(convolve_chain(x, convs), last, out)


def _conv_transpose(x: Tensor, conv: TransposedConv, out: Tensor) -> Tensor:
    """To `out`, (N, any, factor * H, factor * W): the library's convolution, then one pass."""
    places = F.conv2d(x, conv.weight, padding=1)
    channels, height, width = out.shape[1:]
    with _on(x):
        _start(
            _interleave_kernel, (_blocks(height * width, PIXELS), len(out)),
            places, *_strides(places), conv.bias, out, *out.stride(), height, width, channels,
            SIDE=conv.factor // 2, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
    return out
