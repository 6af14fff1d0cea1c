"""`RIFE` on fake CUDA devices: the CPU's frames, from one device and from two."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs
from numpy.typing import NDArray

from tests.clips import pan, planes_of
from tests.fake_cuda import Fake
from vsrife import RIFE
from vsrife.ops import dispatch
from vsrife.ops.reference import reference

LITE = Path(__file__).parents[2] / "models" / "lite.safetensors"


def interpolated(device: str) -> vs.VideoNode:
    output = RIFE(pan(3, 32, 32), device=device, model=LITE, precision="fp32", sc_threshold=1.0)
    assert isinstance(output, vs.VideoNode)
    return output


@lru_cache(maxsize=1)
def expected() -> list[list[NDArray[Any]]]:
    """The frames of plain PyTorch on the CPU."""
    output = interpolated("cpu")
    return [planes_of(output, n) for n in range(output.num_frames)]


def check(frames: list[list[NDArray[Any]]]) -> None:
    for n, (frame, right) in enumerate(zip(frames, expected(), strict=True)):
        for a, b in zip(frame, right, strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1, n


@pytest.mark.parametrize(("device", "threads", "mode"), [("cuda", 1, "plain"), ("cuda:0,1", 2, "graph")])
def test_frames(device: str, threads: int, mode: str, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """First asked for one by one, then all at once from a filter made anew."""
    monkeypatch.setattr(dispatch, "_cuda_kernels", lambda _device: reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_cpu_kernels", lambda _dtype: reference)
        expected()
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, mode)
    output = interpolated(device)
    check([planes_of(output, n) for n in range(output.num_frames)])
    output = interpolated(device)
    futures = [output.get_frame_async(n) for n in range(output.num_frames)]
    check([[np.array(frame[p]) for p in range(3)] for frame in (future.result() for future in futures)])
    assert len(fake.cudnn_threads) == threads
    assert fake.captures == (threads if mode == "graph" else 0)
    assert not fake.findings
