"""Convolutions in eight bits for CPUs with dot products of bytes (AVX-512 VNNI, AVX-VNNI).

Twin of what `reference.convolve` does where a convolution has `scales`. An output is summed over unsigned codes of the
input and signed ones of the weights, four products in each lane of an instruction, exactly; the input becomes codes row
by row on the way, so that only float32 maps are ever stored.
"""

from __future__ import annotations

import weakref
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
from vsrife.ops.cpu.conv_tiles import Shape, bias_of, packed, scaling, slopes_of, write_sums
from vsrife.ops.cpu.llvm import F32, I8, I32, I64, Writer, features, function
from vsrife.ops.protocol import Conv, TransposedConv

Array = NDArray[Any]
ValueRange = tuple[np.float32, np.float32]  # the least and the largest value of a map, and 0

TOP = 255  # the largest code
ROWS = 8  # of outputs that a thread makes at a time; its codes stay in the first caches


@cache
def vectors_here() -> tuple[int, ...]:
    """How many 32-bit numbers the instructions of this CPU take, longest first; empty where it has none of them."""
    if {"avx512vnni", "avx512vl"} <= features():
        return 16, 8
    return (8,) if "avxvnni" in features() else ()


# --- the tile, in LLVM's language -------------------------------------------------------------------------------------


def _write_tile(builder: ir.IRBuilder, arguments: Sequence[ir.Value], shape: Shape) -> None:
    """Sums of a tile, and its outputs from them; `TILE` names the arguments."""
    codes, pixel, row, weights, steps, scaling, step, zero, residual, out, out_pixel, span = arguments
    vectors, pixels = shape.vectors, shape.pixels
    w, size = Writer(builder, shape.lanes), 4 * shape.lanes

    def add(total: ir.Value, known: ir.Value, weight: ir.Value) -> ir.Value:
        return w.call(f"llvm.x86.avx512.vpdpbusd.{32 * shape.lanes}", total, known, weight)

    sums = write_sums(w, shape, I32, add, (codes, pixel, row, weights, steps))
    least, most = (w.load(w.vector(F32), span, size * i) for i in range(2))
    step, zero = w.spread(step), w.spread(zero)
    for v in range(vectors):
        scale, bias, slope = (w.load(w.vector(F32), scaling, size * (v + vectors * i)) for i in range(3))
        gain = builder.fmul(scale, step)
        excess = builder.mul(zero, w.load(w.vector(I32), scaling, size * (v + vectors * 3)))
        for p in range(pixels):
            offset = builder.mul(out_pixel, w.number(p))
            exact = builder.sitofp(builder.sub(sums[p * vectors + v], excess), w.vector(F32))
            y = w.floats("fma", exact, gain, bias)
            if shape.residual:
                y = builder.fadd(y, w.load(w.vector(F32), builder.add(residual, offset), size * v))
            y = builder.select(builder.fcmp_ordered(">", y, w.filled(0)), y, builder.fmul(y, slope))
            w.store(y, builder.add(out, offset), size * v)
            least, most = w.floats("minnum", least, y), w.floats("maxnum", most, y)
    w.store(least, span)
    w.store(most, span, size)


def _write_encoding(builder: ir.IRBuilder, arguments: Sequence[ir.Value], lanes: int) -> None:
    """Codes of vectors of float32, at least one, from one address to another; `ENCODING` names the arguments."""
    values, count, inverse, zero, codes = arguments
    w = Writer(builder, lanes)
    inverse, zero = w.spread(inverse), w.spread(zero)
    loop = w.loop(count, [values, codes])
    _, source, target = loop.values
    # Product and sum are rounded apart, as PyTorch does: codes must not depend on who makes them.
    code = builder.fadd(builder.fmul(w.load(w.vector(F32), source), inverse), zero)
    code = w.floats("maxnum", w.floats("minnum", w.floats("rint", code), w.filled(TOP)), w.filled(0))
    w.store(builder.trunc(builder.fptosi(code, w.vector(I32)), w.vector(I8)), target)
    loop.end([builder.add(source, w.number(4 * lanes)), builder.add(target, w.number(lanes))])


TILE = {
    "codes": I64,  # address of the first tap's code of the first pixel
    "pixel": I64,  # bytes between pixels there
    "row": I64,  # bytes between rows there
    "weights": I64,  # address of (rows, steps, vectors, lanes, 4) int8
    "steps": I64,  # fours of codes in a row of taps
    "scaling": I64,  # address of four rows of vectors: scale, bias, slope, and sum of the weights as int32
    "step": F32,  # of the codes
    "zero": I32,  # the code of 0
    "residual": I64,  # address of what may be added before the activation, laid out as `out` is
    "out": I64,  # address of the first pixel's first output, float32
    "out_pixel": I64,  # bytes between pixels there
    "span": I64,  # address of two vectors, the least and the largest outputs so far
}
ENCODING = {"values": I64, "count": I64, "inverse": F32, "zero": F32, "codes": I64}


_tile, _tile_at = function(TILE, _write_tile)
_encode, _encoding_at = function(ENCODING, _write_encoding)


# --- a whole map ------------------------------------------------------------------------------------------------------


@numba.njit(parallel=True, cache=True)
def _convolve(  # type: ignore[no-untyped-def]
    x, span, weights, scaling, stride, residual, rows, pixels, taps, tile, encoding, out, spans
):  # fmt: skip
    """(H, W, C) to `out` (h, w, K), by strips of `rows`; `spans` (strips, 2, lanes) takes the ends of their outputs."""
    height, width, channels = x.shape
    high, wide, outputs = out.shape
    lanes, together = spans.shape[2], scaling.shape[2]  # outputs of a vector, and of a tile
    inverse = np.float32(1) / span[0]
    steps = taps * channels // 4
    columns = (wide - 1) * stride + taps
    for strip in numba.prange(spans.shape[0]):
        first = strip * rows
        last = min(first + rows, high)
        codes = np.empty(((rows - 1) * stride + taps, columns, channels), np.uint8)
        code, line = codes.ctypes.data, columns * channels
        for r in range((last - first - 1) * stride + taps):
            y = first * stride - 1 + r
            if y < 0 or y >= height:
                codes[r] = np.uint8(span[1])
                continue
            codes[r, 0] = np.uint8(span[1])
            codes[r, width + 1 :] = np.uint8(span[1])
            row, into = x[y].reshape(-1), codes[r, 1:].reshape(-1)
            count = min(width, columns - 1) * channels
            whole = count - count % lanes
            if whole:
                _encode(encoding, (row.ctypes.data, whole // lanes, inverse, span[1], into.ctypes.data))
            for i in range(whole, count):
                into[i] = np.uint8(min(max(np.rint(row[i] * inverse + span[1]), np.float32(0)), np.float32(TOP)))
        spans[strip] = np.float32(0)
        for group in range(outputs // together):
            weight = weights.ctypes.data + group * taps * steps * 4 * together
            for r in range(last - first):
                j = 0
                while j < wide:
                    left = min(j, wide - pixels)  # the last tile of a row may do some pixels again
                    at = 4 * (((first + r) * wide + left) * outputs + group * together)
                    _tile(tile, (
                        code + r * stride * line + left * stride * channels, stride * channels, line, weight, steps,
                        scaling.ctypes.data + group * 16 * together, span[0], np.int32(span[1]),
                        residual.ctypes.data + at, out.ctypes.data + at, 4 * outputs,
                        spans.ctypes.data + strip * 8 * lanes,
                    ))  # fmt: skip
                    j += pixels


def _rows(conv: Conv | TransposedConv, shape: Shape) -> Array:
    """Scale, bias, slope and sum of weights of each output."""
    assert conv.scales is not None
    sums = conv.weight.numpy().sum((1, 2, 3), dtype=np.int32).view(np.float32)
    return scaling(shape, conv.scales.numpy(), bias_of(conv), slopes_of(conv), sums)


def supports(x: Tensor, conv: Conv | TransposedConv) -> bool:
    """Whether `convolve` can do this here."""
    outputs, inputs = conv.weight.shape[:2]
    known = bool(vectors_here()) and outputs % vectors_here()[-1] == 0 and inputs % 4 == 0
    return known and x.shape[1] == inputs and x.dtype == torch.float32


def _span(values: Array) -> ValueRange:
    least, most = torch.aminmax(torch.from_numpy(values))
    return np.float32(min(least.item(), 0.0)), np.float32(max(most.item(), 0.0))


def convolve(
    x: Tensor, conv: Conv | TransposedConv, spans: Sequence[ValueRange] = ()
) -> tuple[Tensor, Sequence[ValueRange]]:
    """A convolution in eight bits.

    Args:
        x: (N, C, H, W), float32.
        conv: with `scales`; of an expansion, that of 2x2 with padding 1.
        spans: those of the samples of `x`, where they are known.

    Returns:
        (N, K, h, w) float32 in channels-last memory, and the spans of its samples.
    """
    stride, residual = (1, False) if isinstance(conv, TransposedConv) else (conv.stride, conv.residual)
    samples = x.permute(0, 2, 3, 1).contiguous().numpy()
    count, *sides, _ = samples.shape
    height, width = ((side + 2 - conv.weight.shape[-1]) // stride + 1 for side in sides)
    outputs = len(conv.weight)
    lanes = next(lanes for lanes in vectors_here() if outputs % lanes == 0)
    shape = Shape.of(lanes, outputs, width, conv.weight.shape[-1], residual)
    known = _packed.get(conv)
    if known is None:
        known = _packed.setdefault(conv, (packed(conv.weight.numpy(), shape), _rows(conv, shape)))
    out = buffer_pool.take((count, height, width, outputs))
    rows = min(ROWS, -(-height // numba.get_num_threads()))
    found = np.empty((count, -(-height // rows), 2, lanes), np.float32)
    for i, sample in enumerate(samples):
        code = coding(spans[i] if spans else _span(sample))
        _convolve(
            sample, code, *known, stride, sample, rows, shape.pixels, shape.taps,
            _tile_at(shape), _encoding_at(lanes), out[i], found[i],
        )  # fmt: skip
    result = torch.from_numpy(out).permute(0, 3, 1, 2)
    return result, [(each[:, 0].min(), each[:, 1].max()) for each in found]


def coding(span: ValueRange) -> tuple[np.float32, np.float32]:
    """What a code is worth, and the code of 0, as `reference.quantize` has them."""
    least, most = span
    step = (most - least) / np.float32(TOP)
    if not step > 0:
        return np.float32(1), np.float32(0)
    return step, np.rint(-least / step)


# Lives as long as the network. Engines take turns on the CPU, so that two threads never meet here.
_packed: weakref.WeakKeyDictionary[Conv | TransposedConv, tuple[Array, Array]] = weakref.WeakKeyDictionary()
