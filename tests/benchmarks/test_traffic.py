"""Bytes and launches of a pair, counted on meta tensors."""

from __future__ import annotations

import pytest

from benchmarks.measure import FULL_HD
from benchmarks.traffic import of_kernels, of_plain, of_published


def test_plain_pytorch_moves_no_more_than_the_published_forward() -> None:
    plain, published = of_plain("4.25", FULL_HD), of_published("4.25", FULL_HD)
    assert plain.moved <= published.moved
    assert plain.launches <= published.launches


def test_kernels_move_a_third() -> None:
    pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
    kernels = of_kernels("4.25", FULL_HD)
    assert kernels.moved < 2.3e9
    assert kernels.launches < 160
