"""Moving pictures from a few pictures: animated GIF, WebP and PNG, and short videos without sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image

from vsrife.errors import MediaError, OptionError
from vsrife.files import atomic_write
from vsrife.images.files import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class _Animation:
    """A picture format that holds several frames.

    Attributes:
        name: Pillow's.
        tick_ms: unit of durations.
        options: for `Image.save`.
    """

    name: str
    tick_ms: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Video:
    """A video format.

    Attributes:
        container: FFmpeg's name.
        encoder: FFmpeg's name.
        options: of the encoder.
    """

    container: str
    encoder: str
    options: Mapping[str, str]


_X264 = {"crf": "14", "preset": "slow"}
_VP9 = {"crf": "18", "b": "0"}
_FORMATS: Mapping[str, _Animation | _Video] = {
    ".gif": _Animation(name="GIF", tick_ms=10, options={"disposal": 2, "optimize": False}),
    ".webp": _Animation(name="WEBP", tick_ms=1, options={"lossless": True}),
    ".apng": _Animation(name="PNG", tick_ms=1, options={}),
    ".png": _Animation(name="PNG", tick_ms=1, options={}),
    ".mp4": _Video(container="mp4", encoder="libx264", options=_X264),
    ".m4v": _Video(container="mp4", encoder="libx264", options=_X264),
    ".mov": _Video(container="mov", encoder="libx264", options=_X264),
    ".mkv": _Video(container="matroska", encoder="libx264", options=_X264),
    ".webm": _Video(container="webm", encoder="libvpx-vp9", options=_VP9),
}
ANIMATION_SUFFIXES = tuple(_FORMATS)
MOVING_SUFFIXES = tuple(s for s in _FORMATS if s not in (".png", ".webp"))  # those that are never a still picture


def check_animation(path: Path, picture: Picture) -> None:
    """Whether the format of the path's suffix can hold frames like the picture.

    Raises:
        OptionError: it cannot.
    """
    row = _FORMATS.get(path.suffix.lower())
    if row is None:
        raise OptionError(
            f"an animation or video must end in {', '.join(ANIMATION_SUFFIXES)}, got {path.name}; give one of these"
        )
    if isinstance(row, _Animation) and picture.bits > 8:
        raise OptionError(f"{row.name} animations hold 8 bits a sample, got pictures of {picture.bits}; use .mkv")
    if isinstance(row, _Video) and picture.has_alpha:
        raise OptionError(f"{path.suffix} holds no alpha here, got pictures with alpha; use .webp or .apng with --rate")


def write_animation(path: Path, pictures: Iterable[Picture], rate: Fraction, *, quality: int | None = None) -> None:
    """Write pictures one after another. The file appears when it is complete, or not at all.

    Args:
        path: its suffix chooses the format. A file that is there is replaced.
        pictures: alike, at least one; taken one at a time.
        rate: a second. Of an animated GIF times are rounded to 1/100 s, of others to 1/1000 s, without drift.
        quality: 1..100 for WebP (None: lossless).

    Raises:
        OptionError: the format cannot hold the pictures.
        MediaError: the file cannot be written.
    """
    frames = iter(pictures)
    first = next(frames)
    check_animation(path, first)
    row = _FORMATS[path.suffix.lower()]
    with atomic_write(path, error=MediaError) as part:
        try:
            if isinstance(row, _Video):
                _write_video(part, row, first, chain([first], frames), rate)
            else:
                _write_frames(part, row, first, frames, rate, quality)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{path} cannot be written, got: {error}; choose another format") from error


def _write_frames(
    part: Path, row: _Animation, first: Picture, rest: Iterator[Picture], rate: Fraction, quality: int | None
) -> None:
    frames = [first, *rest]
    ends = [round(1000 * n / rate / row.tick_ms) * row.tick_ms for n in range(len(frames) + 1)]
    durations = [after - before for before, after in pairwise(ends)]
    options: dict[str, Any] = dict(row.options) if quality is None or row.name != "WEBP" else {"quality": quality}
    if first.icc and row.name != "GIF":
        options["icc_profile"] = first.icc
    image, *others = map(_image, frames)
    image.save(part, row.name, save_all=True, append_images=others, duration=durations, loop=0, **options)


def _image(picture: Picture) -> Image.Image:
    pixels = picture.pixels
    image = Image.fromarray(pixels[..., 0] if picture.channels == 1 else pixels)
    return image.convert("RGBA") if picture.channels == 2 else image


def _write_video(part: Path, row: _Video, first: Picture, pictures: Iterable[Picture], rate: Fraction) -> None:
    """BT.709, limited range; chroma is halved where both sides are even."""
    height, width = first.pixels.shape[:2]
    chroma = "444" if height % 2 or width % 2 else "420"
    pix_fmt = f"yuv{chroma}p10le" if first.bits > 8 else f"yuv{chroma}p"
    with av.open(str(part), "w", format=row.container) as target:
        stream = target.add_stream(row.encoder, rate=rate, options=dict(row.options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 13, 1
        for number, picture in enumerate(pictures):
            frame = _video_frame(picture).reformat(
                format=pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            frame.pts, frame.time_base = number, 1 / rate
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def _video_frame(picture: Picture) -> av.VideoFrame:
    pixels = picture.pixels if picture.channels == 3 else picture.pixels.repeat(3, axis=-1)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb48le" if picture.bits > 8 else "rgb24")
