"""Sound that has to be encoded again: slower, at the same pitch, or for a container that cannot hold it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.audio.stream import AudioStream
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer

from vsrife.timing.timeline import exact
from vsrife.video.codecs import holds

if TYPE_CHECKING:
    from vsrife.video.streams import Clock

_SLOWEST = Fraction(1, 2)  # tempo of one filter
_FALLBACK = ("aac", "libopus", "flac")  # where the source's codec has no encoder or the container does not hold it


@dataclass(slots=True)
class SlowedAudio:
    """One audio track; a `Track`.

    Attributes:
        stream: of the target.
        clock: from the source's time to the result's.
        graph: changes the tempo, and samples into what the encoder takes.
        time: of the first sample in the result, seconds; None before it.
        samples: handed to the encoder so far.
    """

    stream: AudioStream
    clock: Clock
    graph: av.filter.Graph
    time: Fraction | None = None
    samples: int = 0

    @classmethod
    def add(cls, source: AudioStream, target: OutputContainer, clock: Clock) -> SlowedAudio | None:
        """Add an encoder to a container for a track of another one; None where it holds nothing that will do."""
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
        return self._encode() + [self._owned(packet) for packet in self.stream.encode(None)]

    def _encode(self) -> list[av.Packet[Any]]:
        packets: list[av.Packet[Any]] = []
        rate = self.stream.rate
        for frame in self._filtered():
            assert self.time is not None
            frame.pts, frame.time_base = round(self.time * rate) + self.samples, Fraction(1, rate)
            self.samples += frame.samples
            packets += [self._owned(packet) for packet in self.stream.encode(frame)]
        return packets

    def _filtered(self) -> Iterator[av.AudioFrame]:
        while True:
            try:
                frame = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame

    def _owned(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        packet.stream = self.stream
        return packet


def _encoder(source: AudioStream, container: str, usual: str) -> str | None:
    """The source's codec where it can be encoded and held, else one that can."""
    for name in (source.codec_context.codec.canonical_name, usual, *_FALLBACK):
        try:
            codec = av.Codec(name, "w")
        except UnknownCodecError:
            continue
        if codec.type == "audio" and not codec.experimental and holds(container, codec.name):
            return codec.name
    return None


def _rate(encoder: str, rate: int) -> int:
    """The nearest sample rate that the encoder takes."""
    rates = av.Codec(encoder, "w").audio_rates
    return min(rates, key=lambda offered: (abs(offered - rate), -offered)) if rates else rate


def _graph(source: AudioStream, target: AudioStream, factor: Fraction) -> av.filter.Graph:
    graph = av.filter.Graph()
    chain = [graph.add_abuffer(template=source)]
    while factor > 1:
        tempo = max(1 / factor, _SLOWEST)
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
