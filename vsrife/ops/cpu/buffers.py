"""A pool of large float32 buffers, reused once no array or tensor refers to them.

A block's inputs at 1280x720 take 105 MB. Fetched from the system anew for every pair of frames, the pages would cost
more time than the arithmetic that fills them.
"""

from __future__ import annotations

import math
import threading
import weakref
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST_BYTES = 1 << 20  # less comes from the heap, which reuses it anyway
KEPT = 12  # blocks: as many as are alive at once in a pair, including the frames that stay encoded


class _Lease:
    """Exposes a block's memory as an array, whose `base` it becomes: it lives exactly as long as the memory is used.

    Every view of the array, every tensor that shares its memory and every view of that tensor keeps the base alive, on
    whichever thread, so that a dead weak reference to the lease proves the block free on any interpreter.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_block")

    def __init__(self, block: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
        self._block = block
        address = block.ctypes.data
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": "<f4", "data": (address, False)}


class BufferPool:
    """Blocks of memory and the leases on them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[tuple[NDArray[np.uint8], weakref.ref[_Lease]]] = []  # least recently leased first

    def take(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an uninitialized float32 array. Its memory is reused once neither it nor any view of it is left."""
        size = 4 * math.prod(shape)
        if size < SMALLEST_BYTES:
            return np.empty(shape, np.float32)
        with self._lock:
            free = (b for b, lease in self._blocks if size <= b.nbytes <= 2 * size and lease() is None)
            block = next(free, None)
            if block is None:
                block = np.empty(size, np.uint8)
            lease = _Lease(block, shape)
            others = [entry for entry in self._blocks if entry[0] is not block]
            self._blocks = [*others, (block, weakref.ref(lease))][-KEPT:]
            return np.asarray(lease)

    def clear(self) -> None:
        """Forget all blocks: free ones at once; those in use when their last array or tensor is gone."""
        with self._lock:
            self._blocks.clear()


def empty_channels_last(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialized (N, C, H, W) tensor in channels-last memory; from the pool if it is float32 on a CPU."""
    count, channels, height, width = shape
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(buffer_pool.take((count, height, width, channels))).permute(0, 3, 1, 2)
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


buffer_pool = BufferPool()  # of the process; cleared when an engine on the CPU is closed
