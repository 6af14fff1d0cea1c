"""Video codecs: a row for each that `--codec` names, its options, and the pixel formats it stores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import av
import torch
from av.codec.codec import UnknownCodecError

from vsrife.errors import OptionError, shown
from vsrife.video.containers import can_hold
from vsrife.video.hdr import Hdr10Metadata, Hdr10Parameters, decimal_text, integer_text
from vsrife.video.pixel_formats import PixelFormat, named_format

_FULL_RANGE_NAMES = "yuvj"  # FFmpeg's older names for full range, which is a tag here


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """A codec with a short name.

    Attributes:
        name: value of `--codec`.
        encoder: FFmpeg's name.
        crf: default of `--crf`; None: the encoder has no such option.
        preset: default of `--preset`; None: FFmpeg's.
        preset_option: name of the encoder's option that `--preset` sets.
        options: always set.
        hdr10: how it takes HDR10 metadata; None: it has no place for it.
        even_sizes: width and height must be even if chroma is subsampled.
        rejected_formats: pixel formats that it offers but does not open with.
        alpha_as_side_data: whether alpha is a second stream in the packets' side data.
        environment: variables that keep the library from writing to stderr, set while it starts.
    """

    name: str
    encoder: str
    crf: int | None = None
    preset: str | None = None
    preset_option: str = "preset"
    options: Mapping[str, str] = field(default_factory=dict)
    hdr10: Hdr10Parameters | None = None
    even_sizes: bool = False
    rejected_formats: frozenset[str] = frozenset()
    alpha_as_side_data: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


CODECS = (
    CodecSpec(name="x264", encoder="libx264", crf=18, preset="medium", even_sizes=True,
              hdr10=Hdr10Parameters("x264-params", "mastering-display", "cll", integer_text)),
    CodecSpec(name="x265", encoder="libx265", crf=20, preset="medium", even_sizes=True,
              options={"x265-params": "log-level=error"}, rejected_formats=frozenset({"yuva420p", "yuva420p10le"}),
              hdr10=Hdr10Parameters("x265-params", "master-display", "max-cll", integer_text, "hdr10=1")),
    CodecSpec(name="svt-av1", encoder="libsvtav1", crf=26, preset="6",
              environment={"SVT_LOG": "1"},
              hdr10=Hdr10Parameters("svtav1-params", "mastering-display", "content-light", decimal_text)),
    CodecSpec(name="vp9", encoder="libvpx-vp9", crf=24, preset="2", preset_option="cpu-used",
              options={"b": "0", "row-mt": "1"}, alpha_as_side_data=True,
              rejected_formats=frozenset({"gbrap", "gbrap10le", "gbrap12le", "gbrap14le", "gbrap16le"})),
    CodecSpec(name="ffv1", encoder="ffv1", options={"level": "3", "slicecrc": "1", "g": "1"}),
    CodecSpec(name="prores", encoder="prores_ks", options={"vendor": "apl0"}),
)  # fmt: skip


def library_versions() -> dict[str, str]:
    """Versions of FFmpeg's libraries inside PyAV, by their names."""
    return {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}


def missing_codecs() -> list[str]:
    """Names of `CODECS` whose encoder this build of PyAV lacks."""
    return [row.name for row in CODECS if row.encoder not in av.codecs_available]


def find_codec(name: str) -> CodecSpec:
    """The row of a short name or of FFmpeg's, or an empty row for any other video encoder of PyAV.

    Raises:
        OptionError: there is no such video encoder.
    """
    for row in CODECS:
        if name in (row.name, row.encoder):
            return row
    try:
        codec = av.Codec(name, "w")
    except UnknownCodecError:
        codec = None
    if codec is None or codec.type != "video":
        names = ", ".join(row.name for row in CODECS)
        raise OptionError(f"--codec must be {names} or another video encoder of FFmpeg, got {shown(name)}")
    options = option_names(codec.name)
    return CodecSpec(name=name, encoder=codec.name, preset_option="preset" if "preset" in options else "cpu-used")


def option_names(encoder: str) -> set[str]:
    """The encoder's private options."""
    context = av.CodecContext.create(encoder, "w")
    return {option.name for option in context.supported_options.private}


def encoder_options(
    row: CodecSpec, crf: float | None, preset: str | None, hdr10: Hdr10Metadata | None
) -> dict[str, str]:
    """All options for FFmpeg.

    Raises:
        OptionError: `crf` or `preset` is given and the encoder has no such option.
    """
    options = dict(row.options)
    private = option_names(row.encoder) if crf is not None or preset is not None else set()
    for flag, option, value, default in (
        ("--crf", "crf", None if crf is None else f"{crf:g}", row.crf),
        ("--preset", row.preset_option, preset, row.preset),
    ):
        if value is not None and option not in private:
            raise OptionError(f"{row.name} has no {option}, got {flag} {value}; leave {flag} out")
        chosen = default if value is None else value
        if chosen is not None:
            options[option] = str(chosen)
    if row.encoder == "libx264" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        options["x264-params"] = "asm=avx2"  # its AVX-512 code for mbtree gives other bits at each run
    if hdr10 is not None and row.hdr10 is not None and (text := row.hdr10.format(hdr10)):
        options[row.hdr10.option] = ":".join(filter(None, (options.get(row.hdr10.option), text)))
    return options


def codecs_for(container: str) -> list[CodecSpec]:
    """The rows that a container can hold, the preferred one first."""
    return [row for row in CODECS if can_hold(container, row.encoder)]


@contextmanager
def silenced(encoder: str) -> Iterator[None]:
    """Set the environment variables of an encoder's row while its library starts, unless the user has set them."""
    wanted = next((row.environment for row in CODECS if row.encoder == encoder), {})
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


# --- pixel formats ----------------------------------------------------------------------------------------------------


def formats_of(encoder: str) -> list[str]:
    """FFmpeg's names of the pixel formats that an encoder takes; empty if it does not say."""
    rejected = next((row.rejected_formats for row in CODECS if row.encoder == encoder), frozenset())
    return [fmt.name for fmt in av.Codec(encoder, "w").video_formats or [] if fmt.name not in rejected]


def preserves(encoder: str, source: PixelFormat) -> bool:
    """Whether the encoder has a pixel format that keeps everything of `source`."""
    return any(fmt.preserves(source) for name in formats_of(encoder) if (fmt := named_format(name)))


def choose_format(encoder: str, source: PixelFormat) -> str:
    """The name of the encoder's pixel format that keeps everything of the source and is nearest to it.

    Raises:
        OptionError: the encoder has none.
    """
    names = [name for name in formats_of(encoder) if not name.startswith(_FULL_RANGE_NAMES)]
    if not names:
        return source.name  # the encoder takes anything, or fails when it is opened
    formats = {name: fmt for name in names if (fmt := named_format(name)) is not None}
    preserving = [name for name, fmt in formats.items() if fmt.preserves(source)]
    order = lambda name: (formats[name].distance(source), not av.VideoFormat(name).is_planar)  # noqa: E731
    if preserving:
        return min(preserving, key=order)
    nearest = f"--pix-fmt {min(formats, key=order)}" if formats else "another codec"
    others = [row.name for row in CODECS if row.encoder != encoder and preserves(row.encoder, source)]
    raise OptionError(
        f"{encoder} cannot hold all of the source's pixel format, got {source.name}; give {nearest} to convert"
        + (f", or --codec {' or '.join(others)} to keep it" if others else "")
    )


def check_format(encoder: str, name: str) -> PixelFormat:
    """The pixel format of this name.

    Raises:
        OptionError: the encoder cannot store it, or there is none of this name.
    """
    offered = formats_of(encoder)
    fmt = named_format(name)
    if fmt is None or (offered and name not in offered):
        usable = [each for each in offered if named_format(each) and not each.startswith(_FULL_RANGE_NAMES)]
        raise OptionError(
            f"--pix-fmt must be a format of {encoder}, got {shown(name)}; give one of {', '.join(usable)}"
        )
    return fmt
