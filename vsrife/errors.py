"""The errors that vsrife raises.

RifeError
├── OptionError    an argument is out of range or contradicts another one
├── ClipError      the format, size, length or rate of the input clip cannot be used
├── WeightsError   a weights file is missing, cut short, foreign or does not match its hash
├── DeviceError    the device is absent or out of memory
└── MediaError     a media file cannot be read, encoded or written

Each class also derives from the builtin that a caller who does not know vsrife would catch. The filter turns all of
them into `vapoursynth.Error`, keeping the original as the cause.
"""

from __future__ import annotations

from fractions import Fraction

_SHOWN = 200  # characters of a value or word in an error


class RifeError(Exception):
    """Base of every error that vsrife raises on purpose. The text says what is wrong, what came, and what to do."""


class OptionError(RifeError, ValueError):
    """An argument is out of range or contradicts another one."""


class ClipError(RifeError, ValueError):
    """The format, size, length or rate of the input clip cannot be used."""


class WeightsError(RifeError, OSError):
    """A weights file is missing, cut short, foreign or does not match its recorded hash."""


class DeviceError(RifeError, RuntimeError):
    """The device is absent, cannot run the network, or is out of memory."""


class MediaError(RifeError, OSError):
    """A media file cannot be read, encoded or written."""


def shown(value: object) -> str:
    """A value for an error, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        return "a number of thousands of digits"
    return shortened(text)


def shortened(text: str) -> str:
    """A text for an error, cut if it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def decimal(value: Fraction) -> str:
    """A rational for an error, as a decimal of a few digits."""
    try:
        return f"{float(value):g}"
    except OverflowError:
        return "a number of hundreds of digits"


def first_line(error: BaseException) -> str:
    """What a library's error says, for an error text of one line."""
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
