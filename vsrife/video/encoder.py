"""Frames of VapourSynth to packets of an encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from vsrife.errors import MediaError
from vsrife.video.codecs import Layout

_UNKNOWN = 2  # of matrix, primaries and transfer, in VapourSynth as in FFmpeg
_RANGE = {0: 1, 1: 2}  # limited and full, VapourSynth's number to FFmpeg's
_PLANES = {"RGB": (1, 2, 0)}  # FFmpeg keeps green, blue, red

Frames = tuple[vs.VideoFrame, ...]  # of the colours, and of alpha where there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """All that an encoder needs to know; the same settings and frames give the same packets.

    Attributes:
        encoder: FFmpeg's name.
        options: of the encoder.
        width, height: pixels.
        pix_fmt: what the encoder stores.
        planar: what frames are handed over as; differs where the encoder wants its samples interleaved.
        rate: frames a second, on average where it varies.
        sample_aspect: width of a pixel over its height.
        colours: matrix, primaries, transfer, range, chroma location, as FFmpeg numbers them.
        global_header: whether the container keeps the stream's header apart.
    """

    encoder: str
    options: Mapping[str, str]
    width: int
    height: int
    pix_fmt: str
    planar: str
    rate: Fraction
    sample_aspect: Fraction
    colours: tuple[int, int, int, int, int]
    global_header: bool


def colours_of(
    clip: vs.VideoNode, props: Mapping[str, Any], layout: Layout, chroma_location: int
) -> tuple[int, int, int, int, int]:
    """For `VideoSettings`: what a clip with these props is once it is `converted`."""
    was_rgb, is_rgb = clip.format.color_family == vs.RGB, layout.family == "RGB"
    matrix = 0 if is_rgb else _matrix(props, clip.height) if was_rgb else int(props.get("_Matrix", _UNKNOWN))
    value_range = _RANGE[int(props["_Range"])] if "_Range" in props else 0
    if was_rgb != is_rgb:
        value_range = _RANGE[int(is_rgb)]
    subsampled = layout.subsampling_w or layout.subsampling_h
    return (
        matrix, int(props.get("_Primaries", _UNKNOWN)), int(props.get("_Transfer", _UNKNOWN)), value_range,
        chroma_location if subsampled else 0,
    )  # fmt: skip


def _matrix(props: Mapping[str, Any], height: int) -> int:
    """What turns RGB into YUV and back, where the props do not say: BT.709 or BT.601."""
    matrix = int(props.get("_Matrix", _UNKNOWN))
    return matrix if matrix not in (0, _UNKNOWN) else 1 if height >= 720 else 6


def configure(context: VideoCodecContext, settings: VideoSettings) -> None:
    """Set up an encoder that is not yet open. One tick is one frame."""
    context.width, context.height, context.pix_fmt = settings.width, settings.height, settings.pix_fmt
    context.time_base, context.framerate = 1 / settings.rate, settings.rate
    context.sample_aspect_ratio = settings.sample_aspect
    matrix, primaries, transfer, value_range, chroma_location = settings.colours
    context.colorspace, context.color_primaries, context.color_trc = matrix, primaries, transfer
    context.color_range, context.chroma_sample_location = value_range, chroma_location
    context.options = dict(settings.options)
    if settings.global_header:
        context.flags |= Flags.global_header


def encode(settings: VideoSettings, frames: Iterable[Frames]) -> Iterator[av.Packet[Any]]:
    """Packets in decoding order; the `pts` of each is the number of its frame, from 0.

    Raises:
        MediaError: the encoder refuses its settings or fails.
    """
    try:
        context = av.CodecContext.create(settings.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        configure(context, settings)
        for number, planes in enumerate(frames):
            picture = to_picture(planes, settings)
            picture.pts, picture.time_base = number, 1 / settings.rate
            yield from context.encode(picture)
        yield from context.encode(None)
    except (av.error.FFmpegError, ValueError) as error:
        raise encoder_error(settings, error) from error


def encoder_error(settings: VideoSettings, error: Exception) -> MediaError:
    reason = getattr(error, "strerror", None) or str(error)
    options = ", ".join(f"{key}={value}" for key, value in settings.options.items()) or "no options"
    return MediaError(
        f"{settings.encoder} cannot encode {settings.width}x{settings.height} {settings.pix_fmt} with {options}, got: "
        f"{reason}; check --preset, --crf and --pix-fmt, or give another --codec"
    )


def to_picture(frames: Frames, settings: VideoSettings) -> av.VideoFrame:
    """Copy the planes of a frame, and alpha as the last one."""
    colours = frames[0]
    picture = av.VideoFrame(colours.width, colours.height, settings.planar)
    order = _PLANES.get(colours.format.color_family.name, tuple(range(colours.format.num_planes)))
    planes = [colours[number] for number in order] + [frame[0] for frame in frames[1:]]
    for target, plane in zip(picture.planes, planes, strict=True):
        samples = np.asarray(plane)
        rows = np.frombuffer(target, samples.dtype).reshape(target.height, -1)  # wider than the picture
        rows[:, : samples.shape[1]] = samples
    matrix, primaries, transfer, value_range, chroma_location = settings.colours
    picture.colorspace, picture.color_primaries, picture.color_trc = matrix, primaries, transfer
    picture.color_range, picture.chroma_location = value_range, chroma_location
    return picture


def converted(clip: vs.VideoNode, layout: Layout, props: Mapping[str, Any]) -> vs.VideoNode:
    """The clip in another format; depth is reduced with dither."""
    if clip.format.id == layout.vapoursynth_id:
        return clip
    extra: dict[str, Any] = {}
    if clip.format.color_family == vs.RGB and layout.family != "RGB":
        extra["matrix"] = _matrix(props, clip.height)
        extra["range"] = vs.RANGE_LIMITED
    if clip.format.color_family != vs.RGB and layout.family == "RGB":
        extra["matrix_in"] = _matrix(props, clip.height)
    dither = "error_diffusion" if layout.bits < clip.format.bits_per_sample else "none"
    return clip.resize.Bicubic(format=layout.vapoursynth_id, dither_type=dither, **extra)
