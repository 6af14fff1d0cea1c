"""Triton kernels for CUDA: each gathers or finishes in one pass over memory, for any strides, size and batch.

Coordinates, sums and values from small maps are float32; planes and maps keep their own types. No kernel multiplies
matrices: convolutions are cuDNN's. Triton compiles a kernel at its first launch and keeps it on disk.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vsrife.ops.protocol import LEAKY_SLOPE

# Sizes that do not change how memory is accessed. Triton would specialise kernels for multiples of 16 among them and
# for 1, which gives the same accesses but one more kernel for each picture, block and batch.
SIZES = (
    "height", "width", "out_height", "out_width", "stack_height", "stack_width", "extra_height", "extra_width",
    "picture_height", "picture_width", "sides", "times_n",
)  # fmt: skip
SLOPE = tl.constexpr(LEAKY_SLOPE)


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
def planes_to_rgb_kernel(
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


@triton.jit(do_not_specialize=SIZES)
def sample_kernel(
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


@triton.jit(do_not_specialize=SIZES)
def upsample_kernel(
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


# --- warping ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def warp_stacks_kernel(
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
def blend_kernel(
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


@triton.jit(do_not_specialize=SIZES)
def blend_plane_kernel(
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


# --- static radius ----------------------------------------------------------------------------------------------------


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=SIZES)
def row_distance_kernel(
    a, ay, ax, b, by, bx, out, height, width, RADIUS: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """The distance to the nearest difference in the row, at most RADIUS + 1; stops when all pixels have found one."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    inside = pixel < height * width
    y, x = pixel // width, pixel % width
    row_a, row_b = a + y.to(tl.int64) * ay, b + y.to(tl.int64) * by
    differs = tl.load(row_a + x * ax, mask=inside, other=0) != tl.load(row_b + x * bx, mask=inside, other=0)
    nearest = tl.where(inside & (differs == 0), RADIUS + 1, 0)
    d = 1
    while (d <= RADIUS) & (tl.reduce(nearest, 0, _larger) > d):
        left, right = inside & (x >= d), inside & (x + d < width)
        before = tl.load(row_a + (x - d) * ax, mask=left, other=0) != tl.load(row_b + (x - d) * bx, mask=left, other=0)
        after = tl.load(row_a + (x + d) * ax, mask=right, other=0) != tl.load(row_b + (x + d) * bx, mask=right, other=0)
        nearest = tl.where((nearest > d) & (before | after), d, nearest)
        d += 1
    tl.store(out + pixel, nearest.to(tl.int8), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def static_radius_kernel(distances, out, height, width, RADIUS: tl.constexpr, P: tl.constexpr):
    """From the distances in the rows: the largest radius below the distance along both axes."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    inside = pixel < height * width
    y = pixel // width
    nearest = tl.load(distances + pixel, mask=inside, other=0).to(tl.int32)
    d = 1
    while (d <= RADIUS) & (tl.reduce(nearest, 0, _larger) > d):  # rows at distance d bring nothing nearer than d
        above = tl.load(distances + pixel - d * width, mask=inside & (y >= d), other=RADIUS + 1).to(tl.int32)
        below = tl.load(distances + pixel + d * width, mask=inside & (y + d < height), other=RADIUS + 1).to(tl.int32)
        nearest = tl.minimum(nearest, tl.maximum(tl.minimum(above, below), d))
        d += 1
    radius = tl.where(nearest > 0, 0, -1)
    for power in tl.static_range(6):
        radius = tl.where(nearest > (1 << power), 1 << power, radius)
    tl.store(out + pixel, radius.to(tl.int8), mask=inside)


# --- after a convolution ----------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def finish_kernel(
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


@triton.jit(do_not_specialize=SIZES)
def interleave_kernel(
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
