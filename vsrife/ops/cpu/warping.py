"""CPU kernels that read both frames where the flow points.

A block's first convolution reads rows of its warped inputs while they are in the caches; as a whole map at full
resolution they would be 110 MB for a frame of 1280x720. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.conv_tiles import ConvTile, conv_tile, conv_tile_at, packed_layer
from vsrife.ops.cpu.llvm import F32, I32, I64, Emitter, emitted, lanes_for, parallel_kernel, vectors_of
from vsrife.ops.cpu.sampling import emit_neighbours, lerp_rows, lerp_rows_at, pixel_layout, resized_axis
from vsrife.ops.protocol import Conv, WarpInputs

Array = NDArray[Any]

FLOWS = 4  # channels: x and y into frame 0, then into frame 1
ROWS = 16  # of the convolution per strip, the work of one thread; one input row in 2 * ROWS + 1 is warped twice

# --- code within a row ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """How two pictures of one layout lie in memory.

    Attributes:
        channels: of a pixel.
        pixel: numbers between pixels.
        readable: numbers from the start of a pixel that may be read.
        pairs: whether a pixel and its right neighbour are read at once.
    """

    channels: int
    pixel: int
    readable: int
    pairs: bool


@dataclass(frozen=True, slots=True)
class _WarpVariant:
    """The constants of the code that warps a row of a block's inputs; `channels` are those of the result."""

    stacks: _Layout
    extras: int
    times: int
    channels: int
    taps: int


# Of the upper and the lower row, of left and right: the vector that holds the weight, and its lane of a stack's two.
Corners = tuple[tuple[tuple[ir.Value, int], tuple[ir.Value, int]], ...]


class _BilinearSums:
    """Emits sums of weighted bilinear samples of two pictures; left and right corners are summed separately."""

    def __init__(
        self, e: Emitter, layout: _Layout, stacks: Sequence[ir.Value], row: ir.Value, last_x: ir.Value, last_y: ir.Value
    ) -> None:
        self.e, self.layout, self.stacks, self.row = e, layout, stacks, row
        self.limits = e.shuffle(e.broadcast(last_x), e.broadcast(last_y), (0, 5, 2, 7))
        one, zero = (ir.Constant(e.vector(I32), [value] * 4) for value in (1, 0))
        self.before_last = e.integers("smax", e.builder.sub(self.limits, one), zero)
        self.vectors = vectors_of(layout.channels + -layout.channels % 4)
        corners = 2 if layout.pairs else 1  # in one vector
        self.sums = [
            [Emitter(e.builder, corners * n).constant(0) for _, n in self.vectors for _ in range(2 // corners)]
            for _ in stacks
        ]

    def add(self, position: ir.Value, weight: ir.Value) -> None:
        """Add the samples at (x0, y0, x1, y1), times `weight`; positions outside the pictures read the border."""
        e = self.e
        position = e.floats("maxnum", position, e.constant(0))
        position = e.floats("minnum", position, e.builder.sitofp(self.limits, e.vector(F32)))
        # The last sample of an axis is read as the second of two.
        low = e.integers("smin", e.builder.fptosi(position, e.vector(I32)), self.before_last)
        corners = self._corners(position, low, weight)
        if self.layout.pairs:
            self._add_pairs(low, corners)
        else:
            self._add_pixels(low, corners)

    def of(self, stack: int) -> list[tuple[int, ir.Value]]:
        """The sums of a picture by their first channel; the last may have lanes beyond the channels."""
        result = []
        for i, (channel, lanes) in enumerate(self.vectors):
            v = Emitter(self.e.builder, lanes)
            if self.layout.pairs:
                both = self.sums[stack][0]
                left, right = (v.shuffle(both, both, range(first, first + lanes)) for first in (0, lanes))
            else:
                left, right = self.sums[stack][2 * i : 2 * i + 2]
            result.append((channel, self.e.builder.fadd(left, right)))
        return result

    def _corners(self, position: ir.Value, low: ir.Value, weight: ir.Value) -> Corners:
        """The weights of the four samples around a position."""
        e, builder = self.e, self.e.builder
        fraction = builder.fsub(position, builder.sitofp(low, e.vector(F32)))  # x0, y0, x1, y1
        other = e.shuffle(fraction, fraction, (1, 0, 3, 2))
        both = builder.fmul(fraction, other)
        only = builder.fsub(fraction, both)
        neither = builder.fsub(builder.fsub(e.constant(1), other), only)
        neither, only, both = (builder.fmul(x, weight) for x in (neither, only, both))
        return ((neither, 0), (only, 0)), ((only, 1), (both, 0))

    def _add_pixels(self, low: ir.Value, corners: Corners) -> None:
        e, builder, layout = self.e, self.e.builder, self.layout
        high = e.integers("smin", builder.add(low, ir.Constant(e.vector(I32), [1] * 4)), self.limits)
        for s, stack in enumerate(self.stacks):
            (left, top), (right, bottom) = (self._coordinates(corner, s) for corner in (low, high))
            lines = [builder.add(stack, builder.mul(y, self.row)) for y in (top, bottom)]
            steps = [builder.mul(x, e.integer(4 * layout.pixel)) for x in (left, right)]
            for line, weights in zip(lines, corners, strict=True):
                for side, (step, (weight, lane)) in enumerate(zip(steps, weights, strict=True)):
                    address = builder.add(line, step)
                    for i, (channel, lanes) in enumerate(self.vectors):
                        v, k = Emitter(builder, lanes), 2 * i + side
                        values = v.load_floats(address, 4 * channel, min(lanes, layout.readable - channel))
                        weight_vector = v.broadcast_lane(weight, 2 * s + lane)
                        self.sums[s][k] = v.floats("fma", values, weight_vector, self.sums[s][k])

    def _add_pairs(self, low: ir.Value, corners: Corners) -> None:
        """The same to the last bit, with left and right corner in one vector."""
        builder, size = self.e.builder, self.layout.pixel
        v = Emitter(builder, 2 * size)
        for s, stack in enumerate(self.stacks):
            x, y = self._coordinates(low, s)
            line = builder.add(stack, builder.mul(y, self.row))
            line = builder.add(line, builder.mul(x, self.e.integer(4 * size)))
            for (left, first), (right, second) in corners:
                weights = v.shuffle(left, right, [2 * s + first] * size + [4 + 2 * s + second] * size)
                self.sums[s][0] = v.floats("fma", v.load_floats(line), weights, self.sums[s][0])
                line = builder.add(line, self.row)

    def _coordinates(self, low: ir.Value, stack: int) -> tuple[ir.Value, ir.Value]:
        """Column and row in a picture from (x0, y0, x1, y1)."""
        builder = self.e.builder
        x, y = (builder.zext(builder.extract_element(low, ir.Constant(I32, 2 * stack + i)), I64) for i in range(2))
        return x, y


WARP_ROW = {
    "stack0": I64,  # addresses of the first pixels
    "stack1": I64,
    "row": I64,  # bytes between rows there
    "last_x": I32,  # W - 1
    "last_y": I32,  # H - 1
    "flow": I64,  # address of the first tap's flow
    "flow_row": I64,  # bytes between rows of taps
    "columns": I64,  # address of the taps' columns, float32
    "rows": I64,  # address of the rows of this row's taps, float32
    "extra": I64,  # row and tables of one map, as in `SUM_ALONG_ROW`
    "offsets": I64,
    "weights": I64,
    "times": I64,  # address of this row's times
    "times_pixel": I64,  # bytes between pixels there; 0 if all pixels have the same
    "out": I64,  # address of (count, channels)
    "count": I64,
}


def _emit_warp_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], variant: _WarpVariant) -> None:
    """Emit a row of a block's inputs.

    Lanes stored beyond the last channel of a stack are overwritten by the channels that follow it.
    """
    stack0, stack1, row, last_x, last_y, flow, flow_row, columns, rows, *more = arguments
    extra, offsets, weights, times, times_pixel, out, count = more
    e, taps = Emitter(builder, 4), range(variant.taps)
    add, mul, integer = builder.add, builder.mul, e.integer
    row_of = [e.broadcast(e.load(F32, rows, 4 * a)) for a in taps]
    tap_weight = e.constant(1 / variant.taps**2)
    loop = e.loop(count, [flow, columns, offsets, weights, times, out])
    _, tap_flow, column, offset, weight, time, target = loop.values
    sums = _BilinearSums(e, variant.stacks, (stack0, stack1), row, last_x, last_y)
    mean = e.constant(0)
    for a in taps:
        for b in taps:
            motion = e.load_floats(add(tap_flow, mul(flow_row, integer(a))), 4 * FLOWS * b)
            mean = e.floats("fma", motion, tap_weight, mean)
            position = e.shuffle(e.broadcast(e.load(F32, column, 4 * b)), row_of[a], (0, 5, 2, 7))
            sums.add(builder.fadd(position, motion), tap_weight)
    for s in range(2):
        for channel, values in sums.of(s):
            Emitter(builder, values.type.count).store(values, target, 4 * (s * variant.stacks.channels + channel))
    end = 8 * variant.stacks.channels
    for channel, lanes in vectors_of(variant.extras):
        v = Emitter(builder, lanes)
        v.store(emit_neighbours(v, extra, offset, weight, integer(0), channel), target, end + 4 * channel)
    end += 4 * variant.extras
    e.store(mean, target, end)
    end += 4 * FLOWS
    for i in range(variant.times):
        e.store(e.load(F32, time, 4 * i), target, end + 4 * i)
    for i in range(end // 4 + variant.times, variant.channels):
        e.store(ir.Constant(F32, 0), target, 4 * i)
    sizes = 4 * FLOWS * variant.taps, 4 * variant.taps, 8, 4
    following = [add(x, integer(n)) for x, n in zip((tap_flow, column, offset, weight), sizes, strict=True)]
    loop.end([*following, add(time, times_pixel), add(target, integer(4 * variant.channels))])


BLEND_ROW = {
    "stack0": I64,  # as in `WARP_ROW`
    "stack1": I64,
    "row": I64,
    "last_x": I32,
    "last_y": I32,
    "y": I32,  # of this row
    "flow": I64,  # address of its first flow
    "pixel": I64,  # bytes between pixels there
    "weight0": I64,  # address of (count,) float32, the weight of picture 0
    "out": I64,  # address of (count, channels rounded up to a multiple of four)
    "count": I64,
}


def _emit_blend_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], layout: _Layout) -> None:
    """Emit a row between two pictures."""
    stack0, stack1, row, last_x, last_y, y, flow, pixel, weight0, out, count = arguments
    e = Emitter(builder, 4)
    line = e.broadcast(builder.sitofp(y, F32))
    loop = e.loop(count, [flow, weight0, out])
    x, motion, weight, target = loop.values
    column = e.broadcast(builder.sitofp(builder.trunc(x, I32), F32))
    position = e.shuffle(column, line, (0, 5, 2, 7))
    first = e.broadcast(e.load(F32, weight))
    second = builder.fsub(e.constant(1), first)
    sums = _BilinearSums(e, layout, (stack0, stack1), row, last_x, last_y)
    sums.add(builder.fadd(position, e.load_floats(motion)), e.shuffle(first, second, (0, 1, 4, 5)))
    for (channel, warped0), (_, warped1) in zip(sums.of(0), sums.of(1), strict=True):
        e.store(builder.fadd(warped0, warped1), target, 4 * channel)
    size = 4 * (layout.channels + -layout.channels % 4)
    loop.end([builder.add(motion, pixel), builder.add(weight, e.integer(4)), builder.add(target, e.integer(size))])


_emitted_warp_row, _warp_row_at = emitted(WARP_ROW, _emit_warp_row)
_blend_row, _blend_row_at = emitted(BLEND_ROW, _emit_blend_row)


# --- whole maps -------------------------------------------------------------------------------------------------------


@numba.njit
def _warp_row(  # type: ignore[no-untyped-def]
    i, stacks, flow, columns, rows, taps, extra, extra_rows, row_weights, offsets, weights, times, line, warp_row, out
):  # fmt: skip
    """Warp row i of a block's inputs to the address `out`; `line` holds a row of `extra`."""
    stack0, stack1, stack_row, last_x, last_y = stacks
    start, row, pixel, count, _, lerp = extra
    lerp_rows(lerp, (
        start + extra_rows[i, 0] * row, start + extra_rows[i, 1] * row, row_weights[i], pixel, count, line.ctypes.data
    ))  # fmt: skip
    flow_row = 4 * flow.shape[1] * flow.shape[2]
    channels = times.shape[2]
    _emitted_warp_row(warp_row, (
        stack0, stack1, stack_row, np.int32(last_x), np.int32(last_y),
        flow.ctypes.data + i * taps * flow_row, flow_row, columns.ctypes.data, rows.ctypes.data + 4 * i * taps,
        line.ctypes.data, offsets.ctypes.data, weights.ctypes.data,
        times.ctypes.data + 4 * channels * (i * times.shape[1] if times.shape[0] > 1 else 0),
        4 * channels if times.shape[1] > 1 else 0, out, len(columns) // taps,
    ))  # fmt: skip


@parallel_kernel
def _warp_rows(  # type: ignore[no-untyped-def]
    stacks, flow, columns, rows, taps, extra, extra_rows, row_weights, offsets, weights, times, warp_row, out
):  # fmt: skip
    """Warp a block's inputs to `out` (h, w, channels)."""
    height, width, channels = out.shape
    for i in numba.prange(height):
        line = np.empty(extra[3] * extra[4], np.float32)
        _warp_row(
            i, stacks, flow, columns, rows, taps, extra, extra_rows, row_weights, offsets, weights, times, line,
            warp_row, out.ctypes.data + 4 * i * width * channels,
        )  # fmt: skip


@parallel_kernel
def _warp_convolve(  # type: ignore[no-untyped-def]
    stacks, flow, columns, rows, taps, extra, extra_rows, row_weights, offsets, weights, times, warp_row,
    layer_weights, scaling, channels, pixels, tile, out,
):  # fmt: skip
    """Convolve a block's inputs, with stride 2 and padding 1, to `out` (h, w, K)."""
    out_height, out_width, outputs = out.shape
    height, together = len(rows) // taps, scaling.shape[2]
    for strip in numba.prange(-(-out_height // ROWS)):
        line = np.empty(extra[3] * extra[4], np.float32)
        ring = np.zeros((3, 2 * out_width + 1, channels), np.float32)
        size, flat = 4 * ring.shape[1] * channels, ring.reshape(-1)
        first = strip * ROWS
        for r in range(first, min(first + ROWS, out_height)):
            for c in range(size // 4):  # as a slice it would take seconds to compile
                flat[c] = flat[size // 2 + c]
            for k in range(0 if r == first else 1, 3):
                i = 2 * r - 1 + k
                if i < 0 or i >= height:
                    ring[k] = np.float32(0)
                    continue
                _warp_row(
                    i, stacks, flow, columns, rows, taps, extra, extra_rows, row_weights, offsets, weights, times, line,
                    warp_row, ring.ctypes.data + k * size + 4 * channels,
                )  # fmt: skip
            for group in range(outputs // together):
                weight = layer_weights.ctypes.data + group * 36 * channels * together
                j = 0
                while j < out_width:
                    left = min(j, out_width - pixels)  # the last tile of a row may repeat some pixels
                    conv_tile(tile, (
                        ring.ctypes.data + 8 * left * channels, 8 * channels, size, weight, 3 * channels,
                        scaling.ctypes.data + group * 8 * together,
                        out.ctypes.data + 4 * ((r * out_width + left) * outputs + group * together), 4 * outputs,
                    ))  # fmt: skip
                    j += pixels


@parallel_kernel
def _blend_rows(pictures, flow, weight0, blend_row, out):  # type: ignore[no-untyped-def]
    """Blend two pictures to `out` (h, w, channels); `flow` is an address, bytes between rows and between pixels."""
    picture0, picture1, row, last_x, last_y = pictures
    height, width, channels = out.shape
    for y in numba.prange(height):
        _blend_row(blend_row, (
            picture0, picture1, row, np.int32(last_x), np.int32(last_y), np.int32(y), flow[0] + y * flow[1], flow[2],
            weight0.ctypes.data + 4 * y * width, out.ctypes.data + 4 * y * width * channels, width,
        ))  # fmt: skip


def _row_arguments(n: int, channels: int, inputs: WarpInputs, flow: Tensor) -> tuple[tuple[Any, ...], list[Tensor]]:
    """The arguments of `_warp_row` for sample n, and tensors to keep alive while it runs."""
    extra, times = inputs.extra, inputs.times
    stacks, stack_arguments, layout = _common_layout(inputs.stack0, inputs.stack1)
    sample_flow = flow[n].permute(1, 2, 0).contiguous().numpy()
    sample_extra, row, pixel = pixel_layout(extra[n % len(extra)][None])
    height, width = inputs.size
    extra_rows, row_weights = resized_axis(height, sample_extra.shape[2])
    extra_columns, weights = resized_axis(width, sample_extra.shape[3])
    extras, sample_times = sample_extra.shape[1], times[n % len(times)].permute(1, 2, 0).contiguous().float().numpy()
    variant = _WarpVariant(layout, extras, sample_times.shape[2], channels, inputs.taps)
    return (
        stack_arguments, sample_flow, inputs.columns.numpy(), inputs.rows.flatten().numpy(), inputs.taps,
        np.array([sample_extra.data_ptr(), row, pixel, sample_extra.shape[3], extras, lerp_rows_at(extras)]),
        extra_rows, row_weights, (4 * extras * extra_columns).astype(np.int32), weights, sample_times,
        _warp_row_at(variant),
    ), [sample_extra, *stacks]  # fmt: skip


def _common_layout(a: Tensor, b: Tensor) -> tuple[list[Tensor], Array, _Layout]:
    """Two pictures, copied if need be; their addresses, bytes between rows, last column and row; and their layout."""
    stacks = [a, b]
    if any(stack.stride(1) != 1 or stack.stride() != a.stride() for stack in stacks):
        stacks = [stack.contiguous(memory_format=torch.channels_last) for stack in stacks]
    channels, height, width = stacks[0].shape[1:]
    row, pixel = stacks[0].stride(2), stacks[0].stride(3) if width > 1 else channels
    readable = min(pixel, *map(_readable, stacks))
    pairs = readable == pixel and pixel in (4, 8) and channels > pixel // 2 and height > 1 and width > 1
    arguments = np.array([*(stack.data_ptr() for stack in stacks), 4 * row, width - 1, height - 1])
    return stacks, arguments, _Layout(channels, pixel, readable, pairs)


def _readable(stack: Tensor) -> int:
    """The count of numbers in memory from the start of a picture's last pixel."""
    _, _, height, width = stack.shape
    last = stack.storage_offset() + (height - 1) * stack.stride(2) + (width - 1) * stack.stride(3)
    return int(stack.untyped_storage().nbytes() // stack.element_size() - last)


def warp_stacks(inputs: WarpInputs, channels: int) -> Tensor:
    """`Ops.warp_stacks` in float32."""
    flow = inputs.flow()
    out = buffer_pool.take((inputs.count, *inputs.size, channels))
    for n in range(len(out)):
        arguments, _alive = _row_arguments(n, channels, inputs, flow)
        _warp_rows(*arguments, out[n])
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def supports(conv: Conv) -> bool:
    """Whether `warp_convolve` can compute this layer on this CPU."""
    fits = conv.stride == 2 and conv.groups == 1 and lanes_for(len(conv.weight)) > 0
    return fits and conv.weight.dtype == torch.float32


def warp_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
    """`Ops.warp_convolve` for a layer that it `supports`."""
    outputs, channels = conv.weight.shape[:2]
    height, width = (-(-side // 2) for side in inputs.size)
    tile = ConvTile.of(lanes_for(outputs), outputs, width, 3)
    flow = inputs.flow()
    out = buffer_pool.take((inputs.count, height, width, outputs))
    for n in range(len(out)):
        arguments, _alive = _row_arguments(n, channels, inputs, flow)
        _warp_convolve(*arguments, *packed_layer(conv, tile), channels, tile.pixels, conv_tile_at(tile), out[n])
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def blend(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
    """`Ops.blend` for float32 and one flow."""
    _alive, pictures, layout = _common_layout(a, b)
    flow, *steps = pixel_layout(flow)
    channels, height, width = a.shape[1], *flow.shape[-2:]
    out = buffer_pool.take((height, width, channels + -channels % 4))
    weights = weight0[0, 0].contiguous().numpy()
    _blend_rows(pictures, np.array([flow.data_ptr(), *steps]), weights, _blend_row_at(layout), out)
    return torch.from_numpy(out)[None].permute(0, 3, 1, 2)[:, :channels]
