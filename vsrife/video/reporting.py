"""What a job tells whoever started it, and what it asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Callbacks of a job.

    Attributes:
        say: takes a message.
        warn: takes a message about something that the result lacks.
        advance: takes frames done and frames in all, then counts by name, such as `cuts` and `duplicates` so far.
        stop: asked before each frame; True ends the result there.
    """

    say: Callable[[str], None]
    warn: Callable[[str], None]
    advance: Advance
    stop: Callable[[], bool]


class Advance(Protocol):
    """Called with the progress of a job."""

    def __call__(self, done: int, total: int, **counts: int) -> None: ...
