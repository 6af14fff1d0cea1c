"""Triton kernels for CUDA: each gathers or finishes in one pass over memory, for any strides, size and batch.

Coordinates, sums and values from small maps are float32; planes and maps keep their own types. No kernel multiplies
matrices: convolutions are cuDNN's. Triton compiles a kernel at its first launch and keeps it on disk.

An image is an argument of five values: its memory, and its strides for n, c, y and x. Each program computes P pixels of
one image; y and x are (P,), channels c are (1, C).
"""

from __future__ import annotations

import triton
import triton.language as tl

from vsrife.ops.protocol import LEAKY_SLOPE

# Sizes that do not change how memory is accessed. Triton would specialise kernels for multiples of 16 among them and
# for 1, which gives the same accesses but one more kernel for each picture, block and batch.
SIZES = (
    "height", "width", "out_height", "out_width", "image_height", "image_width", "sides", "extra_sides",
)  # fmt: skip
SLOPE = tl.constexpr(LEAKY_SLOPE)


@triton.jit
def _pixels(height, width, P: tl.constexpr):
    """Index n of the image; rows, columns of the program's pixels and whether they exist."""
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    return tl.program_id(1).to(tl.int64), pixel // width, pixel % width, pixel < height * width


@triton.jit
def _at(image, n, y, x):
    """Addresses of pixels in the first channel, (P,)."""
    return image[0] + n * image[1] + (y.to(tl.int64) * image[3] + x * image[4])


@triton.jit
def _all_at(image, n, y, x, c):
    """Addresses of pixels and channels, (P, C)."""
    return image[0] + n * image[1] + (y.to(tl.int64) * image[3] + x * image[4])[:, None] + c * image[2]


# --- reading between samples ------------------------------------------------------------------------------------------


@triton.jit
def _between(image, n, top, low, left, right, down, along, c, use):
    """Values between four samples, (P, C) float32."""
    p = tl.load(_all_at(image, n, top, left, c), mask=use, other=0).to(tl.float32)
    q = tl.load(_all_at(image, n, top, right, c), mask=use, other=0).to(tl.float32)
    r = tl.load(_all_at(image, n, low, left, c), mask=use, other=0).to(tl.float32)
    s = tl.load(_all_at(image, n, low, right, c), mask=use, other=0).to(tl.float32)
    above, below = p + (q - p) * along[:, None], r + (s - r) * along[:, None]
    return above + (below - above) * down[:, None]


@triton.jit
def _clamped(position, size):
    """Within 0..size - 1; not a number becomes 0, since addresses follow from it."""
    return tl.minimum(tl.where(position > 0, position, 0.0), (size - 1) * 1.0)


@triton.jit
def _bilinear(image, n, y, x, height, width, c, use):
    """Values at float32 positions, (P, C) float32."""
    y, x = _clamped(y, height), _clamped(x, width)
    top, left = y.to(tl.int32), x.to(tl.int32)
    low, right = tl.minimum(top + 1, height - 1), tl.minimum(left + 1, width - 1)
    return _between(image, n, top, low, left, right, y - top.to(tl.float32), x - left.to(tl.float32), c, use)


@triton.jit
def _on_grid(image, n, rows, columns, y, x, inside, c, use):
    """Values at positions of an `Axis` of rows and one of columns, (P, C) float32."""
    top, low = tl.load(rows[0] + y, mask=inside, other=0), tl.load(rows[1] + y, mask=inside, other=0)
    left, right = tl.load(columns[0] + x, mask=inside, other=0), tl.load(columns[1] + x, mask=inside, other=0)
    down, along = tl.load(rows[2] + y, mask=inside, other=0), tl.load(columns[2] + x, mask=inside, other=0)
    return _between(image, n, top, low, left, right, down, along, c, use)


@triton.jit
def _summed(maps, sides, n, y, x, c, use, MAPS: tl.constexpr):
    """The sum of small maps at pixels of the picture, (P, C) float32; `sides`: height, width, steps of each."""
    value = tl.full(use.shape, 0.0, tl.float32)
    for i in tl.static_range(MAPS):
        height, width, step_y, step_x = sides[i]
        at_y, at_x = (y.to(tl.float32) + 0.5) * step_y - 0.5, (x.to(tl.float32) + 0.5) * step_x - 0.5
        value += _bilinear(maps[i], n, at_y, at_x, height, width, c, use)
    return value


@triton.jit(do_not_specialize=SIZES)
def planes_to_rgb_kernel(
    planes, weight, bias, rows, columns, out, height, width, out_height, out_width,
    PLANES: tl.constexpr, SUBSAMPLED: tl.constexpr, CLAMPS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    n, y, x, inside = _pixels(out_height, out_width, P)
    c, k = tl.arange(0, 1)[None, :], tl.arange(0, 4)[None, :]
    use, known = inside & (y < height) & (x < width), k < 3
    value = tl.load(bias + k, mask=known, other=0)
    for i in tl.static_range(PLANES):
        if SUBSAMPLED and i > 0:
            sample = _on_grid(planes[i], n, rows, columns, y, x, use, c, use[:, None])
        else:
            sample = tl.load(_all_at(planes[i], n, y, x, c), mask=use[:, None], other=0).to(tl.float32)
        value += sample * tl.load(weight + k * PLANES + i, mask=known, other=0)
    if CLAMPS:
        value = tl.minimum(tl.maximum(value, 0.0), 1.0)
    value = tl.where(use[:, None], value, 0.0)
    tl.store(_all_at(out, n, y, x, k), value, mask=inside[:, None] & known)


@triton.jit(do_not_specialize=SIZES)
def sample_kernel(
    image, out, rows, columns, height, width, channels, C: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    n, y, x, inside = _pixels(height, width, P)
    c = tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    value = _on_grid(image, n, rows, columns, y, x, inside, c, use)
    tl.store(_all_at(out, n, y, x, c), value, mask=use)


@triton.jit(do_not_specialize=SIZES)
def upsample_kernel(
    maps, sides, out, height, width, channels, MAPS: tl.constexpr, C: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    n, y, x, inside = _pixels(height, width, P)
    c = tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    value = _summed(maps, sides, n, y, x, c, use, MAPS)
    tl.store(_all_at(out, n, y, x, c), value, mask=use)


# --- warping ----------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def warp_stacks_kernel(
    stack0, stack1, maps, sides, rows, columns, extra, extra_sides, times, out,
    height, width, image_height, image_width, channels, extras, moments, filled,
    TAPS: tl.constexpr, MAPS: tl.constexpr, C: tl.constexpr, E: tl.constexpr, R: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    n, y, x, inside = _pixels(height, width, P)
    c, k = tl.arange(0, C)[None, :], tl.arange(0, 4)[None, :]
    e, r = tl.arange(0, E)[None, :], tl.arange(0, R)[None, :]
    use, use_extra = inside[:, None] & (c < channels), inside[:, None] & (e < extras)
    from0, from1 = tl.full((P, C), 0.0, tl.float32), tl.full((P, C), 0.0, tl.float32)
    mean = tl.full((P, 4), 0.0, tl.float32)
    for tap in range(TAPS * TAPS):
        row = tl.load(rows + y * TAPS + tap // TAPS, mask=inside, other=0)
        column = tl.load(columns + x * TAPS + tap % TAPS, mask=inside, other=0)
        flow = _summed(maps, sides, n, row, column, k, inside[:, None] & (k < 4), MAPS)
        along, down = tl.split(tl.reshape(flow, (P, 2, 2)))
        x0, x1 = tl.split(along)
        y0, y1 = tl.split(down)
        from0 += _bilinear(stack0, n, row + y0, column + x0, image_height, image_width, c, use)
        from1 += _bilinear(stack1, n, row + y1, column + x1, image_height, image_width, c, use)
        mean += flow
    tap_weight = 1.0 / (TAPS * TAPS)
    further = _summed(extra, extra_sides, n, y, x, e, use_extra, 1)
    time = tl.load(_all_at(times, n, y, x, r), mask=inside[:, None] & (r < moments), other=0)
    behind = 2 * channels + extras
    tl.store(_all_at(out, n, y, x, c), from0 * tap_weight, mask=use)
    tl.store(_all_at(out, n, y, x, channels + c), from1 * tap_weight, mask=use)
    tl.store(_all_at(out, n, y, x, 2 * channels + e), further, mask=use_extra)
    tl.store(_all_at(out, n, y, x, behind + k), mean * tap_weight, mask=inside[:, None])
    # The times, and zeros in the channels left over.
    tl.store(_all_at(out, n, y, x, behind + 4 + r), time, mask=inside[:, None] & (behind + 4 + r < filled))


@triton.jit(do_not_specialize=SIZES)
def blend_kernel(
    a, b, flow, weight0, radius, out, height, width, image_height, image_width, channels, peak,
    PLANE: tl.constexpr, ROUNDS: tl.constexpr, C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """PLANE: the weight is a logit, and samples of `a` that cannot have moved stay as they are."""
    n, y, x, inside = _pixels(height, width, P)
    c = tl.arange(0, C)[None, :]
    use, at_y, at_x = inside[:, None] & (c < channels), y.to(tl.float32), x.to(tl.float32)
    vectors = _at(flow, n, y, x)
    x0, y0 = tl.load(vectors, mask=inside, other=0), tl.load(vectors + flow[2], mask=inside, other=0)
    x1, y1 = tl.load(vectors + 2 * flow[2], mask=inside, other=0), tl.load(vectors + 3 * flow[2], mask=inside, other=0)
    weight = tl.load(_at(weight0, n, y, x), mask=inside, other=0)
    if PLANE:
        weight = 1.0 / (1.0 + tl.exp(-weight))
    earlier = _bilinear(a, n, at_y + y0, at_x + x0, image_height, image_width, c, use)
    later = _bilinear(b, n, at_y + y1, at_x + x1, image_height, image_width, c, use)
    value = later + (earlier - later) * weight[:, None]
    if ROUNDS:
        # Half to even, as everywhere: adding and taking away 1.5 * 2^23 leaves no digits behind the point.
        value = tl.minimum(tl.maximum((value + 12582912.0) - 12582912.0, 0.0), peak)
    if PLANE:
        reach = tl.maximum(tl.maximum(tl.abs(x0), tl.abs(y0)), tl.maximum(tl.abs(x1), tl.abs(y1)))
        quiet = tl.load(_at(radius, n, y, x), mask=inside, other=0).to(tl.float32)
        same = tl.load(_all_at(a, n, y, x, c), mask=use, other=0)
        value = tl.where((reach <= quiet)[:, None], same, value.to(same.dtype))
    tl.store(_all_at(out, n, y, x, c), value, mask=use)


# --- static radius ----------------------------------------------------------------------------------------------------


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=SIZES)
def static_radius_kernel(
    before, out, height, width, COLUMNS: tl.constexpr, RADIUS: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """One of two passes, over contiguous planes.

    Along the rows: from 1 where planes are equal to the distance of the nearest difference, at most RADIUS + 1. Along
    the columns: from these distances to the largest radius without a difference. Both stop when no pixel can find a
    nearer one.
    """
    pixel = tl.program_id(0) * P + tl.arange(0, P)
    inside = pixel < height * width
    place, size, step = pixel % width, width, 1
    if COLUMNS:
        place, size, step = pixel // width, height, width
    unit = 1 if COLUMNS else RADIUS + 1
    nearest = tl.load(before + pixel, mask=inside, other=0).to(tl.int32) * unit
    d = 1
    while (d <= RADIUS) & (tl.reduce(nearest, 0, _larger) > d):
        low = tl.load(before + pixel - d * step, mask=inside & (place >= d), other=RADIUS + 1)
        high = tl.load(before + pixel + d * step, mask=inside & (place + d < size), other=RADIUS + 1)
        nearest = tl.minimum(nearest, tl.maximum(tl.minimum(low, high).to(tl.int32) * unit, d))
        d += 1
    if COLUMNS:
        distance, nearest = nearest, tl.where(nearest > 0, 0, -1)
        for power in tl.static_range(6):
            nearest = tl.where(distance > (1 << power), 1 << power, nearest)
    tl.store(out + pixel, nearest.to(tl.int8), mask=inside)


# --- after a convolution ----------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=SIZES)
def finish_kernel(
    out, x_in, bias, slopes, height, width, channels,
    BIASED: tl.constexpr, RESIDUAL: tl.constexpr, PRELU: tl.constexpr, LEAKY: tl.constexpr,
    C: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """What follows a convolution, in place: bias, residual, activation."""
    n, y, x, inside = _pixels(height, width, P)
    c = tl.program_id(2) * C + tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    address = _all_at(out, n, y, x, c)
    value = tl.load(address, mask=use, other=0).to(tl.float32)
    if BIASED:
        value += tl.load(bias + c, mask=c < channels, other=0).to(tl.float32)
    if RESIDUAL:
        value += tl.load(_all_at(x_in, n, y, x, c), mask=use, other=0).to(tl.float32)
    if PRELU:
        value = tl.where(value > 0, value, value * tl.load(slopes + c, mask=c < channels, other=0).to(tl.float32))
    if LEAKY:
        value = tl.where(value > 0, value, value * SLOPE)
    tl.store(address, value, mask=use)


@triton.jit(do_not_specialize=SIZES)
def interleave_kernel(
    places, bias, out, height, width, channels, SIDE: tl.constexpr, C: tl.constexpr, P: tl.constexpr
):  # fmt: skip
    """The four parities of a transposed convolution, each with its shuffle, side by side."""
    n, y, x, inside = _pixels(height, width, P)
    c = tl.arange(0, C)[None, :]
    use = inside[:, None] & (c < channels)
    p, r, q, s = y // SIDE % 2, y % SIDE, x // SIDE % 2, x % SIDE
    channel = ((((p * SIDE + r) * 2 + q) * SIDE + s) * channels)[:, None] + c
    value = tl.load(_all_at(places, n, y // (2 * SIDE) + p, x // (2 * SIDE) + q, channel), mask=use, other=0)
    value = value.to(tl.float32) + tl.load(bias + channel, mask=use, other=0).to(tl.float32)
    tl.store(_all_at(out, n, y, x, c), value, mask=use)
