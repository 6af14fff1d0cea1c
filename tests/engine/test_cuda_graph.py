"""Recordings: the same pictures as without them, whichever frames are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden import frame_pair, tensors
from vsrife.engine import cuda_graph
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.forward import PyramidForward
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Planes
from vsrife.networks.catalogue import MODELS
from vsrife.networks.fold import fold

CPU = torch.device("cpu")
WIDTH, HEIGHT = 70, 46
BT709 = Colorimetry(matrix=1, full_range=False, chroma_location=0)
ORDER = [(0, 1, 0.5), (1, 2, 0.25), (1, 2, 0.75), (0, 1, 0.5), (2, 3, 1 / 3)]  # there and back


def engine_of(version: str, device: torch.device) -> Engine:
    net = fold(MODELS[version].layout, tensors(version), device=device)
    return Engine(net, PictureFormat("YUV", 8, False, WIDTH, HEIGHT, 1, 1))


def pictures() -> list[InputFrame]:
    """Frames of YUV420P8 that differ."""
    first, second = (frame[0].numpy() for frame in frame_pair(HEIGHT, WIDTH))
    codes = [(16 + 219 * np.clip(f, 0, 1)).astype(np.uint8) for f in (first, second, first[:, ::-1], second[:, ::-1])]
    return [InputFrame(i, [c[0], c[1, ::2, ::2], c[2, ::2, ::2]], BT709) for i, c in enumerate(codes)]


def made(version: str, device: torch.device, *, records: bool) -> list[Planes]:
    """The frames of `ORDER`, each as numbers of its own."""
    engine = engine_of(version, device)
    assert isinstance(engine.forward, PyramidForward)
    engine.forward.uses_graph &= records
    shown = pictures()
    results = [engine.interpolate(shown[a], shown[b], t, out="device") for a, b, t in ORDER]
    assert bool(engine.forward.graph) == (records and not MODELS[version].layout.rescales)
    return [tuple(plane.clone() for plane in planes) for planes in results if planes is not None]


@pytest.mark.parametrize("version", ["4.0", "4.6", "4.25"])  # the first looks at values, so it is not recorded
def test_recorded_frames_are_the_same(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU a recording calls the function again, with the memory that a graph would read and write."""
    monkeypatch.setattr(cuda_graph, "graph_for", lambda *_: cuda_graph.Repeated())
    recorded, plain = made(version, CPU, records=True), made(version, CPU, records=False)
    assert len(recorded) == len(plain) == len(ORDER)
    for one, other in zip(recorded, plain, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(recorded[0], recorded[3], strict=True))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("version", ["4.6", "4.25"])
def test_a_graph_gives_what_the_kernels_give(version: str) -> None:
    device = torch.device("cuda", 0)
    for one, other in zip(made(version, device, records=True), made(version, device, records=False), strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


class Unable(cuda_graph.Repeated):
    """A graph that cannot be recorded."""

    def record(self, function: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        function()
        raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = engine_of("4.6", CPU).interpolate(pictures()[0], pictures()[1], 0.5, out="device")
    monkeypatch.setattr(cuda_graph, "graph_for", lambda *_: Unable())
    engine = engine_of("4.6", CPU)
    with pytest.warns(RuntimeWarning, match="cpu cannot record a pair as a graph .* not permitted when stream") as told:
        results = [engine.interpolate(pictures()[0], pictures()[1], 0.5, out="device") for _ in range(2)]
    assert len(told) == 1
    assert plain is not None
    for planes in results:
        assert planes is not None
        assert all(torch.equal(a, b) for a, b in zip(planes, plain, strict=True))


def test_motion_outlives_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user is given is not written over by the next pair."""
    monkeypatch.setattr(cuda_graph, "graph_for", lambda *_: cuda_graph.Repeated())
    engine = engine_of("4.6", CPU)
    a, b, c, _ = pictures()
    flow, share = engine.motion(a, b, 0.5)
    before = flow.clone(), share.clone()
    engine.motion(b, c, 0.5)
    assert torch.equal(flow, before[0])
    assert torch.equal(share, before[1])
