"""CPU kernel that converts planes to RGB, a vector of samples at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from vsrife.ops.cpu.blending import SAMPLE_TYPES
from vsrife.ops.cpu.llvm import F32, I32, I64, Emitter, emitted, lanes_here, parallel_kernel
from vsrife.ops.cpu.sampling import neighbours_of
from vsrife.ops.protocol import RgbTransform

COLOURS = 3


@dataclass(frozen=True, slots=True)
class _RowVariant:
    """The constants of a row's code.

    Attributes:
        lanes: samples of a vector.
        dtype: of the samples.
        planes: 1 or 3.
        subsampled: whether the second and third plane are smaller; their rows are then float32, already interpolated
            between two.
    """

    lanes: int
    dtype: torch.dtype
    planes: int
    subsampled: bool


RGB_ROW = {
    "first": I64,  # addresses of the row in each plane
    "second": I64,
    "third": I64,
    "offsets": I64,  # of subsampled planes: address of (count, 2) int32, bytes to the neighbours of each sample
    "weights": I64,  # address of (count,) float32, of the second neighbour
    "matrix": I64,  # address of 3 weights for each colour, then 3 constants
    "least": F32,  # limits of the result
    "largest": F32,
    "out": I64,  # address of the first pixel's red, float32
    "pixel": I64,  # bytes between pixels there
    "count": I64,  # of vectors
}


def _emit_rgb_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], variant: _RowVariant) -> None:
    """Emit whole vectors of a row."""
    *planes, offsets, weights, matrix, least, largest, out, pixel, count = arguments
    kind, lanes = SAMPLE_TYPES[variant.dtype], variant.lanes
    e = Emitter(builder, lanes)

    def coefficient(i: int) -> ir.Value:
        return e.broadcast(e.load(F32, matrix, 4 * i))

    factors = [[coefficient(COLOURS * k + p) for p in range(variant.planes)] for k in range(COLOURS)]
    bias = [coefficient(COLOURS**2 + k) for k in range(COLOURS)]
    least, largest = e.broadcast(least), e.broadcast(largest)
    loop = e.loop(count, [*planes, offsets, weights, out])
    _, *addresses, offset, weight, target = loop.values

    def load(address: ir.Value) -> ir.Value:
        values = e.load(e.vector(kind), address, align=1)
        return values if kind == F32 else builder.sitofp(builder.zext(values, e.vector(I32)), e.vector(F32))

    def interpolate(address: ir.Value) -> ir.Value:
        pairs = e.load(ir.VectorType(I32, 2 * lanes), offset)
        ends = (e.shuffle(pairs, pairs, range(i, 2 * lanes, 2)) for i in range(2))
        left, right = (builder.bitcast(e.gather(address, end), e.vector(F32)) for end in ends)
        return e.lerp(left, right, e.load_floats(weight))

    values = [load(addresses[0])]
    values += [(interpolate if variant.subsampled else load)(address) for address in addresses[1 : variant.planes]]
    for k in range(COLOURS):
        colour = bias[k]
        for value, factor in zip(values, factors[k], strict=True):
            colour = e.floats("fma", value, factor, colour)
        colour = e.floats("minnum", e.floats("maxnum", colour, least), largest)
        for i in range(lanes):
            at = builder.add(target, builder.mul(pixel, e.integer(i)))
            e.store(builder.extract_element(colour, ir.Constant(I32, i)), at, 4 * k)
    step = lanes * variant.dtype.itemsize
    steps = [step, *[0 if variant.subsampled else step] * 2, 8 * lanes, 4 * lanes]
    following = [builder.add(x, e.integer(n)) for x, n in zip((*addresses, offset, weight), steps, strict=True)]
    loop.end([*following, builder.add(target, builder.mul(pixel, e.integer(lanes)))])


_rgb_row, _rgb_row_at = emitted(RGB_ROW, _emit_rgb_row)


@parallel_kernel(fastmath={"contract", "nsz"})
def _planes_to_rgb(  # type: ignore[no-untyped-def]
    first, second, third, rows, row_weights, offsets, weights, matrix, limits, lanes, vectors, singles, out, row, pixel
):  # fmt: skip
    """Convert all rows of a picture; `out` is an address, `row` and `pixel` the bytes between rows and pixels there."""
    height, width = first.shape
    size = first.itemsize
    whole = width // lanes * lanes
    for y in numba.prange(height):
        b, c, step = second.ctypes.data + y * width * size, third.ctypes.data + y * width * size, size
        lines = np.empty((2, second.shape[1]), np.float32)
        if len(rows):
            above, below, weight = rows[y, 0], rows[y, 1], row_weights[y]
            for x in range(second.shape[1]):
                second_above, third_above = np.float32(second[above, x]), np.float32(third[above, x])
                lines[0, x] = second_above + (np.float32(second[below, x]) - second_above) * weight
                lines[1, x] = third_above + (np.float32(third[below, x]) - third_above) * weight
            b, c, step = lines[0].ctypes.data, lines[1].ctypes.data, 0
        for start, count, code in ((0, whole // lanes, vectors), (whole, width - whole, singles)):
            if count:
                _rgb_row(code, (
                    first.ctypes.data + (y * width + start) * size, b + start * step, c + start * step,
                    offsets.ctypes.data + 8 * start, weights.ctypes.data + 4 * start, matrix.ctypes.data, limits[0],
                    limits[1], out + y * row + start * pixel, pixel, count,
                ))  # fmt: skip


def planes_to_rgb(planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
    """`Ops.planes_to_rgb` for planes of `SAMPLE_TYPES` and a float32 `out` with adjacent channels."""
    samples = [plane[0, 0].contiguous().numpy() for plane in planes]
    first, second, third = samples if len(samples) == COLOURS else samples * COLOURS
    height, width = first.shape
    matrix = np.zeros((COLOURS + 1, COLOURS), np.float32)
    matrix[:COLOURS, : len(samples)] = transform.weight.numpy()
    matrix[COLOURS] = transform.bias.numpy()
    rows, row_weights = np.empty((0, 2), np.int64), np.empty(0, np.float32)
    offsets, weights = np.empty((0, 2), np.int32), row_weights
    if transform.rows is not None and transform.columns is not None:
        (rows, row_weights), (columns, weights) = neighbours_of(transform.rows), neighbours_of(transform.columns)
        offsets = (4 * columns).astype(np.int32)
    lanes, limits = lanes_here(), (0, 1) if clamps else (-np.inf, np.inf)
    variants = (_RowVariant(n, planes[0].dtype, len(planes), len(rows) > 0) for n in (lanes, 1))
    vectors, singles = map(_rgb_row_at, variants)
    _, _, row, pixel = out.stride()
    _planes_to_rgb(
        first, second, third, rows, row_weights, offsets, weights, matrix, np.array(limits, np.float32), lanes, vectors,
        singles, out.data_ptr(), 4 * row, 4 * pixel,
    )  # fmt: skip
    out[..., height:, :] = 0
    out[..., :height, width:] = 0
    return out
