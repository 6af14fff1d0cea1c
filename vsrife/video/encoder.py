"""VapourSynth frames to encoded packets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
import vapoursynth as vs
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext

from vsrife.errors import MediaError
from vsrife.timing.timeline import exact
from vsrife.video.codecs import silenced
from vsrife.video.pixel_formats import UNSPECIFIED, PixelFormat, matrix_of

_RANGE = {0: 1, 1: 2}  # limited and full, VapourSynth's number to FFmpeg's
_PLANE_ORDER = {"RGB": (1, 2, 0)}  # FFmpeg keeps green, blue, red

Frames = tuple[vs.VideoFrame, ...]  # colour, then alpha if there is one


class ColorTags(NamedTuple):
    """Colour description as FFmpeg numbers it; 2 is unspecified, for range and chroma location 0."""

    matrix: int
    primaries: int
    transfer: int
    range: int
    chroma_location: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSettings:
    """Everything that decides on an encoder's packets besides the frames.

    Attributes:
        encoder: FFmpeg's name.
        options: of the encoder.
        width, height: pixels.
        pix_fmt: pixel format that the encoder stores.
        planar: pixel format of the frames handed to it; differs where the encoder's format is interleaved.
        rate: frames per second, on average if it varies.
        sample_aspect: width of a pixel over its height.
        color: tags of the stream and its frames.
        global_header: the container keeps the stream's header apart from its packets.
    """

    encoder: str
    options: Mapping[str, str]
    width: int
    height: int
    pix_fmt: str
    planar: str
    rate: Fraction
    sample_aspect: Fraction
    color: ColorTags
    global_header: bool


def color_tags(clip: vs.VideoNode, props: Mapping[str, Any], target: PixelFormat, chroma_location: int) -> ColorTags:
    """The tags of a clip with these props after `pixel_formats.convert` to `target`."""
    was_rgb, is_rgb = clip.format.color_family == vs.RGB, target.family == "RGB"
    matrix = 0 if is_rgb else matrix_of(props, clip.height) if was_rgb else int(props.get("_Matrix", UNSPECIFIED))
    value_range = _RANGE[int(props["_Range"])] if "_Range" in props else 0
    if was_rgb != is_rgb:
        value_range = _RANGE[int(is_rgb)]
    subsampled = target.subsampling_w or target.subsampling_h
    return ColorTags(
        matrix, int(props.get("_Primaries", UNSPECIFIED)), int(props.get("_Transfer", UNSPECIFIED)), value_range,
        chroma_location if subsampled else 0,
    )  # fmt: skip


def configure(context: VideoCodecContext, settings: VideoSettings) -> None:
    """Set up an encoder before it is opened. One tick of its time base is one frame."""
    context.width, context.height, context.pix_fmt = settings.width, settings.height, settings.pix_fmt
    context.time_base, context.framerate = 1 / settings.rate, settings.rate
    context.sample_aspect_ratio = settings.sample_aspect
    color = settings.color
    context.colorspace, context.color_primaries, context.color_trc = color.matrix, color.primaries, color.transfer
    context.color_range, context.chroma_sample_location = color.range, color.chroma_location
    context.options = dict(settings.options)
    if settings.global_header:
        context.flags |= Flags.global_header


def encode(settings: VideoSettings, frames: Iterable[Frames]) -> Iterator[av.Packet[Any]]:
    """Encode frames. Packets come in decoding order; the `pts` of each is the number of its frame, from 0.

    Raises:
        MediaError: the encoder rejects its settings or fails.
    """
    try:
        context = av.CodecContext.create(settings.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        configure(context, settings)
        with silenced(settings.encoder):
            context.open()
        for number, planes in enumerate(frames):
            picture = to_picture(planes, settings)
            picture.pts, picture.time_base = number, 1 / settings.rate
            yield from context.encode(picture)
        yield from context.encode(None)
    except (av.error.FFmpegError, ValueError) as error:
        raise encoder_error(settings, error) from error


def encoder_error(settings: VideoSettings, error: Exception) -> MediaError:
    """The error for an encoder that FFmpeg could not open or that failed."""
    reason = getattr(error, "strerror", None) or str(error)
    options = ", ".join(f"{key}={value}" for key, value in settings.options.items()) or "no options"
    advice = "check --preset, --crf and --pix-fmt, or give another --codec"
    rates = [exact(rate) for rate in av.Codec(settings.encoder, "w").frame_rates or ()] or [settings.rate]
    if settings.rate not in rates:
        nearest = sorted(rates, key=lambda rate: abs(rate - settings.rate))[:3]
        usable = ", ".join(map(str, sorted(nearest)))
        advice = f"the rate must be one of the codec's, such as {usable}, not {settings.rate}: give --fps"
    elif settings.width % 2 or settings.height % 2:
        advice = "the size is odd: leave --pix-fmt out, or give --codec vp9 or ffv1"
    return MediaError(
        f"{settings.encoder} cannot encode {settings.width}x{settings.height} {settings.pix_fmt} with {options}, got: "
        f"{reason}; {advice}"
    )


def to_picture(frames: Frames, settings: VideoSettings) -> av.VideoFrame:
    """Copy the planes of a frame and its alpha to a frame of FFmpeg, without the padding of odd sizes."""
    colour = frames[0]
    picture = av.VideoFrame(settings.width, settings.height, settings.planar)
    order = _PLANE_ORDER.get(colour.format.color_family.name, tuple(range(colour.format.num_planes)))
    planes = [colour[number] for number in order] + [frame[0] for frame in frames[1:]]
    for target, plane in zip(picture.planes, planes, strict=True):
        samples = np.asarray(plane)
        rows = np.frombuffer(target, samples.dtype).reshape(target.height, -1)  # with alignment on the right
        rows[:, : target.width] = samples[: target.height, : target.width]
    color = settings.color
    picture.colorspace, picture.color_primaries, picture.color_trc = color.matrix, color.primaries, color.transfer
    picture.color_range, picture.chroma_location = color.range, color.chroma_location
    return picture
