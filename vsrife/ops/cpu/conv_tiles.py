"""Convolutions by tiles of as many sums as the registers hold: neighbouring pixels times vectors of outputs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from vsrife.ops.cpu.llvm import F32, I64, Emitter, emitted
from vsrife.ops.protocol import LEAKY_SLOPE, Conv, TransposedConv

Array = NDArray[Any]

REGISTERS = {16: 24, 8: 12, 4: 12}  # for sums, by the lanes of a vector; of 32, 16 and 16 that there are
ALIGNMENT = 64  # bytes, of weights: the length of the longest vectors


@dataclass(frozen=True, slots=True)
class ConvTile:
    """The constants of a tile's code.

    Attributes:
        lanes: numbers in a vector.
        vectors: of outputs.
        pixels: along the row.
        taps: rows and columns of the kernel.
        residual: whether the input is added.
    """

    lanes: int
    vectors: int
    pixels: int
    taps: int
    residual: bool = False

    @classmethod
    @cache
    def of(cls, lanes: int, outputs: int, width: int, taps: int, residual: bool = False) -> ConvTile:
        """The tile for rows of `width` pixels that loads least for each sum.

        Its vectors divide those of the outputs. All tiles of a row have one size: the last one repeats a few pixels.
        """
        registers, count = REGISTERS[lanes], outputs // lanes
        divisors = [n for n in range(1, registers + 1) if count % n == 0]
        vectors = min(divisors, key=lambda n: 1 / n + 1 / (registers // n))
        tiles = -(-width // (registers // vectors))
        return cls(lanes, vectors, -(-width // tiles), taps, residual)


def emit_sums(
    e: Emitter,
    tile: ConvTile,
    kind: ir.Type,
    add: Callable[[ir.Value, ir.Value, ir.Value], ir.Value],
    operands: tuple[ir.Value, ...],
) -> list[ir.Value]:
    """Emit the sums of a tile; those of a pixel follow those of the pixel before.

    Args:
        e: emitter of the tile's lanes.
        tile: the tile.
        kind: type of four bytes of input and of weights: one float32, or four 8-bit codes as an int32.
        add: emits a vector of sums plus the products of a broadcast input and a vector of weights.
        operands: address of the first tap of the first pixel, bytes between pixels and between rows there, address of
            the weights (rows, steps, vectors, lanes), steps of four bytes in a row of taps.
    """
    start, pixel, row, weights, steps = operands
    builder, size = e.builder, 4 * tile.lanes
    zeros = [ir.Constant(e.vector(kind), None)] * (tile.pixels * tile.vectors)
    rows = e.loop(tile.taps, [start, weights, *zeros])
    _, line, weight, *sums = rows.values
    along = e.loop(steps, [line, weight, *sums])
    _, step, weight, *sums = along.values
    loaded = [e.load(e.vector(kind), weight, size * v, size) for v in range(tile.vectors)]
    for p in range(tile.pixels):
        value = e.broadcast(e.load(kind, builder.add(step, builder.mul(pixel, e.integer(p))), align=1))
        for v in range(tile.vectors):
            i = p * tile.vectors + v
            sums[i] = add(sums[i], value, loaded[v])
    weight = builder.add(weight, e.integer(size * tile.vectors))
    along.end([builder.add(step, e.integer(4)), weight, *sums])
    rows.end([builder.add(line, row), weight, *sums])
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


def _emit_tile(builder: ir.IRBuilder, arguments: Sequence[ir.Value], tile: ConvTile) -> None:
    """Emit a tile's outputs in float32."""
    values, pixel, row, weights, steps, scaling, out, out_pixel = arguments
    e, size, vectors = Emitter(builder, tile.lanes), 4 * tile.lanes, tile.vectors

    def add(total: ir.Value, value: ir.Value, weight: ir.Value) -> ir.Value:
        return e.floats("fma", value, weight, total)

    sums = emit_sums(e, tile, F32, add, (values, pixel, row, weights, steps))
    for v in range(vectors):
        bias, slope = (e.load_floats(scaling, size * (v + vectors * i)) for i in range(2))
        for p in range(tile.pixels):
            y = builder.fadd(sums[p * vectors + v], bias)
            y = builder.select(builder.fcmp_ordered(">", y, e.constant(0)), y, builder.fmul(y, slope))
            e.store(y, builder.add(out, builder.mul(out_pixel, e.integer(p))), size * v)


conv_tile, conv_tile_at = emitted(TILE, _emit_tile)


def pack_weights(weight: Array, tile: ConvTile) -> Array:
    """Reorder (out, in, taps, taps) as tiles read it: (groups, taps, steps, vectors, lanes, inputs in 4 bytes)."""
    packed = 4 // weight.itemsize
    _, inputs, taps, _ = weight.shape
    parts = weight.reshape(-1, tile.vectors, tile.lanes, inputs // packed, packed, taps, taps)
    ordered = parts.transpose(0, 5, 6, 3, 1, 2, 4)
    memory = np.empty(ordered.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    result = memory[start : start + ordered.nbytes].view(weight.dtype).reshape(ordered.shape)
    result[...] = ordered
    return result


def pack_scaling(tile: ConvTile, *rows: Array) -> Array:
    """Reorder rows of one float32 per output as tiles read them: (groups, rows, vectors * lanes)."""
    parts = np.stack(rows).reshape(len(rows), -1, tile.vectors * tile.lanes)
    return np.ascontiguousarray(parts.transpose(1, 0, 2))


def bias_of(conv: Conv | TransposedConv) -> Array:
    """The bias of each output."""
    return np.zeros(len(conv.weight), np.float32) if conv.bias is None else np.asarray(conv.bias.numpy())


def slopes_of(conv: Conv | TransposedConv) -> Array:
    """The activation's slope below 0 of each output; 1 where there is none."""
    if isinstance(conv, TransposedConv):
        return np.ones(len(conv.weight), np.float32)
    if conv.slopes is not None and conv.activated:
        return np.asarray(conv.slopes.numpy())
    return np.full(len(conv.weight), LEAKY_SLOPE if conv.activated else 1, np.float32)


def packed_layer(conv: Conv | TransposedConv, tile: ConvTile) -> tuple[Array, Array]:
    """Weights and scaling of a float32 layer as `conv_tile` reads them; they do not depend on the row's length."""
    layer = _packed.get(conv)
    if layer is None:
        parts = pack_weights(conv.weight.numpy(), tile), pack_scaling(tile, bias_of(conv), slopes_of(conv))
        layer = _packed.setdefault(conv, parts)
    return layer


# Entries live as long as the network. Engines take turns on the CPU, so that no two threads work here at once.
_packed: weakref.WeakKeyDictionary[Conv | TransposedConv, tuple[Array, Array]] = weakref.WeakKeyDictionary()
