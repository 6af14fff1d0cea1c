"""HDR10 metadata: from frame props to the parameters of each encoder library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

type Point = tuple[float, float]  # chromaticity x, y


@dataclass(frozen=True, slots=True)
class MasteringDisplay:
    """The display that a film was graded on (SMPTE ST 2086).

    Attributes:
        primaries: red, green, blue.
        white: white point.
        luminance: minimum and maximum, cd/m².
    """

    primaries: tuple[Point, ...]
    white: Point
    luminance: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Hdr10Metadata:
    """Static HDR metadata of a video. None where unknown.

    Attributes:
        display: the mastering display.
        content_light: brightest pixel (MaxCLL) and highest frame average (MaxFALL), cd/m².
    """

    display: MasteringDisplay | None
    content_light: tuple[int, int] | None


def read_hdr10(props: Mapping[str, Any]) -> Hdr10Metadata | None:
    """Metadata from the frame props that bestsource sets; None without any."""
    xs, ys = props.get("MasteringDisplayPrimariesX"), props.get("MasteringDisplayPrimariesY")
    white, low = props.get("MasteringDisplayWhitePointX"), props.get("MasteringDisplayMinLuminance")
    display = None
    if xs and ys and white is not None and low is not None:
        display = MasteringDisplay(
            tuple(zip(xs, ys, strict=True)),
            (white, props["MasteringDisplayWhitePointY"]),
            (low, props["MasteringDisplayMaxLuminance"]),
        )
    peak = props.get("ContentLightLevelMax")
    content = None if peak is None else (int(peak), int(props["ContentLightLevelAverage"]))
    return None if display is None and content is None else Hdr10Metadata(display, content)


def integer_text(display: MasteringDisplay) -> str:
    """G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min) in units of 0.00002 and 0.0001 cd/m²: x264 and x265."""
    points = [",".join(str(round(value * 50000)) for value in point) for point in (*display.primaries, display.white)]
    low, high = (round(value * 10000) for value in display.luminance)
    red, green, blue, white = points
    return f"G({green})B({blue})R({red})WP({white})L({high},{low})"


def decimal_text(display: MasteringDisplay) -> str:
    """The same fields in plain numbers: SVT-AV1."""
    points = [",".join(f"{value:.5f}" for value in point) for point in (*display.primaries, display.white)]
    low, high = display.luminance
    red, green, blue, white = points
    return f"G({green})B({blue})R({red})WP({white})L({high:.4f},{low:.4f})"


@dataclass(frozen=True, slots=True)
class Hdr10Parameters:
    """How an encoder library takes HDR10 metadata.

    Attributes:
        option: FFmpeg's option that passes parameters to the library.
        display, content_light: names of the library's parameters.
        display_text: formats the mastering display.
        extra: further parameters that HDR10 needs.
    """

    option: str
    display: str
    content_light: str
    display_text: Callable[[MasteringDisplay], str]
    extra: str = ""

    def format(self, metadata: Hdr10Metadata) -> str:
        """The value for `option`."""
        parts = [self.extra] if self.extra else []
        if metadata.display:
            parts.append(f"{self.display}={self.display_text(metadata.display)}")
        if metadata.content_light:
            parts.append("{}={},{}".format(self.content_light, *metadata.content_light))
        return ":".join(parts)
