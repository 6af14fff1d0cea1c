"""Frames by models before 4.x: at any time, in any format."""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

from tests.clips import equal, pan, planes_of, psnr_db, texture
from tests.golden.legacy import (
    legacy_output,
    legacy_tensors,
    own_cases,
    small_net,
)
from vsrife import interpolate
from vsrife.arrays import flow
from vsrife.engine import legacy as engine_legacy
from vsrife.engine.cache import Cache
from vsrife.engine.color import difference_in_planes, to_rgb
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.legacy import MIDPOINTS_KEPT, frame_at, reachable
from vsrife.engine.sources import InputFrame
from vsrife.errors import OptionError
from vsrife.networks.legacy import LegacyNet

LARGEST_ERROR = 2e-4  # float32 on any CPU against float32 on the authors' code; values in 0..1

# --- recursive midpoints ----------------------------------------------------------------------------------------------


def test_times_that_are_reached() -> None:
    assert [reachable(t) for t in (0.5, 0.25, 3 / 8, 1 / 1024)] == [Fraction(t) for t in (0.5, 0.25, 3 / 8, 1 / 1024)]
    assert reachable(1 / 3) == Fraction(21, 64)
    assert [reachable(t) for t in (0.001, 0.999)] == [0, 1]
    assert max(abs(reachable(n / 1001) - Fraction(n, 1001)) for n in range(1, 1001)) <= Fraction(1, 128)


@pytest.mark.parametrize("parts", [2, 8, 64])
@pytest.mark.parametrize("step", [1, -1])
def test_every_frame_of_a_pair_is_made_once(parts: int, step: int) -> None:
    """With a line for a clip, a frame is its own time: it is right, and few are kept."""
    made: list[Fraction] = []

    def midpoint(before: Fraction, after: Fraction, _key: Hashable, _read_again: bool) -> Fraction:
        made.append((before + after) / 2)
        return made[-1]

    cache = Cache(2)
    for n in range(1, parts)[::step]:
        time = Fraction(n, parts)
        assert frame_at(cache, Fraction(0), Fraction(1), "pair", time, midpoint) == time
        assert len(cache.keys("midpoint")) <= MIDPOINTS_KEPT
    assert sorted(made) == [Fraction(n, parts) for n in range(1, parts)]


def engine_pair(fmt: str = "RGBS", width: int = 70, height: int = 46) -> tuple[PictureFormat, list[InputFrame]]:
    clip = pan(2, width, height, fmt)
    known = clip.format
    floating = known.sample_type == vs.FLOAT
    family: Any = known.color_family.name
    picture_format = PictureFormat(
        family, known.bits_per_sample, floating, width, height, known.subsampling_w, known.subsampling_h
    )
    color = Colorimetry(matrix=1, full_range=family == "RGB", chroma_location=0)
    return picture_format, [InputFrame(n, planes_of(clip, n), color) for n in range(2)]


@torch.inference_mode()
def test_a_quarter_is_the_middle_of_unrounded_padded_middles() -> None:
    net = small_net("E07")
    fmt, pictures = engine_pair()
    first, second = (
        torch.nn.functional.pad(torch.from_numpy(np.stack(p.planes))[None], (0, 96 - 70, 0, 64 - 46)) for p in pictures
    )
    middle = net(first, second)
    expected = net(first, middle)[0, :, :46, :70]
    got = Engine(net, fmt).interpolate(pictures[0], pictures[1], 0.25, out="device")
    assert got is not None
    assert (torch.stack(got) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("layout_id", ["E05", "E07"])
@pytest.mark.parametrize("fmt", ["YUV420P8", "RGBS"])
def test_order_of_requests_does_not_matter(layout_id: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net(layout_id)
    picture_format, (left, right) = engine_pair(fmt)
    times = [n / 4 for n in range(1, 4)] + [1 / 3]

    def frames(order: list[float], engine: Engine) -> dict[float, list[NDArray[Any]]]:
        return {t: [p.numpy() for p in engine.interpolate(left, right, t, out="device") or ()] for t in order}

    linear = frames(times, Engine(net, picture_format))
    shuffled = random.Random(1).sample(times, len(times))
    for kept in (MIDPOINTS_KEPT, 1):
        monkeypatch.setattr(engine_legacy, "MIDPOINTS_KEPT", kept)
        again = frames(shuffled, Engine(net, picture_format))
        assert all(equal(linear[t], again[t]) for t in times)
    assert not equal(linear[0.25], linear[0.5])


def test_rounded_times_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    engine_legacy.warn_inexact.cache_clear()
    fmt, (left, right) = engine_pair()
    engine = Engine(small_net("E05"), fmt)
    with caplog.at_level(logging.WARNING, logger="vsrife"):
        engine.interpolate(left, right, 0.25, out="device")
        assert not caplog.records
        engine.interpolate(left, right, 1 / 3, out="device")
        engine.interpolate(left, right, 0.3, out="device")
    assert len(caplog.records) == 1
    assert "exactly for powers of two and otherwise to the nearest 1/64 of a frame" in caplog.text


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_arrays_give_the_published_picture(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    case = next(case for case in own_cases() if case.key == "3.8_45x70_t0.5")
    path = tmp_path / "flownet.pkl"
    torch.save(legacy_tensors("3.8"), path)
    a, b = (frame[0].permute(1, 2, 0).numpy() for frame in case.frames)
    got = interpolate(a, b, model=path, precision="fp32")
    assert np.abs(got.transpose(2, 0, 1) - legacy_output(case, request).numpy()).max() <= LARGEST_ERROR
    found = flow(a, b, model=path)
    assert found.to_a.shape == (45, 70, 2)
    with pytest.raises(OptionError, match=r"timestep must be 0\.5 for the motion of 3\.8 .*, got 0\.3; models from"):
        flow(a, b, 0.3, model=path)
    with pytest.raises(OptionError, match=r"timestep must be one number for 3\.8 .*, got one for every pixel"):
        interpolate(a, b, np.full((45, 70), 0.5, np.float32), model=path)
    with pytest.raises(OptionError, match=r"ensemble must be False for models before 4\.x, got True for flownet"):
        interpolate(a, b, model=path, ensemble=True)


def test_a_time_for_every_pixel_where_the_network_takes_a_time() -> None:
    fmt, (left, right) = engine_pair()
    engine = Engine(small_net("E08"), fmt)
    times = torch.full((46, 70), 0.3)
    times[:, :10], times[:, 60:] = 0, 1
    got, uniform = (
        engine.interpolate(left, right, times, out="device"),
        engine.interpolate(left, right, 0.3, out="device"),
    )
    assert got is not None
    assert uniform is not None
    for plane, before, after in zip(got, left.planes, right.planes, strict=True):
        assert (plane[:, :10] - torch.as_tensor(before)[:, :10]).abs().max() <= 1e-6
        assert (plane[:, 60:] - torch.as_tensor(after)[:, 60:]).abs().max() <= 1e-6
    same = engine.interpolate(left, right, torch.full((46, 70), 0.3), out="device")
    assert same is not None
    assert all((a - b).abs().max() <= 1e-6 for a, b in zip(same, uniform, strict=True))


@pytest.mark.parametrize("layout_id", ["E01", "E04", "E05", "E08"])
def test_native_planes_show_the_published_picture(layout_id: str) -> None:
    """8-bit RGB is the published picture, rounded; YUV is near it: what the refinement adds is converted."""
    net = small_net(layout_id)
    published, rounded, yuv = (halfway(net, *engine_pair(fmt)) for fmt in ("RGBS", "RGB24", "YUV444P16"))
    expected = torch.stack(published).clamp(0, 1).numpy()
    inner = np.s_[:, 12:-12, 12:-12]  # at the border the network sees zeros, native planes do not
    assert psnr_db(torch.stack(rounded).numpy()[inner] / 255, expected[inner], 1.0) > 40
    fmt, (picture, _) = engine_pair("YUV444P16")
    seen = to_rgb([plane[None, None] for plane in yuv], fmt, picture.color)[0].clamp(0, 1).numpy()
    assert psnr_db(seen[inner], expected[inner], 1.0) > 34


def halfway(net: LegacyNet, fmt: PictureFormat, pair: list[InputFrame]) -> tuple[Tensor, ...]:
    planes = Engine(net, fmt).interpolate(pair[0], pair[1], 0.5, out="device")
    assert planes is not None
    return planes


@pytest.mark.parametrize("matrix", [1, 6, 8, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_difference_of_rgb_in_planes(matrix: int, full_range: bool) -> None:
    """Added to the planes, it is added to what the network sees of them."""
    fmt = PictureFormat("YUV", 12, False, 16, 8)
    color = Colorimetry(matrix, full_range, 0)
    generator = torch.Generator().manual_seed(1)
    planes = [torch.rand(1, 1, 8, 16, generator=generator) * fmt.peak for _ in range(3)]
    difference = torch.rand(1, 3, 8, 16, generator=generator) - 0.5
    more = difference_in_planes(difference, fmt, color)
    changed = to_rgb([a + b for a, b in zip(planes, more, strict=True)], fmt, color)
    assert (changed - to_rgb(planes, fmt, color) - difference).abs().max() <= 1e-4


@pytest.mark.parametrize("layout_id", ["E05", "E07"])
def test_what_stands_still_keeps_its_codes(layout_id: str) -> None:
    """The left half is equal in both, but for where the flow reaches over."""
    fmt, (left, right) = engine_pair("YUV420P8")
    fmt = replace(fmt, width=256, height=32)
    still, moved = (rgb_codes(texture(256, 64, seed)[:32]) for seed in (1, 2))
    after = [plane.copy() for plane in still]
    for plane, other in zip(after, moved, strict=True):
        plane[:, -plane.shape[1] // 4 :] = other[:, -plane.shape[1] // 4 :]
    pair = InputFrame(0, still, left.color), InputFrame(1, after, right.color)
    got = Engine(small_net(layout_id), fmt).interpolate(*pair, 0.25, out="device")
    assert got is not None
    for made, before in zip(got, still, strict=True):
        plane = made.numpy()
        assert np.array_equal(plane[:, : plane.shape[1] // 4], before[:, : before.shape[1] // 4])
    assert not np.array_equal(got[0].numpy(), still[0])


def rgb_codes(picture: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """Codes that serve as planes of 4:2:0."""
    codes = (picture * 255).astype(np.uint8)
    return [codes[..., 0].copy(), codes[::2, ::2, 1].copy(), codes[::2, ::2, 2].copy()]
