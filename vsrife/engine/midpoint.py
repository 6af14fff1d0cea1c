"""Any time between two frames from a network that knows the middle alone: the middle of middles, again and again."""

from __future__ import annotations

import functools
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from fractions import Fraction

logger = logging.getLogger(__name__)

GRID = 64  # times that are no power of two away are taken to the nearest of this many parts
LARGEST_DENOMINATOR = 1024  # of times that are reached exactly
KEPT = 12  # frames on the way that are kept: more than lie on the way to one time


def reachable(timestep: float) -> Fraction:
    """The time that is reached in place of `timestep`.

    Args:
        timestep: between 0 and 1.

    Returns:
        `timestep` itself where its denominator is a power of two up to `LARGEST_DENOMINATOR`, otherwise the nearest
        64th, which may be 0 or 1.
    """
    exact = Fraction(timestep)  # a float's denominator is always a power of two
    return exact if exact.denominator <= LARGEST_DENOMINATOR else Fraction(round(timestep * GRID), GRID)


@functools.cache
def tell_inexact(model: str) -> None:
    """Warn once per process and model that times are rounded."""
    logger.warning(
        "%s knows the middle between two frames alone: other times are reached by halving, exactly for powers of two "
        "and otherwise to the nearest 1/%d of a frame; models from 4.0 on take any time",
        model, GRID,
    )  # fmt: skip


class Bisection[Frame]:
    """Halves the way between two frames until a time is reached, and keeps the frames on the way.

    Args:
        capacity: frames kept, least recently used out first. What is computed does not depend on what is kept.
    """

    def __init__(self, capacity: int = KEPT) -> None:
        self.capacity = capacity
        self.kept: OrderedDict[Hashable, Frame] = OrderedDict()

    def reach(
        self, pair: Hashable, left: Frame, right: Frame, time: Fraction, middle: Callable[[Frame, Frame, bool], Frame]
    ) -> Frame:
        """The frame at `time`.

        Args:
            pair: the same for equal pairs only.
            left: at time 0.
            right: at time 1.
            time: of `reachable`, 0 and 1 included.
            middle: makes the frame halfway between two; its last argument tells whether the frame will be halved from
                again.
        """
        if time in (0, 1):
            return left if time == 0 else right
        low, high = Fraction(0), Fraction(1)
        while True:
            half = (low + high) / 2
            key = (pair, half)
            found = self.kept.pop(key, None)
            frame = middle(left, right, half != time) if found is None else found
            if half != time or found is not None:
                self._keep(key, frame)
            if half == time:
                return frame
            if half < time:
                low, left = half, frame
            else:
                high, right = half, frame

    def _keep(self, key: Hashable, frame: Frame) -> None:
        self.kept[key] = frame
        while len(self.kept) > self.capacity:
            self.kept.popitem(last=False)
