"""Memory for large results, used again once nobody holds the last one.

What a block reads at 1280x720 is 105 MB. Asked of the system anew for each pair, its pages cost more than the
arithmetic that fills them.
"""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_BYTES = 1 << 20  # what is smaller comes from the heap, which reuses it anyway
KEPT = 12  # pieces; as many as are alive at once in a pair, with the frames that are kept prepared
_UNUSED = 3  # references to a piece that is in no result: the list's, the loop's and that of asking


class BufferPool:
    """Pieces of memory that are lent out. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[NDArray[np.uint8]] = []  # least recently lent first

    def take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An array of float32 with any content. Its memory comes back when the last view of it is gone."""
        size = 4 * math.prod(shape)
        if size < LEAST_BYTES:
            return np.empty(shape, np.float32)
        with self._lock:
            piece = self._unused(size)
            self._pieces = [*(p for p in self._pieces if p is not piece), piece][-KEPT:]
            return piece[:size].view(np.float32).reshape(shape)

    def _unused(self, size: int) -> NDArray[np.uint8]:
        for piece in self._pieces:
            if size <= piece.nbytes <= 2 * size and sys.getrefcount(piece) == _UNUSED:
                return piece
        return np.empty(size, np.uint8)

    def clear(self) -> None:
        """Give back what nobody uses; results that are still held keep their memory."""
        with self._lock:
            self._pieces.clear()


def empty_channels_last(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A map (N, C, H, W) of any content, in channels-last memory; float32 on a CPU lies in `buffer_pool`."""
    count, channels, height, width = shape
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(buffer_pool.take((count, height, width, channels))).permute(0, 3, 1, 2)
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


buffer_pool = BufferPool()  # of the process, emptied whenever an engine of the CPU ends
