"""Audio that must be encoded again: for slow motion, or for a container that cannot hold the source's codec."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer

from vsrife.timing.clock import Clock
from vsrife.timing.timeline import exact
from vsrife.video.containers import can_hold

_MIN_TEMPO = Fraction(1, 2)  # of one atempo filter
_FALLBACK = ("aac", "libopus", "flac")  # where the source's codec has no encoder or the container cannot hold it


@dataclass(slots=True)
class EncodedAudio:
    """One audio track, slowed down at the same pitch if the clock does so; a `Track`.

    Attributes:
        stream: of the result.
        clock: from the source's time to the result's.
        graph: FFmpeg filters that change the tempo and convert samples for the encoder.
        time: seconds of the first sample in the result; None before it.
        samples: number handed to the encoder so far.
    """

    stream: AudioStream
    clock: Clock
    graph: av.filter.Graph
    time: Fraction | None = None
    samples: int = 0

    @classmethod
    def add(cls, source: AudioStream, target: OutputContainer, clock: Clock) -> EncodedAudio | None:
        """Add a stream and its encoder to a container; None if it can hold no codec that there is an encoder for."""
        name = _encoder(source, target.format.name, target.default_audio_codec)
        if name is None:
            return None
        stream = target.add_stream(name, rate=_rate(name, source.rate))
        assert isinstance(stream, AudioStream)
        stream.codec_context.layout = source.layout
        if source.bit_rate:
            stream.codec_context.bit_rate = source.bit_rate
        stream.time_base = Fraction(1, stream.rate)
        return cls(stream, clock, _graph(source, stream, clock.factor))

    def convert(self, packet: av.Packet[Any]) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        for frame in packet.decode():
            assert isinstance(frame, av.AudioFrame)
            if frame.pts is None or not self.clock.keeps(frame.pts * exact(frame.time_base)):
                continue
            if self.time is None:
                self.time = self.clock(frame.pts * exact(frame.time_base))
            self.graph.push(frame)
            packets += self._encode()
        return packets

    def flush(self) -> list[av.Packet[Any]]:
        self.graph.push(None)
        return self._encode() + [self._assigned(packet) for packet in self.stream.encode(None)]

    def _encode(self) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        rate = self.stream.rate
        for frame in self._filtered():
            assert self.time is not None
            frame.pts, frame.time_base = round(self.time * rate) + self.samples, Fraction(1, rate)
            self.samples += frame.samples
            packets += [self._assigned(packet) for packet in self.stream.encode(frame)]
        return packets

    def _filtered(self) -> Iterator[av.AudioFrame]:
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame

    def _assigned(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.stream = self.stream
        return packet


def _encoder(source: AudioStream, container: str, default: str) -> str | None:
    """The source's codec, the container's default or a fallback: the first that can be encoded and held."""
    for name in (source.codec_context.codec.canonical_name, default, *_FALLBACK):
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError:
            continue
        if codec.type == "audio" and not codec.experimental and can_hold(container, codec.name):
            return codec.name
    return None


def _rate(encoder: str, rate: int) -> int:
    """The nearest sample rate that the encoder supports."""
    rates = av.Codec(encoder, "w").audio_rates
    return min(rates, key=lambda offered: (abs(offered - rate), -offered)) if rates else rate


def _graph(source: AudioStream, target: AudioStream, factor: Fraction) -> av.filter.Graph:
    graph = av.filter.Graph()
    chain = [graph.add_abuffer(template=source)]
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
