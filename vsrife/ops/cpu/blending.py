"""A plane between two on a CPU, many samples at a time. Twin of `reference.blend_plane`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from vsrife.ops.cpu.llvm import F32, I8, I16, I32, I64, Writer, function, lanes_here
from vsrife.ops.cpu.warping import strided
from vsrife.ops.protocol import STATIC_RADII_PX

KINDS: dict[torch.dtype, ir.Type] = {torch.uint8: I8, torch.uint16: I16, torch.float32: F32}
READ_BYTES = 4  # at once


@dataclass(frozen=True, slots=True)
class _Samples:
    """What is constant in the code."""

    lanes: int  # samples at a time
    dtype: torch.dtype


ROW = {
    "a": I64,  # addresses of the planes, without gaps
    "b": I64,
    "width": I32,
    "height": I32,
    "y": I32,
    "x": I32,  # of the first sample
    "flow": I64,  # addresses of its flow,
    "pixel": I64,  # (bytes between pixels there)
    "share": I64,  # of the weight of `a`,
    "calmness": I64,  # of how far around it the planes are equal,
    "out": I64,  # and of the result
    "peak": F32,  # the largest sample of integers
    "count": I64,  # of vectors
}


def _write_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], samples: _Samples) -> None:
    """Whole vectors of a row."""
    a, b, width, height, y, x, flow, pixel, share, radius, out, peak, count = arguments
    kind, lanes = KINDS[samples.dtype], samples.lanes
    w, size = Writer(builder, lanes), samples.dtype.itemsize
    whole, real = w.vector(I32), w.vector(F32)
    one = ir.Constant(I32, 1)
    last_x, last_y = (w.spread(builder.sub(side, one)) for side in (width, height))
    line = builder.mul(width, ir.Constant(I32, size))
    end = w.spread(builder.sub(builder.mul(line, height), ir.Constant(I32, READ_BYTES)))
    line = w.spread(line)
    loop = w.loop(count, [x, flow, share, radius, out])
    _, first, moved, weight, calm, target = loop.values
    column = builder.add(w.spread(first), ir.Constant(whole, list(range(lanes))))
    own = (builder.sitofp(column, real), builder.sitofp(w.spread(y), real))
    steps = [builder.add(moved, builder.mul(pixel, w.number(i))) for i in range(lanes)]
    flows = w.columns([Writer(builder, 4).floats_at(step) for step in steps])

    def read(plane: ir.Value, shift: Sequence[ir.Value]) -> ir.Value:
        """The plane's values where the flow points."""
        place = [
            w.floats("minnum", w.floats("maxnum", builder.fadd(at, move), w.filled(0)), builder.sitofp(last, real))
            for at, move, last in zip(own, shift, (last_x, last_y), strict=True)
        ]
        low = [builder.fptosi(each, whole) for each in place]
        part = [builder.fsub(each, builder.sitofp(i, real)) for each, i in zip(place, low, strict=True)]
        next_row = w.whole("smin", builder.add(low[1], ir.Constant(whole, [1] * lanes)), last_y)
        lines = [builder.mul(row, line) for row in (low[1], next_row)]
        if kind == F32:
            beside = w.whole("smin", builder.add(low[0], ir.Constant(whole, [1] * lanes)), last_x)
            offsets = [[builder.mul(i, ir.Constant(whole, [size] * lanes)) for i in (low[0], beside)]] * 2
            pairs = [
                [builder.bitcast(w.gather(plane, builder.add(at, i)), real) for i in columns]
                for at, columns in zip(lines, offsets, strict=True)
            ]
        else:
            pairs = [neighbours(plane, builder.add(at, w.times(low[0], size))) for at in lines]
        above, below = (w.mixed(left, right, part[0]) for left, right in pairs)
        return w.mixed(above, below, part[1])

    def neighbours(plane: ir.Value, offset: ir.Value) -> list[ir.Value]:
        """A sample and the one behind it, in one read, which does not leave the plane."""
        inside = w.whole("smin", offset, end)
        beyond = w.times(builder.sub(offset, inside), 8)
        pair = builder.lshr(w.gather(plane, inside), beyond)
        mask = ir.Constant(whole, [(1 << 8 * size) - 1] * lanes)
        parts = pair, builder.lshr(pair, ir.Constant(whole, [8 * size] * lanes))
        return [builder.sitofp(builder.and_(each, mask), real) for each in parts]

    values = w.mixed(read(b, flows[2:]), read(a, flows[:2]), w.floats_at(weight))
    here = builder.add(
        a, builder.sext(builder.mul(builder.add(builder.mul(y, width), first), ir.Constant(I32, size)), I64)
    )
    sample = w.load(w.vector(kind), here, aligned=1)
    reach = w.floats("fabs", flows[0])
    for other in flows[1:]:
        reach = w.floats("maxnum", reach, w.floats("fabs", other))
    still = builder.fcmp_ordered("<=", reach, builder.sitofp(w.load(w.vector(I8), calm, aligned=1), real))
    if kind != F32:
        values = w.floats("minnum", w.floats("maxnum", w.floats("rint", values), w.filled(0)), w.spread(peak))
        values = builder.trunc(builder.fptosi(values, whole), w.vector(kind))
    w.store(builder.select(still, sample, values), target)
    following = [builder.add(first, ir.Constant(I32, lanes)), builder.add(moved, builder.mul(pixel, w.number(lanes)))]
    sizes = 4, 1, size
    more = [builder.add(at, w.number(lanes * n)) for at, n in zip((weight, calm, target), sizes, strict=True)]
    loop.end([*following, *more])


_row, _row_at = function(ROW, _write_row)


@numba.njit(parallel=True, cache=True)
def _blend(a, b, size, flow, row, pixel, share, radius, peak, lanes, vectors, singles, out):  # type: ignore[no-untyped-def]
    """Addresses and bytes between rows; `size` is that of a sample, `vectors` and `singles` are the code for a row."""
    height, width = out.shape
    whole = width // lanes
    done = whole * lanes
    for y in numba.prange(height):
        for start, count, code in ((0, whole, vectors), (done, width - done, singles)):
            if count:
                _row(code, (
                    a, b, np.int32(width), np.int32(height), np.int32(y), np.int32(start),
                    flow + y * row + start * pixel, pixel, share.ctypes.data + 4 * (y * width + start),
                    radius.ctypes.data + y * width + start, out.ctypes.data + size * (y * width + start), peak, count,
                ))  # fmt: skip


def blend_plane(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor, radius: Tensor, peak: int) -> Tensor:
    """Interpolate a plane, as `Ops.blend_plane` does, for one flow.

    Args:
        a: (1, 1, H, W), of a dtype in `KINDS` and at least `READ_BYTES` long.
        b: the same.
        flow: (1, 4, H, W) float32.
        weight0: (1, 1, H, W) float32, the weight of `a`.
        radius: (1, 1, H, W) int8.
        peak: the largest sample of integers.
    """
    lanes = lanes_here()
    first, second = (plane[0, 0].contiguous() for plane in (a, b))
    flow, *steps = strided(flow)
    out = torch.empty_like(first)
    _blend(
        first.data_ptr(), second.data_ptr(), a.dtype.itemsize, flow.data_ptr(), *steps,
        weight0[0, 0].contiguous().numpy(), radius[0, 0].contiguous().numpy(), np.float32(peak), lanes,
        _row_at(_Samples(lanes, a.dtype)), _row_at(_Samples(1, a.dtype)), out.numpy(),
    )  # fmt: skip
    return out[None, None]


@numba.njit(parallel=True, cache=True)
def _static_radius(a, b, radii, result):  # type: ignore[no-untyped-def]
    """Differences spread step by step; around the picture lies a border that never differs.

    Rows are taken as slices, so that every index is from 0 on: else the compiler does not make vectors of them.
    """
    height, width = result.shape
    border = radii[-1] // 2
    moved = np.zeros((height + 2 * border, width + 2 * border), np.uint8)
    spread = np.zeros_like(moved)
    for y in numba.prange(height):
        row, found = moved[y + border, border : border + width], result[y]
        for x in range(width):
            row[x] = a[y, x] != b[y, x]
        for x in range(width):
            found[x] = -np.int8(row[x])
    reached = 0  # boxes of 2 * reached + 1 samples are filled
    for radius in radii:
        step = radius - reached
        left = 0
        for y in numba.prange(height):
            row, found = spread[y + border, border : border + width], result[y]
            row[:] = 0
            for down in range(-step, step + 1, step):
                for right in range(-step, step + 1, step):
                    near = moved[y + border + down, border + right : border + right + width]
                    for x in range(width):
                        row[x] |= near[x]
            for x in range(width):
                found[x] = found[x] if row[x] else radius
            left += width - np.sum(row)
        if left == 0:
            break
        moved, spread = spread, moved
        reached = radius


def static_radius(a: Tensor, b: Tensor) -> Tensor:
    """Measure how far two planes are equal around each sample, as `Ops.static_radius` does, for any type of numba's."""
    result = np.empty(a.shape[-2:], np.int8)
    _static_radius(a[0, 0].numpy(), b[0, 0].numpy(), STATIC_RADII_PX, result)
    return torch.from_numpy(result)[None, None]
