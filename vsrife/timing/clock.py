"""From a source's time to its result's."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Maps seconds of the source to seconds of the result: `(t - pivot) * factor + pivot - zero`.

    Attributes:
        zero: source time at which the result's clock is 0.
        pivot: source time from which slow motion counts.
        factor: duration of the result over that of the source.
        first, last: streams are kept from `first` to just before `last`, source times; None: no bound.
        ramp: the picture follows a speed ramp, to which nothing else can be mapped.
    """

    zero: Fraction
    pivot: Fraction
    factor: Fraction = Fraction(1)
    first: Fraction | None = None
    last: Fraction | None = None
    ramp: bool = False

    def __call__(self, seconds: Fraction) -> Fraction:
        return (seconds - self.pivot) * self.factor + self.pivot - self.zero

    def keeps(self, seconds: Fraction) -> bool:
        """Whether a source time lies within the part that is kept."""
        after = self.first is None or seconds >= self.first
        return after and (self.last is None or seconds < self.last)
