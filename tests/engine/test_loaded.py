"""Several devices for one clip, and copies beside the computation: the same frames either way."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

import vsrife.filters.rife
from tests.clips import LinearEngine, counting, equal, pan, planes_of, value_of
from vsrife import RIFE
from vsrife.engine import cuda_graph, transfer
from vsrife.engine.devices import parse_device, parse_devices, parse_precision
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download, Planes
from vsrife.errors import DeviceError

CPU = torch.device("cpu")
COLOR = Colorimetry(matrix=1, full_range=False, chroma_location=0)
CLOSING_S = 5.0  # patience; on an idle machine it is a fraction of a second


class Sharing(LinearEngine):
    """Mixes, and tells which engine made which pair."""

    made: list[tuple[int, int]]  # number of the engine, left source frame
    count: int
    broken: int | None  # number of the engine that fails

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.number = Sharing.count
        Sharing.count += 1

    def interpolate(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float,
        interrupt: Callable[[], None] = lambda: None,
    ) -> Download | None:
        key = left.key
        assert isinstance(key, int)
        Sharing.made.append((self.number, key))
        if self.number == Sharing.broken:
            raise RuntimeError("the device fell off")
        return super().interpolate(left, right, timestep, interrupt)


@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> type[Sharing]:
    Sharing.made, Sharing.count, Sharing.broken = [], 0, None
    monkeypatch.setattr(vsrife.filters.rife, "Engine", Sharing)
    return Sharing


@lru_cache
def frames_alone(length: int, multi: int, fmt: str = "YUV420P8") -> list[list[NDArray[Any]]]:
    """All frames of a filter as it is on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsrife.filters.rife, "Engine", Engine)
        patch.setattr(cuda_graph, "graph_for", lambda *_: None)
        output = RIFE(pan(length, 32, 32, fmt), multi=multi, sc_threshold=1.0)
        return [planes_of(output, n) for n in range(output.num_frames)]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vsrife"]


# --- several devices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu,cpu", "cpu, cpu,cpu"])
def test_pairs_go_to_the_devices_in_turn(device: str, sharing: type[Sharing]) -> None:
    """Each pair wholly to one, from every direction; the frames are where they belong."""
    count = device.count("cpu")
    output = RIFE(counting(12), multi=4, device=device, sc_threshold=1.0)
    order = [*range(output.num_frames), *random.Random(5).sample(range(output.num_frames), 20)]
    for n in order:
        assert value_of(output, n) == min(Fraction(n, 4), 11)
    assert {engine for engine, _ in sharing.made} == set(range(count))
    assert all(engine == left % count for engine, left in sharing.made)


@pytest.mark.usefixtures("sharing")
def test_two_devices_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With access in order the next pair is begun on the other device before this one is done."""
    together = threading.Barrier(2, timeout=60)
    real = Sharing.interpolate

    def interpolate(self: Sharing, left: InputFrame, *rest: Any) -> Download | None:
        if left.key in (4, 5):
            together.wait()
        return real(self, left, *rest)

    monkeypatch.setattr(Sharing, "interpolate", interpolate)
    output = RIFE(counting(12), device="cpu,cpu", sc_threshold=1.0)
    assert [value_of(output, n) for n in range(output.num_frames - 1)] == [n / 2 for n in range(output.num_frames - 1)]
    assert not together.broken


def test_network_on_two_devices_gives_the_frames_of_one() -> None:
    output = RIFE(pan(4, 32, 32), multi=4, sc_threshold=1.0, device="cpu,cpu")
    for n in [6, 1, 2, 3, 4, 5, 6, 7, 11, 9]:
        assert equal(planes_of(output, n), frames_alone(4, 4)[n]), n


def test_failing_device_leaves_the_others_alone(sharing: type[Sharing]) -> None:
    """Its frames are errors that say why; those of the other device come, before, between and after."""
    output = RIFE(counting(9), device="cpu,cpu", sc_threshold=1.0)
    sharing.broken = 1
    for n in range(1, 16, 2):
        left = n // 2
        if left % 2:
            message = f"RIFE: output frame {n} failed, between source frames {left} and {left + 1}: the device fell off"
            with pytest.raises(vs.Error, match=message):
                output.get_frame(n)
        else:
            assert value_of(output, n) == n / 2


@pytest.mark.usefixtures("sharing")
def test_closing_ends_all_workers() -> None:
    before = set(workers())
    output = RIFE(counting(9), device="cpu,cpu,cpu", sc_threshold=1.0)
    for n in range(1, 12):
        output.get_frame(n).close()
    mine = set(workers()) - before
    assert len(mine) == 3
    del output
    gc.collect()
    deadline = time.monotonic() + CLOSING_S
    for thread in mine:
        thread.join(max(0, deadline - time.monotonic()))
        assert not thread.is_alive()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_devices("cpu") == parse_devices(CPU) == (CPU,)
    assert parse_devices("cpu,cpu") == (CPU, CPU)
    with pytest.raises(DeviceError, match=r"device cannot be used, got 'cuda:98' \("):
        parse_devices("cpu,cuda:98,99")
    with pytest.raises(DeviceError, match="device cannot be used, got ''"):
        parse_devices("cpu,")
    with pytest.raises(DeviceError, match="device must be one here, got 'cpu,cpu'; several share the frames of a clip"):
        parse_device("cpu,cpu")
    monkeypatch.setattr("vsrife.engine.devices.parse_device", torch.device)  # as if all were here
    assert parse_devices("cuda:0,1, xpu:1") == (torch.device("cuda:0"), torch.device("cuda:1"), torch.device("xpu:1"))
    with pytest.raises(DeviceError, match=r"device must name each device once, got 'cuda:1' again in 'cuda:1,0,1'; "):
        parse_devices("cuda:1,0,1")


def test_one_precision_for_all_devices() -> None:
    first, second = (torch.device("cuda", index) for index in range(2))
    assert parse_precision(None, first, second) == torch.float16
    assert parse_precision(None, first, CPU) == torch.float32
    assert parse_precision("bf16", first, CPU) == torch.bfloat16


# --- copies beside the computation ------------------------------------------------------------------------------------


class Later(transfer.Plain):
    """Stands in for streams: what goes down is only read when somebody waits for it, and its source may be gone."""

    waiting = 0

    def download(self, planes: Sequence[Tensor]) -> Download:
        Later.waiting += 1
        return _Unread(tuple(planes))


class _Unread:
    def __init__(self, planes: Planes) -> None:
        self._planes = planes

    def planes(self) -> Planes:
        Later.waiting -= 1
        return tuple(plane.clone() for plane in self._planes)


@pytest.mark.parametrize("fmt", ["YUV420P8", "RGBS"])
def test_results_outlive_the_next_pairs(fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way down is not in memory that a recording writes to again."""
    source, expected = pan(5, 32, 32, fmt), frames_alone(5, 2, fmt)
    monkeypatch.setattr(transfer, "transfer_for", Later)
    monkeypatch.setattr(cuda_graph, "graph_for", lambda *_: cuda_graph.Repeated())
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
def test_staged_copies_on_a_device() -> None:
    """Many pairs in flight, and frames that are let go of at once: the same bits as one step after the other."""
    source = pan(12, 256, 128)
    options: dict[str, Any] = {"multi": 3, "device": "cuda", "sc_threshold": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "transfer_for", transfer.Plain)
        plain = RIFE(source, **options)
        expected = [planes_of(plain, n) for n in range(plain.num_frames)]
    output = RIFE(source, **options)
    for _ in range(3):
        for n, future in [(n, output.get_frame_async(n)) for n in range(output.num_frames)]:
            with future.result() as frame:
                assert equal([np.asarray(frame[p]) for p in range(3)], expected[n]), n
