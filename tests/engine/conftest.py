"""A CUDA device that is not there, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest

from tests.fake_cuda import Fake, fake_cuda
from vsrife.engine import cuda_graph, device_thread, transfer, verification
from vsrife.ops import dispatch


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """Two fake devices that run plain PyTorch, in a process that has not used CUDA before."""
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, "plain")
    monkeypatch.setattr(device_thread, "_threads", {})
    monkeypatch.setattr(dispatch, "_disabled", set())
    monkeypatch.setattr(verification, "_verified", set())
    monkeypatch.setattr(verification, "_verdicts_path", lambda _device: tmp_path / "verdicts.json")
    monkeypatch.setattr(cuda_graph, "_recordings", WeakKeyDictionary())
    caches = dispatch._cuda_kernels, transfer.transfer_for, cuda_graph._capture_stream
    for cache in caches:
        cache.cache_clear()
    with fake_cuda() as fake:
        yield fake
    for cache in caches:
        cache.cache_clear()
