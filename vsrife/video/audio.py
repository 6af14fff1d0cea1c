"""Audio that must be encoded again: for slow motion, or for a container that cannot hold the source's codec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer

from vsrife.timing.clock import Clock
from vsrife.timing.timeline import exact
from vsrife.video.containers import can_hold

_MIN_TEMPO = Fraction(1, 2)  # of one atempo filter
# Layouts of files that only count their channels, as FFmpeg takes them.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_FALLBACK = ("aac", "libopus", "flac")  # where the source's codec has no encoder or the container cannot hold it


@dataclass(slots=True)
class EncodedAudio:
    """One audio track, slowed down at the same pitch if the clock does so; a `Track`.

    Attributes:
        source: the track.
        stream: of the result.
        clock: from the source's time to the result's.
        graph: FFmpeg filters that change the tempo and convert samples for the encoder; None before the first frame.
        kind: format, layout and rate of the frames that `graph` takes; broadcasts change theirs.
        time: seconds of the first sample in the result; None before it.
        samples: number handed to the encoder so far.
        end: of the last frame on the source's clock, for frames without a time.
    """

    source: AudioStream
    stream: AudioStream
    clock: Clock
    graph: av.filter.Graph | None = None
    kind: tuple[str, str, int] | None = None
    time: Fraction | None = None
    samples: int = 0
    end: Fraction = Fraction(0)

    @classmethod
    def add(cls, source: AudioStream, target: OutputContainer, clock: Clock) -> EncodedAudio | None:
        """Add a stream and its encoder to a container; None if it can hold no codec that there is an encoder for."""
        chosen = _choose_encoder(source, target.format.name, target.default_audio_codec)
        if chosen is None:
            return None
        stream = target.add_stream(chosen.name, rate=chosen.rate)
        assert isinstance(stream, AudioStream)
        chosen.configure(stream.codec_context)
        stream.time_base = Fraction(1, stream.rate)
        return cls(source, stream, clock)

    def convert(self, packet: av.Packet[Any]) -> list[av.Packet[Any]]:
        return self._converted(packet.decode())

    def flush(self) -> list[av.Packet[Any]]:
        packets = self._converted(self.source.codec_context.decode(None))
        if self.graph is None:
            return packets
        return packets + self._drained(self.graph) + [self._assigned(packet) for packet in self.stream.encode(None)]

    def _converted(self, frames: Iterable[Any]) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            begin = self.end if frame.pts is None else frame.pts * exact(frame.time_base)
            self.end = begin + Fraction(frame.samples, frame.sample_rate)
            if not self.clock.keeps(begin):
                continue
            if self.time is None:
                self.time = self.clock(begin)
            kind = frame.format.name, frame.layout.name, frame.sample_rate
            if self.graph is None or kind != self.kind:
                packets += [] if self.graph is None else self._drained(self.graph)
                self.graph, self.kind = _graph(frame, self.stream, self.clock.factor), kind
            self.graph.push(frame)
            packets += self._encode(self.graph)
        return packets

    def _drained(self, graph: av.filter.Graph) -> list[av.Packet[Any]]:
        graph.push(None)
        return self._encode(graph)

    def _encode(self, graph: av.filter.Graph) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        rate = self.stream.rate
        for frame in _filtered(graph):
            assert self.time is not None
            frame.pts, frame.time_base = round(self.time * rate) + self.samples, Fraction(1, rate)
            self.samples += frame.samples
            packets += [self._assigned(packet) for packet in self.stream.encode(frame)]
        return packets

    def _assigned(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.stream = self.stream
        return packet


def _filtered(graph: av.filter.Graph) -> Iterator[av.AudioFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame


@dataclass(frozen=True, slots=True)
class _EncoderChoice:
    """An encoder with settings that it accepts."""

    name: str
    rate: int
    layout: str
    bit_rate: int | None

    def configure(self, context: AudioCodecContext) -> None:
        context.sample_rate, context.layout = self.rate, self.layout
        if self.bit_rate is not None:
            context.bit_rate = self.bit_rate

    def opens(self) -> bool:
        context = av.CodecContext.create(self.name, "w")
        assert isinstance(context, AudioCodecContext)
        self.configure(context)
        context.format = (context.codec.audio_formats or [av.AudioFormat("s16")])[0]
        context.time_base = Fraction(1, self.rate)
        try:
            context.open()
        except (av.FFmpegError, ValueError):
            return False
        return True


def _choose_encoder(source: AudioStream, container: str, default: str) -> _EncoderChoice | None:
    """The source's codec, the container's default or a fallback: the first that can be encoded and held.

    Channels and bit rate are the source's; where the encoder rejects them, stereo and its default.
    """
    layout = source.layout.name if "channels" not in source.layout.name else _LAYOUTS.get(source.channels, "stereo")
    bit_rate = source.bit_rate if source.bit_rate and not _is_lossless(source) else None
    for name in (source.codec_context.codec.canonical_name, default, *_FALLBACK):
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError:
            continue
        if codec.type != "audio" or codec.experimental or not can_hold(container, codec.name):
            continue
        rate = _rate(codec.name, source.rate)
        for channels in dict.fromkeys((layout, "stereo")):
            for bits in dict.fromkeys((bit_rate, None)):
                choice = _EncoderChoice(codec.name, rate, channels, bits)
                if choice.opens():
                    return choice
    return None


def _is_lossless(source: AudioStream) -> bool:
    codec = source.codec_context.codec
    return codec.lossless and not codec.lossy


def _rate(encoder: str, rate: int) -> int:
    """The nearest sample rate that the encoder supports."""
    rates = av.Codec(encoder, "w").audio_rates
    return min(rates, key=lambda offered: (abs(offered - rate), -offered)) if rates else rate


def _graph(frame: av.AudioFrame, target: AudioStream, factor: Fraction) -> av.filter.Graph:
    """Filters for frames like this one; what a container says of its audio may differ from what the decoder gives."""
    graph = av.filter.Graph()
    tick = Fraction(1, frame.sample_rate) if frame.time_base is None else exact(frame.time_base)
    chain = [
        graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=tick
        )
    ]
    while factor > 1:
        tempo = max(1 / factor, _MIN_TEMPO)
        chain.append(graph.add("atempo", f"{float(tempo):.9f}"))
        factor *= tempo
    context = target.codec_context
    chain.append(
        graph.add(
            "aformat",
            f"sample_fmts={context.format.name}:sample_rates={context.sample_rate}:channel_layouts={context.layout.name}",
        )
    )
    chain.append(graph.add("abuffersink"))
    graph.link_nodes(*chain).configure()
    return graph
