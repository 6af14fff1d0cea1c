"""CPU kernels that resample maps on a grid: a row between two of the map's, then along that row.

Maps may be channels of larger tensors in channels-last memory. Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.llvm import F32, I32, I64, Emitter, emitted, parallel_kernel, vectors_of
from vsrife.ops.protocol import Axis

Array = NDArray[Any]
Neighbours = tuple[Array, Array]  # of the samples of an axis: indices (count, 2), and the weight of the second (count,)

# --- code within a row ------------------------------------------------------------------------------------------------

LERP_ROWS = {
    "first": I64,  # addresses of the rows
    "second": I64,
    "weight": F32,  # of the second
    "pixel": I64,  # bytes between pixels
    "count": I64,  # of pixels
    "out": I64,  # address of (count, channels)
}


def _emit_lerp_rows(builder: ir.IRBuilder, arguments: Sequence[ir.Value], channels: int) -> None:
    """Emit the interpolation of a row between two."""
    first, second, weight, pixel, count, out = arguments
    e = Emitter(builder, 4)
    loop = e.loop(count, [first, second, out])
    _, a, b, target = loop.values
    for channel, lanes in vectors_of(channels):
        v = Emitter(builder, lanes)
        x, y = (v.load_floats(address, 4 * channel) for address in (a, b))
        v.store(v.lerp(x, y, v.broadcast(weight)), target, 4 * channel)
    loop.end([builder.add(a, pixel), builder.add(b, pixel), builder.add(target, e.integer(4 * channels))])


SUM_ALONG_ROW = {
    "rows": I64,  # address of all maps' rows, already interpolated between two
    "offsets": I64,  # address of (maps, count, 2) int32: bytes from there to the neighbours of each sample
    "weights": I64,  # address of (maps, count) float32, of the second neighbour
    "accumulate": I64,  # address of (count, channels) to add to
    "out": I64,  # address of (count, channels)
    "count": I64,
}


def _emit_sum_along_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], variant: tuple[int, int, bool]) -> None:
    """Emit a row of the sum of maps; a variant is the channels, the maps, and whether `accumulate` is added."""
    rows, offsets, weights, accumulate, out, count = arguments
    channels, maps, adds = variant
    e = Emitter(builder, 4)
    loop = e.loop(count, [offsets, weights, accumulate, out])
    _, offset, weight, addend, target = loop.values
    for channel, lanes in vectors_of(channels):
        v = Emitter(builder, lanes)
        value = v.load_floats(addend, 4 * channel) if adds else v.constant(0)
        for i in range(maps):
            skipped = builder.mul(count, e.integer(i))
            value = builder.fadd(value, emit_neighbours(v, rows, offset, weight, skipped, channel))
        v.store(value, target, 4 * channel)
    sizes = 8, 4, 4 * channels, 4 * channels
    values = offset, weight, addend, target
    loop.end([builder.add(x, e.integer(n)) for x, n in zip(values, sizes, strict=True)])


def emit_neighbours(
    e: Emitter, rows: ir.Value, offsets: ir.Value, weights: ir.Value, skipped: ir.Value, channel: int = 0
) -> ir.Value:
    """Emit a sample between its neighbours, from tables as in `SUM_ALONG_ROW`, `skipped` entries further on."""
    builder = e.builder
    pair = builder.add(offsets, builder.mul(skipped, e.integer(8)))
    places = (builder.add(rows, builder.sext(e.load(I32, pair, 4 * i), I64)) for i in range(2))
    x, y = (e.load_floats(place, 4 * channel) for place in places)
    weight = e.load(F32, builder.add(weights, builder.mul(skipped, e.integer(4))))
    return e.lerp(x, y, e.broadcast(weight))


lerp_rows, lerp_rows_at = emitted(LERP_ROWS, _emit_lerp_rows)
_sum_along_row, _sum_along_row_at = emitted(SUM_ALONG_ROW, _emit_sum_along_row)


# --- whole maps -------------------------------------------------------------------------------------------------------


def pixel_layout(maps: Tensor) -> tuple[Tensor, int, int]:
    """A map with adjacent channels, copied if need be, and the bytes between its rows and between its pixels."""
    if maps.stride(1) != 1 and maps.shape[1] > 1:
        maps = maps.contiguous(memory_format=torch.channels_last)
    pixel = maps.stride(3) if maps.shape[3] > 1 else maps.shape[1]
    row = maps.stride(2) if maps.shape[2] > 1 else pixel * maps.shape[3]
    return maps, 4 * row, 4 * pixel


def neighbours_of(axis: Axis) -> Neighbours:
    """The samples of an axis in NumPy."""
    return np.stack([axis.low.numpy(), axis.high.numpy()], 1), axis.weight.float().numpy()


@cache
def resized_axis(count: int, size: int) -> Neighbours:
    """The samples of an axis of `size` resized to `count`."""
    return neighbours_of(Axis.resizing(count, size))


@parallel_kernel
def _sum_rows(  # type: ignore[no-untyped-def]
    maps, rows, row_weights, offsets, weights, starts, lerp, sum_along, accumulate, out
):  # fmt: skip
    """Sum maps (M, 4) of address, bytes between rows and between pixels, and width, to `out` (H, W, channels)."""
    height, width, channels = out.shape
    size = 4 * width * channels
    for y in numba.prange(height):
        lines = np.empty(starts[-1], np.float32)
        for m in range(len(maps)):
            start, row, pixel, count = maps[m]
            lerp_rows(lerp, (
                start + rows[m, y, 0] * row, start + rows[m, y, 1] * row, row_weights[m, y], pixel, count,
                lines.ctypes.data + 4 * starts[m],
            ))  # fmt: skip
        _sum_along_row(sum_along, (
            lines.ctypes.data, offsets.ctypes.data, weights.ctypes.data, accumulate + y * size,
            out.ctypes.data + y * size, width,
        ))  # fmt: skip


def _sum(maps: Sequence[Tensor], axes: Sequence[tuple[Neighbours, Neighbours]], accumulate: Tensor | None) -> Tensor:
    """Sum maps (N, C, any, any), each read at its own rows and columns, and `accumulate`."""
    count, channels = max(map(len, maps)), maps[0].shape[1]
    (rows, row_weights), (columns, weights) = (
        (np.stack([indices for indices, _ in axis]), np.stack([weight for _, weight in axis]))
        for axis in zip(*axes, strict=True)
    )
    out = buffer_pool.take((count, rows.shape[1], columns.shape[1], channels))
    addend = None if accumulate is None else accumulate.permute(0, 2, 3, 1).contiguous()
    starts = np.cumsum([0, *(channels * small.shape[3] for small in maps)])
    offsets = (4 * (channels * columns + starts[:-1, None, None])).astype(np.int32)
    for n in range(count):
        layouts = [pixel_layout(each[n % len(each)][None]) for each in maps]
        _sum_rows(
            np.array([(part.data_ptr(), row, pixel, part.shape[3]) for part, row, pixel in layouts]),
            rows, row_weights, offsets, weights, starts, lerp_rows_at(channels),
            _sum_along_row_at((channels, len(maps), addend is not None)),
            0 if addend is None else addend[n % len(addend)].data_ptr(), out[n],
        )  # fmt: skip
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def upsample(maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
    """`Ops.upsample` for float32."""
    axes = [(resized_axis(height, small.shape[2]), resized_axis(width, small.shape[3])) for small in maps]
    return _sum(maps, axes, accumulate)


def sample(image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
    """`Ops.sample` for float32."""
    return _sum([image], [(neighbours_of(rows), neighbours_of(columns))], accumulate)
