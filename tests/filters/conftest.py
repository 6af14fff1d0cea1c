"""Fixtures of the filter's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clips import linear_engine


@pytest.fixture
def linear() -> Iterator[None]:
    """New frames are mixes: on a counting clip, a frame's value is its source position."""
    with linear_engine():
        yield
