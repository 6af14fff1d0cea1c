"""Compares a finished file with what its muxer was given: muxers silently drop what they have no place for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from vsrife.timing.timeline import exact
from vsrife.video.demuxing import open_media
from vsrife.video.encoder import VideoSettings
from vsrife.video.pixel_formats import UNSPECIFIED
from vsrife.video.source import display_matrix
from vsrife.video.streams import stream_tags

_KINDS = ("video", "audio", "subtitle")
_NOT_COMPARED = frozenset({"encoder", "alpha_mode", "handler_name", "vendor_id"})  # set or renamed by muxers
_DEFAULTS = {"range": 1, "chroma location": 0}  # what an absent tag means: limited range; unspecified
_UNDEFINED_LANGUAGE = "und"


@dataclass(frozen=True, slots=True)
class _StreamFacts:
    name: str
    tags: Mapping[str, str]
    flags: Disposition


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file should hold, taken from its muxer before the first packet.

    Attributes:
        tags: of the file.
        streams: by kind, in order; without cover pictures.
        chapters: number of chapters.
    """

    tags: Mapping[str, str]
    streams: Mapping[str, list[_StreamFacts]]
    chapters: int


def expect(target: OutputContainer) -> Expected:
    """What `target` has been given."""
    return Expected(dict(target.metadata), _facts(target), len(target.chapters()))


def _facts(container: InputContainer | OutputContainer) -> dict[str, list[_StreamFacts]]:
    streams: dict[str, list[_StreamFacts]] = {kind: [] for kind in _KINDS}
    for stream in container.streams:
        flags = Disposition(stream.disposition)
        if stream.type in streams and not flags & Disposition.attached_pic:
            streams[stream.type].append(_StreamFacts(f"{stream.type} track {stream.index}", _tags(stream), flags))
    return streams


def _tags(stream: Stream) -> dict[str, str]:
    tags = {key.lower(): value for key, value in stream_tags(stream).items() if key.lower() not in _NOT_COMPARED}
    if tags.get("language") == _UNDEFINED_LANGUAGE:
        del tags["language"]
    return tags


def find_losses(
    path: Path, container: str, expected: Expected, settings: VideoSettings, matrix: tuple[int, ...] | None
) -> Iterator[str]:
    """A message for everything that is missing in a file.

    Args:
        path: of the file.
        container: FFmpeg's name of its container.
        expected: taken with `expect`.
        settings: of its video stream.
        matrix: that should rotate its pictures.
    """
    with open_media(path) as file:
        present = {key.lower() for key in file.metadata}
        if lost := sorted(key for key in expected.tags if key.lower() not in present):
            yield f"tags left out, {container} has no place for them: {', '.join(lost)}{_hint(container)}"
        if lost_chapters := expected.chapters - len(file.chapters()):
            yield f"{lost_chapters} chapters left out, {container} has no place for them; .mkv and .mp4 have"
        for kind, wanted in expected.streams.items():
            for before, after in zip(wanted, _facts(file)[kind], strict=False):
                yield from _stream_losses(container, before, after)
        video = next(each for each in file.streams.video if not each.disposition & Disposition.attached_pic)
        first = next(file.decode(video), None)
        yield from _picture_losses(container, video, first, settings)
        number = video.index
    if matrix is not None and display_matrix(path, number) != matrix:
        yield f"rotation left out, {container} has no place for it; .mp4, .mov and .mkv have"


def _hint(container: str) -> str:
    return "" if container == "matroska" else "; .mkv has"


def _stream_losses(container: str, before: _StreamFacts, after: _StreamFacts) -> Iterator[str]:
    if lost := sorted(key for key in before.tags if key not in after.tags):
        yield f"tags of {before.name} left out, {container} has no place for them: {', '.join(lost)}{_hint(container)}"
    if lost := [flag.name or "" for flag in before.flags & ~after.flags]:
        yield f"flags of {before.name} left out, {container} has no place for them: {', '.join(lost)}{_hint(container)}"


def _picture_losses(
    container: str, video: VideoStream, first: VideoFrame | None, settings: VideoSettings
) -> Iterator[str]:
    context, color = video.codec_context, settings.color
    value_range = (first and first.color_range) or context.color_range  # decoders of MPEG-2 pass over that of MXF
    pairs = {
        "matrix": (color.matrix, context.colorspace), "primaries": (color.primaries, context.color_primaries),
        "transfer": (color.transfer, context.color_trc), "range": (color.range, value_range),
        "chroma location": (color.chroma_location, context.chroma_sample_location),
    }  # fmt: skip
    lost = [
        f"{name} {wanted}"
        for name, (wanted, stored) in pairs.items()
        if wanted not in (stored, 0, _DEFAULTS.get(name, UNSPECIFIED))
    ]
    if lost:
        yield f"colour tags left out, {settings.encoder} in {container} has no place for them: {', '.join(lost)}"
    stored_aspect = exact(video.sample_aspect_ratio or Fraction(1)) or Fraction(1)
    aspect = settings.sample_aspect
    if stored_aspect != aspect:
        yield (
            f"pixel aspect ratio {aspect.numerator}:{aspect.denominator} left out, {settings.encoder} in {container} "
            "has no place for it; x264 and x265 have"
        )
