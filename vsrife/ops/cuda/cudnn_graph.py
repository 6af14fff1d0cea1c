"""A convolution and all that follows it as one graph of cuDNN, which compiles a kernel for it.

Through cuDNN's own Python frontend, which is optional (`pip install nvidia-cudnn-frontend`): without it, importing this
module fails. A graph is for one picture. Several go through it one after the other, and so come out as each alone does.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cudnn
import torch
from torch import Tensor

from vsrife.ops.reference import LEAKY_SLOPE, Conv

KINDS = {torch.float16: cudnn.data_type.HALF, torch.bfloat16: cudnn.data_type.BFLOAT16}
HEURISTICS = [cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK]
_handles = threading.local()  # a handle serves one thread at a time


@dataclass(frozen=True, slots=True)
class Task:
    """What a graph depends on.

    Attributes:
        dtype: of all that is read and written; sums are float32.
        shape: of the input, (1, C, H, W).
        strides: of the input.
        outputs: channels.
        step: of the convolution.
        biased: whether a bias is added.
        residual: whether the input is added.
        follows: "leaky", "prelu", or nothing.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    outputs: int
    step: int
    biased: bool
    residual: bool
    follows: str

    @classmethod
    def of(cls, x: Tensor, conv: Conv) -> Task:
        follows = "" if not conv.activated else "leaky" if conv.slopes is None else "prelu"
        outputs, biased = len(conv.weight), conv.bias is not None
        shape = (1, *x.shape[1:])
        strides = (x.shape[2] * x.stride(2), *x.stride()[1:])  # the first is never used
        return cls(x.dtype, shape, strides, outputs, conv.stride, biased, conv.residual, follows)

    @property
    def result(self) -> tuple[int, int, int, int]:
        """Shape of the output."""
        height, width = self.shape[2:]
        return 1, self.outputs, -(-height // self.step), -(-width // self.step)


def channels_last(shape: tuple[int, ...]) -> list[int]:
    _, channels, height, width = shape
    return [channels * height * width, 1, channels * width, channels]


def described(task: Task, **where: Any) -> Any:
    """The graph, not yet built; its tensors are x, weight, bias, slopes and out.

    Args:
        task: what it does.
        where: the `handle` of a device, or what else names one.
    """
    kind, single = KINDS[task.dtype], cudnn.data_type.FLOAT
    graph = cudnn.pygraph(io_data_type=kind, intermediate_data_type=single, compute_data_type=single, **where)

    def given(name: str, shape: tuple[int, ...], strides: Any) -> Any:
        return graph.tensor(name=name, dim=list(shape), stride=list(strides), data_type=kind)

    def for_channels(name: str) -> Any:
        shape = (1, task.outputs, 1, 1)
        return given(name, shape, channels_last(shape))

    x = given("x", task.shape, task.strides)
    weight_shape = (task.outputs, task.shape[1], 3, 3)
    weight = given("weight", weight_shape, channels_last(weight_shape))
    y = graph.conv_fprop(
        image=x, weight=weight, padding=[1, 1], stride=[task.step] * 2, dilation=[1, 1], compute_data_type=single
    )
    if task.biased:
        y = graph.add(a=y, b=for_channels("bias"))
    if task.residual:
        y = graph.add(a=y, b=x)
    if task.follows == "leaky":
        y = graph.leaky_relu(input=y, negative_slope=LEAKY_SLOPE)
    elif task.follows == "prelu":
        positive = graph.relu(input=y)
        negative = graph.sub(a=y, b=positive)
        y = graph.add(a=positive, b=graph.mul(a=negative, b=for_channels("slopes")))
    y.set_name("out").set_output(True).set_data_type(kind).set_dim(list(task.result))
    y.set_stride(channels_last(task.result))
    return graph


def _handle(device: torch.device) -> Any:
    """This thread's for a device, which is the current one, on its current stream."""
    known = _handles.__dict__.setdefault("of_device", {})
    if device not in known:
        known[device] = cudnn.create_handle()
    cudnn.set_stream(handle=known[device], stream=torch.cuda.current_stream(device).cuda_stream)
    return known[device]


@lru_cache(maxsize=256)
def _built(task: Task, device: torch.device, _thread: int) -> Any:
    """The graph with a kernel that cuDNN chose and compiled; for one thread, as its handle is."""
    graph = described(task, handle=_handle(device))
    graph.build(HEURISTICS)
    return graph


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve` for half precision in channels-last memory on a CUDA device.

    Once its graph is built, which takes up to a second, it may be recorded.

    Raises:
        ValueError: it is not for such arguments.
        Exception: cuDNN cannot do it.
    """
    if not x.is_cuda or x.dtype not in KINDS or conv.groups > 1 or x.stride(1) != 1:
        raise ValueError(f"no graph for {x.dtype} with strides {x.stride()} on {x.device}, {conv.groups} groups")
    task = Task.of(x, conv)
    if not (task.biased or task.residual or task.follows):
        raise ValueError("nothing follows the convolution, so there is nothing to be fused")
    out = torch.empty(
        (len(x), *task.result[1:]), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )  # fmt: skip
    with torch.cuda.device(x.device):
        graph, handle = _built(task, x.device, threading.get_ident()), _handle(x.device)
        # From PyTorch's allocator, so that it belongs to a recording.
        workspace = torch.empty(max(1, graph.get_workspace_size()), dtype=torch.uint8, device=x.device)
        for picture, into in zip(torch.split(x, 1), torch.split(out, 1), strict=True):
            graph.execute(_tensors(picture, conv, into), workspace, handle=handle)
    return out


def _tensors(x: Tensor, conv: Conv, out: Tensor) -> dict[str, Tensor]:
    """What a graph reads and writes, by name."""
    tensors = {"x": x, "weight": conv.weight.contiguous(memory_format=torch.channels_last), "out": out}
    if conv.bias is not None:
        tensors["bias"] = conv.bias[None, :, None, None]
    if conv.slopes is not None and conv.activated:
        tensors["slopes"] = conv.slopes[None, :, None, None]
    return tensors
