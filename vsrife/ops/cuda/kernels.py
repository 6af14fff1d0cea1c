"""Triton twins for CUDA devices: each op in one pass over memory, any strides, any size, any batch.

Coordinates, sums and what comes from a small map are float32; planes and convolutions keep their own types. Kernels are
compiled on first use and kept on disk by Triton. A device must pass `cases` before they are used on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.cuda import rehearsal
from vsrife.ops.cuda.choices import choices_on, versions
from vsrife.ops.reference import Axis, Conv, Expansion, Reading, Warping

Way = Callable[[Tensor, Any], Tensor]  # to do what an op does
PIXELS = 128  # of one program
FUSION = {"enable_fp_fusion": True}  # sums with products in one instruction; left open, Triton warns
# Numbers that change nothing about how memory is read and written. Compiling kernels for multiples of 16 among them and
# for 1, as Triton does by itself, gives the same reads and writes, but more kernels: for each picture, block and batch.
SIZES = (
    "height", "width", "out_height", "out_width", "stack_height", "stack_width", "extra_height", "extra_width",
    "picture_height", "picture_width", "sides", "pixels", "times_n", "across", "tiles_of_picture",
    "tiles", "programs",
)  # fmt: skip
SLOPE = tl.constexpr(reference.LEAKY_SLOPE)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton starts kernels on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def _start(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Start a kernel; in a rehearsal, only have it compiled."""
    if rehearsal.goes_on():
        kernel.warmup(*arguments, grid=grid, **constants, **FUSION)
    else:
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
def _see_kernel(
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


def see(planes: Sequence[Tensor], reading: Reading, clamps: bool, into: Tensor) -> Tensor:
    """Twin of `reference.see`."""
    height, width = planes[0].shape[-2:]
    first, second, third = planes if len(planes) == 3 else (planes[0],) * 3
    rows, columns, bias = reading.rows, reading.columns, reading.bias
    axes = (bias,) * 6 if rows is None or columns is None else (
        rows.low, rows.high, rows.weight, columns.low, columns.high, columns.weight
    )  # fmt: skip
    with _on(into):
        _start(
            _see_kernel, (_blocks(into.shape[-2] * into.shape[-1], PIXELS),),
            first, *first.stride()[2:], second, *second.stride()[2:], third, *third.stride()[2:],
            reading.weight.contiguous(), bias, *axes, into, *into.stride()[1:], height, width, *into.shape[-2:],
            PLANES=len(planes), SUBSAMPLED=rows is not None, CLAMPS=clamps, P=PIXELS,
        )  # fmt: skip
    return into


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
def _enlarge_kernel(
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


def enlarge(maps: Sequence[Tensor], height: int, width: int, total: Tensor | None = None) -> Tensor:
    """Twin of `reference.enlarge`."""
    like = max(maps, key=len) if total is None else max(*maps, total, key=len)
    out = _empty(like, like.shape[1], height, width, like.dtype)
    summand = out if total is None else total
    with _on(out):
        _start(
            _enlarge_kernel, (_blocks(height * width, PIXELS), len(out)),
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
    share = 1.0 / (TAPS * TAPS)
    tl.store(place + c * oc, from0 * share, mask=use)
    tl.store(place + (channels + c) * oc, from1 * share, mask=use)
    e = tl.arange(0, E)[None, :]
    wanted = inside[:, None] & (e < extras)
    at_y, at_x = (y.to(tl.float32) + 0.5) * step_y - 0.5, (x.to(tl.float32) + 0.5) * step_x - 0.5
    further = _bilinear(extra + n * en, at_x, at_y, extra_width, extra_height, ey, ex, e * ec, wanted)
    tl.store(place + (2 * channels + e) * oc, further, mask=wanted)
    tl.store(place + (2 * channels + extras + k) * oc, mean * share, mask=inside[:, None])
    # The times, and zeros in what is left over.
    r = tl.arange(0, R)[None, :]
    moment = times + n * times_n + (y.to(tl.int64) * ty + x * tx)[:, None] + r * tc
    time = tl.load(moment, mask=inside[:, None] & (r < moments), other=0)
    behind = 2 * channels + extras + 4
    tl.store(place + (behind + r) * oc, time, mask=inside[:, None] & (behind + r < filled))


def warp_stacks(given: Warping, into: Tensor) -> Tensor:
    """Twin of `reference.warp_stacks`: flow is put together at the taps and never written."""
    height, width = given.size
    stack0, stack1, extra = given.stack0, given.stack1, given.extra
    channels, extras = stack0.shape[1], extra.shape[1]
    out = _empty(max(given.maps, key=len), into.shape[1], height, width, into.dtype)
    rest = into.shape[1] - 2 * channels - extras - 4
    times = given.times.to(extra.dtype).expand(-1, -1, height, width)
    with _on(out):
        _start(
            _warp_stacks_kernel, (_blocks(height * width, PIXELS), len(out)),
            stack0, *_strides(stack0), stack1, *_strides(stack1), *_spread(given.maps, *stack0.shape[-2:]),
            given.rows, given.columns, extra, *_strides(extra), times, *_strides(times), out, *out.stride(),
            height, width, *stack0.shape[-2:], *extra.shape[-2:], extra.shape[-2] / height, extra.shape[-1] / width,
            channels, extras, times.shape[1], into.shape[1],
            TAPS=given.taps, MAPS=len(given.maps), C=_lanes(channels), E=_lanes(extras), R=_lanes(rest), P=PIXELS,
        )  # fmt: skip
    return out


def warp_convolve(given: Warping, conv: Conv) -> Tensor:
    """Twin of `reference.warp_convolve`."""
    return convolve(warp_stacks(given, conv.weight), conv)


@triton.jit
def _mix(a, an, ac, ay, ax, b, bn, bc, by, bx, n, flow, fc, share, x, y, width, height, c, use, inside):
    """Both pictures moved and mixed, (P, C) float32; the largest component of the flow, (P,)."""
    x0, y0 = tl.load(flow, mask=inside, other=0), tl.load(flow + fc, mask=inside, other=0)
    x1, y1 = tl.load(flow + 2 * fc, mask=inside, other=0), tl.load(flow + 3 * fc, mask=inside, other=0)
    at_x, at_y = x.to(tl.float32), y.to(tl.float32)
    earlier = _bilinear(a + n * an, at_x + x0, at_y + y0, width, height, ay, ax, c * ac, use)
    later = _bilinear(b + n * bn, at_x + x1, at_y + y1, width, height, by, bx, c * bc, use)
    reach = tl.maximum(tl.maximum(tl.abs(x0), tl.abs(y0)), tl.maximum(tl.abs(x1), tl.abs(y1)))
    return later + (earlier - later) * share[:, None], reach


@triton.jit(do_not_specialize=SIZES)
def _blend_kernel(
    a, an, ac, ay, ax, b, bn, bc, by, bx, flow, fn, fc, fy, fx, share, sn, sc, sy, sx, out, on, oc, oy, ox,
    height, width, picture_height, picture_width, channels,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    n = tl.program_id(1).to(tl.int64)
    inside = pixel < height * width
    y, x, c = pixel // width, pixel % width, tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    row = y.to(tl.int64)
    weight = tl.load(share + n * sn + row * sy + x * sx, mask=inside, other=0)
    value, _ = _mix(
        a, an, ac, ay, ax, b, bn, bc, by, bx, n, flow + n * fn + row * fy + x * fx, fc, weight, x, y,
        picture_width, picture_height, c, use, inside,
    )  # fmt: skip
    tl.store(out + n * on + c * oc + (row * oy + x * ox)[:, None], value, mask=use)


def blend(a: Tensor, b: Tensor, flow: Tensor, share: Tensor) -> Tensor:
    """Twin of `reference.blend`."""
    height, width = flow.shape[-2:]
    channels = a.shape[1]
    out = _empty(flow, channels, height, width, flow.dtype)
    with _on(flow):
        _start(
            _blend_kernel, (_blocks(height * width, PIXELS), len(flow)),
            a, *_strides(a), b, *_strides(b), flow, *_strides(flow), share, *_strides(share), out, *out.stride(),
            height, width, *a.shape[-2:], channels, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=SIZES)
def _blend_plane_kernel(
    a, ay, ax, b, by, bx, flow, fn, fc, fy, fx, mask, mn, mc, my, mx, calmness, cy, cx, out, on, oc, oy, ox,
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
    quiet = tl.load(calmness + row * cy + x * cx, mask=inside, other=0).to(tl.float32)
    same = tl.load(a + row * ay + x * ax, mask=inside, other=0)
    kind = out.dtype.element_ty
    tl.store(out + n * on + row * oy + x * ox, tl.where(reach <= quiet, same, value.to(kind)), mask=inside)


def blend_plane(a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, calmness: Tensor, peak: int) -> Tensor:
    """Twin of `reference.blend_plane`."""
    height, width = flow.shape[-2:]
    out = torch.empty((len(flow), 1, height, width), dtype=a.dtype, device=a.device)
    with _on(flow):
        _start(
            _blend_plane_kernel, (_blocks(height * width, PIXELS), len(flow)),
            a, *a.stride()[2:], b, *b.stride()[2:], flow, *_strides(flow), mask, *_strides(mask),
            calmness, *calmness.stride()[2:], out, *out.stride(), height, width, float(peak),
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
def _calm_kernel(near, out, height, width, RADIUS: tl.constexpr, P: tl.constexpr):
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


def calm(a: Tensor, b: Tensor) -> Tensor:
    """Twin of `reference.calm`."""
    height, width = a.shape[-2:]
    near = torch.empty((1, 1, height, width), dtype=torch.int8, device=a.device)
    out = torch.empty_like(near)
    grid = (_blocks(height * width, PIXELS),)
    radius = reference.STILL_RADII_PX[-1]
    with _on(a):
        _start(
            _reach_kernel, grid,
            a, *a.stride()[2:], b, *b.stride()[2:], near, height, width, RADIUS=radius, P=PIXELS
        )  # fmt: skip
        _start(_calm_kernel, grid, near, out, height, width, RADIUS=radius, P=PIXELS)
    return out


# --- convolutions -----------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def _convolve_kernel(
    x, xn, xc, xy, xx, weight, bias, slopes, out, on, oc, oy, ox,
    height, width, out_height, out_width, inputs, outputs, pixels,
    STRIDE: tl.constexpr, BIASED: tl.constexpr, RESIDUAL: tl.constexpr, PRELU: tl.constexpr, LEAKY: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """A 3x3 convolution as a product of matrices, and all that follows it. Weights lie as (out, 3, 3, in)."""
    pixel = tl.program_id(0) * M + tl.arange(0, M)
    inside = pixel < pixels
    area = out_height * out_width
    n, place = (pixel // area).to(tl.int64), pixel % area
    row, column = place // out_width, place % out_width
    o, k = tl.program_id(1) * N + tl.arange(0, N), tl.arange(0, K)
    total = tl.full((M, N), 0.0, tl.float32)
    for tap in range(9):
        at_y, at_x = row * STRIDE + tap // 3 - 1, column * STRIDE + tap % 3 - 1
        use = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        source = x + n * xn + at_y.to(tl.int64) * xy + at_x * xx
        for start in range(0, inputs, K):
            channel = start + k
            known = channel < inputs
            a = tl.load(source[:, None] + channel[None, :] * xc, mask=use[:, None] & known[None, :], other=0)
            offsets = o[None, :] * (9 * inputs) + tap * inputs + channel[:, None]
            b = tl.load(weight + offsets, mask=known[:, None] & (o < outputs)[None, :], other=0)
            total = tl.dot(a, b, total)
    wanted = inside[:, None] & (o < outputs)[None, :]
    if BIASED:
        total += tl.load(bias + o, mask=o < outputs, other=0).to(tl.float32)[None, :]
    if RESIDUAL:
        same = x + n * xn + row.to(tl.int64) * xy + column * xx
        total += tl.load(same[:, None] + o[None, :] * xc, mask=wanted, other=0).to(tl.float32)
    if PRELU:
        slope = tl.load(slopes + o, mask=o < outputs, other=0).to(tl.float32)[None, :]
        total = tl.where(total > 0, total, total * slope)
    if LEAKY:
        total = tl.where(total > 0, total, total * SLOPE)
    target = out + n * on + row.to(tl.int64) * oy + column * ox
    tl.store(target[:, None] + o[None, :] * oc, total, mask=wanted)


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


@dataclass(frozen=True, slots=True)
class Tile:
    """How a product of matrices is cut: pixels, outputs and inputs of one step, and who works on it."""

    pixels: int
    outputs: int
    inputs: int
    warps: int
    stages: int

    def sizes(self, outputs: int, inputs: int) -> dict[str, int]:
        """Those that a convolution of so many channels needs, as the kernels want them."""
        return {
            "M": self.pixels,
            "N": min(self.outputs, max(16, _lanes(outputs))),
            "K": min(self.inputs, max(16, _lanes(inputs))),
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


TILES = (
    Tile(128, 64, 64, warps=4, stages=3),
    Tile(64, 64, 64, warps=4, stages=4),
    Tile(128, 128, 64, warps=8, stages=3),
    Tile(256, 64, 32, warps=8, stages=3),
    Tile(128, 64, 64, warps=4, stages=1),  # neighbouring taps come from the first cache, which copies ahead go around
)


def convolve_fused(x: Tensor, conv: Conv, tile: Tile = TILES[0]) -> Tensor:
    """Twin of `reference.convolve` in one kernel, on matrix units. Groups are not known here."""
    count, inputs, height, width = x.shape
    outputs = conv.weight.shape[0]
    out_height, out_width = -(-height // conv.stride), -(-width // conv.stride)
    out = _empty(x, outputs, out_height, out_width, x.dtype)
    pixels = count * out_height * out_width
    sizes = tile.sizes(outputs, inputs)
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    bias = out if conv.bias is None else conv.bias
    slopes = out if conv.slopes is None else conv.slopes
    with _on(x):
        _start(
            _convolve_kernel, (_blocks(pixels, sizes["M"]), _blocks(outputs, sizes["N"])),
            x, *_strides(x), weight, bias, slopes, out, *out.stride(),
            height, width, out_height, out_width, inputs, outputs, pixels,
            STRIDE=conv.stride, **_tail(conv), **sizes,
        )  # fmt: skip
    return out


def convolve_apart(x: Tensor, conv: Conv) -> Tensor:
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


def convolve_by_cudnn(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve` in one kernel that cuDNN compiles; raises for what cuDNN cannot do."""
    from vsrife.ops.cuda import cudnn_graph  # here, since it takes a second

    return cudnn_graph.convolve(x, conv)


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve`, in whichever way is faster for these shapes on this device."""
    if x.dtype.itemsize > 2 or conv.groups > 1:
        return convolve_apart(x, conv)
    if not x.is_cuda:
        return convolve_fused(x, conv)
    task = (*conv.weight.shape, conv.stride, *_tail(conv).values())
    return _in_fastest_way("convolve", task, CONVOLVE_WAYS, reference.convolve, x, conv)


def _in_fastest_way(
    op: str, task: tuple[object, ...], ways: Mapping[str, Way], plain: Way, x: Tensor, rest: Any
) -> Tensor:
    """By the one of `ways` that is fastest for such arguments; by `plain` where nothing can be timed now.

    Args:
        op: its name.
        task: what the times depend on besides, but for the number of pictures. Several at once must come out as each
            alone does, to the last bit, which different ways do not promise. So one way serves every batch. All ways
            are timed with one picture, whichever batch comes first: times of different starts compare with each other,
            and the library's own convolution, which chooses an algorithm by batch, is not favoured by a large one.
        ways: by name, most likely ones first.
        plain: the op by PyTorch.
        x: (N, C, H, W).
        rest: of the op's arguments.
    """
    task = (x.dtype, *x.shape[1:], *x.stride()[1:], *task)
    key = x.device, op, task
    if key not in _fastest:
        if torch.cuda.is_current_stream_capturing():
            return plain(x, rest)
        one = x[:1]
        names = list(ways) if one.numel() > WORTH_TUNING else list(ways)[:2]
        choices, described = choices_on(x.device), f"{op} {task}"
        if rehearsal.goes_on():
            return _by_all([ways[name] for name in choices.needed(described, names)], plain, x, rest)
        with _on(x):
            name = choices.fastest(described, names, lambda name: _milliseconds(ways[name], plain, one, rest))
        _fastest[key] = ways[name]
    return _fastest[key](x, rest)


def _by_all(ways: Sequence[Way], plain: Way, x: Tensor, rest: Any) -> Tensor:
    """By the last of `ways` that works, after all others."""
    result = None
    for way in ways:
        with suppress(Exception):  # met again when it is timed
            result = way(x, rest)
    return plain(x, rest) if result is None else result


def _milliseconds(way: Way, plain: Way, x: Tensor, rest: Any) -> float:
    """Of one call, the fastest of a few; infinite where it does not compile or is wrong."""
    try:
        got = way(x, rest)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # compilers fail in many ways
        return math.inf
    expected = plain(x, rest)
    limit = LARGEST_ERROR * torch.finfo(x.dtype).eps * expected.nan_to_num(0, 0, 0).abs().amax().item()
    if not torch.allclose(got, expected, rtol=0, atol=limit, equal_nan=True):
        return math.inf
    times = []
    for _ in range(TRIALS):
        start, end = (torch.Event(device=x.device, enable_timing=True) for _ in range(2))
        start.record()
        way(x, rest)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


TRIALS = 5
LARGEST_ERROR = 16.0  # of what is timed, in roundings of the largest value: `cases` have checked it before
WORTH_TUNING = 200_000  # numbers that a convolution reads; what is smaller takes about as long as its start
CUDNN_WAYS: Mapping[str, Way] = {  # its frontend is optional; another version may be able to do more
    f"one graph of cuDNN, frontend {installed}": convolve_by_cudnn for installed in versions("nvidia-cudnn-frontend")
}
CONVOLVE_WAYS: Mapping[str, Way] = {
    "fused": convolve_fused,
    "apart": convolve_apart,
    **CUDNN_WAYS,
    **{f"fused, {tile}": partial(convolve_fused, tile=tile) for tile in TILES[1:]},
}
# A process sees few shapes; what is chosen stays, so that the same frame always comes out the same.
_fastest: dict[tuple[torch.device, str, tuple[object, ...]], Way] = {}


@triton.jit(do_not_specialize=SIZES)
def _chain_kernel(
    x, xn, xy, xx, weight0, weight1, weight2, weight3, bias0, bias1, bias2, bias3, scratch, out, on, oy, ox,
    height, width, channels, across, tiles_of_picture, tiles, programs, layers,
    RESIDUAL: tl.constexpr, SIDE: tl.constexpr, WIDEST: tl.constexpr, M: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """3x3 convolutions with LeakyReLU one after the other, tile by tile; weights lie as (out, 3, 3, in).

    Each layer is computed as far around the tile as those behind it read. What lies between two layers goes through
    memory of the program's own, which its next tile uses again: it is small and stays in the caches.
    """
    c = tl.arange(0, C)
    known = (c < channels)[None, :]
    both = known & (c < channels)[:, None]
    between = WIDEST * WIDEST * channels  # numbers between two layers
    own = scratch + tl.program_id(0).to(tl.int64) * (2 * between)
    for tile in range(tl.program_id(0), tiles, programs):
        n, place = (tile // tiles_of_picture).to(tl.int64), tile % tiles_of_picture
        top, left = place // across * SIDE, place % across * SIDE
        for layer in range(layers):
            around = layers - 1 - layer  # pixels beyond the tile that are computed
            side = SIDE + 2 * around
            weight, bias = weight0, bias0
            if layer == 1:
                weight, bias = weight1, bias1
            if layer == 2:
                weight, bias = weight2, bias2
            if layer == 3:
                weight, bias = weight3, bias3
            source, sy, sx, source_top, source_left = x + n * xn, xy, xx, 0, 0
            if layer > 0:
                source, sy, sx = own + (layer - 1) % 2 * between, WIDEST * channels, channels
                source_top, source_left = top - around - 1, left - around - 1
            target, ty, tx, target_top, target_left = out + n * on, oy, ox, 0, 0
            if around > 0:
                target, ty, tx = own + layer % 2 * between, WIDEST * channels, channels
                target_top, target_left = top - around, left - around
            tl.debug_barrier()  # now the program's other threads have written what is read, and read what is written
            for start in range(0, side * side, M):
                pixel = start + tl.arange(0, M)
                down, along = top - around + pixel // side, left - around + pixel % side
                inside = (pixel < side * side) & (down >= 0) & (down < height) & (along >= 0) & (along < width)
                total = tl.full((M, C), 0.0, tl.float32)
                for tap in range(9):
                    at_y, at_x = down + tap // 3 - 1, along + tap % 3 - 1
                    use = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
                    at = source + (at_y - source_top).to(tl.int64) * sy + (at_x - source_left) * sx
                    a = tl.load(at[:, None] + c[None, :], mask=use[:, None] & known, other=0)
                    b = tl.load(weight + c[None, :] * (9 * channels) + tap * channels + c[:, None], mask=both, other=0)
                    total = tl.dot(a, b, total)
                total += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)[None, :]
                wanted = inside[:, None] & known
                if RESIDUAL:
                    same = source + (down - source_top).to(tl.int64) * sy + (along - source_left) * sx
                    total += tl.load(same[:, None] + c[None, :], mask=wanted, other=0).to(tl.float32)
                total = tl.where(total > 0, total, total * SLOPE)
                to = target + (down - target_top).to(tl.int64) * ty + (along - target_left) * tx
                tl.store(to[:, None] + c[None, :], total, mask=wanted)


def chain_fused(x: Tensor, convs: Sequence[Conv], layers: int = 2, side: int = 16) -> Tensor:
    """Twin of `reference.convolve_chain`: up to `MOST_AT_ONCE` `layers` in one kernel, on tiles of `side` pixels."""
    for start in range(0, len(convs), layers):
        x = _chain_link(x, convs[start : start + layers], side)
    return x


def _chain_link(x: Tensor, convs: Sequence[Conv], side: int) -> Tensor:
    count, channels, height, width = x.shape
    down, across = _blocks(height, side), _blocks(width, side)
    tiles, widest = count * down * across, side + 2 * len(convs) - 2
    programs = min(tiles, _programs(x))
    x = x.contiguous(memory_format=torch.channels_last)
    out = _empty(x, channels, height, width, x.dtype)
    scratch = torch.empty((programs, 2, widest, widest, channels), dtype=x.dtype, device=x.device)
    weights = [conv.weight.contiguous(memory_format=torch.channels_last) for conv in convs]
    biases = [conv.bias for conv in convs]
    more = MOST_AT_ONCE - len(convs)  # arguments that are not read
    n, _, y, step = _strides(x)
    with _on(x):
        _start(
            _chain_kernel, (programs,),
            x, n, y, step, *weights, *weights[:1] * more, *biases, *biases[:1] * more, scratch,
            out, out.stride(0), *out.stride()[2:], height, width, channels, across, down * across, tiles, programs,
            len(convs), RESIDUAL=convs[0].residual, SIDE=side, WIDEST=widest, M=128, C=max(16, _lanes(channels)),
            num_warps=4, num_stages=1,
        )  # fmt: skip
    return out


MOST_AT_ONCE = 4  # layers of a chain in one kernel


def _programs(x: Tensor) -> int:
    """As many as run at once, so that their memory is used again and again."""
    return 4 * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 3


def chain_apart(x: Tensor, convs: Sequence[Conv]) -> Tensor:
    """Twin of `reference.convolve_chain`, one after the other."""
    for conv in convs:
        x = convolve(x, conv)
    return x


CHAIN_WAYS: Mapping[str, Way] = {
    "apart": chain_apart,
    "2 at once": chain_fused,
    "2 at once, large tiles": partial(chain_fused, side=32),
    "4 at once, large tiles": partial(chain_fused, layers=4, side=32),
}


def convolve_chain(x: Tensor, convs: Sequence[Conv]) -> Tensor:
    """Twin of `reference.convolve_chain`, in whichever way is faster for these shapes on this device."""
    if not convs or not _chains(x, convs):
        return chain_apart(x, convs)
    if not x.is_cuda:
        return chain_fused(x, convs)
    task = (len(convs), convs[0].residual)
    return _in_fastest_way("chain", task, CHAIN_WAYS, reference.convolve_chain, x, convs)


def _chains(x: Tensor, convs: Sequence[Conv]) -> bool:
    """Whether the kernel knows such convolutions, and a tile of them is small enough."""
    channels = x.shape[1]
    return x.dtype.itemsize == 2 and channels <= 64 and all(
        conv.weight.shape == (channels, channels, 3, 3) and conv.bias is not None and conv.stride == 1
        and conv.activated and conv.slopes is None and conv.residual == convs[0].residual
        for conv in convs
    )  # fmt: skip


@triton.jit(do_not_specialize=SIZES)
def _expand_kernel(
    x, xn, xc, xy, xx, weight, bias, out, on, oc, oy, ox,
    height, width, inputs, channels, pixels,
    SIDE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One parity (p, q) of a transposed convolution as a product of matrices. Weights lie as (outputs, 2, 2, in)."""
    pixel = tl.program_id(0) * M + tl.arange(0, M)
    inside = pixel < pixels
    area = height * width
    n, place = (pixel // area).to(tl.int64), pixel % area
    row, column = place // width, place % width
    p, q = tl.program_id(1) // 2, tl.program_id(1) % 2
    o, k = tl.program_id(2) * N + tl.arange(0, N), tl.arange(0, K)  # o counts rows of the shuffle, columns, channels
    group = SIDE * channels
    known_o = o < SIDE * group
    r, rest = o // group, o % group
    s, c = rest // channels, rest % channels
    index = ((p * SIDE + r) * 2 + q) * group + rest
    total = tl.full((M, N), 0.0, tl.float32)
    for tap in range(4):
        at_y, at_x = row + p + tap // 2 - 1, column + q + tap % 2 - 1
        use = inside & (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
        source = x + n * xn + at_y.to(tl.int64) * xy + at_x * xx
        for start in range(0, inputs, K):
            channel = start + k
            known = channel < inputs
            a = tl.load(source[:, None] + channel[None, :] * xc, mask=use[:, None] & known[None, :], other=0)
            offsets = index[None, :] * (4 * inputs) + tap * inputs + channel[:, None]
            b = tl.load(weight + offsets, mask=known[:, None] & known_o[None, :], other=0)
            total = tl.dot(a, b, total)
    total += tl.load(bias + index, mask=known_o, other=0).to(tl.float32)[None, :]
    to_y = (row * 2 + p).to(tl.int64)[:, None] * SIDE + r[None, :]
    to_x = (column * 2 + q)[:, None] * SIDE + s[None, :]
    target = out + (n * on)[:, None] + to_y * oy + to_x * ox + (c * oc)[None, :]
    tl.store(target, total, mask=inside[:, None] & known_o[None, :])


def expand(x: Tensor, expansion: Expansion) -> Tensor:
    """Twin of `reference.expand`."""
    height, width = (expansion.factor * side for side in x.shape[-2:])
    return _expand(x, expansion, _empty(x, len(expansion.weight) // expansion.factor**2, height, width, torch.float32))


def head(x: Tensor, convs: Sequence[Conv], last: Expansion, into: Tensor) -> Tensor:
    """Twin of `reference.head`."""
    for conv in convs:
        x = convolve(x, conv)
    return _expand(x, last, into)


def _expand(x: Tensor, expansion: Expansion, out: Tensor) -> Tensor:
    """To `out`, (N, any, factor * H, factor * W) float32; sums of full precision go straight there."""
    if x.dtype.itemsize > 2:  # matrix units would round to fewer digits
        return out.copy_(reference.expand(x, expansion))
    count, inputs, height, width = x.shape
    side, channels = expansion.factor // 2, out.shape[1]
    pixels = count * height * width
    sizes = TILES[0].sizes(side**2 * channels, inputs)
    weight = expansion.weight.contiguous(memory_format=torch.channels_last)
    with _on(x):
        _start(
            _expand_kernel, (_blocks(pixels, sizes["M"]), 4, _blocks(side**2 * channels, sizes["N"])),
            x, *_strides(x), weight, expansion.bias, out, *out.stride(),
            height, width, inputs, channels, pixels, SIDE=side, **sizes,
        )  # fmt: skip
    return out
