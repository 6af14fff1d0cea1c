"""Convolutions in eight bits for CPUs with dot products of bytes (AVX-512 VNNI, AVX-VNNI).

An output sums products of unsigned codes of the input and signed codes of the weights, exactly, four in each lane of an
instruction. Rows of the input are quantized on the way, so that all maps in memory are float32.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.conv_tiles import ConvTile, bias_of, emit_sums, pack_scaling, pack_weights, slopes_of
from vsrife.ops.cpu.llvm import F32, I8, I32, I64, Emitter, emitted, features, parallel_kernel
from vsrife.ops.cpu.verification import problem_of, warn
from vsrife.ops.protocol import Conv, TransposedConv
from vsrife.ops.reference import LARGEST_CODE, reference

Array = NDArray[Any]
ValueRange = tuple[np.float32, np.float32]  # the least and the largest of a map's values and 0

MOST_ERROR = 1e-5  # of float32 sums around 1, by which a backend may differ from the reference
ROWS = 8  # of outputs per strip, the work of one thread; their codes stay in the first caches


@cache
def vectors_here() -> tuple[int, ...]:
    """The lengths in 32-bit numbers of this CPU's dot products of bytes, longest first; empty where it has none."""
    if {"avx512vnni", "avx512vl"} <= features():
        return 16, 8
    return (8,) if "avxvnni" in features() else ()


# --- code within a row ------------------------------------------------------------------------------------------------

TILE = {
    "codes": I64,  # address of the first tap's code of the first pixel
    "pixel": I64,  # bytes between pixels there
    "row": I64,  # bytes between rows there
    "weights": I64,  # address of (rows, steps, vectors, lanes, 4) int8
    "steps": I64,  # fours of codes in a row of taps
    "scaling": I64,  # address of four rows of vectors: scale, bias, slope, and sum of the weights as int32
    "step": F32,  # between codes
    "zero": I32,  # the code of 0
    "residual": I64,  # address of the map to add before the activation, laid out as `out` is
    "out": I64,  # address of the first pixel's first output, float32
    "out_pixel": I64,  # bytes between pixels there
    "value_range": I64,  # address of two vectors, the least and the largest outputs so far
}


def _emit_tile(builder: ir.IRBuilder, arguments: Sequence[ir.Value], tile: ConvTile) -> None:
    """Emit a tile's sums, its outputs, and their range."""
    codes, pixel, row, weights, steps, scaling, step, zero, residual, out, out_pixel, value_range = arguments
    e, size, vectors = Emitter(builder, tile.lanes), 4 * tile.lanes, tile.vectors

    def add(total: ir.Value, four: ir.Value, weight: ir.Value) -> ir.Value:
        return e.call(f"llvm.x86.avx512.vpdpbusd.{32 * tile.lanes}", total, four, weight)

    sums = emit_sums(e, tile, I32, add, (codes, pixel, row, weights, steps))
    least, largest = (e.load(e.vector(F32), value_range, size * i) for i in range(2))
    step, zero = e.broadcast(step), e.broadcast(zero)
    for v in range(vectors):
        scale, bias, slope = (e.load(e.vector(F32), scaling, size * (v + vectors * i)) for i in range(3))
        gain = builder.fmul(scale, step)
        excess = builder.mul(zero, e.load(e.vector(I32), scaling, size * (v + vectors * 3)))
        for p in range(tile.pixels):
            offset = builder.mul(out_pixel, e.integer(p))
            exact = builder.sitofp(builder.sub(sums[p * vectors + v], excess), e.vector(F32))
            y = e.floats("fma", exact, gain, bias)
            if tile.residual:
                y = builder.fadd(y, e.load(e.vector(F32), builder.add(residual, offset), size * v))
            y = builder.select(builder.fcmp_ordered(">", y, e.constant(0)), y, builder.fmul(y, slope))
            e.store(y, builder.add(out, offset), size * v)
            least, largest = e.floats("minnum", least, y), e.floats("maxnum", largest, y)
    e.store(least, value_range)
    e.store(largest, value_range, size)


QUANTIZE = {
    "values": I64,  # address of vectors of float32
    "count": I64,  # of vectors
    "inverse": F32,  # codes per unit
    "zero": F32,  # the code of 0
    "codes": I64,  # address of the result, uint8
}


def _emit_quantize(builder: ir.IRBuilder, arguments: Sequence[ir.Value], lanes: int) -> None:
    """Emit the quantization of a row."""
    values, count, inverse, zero, codes = arguments
    e = Emitter(builder, lanes)
    inverse, zero = e.broadcast(inverse), e.broadcast(zero)
    loop = e.loop(count, [values, codes])
    _, source, target = loop.values
    # Product and sum are rounded separately, as PyTorch does: codes must not depend on the backend.
    code = builder.fadd(builder.fmul(e.load(e.vector(F32), source), inverse), zero)
    code = e.floats("maxnum", e.floats("minnum", e.floats("rint", code), e.constant(LARGEST_CODE)), e.constant(0))
    e.store(builder.trunc(builder.fptosi(code, e.vector(I32)), e.vector(I8)), target)
    loop.end([builder.add(source, e.integer(4 * lanes)), builder.add(target, e.integer(lanes))])


_tile, _tile_at = emitted(TILE, _emit_tile)
_quantize, _quantize_at = emitted(QUANTIZE, _emit_quantize)


# --- whole maps -------------------------------------------------------------------------------------------------------


@parallel_kernel
def _convolve(  # type: ignore[no-untyped-def]
    x, coding, weights, scaling, stride, residual, rows, pixels, taps, tile, quantize, out, value_ranges
):  # fmt: skip
    """Convolve (H, W, C) to `out` (h, w, K), by strips of `rows`; `value_ranges` is (strips, 2, lanes)."""
    height, width, channels = x.shape
    out_height, out_width, outputs = out.shape
    lanes, together = value_ranges.shape[2], scaling.shape[2]  # outputs of a vector, and of a tile
    step, zero = coding
    inverse = np.float32(1) / step
    steps = taps * channels // 4
    columns = (out_width - 1) * stride + taps
    for strip in numba.prange(value_ranges.shape[0]):
        first = strip * rows
        last = min(first + rows, out_height)
        codes = np.empty(((rows - 1) * stride + taps, columns, channels), np.uint8)
        code, line = codes.ctypes.data, columns * channels
        for r in range((last - first - 1) * stride + taps):
            y = first * stride - 1 + r
            if y < 0 or y >= height:
                codes[r] = np.uint8(zero)
                continue
            codes[r, 0] = np.uint8(zero)
            codes[r, width + 1 :] = np.uint8(zero)
            row, row_codes = x[y].reshape(-1), codes[r, 1:].reshape(-1)
            count = min(width, columns - 1) * channels
            whole = count - count % lanes
            if whole:
                _quantize(quantize, (row.ctypes.data, whole // lanes, inverse, zero, row_codes.ctypes.data))
            for i in range(whole, count):
                exact = np.rint(row[i] * inverse + zero)
                row_codes[i] = np.uint8(min(max(exact, np.float32(0)), np.float32(LARGEST_CODE)))
        value_ranges[strip] = np.float32(0)
        for group in range(outputs // together):
            weight = weights.ctypes.data + group * taps * steps * 4 * together
            for r in range(last - first):
                j = 0
                while j < out_width:
                    left = min(j, out_width - pixels)  # the last tile of a row may repeat some pixels
                    at = 4 * (((first + r) * out_width + left) * outputs + group * together)
                    _tile(tile, (
                        code + r * stride * line + left * stride * channels, stride * channels, line, weight, steps,
                        scaling.ctypes.data + group * 16 * together, step, np.int32(zero),
                        residual.ctypes.data + at, out.ctypes.data + at, 4 * outputs,
                        value_ranges.ctypes.data + strip * 8 * lanes,
                    ))  # fmt: skip
                    j += pixels


def supports(x: Tensor, conv: Conv | TransposedConv) -> bool:
    """Whether `convolve` can compute this layer on this CPU."""
    outputs, inputs = conv.weight.shape[:2]
    fits = bool(vectors_here()) and outputs % vectors_here()[-1] == 0 and inputs % 4 == 0
    return fits and x.shape[1] == inputs and x.dtype == torch.float32 and _works()


@cache
def _works() -> bool:
    """Whether a small convolution in eight bits agrees with the reference on this CPU; warn if it does not."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randint(-127, 128, (32, 16, 3, 3), generator=generator, dtype=torch.int8)
    conv = Conv(weight, torch.rand(32, generator=generator), scales=torch.rand(32, generator=generator) / 1000)
    x = torch.rand((1, 16, 5, 19), generator=generator) - 0.5

    def check() -> Iterator[str]:
        error = (convolve(x, conv)[0] - reference.convolve(x, conv)).abs().max().item()
        if not error <= MOST_ERROR:
            yield f"convolve in eight bits is off by {error:.1g}"

    problem = problem_of(check)
    if problem:
        warn(problem)
    return not problem


def convolve(
    x: Tensor, conv: Conv | TransposedConv, ranges: Sequence[ValueRange] = ()
) -> tuple[Tensor, Sequence[ValueRange]]:
    """Convolve in eight bits.

    Args:
        x: (N, C, H, W), float32.
        conv: with `scales`; of a transposed convolution, the 2x2 convolution with padding 1.
        ranges: of the values of each sample of `x`, where they are known.

    Returns:
        (N, K, h, w) float32 in channels-last memory, and the value ranges of its samples.
    """
    stride, residual = (1, False) if isinstance(conv, TransposedConv) else (conv.stride, conv.residual)
    samples = x.permute(0, 2, 3, 1).contiguous().numpy()
    count, *sides, _ = samples.shape
    height, width = ((side + 2 - conv.weight.shape[-1]) // stride + 1 for side in sides)
    outputs = len(conv.weight)
    lanes = next(lanes for lanes in vectors_here() if outputs % lanes == 0)
    tile = ConvTile.of(lanes, outputs, width, conv.weight.shape[-1], residual)
    out = buffer_pool.take((count, height, width, outputs))
    rows = min(ROWS, -(-height // numba.get_num_threads()))
    out_ranges = np.empty((count, -(-height // rows), 2, lanes), np.float32)
    for i, sample in enumerate(samples):
        coding = _coding(ranges[i] if ranges else _value_range(sample))
        _convolve(
            sample, coding, *_packed_layer(conv, tile), stride, sample, rows, tile.pixels, tile.taps,
            _tile_at(tile), _quantize_at(lanes), out[i], out_ranges[i],
        )  # fmt: skip
    result = torch.from_numpy(out).permute(0, 3, 1, 2)
    return result, [(each[:, 0].min(), each[:, 1].max()) for each in out_ranges]


def _value_range(values: Array) -> ValueRange:
    least, largest = torch.aminmax(torch.from_numpy(values))
    return np.float32(min(least.item(), 0.0)), np.float32(max(largest.item(), 0.0))


def _coding(value_range: ValueRange) -> tuple[np.float32, np.float32]:
    """The step between codes and the code of 0, as in `reference.quantize`."""
    least, largest = value_range
    step = (largest - least) / np.float32(LARGEST_CODE)
    if not step > 0:
        return np.float32(1), np.float32(0)
    return step, np.rint(-least / step)


def _packed_layer(conv: Conv | TransposedConv, tile: ConvTile) -> tuple[Array, Array]:
    """Weights, and scale, bias, slope and sum of weights of each output, as `_tile` reads them."""
    layer = _packed.get(conv)
    if layer is None:
        assert conv.scales is not None
        sums = conv.weight.numpy().sum((1, 2, 3), dtype=np.int32).view(np.float32)
        scaling = pack_scaling(tile, conv.scales.numpy(), bias_of(conv), slopes_of(conv), sums)
        layer = _packed.setdefault(conv, (pack_weights(conv.weight.numpy(), tile), scaling))
    return layer


# Entries live as long as the network. Engines take turns on the CPU, so that no two threads work here at once.
_packed: weakref.WeakKeyDictionary[Conv | TransposedConv, tuple[Array, Array]] = weakref.WeakKeyDictionary()
