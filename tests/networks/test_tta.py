"""Test-time augmentation: against a plain full-resolution version in float64, and by what it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.clips import equal, pan, planes_of
from tests.golden import frame_pair, tensors
from tests.golden.legacy import LegacyCase, averaged_cases, legacy_output, legacy_tensors, own_averaged_cases
from vsrife import RIFE
from vsrife.networks import legacy, pyramid, tta
from vsrife.networks.catalogue import MODELS
from vsrife.networks.fold import FoldedNet, fold
from vsrife.networks.ifnet import IFNet, swap, warp_by_flow
from vsrife.networks.tta import ORIENTATIONS, UPRIGHT, Averaging, Orientation

SIZE = 64, 128  # aligned for the layouts below, and not square


def net_of(version: str, *, ensemble: bool = False) -> FoldedNet:
    return fold(MODELS[version].layout, tensors(version), ensemble=ensemble, dtype=torch.float64)


def estimate(
    net: FoldedNet,
    frames: tuple[Tensor, Tensor],
    timestep: float,
    orientations: tuple[Orientation, ...],
    *,
    temporal: bool,
) -> tuple[Tensor, Tensor]:
    """Flow and mask at every pixel."""
    prepared = [
        [pyramid.encode(net, orientation.turn(frame).contiguous()) for orientation in orientations] for frame in frames
    ]
    field = tta.estimate(net, prepared[0], prepared[1], timestep, Averaging(orientations, temporal))
    return field.flow(), field.mask(*field.size)


def plain(
    version: str,
    frames: tuple[Tensor, Tensor],
    timestep: float,
    orientations: tuple[Orientation, ...],
    *,
    temporal: bool,
) -> tuple[Tensor, Tensor]:
    """The same on the published blocks: every orientation from the mean of all after each block, at full resolution."""
    layout = MODELS[version].layout
    net = IFNet(layout).double()
    net.load_state_dict(tensors(version))
    passes = [
        (orientation, reverse) for orientation in orientations for reverse in ((False, True) if temporal else (False,))
    ]
    flow = mask = torch.empty(0)
    carried: list[Tensor] = []
    for index, scale in enumerate(layout.scale_list(1.0)):
        answers = []
        for number, (orientation, reverse) in enumerate(passes):
            pair = tuple(orientation.turn(frame) for frame in (reversed(frames) if reverse else frames))
            heads = tuple(net.encode(frame) for frame in pair) if layout.head else tuple(f[:, :0] for f in pair)
            time = torch.full_like(pair[0][:, :1], 1 - timestep if reverse else timestep)
            pair = tuple(frame.clamp(0, 1) for frame in pair)
            own_flow = previous = None
            if index:
                own_flow, own_mask = orientation.turn_flow(flow), orientation.turn(mask)
                own_flow, own_mask = (swap(own_flow), -own_mask) if reverse else (own_flow, own_mask)
                halves = (own_flow[:, :2], own_flow[:, 2:])
                pair, heads = (tuple(map(warp_by_flow, images, halves)) for images in (pair, heads))
                previous = own_mask, carried[number]
            delta, new, features = net._block(index, (*pair, *heads), time, previous, own_flow, scale, False)
            delta, new = orientation.turn_flow_back(delta), orientation.turn_back(new)
            answers.append(((swap(delta), -new) if reverse else (delta, new), features))
        carried = [features for _, features in answers]
        delta, new = (torch.stack(maps).mean(0) for maps in zip(*(maps for maps, _ in answers), strict=True))
        flow = flow + delta if index else delta
        mask = mask + new if index and layout.mask_accumulates else new
    return flow, mask


def frames_of(height: int, width: int) -> tuple[Tensor, Tensor]:
    a, b = frame_pair(height, width)
    return a.double(), b.double()


@pytest.mark.parametrize("version", ["4.2", "4.6", "4.25"])
@pytest.mark.parametrize("modes", ["spatial", "temporal", "both"])
@torch.inference_mode()
def test_equals_the_plain_version(version: str, modes: str) -> None:
    frames = frames_of(*SIZE)
    orientations = (UPRIGHT,) if modes == "temporal" else ORIENTATIONS
    flow, mask = estimate(net_of(version), frames, 0.3, orientations, temporal=modes != "spatial")
    expected_flow, expected_mask = plain(version, frames, 0.3, orientations, temporal=modes != "spatial")
    assert (flow - expected_flow).abs().max() < 1e-9
    assert (mask - expected_mask).abs().max() < 1e-9


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@torch.inference_mode()
def test_a_turned_pair_gives_the_turned_answer(orientation: Orientation) -> None:
    """Which no network does by itself."""
    net, frames = net_of("4.25"), frames_of(*SIZE)
    turned = orientation.turn(frames[0]).contiguous(), orientation.turn(frames[1]).contiguous()
    flow, mask = estimate(net, frames, 0.5, ORIENTATIONS, temporal=False)
    flow_of_turned, mask_of_turned = estimate(net, turned, 0.5, ORIENTATIONS, temporal=False)
    assert (orientation.turn_flow(flow) - flow_of_turned).abs().max() < 1e-9
    assert (orientation.turn(mask) - mask_of_turned).abs().max() < 1e-9
    if orientation != UPRIGHT:
        alone, _ = estimate(net, frames, 0.5, (UPRIGHT,), temporal=False)
        alone_of_turned, _ = estimate(net, turned, 0.5, (UPRIGHT,), temporal=False)
        assert (orientation.turn_flow(alone) - alone_of_turned).abs().max() > 1e-3


@torch.inference_mode()
def test_the_reversed_pair_gives_the_exchanged_answer() -> None:
    net, (first, second) = net_of("4.25"), frames_of(*SIZE)
    flow, mask = estimate(net, (first, second), 0.3, (UPRIGHT,), temporal=True)
    flow_back, mask_back = estimate(net, (second, first), 0.7, (UPRIGHT,), temporal=True)
    assert (swap(flow) - flow_back).abs().max() < 1e-9
    assert (mask + mask_back).abs().max() < 1e-9


@torch.inference_mode()
def test_temporal_is_the_ensemble_where_that_exists() -> None:
    frames = frames_of(*SIZE)
    flow, mask = estimate(net_of("4.6"), frames, 0.3, (UPRIGHT,), temporal=True)
    net = net_of("4.6", ensemble=True)
    source0, source1 = (pyramid.encode(net, frame) for frame in frames)
    field = pyramid.estimate(net, source0, source1, 0.3)
    assert (flow - field.flow()).abs().max() < 1e-9
    assert (mask - field.mask(*field.size)).abs().max() < 1e-9


def assert_equals_ncnn(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    net = legacy.load(case.layout, legacy_tensors(case.version))
    width, height = case.layout.padded(case.width, case.height, 1.0)
    averaging = Averaging(ORIENTATIONS if case.tta else (UPRIGHT,), case.temporal)
    padded = (F.pad(frame, (0, width - case.width, 0, height - case.height)) for frame in case.frames)
    sources = [
        [net.encode(orientation.turn(frame).contiguous()) for orientation in averaging.orientations] for frame in padded
    ]
    found = tta.estimate_legacy(net, sources[0], sources[1], case.timestep, averaging)
    assert found.image is not None
    got = found.image[0, :, : case.height, : case.width]
    assert (got - legacy_output(case, request)).abs().max() <= 2e-4, case.key


@pytest.mark.parametrize("case", own_averaged_cases(), ids=lambda case: case.key)
@torch.inference_mode()
def test_older_models_equal_rife_ncnn_vulkan(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    assert_equals_ncnn(case, request)


@torch.inference_mode()
def test_older_models_equal_rife_ncnn_vulkan_in_each_mode(golden_data: Path, request: pytest.FixtureRequest) -> None:
    cases = averaged_cases(golden_data / "legacy")
    assert len(cases) == 10
    for case in cases:
        assert_equals_ncnn(case, request)


def test_the_filter_averages() -> None:
    """Differently from a plain run, and the same at every access, also for odd sizes."""
    clip = pan(3, 66, 50)
    plain_run = planes_of(RIFE(clip, device="cpu"), 1)
    spatial = RIFE(clip, device="cpu", tta=True)
    shown = [planes_of(spatial, n) for n in (3, 1)]
    again = RIFE(clip, device="cpu", tta=True)
    assert [equal(planes_of(again, n), planes) for n, planes in ((1, shown[1]), (3, shown[0]))] == [True, True]
    assert not equal(shown[1], plain_run)
