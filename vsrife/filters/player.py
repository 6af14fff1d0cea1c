"""What scripts for players share: which keywords of `RIFE` to use, from what the player says about clip and display."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from vsrife.errors import OptionError, shown
from vsrife.timing.parsing import parse_fps, parse_multi

_DISPLAY = "display"  # the rate of the display, as `fps`
_LARGEST_DENOMINATOR = 400  # players measure their rates
_UHD_LINES = 1200  # above it half the flow scale is the default
_REALTIME = {"yes": True, "no": False, "overlay": "overlay"}

_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "multi": parse_multi,
    "fps": lambda text: text if text == _DISPLAY else parse_fps(text),
    "model": str,
    "scale": float,
    "precision": str,
    "device": str,
    "realtime": lambda text: _REALTIME[text],
    "duplicates": str,
    "sc_threshold": float,
}


def player_keywords(variables: Mapping[str, Any], **defaults: Any) -> dict[str, Any]:
    """Keywords of `RIFE` for a script that a player runs.

    The player's user data chooses among them, as in "model=lite scale=0.5 fps=60"; a number alone is `multi`.

    Args:
        variables: of the script, `globals()`. Used are `video_in`, `container_fps`, `display_fps` and `user_data` as
            mpv sets them; rates that are 0, not a number or missing are unknown.
        defaults: keywords of `RIFE`, used where the user data says nothing. `multi` is the most there may be, and is
            lowered to what the display can show; `fps` is a rate to aim at, "display" that of the display.

    Returns:
        Those keywords, with `multi` in place of `fps`, since players' clips have no rate. `realtime` is True by
        default, `scale` 0.5 above 1200 lines.

    Raises:
        OptionError: the user data cannot be read.
    """
    given = _parse(str(variables.get("user_data") or ""))
    rated = {"multi", "fps"} & given.keys()
    others = {name: value for name, value in defaults.items() if not rated or name not in ("multi", "fps")}
    keywords = {"realtime": True, **others, **given}
    if variables["video_in"].height > _UHD_LINES:
        keywords.setdefault("scale", 0.5)
    clip, display = (_rate(variables.get(name)) for name in ("container_fps", "display_fps"))
    keywords["multi"] = _multi(Fraction(keywords.get("multi") or 2), keywords.pop("fps", None), clip, display)
    return keywords


def show_warnings() -> None:
    """Let warnings reach the player's terminal: VapourSynth takes them to a log that players do not read."""
    logger = logging.getLogger("vsrife")
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def _parse(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        name, value = (name, value) if equals else ("multi", word)
        try:
            found[name] = _OPTIONS[name](value)
        except (KeyError, ValueError) as error:
            known = f"a number such as 4 or 5/2, or options such as 'model=lite fps=60' out of {', '.join(_OPTIONS)}"
            reason = f" ({error})" if isinstance(error, ValueError) else ""
            raise OptionError(f"user-data must be {known}, got {shown(word)}{reason}") from error
    if {"multi", "fps"} <= found.keys():
        raise OptionError(f"user-data takes multi or fps, got both in {shown(text)}; leave one out")
    return found


def _rate(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None


def _multi(most: Fraction, fps: Fraction | str | int | None, clip: float | None, display: float | None) -> Fraction:
    """Output frames per source frame, at least 1."""
    target = display if fps == _DISPLAY else fps
    if target is not None and clip is not None:
        quotient = Fraction(target) / Fraction(clip)
        return max(Fraction(1), quotient.limit_denominator(_LARGEST_DENOMINATOR))
    if fps is None and clip is not None and display is not None:
        return max(Fraction(1), min(Fraction(int(display / clip + 0.01)), most))
    return most
