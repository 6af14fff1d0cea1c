"""Encoded segments and the other streams of the source to one file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from vsrife.video.demuxing import media_path, open_media
from vsrife.video.encoder import VideoSettings
from vsrife.video.hdr import read_hdr10
from vsrife.video.losses import expect, find_losses
from vsrife.video.pixel_formats import PixelFormat, clip_format
from vsrife.video.rendering import RenderedClip, fit
from vsrife.video.resume import SegmentPacket
from vsrife.video.source import Source
from vsrife.video.streams import Remuxer, Warn, copy_description

_GLOBAL_HEADER = 0x40  # flag of a container format
_APPLE = "com.apple.quicktime."  # tags of its cameras and phones
_LOWEST_RATE = Fraction(1, 24 * 3600)  # MP4 holds durations in 32 bits
_HIGHEST_RATE = 1_000_000
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
    if rendered.times.mean_rate < _LOWEST_RATE:
        raise OptionError(
            f"a frame must last at most a day, got {float(1 / rendered.times.mean_rate):g} s; give a higher --rate or "
            "--fps, or less --slow-motion"
        )
    if rendered.times.mean_rate > _HIGHEST_RATE:
        raise OptionError(
            f"there must be at most {_HIGHEST_RATE} frames per second, got {float(rendered.times.mean_rate):g}; give "
            "--rate or --fps"
        )
    if rendered.times.rate is None and container_spec(container).constant_rate:
        raise OptionError(
            f"{container} has one frame rate, got a source whose rate varies ({float(rendered.times.mean_rate):.3f} on "
            "average); give --fps for a constant one, or a name in .mkv"
        )
    row = _codec(options.codec, container)
    pix_fmt = options.pix_fmt or _pixel_format(row, rendered, warn)
    stored = codecs.check_format(row.encoder, pix_fmt)
    hdr10 = read_hdr10(source.props)
    for loss in _losses(rendered, row, stored, container):
        warn(loss)
    settings = VideoSettings(
        encoder=row.encoder,
        options=codecs.encoder_options(row, options.crf, options.preset, hdr10),
        width=rendered.size[0], height=rendered.size[1], pix_fmt=pix_fmt, planar=stored.name,
        rate=rendered.times.mean_rate,
        sample_aspect=source.sample_aspect,
        color=encoder.color_tags(clip, source.props, stored, source.chroma_location),
        global_header=bool(av.ContainerFormat(container, "w").flags & _GLOBAL_HEADER),
    )  # fmt: skip
    return Encoding(fit(rendered, stored), settings, _clock(rendered), container, options.stretch_audio)


def _losses(rendered: RenderedClip, row: codecs.CodecSpec, stored: PixelFormat, container: str) -> Iterator[str]:
    """What neither the encoder nor the container has a place for."""
    if len(rendered.clips) > 1 and not stored.alpha:
        yield f"transparency left out, {stored.name} has none; --codec ffv1, prores or vp9 keep it"
    if stored.alpha and row.alpha_as_side_data and container not in MATROSKA:
        yield f"transparency left out, {container} holds none of {row.name}; .mkv and .webm do"
    if read_hdr10(rendered.source.props) is not None and row.hdr10 is None:
        yield f"HDR10 metadata left out, {row.name} has no place for it; --codec x265 and svt-av1 have"


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


def _pixel_format(row: codecs.CodecSpec, rendered: RenderedClip, warn: Warn) -> str:
    clip, (width, height) = rendered.clips[0], rendered.size
    source, odd = clip_format(clip.format, alpha=len(rendered.clips) > 1), bool(width % 2 or height % 2)
    if source.family == "RGB" and not codecs.preserves(row.encoder, source):
        subsampling = int(not odd)
        usual = PixelFormat("YUV", min(source.bits, 10), False, subsampling, subsampling, source.alpha)
        if not codecs.preserves(row.encoder, usual):
            usual = replace(usual, alpha=False)
        name = codecs.choose_format(row.encoder, usual)
        warn(f"{source.name} becomes {name}, {row.name} holds no RGB; --codec ffv1 keeps it")
        return name
    if odd and row.even_sizes and (source.subsampling_w or source.subsampling_h):
        name = codecs.choose_format(row.encoder, replace(source, subsampling_w=0, subsampling_h=0))
        warn(
            f"{source.name} becomes {name} to keep {width}x{height}, {row.name} with less chroma needs an even size; "
            "--codec vp9 or ffv1 keep both"
        )
        return name
    return codecs.choose_format(row.encoder, source)


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
        target = _target(path, encoding, source)
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
        warn: takes a message about everything that the container did not store.
    """
    clock, times = encoding.clock, encoding.rendered.times
    if frames < times.frames:
        clock = replace(clock, last=clock.pivot + (times[frames] - clock.pivot) / clock.factor)
    ticks_per_second = encoding.ticks_per_second()
    with _opened(encoding.rendered.source) as source, _target(path, encoding, source) as target:
        tick = Fraction(1, ticks_per_second)
        video, others = _open_streams(source, target, encoding, clock, tick, lambda _: None)
        expected = expect(target)
        for packet in _interleaved(_video_packets(video, encoding, segments, ticks_per_second), others):
            target.mux(packet)
    matrix = encoding.rendered.source.display_matrix
    for loss in find_losses(path, encoding.container, expected, encoding.settings, matrix):
        warn(loss)


@contextmanager
def _opened(source: Source) -> Iterator[InputContainer | None]:
    """The file that the other streams come from."""
    if not source.has_streams:
        yield None
        return
    with open_media(source.path) as container:
        yield container


def _target(path: Path, encoding: Encoding, source: InputContainer | None) -> OutputContainer:
    options = dict(container_spec(encoding.container).options)
    if encoding.container == "mov" and source is not None and any(key.startswith(_APPLE) for key in source.metadata):
        options["movflags"] += "+use_metadata_tags"  # the only way to keep these, but fewer players read the others
    return av.open(media_path(path), "w", format=encoding.container, container_options=options)


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
