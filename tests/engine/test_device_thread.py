"""One thread for each CUDA device: the plain path on a fake device, one filter, several, and several devices."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from tests.engine.cuda_runs import GPU, GPU1, YUV420P8, expected, largest_difference, network, run
from tests.fake_cuda import Fake, FakeTensor, Stream
from tests.golden.legacy import small_net
from vsrife.engine.device_thread import run_on
from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.engine.transfer import Planes, transfer_for
from vsrife.errors import DeviceError
from vsrife.networks import pyramid
from vsrife.ops import dispatch

FORMATS = {
    "YUV420P8": YUV420P8,
    "YUV420P10": PictureFormat("YUV", 10, False, 60, 64, 1, 1),
    "YUV444P8": PictureFormat("YUV", 8, False, 61, 47),
    "GRAY16": PictureFormat("GRAY", 16, False, 61, 47),
    "RGBS": PictureFormat("RGB", 32, True, 61, 47),
    "RGBH": PictureFormat("RGB", 16, True, 61, 47),
}


def check(frames: list[Planes], fmt: PictureFormat = YUV420P8) -> None:
    """Equal to the CPU's plain PyTorch within rounding."""
    with dispatch.plain_operations():
        largest = largest_difference(frames, expected("4.25.lite", fmt))
    assert largest <= (1 if not fmt.floating else 1e-5 if fmt.bits == 32 else 1e-3)


@pytest.mark.parametrize("name", FORMATS)
def test_frames_of_every_format(name: str, fake: Fake) -> None:
    check(run(Engine(network("4.25.lite", GPU), FORMATS[name])), FORMATS[name])
    assert not fake.findings


@pytest.mark.parametrize("layout", ["E01", "E05"])
def test_models_before_4(layout: str, fake: Fake) -> None:
    """One with a refinement, and one whose motion is enough; both are modules, moved as a whole."""
    net = small_net(layout)
    with dispatch.plain_operations():
        right = run(Engine(net, YUV420P8), [(0, 1)])
    assert largest_difference(run(Engine(net.to(GPU), YUV420P8), [(0, 1)]), right) <= 1
    assert not fake.findings


def test_the_host_waits_for_finished_frames_alone(fake: Fake) -> None:
    engine = Engine(network("4.25.lite", GPU), YUV420P8)
    run(engine)
    fake.host_waits.clear()
    frames = run(engine)
    assert fake.host_waits == {"event": len(frames)}


@pytest.mark.parametrize(
    ("kind", "owner", "name"), [("race", Stream, "wait_stream"), ("lifetime", FakeTensor, "record_stream")]
)
def test_a_missing_order_is_found(
    kind: str, owner: type, name: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake device sees what the other tests rely on it to see."""
    monkeypatch.setattr(owner, name, lambda *_: None)
    run(Engine(network("4.25.lite", GPU), YUV420P8))
    assert kind in {found for found, _ in fake.findings}


def at_once(engines: Sequence[Engine]) -> list[list[Planes]]:
    """The frames of each, all begun together on threads as filters have them."""
    barrier = threading.Barrier(len(engines))

    def work(engine: Engine) -> list[Planes]:
        barrier.wait()
        return run(engine)

    with ThreadPoolExecutor(len(engines)) as pool:
        return list(pool.map(work, engines))


@pytest.mark.parametrize("mode", ["plain", "graph"])
@pytest.mark.parametrize("devices", [(GPU, GPU), (GPU, GPU1)], ids=["one device", "two devices"])
@pytest.mark.filterwarnings("ignore:.*Triton is missing")
def test_two_filters_at_once(
    mode: str, devices: Sequence[torch.device], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their frames are right, and convolutions run on one thread for each device."""
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, mode)
    monkeypatch.setattr(dispatch, "kernels_problem", lambda _device: "Triton is missing")
    for frames in at_once([Engine(network("4.25.lite", device), YUV420P8) for device in devices]):
        check(frames)
    assert len(fake.cudnn_threads) == len(set(devices))
    assert not fake.findings


def test_filters_in_turn_use_one_thread(fake: Fake) -> None:
    """So the second finds what cuDNN has chosen for the first; each comes on a thread of its own, as after a seek."""
    net = network("4.25.lite", GPU)
    for _ in range(2):
        (frames,) = at_once([Engine(net, YUV420P8)])
        check(frames)
    assert len(fake.cudnn_threads) == 1


@pytest.mark.usefixtures("fake")
def test_streams_are_shared_by_the_filters_of_a_device() -> None:
    assert transfer_for(GPU) is transfer_for(GPU)


@pytest.mark.usefixtures("fake")
def test_errors_reach_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_on(GPU, lambda: 1 / 0, lambda: None)
    assert run_on(GPU, lambda: 7, lambda: None) == 7


@pytest.mark.usefixtures("fake")
def test_a_lost_device_says_what_to_do() -> None:
    def illegal_address() -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")

    with pytest.raises(DeviceError, match=r"illegal memory access was encountered'; .* set VSRIFE_CUDA=plain"):
        run_on(GPU, illegal_address, lambda: None)


def test_out_of_memory(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair is computed again, with nothing cached; nothing is left on another stream."""
    real, failures = pyramid.estimate, [torch.OutOfMemoryError("out of memory")]

    def fails_once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args)

    monkeypatch.setattr(pyramid, "estimate", fails_once)
    check(run(Engine(network("4.25.lite", GPU), YUV420P8)))
    assert not fake.findings
