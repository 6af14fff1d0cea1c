"""Graphs on a fake device: the frames of ordinary calls, on every device, and after a capture that fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.engine.cuda_runs import GPU, GPU1, YUV420P8, clip, expected, largest_difference, network, run
from tests.fake_cuda import Fake
from vsrife.engine import cuda_graph, forward
from vsrife.engine.device_thread import thread_of
from vsrife.engine.engine import Engine
from vsrife.ops import dispatch


@pytest.fixture(autouse=True)
def _graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain PyTorch, recorded."""
    if request.node.get_closest_marker("needs_cuda"):
        return
    request.getfixturevalue("fake")
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, "graph")
    monkeypatch.setattr(dispatch, "kernels_problem", lambda _device: "Triton is missing; pip install triton")
    for device in (GPU, GPU1):
        with pytest.warns(RuntimeWarning, match="uses plain PyTorch alone.* pip install triton"):
            assert not dispatch.uses_kernels(device)


def check(frames: Any) -> None:
    with dispatch.plain_operations():
        assert largest_difference(frames, expected("4.25.lite", YUV420P8)) <= 1


def test_a_graph_serves_all_engines_of_a_network(fake: Fake) -> None:
    """Recorded once, also for a filter made anew after a seek; 4.0 reads values, so it is never recorded."""
    net = network("4.25.lite", GPU)
    for _ in range(2):
        check(run(Engine(net, YUV420P8)))
    assert (fake.captures, fake.replays) == (1, 1 + 6)
    run(Engine(network("4.0", GPU), YUV420P8), [(0, 1)])
    assert fake.captures == 1
    assert not fake.findings


def test_large_frames_are_read_where_they_are(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording for each pair of places, as far as there may be so many; the others are computed without."""
    monkeypatch.setattr(cuda_graph, "COPIED_BYTES", 4)  # the time
    for most, captures in ((8, 2), (1, 1)):
        monkeypatch.setattr(cuda_graph, "MOST_RECORDINGS", most)
        engine = Engine(network("4.25.lite", GPU), YUV420P8)
        fake.captures = 0
        check(run(engine))
        assert fake.captures == captures
    assert not fake.findings


def test_every_device_captures_on_a_stream_of_its_own(fake: Fake) -> None:
    for device in (GPU, GPU1):
        check(run(Engine(network("4.25.lite", device), YUV420P8)))
    assert (fake.captures, fake.replays) == (2, 2 * (1 + 3))
    assert not fake.findings


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("out of memory")])
def test_a_failing_capture_restores_the_stream(error: Exception, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    real = forward._flow_and_mask

    def fails_in_a_capture(*args: Any) -> Any:
        if fake.thread.capture is not None:
            fake.thread.capture.invalid = True
            raise error
        return real(*args)

    monkeypatch.setattr(forward, "_flow_and_mask", fails_in_a_capture)
    if isinstance(error, torch.OutOfMemoryError):
        frames = run(Engine(network("4.25.lite", GPU), YUV420P8))
    else:
        with pytest.warns(RuntimeWarning, match="cannot record a CUDA graph .* unset VSRIFE_CUDA") as warned:
            frames = run(Engine(network("4.25.lite", GPU), YUV420P8))
        assert len(warned) == 1
    check(frames)
    assert id(thread_of(GPU).submit(torch.cuda.current_stream).result()) == id(fake.defaults[0])
    assert not fake.findings
    assert (fake.captures, fake.replays) == (1, 0)


def test_a_graph_that_does_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda _graph: None)
    with pytest.warns(RuntimeWarning, match="a replay gives another result"):
        frames = run(Engine(network("4.25.lite", GPU), YUV420P8))
    check(frames)


def test_motion_outlives_the_next_pair(fake: Fake) -> None:
    """What a user is given is not overwritten by a replay."""
    made, frames = Engine(network("4.25.lite", GPU), YUV420P8), clip(YUV420P8)
    flow, weight0 = made.motion(frames[0], frames[1], 0.5)
    before = flow.cpu(), weight0.cpu()
    made.motion(frames[2], frames[0], 0.5)
    assert fake.replays > 1
    assert torch.equal(flow.cpu(), before[0])
    assert torch.equal(weight0.cpu(), before[1])


@pytest.mark.needs_cuda
@pytest.mark.parametrize("version", ["4.6", "4.25"])
def test_a_graph_gives_what_the_kernels_give(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = {}
    for mode in ("", "graph"):
        monkeypatch.setenv(dispatch.CUDA_VARIABLE, mode)
        frames[mode] = run(Engine(network(version, GPU), YUV420P8))
    assert bool(cuda_graph._recordings)
    assert largest_difference(frames[""], frames["graph"]) == 0
