"""Opens a video file: frames through bestsource, exact times and tags through PyAV."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.stream import VideoStream

from vsrife.errors import MediaError, RifeError
from vsrife.timing.timeline import Timeline, constant, exact, measured
from vsrife.video.plan import INTERLACED, SOURCE_KEYWORDS, UPRIGHT_KEYWORDS

# Bestsource's index goes to a folder of the run; without one it is made again each time.
_INDEX_ALWAYS, _INDEX_NEVER = 2, 0


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An opened video file.

    Attributes:
        path: of the file.
        clip: its frames, turned or not as `keywords` say.
        timeline: when they are shown, on the clock of the file.
        origin: where that clock starts; the output's clock starts at 0 there.
        track: index of the video stream among all streams.
        readable: frames that can be read.
        promised: frames that the container says it has.
        props: frame props of the first frame.
        sample_aspect: width of a pixel over its height.
        chroma_location: of FFmpeg, 0 where it is not known.
        display_matrix: nine numbers that say how to turn the picture, or None.
        alpha: a GRAY clip where the file has transparency.
        keywords: that bestsource read it with.
        has_streams: whether the path is a container with other streams.
    """

    path: Path
    clip: vs.VideoNode
    timeline: Timeline
    origin: Fraction
    track: int
    readable: int
    promised: int
    props: Mapping[str, Any]
    sample_aspect: Fraction
    chroma_location: int
    display_matrix: tuple[int, ...] | None
    alpha: vs.VideoNode | None
    keywords: Mapping[str, Any]
    has_streams: bool

    @property
    def field_based(self) -> int:
        """0 progressive, 1 bottom field first, 2 top field first."""
        return int(self.props.get(INTERLACED, 0))

    @property
    def cut_short(self) -> bool:
        """Whether frames are missing at the end."""
        return self.readable < self.promised


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the packets of the video stream say, without decoding.

    Attributes:
        shown: packets that are to be shown.
        hidden: packets before the start of an edit list.
        last: ticks that the last one lasts, where known.
        complete: whether the file goes on as far as its header says.
    """

    shown: int
    hidden: int
    last: int | None
    complete: bool


@contextmanager
def media_errors(path: Path, what: str = "cannot be read") -> Iterator[None]:
    """Turn errors of FFmpeg, VapourSynth and the operating system into a `MediaError` that names the file."""
    try:
        yield
    except (av.error.FFmpegError, vs.Error, OSError) as error:
        if isinstance(error, RifeError):
            raise
        if isinstance(error.__cause__, RifeError):  # of the filter
            raise error.__cause__ from error
        raise MediaError(f"{path} {what}, got: {getattr(error, 'strerror', None) or _reason(str(error))}") from error


def _reason(text: str) -> str:
    """One line of an error; of an error in a frame callback, which comes as a traceback, the last line."""
    _, traceback, rest = text.partition("Traceback (most recent call last)")
    if not traceback:
        return " ".join(text.split())
    last = next(line for line in reversed(rest.splitlines()) if line and not line[0].isspace())
    name, _, message = last.partition(": ")
    return message if name.startswith("vsrife.errors.") else last


def open_source(
    path: Path, index: Path | None = None, *, upright: bool = False, rate: Fraction | None = None
) -> Source:
    """Open a video file.

    Args:
        path: of the file.
        index: folder to keep bestsource's index in; None: do not keep it.
        upright: turn the frames as a player would.
        rate: frames a second, whatever times the file has; None: its times.

    Raises:
        MediaError: it is absent, empty, no video, or damaged.
    """
    if not path.is_file():
        raise MediaError(f"{path} is no file, got {'a folder' if path.is_dir() else 'nothing there'}; check the path")
    if not path.stat().st_size:
        raise MediaError(f"{path} is empty, got 0 bytes; copy it again")
    with media_errors(path), av.open(str(path)) as container:
        stream = _main_video(path, container)
        tick = exact(stream.time_base)
        rates = [exact(rate) for rate in (stream.guessed_rate, stream.average_rate, stream.base_rate) if rate]
        scan = _scan(container, stream)
        origin = max(Fraction(container.start_time or 0, av.time_base), Fraction(0))
        track, promised = stream.index, stream.frames
        sample_aspect = exact(stream.sample_aspect_ratio or Fraction(1)) or Fraction(1)
        chroma = stream.codec_context.chroma_sample_location
    keywords = UPRIGHT_KEYWORDS if upright else SOURCE_KEYWORDS
    with media_errors(path):
        clip, ticks = _frames(path, track, index, keywords)
        with clip.get_frame(0) as frame:
            props = dict(frame.props)
        matrix = None if upright else _display_matrix(path)
    if rate is None:
        timeline = measured(ticks, tick, scan.last, [*rates, Fraction(clip.fps)] if clip.fps else rates)
    else:
        timeline = constant(len(ticks), rate, ticks[0] * tick)
    return Source(
        path=path, clip=clip, timeline=timeline, origin=origin, track=track, readable=clip.num_frames,
        promised=_promised(clip.num_frames, scan, promised), props=props, sample_aspect=sample_aspect,
        chroma_location=chroma, display_matrix=matrix, alpha=_alpha(clip, props), keywords=keywords, has_streams=True,
    )  # fmt: skip


def main_video(container: InputContainer) -> VideoStream | None:
    """The first video stream that is no cover picture."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def _main_video(path: Path, container: InputContainer) -> VideoStream:
    stream = main_video(container)
    if stream is None:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
        raise MediaError(f"{path} holds no video, got {kinds}; give a video file")
    return stream


def _frames(path: Path, track: int, index: Path | None, keywords: Mapping[str, Any]) -> tuple[vs.VideoNode, list[int]]:
    """The clip and the time stamp of each frame, in ticks of the stream."""
    keep: dict[str, Any] = {"cachemode": _INDEX_NEVER}
    if index is not None:
        keep = {"cachemode": _INDEX_ALWAYS, "cachepath": os.fspath(index)}
    with _quiet():
        read = vs.core.bs.VideoSource(os.fspath(path), track=track, exporttimestamps=1, **keywords, **keep)
    stamps = read["timestamps"]
    return read["clip"], [stamps] if isinstance(stamps, int) else list(stamps)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back a warning of VapourSynth about time stamps, which are not declared but there."""
    logger = logging.getLogger("vapoursynth")

    def passes(record: logging.LogRecord) -> bool:
        return "no return value" not in record.getMessage()

    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _scan(container: InputContainer, video: VideoStream) -> _Scan:
    """Read through the packets once."""
    shown = hidden = 0
    last: tuple[int, int | None] = (-(2**63), None)
    ends = Fraction(0)
    for packet in container.demux():
        if packet.pts is None or packet.dts is None:
            shown += packet.stream is video and packet.size > 0
            continue
        ends = max(ends, (packet.pts + (packet.duration or 0)) * exact(packet.time_base))
        if packet.stream is not video:
            continue
        hidden += packet.is_discard
        shown += not packet.is_discard
        last = max(last, (packet.pts, packet.duration))
    promised = Fraction(container.duration or 0, av.time_base) + Fraction(container.start_time or 0, av.time_base)
    known = any(name in container.format.name for name in ("matroska", "mp4"))
    return _Scan(shown, hidden, last[1] or None, not known or ends >= promised - 1)


def _promised(readable: int, scan: _Scan, promised: int) -> int:
    """How many frames there should be."""
    if promised > scan.shown + scan.hidden:
        return promised - scan.hidden
    return readable if scan.complete else readable + 1


def _display_matrix(path: Path) -> tuple[int, ...] | None:
    with av.open(str(path)) as container:
        stream = main_video(container)
        assert stream is not None
        frame = next(container.decode(stream), None)
        side_data = frame and frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if not side_data:
            return None
        return tuple(int(number) for number in np.frombuffer(bytes(side_data), np.int32))


def _alpha(clip: vs.VideoNode, props: Mapping[str, Any]) -> vs.VideoNode | None:
    return clip.std.PropToClip("_Alpha") if "_Alpha" in props else None
