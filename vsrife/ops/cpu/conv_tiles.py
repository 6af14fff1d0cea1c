"""Convolutions on a CPU by tiles of as many sums as registers hold: neighbours in a row times vectors of outputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from vsrife.ops.cpu.llvm import F32, I64, Writer, function
from vsrife.ops.protocol import LEAKY_SLOPE, Conv, TransposedConv

Array = NDArray[Any]

REGISTERS = {16: 24, 8: 12, 4: 12}  # for sums, by 32-bit numbers in a vector; of 32, 16 and 16 that there are
ALIGNED = 64  # bytes, of weights: the longest vectors are read at once


@dataclass(frozen=True, slots=True)
class Shape:
    """What is constant in a tile's code."""

    lanes: int  # numbers in a vector
    vectors: int  # of outputs
    pixels: int
    taps: int  # rows of them
    residual: bool = False  # whether the input is added

    @classmethod
    @cache
    def of(cls, lanes: int, outputs: int, wide: int, taps: int, residual: bool = False) -> Shape:
        """For rows of `wide` pixels: of the divisors of the outputs' vectors, what reads least for each sum.

        As many tiles as a row takes, of one size: the last one does few pixels again.
        """
        registers, count = REGISTERS[lanes], outputs // lanes
        divisors = [n for n in range(1, registers + 1) if count % n == 0]
        vectors = min(divisors, key=lambda n: 1 / n + 1 / (registers // n))
        tiles = -(-wide // (registers // vectors))
        return cls(lanes, vectors, -(-wide // tiles), taps, residual)


def write_sums(
    w: Writer,
    shape: Shape,
    number: ir.Type,
    add: Callable[[ir.Value, ir.Value, ir.Value], ir.Value],
    given: tuple[ir.Value, ...],
) -> list[ir.Value]:
    """The sums of a tile: those of a pixel after those of the one before.

    Args:
        w: where to.
        shape: the tile.
        number: what four bytes of the input are, and of the weights.
        add: from a vector of sums, one of the input's number and one of weights, the sums with their products.
        given: address of the first tap of the first pixel, bytes between pixels and between rows there, address of the
            weights (rows, steps, vectors, lanes), steps of four bytes in a row of taps.
    """
    start, pixel, row, weights, steps = given
    kind, size = w.vector(number), 4 * shape.lanes
    none = [ir.Constant(w.vector(number), None)] * (shape.pixels * shape.vectors)
    rows = w.loop(shape.taps, [start, weights, *none])
    _, at, read, *sums = rows.values
    along = w.loop(steps, [at, read, *sums])
    _, four, weight, *sums = along.values
    loaded = [w.load(kind, weight, size * v, size) for v in range(shape.vectors)]
    for p in range(shape.pixels):
        known = w.spread(w.load(number, w.to.add(four, w.to.mul(pixel, w.number(p))), aligned=1))
        for v in range(shape.vectors):
            i = p * shape.vectors + v
            sums[i] = add(sums[i], known, loaded[v])
    weight = w.to.add(weight, w.number(size * shape.vectors))
    along.end([w.to.add(four, w.number(4)), weight, *sums])
    rows.end([w.to.add(at, row), weight, *sums])
    return sums


TILE = {
    "values": I64,  # address of the first tap of the first pixel, float32
    "pixel": I64,  # bytes between pixels there
    "row": I64,  # bytes between rows there
    "weights": I64,  # address of (rows of taps, steps, vectors, lanes) float32
    "steps": I64,  # numbers in a row of taps
    "scaling": I64,  # address of two rows of vectors: bias, slope
    "out": I64,  # address of the first pixel's first output, float32
    "out_pixel": I64,  # bytes between pixels there
}


def _write_tile(builder: ir.IRBuilder, arguments: Sequence[ir.Value], shape: Shape) -> None:
    """Outputs of a tile in float32."""
    values, pixel, row, weights, steps, scaling, out, out_pixel = arguments
    w, size, vectors = Writer(builder, shape.lanes), 4 * shape.lanes, shape.vectors

    def add(total: ir.Value, known: ir.Value, weight: ir.Value) -> ir.Value:
        return w.floats("fma", known, weight, total)

    sums = write_sums(w, shape, F32, add, (values, pixel, row, weights, steps))
    for v in range(vectors):
        bias, slope = (w.floats_at(scaling, size * (v + vectors * i)) for i in range(2))
        for p in range(shape.pixels):
            y = builder.fadd(sums[p * vectors + v], bias)
            y = builder.select(builder.fcmp_ordered(">", y, w.filled(0)), y, builder.fmul(y, slope))
            w.store(y, builder.add(out, builder.mul(out_pixel, w.number(p))), size * v)


tile, tile_at = function(TILE, _write_tile)


def packed(weight: Array, shape: Shape) -> Array:
    """(out, in, taps, taps) in the order in which tiles read it: (groups, taps, steps, vectors, lanes, in 4 bytes)."""
    together = 4 // weight.itemsize
    _, inputs, taps, _ = weight.shape
    parts = weight.reshape(-1, shape.vectors, shape.lanes, inputs // together, together, taps, taps)
    ordered = parts.transpose(0, 5, 6, 3, 1, 2, 4)
    memory = np.empty(ordered.nbytes + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    result = memory[start : start + ordered.nbytes].view(weight.dtype).reshape(ordered.shape)
    result[...] = ordered
    return result


def scaling(shape: Shape, *rows: Array) -> Array:
    """Rows with a float32 for each output, as tiles read them: (groups, rows, vectors * lanes)."""
    parts = np.stack(rows).reshape(len(rows), -1, shape.vectors * shape.lanes)
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def bias_of(conv: Conv | TransposedConv) -> Array:
    """For each output."""
    return np.zeros(len(conv.weight), np.float32) if conv.bias is None else np.asarray(conv.bias.numpy())


def slopes_of(conv: Conv | TransposedConv) -> Array:
    """Of the activation below 0, for each output."""
    if isinstance(conv, TransposedConv):
        return np.ones(len(conv.weight), np.float32)
    if conv.slopes is not None and conv.activated:
        return np.asarray(conv.slopes.numpy())
    return np.full(len(conv.weight), LEAKY_SLOPE if conv.activated else 1, np.float32)


def prepared(conv: Conv | TransposedConv, shape: Shape) -> tuple[Array, Array]:
    """Weights and scaling of a layer in float32 as `tile` reads them, which is the same for rows of any length."""
    known = _prepared.get(conv)
    if known is None:
        parts = packed(conv.weight.numpy(), shape), scaling(shape, bias_of(conv), slopes_of(conv))
        known = _prepared.setdefault(conv, parts)
    return known


# Lives as long as the network. Engines take turns on the CPU, so that two threads never meet here.
_prepared: weakref.WeakKeyDictionary[Conv | TransposedConv, tuple[Array, Array]] = weakref.WeakKeyDictionary()
