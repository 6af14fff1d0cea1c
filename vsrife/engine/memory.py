"""What to do when a device runs out of memory."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import torch

from vsrife.errors import DeviceError
from vsrife.ops.cpu.buffers import buffer_pool

_TEXTS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of MPS, of the CPU, of CUDA's libraries

device_lock = threading.Lock()  # one graph capture at a time in a process, and no cache emptied meanwhile


class OutOfMemoryFallback:
    """Retries a pair after an out-of-memory error: first with caches freed, then in 2 to 16 tiles.

    The next pair starts with the tile count that last succeeded.

    Args:
        device: of the network.
        size: of a frame, for messages.
        most_parts: tiles that a frame may be divided into, 1 or a power of two.

    Attributes:
        parts: tiles in which the motion is estimated; 1 is the whole frame.
    """

    def __init__(self, device: torch.device, size: str, most_parts: int) -> None:
        self.device, self.size, self.most_parts = device, size, most_parts
        self.parts = 1
        self._warned = False

    def run[Result](self, work: Callable[[], Result], free: Callable[[], None]) -> Result:
        """Return the result of `work`, which computes a pair in `parts` tiles.

        Args:
            work: the pair; called again after each failure.
            free: returns all memory that can be allocated again later.

        Raises:
            DeviceError: the smallest tiles do not fit either.
        """
        first, failure = self.parts, None
        attempts = [first]
        while attempts[-1] < self.most_parts:
            attempts.append(2 * attempts[-1])
        for parts in (first, *attempts):  # twice as it was: the second time with nothing cached
            self.parts = parts
            try:
                result = work()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # the frames of which hold tensors
            else:
                self._warn_of_tiles()
                return result
            free()
        self.parts = first
        raise DeviceError(
            f"{self.device} is out of memory, got a frame of {self.size}, even with nothing else kept"
            f"{f' and in {attempts[-1]} parts' if attempts[-1] > 1 else ''}; try scale=0.5, a .lite model, or cpu"
        ) from failure

    def _warn_of_tiles(self) -> None:
        """Warn, once, that frames are divided."""
        if self.parts == 1 or self._warned:
            return
        self._warned = True
        warnings.warn(
            f"{self.device} has too little memory for the motion of a whole frame of {self.size} and estimates it in "
            f"{self.parts} overlapping tiles from here on, which is slower and can differ a little; scale=0.5, a .lite "
            "model or more free memory avoid that",
            RuntimeWarning,
            stacklevel=3,
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _TEXTS)


def give_back(device: torch.device) -> None:
    """Return cached memory to the device."""
    if device.type == "cpu":
        buffer_pool.clear()
        return
    backend = torch.get_device_module(device)
    if hasattr(backend, "empty_cache"):
        with device_lock:
            backend.empty_cache()
