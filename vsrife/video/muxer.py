"""Encoded segments and the other streams of the source to one file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.packet import PacketSideData, packet_sidedata_type_from_literal
from av.video.stream import VideoStream

from vsrife.errors import OptionError
from vsrife.timing.clock import Clock
from vsrife.timing.timeline import exact
from vsrife.video import codecs, encoder, resume
from vsrife.video.containers import MATROSKA, can_hold, container_of, container_spec
from vsrife.video.encoder import VideoSettings
from vsrife.video.hdr import read_hdr10
from vsrife.video.pixel_formats import PixelFormat, clip_format
from vsrife.video.rendering import RenderedClip, fit
from vsrife.video.resume import SegmentPacket
from vsrife.video.source import Source
from vsrife.video.streams import Remuxer, Warn, copy_description

_GLOBAL_HEADER = 0x40  # flag of a container format
_MAX_TICKS_PER_SECOND = 2**31 - 1  # of a track's time base
_ROUND_TICKS_PER_SECOND = 1_000_000  # where exact times would need more


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How to store the result; None: what fits the source and the container."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    stretch_audio: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """A clip that is ready to be encoded.

    Attributes:
        rendered: its clips have the pixel format that is encoded.
        settings: of the encoder.
        clock: from the source's time to the file's.
        container: FFmpeg's name of it.
        stretch_audio: slow the sound down with the picture.
    """

    rendered: RenderedClip
    settings: VideoSettings
    clock: Clock
    container: str
    stretch_audio: bool

    def ticks_per_second(self) -> int:
        """The smallest clock on which all frames have whole times, or 1 MHz if that is too fast."""
        times, plan, zero = self.rendered.times, self.rendered.plan, self.clock.zero
        start = plan.timeline.start
        if times.rate is not None:
            ticks = math.lcm((start - zero).denominator, times.rate.numerator)
        else:
            tick = plan.timeline.tick / Fraction(plan.rife["multi"]).numerator * plan.slow_motion
            ticks = math.lcm(
                tick.denominator, (start * plan.slow_motion).denominator, start.denominator, zero.denominator
            )
        return ticks if ticks <= _MAX_TICKS_PER_SECOND else _ROUND_TICKS_PER_SECOND


# --- choices ----------------------------------------------------------------------------------------------------------


def plan_encoding(rendered: RenderedClip, output: Path, options: EncodeOptions, warn: Warn) -> Encoding:
    """Choose container, encoder and pixel format.

    Raises:
        OptionError: they do not go together, or cannot hold the source's format.
    """
    source, clip = rendered.source, rendered.clips[0]
    container = container_of(output)
    row = _codec(options.codec, container)
    pix_fmt = options.pix_fmt or _pixel_format(row.encoder, rendered, warn)
    stored = codecs.check_format(row.encoder, pix_fmt)
    hdr10 = read_hdr10(source.props)
    for loss in _losses(rendered, row, stored, container):
        warn(loss)
    settings = VideoSettings(
        encoder=row.encoder,
        options=codecs.encoder_options(row, options.crf, options.preset, hdr10),
        width=clip.width, height=clip.height, pix_fmt=pix_fmt, planar=stored.name, rate=rendered.times.mean_rate,
        sample_aspect=source.sample_aspect,
        color=encoder.color_tags(clip, source.props, stored, source.chroma_location),
        global_header=bool(av.ContainerFormat(container, "w").flags & _GLOBAL_HEADER),
    )  # fmt: skip
    return Encoding(fit(rendered, stored), settings, _clock(rendered), container, options.stretch_audio)


def _losses(rendered: RenderedClip, row: codecs.CodecSpec, stored: PixelFormat, container: str) -> Iterator[str]:
    """What neither the encoder nor the container has a place for."""
    aspect = rendered.source.sample_aspect
    if len(rendered.clips) > 1 and not stored.alpha:
        yield f"transparency left out, {stored.name} has none; --codec ffv1, prores or vp9 keep it"
    if stored.alpha and row.alpha_as_side_data and container not in MATROSKA:
        yield f"transparency left out, {container} holds none of {row.name}; .mkv and .webm do"
    if read_hdr10(rendered.source.props) is not None and row.hdr10 is None:
        yield f"HDR10 metadata left out, {row.name} has no place for it; --codec x265 and svt-av1 have"
    if aspect != 1 and not row.stores_aspect and container in MATROSKA:
        ratio = f"{aspect.numerator}:{aspect.denominator}"
        yield f"pixel aspect ratio {ratio} left out, {row.name} in {container} has no place for it; in .mp4 it has"


def _codec(name: str | None, container: str) -> codecs.CodecSpec:
    usable = codecs.codecs_for(container)
    if name is None:
        if not usable:
            raise OptionError(f"{container} holds none of the usual codecs; give --codec, or a name in .mkv")
        return usable[0]
    row = codecs.find_codec(name)
    if not can_hold(container, row.encoder):
        names = ", ".join(each.name for each in usable)
        raise OptionError(f"{container} cannot hold {row.name}; it holds {names or 'other codecs'}; .mkv holds most")
    return row


def _pixel_format(encoder_name: str, rendered: RenderedClip, warn: Warn) -> str:
    clip = rendered.clips[0]
    source = clip_format(clip.format, alpha=len(rendered.clips) > 1)
    if source.family != "RGB" or codecs.preserves(encoder_name, source):
        return codecs.choose_format(encoder_name, source)
    subsampling = int(not (clip.width % 2 or clip.height % 2))
    usual = PixelFormat("YUV", min(source.bits, 10), False, subsampling, subsampling)
    name = codecs.choose_format(encoder_name, usual)
    warn(f"{source.name} becomes {name}, {encoder_name} holds no RGB; --codec ffv1 keeps it")
    return name


def _clock(rendered: RenderedClip) -> Clock:
    plan, source = rendered.plan, rendered.source
    first, last = plan.timeline.start, plan.timeline.end
    begins = plan.trim is not None and plan.trim[0] > 0
    ends = plan.trim is not None and last < source.timeline.end
    return Clock(
        zero=first if begins else source.origin, pivot=first, factor=plan.slow_motion,
        first=first if begins else None, last=last if ends else None, ramp=plan.retimed,
    )  # fmt: skip


# --- the file ---------------------------------------------------------------------------------------------------------


def check_streams(encoding: Encoding, path: Path, warn: Warn) -> None:
    """Write the head of the file to `path` and delete it: rejections by container or encoder show before the work.

    Raises:
        MediaError: names what is rejected.
    """
    with _opened(encoding.rendered.source) as source:
        target = _target(path, encoding)
        try:
            _open_streams(source, target, encoding, encoding.clock, Fraction(1), warn)
        except (av.error.FFmpegError, ValueError) as error:
            raise encoder.encoder_error(encoding.settings, error) from error
        finally:
            with suppress(av.error.FFmpegError):  # some muxers reject a file without packets
                target.close()
            path.unlink(missing_ok=True)


def write_file(path: Path, encoding: Encoding, segments: Sequence[Path], frames: int, warn: Warn) -> None:
    """Write segments and the other streams of the source to a file.

    Args:
        path: of the file.
        encoding: of the segments.
        segments: files of `resume`, in order.
        frames: in them; if fewer than all, the other streams end there too.
        warn: takes a message about tags that the container did not store.
    """
    clock, times = encoding.clock, encoding.rendered.times
    if frames < times.frames:
        clock = replace(clock, last=clock.pivot + (times[frames] - clock.pivot) / clock.factor)
    ticks_per_second = encoding.ticks_per_second()
    with _opened(encoding.rendered.source) as source, _target(path, encoding) as target:
        tick = Fraction(1, ticks_per_second)
        video, others = _open_streams(source, target, encoding, clock, tick, lambda _: None)
        for packet in _interleaved(_video_packets(video, encoding, segments, ticks_per_second), others):
            target.mux(packet)
        wanted = dict(target.metadata)
    if lost := _lost_tags(path, wanted):
        warn(f"tags left out, {encoding.container} has no place for them: {', '.join(lost)}; .mkv has")


def _lost_tags(path: Path, wanted: Mapping[str, str]) -> list[str]:
    """Tags that were given to a muxer but are not in its file; muxers drop unknown ones silently."""
    with av.open(os.fspath(path)) as container:
        stored = {key.lower() for key in container.metadata}
    return sorted(key for key in wanted if key.lower() not in stored)


@contextmanager
def _opened(source: Source) -> Iterator[InputContainer | None]:
    """The file that the other streams come from."""
    if not source.has_streams:
        yield None
        return
    with av.open(os.fspath(source.path)) as container:
        yield container


def _target(path: Path, encoding: Encoding) -> OutputContainer:
    options = dict(container_spec(encoding.container).options)
    return av.open(os.fspath(path), "w", format=encoding.container, container_options=options)


def _open_streams(
    source: InputContainer | None, target: OutputContainer, encoding: Encoding, clock: Clock, tick: Fraction, warn: Warn
) -> tuple[VideoStream, Iterator[av.Packet[Any]]]:
    """Write the head of the file; returns the video stream, and the packets of all others."""
    track = encoding.rendered.source.track
    video = _video_stream(target, encoding, tick)
    others: Iterator[av.Packet[Any]] = iter(())
    if source is not None:
        copy_description(video, source.streams[track])
        remuxer = Remuxer(source, target, track, clock, encoding.stretch_audio, warn)
        others = remuxer.packets(remuxer.add_tracks())
        remuxer.add_tags()
    with codecs.silenced(encoding.settings.encoder):
        target.start_encoding()
    return video, others


def _video_stream(target: OutputContainer, encoding: Encoding, tick: Fraction) -> VideoStream:
    """A stream with the header of the segments, from the same encoder with the same settings."""
    stream = target.add_stream(encoding.settings.encoder, rate=encoding.settings.rate)
    assert isinstance(stream, VideoStream)
    encoder.configure(stream.codec_context, encoding.settings)
    stream.time_base = tick
    stream.set_display_matrix(encoding.rendered.source.display_matrix)
    if encoding.settings.planar.startswith("yuva"):
        stream.metadata["alpha_mode"] = "1"  # Matroska's mark of alpha in side data
    return stream


def _video_packets(
    stream: VideoStream, encoding: Encoding, segments: Sequence[Path], ticks_per_second: int
) -> Iterator[av.Packet[Any]]:
    """Packets with their times. The nth packet is decoded at the time of frame n less the delay of the encoder."""
    times, zero, rate = encoding.rendered.times, encoding.clock.zero, encoding.settings.rate
    delay = max(resume.read_footer(path).delay for path in segments)

    def ticks(n: int) -> int:
        if n < 0:  # before the first frame
            return ticks(0) + n * max(1, round(ticks_per_second / rate))
        return round((times[n] - zero) * ticks_per_second)

    for number, stored in enumerate(_stored_packets(segments)):
        packet: av.Packet[Any] = av.Packet(stored.data)
        packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, ticks_per_second), stored.key
        packet.pts, packet.dts = ticks(stored.frame), ticks(number - delay)
        packet.duration = ticks(stored.frame + 1) - packet.pts
        if stored.side_data:
            packet.set_sidedata(_side_data(stored.side_data))
        yield packet


def _side_data(data: bytes) -> PacketSideData:
    make: Any = PacketSideData  # its stubs lack the constructor's arguments
    side_data: PacketSideData = make(packet_sidedata_type_from_literal(resume.SIDE_DATA), len(data))
    side_data.update(data)
    return side_data


def _stored_packets(segments: Sequence[Path]) -> Iterator[SegmentPacket]:
    for path in segments:
        yield from resume.read_packets(path)


def _interleaved(video: Iterator[av.Packet[Any]], others: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    """Merge by decoding time, as far as each side is in order."""
    waiting = next(video, None)
    for packet in others:
        while waiting is not None and _seconds(waiting) <= _seconds(packet):
            yield waiting
            waiting = next(video, None)
        yield packet
    while waiting is not None:
        yield waiting
        waiting = next(video, None)


def _seconds(packet: av.Packet[Any]) -> Fraction:
    stamp, tick = packet.pts if packet.dts is None else packet.dts, packet.time_base
    return (stamp or 0) * exact(tick)
