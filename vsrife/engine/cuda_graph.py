"""CUDA graphs: a recorded function replayed with one launch in place of hundreds. Off unless `VSRIFE_CUDA=graph`.

A graph reads and writes the same memory each time. Large arguments are read where they were when it was recorded: the
allocator gives the features of a new frame the memory of the frame that was dropped for it, so that a few recordings
serve all pairs of a clip. Small ones are copied. Results are overwritten by the next replay, after whatever reads them
on the same stream.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vsrife.engine.memory import device_lock, out_of_memory
from vsrife.errors import first_line
from vsrife.networks.fold import FoldedNet
from vsrife.ops.cuda import KernelError
from vsrife.ops.dispatch import uses_kernels

Tensors = tuple[Tensor, ...]
COPIED_BYTES = 10 << 20  # of an argument at most; PyTorch's allocator gives a larger one memory of its own
MOST_RECORDINGS = 8  # of a network: pairs of three frames in both orders, and some for another size
WARM_UPS = 2  # calls before the capture, in which kernels are compiled and cuDNN chooses algorithms


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """PyTorch's own default belongs to the device that captured first; on any other the graph would be empty."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Recording:
    """A function of tensors, captured for arguments of one shape and memory layout, large ones at one address.

    Its control flow must depend on shapes alone, never on values. A recording in whose `pool` another one computes is
    not replayed at the same time.

    Raises:
        RuntimeError: the capture failed, or a replay gives another result than the calls before it.
    """

    def __init__(self, function: Callable[..., Tensors], inputs: Sequence[Tensor], pool: Any = None) -> None:
        self.copies = {i: _same_layout(tensor) for i, tensor in enumerate(inputs) if tensor.nbytes <= COPIED_BYTES}
        self.graph = torch.cuda.CUDAGraph()
        device = inputs[0].device
        side, own = _capture_stream(device), torch.cuda.current_stream(device)
        side.wait_stream(own)
        try:
            with device_lock, torch.cuda.stream(side):  # `torch.cuda.graph` would leave its stream current on failure
                self._capture(function, [self.copies.get(i, tensor) for i, tensor in enumerate(inputs)], pool)
        finally:
            own.wait_stream(side)

    def _capture(self, function: Callable[..., Tensors], inputs: Sequence[Tensor], pool: Any) -> None:
        for _ in range(WARM_UPS):
            expected = function(*inputs)
        self.graph.capture_begin(pool, "thread_local")  # other devices' threads go on
        try:
            self.results = function(*inputs)
        except BaseException:
            with suppress(RuntimeError):  # the capture is invalid, and the first error is the one to report
                self.graph.capture_end()
            raise
        self.graph.capture_end()
        for result in self.results:
            result.zero_()
        self.graph.replay()
        if not all(torch.equal(a, b) for a, b in zip(self.results, expected, strict=True)):
            raise RuntimeError("a replay gives another result than the calls that were recorded")

    def __call__(self, *inputs: Tensor) -> Tensors:
        """The results, valid until the next call."""
        for i, own in self.copies.items():
            own.copy_(inputs[i])
        self.graph.replay()
        return self.results


def _same_layout(tensor: Tensor) -> Tensor:
    """A copy with the same strides; a clone would close the gaps between pixels, which kernels like aligned."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


_recordings: WeakKeyDictionary[FoldedNet, dict[Hashable, Recording] | None] = WeakKeyDictionary()  # None: given up


def call(net: FoldedNet, function: Callable[..., Tensors], inputs: Sequence[Tensor]) -> Tensors:
    """Replay the function of a network, recorded at the first call with such arguments; call it where that fails.

    Recordings belong to the network, so that they survive a seek.
    """
    recordings = _recordings.setdefault(net, {})
    if recordings is None:
        return function(*inputs)
    addresses = (None if tensor.nbytes <= COPIED_BYTES else tensor.data_ptr() for tensor in inputs)
    key = (uses_kernels(net.device), *addresses, *((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs))
    if key not in recordings:
        if len(recordings) == MOST_RECORDINGS:
            return function(*inputs)
        try:
            pool = next((each.graph.pool() for each in recordings.values()), None)
            recordings[key] = Recording(function, inputs, pool)
        except KernelError:
            raise
        except RuntimeError as error:
            _recordings[net] = None
            if out_of_memory(error):
                raise
            warnings.warn(
                f"{net.device} cannot record a CUDA graph and launches each kernel by itself, got "
                f"{first_line(error)!r}; unset VSRIFE_CUDA, and report it",
                RuntimeWarning,
                stacklevel=2,
            )
            return function(*inputs)
    return recordings[key](*inputs)


def release(net: FoldedNet) -> None:
    """Free the recordings of a network, which is not recorded again."""
    if net in _recordings:
        _recordings[net] = None
