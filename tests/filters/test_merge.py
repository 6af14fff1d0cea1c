"""A time for every pixel: `vsrife.merge`, `interpolate` with an array, and the motion of clips, `vsrife.Flow`."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray

import vsrife
from tests.clips import clip_of, converted, counted_runs, duration_of, equal, pan, panned, planes_of, props_of
from tests.golden import frame_pair, tensors
from vsrife.networks import pyramid
from vsrife.networks.catalogue import LAYOUTS, MODELS
from vsrife.networks.fold import fold
from vsrife.networks.ifnet import IFNet

core = vs.core
WIDTH, HEIGHT = 96, 64
VERSION_OF = {spec.layout.id: spec.name for spec in MODELS.values()}


def ramp(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.float32]:
    """0 at the left fifth, 1 at the right fifth, rising between."""
    row = np.clip((np.linspace(0, 1, width) - 0.2) / 0.6, 0, 1).astype(np.float32)
    return np.ascontiguousarray(np.broadcast_to(row, (height, width)))


def mask_clip(times: NDArray[np.float32], fmt: str = "GRAYS", length: int = 2) -> vs.VideoNode:
    pictures = [times[..., None].repeat(3, -1)] * length
    grey = clip_of(pictures).std.ShufflePlanes(0, vs.GRAY)
    return grey if fmt == "GRAYS" else grey.resize.Point(format=getattr(vs, fmt), range_s="full", range_in_s="full")


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout_id", "scale", "ensemble"),
    [("L01", 1.0, False), ("L04", 0.5, True), ("L07", 2.0, True), ("L14", 1.0, False), ("L15", 1.0, False)],
)
@torch.inference_mode()
def test_lazy_forward_is_the_published_function(layout_id: str, scale: float, ensemble: bool) -> None:
    """The published forward takes the timestep as a plane; here the plane is a different number for every pixel."""
    layout = LAYOUTS[layout_id]
    weights = {name: tensor.double() for name, tensor in tensors(VERSION_OF.get(layout_id, layout_id)).items()}
    first, second = (frame.double() for frame in frame_pair(37, 53))
    times = torch.rand((1, 1, 37, 53), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    network = IFNet(layout).double()
    network.load_state_dict(weights)
    published = network(first, second, times, scale=scale, ensemble=ensemble)

    net = fold(layout, weights, scale=scale, ensemble=ensemble, dtype=torch.float64)
    width, height = layout.padded(53, 37, scale)
    pad = (0, width - 53, 0, height - 37)
    source0, source1 = (pyramid.encode(net, torch.nn.functional.pad(frame, pad)) for frame in (first, second))
    field = pyramid.estimate(net, source0, source1, torch.nn.functional.pad(times, pad, mode="replicate"))
    assert (field.flow()[..., :37, :53] - published.flows[-1]).abs().max() < 1e-9
    assert (field.mask(*field.size)[..., :37, :53] - published.masks[-1]).abs().max() < 1e-9


# --- arrays -----------------------------------------------------------------------------------------------------------


def test_a_constant_plane_is_the_number() -> None:
    a, b = ((panned(n, WIDTH, HEIGHT, 6) * 255).round().astype(np.uint8) for n in range(2))
    plane = vsrife.interpolate(a, b, np.full((HEIGHT, WIDTH), 0.3), device="cpu").astype(int)
    assert np.abs(plane - vsrife.interpolate(a, b, 0.3, device="cpu")).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_ramp_leads_from_one_picture_to_the_other(dtype: str) -> None:
    peak = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    a, b, truth = (panned(0, WIDTH, HEIGHT, 8), panned(1, WIDTH, HEIGHT, 8), panned(1, WIDTH, HEIGHT, 4))
    first, second = ((p * peak).round().astype(dtype) if peak > 1 else p for p in (a, b))
    times = ramp()
    got = vsrife.interpolate(first, second, times, device="cpu")
    assert np.array_equal(got[times == 0], first[times == 0])
    assert np.array_equal(got[times == 1], second[times == 1])
    middle = np.s_[8:-8, WIDTH // 2 - 3 : WIDTH // 2 + 3]
    error = np.abs(got[middle] / peak - truth[middle]).mean()
    assert error < 0.6 * np.abs((a + b)[middle] / 2 - truth[middle]).mean()


# --- merge ------------------------------------------------------------------------------------------------------------


def pans(fmt: str, length: int = 2) -> tuple[vs.VideoNode, vs.VideoNode]:
    pictures = [panned(n, WIDTH, HEIGHT, 6) for n in range(length + 1)]
    return clip_of(pictures[:length], fmt), clip_of(pictures[1:], fmt)


@pytest.mark.parametrize(
    ("fmt", "times"),
    [("YUV420P8", "GRAY8"), ("YUV422P10", "GRAYS"), ("GRAY16", "GRAY16"), ("RGB24", "GRAYS"), ("RGBS", "GRAYS"),
     ("YUV444PH", "GRAY10")],
)  # fmt: skip
def test_merge_formats(fmt: str, times: str) -> None:
    a, b = pans(fmt)
    merged = vsrife.merge(a, b, mask_clip(ramp(), times), device="cpu")
    assert (merged.format.id, merged.num_frames, merged.fps) == (a.format.id, 2, a.fps)
    got, left, right = (planes_of(clip, 1) for clip in (merged, a, b))
    for p in range(len(got)):
        part = got[p].shape[1] // 6
        assert np.array_equal(got[p][:, :part], left[p][:, :part])
        assert np.array_equal(got[p][:, -part:], right[p][:, -part:])
    assert not equal(got, left)
    assert duration_of(merged, 1) == duration_of(a, 1)


def test_merge_is_what_interpolate_makes() -> None:
    a, b = pans("RGB24", 1)
    merged = vsrife.merge(a, b, mask_clip(ramp(), length=1), device="cpu")
    first, second = (np.dstack(planes_of(clip, 0)) for clip in (a, b))
    assert np.array_equal(np.dstack(planes_of(merged, 0)), vsrife.interpolate(first, second, ramp(), device="cpu"))


def test_merge_computes_nothing_without_need() -> None:
    a, b = pans("YUV420P8")
    for value, expected in ((0.0, a), (1.0, b)):
        mask = mask_clip(np.full((HEIGHT, WIDTH), value, np.float32))
        with counted_runs() as runs:
            assert equal(planes_of(vsrife.merge(a, b, mask, device="cpu"), 1), planes_of(expected, 1))
        assert not runs
    marked = a.std.SetFrameProps(who="a")
    assert props_of(vsrife.merge(marked, b, mask, device="cpu"), 0)["who"] == "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_b": converted(pan(2, WIDTH, HEIGHT, "RGBS"), "YUV444P8")},
         "merge: clip_b must be like clip_a, YUV420P8 96x64, got YUV444P8 96x64; convert it"),
        ({"clip_b": pan(2, WIDTH, 32)}, "merge: clip_b must be like clip_a, YUV420P8 96x64, got YUV420P8 96x32"),
        ({"clip_b": pan(3, WIDTH, HEIGHT)}, "merge: clip_b must have the 2 frames of clip_a, got 3; trim or loop it"),
        ({"mask": pan(2, WIDTH, HEIGHT)}, "merge: mask must be GRAY of 96x64, got YUV420P8 96x64; convert it"),
        ({"mask": mask_clip(ramp(64, 64))}, "merge: mask must be GRAY of 96x64, got GrayS 64x64; convert it"),
        ({"mask": mask_clip(ramp(), length=1)}, "merge: mask must have the 2 frames of clip_a, got 1; trim or loop it"),
        ({"mask": core.std.BlankClip(format=vs.GRAY32, width=WIDTH, height=HEIGHT, length=2)},
         "merge: mask: clip must have 8 to 16 bit or float samples, got Gray32"),
        ({"clip_a": None}, "merge: clip must be a video node, got NoneType; pass what a source filter returned"),
        ({"scale": 3}, "merge: scale must be 0.25, 0.5, 1, 2 or 4, got 3"),
        ({"model": "0.1"}, "merge: "),
    ],
)  # fmt: skip
def test_merge_refusals(change: dict[str, Any], message: str) -> None:
    arguments = {
        "clip_a": pan(2, WIDTH, HEIGHT), "clip_b": pan(2, WIDTH, HEIGHT), "mask": mask_clip(ramp()), "device": "cpu",
    }  # fmt: skip
    with pytest.raises(vs.Error, match=re.escape(message)):
        vsrife.merge(**(arguments | change))


# --- motion of clips --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["YUV420P8", "RGBS", "GRAY16"])
def test_flow_of_a_clip(fmt: str) -> None:
    """The texture moves left by 4 pixels a frame: forward -4, back 4; the last frame has no next one."""
    clip = clip_of([panned(n, WIDTH, HEIGHT, 4) for n in range(3)], fmt)
    flow = vsrife.Flow(clip, device="cpu")
    for found, x in ((flow.forward, -4), (flow.backward, 4)):
        assert (found.format.id, found.width, found.height) == (vs.RGBS, WIDTH, HEIGHT)
        assert (found.num_frames, found.fps) == (3, clip.fps)
        dx, dy, own = (plane[12:-12, 12:-12] for plane in planes_of(found, 1))
        assert np.abs(dx - x).mean() < 2
        assert np.abs(dy).mean() < 1
        assert abs(float(own.mean()) - 0.5) < 0.1
        assert not planes_of(found, 2)[0].any()
        assert duration_of(found, 1) == duration_of(clip, 1)


def test_flow_of_a_clip_is_that_of_its_pictures() -> None:
    clip = clip_of([panned(n, WIDTH, HEIGHT, 4) for n in range(2)], "RGB24")
    with counted_runs() as runs:
        flow = vsrife.Flow(clip, device="cpu")
        forward, backward = planes_of(flow.forward, 0), planes_of(flow.backward, 0)
    assert len(runs) == 1
    a, b = (np.dstack(planes_of(clip, n)) for n in range(2))
    assert np.abs(np.dstack(forward[:2]) - vsrife.flow(a, b, 0, device="cpu").to_b).max() < 1e-3
    assert np.abs(np.dstack(backward[:2]) - vsrife.flow(a, b, 1, device="cpu").to_a).max() < 1e-3
    with pytest.raises(vs.Error, match="Flow: clip must be a video node, got str; pass what a source filter returned"):
        vsrife.Flow("clip")
