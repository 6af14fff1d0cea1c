"""Cache of one engine: source frames, their features, and what depends on a pair of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Cache:
    """Values by kind and key; the least recently used of a kind are dropped first.

    Not thread-safe: belongs to the thread of one engine.

    Args:
        capacity: values of each kind; at least 2, the frames of a pair.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = max(2, capacity)
        self._values: dict[str, OrderedDict[Hashable, Any]] = {}

    def get[Value](self, kind: str, key: Hashable, make: Callable[[], Value], capacity: int | None = None) -> Value:
        """The cached value, or a new one; older values are dropped before it is made.

        Args:
            kind: such as "frame", "features" or "static radius".
            key: of a frame, or of a pair of frames.
            make: computes the value.
            capacity: of this kind, where it differs from the cache's.
        """
        values = self._values.setdefault(kind, OrderedDict())
        if key in values:
            values.move_to_end(key)
        else:
            while len(values) >= (self.capacity if capacity is None else capacity):
                values.popitem(last=False)
            values[key] = make()
        value: Value = values[key]
        return value

    def keys(self, kind: str) -> list[Hashable]:
        """Keys of the cached values of a kind, least recently used first."""
        return list(self._values.get(kind, ()))

    def clear(self) -> None:
        self._values.clear()
