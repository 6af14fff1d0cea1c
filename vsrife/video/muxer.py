"""Encoded pieces and the other streams of the source to one file."""

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
import vapoursynth as vs
from av.container import InputContainer, OutputContainer
from av.packet import PacketSideData, packet_sidedata_type_from_literal
from av.video.stream import VideoStream

from vsrife.errors import OptionError
from vsrife.timing.timeline import exact
from vsrife.video import codecs, encoder, resume
from vsrife.video.encoder import VideoSettings
from vsrife.video.rendering import Product
from vsrife.video.resume import Piece
from vsrife.video.source import Source
from vsrife.video.streams import Clock, Remuxer, Warn, container_of, container_spec, describe

_GLOBAL_HEADER = 0x40  # flag of a container format
_MATROSKA = ("matroska", "webm")
_LARGEST_UNITS = 2**31 - 1  # in a second, of a track's clock
_ROUND_UNITS = 1_000_000  # where exact times would need more


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How the result is stored; None: what fits the source and the container."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    stretch_audio: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """How a product is stored.

    Attributes:
        product: its clips have the format that is encoded.
        settings: of the encoder.
        clock: from the source's time to the file's.
        container: FFmpeg's name of it.
        stretch_audio: slow the sound down with the picture.
    """

    product: Product
    settings: VideoSettings
    clock: Clock
    container: str
    stretch_audio: bool

    def units(self) -> int:
        """Ticks in a second in which all times of the frames are whole, if there are not too many."""
        times, plan, zero = self.product.times, self.product.plan, self.clock.zero
        start = plan.timeline.start
        if times.rate is not None:
            units = math.lcm((start - zero).denominator, times.rate.numerator)
        else:
            tick = plan.timeline.tick / Fraction(plan.rife["multi"]).numerator * plan.slow_motion
            units = math.lcm(
                tick.denominator, (start * plan.slow_motion).denominator, start.denominator, zero.denominator
            )
        return units if units <= _LARGEST_UNITS else _ROUND_UNITS


# --- choices ----------------------------------------------------------------------------------------------------------


def plan_encoding(product: Product, output: Path, options: EncodeOptions, warn: Warn) -> Encoding:
    """Choose container, encoder and pixel format.

    Raises:
        OptionError: they do not go together, or cannot hold the source's format.
    """
    source, clip = product.source, product.clips[0]
    container = _container(output)
    row = _codec(options.codec, container)
    for name, value in row.environment.items():
        os.environ.setdefault(name, value)
    pix_fmt = options.pix_fmt or _pixel_format(row.encoder, product, warn)
    layout = codecs.check_format(row.encoder, pix_fmt)
    clips = fit(product, layout)
    for lost in _losses(product, row, layout, container):
        warn(lost)
    settings = VideoSettings(
        encoder=row.encoder,
        options=codecs.encoder_options(row, options.crf, options.preset, codecs.light_of(source.props)),
        width=clip.width, height=clip.height, pix_fmt=pix_fmt, planar=layout.name, rate=product.times.mean_rate,
        sample_aspect=source.sample_aspect,
        colours=encoder.colours_of(clip, source.props, layout, source.chroma_location),
        global_header=bool(av.ContainerFormat(container, "w").flags & _GLOBAL_HEADER),
    )  # fmt: skip
    return Encoding(replace(product, clips=clips), settings, _clock(product), container, options.stretch_audio)


def _losses(product: Product, row: codecs.CodecSpec, layout: codecs.Layout, container: str) -> Iterator[str]:
    """What neither the encoder nor the container has a place for."""
    aspect = product.source.sample_aspect
    if len(product.clips) > 1 and not layout.alpha:
        yield f"transparency left out, {layout.name} has none; --codec ffv1, prores or vp9 keep it"
    if layout.alpha and row.alpha_beside and container not in _MATROSKA:
        yield f"transparency left out, {container} holds none of {row.name}; .mkv and .webm do"
    if codecs.light_of(product.source.props) is not None and row.light is None:
        yield f"HDR10 mastering data left out, {row.name} has no place for it; --codec x265 and svt-av1 have"
    if aspect != 1 and not row.keeps_aspect and container in _MATROSKA:
        shape = f"{aspect.numerator}:{aspect.denominator}"
        yield f"the pixel shape {shape} left out, {row.name} in {container} has no place for it; in .mp4 it has"


def _container(output: Path) -> str:
    """FFmpeg's name of the container that a file name asks for."""
    known = container_of(output.suffix)
    if known is not None:
        return known
    try:
        with av.open(os.fspath(output), "w") as container:  # opens no file until something is written
            return container.format.name
    except ValueError as error:
        raise OptionError(
            f"no container goes by the name {output.name!r}, got {output.suffix!r}; use .mkv or .mp4"
        ) from error


def _codec(name: str | None, container: str) -> codecs.CodecSpec:
    usable = codecs.codecs_for(container)
    if name is None:
        if not usable:
            raise OptionError(f"{container} holds none of the usual codecs; give --codec, or a name in .mkv")
        return usable[0]
    row = codecs.find_codec(name)
    if not codecs.holds(container, row.encoder):
        names = ", ".join(each.name for each in usable)
        raise OptionError(f"{container} cannot hold {row.name}; it holds {names or 'other codecs'}; .mkv holds most")
    return row


def _pixel_format(encoder_name: str, product: Product, warn: Warn) -> str:
    clip = product.clips[0]
    layout = codecs.clip_layout(clip.format, alpha=len(product.clips) > 1)
    if layout.family != "RGB" or codecs.keeps(encoder_name, layout):
        return codecs.choose_format(encoder_name, layout)
    halved = not (clip.width % 2 or clip.height % 2)
    usual = codecs.Layout("YUV", min(layout.bits, 10), False, int(halved), int(halved))
    name = codecs.choose_format(encoder_name, usual)
    warn(f"{layout.name} becomes {name}, {encoder_name} holds no RGB; --codec ffv1 keeps it")
    return name


def fit(product: Product, layout: codecs.Layout) -> list[vs.VideoNode]:
    """The product's clips in a format, with alpha if the format has it."""
    clips, props = product.clips, product.source.props
    fitted = [encoder.converted(clips[0], layout, props)]
    if layout.alpha:
        grey = replace(layout, family="GRAY", subsampling_w=0, subsampling_h=0, alpha=False)
        opaque = 1 if grey.floating else 2**grey.bits - 1
        alpha = clips[1] if len(clips) > 1 else clips[0].std.BlankClip(
            format=grey.vapoursynth_id, color=opaque, keep=True)  # fmt: skip
        fitted.append(encoder.converted(alpha, grey, {}))
    return fitted


def _clock(product: Product) -> Clock:
    plan, source = product.plan, product.source
    first, last = plan.timeline.start, plan.timeline.end
    begins = plan.trim is not None and plan.trim[0] > 0
    ends = plan.trim is not None and last < source.timeline.end
    return Clock(
        zero=first if begins else source.origin, pivot=first, factor=plan.slow_motion,
        first=first if begins else None, last=last if ends else None, ramp=plan.retimed,
    )  # fmt: skip


# --- the file ---------------------------------------------------------------------------------------------------------


def check_streams(encoding: Encoding, path: Path, warn: Warn) -> None:
    """Write the head of the file to `path`: what a container or an encoder refuses shows before the first frame.

    Raises:
        MediaError: says what is refused.
    """
    with _opened(encoding.product.source) as source:
        target = _target(path, encoding)
        try:
            _open_streams(source, target, encoding, encoding.clock, Fraction(1), warn)
        except (av.error.FFmpegError, ValueError) as error:
            raise encoder.encoder_error(encoding.settings, error) from error
        finally:
            with suppress(av.error.FFmpegError):  # a file without packets is no file to some
                target.close()
            path.unlink(missing_ok=True)


def write_file(path: Path, encoding: Encoding, pieces: Sequence[Path], frames: int, warn: Warn) -> None:
    """Put pieces and the other streams of the source together.

    Args:
        path: of the file.
        encoding: of the pieces.
        pieces: files of `segments`, in order.
        frames: in them; fewer than all make a file that ends there, sound included.
        warn: told of tags that the container did not take.
    """
    clock, times = encoding.clock, encoding.product.times
    if frames < times.frames:
        clock = replace(clock, last=clock.pivot + (times[frames] - clock.pivot) / clock.factor)
    units = encoding.units()
    with _opened(encoding.product.source) as source, _target(path, encoding) as target:
        video, others = _open_streams(source, target, encoding, clock, Fraction(1, units), lambda _: None)
        for packet in _interleaved(_video_packets(video, encoding, pieces, units), others):
            target.mux(packet)
        wanted = dict(target.metadata)
    if lost := _lost_tags(path, wanted):
        warn(f"tags left out, {encoding.container} has no place for them: {', '.join(lost)}; .mkv has")
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _lost_tags(path: Path, wanted: Mapping[str, str]) -> list[str]:
    """Which tags are not in a file that was given them; muxers drop what they do not know without a word."""
    with av.open(os.fspath(path)) as container:
        there = {key.lower() for key in container.metadata}
    return sorted(key for key in wanted if key.lower() not in there)


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
    source: InputContainer | None, target: OutputContainer, encoding: Encoding, clock: Clock, unit: Fraction, warn: Warn
) -> tuple[VideoStream, Iterator[av.Packet[Any]]]:
    """Write the head of the file; gives the video stream, and the packets of all others."""
    track = encoding.product.source.track
    video = _video_stream(target, encoding, unit)
    others: Iterator[av.Packet[Any]] = iter(())
    if source is not None:
        describe(video, source.streams[track])
        remuxer = Remuxer(source, target, track, clock, encoding.stretch_audio, warn)
        others = remuxer.packets(remuxer.add_tracks())
        remuxer.add_tags()
    target.start_encoding()
    return video, others


def _video_stream(target: OutputContainer, encoding: Encoding, unit: Fraction) -> VideoStream:
    """A stream whose head is that of the pieces: the same encoder with the same settings."""
    stream = target.add_stream(encoding.settings.encoder, rate=encoding.settings.rate)
    assert isinstance(stream, VideoStream)
    encoder.configure(stream.codec_context, encoding.settings)
    stream.time_base = unit
    stream.set_display_matrix(encoding.product.source.display_matrix)
    if encoding.settings.planar.startswith("yuva"):
        stream.metadata["alpha_mode"] = "1"  # where Matroska keeps transparency beside the picture
    return stream


def _video_packets(
    stream: VideoStream, encoding: Encoding, pieces: Sequence[Path], units: int
) -> Iterator[av.Packet[Any]]:
    """Packets with their times. They are decoded in the order they come; each at the time of a frame some way back."""
    times, zero, rate = encoding.product.times, encoding.clock.zero, encoding.settings.rate
    delay = max(resume.read_ending(path).delay for path in pieces)

    def ticks(n: int) -> int:
        if n < 0:  # before the first frame
            return ticks(0) + n * max(1, round(units / rate))
        return round((times[n] - zero) * units)

    for number, piece in enumerate(_pieces(pieces)):
        packet: av.Packet[Any] = av.Packet(piece.data)
        packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, units), piece.key
        packet.pts, packet.dts = ticks(piece.frame), ticks(number - delay)
        packet.duration = ticks(piece.frame + 1) - packet.pts
        if piece.beside:
            packet.set_sidedata(_side_data(piece.beside))
        yield packet


def _side_data(beside: bytes) -> PacketSideData:
    make: Any = PacketSideData  # its types do not tell how it is made
    side_data: PacketSideData = make(packet_sidedata_type_from_literal(resume.BESIDE), len(beside))
    side_data.update(beside)
    return side_data


def _pieces(paths: Sequence[Path]) -> Iterator[Piece]:
    for path in paths:
        yield from resume.read_packets(path)


def _interleaved(video: Iterator[av.Packet[Any]], others: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    """In the order of decoding times, as far as each side is in order."""
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
