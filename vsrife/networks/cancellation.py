"""Abandoning a computation between two of its steps."""

from __future__ import annotations

from collections.abc import Callable

type Cancellation = Callable[[], None]  # called between steps; raises to abandon the computation


def never() -> None:
    """No-op cancellation check."""
