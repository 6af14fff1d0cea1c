"""Copies audio, subtitles, covers, attachments, chapters and tags to the result, on its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.stream import SubtitleStream

from vsrife.timing.clock import Clock
from vsrife.timing.timeline import exact
from vsrife.video.audio import EncodedAudio
from vsrife.video.containers import QUICKTIME, ContainerSpec, can_copy, container_spec
from vsrife.video.demuxing import continuous_packets, open_media

type Packets = list[av.Packet[Any]]
type Warn = Callable[[str], None]

TEXT_SUBTITLES = frozenset({"subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text"})
# Describe the source file: the muxer writes its own, or they would be wrong.
_STALE_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
_FFMPEG = "Lavf"  # how it signs as "encoder" or "software"
_STALE_STREAM_TAGS = frozenset({"bps", "duration", "number_of_frames", "number_of_bytes", "encoder"})
_PREROLL_PACKETS = 3  # of AAC with the priming of 2112 samples that Apple's encoder writes
_QUICKTIME_TAGS = frozenset({"handler_name", "vendor_id"})  # without meaning elsewhere
# File name and type of a cover as an attachment, by its codec.
_COVERS = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}


class Track(Protocol):
    """A stream of the result that gets the packets of one of the source."""

    def convert(self, packet: av.Packet[Any]) -> Packets:
        """The packets to write for a packet of the source, which may be changed in place."""

    def flush(self) -> Packets:
        """The last packets."""


@dataclass(slots=True)
class CopiedStream:
    """Packets with their data unchanged, at other times.

    Attributes:
        stream: of the result.
        clock: from the source's time to the result's.
        preroll: packets that an edit list hides but the decoder may need, until the first that is played.
        end: of the last packet on the source's clock, for packets without a time.
        dts: of the last packet in the result, whose muxer demands increasing ones.
    """

    stream: Stream
    clock: Clock
    preroll: Packets = field(default_factory=list)
    end: Fraction = Fraction(0)
    dts: Fraction | None = None

    def convert(self, packet: av.Packet[Any]) -> Packets:
        if packet.is_discard:
            hidden_again = self.stream.container.format.name in QUICKTIME  # by an edit list of the result
            self.preroll = [*self.preroll[-_PREROLL_PACKETS:], packet] if hidden_again else [packet]
            return []
        packets, self.preroll = [*self.preroll, packet], []
        return [moved for each in packets for moved in self._moved(each)]

    def _moved(self, packet: av.Packet[Any]) -> Packets:
        tick = exact(packet.time_base)
        pts = packet.dts if packet.pts is None else packet.pts
        stamped = self.end if pts is None else pts * tick
        begin, lasts = stamped, (packet.duration or 0) * tick
        self.end = begin + lasts
        if self.stream.type == "subtitle":
            begin, lasts = self._clipped(begin, lasts)
        if not self.clock.keeps(begin):
            return []
        dts = begin if packet.dts is None or begin != stamped else packet.dts * tick
        if self.dts is not None and dts <= self.dts and self.stream.type != "subtitle":
            return []  # where the clock of a file restarts, its streams may overlap by a packet
        self.dts = dts
        packet.pts, packet.dts = (round(self.clock(seconds) / tick) for seconds in (begin, dts))
        packet.duration = round(lasts * self.clock.factor / tick)
        packet.stream = self.stream
        return [packet]

    def _clipped(self, begin: Fraction, lasts: Fraction) -> tuple[Fraction, Fraction]:
        """Start and duration of a subtitle within the part that is kept."""
        end, first, last = begin + lasts, self.clock.first, self.clock.last
        if first is not None and begin < first < end:
            begin = first
        return begin, (end if last is None else max(min(end, last), begin)) - begin

    def flush(self) -> Packets:
        return []


@dataclass(frozen=True, slots=True)
class Cover:
    """The single packet of a picture without a time."""

    stream: Stream

    def convert(self, packet: av.Packet[Any]) -> Packets:
        packet.pts = packet.dts = 0
        packet.stream = self.stream
        return [packet]

    def flush(self) -> Packets:
        return []


@dataclass(frozen=True, slots=True)
class ConvertedText:
    """Text subtitles in another format."""

    stream: Stream
    copied: CopiedStream

    def convert(self, packet: av.Packet[Any]) -> Packets:
        source, target = packet.stream.codec_context, self.stream.codec_context
        assert isinstance(source, SubtitleCodecContext)
        assert isinstance(target, SubtitleCodecContext)
        text = source.decode2(packet)
        if text is None or not len(text):
            return []
        packets = []
        for moved in self.copied.convert(packet):
            written = target.encode_subtitle(text)
            written.time_base, written.pts, written.dts = moved.time_base, moved.pts, moved.dts
            written.duration, written.stream = moved.duration, self.stream
            packets.append(written)
        return packets

    def flush(self) -> Packets:
        return []


@dataclass(frozen=True, slots=True)
class Remuxer:
    """Copies the other streams of a source to a container.

    Attributes:
        source, target: opened containers.
        video: index of the video stream, which is not copied.
        clock: from the source's time to the target's.
        stretch_audio: slow the sound down with the picture; otherwise slow motion has none.
        warn: takes a message about everything that cannot be kept.
    """

    source: InputContainer
    target: OutputContainer
    video: int
    clock: Clock
    stretch_audio: bool
    warn: Warn

    def add_tracks(self) -> dict[int, Track]:
        """Add a track for each stream that can be kept; returns them by index in the source."""
        tracks = {}
        for stream in self.source.streams:
            if stream.index != self.video and (track := self._add(stream)) is not None:
                tracks[stream.index] = track
        return tracks

    def add_tags(self) -> None:
        """Copy the container's tags and chapters."""
        tags = self.source.metadata
        self.target.metadata.update(
            {key: value for key, value in tags.items() if key.lower() not in _STALE_TAGS and value[:4] != _FFMPEG}
        )
        chapters = [chapter for entry in self.source.chapters() if (chapter := self._moved(entry))]
        if chapters and self.clock.ramp:
            self.warn(f"{len(chapters)} chapters left out of the speed ramp")
        elif chapters and not self._spec.chapters:
            self.warn(f"{len(chapters)} chapters left out, {self.target.format.name} holds none; .mkv and .mp4 do")
        elif chapters:
            self.target.set_chapters(chapters)

    def packets(self, tracks: Mapping[int, Track]) -> Iterator[av.Packet[Any]]:
        """The packets of all tracks, roughly in order of time."""
        streams = [stream for stream in self.source.streams if stream.index in tracks and stream.type != "attachment"]
        if not streams:
            return
        for packet, _ in continuous_packets(self.source):
            if packet.size and packet.stream.index in tracks:  # the last ones are empty
                yield from tracks[packet.stream.index].convert(packet)
        for track in tracks.values():
            yield from track.flush()

    @property
    def _spec(self) -> ContainerSpec:
        return container_spec(self.target.format.name)

    def _moved(self, chapter: Any) -> Any:
        """A chapter on the result's clock; None outside the part that is kept."""
        tick = exact(chapter["time_base"])
        start, end = chapter["start"] * tick, chapter["end"] * tick
        if self.clock.first is not None:
            start = max(start, self.clock.first)
        if self.clock.last is not None:
            end = min(end, self.clock.last)
        if start >= end:
            return None
        moved = {name: max(round(self.clock(time) / tick), 0) for name, time in (("start", start), ("end", end))}
        return {**chapter, **moved}

    def _add(self, stream: Stream) -> Track | None:
        if stream.type != "attachment" and _codec_name(stream) is None and not self._is_remade(stream):
            self.warn(f"{_named(stream)} left out, its codec is unknown")
            return None
        add = {"audio": self._add_audio, "subtitle": self._add_subtitles, "attachment": self._add_attachment}
        if stream.disposition & Disposition.attached_pic:
            return self._add_cover(stream)
        if self._is_remade(stream):
            return None
        if self.clock.ramp and stream.type in ("audio", "subtitle"):
            self.warn(f"{_named(stream)} left out of the speed ramp; add it afterwards")
            return None
        if stream.type in add:
            return add[stream.type](stream)
        self.warn(f"{_named(stream)} left out, only one video track, audio, subtitles and attachments are kept")
        return None

    def _is_remade(self, stream: Stream) -> bool:
        """Whether the stream is a QuickTime track of chapters or time code, which the muxer makes itself."""
        if stream.type != "data":
            return False
        quicktime = self.target.format.name in QUICKTIME
        chapters = stream.name == "bin_data" and bool(self.source.chapters())
        return chapters or (quicktime and "timecode" in stream.metadata)

    def _add_cover(self, stream: Stream) -> Track | None:
        kind = _COVERS.get(stream.codec_context.codec.canonical_name)
        if kind is not None and self._spec.attachments:
            self.target.add_attachment(*kind, self._cover(stream))
            return None
        if not self._spec.covers:
            self.warn(f"{_named(stream)} left out, {self.target.format.name} cannot hold the cover; .mkv and .mp4 can")
            return None
        return Cover(self._add_copy(stream).stream)

    def _cover(self, stream: Stream) -> bytes:
        """The picture, read through a second handle because the header needs it before the first packet."""
        with open_media(Path(self.source.name)) as again:
            return bytes(next(again.demux(again.streams[stream.index])))

    def _add_audio(self, stream: Stream) -> Track | None:
        if self._spec.one_audio and self.target.streams.audio:
            self.warn(f"{_named(stream)} left out, {self.target.format.name} holds one track of audio; .mkv holds all")
            return None
        if self.clock.factor == 1:
            return self._add_copy(stream) if self._can_copy(stream) else self._add_encoded(stream)
        if self.stretch_audio:
            return self._add_encoded(stream)
        self.warn(f"{_named(stream)} left out of slow motion; --stretch-audio slows it down as well")
        return None

    def _add_encoded(self, stream: Stream) -> Track | None:
        assert isinstance(stream, av.AudioStream)
        encoded = EncodedAudio.add(stream, self.target, self.clock)
        if encoded is None:
            self.warn(f"{_named(stream)} left out, {self.target.format.name} cannot hold it; .mkv can")
            return None
        if self.clock.factor == 1:
            name = self.target.format.name
            self.warn(f"{_named(stream)} becomes {encoded.stream.codec_context.name}, {name} cannot hold it as it is")
        copy_description(encoded.stream, stream)
        return encoded

    def _add_subtitles(self, stream: Stream) -> Track | None:
        if self._can_copy(stream):
            return self._add_copy(stream)
        codec, text = stream.codec_context.name, self._spec.text_codec
        if codec not in TEXT_SUBTITLES or text is None:
            self.warn(f"{_named(stream)} left out, {self.target.format.name} cannot hold it; .mkv can")
            return None
        written = self.target.add_stream(text)
        assert isinstance(written, SubtitleStream)
        assert isinstance(stream, SubtitleStream)
        written.codec_context.subtitle_header = stream.codec_context.subtitle_header or _ASS_HEADER
        written.time_base = stream.time_base
        written.codec_context.time_base = stream.time_base
        copy_description(written, stream)
        lost = "holds no styles; .mkv does" if codec in ("ass", "ssa") else "cannot hold it as it is"
        self.warn(f"{_named(stream)} becomes plain {text}, {self.target.format.name} {lost}")
        return ConvertedText(written, CopiedStream(written, self.clock))

    def _add_attachment(self, stream: Stream) -> Track | None:
        if not self._spec.attachments:
            self.warn(f"{_named(stream)} left out, {self.target.format.name} holds no files; .mkv does")
            return None
        return CopiedStream(self.target.add_stream_from_template(stream), self.clock)

    def _can_copy(self, stream: Stream) -> bool:
        return can_copy(self.target.format.name, stream)

    def _add_copy(self, stream: Stream) -> CopiedStream:
        copy = self.target.add_stream_from_template(stream, opaque=True)
        copy_description(copy, stream)
        return CopiedStream(copy, self.clock)


_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, \
Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, \
MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def copy_description(target: Stream, source: Stream) -> None:
    """Copy a stream's tags, such as its language, and its disposition flags."""
    quicktime = target.container.format.name in QUICKTIME
    dropped = frozenset() if quicktime else _QUICKTIME_TAGS
    tags = {
        key: value for key, value in stream_tags(source).items() if not _is_stale(key) and key.lower() not in dropped
    }
    target.metadata.update(tags)
    target.disposition = source.disposition


def stream_tags(stream: Stream) -> dict[str, str]:
    """A stream's tags. FFmpeg writes the title of a QuickTime track as its name, and reads it as such."""
    tags = dict(stream.metadata)
    if "mp4" in stream.container.format.name and "name" in tags:
        tags.setdefault("title", tags.pop("name"))
    return tags


def _is_stale(tag: str) -> bool:
    """Whether a tag describes the source's packets: Matroska's statistics, also with a language such as BPS-eng."""
    tag = tag.lower()
    return tag.partition("-")[0] in _STALE_STREAM_TAGS or tag.startswith("_statistics")


def _codec_name(stream: Stream) -> str | None:
    """FFmpeg's name of a stream's codec; None if it knows none."""
    context = stream.codec_context  # of a stream without a decoder there is none
    name = None if context is None else context.codec.canonical_name
    return None if name in (None, "none") else name


def _named(stream: Stream) -> str:
    language = f", {stream.language}" if stream.language else ""
    kind = "attachment" if stream.type == "attachment" else _codec_name(stream) or "of unknown codec"
    return f"track {stream.index} ({stream.type}, {stream.name if kind == 'attachment' else kind}{language})"
