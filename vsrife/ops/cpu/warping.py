"""What a block reads, on a CPU: small maps enlarged and summed, both frames read where flow points, row by row.

Twins of `reference.upsample`, `warp_stacks`, `warp_convolve` and `blend`. A block's first convolution reads three rows
of what is gathered while they are in the caches; at full resolution it would be 110 MB for a picture of 1280x720.

Maps may be channels of larger tensors in channels-last memory. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.conv_tiles import Shape, prepared, tile, tile_at
from vsrife.ops.cpu.llvm import F32, I32, I64, Writer, function, lanes_here
from vsrife.ops.protocol import Axis, Conv, WarpInputs

Array = NDArray[Any]

FLOWS = 4  # channels: x and y into the earlier frame, then into the later one
ROWS = 16  # of the convolution that a thread makes at a time; it gathers one in 2 * ROWS + 1 twice


def parts_of(channels: int) -> list[tuple[int, int]]:
    """First channel and number of vectors that hold exactly so many."""
    result, first = [], 0
    for lanes in (16, 8, 4, 2, 1):
        while channels - first >= lanes:
            result.append((first, lanes))
            first += lanes
    return result


# --- functions for a row ----------------------------------------------------------------------------------------------

BETWEEN = {
    "first": I64,  # addresses of the rows
    "second": I64,
    "weight": F32,  # of the second
    "pixel": I64,  # bytes between pixels
    "count": I64,  # of pixels
    "out": I64,  # address of (count, channels)
}


def _write_between(builder: ir.IRBuilder, arguments: Sequence[ir.Value], channels: int) -> None:
    """A row between two."""
    first, second, weight, pixel, count, out = arguments
    loop = Writer(builder, 4).loop(count, [first, second, out])
    _, a, b, target = loop.values
    for channel, lanes in parts_of(channels):
        w = Writer(builder, lanes)
        x, y = (w.floats_at(address, 4 * channel) for address in (a, b))
        w.store(w.mixed(x, y, w.spread(weight)), target, 4 * channel)
    w = Writer(builder, 4)
    loop.end([builder.add(a, pixel), builder.add(b, pixel), builder.add(target, w.number(4 * channels))])


ALONG = {
    "rows": I64,  # address of all maps' rows, already between two of their own
    "offsets": I64,  # address of (maps, count, 2) int32: bytes from there to the neighbours of each sample
    "weights": I64,  # address of (maps, count) float32, of the second neighbour
    "total": I64,  # address of (count, channels) to add to
    "out": I64,  # address of (count, channels)
    "count": I64,
}


def _write_along(builder: ir.IRBuilder, arguments: Sequence[ir.Value], shape: tuple[int, int, bool]) -> None:
    """A row of the sum of `maps` maps of some channels, and of `total` if that is `added`."""
    rows, offsets, weights, total, out, count = arguments
    channels, maps, added = shape
    w = Writer(builder, FLOWS)
    loop = w.loop(count, [offsets, weights, total, out])
    _, near, share, summand, target = loop.values
    for channel, lanes in parts_of(channels):
        v = Writer(builder, lanes)
        value = v.floats_at(summand, 4 * channel) if added else v.filled(0)
        for i in range(maps):
            skipped = builder.mul(count, w.number(i))
            value = builder.fadd(value, _between_neighbours(v, rows, near, share, skipped, channel))
        v.store(value, target, 4 * channel)
    sizes = 8, 4, 4 * channels, 4 * channels
    loop.end([builder.add(x, w.number(n)) for x, n in zip((near, share, summand, target), sizes, strict=True)])


def _between_neighbours(
    w: Writer, rows: ir.Value, near: ir.Value, share: ir.Value, skipped: ir.Value, channel: int = 0
) -> ir.Value:
    """The value of a sample from tables as `ALONG` describes, `skipped` samples further on."""
    pair = w.to.add(near, w.to.mul(skipped, w.number(8)))
    places = (w.to.add(rows, w.to.sext(w.load(I32, pair, 4 * i), I64)) for i in range(2))
    x, y = (w.floats_at(place, 4 * channel) for place in places)
    weight = w.load(F32, w.to.add(share, w.to.mul(skipped, w.number(4))))
    return w.mixed(x, y, w.spread(weight))


@dataclass(frozen=True, slots=True)
class _Pixels:
    """How two pictures lie in memory, as far as it is constant in code that reads them."""

    channels: int
    pixel: int  # numbers between pixels
    room: int  # of which may be read
    pairs: bool  # whether a pixel and its right neighbour are read at once


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is constant in the code that gathers a row."""

    stacks: _Pixels
    extras: int
    times: int
    filled: int  # channels of the result
    taps: int


GATHER = {
    "stack0": I64,  # addresses of the first pixels
    "stack1": I64,
    "row": I64,  # bytes between rows there
    "last_x": I32,  # W - 1
    "last_y": I32,  # H - 1
    "flow": I64,  # address of the first tap's flow
    "flow_row": I64,  # bytes between rows of taps
    "columns": I64,  # address of the taps' columns, float32
    "rows": I64,  # address of the rows of this row's taps, float32
    "extra": I64,  # tables and rows as `ALONG` has them, of one map
    "offsets": I64,
    "weights": I64,
    "times": I64,  # address of this row's times
    "time": I64,  # bytes between pixels there; 0: one for all
    "out": I64,  # address of (count, filled)
    "count": I64,
}


# Of the upper and the lower row, of left and right: the vector that holds the weight, and its lane of a stack's two.
Corners = tuple[tuple[tuple[ir.Value, int], tuple[ir.Value, int]], ...]


class _Sums:
    """Writes what adds up weighted samples of two pictures, those of left corners apart from those of right ones."""

    def __init__(
        self, w: Writer, shape: _Pixels, stacks: Sequence[ir.Value], row: ir.Value, last_x: ir.Value, last_y: ir.Value
    ) -> None:
        self.w, self.shape, self.stacks, self.row = w, shape, stacks, row
        self.limits = w.shuffled(w.spread(last_x), w.spread(last_y), (0, 5, 2, 7))
        one, none = (ir.Constant(w.vector(I32), [value] * 4) for value in (1, 0))
        self.before = w.whole("smax", w.to.sub(self.limits, one), none)
        self.parts = parts_of(shape.channels + -shape.channels % 4)
        joined = 2 if shape.pairs else 1  # left and right in one vector
        self.sums = [
            [Writer(w.to, joined * n).filled(0) for _, n in self.parts for _ in range(2 // joined)] for _ in stacks
        ]

    def add(self, place: ir.Value, share: ir.Value) -> None:
        """Add what lies at (x0, y0, x1, y1), times `share`. Outside the pictures the nearest border sample counts."""
        w = self.w
        place = w.floats("maxnum", place, w.filled(0))
        place = w.floats("minnum", place, w.to.sitofp(self.limits, w.vector(F32)))
        # The last sample of an axis is read as the second of two.
        low = w.whole("smin", w.to.fptosi(place, w.vector(I32)), self.before)
        corners = self._corners(place, low, share)
        if self.shape.pairs:
            self._add_pairs(low, corners)
        else:
            self._add_pixels(low, corners)

    def of(self, stack: int) -> list[tuple[int, ir.Value]]:
        """The sums of a picture by their first channel; there may be lanes beyond its last channel."""
        result = []
        for i, (channel, lanes) in enumerate(self.parts):
            v = Writer(self.w.to, lanes)
            if self.shape.pairs:
                both = self.sums[stack][0]
                left, right = (v.shuffled(both, both, range(first, first + lanes)) for first in (0, lanes))
            else:
                left, right = self.sums[stack][2 * i : 2 * i + 2]
            result.append((channel, self.w.to.fadd(left, right)))
        return result

    def _corners(self, place: ir.Value, low: ir.Value, share: ir.Value) -> Corners:
        """The weights of the four samples around."""
        w, builder = self.w, self.w.to
        part = builder.fsub(place, builder.sitofp(low, w.vector(F32)))  # x0, y0, x1, y1
        other = w.shuffled(part, part, (1, 0, 3, 2))
        both = builder.fmul(part, other)
        only = builder.fsub(part, both)
        neither = builder.fsub(builder.fsub(w.filled(1), other), only)
        neither, only, both = (builder.fmul(x, share) for x in (neither, only, both))
        return ((neither, 0), (only, 0)), ((only, 1), (both, 0))

    def _add_pixels(self, low: ir.Value, corners: Corners) -> None:
        w, builder, shape = self.w, self.w.to, self.shape
        high = w.whole("smin", builder.add(low, ir.Constant(w.vector(I32), [1] * 4)), self.limits)
        for s, stack in enumerate(self.stacks):
            (left, top), (right, bottom) = (self._coordinates(end, s) for end in (low, high))
            lines = [builder.add(stack, builder.mul(y, self.row)) for y in (top, bottom)]
            steps = [builder.mul(x, w.number(4 * shape.pixel)) for x in (left, right)]
            for line, weights in zip(lines, corners, strict=True):
                for side, (step, (weight, lane)) in enumerate(zip(steps, weights, strict=True)):
                    address = builder.add(line, step)
                    for i, (channel, lanes) in enumerate(self.parts):
                        v, k = Writer(builder, lanes), 2 * i + side
                        values = v.floats_at(address, 4 * channel, min(lanes, shape.room - channel))
                        self.sums[s][k] = v.floats("fma", values, v.spread_lane(weight, 2 * s + lane), self.sums[s][k])

    def _add_pairs(self, low: ir.Value, corners: Corners) -> None:
        """The same, bit by bit, with left and right corner in one vector."""
        builder, size = self.w.to, self.shape.pixel
        v = Writer(builder, 2 * size)
        for s, stack in enumerate(self.stacks):
            x, y = self._coordinates(low, s)
            line = builder.add(stack, builder.mul(y, self.row))
            line = builder.add(line, builder.mul(x, self.w.number(4 * size)))
            for (left, first), (right, second) in corners:
                weights = v.shuffled(left, right, [2 * s + first] * size + [4 + 2 * s + second] * size)
                self.sums[s][0] = v.floats("fma", v.floats_at(line), weights, self.sums[s][0])
                line = builder.add(line, self.row)

    def _coordinates(self, whole: ir.Value, stack: int) -> tuple[ir.Value, ir.Value]:
        """Column and row in a picture from (x0, y0, x1, y1)."""
        builder = self.w.to
        x, y = (builder.zext(builder.extract_element(whole, ir.Constant(I32, 2 * stack + i)), I64) for i in range(2))
        return x, y


def _write_gather(builder: ir.IRBuilder, arguments: Sequence[ir.Value], shape: _Reading) -> None:
    """A row of what a block's first convolution reads.

    What is stored beyond the last channel of a stack is overwritten by what follows it.
    """
    stack0, stack1, row, last_x, last_y, flow, flow_row, columns, rows, *more = arguments
    extra, offsets, weights, times, time, out, count = more
    w, taps = Writer(builder, 4), range(shape.taps)
    add, mul, number = builder.add, builder.mul, w.number
    row_of = [w.spread(w.load(F32, rows, 4 * a)) for a in taps]
    share = w.filled(1 / shape.taps**2)
    loop = w.loop(count, [flow, columns, offsets, weights, times, out])
    _, moved, column, near, between, when, target = loop.values
    sums = _Sums(w, shape.stacks, (stack0, stack1), row, last_x, last_y)
    mean = w.filled(0)
    for a in taps:
        for b in taps:
            shift = w.floats_at(add(moved, mul(flow_row, number(a))), 4 * FLOWS * b)
            mean = w.floats("fma", shift, share, mean)
            place = w.shuffled(w.spread(w.load(F32, column, 4 * b)), row_of[a], (0, 5, 2, 7))
            sums.add(builder.fadd(place, shift), share)
    for s in range(2):
        for channel, total in sums.of(s):
            Writer(builder, total.type.count).store(total, target, 4 * (s * shape.stacks.channels + channel))
    end = 8 * shape.stacks.channels
    for channel, lanes in parts_of(shape.extras):
        v = Writer(builder, lanes)
        v.store(_between_neighbours(v, extra, near, between, number(0), channel), target, end + 4 * channel)
    end += 4 * shape.extras
    w.store(mean, target, end)
    end += 4 * FLOWS
    for i in range(shape.times):
        w.store(w.load(F32, when, 4 * i), target, end + 4 * i)
    for i in range(end // 4 + shape.times, shape.filled):
        w.store(ir.Constant(F32, 0), target, 4 * i)
    sizes = 4 * FLOWS * shape.taps, 4 * shape.taps, 8, 4
    following = [add(x, number(n)) for x, n in zip((moved, column, near, between), sizes, strict=True)]
    loop.end([*following, add(when, time), add(target, number(4 * shape.filled))])


BLEND = {
    "stack0": I64,  # as in `GATHER`
    "stack1": I64,
    "row": I64,
    "last_x": I32,
    "last_y": I32,
    "y": I32,  # of the row that is made
    "flow": I64,  # address of its first flow
    "pixel": I64,  # bytes between pixels there
    "share": I64,  # address of (count,) float32, the weight of the first picture
    "out": I64,  # address of (count, channels, which are made a multiple of four)
    "count": I64,
}


def _write_blend(builder: ir.IRBuilder, arguments: Sequence[ir.Value], shape: _Pixels) -> None:
    """A row between two pictures."""
    stack0, stack1, row, last_x, last_y, y, flow, pixel, share, out, count = arguments
    w = Writer(builder, 4)
    line = w.spread(builder.sitofp(y, F32))
    loop = w.loop(count, [flow, share, out])
    x, moved, weight, target = loop.values
    column = w.spread(builder.sitofp(builder.trunc(x, I32), F32))
    own = w.shuffled(column, line, (0, 5, 2, 7))
    first = w.spread(w.load(F32, weight))
    second = builder.fsub(w.filled(1), first)
    sums = _Sums(w, shape, (stack0, stack1), row, last_x, last_y)
    sums.add(builder.fadd(own, w.floats_at(moved)), w.shuffled(first, second, (0, 1, 4, 5)))
    for (channel, earlier), (_, later) in zip(sums.of(0), sums.of(1), strict=True):
        w.store(builder.fadd(earlier, later), target, 4 * channel)
    size = 4 * (shape.channels + -shape.channels % 4)
    loop.end([builder.add(moved, pixel), builder.add(weight, w.number(4)), builder.add(target, w.number(size))])


_between, _between_at = function(BETWEEN, _write_between)
_along, _along_at = function(ALONG, _write_along)
_gather, _gather_at = function(GATHER, _write_gather)
_blend, _blend_at = function(BLEND, _write_blend)


# --- whole maps -------------------------------------------------------------------------------------------------------


def strided(maps: Tensor) -> tuple[Tensor, int, int]:
    """A map whose channels lie side by side, and the bytes between its rows and between its pixels."""
    if maps.stride(1) != 1 and maps.shape[1] > 1:
        maps = maps.contiguous(memory_format=torch.channels_last)
    pixel = maps.stride(3) if maps.shape[3] > 1 else maps.shape[1]
    row = maps.stride(2) if maps.shape[2] > 1 else pixel * maps.shape[3]
    return maps, 4 * row, 4 * pixel


Neighbours = tuple[Array, Array]  # of the samples of an axis: (count, 2) and (count,), the weight of the second


def neighbours_of(axis: Axis) -> Neighbours:
    return np.stack([axis.low.numpy(), axis.high.numpy()], 1), axis.weight.float().numpy()


@cache
def _axis(count: int, small: int) -> Neighbours:
    """Where the samples of an enlarged axis lie."""
    return neighbours_of(Axis.resizing(count, small))


@numba.njit(parallel=True, cache=True)
def _upsample(maps, near, shares, offsets, weights, starts, between, along, total, out):  # type: ignore[no-untyped-def]
    """Maps (M, 4) of address, bytes between rows, between pixels, and width; (H, W, channels) to `out`."""
    height, width, channels = out.shape
    size = 4 * width * channels
    for y in numba.prange(height):
        rows = np.empty(starts[-1], np.float32)
        for m in range(len(maps)):
            start, row, pixel, count = maps[m]
            _between(between, (
                start + near[m, y, 0] * row, start + near[m, y, 1] * row, shares[m, y], pixel, count,
                rows.ctypes.data + 4 * starts[m],
            ))  # fmt: skip
        _along(along, (
            rows.ctypes.data, offsets.ctypes.data, weights.ctypes.data, total + y * size, out.ctypes.data + y * size,
            width,
        ))  # fmt: skip


def _summed(maps: Sequence[Tensor], axes: Sequence[tuple[Neighbours, Neighbours]], total: Tensor | None) -> Tensor:
    """The sum of maps (N, C, any, any), each read at its own rows and columns, and of `total`."""
    count, channels = max(map(len, maps)), maps[0].shape[1]
    (rows, shares), (columns, weights) = (
        (np.stack([near for near, _ in axis]), np.stack([share for _, share in axis]))
        for axis in zip(*axes, strict=True)
    )
    out = buffer_pool.take((count, rows.shape[1], columns.shape[1], channels))
    known = None if total is None else total.permute(0, 2, 3, 1).contiguous()
    starts = np.cumsum([0, *(channels * small.shape[3] for small in maps)])
    offsets = (4 * (channels * columns + starts[:-1, None, None])).astype(np.int32)
    for n in range(count):
        parts = [strided(each[n % len(each)][None]) for each in maps]
        _upsample(
            np.array([(part.data_ptr(), row, pixel, part.shape[3]) for part, row, pixel in parts]),
            rows, shares, offsets, weights, starts, _between_at(channels),
            _along_at((channels, len(maps), known is not None)),
            0 if known is None else known[n % len(known)].data_ptr(), out[n],
        )  # fmt: skip
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def upsample(maps: Sequence[Tensor], height: int, width: int, total: Tensor | None = None) -> Tensor:
    """Twin of `reference.upsample`."""
    axes = [(_axis(height, small.shape[2]), _axis(width, small.shape[3])) for small in maps]
    return _summed(maps, axes, total)


def sample(image: Tensor, rows: Axis, columns: Axis, total: Tensor | None = None) -> Tensor:
    """Twin of `reference.sample` for float32."""
    return _summed([image], [(neighbours_of(rows), neighbours_of(columns))], total)


@numba.njit
def _gather_row(  # type: ignore[no-untyped-def]
    i, stacks, flow, columns, rows, taps, extra, near, shares, offsets, weights, times, line, gather, out
):  # fmt: skip
    """Row i of what is gathered, to the address `out`; `line` is room for a row of `extra`."""
    stack0, stack1, stack_row, last_x, last_y = stacks
    start, row, pixel, count, _, between = extra
    _between(between, (
        start + near[i, 0] * row, start + near[i, 1] * row, shares[i], pixel, count, line.ctypes.data
    ))  # fmt: skip
    flow_row = 4 * flow.shape[1] * flow.shape[2]
    moments = times.shape[2]
    _gather(gather, (
        stack0, stack1, stack_row, np.int32(last_x), np.int32(last_y),
        flow.ctypes.data + i * taps * flow_row, flow_row, columns.ctypes.data, rows.ctypes.data + 4 * i * taps,
        line.ctypes.data, offsets.ctypes.data, weights.ctypes.data,
        times.ctypes.data + 4 * moments * (i * times.shape[1] if times.shape[0] > 1 else 0),
        4 * moments if times.shape[1] > 1 else 0, out, len(columns) // taps,
    ))  # fmt: skip


@numba.njit(parallel=True, cache=True)
def _gather_all(stacks, flow, columns, rows, taps, extra, near, shares, offsets, weights, times, gather, out):  # type: ignore[no-untyped-def]
    height, width, filled = out.shape
    for i in numba.prange(height):
        line = np.empty(extra[3] * extra[4], np.float32)
        _gather_row(
            i, stacks, flow, columns, rows, taps, extra, near, shares, offsets, weights, times, line, gather,
            out.ctypes.data + 4 * i * width * filled,
        )  # fmt: skip


@numba.njit(parallel=True, cache=True)
def _gather_convolve(  # type: ignore[no-untyped-def]
    stacks, flow, columns, rows, taps, extra, near, shares, offsets, weights, times, gather,
    packed, scaling, filled, pixels, code, out,
):  # fmt: skip
    """Outputs (h, w, K) of a convolution with stride 2 and padding 1 of what is gathered."""
    high, wide, outputs = out.shape
    height, together = len(rows) // taps, scaling.shape[2]
    for strip in numba.prange(-(-high // ROWS)):
        line = np.empty(extra[3] * extra[4], np.float32)
        ring = np.zeros((3, 2 * wide + 1, filled), np.float32)
        size, flat = 4 * ring.shape[1] * filled, ring.reshape(-1)
        first = strip * ROWS
        for r in range(first, min(first + ROWS, high)):
            for c in range(size // 4):  # NumPy's spelling would take seconds to compile
                flat[c] = flat[size // 2 + c]
            for k in range(0 if r == first else 1, 3):
                i = 2 * r - 1 + k
                if i < 0 or i >= height:
                    ring[k] = np.float32(0)
                    continue
                _gather_row(
                    i, stacks, flow, columns, rows, taps, extra, near, shares, offsets, weights, times, line,
                    gather, ring.ctypes.data + k * size + 4 * filled,
                )  # fmt: skip
            for group in range(outputs // together):
                weight = packed.ctypes.data + group * 36 * filled * together
                j = 0
                while j < wide:
                    left = min(j, wide - pixels)  # the last tile of a row may do some pixels again
                    tile(code, (
                        ring.ctypes.data + 8 * left * filled, 8 * filled, size, weight, 3 * filled,
                        scaling.ctypes.data + group * 8 * together,
                        out.ctypes.data + 4 * ((r * wide + left) * outputs + group * together), 4 * outputs,
                    ))  # fmt: skip
                    j += pixels


def _given(n: int, filled: int, inputs: WarpInputs, flow: Tensor) -> tuple[tuple[Any, ...], list[Tensor]]:
    """What the kernels read of sample n, and what has to stay alive meanwhile."""
    extra, times = inputs.extra, inputs.times
    stacks, where, layout = _pair(inputs.stack0, inputs.stack1)
    moved = flow[n].permute(1, 2, 0).contiguous().numpy()
    part, extra_row, extra_pixel = strided(extra[n % len(extra)][None])
    height, width = inputs.size
    (near, shares), (sides, weights) = _axis(height, part.shape[2]), _axis(width, part.shape[3])
    extras, moments = part.shape[1], times[n % len(times)].permute(1, 2, 0).contiguous().float().numpy()
    reading = _Reading(layout, extras, moments.shape[2], filled, inputs.taps)
    return (
        where, moved, inputs.columns.numpy(), inputs.rows.flatten().numpy(), inputs.taps,
        np.array([part.data_ptr(), extra_row, extra_pixel, part.shape[3], extras, _between_at(extras)]), near, shares,
        (4 * extras * sides).astype(np.int32), weights, moments, _gather_at(reading),
    ), [part, *stacks]  # fmt: skip


def _pair(first: Tensor, second: Tensor) -> tuple[list[Tensor], Array, _Pixels]:
    """Two pictures of one layout in memory; their addresses, bytes between rows, last column and row; the layout."""
    stacks = [first, second]
    if any(stack.stride(1) != 1 or stack.stride() != first.stride() for stack in stacks):
        stacks = [stack.contiguous(memory_format=torch.channels_last) for stack in stacks]
    channels, high, wide = stacks[0].shape[1:]
    row, pixel = stacks[0].stride(2), stacks[0].stride(3) if wide > 1 else channels
    room = min(pixel, *map(_room, stacks))
    pairs = room == pixel and pixel in (4, 8) and channels > pixel // 2 and high > 1 and wide > 1
    where = np.array([*(stack.data_ptr() for stack in stacks), 4 * row, wide - 1, high - 1])
    return stacks, where, _Pixels(channels, pixel, room, pairs)


def _room(stack: Tensor) -> int:
    """How many numbers there are from the start of its last pixel on."""
    _, _, height, width = stack.shape
    last = stack.storage_offset() + (height - 1) * stack.stride(2) + (width - 1) * stack.stride(3)
    return int(stack.untyped_storage().nbytes() // stack.element_size() - last)


def gather(inputs: WarpInputs, filled: int) -> Tensor:
    """What `reference.warp_stacks` gives, with `filled` channels."""
    flow = inputs.flow()
    out = buffer_pool.take((inputs.count, *inputs.size, filled))
    for n in range(len(out)):
        arguments, _alive = _given(n, filled, inputs, flow)
        _gather_all(*arguments, out[n])
    return torch.from_numpy(out).permute(0, 3, 1, 2)


@numba.njit(parallel=True, cache=True)
def _blend_all(pictures, flow, share, blend, out):  # type: ignore[no-untyped-def]
    """`flow` has the address, bytes between rows and between pixels."""
    first, second, row, last_x, last_y = pictures
    height, width, channels = out.shape
    for y in numba.prange(height):
        _blend(blend, (
            first, second, row, np.int32(last_x), np.int32(last_y), np.int32(y), flow[0] + y * flow[1], flow[2],
            share.ctypes.data + 4 * y * width, out.ctypes.data + 4 * y * width * channels, width,
        ))  # fmt: skip


def blend(a: Tensor, b: Tensor, flow: Tensor, share: Tensor) -> Tensor:
    """What `reference.blend` gives, for float32 and one flow."""
    _alive, where, layout = _pair(a, b)
    moved, *steps = strided(flow)
    channels, height, width = a.shape[1], *flow.shape[-2:]
    out = buffer_pool.take((height, width, channels + -channels % 4))
    _blend_all(where, np.array([moved.data_ptr(), *steps]), share[0, 0].contiguous().numpy(), _blend_at(layout), out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)[:, :channels]


def lanes_for(outputs: int) -> int:
    """Numbers in the vectors for so many outputs; 0 where none fit."""
    return next((lanes for lanes in (16, 8, 4) if lanes <= lanes_here() and outputs % lanes == 0), 0)


def gather_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
    """What `reference.warp_convolve` gives, for a convolution with stride 2 whose outputs fit `lanes_for`."""
    outputs, filled = conv.weight.shape[:2]
    height, width = (-(-side // 2) for side in inputs.size)
    shape = Shape.of(lanes_for(outputs), outputs, width, 3)
    flow = inputs.flow()
    out = buffer_pool.take((inputs.count, height, width, outputs))
    for n in range(len(out)):
        arguments, _alive = _given(n, filled, inputs, flow)
        _gather_convolve(*arguments, *prepared(conv, shape), filled, shape.pixels, tile_at(shape), out[n])
    return torch.from_numpy(out).permute(0, 3, 1, 2)
