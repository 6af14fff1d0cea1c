"""Copies to and from the device while others are computed: the same planes as one step after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import vsrife.filters.rife
from tests.clips import equal, pan, planes_of
from vsrife import RIFE
from vsrife.engine import transfer
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download, Planes

CPU = torch.device("cpu")
COLOR = Colorimetry(matrix=1, full_range=False, chroma_location=0)


@lru_cache
def plain_frames(length: int, multi: int, fmt: str = "YUV420P8") -> list[list[NDArray[Any]]]:
    """All frames of a filter as it is on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsrife.filters.rife, "Engine", Engine)
        output = RIFE(pan(length, 32, 32, fmt), multi=multi, sc_threshold=1.0)
        return [planes_of(output, n) for n in range(output.num_frames)]


class Later(transfer.Transfer):
    """Stands in for streams: what goes down is only read when somebody waits for it, and its source may be gone."""

    waiting = 0

    def download(self, planes: Sequence[Tensor]) -> Download:
        Later.waiting += 1
        return _Unread(tuple(planes))


class _Unread(Download):
    def planes(self) -> Planes:
        Later.waiting -= 1
        return tuple(plane.clone() for plane in self._planes)


@pytest.mark.parametrize("fmt", ["YUV420P8", "RGBS"])
def test_results_outlive_the_next_pairs(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes on their way down are not in memory that a later pair writes to."""
    source, expected = pan(5, 32, 32, fmt), plain_frames(5, 2, fmt)
    monkeypatch.setattr(transfer, "transfer_for", Later)
    engines = []
    real = Engine.__init__

    def keep(self: Engine, *args: Any, **keywords: Any) -> None:
        real(self, *args, **keywords)
        engines.append(self)

    monkeypatch.setattr(Engine, "__init__", keep)
    output = RIFE(source, sc_threshold=1.0)
    for n in (*range(output.num_frames), 3, 1):
        assert equal(planes_of(output, n), expected[n]), n
    pictures = [InputFrame(i, [np.asarray(plane) for plane in planes_of(source, i)], COLOR) for i in range(5)]
    started = [
        engines[0].interpolate(pictures[i], pictures[i + 1], 0.5) for i in range(4)
    ]  # none is read before the last
    assert Later.waiting >= 4
    for i, found in enumerate(started):
        assert found is not None
        assert equal([plane.numpy() for plane in found.planes()], expected[2 * i + 1]), i


@pytest.mark.needs_cuda
def test_asynchronous_copies_on_a_device() -> None:
    """Many pairs in flight, and frames that are let go of at once: the same bits as one step after the other."""
    source = pan(12, 256, 128)
    options: dict[str, Any] = {"multi": 3, "device": "cuda", "sc_threshold": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "transfer_for", transfer.Transfer)
        plain = RIFE(source, **options)
        expected = [planes_of(plain, n) for n in range(plain.num_frames)]
    output = RIFE(source, **options)
    for _ in range(3):
        for n, future in [(n, output.get_frame_async(n)) for n in range(output.num_frames)]:
            with future.result() as frame:
                assert equal([np.asarray(frame[p]) for p in range(3)], expected[n]), n
