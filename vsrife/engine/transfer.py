"""Copies of planes to a device and back: synchronous, or on CUDA overlapped with computation.

On CUDA three streams run at once and the thread that launches them waits for none. What keeps them in order:

- Upload: through pinned memory, on the upload stream, to memory of that stream. The compute stream waits for the copy
  and is recorded as a user, so that a dropped frame's memory is reused only after all work launched with it.
- Computation: on the calling thread's current stream, which alone touches the memory of CUDA graphs.
- Download: that stream waits for the work launched so far and is recorded as a user of the planes, which may be dropped
  at once. The next pair is launched meanwhile.
- PyTorch's host allocator hands pinned memory out again only after the copy. The pipeline bounds the frames in flight.
- A reader waits for the event behind its copy, asleep and without the interpreter lock.

Nothing in between may wait for the device: a tensor made of a list, `item` or a comparison of planes would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Planes = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Download:
    """Planes on their way to host memory."""

    _planes: Planes
    _end: torch.cuda.Event | None = None  # of the copy; None: it has finished

    def planes(self) -> Planes:
        """Block until the copy has finished and return the planes. Thread-safe.

        Raises:
            RuntimeError: the computation failed on the device.
        """
        if self._end is not None:
            self._end.synchronize()
        return self._planes


class Transfer:
    """Copies to a device and back, synchronous. Used by one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, plane: NDArray[Any] | Tensor) -> Tensor:
        """Copy to the device, for the work launched next; `plane` may change afterwards. Tensors already on the device
        are used as they are."""
        return (plane if isinstance(plane, Tensor) else torch.from_numpy(np.array(plane))).to(self.device)

    def download(self, planes: Sequence[Tensor]) -> Download:
        """Copy the result of the work launched so far to host memory."""
        return Download(tuple(plane.cpu() for plane in planes))


class StreamTransfer(Transfer):
    """Copies on streams of their own, through pinned memory; the module's text says what keeps them in order."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.up, self.down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def upload(self, plane: NDArray[Any] | Tensor) -> Tensor:
        if isinstance(plane, Tensor):
            return plane.to(self.device)
        dtype = torch.from_numpy(np.empty(0, plane.dtype)).dtype
        pinned = torch.empty(plane.shape, dtype=dtype, pin_memory=True)
        np.copyto(pinned.numpy(), plane)
        compute = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.up):
            result = pinned.to(self.device, non_blocking=True)
        compute.wait_stream(self.up)
        result.record_stream(compute)
        return result

    def download(self, planes: Sequence[Tensor]) -> Download:
        self.down.wait_stream(torch.cuda.current_stream(self.device))
        end = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self.down):
            pinned = tuple(torch.empty(plane.shape, dtype=plane.dtype, pin_memory=True) for plane in planes)
            for target, plane in zip(pinned, planes, strict=True):
                target.copy_(plane, non_blocking=True)
                plane.record_stream(self.down)
            end.record(self.down)
        return Download(pinned, end)


@cache  # streams come from a pool of 32: one pair for each device, not for each filter
def transfer_for(device: torch.device) -> Transfer:
    """The transfer of a device, shared by its engines, which run on one thread."""
    return StreamTransfer(device) if device.type == "cuda" else Transfer(device)
