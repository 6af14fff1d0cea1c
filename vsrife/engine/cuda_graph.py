"""Work that is recorded once and then replayed: on CUDA, one start of a graph instead of hundreds of kernels.

A recording reads and writes the same memory each time. What it is given is copied in; what it returns is overwritten by
the next replay, and read before that by whoever works on the same stream.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
WARM_UPS = 2  # runs before the recording: kernels are compiled and algorithms chosen then


class Graph(Protocol):
    """Something that runs a function without arguments again and again."""

    def record(self, function: Callable[[], Tensors]) -> Tensors:
        """Remember what the function does to which memory; its results, to be filled by `replay`."""
        ...

    def replay(self) -> None: ...


class CudaGraph:
    """A CUDA graph.

    Args:
        device: that it runs on.
        other: a graph to share memory with, for what is only needed while either runs. Results of both stay, because
            they are held while graphs are recorded.
    """

    def __init__(self, device: torch.device, other: CudaGraph | None = None) -> None:
        self.device, self.graph = device, torch.cuda.CUDAGraph()
        self.pool = other.graph.pool() if other else None

    def record(self, function: Callable[[], Tensors]) -> Tensors:
        with torch.cuda.device(self.device):
            side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function()
            torch.cuda.current_stream().wait_stream(side)
            # Other filters go on meanwhile: only what this thread does is recorded and checked.
            with torch.cuda.graph(self.graph, self.pool, capture_error_mode="thread_local"):
                return function()

    def replay(self) -> None:
        with torch.cuda.device(self.device):
            self.graph.replay()


class Repeated:
    """The same where nothing can be recorded: the function is called anew, with the memory that it first had."""

    def record(self, function: Callable[[], Tensors]) -> Tensors:
        self.function = function
        self.results = function()
        return self.results

    def replay(self) -> None:
        for result, new in zip(self.results, self.function(), strict=True):
            result.copy_(new)


def graph_for(device: torch.device, other: Graph | None = None) -> Graph | None:
    """What records on this device, if it can in the memory of another that never runs at the same time; None where
    calling is as good."""
    if device.type != "cuda":
        return None
    return CudaGraph(device, other if isinstance(other, CudaGraph) else None)


class Recording:
    """A function of tensors, recorded for inputs of one shape.

    Args:
        function: of tensors, returns tensors; what it does must depend on shapes alone, never on values.
        inputs: an example.
        graph: what records.
        other: a recording whose memory for inputs of the same shape may be used, since it is never called at the same
            time.
    """

    def __init__(
        self, function: Callable[..., Tensors], inputs: Sequence[Tensor], graph: Graph, other: Recording | None = None
    ) -> None:
        known = other.inputs if other else inputs
        self.inputs: list[Tensor] = [
            own if other and own.shape == new.shape else _placed_alike(new)
            for own, new in zip(known, inputs, strict=True)
        ]
        self.graph = graph
        self.results = graph.record(lambda: function(*self.inputs))

    def __call__(self, *inputs: Tensor) -> Tensors:
        """The results, valid until the next call."""
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.results


def _placed_alike(tensor: Tensor) -> Tensor:
    """A copy with the same gaps in memory, which a clone would close: kernels like pixels where they are."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def recorded(
    function: Callable[..., Tensors], inputs: Sequence[Tensor], device: torch.device, other: Recording | None = None
) -> Recording | None:
    """The function recorded on this device, with the memory of another recording as far as it fits; None, with a
    warning, where that fails."""
    graph = graph_for(device, other.graph if other else None)
    if graph is None:
        return None
    try:
        return Recording(function, inputs, graph, other)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"{device} cannot record a pair as a graph and starts each kernel by itself, which is slower: {reason}; "
            "please report this with the versions of PyTorch and the driver",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
