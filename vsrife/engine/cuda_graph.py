"""CUDA graphs: a recorded function replayed with one launch in place of hundreds. Off unless `VSRIFE_CUDA=graph`.

A graph reads and writes the same memory each time: arguments are copied in, and results are overwritten by the next
replay, after whatever reads them on the same stream.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from vsrife.engine.memory import device_lock, out_of_memory
from vsrife.errors import first_line
from vsrife.networks.fold import FoldedNet
from vsrife.ops.cuda import KernelError

Tensors = tuple[Tensor, ...]
WARM_UPS = 2  # calls before the capture, in which kernels are compiled and cuDNN chooses algorithms


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """PyTorch's own default belongs to the device that captured first; on any other the graph would be empty."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Recording:
    """A function of tensors, captured for arguments of one shape and memory layout.

    Args:
        function: takes and returns tensors; its control flow must depend on shapes alone, never on values.
        inputs: an example.

    Raises:
        RuntimeError: the capture failed, or a replay gives another result than the calls before it.
    """

    def __init__(self, function: Callable[..., Tensors], inputs: Sequence[Tensor]) -> None:
        self.inputs = [_same_layout(tensor) for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        device = inputs[0].device
        side, own = _capture_stream(device), torch.cuda.current_stream(device)
        side.wait_stream(own)
        try:
            with device_lock, torch.cuda.stream(side):  # `torch.cuda.graph` would leave its stream current on failure
                self._capture(function)
        finally:
            own.wait_stream(side)

    def _capture(self, function: Callable[..., Tensors]) -> None:
        for _ in range(WARM_UPS):
            expected = function(*self.inputs)
        self.graph.capture_begin(capture_error_mode="thread_local")  # other devices' threads go on
        try:
            self.results = function(*self.inputs)
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
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.results


def _same_layout(tensor: Tensor) -> Tensor:
    """A copy with the same strides; a clone would close the gaps between pixels, which kernels like aligned."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


_recordings: WeakKeyDictionary[FoldedNet, dict[Hashable, Recording | None]] = WeakKeyDictionary()


def call(net: FoldedNet, function: Callable[..., Tensors], inputs: Sequence[Tensor]) -> Tensors:
    """Replay the function of a network, recorded at the first call with such arguments; call it where that fails.

    Recordings belong to the network, so that they survive a seek.
    """
    recordings = _recordings.setdefault(net, {})
    key = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs)
    if key not in recordings:
        recordings[key] = None  # no second attempt after running out of memory
        try:
            recordings[key] = Recording(function, inputs)
        except RuntimeError as error:
            if isinstance(error, KernelError) or out_of_memory(error):
                raise
            warnings.warn(
                f"{inputs[0].device} cannot record a CUDA graph and launches each kernel by itself, got "
                f"{first_line(error)!r}; unset VSRIFE_CUDA, and report it",
                RuntimeWarning,
                stacklevel=2,
            )
    recording = recordings[key]
    return function(*inputs) if recording is None else recording(*inputs)


def release(net: FoldedNet) -> None:
    """Free the recordings of a network; what was recorded is called from now on."""
    if net in _recordings:
        _recordings[net] = dict.fromkeys(_recordings[net])
