"""Animated GIF, WebP and PNG, and short silent videos, from pictures in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
from vsrife.images.files import Picture, PictureHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class _Animation:
    """A picture format that holds several frames.

    Attributes:
        name: in Pillow.
        tick_ms: unit of durations.
        options: of `Image.save`.
    """

    name: str
    tick_ms: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Video:
    """A video format.

    Attributes:
        container: name in FFmpeg.
        encoder: name in FFmpeg.
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
MOVING_SUFFIXES = tuple(s for s in _FORMATS if s not in (".png", ".webp"))  # never a still picture
VIDEO_ANIMATION_SUFFIXES = (".gif", ".webp", ".apng")  # animations that a video may become
_MOST_BYTES = 2**32  # of pixels: Pillow holds all frames in memory


def check_animation(path: Path, header: PictureHeader, frames: int = 1) -> None:
    """Check that the format of the path's suffix can hold so many pictures like this.

    Raises:
        OptionError: it cannot.
    """
    row = _FORMATS.get(path.suffix.lower())
    if row is None:
        raise OptionError(
            f"an animation or video must end in {', '.join(ANIMATION_SUFFIXES)}, got {path.name}; give one of these"
        )
    if isinstance(row, _Animation) and header.bits > 8:
        raise OptionError(f"{row.name} animations hold 8 bits a sample, got pictures of {header.bits}; use .mkv")
    if isinstance(row, _Video) and header.has_alpha:
        raise OptionError(
            f"{path.suffix} cannot hold alpha here, got pictures with alpha; use .webp or .apng with --rate"
        )
    needed = frames * header.width * header.height * header.channels
    if isinstance(row, _Animation) and needed > _MOST_BYTES:
        raise OptionError(
            f"{row.name} animations are made in memory, got {frames} frames of {header.size} ({needed / 2**30:.1f} "
            f"GiB, at most {_MOST_BYTES // 2**30}); take fewer or smaller ones, or write .webm"
        )


def write_animation(
    path: Path, pictures: Iterable[Picture], starts: Callable[[int], Fraction], *, quality: int | None = None
) -> None:
    """Write pictures as an animation or video. The file appears when it is complete, or not at all.

    Args:
        path: its suffix chooses the format. An existing file is replaced.
        pictures: alike, at least one; taken one at a time.
        starts: seconds at which picture n begins; that of the number of pictures is the end. GIF rounds times to
            1/100 s, WebP and PNG to 1/1000 s, without drift. Videos need a constant rate.
        quality: 1..100 for WebP (None: lossless).

    Raises:
        OptionError: the format cannot hold the pictures.
        MediaError: the file cannot be written.
    """
    frames = iter(pictures)
    first = next(frames)
    check_animation(path, first.header)
    row = _FORMATS[path.suffix.lower()]
    with atomic_write(path, error=MediaError) as part:
        try:
            if isinstance(row, _Video):
                _write_video(part, row, first, chain([first], frames), 1 / (starts(1) - starts(0)))
            else:
                _write_frames(part, row, first, frames, starts, quality)
        except (av.FFmpegError, ValueError, OverflowError, RuntimeError) as error:  # Pillow's, of sizes and durations
            raise MediaError(f"{path} cannot be written, got: {error}; choose another format") from error


def _write_frames(
    part: Path, row: _Animation, first: Picture, rest: Iterator[Picture], starts: Callable[[int], Fraction],
    quality: int | None,
) -> None:  # fmt: skip
    frames = [first, *rest]
    ends = [round(1000 * (starts(n) - starts(0)) / row.tick_ms) * row.tick_ms for n in range(len(frames) + 1)]
    durations = [after - before for before, after in pairwise(ends)]
    options: dict[str, Any] = dict(row.options) if quality is None or row.name != "WEBP" else {"quality": quality}
    if first.icc and row.name != "GIF":
        options["icc_profile"] = first.icc
    image, *others = map(_image, frames)
    image.save(part, row.name, save_all=True, append_images=others, duration=durations, loop=0, **options)


def _image(picture: Picture) -> Image.Image:
    pixels = picture.pixels
    image = Image.fromarray(pixels[..., 0] if picture.header.channels == 1 else pixels)
    return image.convert("RGBA") if picture.header.channels == 2 else image


def _write_video(part: Path, row: _Video, first: Picture, pictures: Iterable[Picture], rate: Fraction) -> None:
    """Encode in BT.709, limited range; 4:2:0 if both sides are even, else 4:4:4."""
    height, width = first.pixels.shape[:2]
    chroma = "444" if height % 2 or width % 2 else "420"
    pix_fmt = f"yuv{chroma}p10le" if first.header.bits > 8 else f"yuv{chroma}p"
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
    pixels = picture.pixels if picture.header.channels == 3 else picture.pixels.repeat(3, axis=-1)
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb48le" if picture.header.bits > 8 else "rgb24")
