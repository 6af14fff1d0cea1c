"""Planes to what the network sees on a CPU, many samples at a time. Twin of `reference.planes_to_rgb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from vsrife.ops.cpu.blending import KINDS
from vsrife.ops.cpu.llvm import F32, I32, I64, Writer, function, lanes_here
from vsrife.ops.cpu.warping import neighbours_of
from vsrife.ops.protocol import RgbTransform

COLOURS = 3


@dataclass(frozen=True, slots=True)
class _Samples:
    """What is constant in the code."""

    lanes: int  # samples at a time
    dtype: torch.dtype
    planes: int  # 1 or 3
    smaller: bool  # the second and third, given in float32, already between two of their rows


ROW = {
    "first": I64,  # addresses of the row in each plane
    "second": I64,
    "third": I64,
    "offsets": I64,  # of smaller planes: address of (count, 2) int32, bytes to the neighbours of each sample
    "weights": I64,  # address of (count,) float32, of the second neighbour
    "matrix": I64,  # address of 3 weights for each colour, then 3 constants
    "least": F32,
    "most": F32,
    "out": I64,  # address of the first pixel's red, float32
    "pixel": I64,  # bytes between pixels there
    "count": I64,  # of vectors
}


def _write_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], samples: _Samples) -> None:
    """Whole vectors of a row."""
    *planes, offsets, weights, matrix, least, most, out, pixel, count = arguments
    kind, lanes = KINDS[samples.dtype], samples.lanes
    w = Writer(builder, lanes)

    def constant(i: int) -> ir.Value:
        return w.spread(w.load(F32, matrix, 4 * i))

    factors = [[constant(COLOURS * k + p) for p in range(samples.planes)] for k in range(COLOURS)]
    bias = [constant(COLOURS**2 + k) for k in range(COLOURS)]
    lower, upper = w.spread(least), w.spread(most)
    loop = w.loop(count, [*planes, offsets, weights, out])
    _, *places, near, share, target = loop.values

    def own(place: ir.Value) -> ir.Value:
        values = w.load(w.vector(kind), place, aligned=1)
        return values if kind == F32 else builder.sitofp(builder.zext(values, w.vector(I32)), w.vector(F32))

    def between(place: ir.Value) -> ir.Value:
        pairs = w.load(ir.VectorType(I32, 2 * lanes), near)
        ends = (w.shuffled(pairs, pairs, range(i, 2 * lanes, 2)) for i in range(2))
        left, right = (builder.bitcast(w.gather(place, end), w.vector(F32)) for end in ends)
        return w.mixed(left, right, w.floats_at(share))

    values = [own(places[0])]
    values += [(between if samples.smaller else own)(place) for place in places[1 : samples.planes]]
    for k in range(COLOURS):
        colour = bias[k]
        for value, factor in zip(values, factors[k], strict=True):
            colour = w.floats("fma", value, factor, colour)
        colour = w.floats("minnum", w.floats("maxnum", colour, lower), upper)
        for i in range(lanes):
            at = builder.add(target, builder.mul(pixel, w.number(i)))
            w.store(builder.extract_element(colour, ir.Constant(I32, i)), at, 4 * k)
    step = lanes * samples.dtype.itemsize
    steps = [step, *[0 if samples.smaller else step] * 2, 8 * lanes, 4 * lanes]
    following = [builder.add(x, w.number(n)) for x, n in zip((*places, near, share), steps, strict=True)]
    loop.end([*following, builder.add(target, builder.mul(pixel, w.number(lanes)))])


_row, _row_at = function(ROW, _write_row)


@numba.njit(parallel=True, fastmath={"contract", "nsz"}, cache=True)
def _planes_to_rgb(  # type: ignore[no-untyped-def]
    first, second, third, near, shares, offsets, weights, matrix, limits, lanes, vectors, singles, out, row, pixel
):  # fmt: skip
    """All rows of the picture; `out` is an address, `row` the bytes between rows there."""
    height, width = first.shape
    size = first.itemsize
    whole = width // lanes * lanes
    for y in numba.prange(height):
        b, c, step = second.ctypes.data + y * width * size, third.ctypes.data + y * width * size, size
        rest = np.empty((2, second.shape[1]), np.float32)
        if len(near):
            top, low, weight = near[y, 0], near[y, 1], shares[y]
            for x in range(second.shape[1]):
                above, over = np.float32(second[top, x]), np.float32(third[top, x])
                rest[0, x] = above + (np.float32(second[low, x]) - above) * weight
                rest[1, x] = over + (np.float32(third[low, x]) - over) * weight
            b, c, step = rest[0].ctypes.data, rest[1].ctypes.data, 0
        for start, count, code in ((0, whole // lanes, vectors), (whole, width - whole, singles)):
            if count:
                _row(code, (
                    first.ctypes.data + (y * width + start) * size, b + start * step, c + start * step,
                    offsets.ctypes.data + 8 * start, weights.ctypes.data + 4 * start, matrix.ctypes.data, limits[0],
                    limits[1], out + y * row + start * pixel, pixel, count,
                ))  # fmt: skip


def planes_to_rgb(planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
    """Twin of `reference.planes_to_rgb` for planes of `KINDS` and float32 channels-last `out`."""
    samples = [plane[0, 0].contiguous().numpy() for plane in planes]
    first, second, third = samples if len(samples) == COLOURS else samples * COLOURS
    height, width = first.shape
    matrix = np.zeros((COLOURS + 1, COLOURS), np.float32)
    matrix[:COLOURS, : len(samples)] = transform.weight.numpy()
    matrix[COLOURS] = transform.bias.numpy()
    near, shares = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    offsets, weights = np.empty((0, 2), np.int32), shares
    if transform.rows is not None and transform.columns is not None:
        (near, shares), (sides, weights) = neighbours_of(transform.rows), neighbours_of(transform.columns)
        offsets = (4 * sides).astype(np.int32)
    lanes, limits = lanes_here(), (0, 1) if clamps else (-np.inf, np.inf)
    vectors, singles = (_row_at(_Samples(n, planes[0].dtype, len(planes), len(near) > 0)) for n in (lanes, 1))
    _, _, row, pixel = out.stride()
    _planes_to_rgb(
        first, second, third, near, shares, offsets, weights, matrix, np.array(limits, np.float32), lanes, vectors,
        singles, out.data_ptr(), 4 * row, 4 * pixel,
    )  # fmt: skip
    out[..., height:, :] = 0
    out[..., :height, width:] = 0
    return out
