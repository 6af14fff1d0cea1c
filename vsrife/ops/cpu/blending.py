"""CPU kernels that interpolate a plane in its own samples, a vector of samples at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from vsrife.ops.cpu.llvm import F32, I8, I16, I32, I64, Emitter, emitted, lanes_here, parallel_kernel
from vsrife.ops.cpu.sampling import pixel_layout
from vsrife.ops.protocol import EDGE_PX, STATIC_RADII_PX

SAMPLE_TYPES: dict[torch.dtype, ir.Type] = {torch.uint8: I8, torch.uint16: I16, torch.float32: F32}
READ_BYTES = 4  # of one load of two neighbours


@dataclass(frozen=True, slots=True)
class _RowVariant:
    """The constants of a row's code: the samples of a vector, and their type."""

    lanes: int
    dtype: torch.dtype


BLEND_ROW = {
    "a": I64,  # addresses of the planes, without gaps
    "b": I64,
    "width": I32,
    "height": I32,
    "y": I32,
    "x": I32,  # of the first sample
    "flow": I64,  # address of its flow
    "pixel": I64,  # bytes between pixels there
    "weight0": I64,  # address of its weight of `a`
    "radius": I64,  # address of its static radius
    "out": I64,  # address of its result
    "peak": F32,  # the largest sample of integers
    "count": I64,  # of vectors
}


def _emit_blend_row(builder: ir.IRBuilder, arguments: Sequence[ir.Value], variant: _RowVariant) -> None:
    """Emit whole vectors of a row."""
    a, b, width, height, y, x, flow, pixel, weight0, radius, out, peak, count = arguments
    kind, lanes, size = SAMPLE_TYPES[variant.dtype], variant.lanes, variant.dtype.itemsize
    e = Emitter(builder, lanes)
    integers, floats = e.vector(I32), e.vector(F32)
    one, ones = ir.Constant(I32, 1), ir.Constant(integers, [1] * lanes)
    last_x, last_y = (e.broadcast(builder.sub(side, one)) for side in (width, height))
    row_bytes = builder.mul(width, ir.Constant(I32, size))
    last_read = e.broadcast(builder.sub(builder.mul(row_bytes, height), ir.Constant(I32, READ_BYTES)))
    row_bytes = e.broadcast(row_bytes)
    loop = e.loop(count, [x, flow, weight0, radius, out])
    _, first, motion, weight, still, target = loop.values
    column = builder.add(e.broadcast(first), ir.Constant(integers, list(range(lanes))))
    position = (builder.sitofp(column, floats), builder.sitofp(e.broadcast(y), floats))
    motions = [builder.add(motion, builder.mul(pixel, e.integer(i))) for i in range(lanes)]
    flows = e.columns([Emitter(builder, 4).load_floats(address) for address in motions])

    def warp(plane: ir.Value, shift: Sequence[ir.Value]) -> ir.Value:
        """Read a plane bilinearly where the flow points."""
        places = [
            e.floats("minnum", e.floats("maxnum", builder.fadd(at, by), e.constant(0)), builder.sitofp(last, floats))
            for at, by, last in zip(position, shift, (last_x, last_y), strict=True)
        ]
        low = [builder.fptosi(place, integers) for place in places]
        fraction = [builder.fsub(place, builder.sitofp(i, floats)) for place, i in zip(places, low, strict=True)]
        next_row = e.integers("smin", builder.add(low[1], ones), last_y)
        lines = [builder.mul(row, row_bytes) for row in (low[1], next_row)]
        if kind == F32:
            next_column = e.integers("smin", builder.add(low[0], ones), last_x)
            offsets = [e.multiply(i, size) for i in (low[0], next_column)]
            pairs = [
                [builder.bitcast(e.gather(plane, builder.add(line, offset)), floats) for offset in offsets]
                for line in lines
            ]
        else:
            pairs = [load_neighbours(plane, builder.add(line, e.multiply(low[0], size))) for line in lines]
        above, below = (e.lerp(left, right, fraction[0]) for left, right in pairs)
        return e.lerp(above, below, fraction[1])

    def load_neighbours(plane: ir.Value, offset: ir.Value) -> list[ir.Value]:
        """Load a sample and the next one at once, without reading beyond the plane."""
        inside = e.integers("smin", offset, last_read)
        beyond = e.multiply(builder.sub(offset, inside), 8)
        pair = builder.lshr(e.gather(plane, inside), beyond)
        mask = ir.Constant(integers, [(1 << 8 * size) - 1] * lanes)
        parts = pair, builder.lshr(pair, ir.Constant(integers, [8 * size] * lanes))
        return [builder.sitofp(builder.and_(part, mask), floats) for part in parts]

    values = e.lerp(warp(b, flows[2:]), warp(a, flows[:2]), e.load_floats(weight))
    offset = builder.mul(builder.add(builder.mul(y, width), first), ir.Constant(I32, size))
    sample = e.load(e.vector(kind), builder.add(a, builder.sext(offset, I64)), align=1)
    reach = e.floats("fabs", flows[0])
    for component in flows[1:]:
        reach = e.floats("maxnum", reach, e.floats("fabs", component))
    is_static = builder.fcmp_ordered("<=", reach, builder.sitofp(e.load(e.vector(I8), still, align=1), floats))
    if kind != F32:
        values = e.floats("minnum", e.floats("maxnum", e.floats("rint", values), e.constant(0)), e.broadcast(peak))
        values = builder.trunc(builder.fptosi(values, integers), e.vector(kind))
    e.store(builder.select(is_static, sample, values), target)
    following = [builder.add(first, ir.Constant(I32, lanes)), builder.add(motion, builder.mul(pixel, e.integer(lanes)))]
    more = zip((weight, still, target), (4, 1, size), strict=True)
    loop.end([*following, *(builder.add(at, e.integer(lanes * n)) for at, n in more)])


_blend_row, _blend_row_at = emitted(BLEND_ROW, _emit_blend_row)


@parallel_kernel
def _blend(  # type: ignore[no-untyped-def]
    a, b, size, flow, row, pixel, weight0, radius, peak, lanes, vectors, singles, out
):  # fmt: skip
    """Blend planes of samples of `size` bytes; `vectors` and `singles` are the code for a row and for its rest."""
    height, width = out.shape
    whole = width // lanes
    done = whole * lanes
    for y in numba.prange(height):
        for start, count, code in ((0, whole, vectors), (done, width - done, singles)):
            if count:
                _blend_row(code, (
                    a, b, np.int32(width), np.int32(height), np.int32(y), np.int32(start),
                    flow + y * row + start * pixel, pixel, weight0.ctypes.data + 4 * (y * width + start),
                    radius.ctypes.data + y * width + start, out.ctypes.data + size * (y * width + start), peak, count,
                ))  # fmt: skip


def supports(plane: Tensor) -> bool:
    """Whether `blend_plane` can compute such planes."""
    return plane.dtype in SAMPLE_TYPES and plane.nbytes >= READ_BYTES


def blend_plane(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor, radius: Tensor, peak: int) -> Tensor:
    """`Ops.blend_plane` for one flow and planes that it `supports`; `weight0` is (1, 1, H, W), the weight of `a`."""
    lanes = lanes_here()
    plane0, plane1 = (plane[0, 0].contiguous() for plane in (a, b))
    flow, *steps = pixel_layout(flow)
    out = torch.empty_like(plane0)
    _blend(
        plane0.data_ptr(), plane1.data_ptr(), a.dtype.itemsize, flow.data_ptr(), *steps,
        weight0[0, 0].contiguous().numpy(), radius[0, 0].contiguous().numpy(), np.float32(peak), lanes,
        _blend_row_at(_RowVariant(lanes, a.dtype)), _blend_row_at(_RowVariant(1, a.dtype)), out.numpy(),
    )  # fmt: skip
    return out[None, None]


@parallel_kernel
def _static_radius(a, b, radii, result):  # type: ignore[no-untyped-def]
    """Spread differences step by step; the picture lies within a border that never differs.

    Rows are taken as slices, so that every index starts at 0: the compiler vectorizes nothing else.
    """
    height, width = result.shape
    border = radii[-1] // 2
    moved = np.zeros((height + 2 * border, width + 2 * border), np.uint8)
    spread = np.zeros_like(moved)
    for y in numba.prange(height):
        row, result_row = moved[y + border, border : border + width], result[y]
        for x in range(width):
            row[x] = a[y, x] != b[y, x]
        for x in range(width):
            result_row[x] = -np.int8(row[x])
    filled = 0  # boxes of 2 * filled + 1 samples around each difference are marked
    for radius in radii:
        step = radius - filled
        static = 0
        for y in numba.prange(height):
            row, result_row = spread[y + border, border : border + width], result[y]
            row[:] = 0
            for down in range(-step, step + 1, step):
                for right in range(-step, step + 1, step):
                    other = moved[y + border + down, border + right : border + right + width]
                    for x in range(width):
                        row[x] |= other[x]
            for x in range(width):
                result_row[x] = result_row[x] if row[x] else radius
            static += width - np.sum(row)
        if static == 0:
            break
        moved, spread = spread, moved
        filled = radius


def static_radius(a: Tensor, b: Tensor) -> Tensor:
    """`Ops.static_radius` for all samples but float16, which numba does not know."""
    result = np.empty(a.shape[-2:], np.int8)
    _static_radius(a[0, 0].numpy(), b[0, 0].numpy(), STATIC_RADII_PX, result)
    return torch.from_numpy(result)[None, None]


@parallel_kernel(fastmath={"contract", "nsz"})
def _static_edges(a, b, radius, contrast, result):  # type: ignore[no-untyped-def]
    """Count the sides in float32, whose vectors the compiler makes; rows are slices, as in `_static_radius`."""
    height, width = result.shape
    inner = max(0, width - EDGE_PX)
    for y in numba.prange(height):
        row = result[y]
        row[:] = 0
        for other in (y - EDGE_PX, y + EDGE_PX):
            if 0 <= other < height:
                here0, there0, here1, there1 = a[y], a[other], b[y], b[other]
                for x in range(width):
                    first = abs(np.float32(here0[x]) - np.float32(there0[x]))
                    second = abs(np.float32(here1[x]) - np.float32(there1[x]))
                    row[x] += np.uint8(min(first, second) >= contrast)
        near0, far0, near1, far1 = a[y, :inner], a[y, EDGE_PX:], b[y, :inner], b[y, EDGE_PX:]
        for start in (0, EDGE_PX):
            part = row[start : start + inner]
            for x in range(inner):
                first = abs(np.float32(near0[x]) - np.float32(far0[x]))
                second = abs(np.float32(near1[x]) - np.float32(far1[x]))
                part[x] += np.uint8(min(first, second) >= contrast)
        reach = radius[y]
        for x in range(width):
            row[x] = row[x] if reach[x] >= 0 else 0


def static_edges(a: Tensor, b: Tensor, radius: Tensor, contrast: float) -> Tensor:
    """`Ops.static_edges` for all samples but float16."""
    result = np.empty(a.shape[-2:], np.uint8)
    _static_edges(a[0, 0].numpy(), b[0, 0].numpy(), radius[0, 0].numpy(), np.float32(contrast), result)
    return torch.from_numpy(result)[None, None]
