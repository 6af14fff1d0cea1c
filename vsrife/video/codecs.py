"""What encoders want: a row for each codec that has a name here, and which pixel formats hold which."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import av
import vapoursynth as vs
from av.codec.codec import UnknownCodecError

from vsrife.errors import OptionError

# --- pixel formats ----------------------------------------------------------------------------------------------------

_SUBSAMPLING = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (0, 1): "440", (2, 2): "410", (2, 0): "411"}
_PROBE_PX = 16
_FULL_RANGE_TWINS = "yuvj"  # FFmpeg's older names for full range, which is a tag here


@dataclass(frozen=True, slots=True)
class Layout:
    """How samples are stored, whatever a library calls it."""

    family: Literal["YUV", "GRAY", "RGB"]
    bits: int
    floating: bool
    subsampling_w: int
    subsampling_h: int
    alpha: bool = False

    def holds(self, other: Layout) -> bool:
        """Whether nothing of the other gets lost in this one."""
        family = self.family == other.family or (self.family, other.family) == ("YUV", "GRAY")
        samples = self.floating == other.floating and self.bits >= other.bits
        chroma = other.family == "GRAY" or (
            self.subsampling_w <= other.subsampling_w and self.subsampling_h <= other.subsampling_h
        )
        return family and samples and chroma and self.alpha >= other.alpha

    def distance(self, other: Layout) -> tuple[int, ...]:
        """Sorts layouts by how far they are from another one; what a grey one needs least is little chroma."""
        chroma = abs(self.subsampling_w - other.subsampling_w) + abs(self.subsampling_h - other.subsampling_h)
        if other.family == "GRAY":
            chroma = -chroma
        return int(self.family != other.family), int(self.alpha != other.alpha), abs(self.bits - other.bits), chroma

    @property
    def name(self) -> str:
        """FFmpeg's name of the planar format, native byte order on little-endian machines."""
        alpha = "a" if self.alpha else ""
        if self.floating:
            base = {"GRAY": "gray", "RGB": f"gbr{alpha}p", "YUV": "yuv"}[self.family]
            return f"{base}f{self.bits}le"
        depth = f"{self.bits}le" if self.bits > 8 else ""
        if self.family == "GRAY":
            return f"gray{depth}"
        if self.family == "RGB":
            return f"gbr{alpha}p{depth}"
        return f"yuv{alpha}{_SUBSAMPLING[self.subsampling_w, self.subsampling_h]}p{depth}"

    @property
    def vapoursynth_id(self) -> int:
        """Of the format of the colour planes."""
        family = {"YUV": vs.YUV, "GRAY": vs.GRAY, "RGB": vs.RGB}[self.family]
        sample = vs.FLOAT if self.floating else vs.INTEGER
        return int(vs.core.query_video_format(family, sample, self.bits, self.subsampling_w, self.subsampling_h).id)


def clip_layout(fmt: vs.VideoFormat, alpha: bool = False) -> Layout:
    """Of a VapourSynth format, and whether an alpha clip comes with it."""
    families: dict[Any, Literal["YUV", "GRAY", "RGB"]] = {vs.YUV: "YUV", vs.GRAY: "GRAY", vs.RGB: "RGB"}
    floating = fmt.sample_type == vs.FLOAT
    return Layout(
        families[fmt.color_family], fmt.bits_per_sample, floating, fmt.subsampling_w, fmt.subsampling_h, alpha
    )


def named_layout(name: str) -> Layout | None:
    """Of FFmpeg's name of a pixel format; None where it has no planar twin that VapourSynth knows."""
    fmt = av.VideoFormat(name, _PROBE_PX, _PROBE_PX)
    parts = [part for part in fmt.components if not part.is_alpha]
    if fmt.has_palette or fmt.is_bayer or len(parts) not in (1, 3) or len({part.bits for part in parts}) > 1:
        return None
    family: Literal["YUV", "GRAY", "RGB"] = "RGB" if fmt.is_rgb else "YUV" if len(parts) == 3 else "GRAY"
    across, down = (0, 0) if family != "YUV" else (_halvings(parts[1].width), _halvings(parts[1].height))
    alpha = len(parts) < len(fmt.components)
    bits = parts[0].bits
    floating = name.removesuffix("le").removesuffix("be").endswith(f"f{bits}")
    if (family == "GRAY" and alpha) or bits < 8 or (family == "YUV" and floating):
        return None
    return Layout(family, bits, floating, across, down, alpha)


def _halvings(chroma_px: int) -> int:
    return (_PROBE_PX // chroma_px).bit_length() - 1


def choose_format(encoder: str, source: Layout) -> str:
    """The encoder's pixel format that keeps all of the source and is nearest to it.

    Raises:
        OptionError: none keeps all of it; names the nearest one to ask for.
    """
    names = [name for name in formats_of(encoder) if not name.startswith(_FULL_RANGE_TWINS)]
    layouts = {name: layout for name in names if (layout := named_layout(name)) is not None}
    holding = [name for name, layout in layouts.items() if layout.holds(source)]
    if not names:
        return source.name  # the encoder takes anything, or says so when it is opened
    order = lambda name: (layouts[name].distance(source), not av.VideoFormat(name).is_planar)  # noqa: E731
    if holding:
        return min(holding, key=order)
    nearest = f"--pix-fmt {min(layouts, key=order)}" if layouts else "another codec"
    others = [row.name for row in CODECS if row.encoder != encoder and keeps(row.encoder, source)]
    raise OptionError(
        f"{encoder} cannot hold all of the source's pixel format, got {source.name}; give {nearest} to convert"
        + (f", or --codec {' or '.join(others)} to keep it" if others else "")
    )


def check_format(encoder: str, name: str) -> Layout:
    """The layout of a pixel format that a user asks for.

    Raises:
        OptionError: there is none of this name, or the encoder cannot hold it.
    """
    offered = formats_of(encoder)
    layout = named_layout(name) if name in av.video.format.names else None
    if layout is None or (offered and name not in offered):
        usable = [each for each in offered if named_layout(each) and not each.startswith(_FULL_RANGE_TWINS)]
        raise OptionError(f"--pix-fmt must be a format of {encoder}, got {name!r}; give one of {', '.join(usable)}")
    return layout


def any_layout(name: str) -> Layout:
    """The layout of a pixel format by FFmpeg's name.

    Raises:
        OptionError: there is none, or it cannot be made here.
    """
    layout = named_layout(name) if name in av.video.format.names else None
    if layout is None:
        raise OptionError(f"--pix-fmt must be a pixel format of FFmpeg, got {name!r}; such as yuv420p or yuv444p10le")
    return layout


def formats_of(encoder: str) -> list[str]:
    return [fmt.name for fmt in av.Codec(encoder, "w").video_formats or []]


def keeps(encoder: str, source: Layout) -> bool:
    """Whether the encoder has a format that holds all of the source."""
    return any(layout.holds(source) for name in formats_of(encoder) if (layout := named_layout(name)))


# --- codecs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Light:
    """HDR10: what the mastering display shows and how bright the content gets. None where it is not known.

    Attributes:
        primaries: x and y of red, green, blue.
        white: x and y.
        luminance: darkest and brightest, cd/m².
        content: brightest pixel and brightest average of a frame, cd/m².
    """

    primaries: tuple[tuple[float, float], ...] | None
    white: tuple[float, float] | None
    luminance: tuple[float, float] | None
    content: tuple[int, int] | None


def light_of(props: Mapping[str, Any]) -> Light | None:
    """From the props that bestsource sets."""
    xs, ys = props.get("MasteringDisplayPrimariesX"), props.get("MasteringDisplayPrimariesY")
    white, low = props.get("MasteringDisplayWhitePointX"), props.get("MasteringDisplayMinLuminance")
    most = props.get("ContentLightLevelMax")
    light = Light(
        tuple(zip(xs, ys, strict=True)) if xs and ys else None,
        None if white is None else (white, props["MasteringDisplayWhitePointY"]),
        None if low is None else (low, props["MasteringDisplayMaxLuminance"]),
        None if most is None else (int(most), int(props["ContentLightLevelAverage"])),
    )
    return None if light == Light(None, None, None, None) else light


def _whole_units(light: Light) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min) in units of 0.00002 and 0.0001 cd/m², as x264 and x265 take it."""
    assert light.primaries
    assert light.white
    assert light.luminance
    points = [",".join(str(round(value * 50000)) for value in point) for point in (*light.primaries, light.white)]
    low, high = (round(value * 10000) for value in light.luminance)
    red, green, blue, white = points
    return f"G({green})B({blue})R({red})WP({white})L({high},{low})"


def _decimals(light: Light) -> str:
    """The same in plain numbers, as SVT-AV1 takes it."""
    assert light.primaries
    assert light.white
    assert light.luminance
    points = [",".join(f"{value:.5f}" for value in point) for point in (*light.primaries, light.white)]
    low, high = light.luminance
    red, green, blue, white = points
    return f"G({green})B({blue})R({red})WP({white})L({high:.4f},{low:.4f})"


@dataclass(frozen=True, slots=True)
class LightParameters:
    """How an encoder is told about HDR10.

    Attributes:
        option: FFmpeg's option that hands parameters to the encoder's library.
        mastering, content: the library's parameters.
        spell: the mastering display as text.
        more: parameters that go with them.
    """

    option: str
    mastering: str
    content: str
    spell: Callable[[Light], str]
    more: str = ""

    def text(self, light: Light) -> str:
        parts = [self.more] if self.more else []
        if light.primaries and light.white and light.luminance:
            parts.append(f"{self.mastering}={self.spell(light)}")
        if light.content:
            parts.append(f"{self.content}={light.content[0]},{light.content[1]}")
        return ":".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """A codec that has a name here.

    Attributes:
        name: of `--codec`.
        encoder: FFmpeg's name.
        crf: value of its option `crf` unless `--crf` gives another; None: it has no such option.
        preset: the same for the option of `--preset`.
        preset_option: name of that option.
        options: always set.
        light: how it is told about HDR10; None: the encoder has no place for it.
        keeps_aspect: whether its stream says how wide a pixel is.
        alpha_beside: whether transparency is a second stream beside the packets.
        environment: variables that keep the library from writing to stderr.
    """

    name: str
    encoder: str
    crf: int | None = None
    preset: str | None = None
    preset_option: str = "preset"
    options: Mapping[str, str] = field(default_factory=dict)
    light: LightParameters | None = None
    keeps_aspect: bool = True
    alpha_beside: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


CODECS = (
    CodecSpec(name="x264", encoder="libx264", crf=18, preset="medium",
              light=LightParameters("x264-params", "mastering-display", "cll", _whole_units)),
    CodecSpec(name="x265", encoder="libx265", crf=20, preset="medium", options={"x265-params": "log-level=error"},
              light=LightParameters("x265-params", "master-display", "max-cll", _whole_units, "hdr10=1")),
    CodecSpec(name="svt-av1", encoder="libsvtav1", crf=26, preset="6", keeps_aspect=False, environment={"SVT_LOG": "1"},
              light=LightParameters("svtav1-params", "mastering-display", "content-light", _decimals)),
    CodecSpec(name="vp9", encoder="libvpx-vp9", crf=24, preset="2", preset_option="cpu-used",
              options={"b": "0", "row-mt": "1"}, keeps_aspect=False, alpha_beside=True),
    CodecSpec(name="ffv1", encoder="ffv1", options={"level": "3", "slicecrc": "1", "g": "1"}),
    CodecSpec(name="prores", encoder="prores_ks", options={"vendor": "apl0"}, keeps_aspect=False),
)  # fmt: skip


def find_codec(name: str) -> CodecSpec:
    """The row of a name of ours or of FFmpeg, or a bare row for any other encoder that PyAV offers.

    Raises:
        OptionError: PyAV has no video encoder of this name.
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
        raise OptionError(f"--codec must be {names} or another video encoder of FFmpeg, got {name!r}; correct it")
    options = option_names(codec.name)
    return CodecSpec(name=name, encoder=codec.name, preset_option="preset" if "preset" in options else "cpu-used")


def option_names(encoder: str) -> set[str]:
    """The encoder's own options."""
    context = av.CodecContext.create(encoder, "w")
    return {option.name for option in context.supported_options.private}


def encoder_options(row: CodecSpec, crf: float | None, preset: str | None, light: Light | None) -> dict[str, str]:
    """All options for FFmpeg.

    Raises:
        OptionError: `crf` or `preset` is given for an encoder that has no such option.
    """
    options = dict(row.options)
    own = option_names(row.encoder) if crf is not None or preset is not None else set()
    for flag, option, value, default in (
        ("--crf", "crf", None if crf is None else f"{crf:g}", row.crf),
        ("--preset", row.preset_option, preset, row.preset),
    ):
        if value is not None and option not in own:
            raise OptionError(f"{row.name} has no {option}, got {flag} {value}; leave {flag} out")
        chosen = default if value is None else value
        if chosen is not None:
            options[option] = str(chosen)
    if light is not None and row.light is not None and (text := row.light.text(light)):
        options[row.light.option] = ":".join(filter(None, (options.get(row.light.option), text)))
    return options


def codecs_for(container: str) -> list[CodecSpec]:
    """The rows whose encoder a container can hold, the preferred one first."""
    return [row for row in CODECS if holds(container, row.encoder)]


def holds(container: str, encoder: str) -> bool:
    """Whether a container can hold what an encoder makes, or does not tell."""
    with av.open(io.BytesIO(), "w", format=container) as target:
        try:
            target.add_stream(encoder)
        except ValueError:
            return False
    return True
