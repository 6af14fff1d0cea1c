"""What is tried when the device runs out of memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from vsrife.errors import DeviceError
from vsrife.ops.cpu.buffers import buffer_pool

_TEXTS = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of MPS, of the CPU, of CUDA's libraries


class Thrift:
    """Runs the pairs of one engine so that they fit; a pair begins with what fitted the last one.

    Args:
        device: that they run on.
        size: of a frame, for messages.
        most_parts: that a picture may be divided into, 1 or a power of two.

    Attributes:
        parts: in how many parts the work shall look for motion; 1 is the whole picture.
    """

    def __init__(self, device: torch.device, size: str, most_parts: int) -> None:
        self.device, self.size, self.most_parts = device, size, most_parts
        self.parts = 1
        self._told = False

    def run[Result](self, work: Callable[[], Result], free: Callable[[], None]) -> Result:
        """The result of `work`, which is called again, in more parts each time, while memory does not suffice.

        Args:
            work: a pair.
            free: gives back all memory that can be had again.

        Raises:
            DeviceError: it does not suffice for the most parts either.
        """
        first, failure = self.parts, None
        attempts = [first]
        while attempts[-1] < self.most_parts:
            attempts.append(2 * attempts[-1])
        for parts in (first, *attempts):  # once more as it was, with nothing kept
            self.parts = parts
            try:
                result = work()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                failure = error.with_traceback(None)  # which holds what was computed
            else:
                self._tell()
                return result
            free()
        self.parts = first
        raise DeviceError(
            f"{self.device} is out of memory, got a frame of {self.size}, even with nothing else kept"
            f"{f' and in {attempts[-1]} parts' if attempts[-1] > 1 else ''}; try scale=0.5, a .lite model, or cpu"
        ) from failure

    def _tell(self) -> None:
        """Warn, once, that pictures are divided."""
        if self.parts == 1 or self._told:
            return
        self._told = True
        warnings.warn(
            f"{self.device} has too little memory for the motion of a whole frame of {self.size} and looks for it in "
            f"{self.parts} overlapping parts from here on, which is slower and can differ a little; scale=0.5, a .lite "
            "model or more free memory avoid that",
            RuntimeWarning,
            stacklevel=3,
        )


def out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the computer, could not give the memory that was asked for."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _TEXTS)


def give_back(device: torch.device) -> None:
    """Return memory that is kept for later to the device."""
    if device.type == "cpu":
        buffer_pool.clear()
        return
    backend = torch.get_device_module(device)
    if hasattr(backend, "empty_cache"):
        backend.empty_cache()
