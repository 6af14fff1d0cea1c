"""Containers: a row for each that is treated specially, and which codecs one can hold."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream

from vsrife.errors import OptionError
from vsrife.video.demuxing import media_path

QUICKTIME = ("mp4", "mov")
MATROSKA = ("matroska", "webm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What FFmpeg does not say about one of its muxers.

    Attributes:
        suffixes: file suffixes that choose it, where FFmpeg would choose another.
        text_codec: encoder for text subtitles that the container cannot hold as they are; None: it holds no text.
        codecs: names of the codecs that it can hold, where its muxer accepts more; None: what the muxer accepts.
        refused: names of codecs whose header its muxer writes, and then not the file.
        one_audio: players read a single track of audio.
        constant_rate: it stores no times, or only multiples of a frame.
        attachments, covers, chapters: whether it can hold these; a cover may also be an attachment.
        options: of the muxer.
    """

    suffixes: frozenset[str] = frozenset()
    text_codec: str | None = None
    codecs: frozenset[str] | None = None
    refused: frozenset[str] = frozenset()
    one_audio: bool = False
    constant_rate: bool = False
    attachments: bool = False
    covers: bool = False
    chapters: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


_OTHER = ContainerSpec()
_PLAYLISTS = (".m3u8", ".mpd", ".ism", ".f4m")
CONTAINERS = {
    "mp4": ContainerSpec(
        suffixes=frozenset({".mp4", ".m4v"}),
        text_codec="mov_text",
        covers=True,
        chapters=True,
        refused=frozenset({"vorbis"}),
        options={"movflags": "+faststart"},
    ),
    "mov": ContainerSpec(text_codec="mov_text", covers=True, chapters=True, options={"movflags": "+faststart"}),
    "matroska": ContainerSpec(text_codec="srt", attachments=True, chapters=True),
    "webm": ContainerSpec(
        text_codec="webvtt", chapters=True, codecs=frozenset({"vp8", "vp9", "av1", "vorbis", "opus", "webvtt"})
    ),
    "mpegts": ContainerSpec(
        codecs=frozenset(
            {
                "mpeg1video",
                "mpeg2video",
                "mpeg4",
                "h264",
                "hevc",
                "vvc",
                "dirac",
                "mp2",
                "mp3",
                "aac",
                "aac_latm",
                "ac3",
                "eac3",
                "dts",
                "truehd",
                "opus",
                "s302m",
                "dvb_subtitle",
                "dvb_teletext",
                "hdmv_pgs_subtitle",
            }
        )
    ),  # its muxer writes others as private data, which no player reads
    # It has no place for the size of a block, without which WMA is not decoded.
    "nut": ContainerSpec(chapters=True, refused=frozenset({"wmav1", "wmav2", "wmapro", "wmavoice"})),
    "flv": ContainerSpec(
        one_audio=True,
        codecs=frozenset({"flv1", "h264", "vp6f", "vp6a", "aac", "mp3", "speex", "nellymoser"}),
    ),  # others are extensions that few players read
    **dict.fromkeys(
        ("mpeg", "vob", "dvd", "svcd"),
        ContainerSpec(codecs=frozenset({"mpeg1video", "mpeg2video", "mp2", "mp3", "ac3", "dts", "dvd_subtitle"})),
    ),
    **dict.fromkeys(("avi", "h264", "hevc", "m4v", "mpeg1video", "mpeg2video"), ContainerSpec(constant_rate=True)),
}


def container_spec(name: str) -> ContainerSpec:
    """The row of FFmpeg's name of a container, or an empty one."""
    return CONTAINERS.get(name, _OTHER)


def container_of(output: Path) -> str:
    """FFmpeg's name of the container that a file's suffix chooses.

    Raises:
        OptionError: no container has this suffix.
    """
    suffix = output.suffix.lower()
    if suffix in _PLAYLISTS:
        raise OptionError(
            f"a playlist with its segments is no single file, got {output.name!r}; write .mp4, then split it"
        )
    special = next((name for name, spec in CONTAINERS.items() if suffix in spec.suffixes), None)
    if special is not None:
        return special
    try:
        with av.open(media_path(output), "w") as container:  # creates no file until something is written
            return container.format.name
    except ValueError as error:
        raise OptionError(f"no container has the suffix of {output.name!r}; use .mkv or .mp4") from error


@cache
def can_hold(container: str, encoder: str) -> bool:
    """Whether a container can hold an encoder's output. For audio it is tried, since not every muxer tells."""
    codec = av.Codec(encoder, "w")
    if not _may_hold(container, codec.canonical_name):
        return False

    def add(target: OutputContainer) -> None:
        stream = target.add_stream(encoder)
        if isinstance(stream, av.AudioStream):
            rates = codec.audio_rates or [48000]
            stream.codec_context.sample_rate = 48000 if 48000 in rates else rates[0]
            stream.codec_context.layout = "stereo"
            target.start_encoding()

    return _accepts(container, add)


def can_copy(container: str, stream: Stream) -> bool:
    """Whether a container can hold the packets of a stream as they are; tried with its header."""
    if not _may_hold(container, stream.codec_context.codec.canonical_name):
        return False

    def add(target: OutputContainer) -> None:
        target.add_stream_from_template(stream, opaque=True)
        target.start_encoding()

    return _accepts(container, add)


def _may_hold(container: str, codec: str) -> bool:
    spec = container_spec(container)
    return codec not in spec.refused and (spec.codecs is None or codec in spec.codecs)


def _accepts(container: str, add: Callable[[OutputContainer], None]) -> bool:
    """Whether `add` can add a stream to a container, and write its header if it starts encoding."""
    with av.open(io.BytesIO(), "w", format=container) as target:
        try:
            add(target)
        except (ValueError, av.FFmpegError):
            return False
        finally:
            with suppress(av.FFmpegError):  # some muxers object to a file without packets
                target.close()
    return True
