"""Planes to a device and back: plainly, or on CUDA beside what is being computed.

On CUDA three streams work at a time, and the thread that starts them waits for none. What keeps them in order:

- Upload. A plane is copied into pinned memory, and from there, on the upload stream, to memory that belongs to that
  stream. The computing stream waits for the copy's end. It is recorded as a user of the memory, so that the allocator
  gives a forgotten frame's memory to a later upload only when all that was started with it has ended.
- Computation. It is on the stream that is current for the calling thread, as everything else in PyTorch. What a
  recording reads and writes is only touched there, one call after the other: inputs are copied in, replayed, and the
  results read before the next call. Neither copy of this module sees that memory.
- Download. The download stream waits for what has been started up to here, and then copies to pinned memory. It is
  recorded as a user of the planes, which may be let go of at once. The next pair is started meanwhile.
- Pinned memory is that of PyTorch's caching host allocator: a copy that does not block is recorded with the buffer,
  which is not handed out again before the copy has ended. There are as many buffers as results in flight, which the
  pipeline bounds, and one for each plane on its way up.
- Whoever needs the result waits for the event behind its copy. PyTorch's `Event.synchronize` lets go of the interpreter
  lock (`pybind11::gil_scoped_release` in `torch/csrc/cuda/Event.cpp`), and a blocking event lets the thread sleep.

Nothing on the way may wait for the device unasked: a tensor of a list, `item`, a comparison of planes would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Planes = tuple[Tensor, ...]


class Download(Protocol):
    """Planes on their way to the CPU."""

    def planes(self) -> Planes:
        """They, once they are there. Any thread may wait.

        Raises:
            RuntimeError: what the device computed failed.
        """
        ...


class Transfer(Protocol):
    """How planes get to a device and back. Used by one thread at a time."""

    def upload(self, plane: NDArray[Any] | Tensor) -> Tensor:
        """A copy on the device, of which what is computed next may make use; `plane` may change from now on. A tensor
        that is there already is taken as it is."""
        ...

    def download(self, planes: Sequence[Tensor]) -> Download:
        """To the CPU, what was computed last."""
        ...


@dataclass(frozen=True, slots=True)
class Arrived:
    """Planes that are there."""

    _planes: Planes

    def planes(self) -> Planes:
        return self._planes


class Plain:
    """One step after the other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def upload(self, plane: NDArray[Any] | Tensor) -> Tensor:
        return (plane if isinstance(plane, Tensor) else torch.from_numpy(np.array(plane))).to(self.device)

    def download(self, planes: Sequence[Tensor]) -> Download:
        return Arrived(tuple(plane.cpu() for plane in planes))


@dataclass(frozen=True, slots=True)
class _OnTheWay:
    """Planes that a stream is filling."""

    _planes: Planes
    _end: torch.cuda.Event

    def planes(self) -> Planes:
        self._end.synchronize()
        return self._planes


class Staged:
    """Copies on streams of their own, through pinned memory; see above for what keeps them in order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.up, self.down = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def upload(self, plane: NDArray[Any] | Tensor) -> Tensor:
        if isinstance(plane, Tensor):
            return plane.to(self.device)
        pinned = torch.empty(plane.shape, dtype=_dtype_of(plane), pin_memory=True)
        np.copyto(pinned.numpy(), plane)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.up):
            result = pinned.to(self.device, non_blocking=True)
        computing.wait_stream(self.up)
        result.record_stream(computing)
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
        return _OnTheWay(pinned, end)


def _dtype_of(array: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype


def transfer_for(device: torch.device) -> Transfer:
    """The fastest for this device."""
    return Staged(device) if device.type == "cuda" else Plain(device)
