"""Emitted code, and how numba compiles and caches the loops around it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numba
import numpy as np
import pytest
from llvmlite import ir

from vsrife.ops.cpu import llvm
from vsrife.ops.cpu.llvm import I64, Emitter, emitted, lanes_for, parallel_kernel, vectors_of

SCALE = {"values": I64, "count": I64, "out": I64}


def _emit_doubling(builder: ir.IRBuilder, arguments: Sequence[ir.Value], channels: int) -> None:
    values, count, out = arguments
    loop = Emitter(builder, 1).loop(count, [values, out])
    _, source, target = loop.values
    for channel, lanes in vectors_of(channels):
        e = Emitter(builder, lanes)
        value = e.load_floats(source, 4 * channel)
        e.store(builder.fadd(value, value), target, 4 * channel)
    loop.end([builder.add(address, ir.Constant(I64, 4 * channels)) for address in (source, target)])


double, double_at = emitted(SCALE, _emit_doubling)


@numba.njit
def _run(code, values, out):  # type: ignore[no-untyped-def]
    double(code, (values.ctypes.data, len(values), out.ctypes.data))


def test_an_emitted_function_has_a_variant_for_any_shape() -> None:
    for channels in (1, 7, 16, 21):
        values = np.random.default_rng(channels).random((5, channels), np.float32)
        guarded = np.full((7, channels), np.nan, np.float32)
        _run(double_at(channels), values, guarded[1:-1])
        assert np.array_equal(guarded[1:-1], 2 * values)
        assert np.isnan(guarded[[0, -1]]).all()
    assert double_at(7) == double_at(7)


@pytest.mark.parametrize(("here", "expected"), [(16, [16, 8, 4, 0]), (8, [8, 8, 4, 0]), (4, [4, 4, 4, 0])])
def test_vectors_divide_the_channels(here: int, expected: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "lanes_here", lambda: here)
    assert [lanes_for(channels) for channels in (32, 24, 20, 6)] == expected
    for channels in range(1, 40):
        assert sum(lanes for _, lanes in vectors_of(channels)) == channels


def test_cached_code_is_named_after_all_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit in any module of the folder compiles its kernels anew."""
    names = []
    for sources in ("0123", "4567"):
        monkeypatch.setattr(llvm, "_source_hash", lambda sources=sources: sources)

        @parallel_kernel
        def kernel(out):  # type: ignore[no-untyped-def]
            out[0] = 1

        names.append(kernel.__qualname__)
    assert [name.rpartition("_")[2] for name in names] == ["0123", "4567"]


def test_the_hash_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = set()
    for text in ("a = 1", "a = 2"):
        (tmp_path / "one.py").write_text(text)
        monkeypatch.setattr(llvm, "__file__", str(tmp_path / "llvm.py"))
        llvm._source_hash.cache_clear()
        hashes.add(llvm._source_hash())
    llvm._source_hash.cache_clear()
    assert len(hashes) == 2


def test_compiling_logs_nothing_and_leaves_loggers_alone(caplog: pytest.LogCaptureFixture) -> None:
    """VapourSynth's scripts run with all loggers at debug level, where numba describes each step of its compiler."""
    numba_logger = logging.getLogger("numba")
    compile_kernel = llvm._quietly(lambda: logging.getLogger("numba.core.ssa").debug("a step"))
    with caplog.at_level(logging.DEBUG):
        compile_kernel()
    assert caplog.records == []
    assert numba_logger.level == logging.NOTSET
