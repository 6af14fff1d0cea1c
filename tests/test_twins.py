"""Every fast twin of an op against the plain PyTorch one. Float64 decides how far off each may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from vsrife.ops import choose, cpu, reference
from vsrife.ops.reference import Axis, Conv

SIZES = [(1, 1), (2, 3), (31, 65), (96, 128)]
FLOWS: dict[str, Callable[[Tensor], Tensor]] = {
    "zero": lambda unit: unit * 0,
    "subpixel": lambda unit: unit * 0.9,
    "whole pixels": lambda unit: (unit * 5).round(),
    "leaves the frame": lambda unit: unit * 8000,
}


@dataclass(frozen=True)
class Twin:
    """An op, the arguments that make a case of it, and the relative error that is allowed beyond PyTorch's own."""

    name: str
    arguments: Callable[[torch.Generator, int, int, Callable[[Tensor], Tensor]], tuple[Any, ...]]
    floor: float
    why: str

    def __str__(self) -> str:
        return self.name


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    """Values in -1..1, in the channels-last memory of the network."""
    values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return values.contiguous(memory_format=torch.channels_last)


def sliced(generator: torch.Generator, channels: int, height: int, width: int) -> Tensor:
    """A part of a larger tensor, as cropping makes it."""
    return unit(generator, 1, channels + 1, height + 3, width + 2)[:, 1:, 2:-1, 1:-1]


def warp_stacks(taps: int, channels: int, extras: int) -> Callable[..., tuple[Any, ...]]:
    def arguments(
        generator: torch.Generator, height: int, width: int, move: Callable[[Tensor], Tensor]
    ) -> tuple[Any, ...]:
        stacks = [sliced(generator, channels, taps * height, taps * width) for _ in range(2)]
        flow = move(unit(generator, 1, 4, taps * height, taps * width))
        rows = torch.arange(taps * height, dtype=torch.float64)[:, None]
        columns = torch.arange(taps * width, dtype=torch.float64)
        extra = sliced(generator, extras, max(1, height // 2), max(1, width // 2))
        return *stacks, flow, rows, columns, taps, extra

    return arguments


def blend_of(dtype: torch.dtype, channels: int) -> Callable[..., tuple[Any, ...]]:
    def arguments(
        generator: torch.Generator, height: int, width: int, move: Callable[[Tensor], Tensor]
    ) -> tuple[Any, ...]:
        pictures = [sliced(generator, channels, height + 1, width + 2) for _ in range(2)]
        if not dtype.is_floating_point:
            pictures = [((p + 1) * torch.iinfo(dtype).max / 2).to(dtype) for p in pictures]
        share = (unit(generator, 1, 1, height, width) + 1) / 2
        return *pictures, move(unit(generator, 1, 4, height, width)), share

    return arguments


def enlarge_add(
    generator: torch.Generator, height: int, width: int, move: Callable[[Tensor], Tensor]
) -> tuple[Any, ...]:
    return move(unit(generator, 1, 4, 4 * height, 2 * width)), move(sliced(generator, 4, height, width))


def sample(generator: torch.Generator, height: int, width: int, move: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    def axis(size: int) -> Axis:
        positions = torch.rand(2 * size + 1, generator=generator, dtype=torch.float64) * (size + 2) - 1
        return Axis.at(positions, size)

    return move(sliced(generator, 3, height, width)), axis(height), axis(width)


TWINS = (
    Twin("sample", sample, 3e-7, "order of two lerps"),
    Twin("enlarge_add", enlarge_add, 2e-6, "positions in float32"),
    Twin("warp_stacks, one tap", warp_stacks(1, 7, 9), 1e-5, "positions in float32"),
    Twin("warp_stacks, four taps", warp_stacks(2, 11, 1), 1e-5, "positions in float32"),
    Twin("blend, float32", blend_of(torch.float32, 3), 1e-5, "positions in float32"),
    Twin("blend, uint8", blend_of(torch.uint8, 1), 1e-5, "positions in float32"),
    Twin("blend, uint16", blend_of(torch.uint16, 1), 1e-5, "positions in float32"),
)


def in_dtype(argument: Any, dtype: torch.dtype) -> Any:
    if isinstance(argument, Axis):
        return argument.to(torch.device("cpu"), dtype)
    if isinstance(argument, Tensor) and argument.dtype.is_floating_point:
        return argument.to(dtype)
    return argument


@pytest.mark.parametrize("twin", TWINS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
@pytest.mark.parametrize("flow", FLOWS)
def test_twin_matches_reference(twin: Twin, size: tuple[int, int], flow: str) -> None:
    """At most twice the error of plain PyTorch in float32, plus the floor; both against float64."""
    op = twin.name.partition(",")[0]
    arguments = twin.arguments(torch.Generator().manual_seed(size[1]), *size, FLOWS[flow])
    single = [in_dtype(a, torch.float32) for a in arguments]
    exact = getattr(reference, op)(*(in_dtype(a, torch.float64) for a in single))
    plain = getattr(reference, op)(*single)
    fast = getattr(cpu, op)(*single)
    assert fast.shape == exact.shape
    assert fast.dtype == torch.float32
    allowed = 2 * (plain - exact).abs().max() + twin.floor * exact.abs().max().clamp_min(1)
    assert (fast - exact).abs().max() <= allowed


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (24, 40)], ids=lambda s: f"{s[1]}x{s[0]}")
@pytest.mark.parametrize("kind", ["leaky", "prelu", "residual", "linear"])
def test_convolution_matches_reference(kind: str, size: tuple[int, int], groups: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = unit(generator, 2, 16, *size), unit(generator, 16, 16 // groups, 3, 3)
    bias, slopes = (unit(generator, 1, 1, 1, 16).flatten() for _ in range(2))
    make = partial(
        Conv, stride=stride, groups=groups, residual=kind == "residual" and stride == 1, activated=kind != "linear"
    )

    def conv(dtype: torch.dtype) -> Conv:
        return make(weight.to(dtype), bias.to(dtype), slopes=slopes.to(dtype) if kind == "prelu" else None)

    exact = reference.convolve(x, conv(torch.float64))
    single = conv(torch.float32)
    for _ in range(2):  # the second time with the weights that the first has packed
        got = cpu.convolve(x.float(), single)
        assert (got - exact).abs().max() < 1e-4


def test_not_a_number_reads_inside_the_picture() -> None:
    """A broken weights file may yield anything; no memory outside the picture may be touched."""
    picture = torch.ones(1, 1, 8, 8)
    flow = torch.full((1, 4, 8, 8), float("nan"))
    flow[..., ::2] = float("inf")
    share = torch.full((1, 1, 8, 8), 0.5)
    assert torch.equal(cpu.blend(picture, picture, flow, share), picture)


def test_choice_of_twins() -> None:
    assert choose(torch.device("cpu"), torch.float32) is cpu
    assert choose(torch.device("cpu"), torch.float64) is reference
    assert choose(torch.device("meta"), torch.float16) is reference
