"""Opens a video file: frames through bestsource, exact times and tags through PyAV."""

from __future__ import annotations

import logging
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.stream import VideoStream

from vsrife.errors import MediaError, OptionError, RifeError
from vsrife.timing.timeline import Timeline, constant, exact, fill_missing, measured
from vsrife.video.demuxing import continuous_packets, open_media, plugin_path
from vsrife.video.odd_sizes import pad_odd_sizes
from vsrife.video.plan import INTERLACED, SOURCE_KEYWORDS, UPRIGHT_KEYWORDS

# Bestsource's index goes to a folder of the run; without one it is made again each time.
_INDEX_ALWAYS, _INDEX_NEVER = 2, 0


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An opened video file.

    Attributes:
        path: of the file.
        clip: its frames, upright or not as `keywords` say; a padded last column or row where `size` is odd.
        size: width and height of the picture, pixels.
        read_size: width and height that bestsource reads; it crops odd sizes with subsampled chroma.
        timeline: times of the frames on the clock of the file.
        origin: time on that clock at which the output's clock is 0.
        track: index of the video stream among all streams.
        readable: number of frames that can be read.
        promised: number of frames that the container should have.
        props: frame props of the first frame.
        sample_aspect: width of a pixel over its height.
        chroma_location: as FFmpeg numbers it; 0 if unspecified.
        display_matrix: nine numbers that rotate the picture, or None.
        alpha: a GRAY clip if the file has transparency.
        keywords: of `core.bs.VideoSource` for this file.
        has_streams: `path` is a container with other streams.
    """

    path: Path
    clip: vs.VideoNode
    size: tuple[int, int]
    read_size: tuple[int, int]
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
        """Whether the file ends before its last frame."""
        return self.readable < self.promised


@dataclass(slots=True)
class _TrackScan:
    """What the packets of a stream say, without decoding.

    Attributes:
        packets: number of packets that are shown.
        hidden: number of packets before the start of an edit list.
        start: first time shown, seconds; None if no packet has one.
        last: largest pts, ticks, and the duration of its packet.
        lasts: durations of the packets, ticks: two or three fields in MPEG-2 with flags that repeat fields.
    """

    packets: int = 0
    hidden: int = 0
    start: Fraction | None = None
    last: tuple[int, int | None] = (-(2**63), None)
    lasts: array[int] = field(default_factory=partial(array, "q"))


@dataclass(slots=True)
class _Scan:
    """All packets of a file, read once.

    Attributes:
        tracks: by index of the stream.
        end: end of the last packet, seconds.
    """

    tracks: dict[int, _TrackScan] = field(default_factory=lambda: defaultdict(_TrackScan))
    end: Fraction = Fraction(0)


@contextmanager
def media_errors(path: Path, what: str = "cannot be read") -> Iterator[None]:
    """Turn errors of FFmpeg, VapourSynth and the operating system into a `MediaError` that names the file."""
    try:
        yield
    except (av.error.FFmpegError, vs.Error, OSError, UnicodeError) as error:
        if isinstance(error, RifeError):
            raise
        if isinstance(error.__cause__, RifeError):  # of the filter
            raise error.__cause__ from error
        reason = getattr(error, "strerror", None) or _reason(str(error))
        if isinstance(error, UnicodeError):
            reason = "a name that is not UTF-8; rename it"
        raise MediaError(f"{path} {what}, got: {reason}{_advice(error, reason)}") from error


def _advice(error: Exception, reason: str) -> str:
    """What to do about a file in which FFmpeg or bestsource finds no frames, or too small ones."""
    if "leaves nothing to output" in reason:
        return (
            "; one pixel is too small for this pixel format, convert it with: ffmpeg -i FILE -pix_fmt yuv444p new.mkv"
        )
    if "Unsupported video format" in reason:
        return "; convert it with: ffmpeg -i FILE -pix_fmt yuv444p16le -c:v ffv1 new.mkv"
    unreadable = av.error.InvalidDataError | av.error.EOFError | av.error.ArgumentError
    if not isinstance(error, unreadable) and "Indexing of" not in reason:
        return ""
    return "; get it again, or, if a player shows it, convert it with: ffmpeg -i FILE -c:v ffv1 -c:a copy new.mkv"


def _reason(text: str) -> str:
    """One line of an error; of an error in a frame callback, which comes as a traceback, the last line."""
    _, traceback, rest = text.partition("Traceback (most recent call last)")
    if not traceback:
        return " ".join(text.split())
    last = next(line for line in reversed(rest.splitlines()) if line and not line[0].isspace())
    name, _, message = last.partition(": ")
    return message if name.startswith("vsrife.errors.") else last


def open_source(
    path: Path, index: Path | None = None, *, upright: bool = False, rate: Fraction | None = None,
    track: int | None = None, resize: bool = False,
) -> Source:  # fmt: skip
    """Open a video file.

    Args:
        path: of the file.
        index: folder for bestsource's index; None: do not keep one.
        upright: rotate the frames as a player would.
        rate: frames per second, replacing the file's times; None: its times.
        track: index of the video stream among all streams; None: the default one, or the largest.
        resize: scale all frames to the size of the first one.

    Raises:
        MediaError: the file is absent, empty, damaged, or holds no video.
        OptionError: `track` is no video stream.
    """
    if not path.is_file():
        raise MediaError(f"{path} is no file, got {'a folder' if path.is_dir() else 'nothing there'}; check the path")
    if not path.stat().st_size:
        raise MediaError(f"{path} is empty, got 0 bytes; copy it again")
    with media_errors(path), open_media(path) as container:
        stamps: dict[int, dict[int, deque[int]]] = defaultdict(lambda: defaultdict(deque))
        scan = _scan(container, stamps)
        stream = _choose_video(path, container, scan, track)
        tick = exact(stream.time_base)
        rates = [exact(each) for each in (stream.guessed_rate, stream.average_rate, stream.base_rate) if each]
        facts = scan.tracks[stream.index]
        promised = _promised_frames(container, stream, scan)
        sample_aspect = exact(stream.sample_aspect_ratio or Fraction(1)) or Fraction(1)
        context = stream.codec_context
        size, pix_fmt, chroma = (context.width, context.height), context.pix_fmt, context.chroma_sample_location
        number, alpha_number = stream.index, _alpha_track(container, stream, scan)
    keywords = UPRIGHT_KEYWORDS if upright else SOURCE_KEYWORDS
    with media_errors(path):
        clip, ticks = _frames(path, number, index, keywords)
        clip = _one_size(path, clip, resize)
        with clip.get_frame(0) as frame:
            props = dict(frame.props)
        matrix = display_matrix(path, number)
        alpha = clip.std.PropToClip("_Alpha") if "_Alpha" in props else None
        if alpha_number is not None:
            alpha = _frames(path, alpha_number, index, keywords)[0].std.ShufflePlanes(0, vs.GRAY)
        read_size = clip.width, clip.height
        clip, size = pad_odd_sizes(clip, path, number, size, pix_fmt, ticks, matrix if upright else None)
    rates += [Fraction(clip.fps)] if clip.fps else []
    joined = _on_joined_clock(ticks, stamps.get(number, {}))
    if rate is None and all(stamp is None for stamp in joined) and _varies(facts.lasts, len(joined)):
        one_field = 1 / rates[0] / 2  # exact, unlike ticks
        lasts = [round(last * tick / one_field) for last in facts.lasts]
        joined, tick, facts.last = list(accumulate(lasts[:-1], initial=0)), one_field, (0, lasts[-1])
    if rate is None and all(stamp is None for stamp in joined):
        rate = rates[0] if rates else _UNKNOWN_RATE
    if rate is None:
        filled = fill_missing(joined, 1 / (rates[0] if rates else _UNKNOWN_RATE) / tick)
        timeline = measured(filled, tick, facts.last[1] or None, rates)
    else:
        first = joined[0]
        timeline = constant(len(joined), rate, Fraction(0) if first is None else first * tick)
    return Source(
        path=path, clip=clip, size=size, read_size=read_size, timeline=timeline, track=number,
        origin=_origin(scan, timeline),
        readable=clip.num_frames, promised=max(promised, clip.num_frames), props=props, sample_aspect=sample_aspect,
        chroma_location=chroma, display_matrix=None if upright else matrix, alpha=alpha, keywords=keywords,
        has_streams=True,
    )  # fmt: skip


# --- packets ----------------------------------------------------------------------------------------------------------

_MISSING = -(2**62)  # time stamps below this are FFmpeg's AV_NOPTS_VALUE
_UNKNOWN_RATE = Fraction(25)  # FFmpeg's for raw streams that do not say


def _scan(container: InputContainer, stamps: dict[int, dict[int, deque[int]]]) -> _Scan:
    """Read all packets.

    Args:
        container: opened.
        stamps: gets, per stream, the pts in the file with those on the joined clock, in order.
    """
    scan = _Scan()
    for packet, raw in continuous_packets(container):
        track = scan.tracks[packet.stream.index]
        if not packet.size:  # flushes a decoder
            continue
        track.hidden += packet.is_discard
        track.packets += not packet.is_discard
        track.lasts.append(packet.duration or 0)
        if packet.pts is None:
            continue
        seconds = packet.pts * exact(packet.time_base)
        scan.end = max(scan.end, seconds + (packet.duration or 0) * exact(packet.time_base))
        if raw is not None and packet.stream.type == "video":
            stamps[packet.stream.index][raw].append(packet.pts)
        track.last = max(track.last, (packet.pts, packet.duration))
        if not packet.is_discard and packet.stream.type in ("video", "audio"):
            track.start = seconds if track.start is None else min(track.start, seconds)
    return scan


def _on_joined_clock(ticks: Sequence[int], stamps: Mapping[int, deque[int]]) -> list[int | None]:
    """The frames' time stamps on the joined clock; None where the file has none."""
    if not any(len(later) > 1 for later in stamps.values()):
        return [None if tick < _MISSING else tick for tick in ticks]
    shift, joined = 0, list[int | None]()
    for tick in ticks:
        if tick < _MISSING:
            joined.append(None)
            continue
        if later := stamps.get(tick):
            shift = later.popleft() - tick
        joined.append(tick + shift)
    return joined


def _varies(lasts: Sequence[int], frames: int) -> bool:
    """Whether durations of packets give the times of all frames, and a constant rate would not."""
    return len(lasts) == frames and min(lasts) > 0 and 5 * max(lasts) > 6 * min(lasts)


def _origin(scan: _Scan, timeline: Timeline) -> Fraction:
    """Where the earliest picture or sound begins; not before 0 unless a frame does."""
    starts = [track.start for track in scan.tracks.values() if track.start is not None]
    return min(max(min(starts, default=timeline.start), Fraction(0)), timeline.start)


def _promised_frames(container: InputContainer, stream: VideoStream, scan: _Scan) -> int:
    """How many frames there should be, one more than can be read if the file is cut off at an unknown place."""
    track = scan.tracks[stream.index]
    counted = track.packets + track.hidden
    if stream.frames > counted and not _reaches_its_duration(stream, track):
        return stream.frames - track.hidden
    states_duration = any(name in container.format.name for name in ("matroska", "mp4"))
    ends_early = states_duration and scan.end < Fraction(container.duration or 0, av.time_base) - 1
    return track.packets + 1 if ends_early else 0


def _reaches_its_duration(stream: VideoStream, track: _TrackScan) -> bool:
    """Whether the last packet ends where the stream does; AVI counts empty packets, which repeat a frame."""
    last, lasts = track.last
    return bool(stream.duration) and last + (lasts or 0) >= (stream.start_time or 0) + (stream.duration or 0) - 1


# --- choosing a track -------------------------------------------------------------------------------------------------


def _choose_video(path: Path, container: InputContainer, scan: _Scan, track: int | None) -> VideoStream:
    """The video stream `track`; by default the one flagged as default, else the largest, of those with most frames."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not videos:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "no streams"
        raise MediaError(f"{path} holds no video, got {kinds}; give a video file")
    if track is not None:
        chosen = next((stream for stream in videos if stream.index == track), None)
        if chosen is None:
            offered = ", ".join(f"{each.index} ({_describe(each)})" for each in videos)
            raise OptionError(f"--video-track must be a video track of {path.name}: {offered}; got {track}")
        return chosen

    def rank(stream: VideoStream) -> tuple[bool, bool, int, int]:
        moving = scan.tracks[stream.index].packets > 1
        default = bool(stream.disposition & Disposition.default)
        return moving, default, stream.codec_context.width * stream.codec_context.height, -stream.index

    return max(videos, key=rank)


def _describe(stream: VideoStream) -> str:
    context = stream.codec_context
    return f"{context.codec.canonical_name} {context.width}x{context.height}"


def _alpha_track(container: InputContainer, stream: VideoStream, scan: _Scan) -> int | None:
    """The track with the transparency of an animated AVIF: grey, of the same size and length."""
    if container.metadata.get("major_brand") != "avis":
        return None
    context, frames = stream.codec_context, scan.tracks[stream.index].packets
    for other in container.streams.video:
        alike = (other.codec_context.width, other.codec_context.height) == (context.width, context.height)
        grey = (other.codec_context.pix_fmt or "").startswith("gray")
        if other is not stream and alike and grey and scan.tracks[other.index].packets == frames:
            return other.index
    return None


# --- frames -----------------------------------------------------------------------------------------------------------


def _frames(path: Path, track: int, index: Path | None, keywords: Mapping[str, Any]) -> tuple[vs.VideoNode, list[int]]:
    """The clip and the time stamp of each frame, in ticks of the stream."""
    keep: dict[str, Any] = {"cachemode": _INDEX_NEVER}
    if index is not None:
        keep = {"cachemode": _INDEX_ALWAYS, "cachepath": plugin_path(index)}
    with _no_warning_of_outputs():
        read = vs.core.bs.VideoSource(plugin_path(path), track=track, exporttimestamps=1, **keywords, **keep)
    stamps = read["timestamps"]
    return read["clip"], [stamps] if isinstance(stamps, int) else list(stamps)


@contextmanager
def _no_warning_of_outputs() -> Iterator[None]:
    """Drop VapourSynth's warning that bestsource returns values it has not declared: the time stamps."""
    logger = logging.getLogger("vapoursynth")

    def passes(record: logging.LogRecord) -> bool:
        return "no return value" not in record.getMessage()

    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)


def _one_size(path: Path, clip: vs.VideoNode, resize: bool) -> vs.VideoNode:
    """The clip with all frames in the size and format of the first.

    Raises:
        MediaError: they differ and `resize` is False.
    """
    if clip.width and clip.format is not None and clip.format.color_family != vs.UNDEFINED:
        return clip
    with clip.get_frame(0) as frame:
        width, height, fmt = frame.width, frame.height, frame.format.id
    if not resize:
        raise MediaError(
            f"{path} changes its picture size or format, got {width}x{height} at first; give --resize to scale all "
            "frames to that"
        )
    return clip.resize.Bicubic(width=width, height=height, format=fmt)


def display_matrix(path: Path, track: int) -> tuple[int, ...] | None:
    """Nine numbers that rotate the pictures of a stream; None if they are upright."""
    with open_media(path) as container:
        frame = next(container.decode(container.streams[track]), None)
        if not isinstance(frame, av.VideoFrame) or not (side_data := frame.side_data.get(SideDataType.DISPLAYMATRIX)):
            return None
        return tuple(int(number) for number in np.frombuffer(bytes(side_data), np.int32))
