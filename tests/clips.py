"""Synthetic clips for tests of the filter, and ways to read and compare frames."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray

import vsrife.filters.rife
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download
from vsrife.networks import pyramid
from vsrife.networks.fold import FoldedNet
from vsrife.networks.tta import Averaging

core = vs.core
RGBPicture = NDArray[np.float32]
NEXT, PREV = "_SceneChangeNext", "_SceneChangePrev"


def video_format(name: str) -> vs.VideoFormat:
    """A format by a name such as "YUV420P9", "GRAY12" or "RGBH", also those without a preset."""
    preset = getattr(vs, name, None)
    if preset is not None:
        return core.get_video_format(preset)
    family = next(f for f in ("YUV", "GRAY", "RGB") if name.startswith(f))
    subsampling = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "410": (2, 2), "411": (2, 0)}
    width, height = subsampling[name[3:6]] if family == "YUV" else (0, 0)
    depth = name.removeprefix(family).split("P")[-1] if family == "YUV" else name.removeprefix(family)
    sample = {"H": (vs.FLOAT, 16), "S": (vs.FLOAT, 32)}.get(depth) or (vs.INTEGER, int(depth))
    return core.query_video_format(getattr(vs, family), *sample, width, height)


# --- pictures ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def texture(width: int, height: int, seed: int = 0, finest_px: int = 4) -> RGBPicture:
    """A smooth random picture, (height, width, 3), 0.1..0.9, with detail from `finest_px` to 32 pixels."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    cell = 32
    while cell >= finest_px:
        rows, columns = height // cell + 2, width // cell + 2
        grid = torch.from_numpy(random.standard_normal((1, 3, rows, columns)))
        size = (rows * cell, columns * cell)
        fine = torch.nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
        total += fine[0, :, :height, :width].permute(1, 2, 0).numpy() * cell**0.5
        cell //= 2
    total -= total.min()
    result: RGBPicture = (0.1 + 0.8 * total / total.max()).astype(np.float32)
    result.flags.writeable = False
    return result


def panned(n: int, width: int, height: int, step_px: int = 2, seed: int = 0) -> RGBPicture:
    """Frame n of a texture that moves left by `step_px` a frame."""
    wide = texture(width + 64, height, seed)
    left = n * step_px % 64
    return wide[:, left : left + width]


# --- clips ------------------------------------------------------------------------------------------------------------


def clip_of(
    pictures: Sequence[RGBPicture],
    fmt: str = "RGBS",
    *,
    fps: tuple[int, int] = (24, 1),
    matrix: str = "709",
    full_range: bool | None = None,
) -> vs.VideoNode:
    """A clip of RGB pictures (height, width, 3), converted to a format."""
    height, width = pictures[0].shape[:2]

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        result = f.copy()
        for plane in range(3):
            np.asarray(result[plane])[:] = pictures[n][..., plane]
        return result

    num, den = fps
    blank = core.std.BlankClip(
        width=width, height=height, format=vs.RGBS, length=len(pictures), fpsnum=num, fpsden=den, keep=True
    )
    return converted(blank.std.ModifyFrame([blank], fill), fmt, matrix, full_range)


def converted(clip: vs.VideoNode, fmt: str, matrix: str = "709", full_range: bool | None = None) -> vs.VideoNode:
    """An RGBS clip in another format."""
    target = video_format(fmt)
    if target.id == vs.RGBS:
        return clip
    extra: dict[str, Any] = {} if target.color_family == vs.RGB else {"matrix_s": matrix}
    if full_range is not None:
        extra["range"] = vs.RANGE_FULL if full_range else vs.RANGE_LIMITED
    return clip.resize.Bilinear(format=target.id, **extra)


def pan(
    length: int = 6, width: int = 64, height: int = 64, fmt: str = "YUV420P8", *, seed: int = 0, **options: Any
) -> vs.VideoNode:
    """A clip in which everything moves left by 2 pixels a frame."""
    return clip_of([panned(n, width, height, seed=seed) for n in range(length)], fmt, **options)


def scene(seed: int, length: int) -> list[RGBPicture]:
    """Moving pictures of strong contrast."""
    pictures = [panned(n, 128, 64, seed=seed) for n in range(length)]
    return [np.clip(0.5 + (picture - 0.5) * 4, 0, 1).astype(np.float32) for picture in pictures]


def spliced(*lengths: int, fmt: str = "YUV420P8") -> vs.VideoNode:
    """Scenes of these lengths, 3 and 3 if none are given, with cuts between them."""
    scenes = [scene(100 + i, length) for i, length in enumerate(lengths or (3, 3))]
    return clip_of([picture for pictures in scenes for picture in pictures], fmt)


def counting(length: int, fps: tuple[int, int] = (24, 1)) -> vs.VideoNode:
    """A 16x16 GRAYS clip whose frame n is n everywhere. With the `linear` fixture, output shows its source position."""
    num, den = fps
    blank = core.std.BlankClip(width=16, height=16, format=vs.GRAYS, length=length, fpsnum=num, fpsden=den, keep=True)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        result = f.copy()
        np.asarray(result[0])[:] = n
        result.props["source"] = n
        return result

    return blank.std.ModifyFrame([blank], fill)


def with_props(clip: vs.VideoNode, props_of: Callable[[int], Mapping[str, Any]]) -> vs.VideoNode:
    """The clip with more props on each frame; a value of None deletes one."""

    def write(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        result = f.copy()
        for key, value in props_of(n).items():
            if value is not None:
                result.props[key] = value
            elif key in result.props:
                del result.props[key]
        return result

    return clip.std.ModifyFrame([clip], write)


def without_rate(clip: vs.VideoNode) -> vs.VideoNode:
    """The same frames in a clip of rate 0/0, as players hand over."""
    blank = clip.std.BlankClip(fpsnum=0, fpsden=1, keep=True)
    return blank.std.ModifyFrame([clip], lambda n, f: f)  # noqa: ARG005


def durations_of(durations: Sequence[Fraction]) -> Callable[[int], Mapping[str, Any]]:
    """For `with_props`: the duration of each frame."""
    return lambda n: {"_DurationNum": durations[n].numerator, "_DurationDen": durations[n].denominator}


# --- frames -----------------------------------------------------------------------------------------------------------


def planes_of(clip: vs.VideoNode, n: int) -> list[NDArray[Any]]:
    """Copies of the planes of frame n."""
    with clip.get_frame(n) as frame:
        return [np.array(frame[p]) for p in range(frame.format.num_planes)]


def props_of(clip: vs.VideoNode, n: int) -> dict[str, Any]:
    with clip.get_frame(n) as frame:
        return dict(frame.props)


def duration_of(clip: vs.VideoNode, n: int) -> Fraction:
    props = props_of(clip, n)
    return Fraction(props["_DurationNum"], props["_DurationDen"])


def value_of(clip: vs.VideoNode, n: int) -> float:
    """The first sample of frame n."""
    return float(planes_of(clip, n)[0][0, 0])


def equal(a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]]) -> bool:
    """Whether all planes are equal, bit for bit."""
    return len(a) == len(b) and all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def psnr_db(a: NDArray[Any], b: NDArray[Any], peak: float) -> float:
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return 10 * float(np.log10(peak * peak / max(error, 1e-12)))


def marks(clip: vs.VideoNode) -> dict[str, list[int]]:
    """The frames that have each scene change prop set to 1."""
    found: dict[str, list[int]] = {NEXT: [], PREV: []}
    for n in range(clip.num_frames):
        props = props_of(clip, n)
        for key, frames in found.items():
            if props.get(key):
                frames.append(n)
    return found


# --- instead of the network -------------------------------------------------------------------------------------------


class LinearEngine:
    """In place of `Engine`: mixes the planes, so that the position of a frame can be read off a counting clip."""

    def __init__(
        self,
        net: FoldedNet,
        fmt: PictureFormat,
        capacity: int = 3,
        carried: Sequence[PictureFormat] = (),
        _: Averaging | None = None,
    ) -> None:
        self.net, self.fmt, self.capacity, self.carried = net, fmt, capacity, carried

    def interpolate(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float,
        interrupt: Callable[[], None] = lambda: None,  # noqa: ARG002
    ) -> Download | None:
        before, after = (
            [np.asarray(plane) for part in (p, *p.carried) for plane in part.planes] for p in (left, right)
        )
        mixed = [
            np.asarray(a * (1 - timestep) + b * timestep, dtype=a.dtype) for a, b in zip(before, after, strict=True)
        ]
        return Download(tuple(map(torch.from_numpy, mixed)))


@contextmanager
def linear_engine() -> Iterator[None]:
    """Filters made inside mix frames linearly instead of running the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsrife.filters.rife, "Engine", LinearEngine)
        yield


@contextmanager
def counted_runs() -> Iterator[list[float]]:
    """The timesteps for which the network ran."""
    gc.collect()  # ends what other filters still work on ahead
    runs: list[float] = []
    real = pyramid.estimate

    def estimate(
        net: FoldedNet, a: pyramid.Features, b: pyramid.Features, timestep: float, *rest: Any
    ) -> pyramid.Field:
        runs.append(timestep)
        return real(net, a, b, timestep, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "estimate", estimate)
        yield runs
