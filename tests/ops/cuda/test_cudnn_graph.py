"""cuDNN's graph of a convolution and what follows it: described without a GPU, run where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.cases import CASES, FLOWS, Case, arguments_of, excess
from vsrife.ops.reference import Conv

cudnn = pytest.importorskip("cudnn", reason="the Python frontend of cuDNN is optional")
from vsrife.ops.cuda import cudnn_graph  # noqa: E402

FUSED = [case for case in CASES if case.op == "convolve" and case.label not in ("grouped", "alone")]
DTYPES = [torch.float16, torch.bfloat16]
CAPABILITY, PROCESSORS = 90, 132
HOPPER = {
    "version": 1, "deviceName": "NVIDIA H100 80GB HBM3", "deviceVer": 10 * CAPABILITY, "driverVer": 13020,
    "cudaDeviceId": 0, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1, "multiProcessorCount": PROCESSORS,
    "smCountOrigin": 0, "warpSize": 32, "maxGridSize": [2**31 - 1, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
    "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "maxCtasPerSM": 32, "regsPerBlock": 65536,
    "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": 232448,
    "oversizedSharedMemoryPerBlock": 232448, "reservedSharedMemoryPerBlock": 1024, "l2CacheSize": 50 * 2**20,
    "totalGlobalMem": 85_000_000_000, "smClockRateKHz": 1_980_000, "memClockRateKHz": 2_619_000,
}  # fmt: skip


def arguments(case: Case, dtype: torch.dtype, size: tuple[int, int] = (31, 65)) -> tuple[Tensor, Conv]:
    x, conv = arguments_of(case, size, FLOWS["zero"], dtype)
    return x.contiguous(memory_format=torch.channels_last), conv


def for_hopper(task: cudnn_graph.Task) -> Any:
    """The graph for a GPU that is not there."""
    device = cudnn.create_device_properties(json.dumps(HOPPER))
    return cudnn_graph.described(task, device_property=device, sm_version=CAPABILITY, sm_count=PROCESSORS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FUSED, ids=str)
def test_cudnn_takes_the_graph(case: Case, dtype: torch.dtype) -> None:
    """It is valid and can be told to cuDNN itself, has the plain op's result, and its tensors are all given."""
    x, conv = arguments(case, dtype)
    task = cudnn_graph.Task.of(x, conv)
    graph = for_hopper(task)
    graph.validate()
    graph.build_operation_graph()
    expected = reference.convolve(x.float(), Conv(conv.weight.float(), None, conv.stride))[:1]
    assert task.result == tuple(expected.shape)
    out = torch.empty(task.result, dtype=dtype).contiguous(memory_format=torch.channels_last)
    given = cudnn_graph._tensors(x[:1], conv, out)
    assert {tensor.get_name() for tensor in (*graph.get_inputs(), *graph.get_outputs())} == set(given)
    for name, tensor in given.items():
        described = graph.find_tensor(name)
        assert list(tensor.shape) == list(described.get_dim()), name
        for own, told, size in zip(tensor.stride(), described.get_stride(), tensor.shape, strict=True):
            assert size == 1 or own == told, name


def test_a_batch_goes_through_the_graph_of_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    x, conv = arguments(next(case for case in FUSED if case.label == "strided"), torch.float16)
    assert len(x) == 2
    assert cudnn_graph.Task.of(x, conv) == cudnn_graph.Task.of(x[1:].clone(memory_format=torch.channels_last), conv)
    ran: list[Mapping[str, Tensor]] = []

    class Graph:
        def get_workspace_size(self) -> int:
            return 7

        def execute(self, tensors: Mapping[str, Tensor], workspace: Tensor, handle: object) -> None:
            assert (workspace.nbytes, handle) == (7, "handle")
            ran.append(tensors)
            tensors["out"].copy_(reference.convolve(tensors["x"], conv))

    monkeypatch.setattr(cudnn_graph, "_built", lambda *_given: Graph())
    monkeypatch.setattr(cudnn_graph, "_handle", lambda _device: "handle")
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "device", lambda _device: torch.inference_mode())
    assert torch.equal(cudnn_graph.convolve(x, conv), reference.convolve(x, conv))
    assert len(ran) == 2


def test_what_cudnn_is_not_for_is_refused() -> None:
    x, conv = arguments(FUSED[0], torch.float16)
    with pytest.raises(ValueError, match=r"no graph for torch.float16 .* on cpu"):
        cudnn_graph.convolve(x, conv)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", FUSED, ids=str)
def test_graph_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    for size in ((1, 29), (31, 65), (272, 480)):
        assert excess(cudnn_graph.convolve, case, arguments(case, dtype, size), torch.device("cuda")) <= 0


@pytest.mark.needs_cuda
def test_it_can_be_recorded() -> None:
    x, conv = arguments(FUSED[0], torch.float16)
    x, conv = x.cuda(), Conv(conv.weight.cuda(), conv.bias.cuda() if conv.bias is not None else None, residual=True)
    expected = cudnn_graph.convolve(x, conv)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = cudnn_graph.convolve(x, conv)
    recorded.zero_()
    graph.replay()
    assert torch.equal(recorded, expected)
