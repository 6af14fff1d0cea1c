"""Small cases that compare a backend's operations with the reference: in tests, and before kernels are first used.

Float64 decides: an operation may be off by twice the error of the reference in the same dtype, by a floor that each
case states, and by one rounding of what is kept in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vsrife.ops.protocol import Axis, Conv, Ops, RgbTransform, TransposedConv, WarpInputs
from vsrife.ops.reference import reference

Move = Callable[[Tensor], Tensor]
Arguments = tuple[Any, ...]
FLOWS: Mapping[str, Move] = {
    "zero": lambda unit: unit * 0,
    "subpixel": lambda unit: unit * 0.9,
    "whole pixels": lambda unit: (unit * 5).round(),
    "leaves the frame": lambda unit: unit * 8000,
}


@dataclass(frozen=True, slots=True)
class Case:
    """Arguments for an operation.

    Attributes:
        op: the operation's name.
        label: tells it from its other cases.
        make: makes the arguments in float64 from a generator, a height, a width and a function that scales the motion.
        floor: of the allowed error, relative to the largest value or to 1 if that is more.
        half: whether networks in half precision call the operation with such tensors.
    """

    op: str
    label: str
    make: Callable[[torch.Generator, int, int, Move], Arguments]
    floor: float
    half: bool = False

    def __str__(self) -> str:
        return f"{self.op}-{self.label}" if self.label else self.op


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    """Values in -1..1, in the channels-last memory of the network."""
    values = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return values.contiguous(memory_format=torch.channels_last)


def sliced(generator: torch.Generator, channels: int, height: int, width: int, count: int = 1) -> Tensor:
    """A slice of a larger tensor, as cropping makes it."""
    return unit(generator, count, channels + 1, height + 3, width + 2)[:, 1:, 2:-1, 1:-1]


def _planes_to_rgb(
    dtype: torch.dtype, subsampling: int | None, *, planes: int = 3, clamps: bool = True
) -> Callable[..., Arguments]:
    """Planes of which the second and third are `subsampling` times smaller; the output is a slice."""

    def make(generator: torch.Generator, height: int, width: int, _move: Move) -> Arguments:
        factors = (1, subsampling or 1, subsampling or 1)[:planes]
        pictures = tuple(_pictures(generator, 1, -(-height // f), -(-width // f), dtype)[0] for f in factors)
        peak = 1 if dtype.is_floating_point else torch.iinfo(dtype).max
        weight, bias = unit(generator, 1, 1, 3, planes)[0, 0] * 1.5 / peak, unit(generator, 1, 1, 1, 3).flatten()

        def axis(size: int) -> Axis | None:
            positions = torch.arange(size, dtype=torch.float64) / (subsampling or 1) - 0.25
            return None if subsampling is None else Axis.at(positions, -(-size // subsampling))

        out = unit(generator, 1, 5, height + 3, width + 2)
        return pictures, RgbTransform(weight, bias, axis(height), axis(width)), clamps, out[:, :3]

    return make


def _sample(adds: bool, count: int = 1) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        def axis(size: int) -> Axis:
            return Axis.at(torch.rand(2 * size + 1, generator=generator, dtype=torch.float64) * (size + 2) - 1, size)

        arguments = move(sliced(generator, 3, height, width, count)), axis(height), axis(width)
        return (*arguments, unit(generator, count, 3, 2 * height + 1, 2 * width + 1)) if adds else arguments

    return make


def _upsample(adds: bool, count: int, channels: int = 4) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        maps = [move(sliced(generator, channels, factor * height, factor * width, count)) for factor in (1, 2, 4)]
        arguments = maps[: 2 if adds else 3], 4 * height, 4 * width
        return (*arguments, move(unit(generator, count, 4, 4 * height, 4 * width))) if adds else arguments

    return make


def warp_inputs(
    stacks: Sequence[Tensor], maps: Sequence[Tensor], rows: Tensor, columns: Tensor, *rest: Any
) -> WarpInputs:
    """Inputs whose flow at the taps is computed by the reference."""

    def axis(positions: Tensor, small: Tensor, side: int) -> Axis:
        size = small.shape[side]
        sampled = (positions.flatten().double() + 0.5) * (size / stacks[0].shape[side]) - 0.5
        return Axis.at(sampled, size).to(small.device, small.dtype)

    def flow() -> Tensor:
        return sum((reference.sample(m, axis(rows, m, -2), axis(columns, m, -1)) for m in maps), torch.zeros(()))

    stack0, stack1 = stacks
    return WarpInputs(stack0, stack1, maps, flow, rows, columns, *rest)


def _warp_stacks(
    taps: int, channels: int, extras: int, times: int, filled: int, count: int = 1, maps: int = 1
) -> Callable[..., Arguments]:
    """A pair of stacks read by `count` flows, each the sum of some `maps`; with one map, stacks have no gaps."""

    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        high, wide = taps * height, taps * width
        stacks = [
            unit(generator, 1, channels, high, wide) if maps == 1 else sliced(generator, channels, high, wide)
            for _ in range(2)
        ]
        moves = [move(sliced(generator, 4, -(-high >> i), -(-wide >> i), count)) for i in range(maps)]
        rows = torch.arange(taps * height, dtype=torch.float64)[:, None]
        columns = torch.arange(taps * width, dtype=torch.float64)
        extra = sliced(generator, extras, max(1, height // 2), max(1, width // 2), count)
        when = unit(generator, count, times, 1, 1) if times == 1 else unit(generator, count, times, height, width)
        return warp_inputs(stacks, moves, rows, columns, taps, extra, when), filled, torch.float64

    return make


def _warp_convolve(
    taps: int, channels: int, extras: int, times: int, filled: int, outputs: int, count: int = 1, maps: int = 1
) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        inputs, *_ = _warp_stacks(taps, channels, extras, times, filled, count, maps)(generator, height, width, move)
        conv = _convolve(filled, outputs, stride=2)(generator, 1, 1, move)[1]
        return inputs, conv

    return make


def _pictures(generator: torch.Generator, channels: int, height: int, width: int, dtype: torch.dtype) -> list[Tensor]:
    pictures = [sliced(generator, channels, height, width) for _ in range(2)]
    if dtype.is_floating_point:
        return [p.to(dtype).to(torch.float64) if dtype == torch.float16 else p for p in pictures]
    return [((p + 1) * torch.iinfo(dtype).max / 2).to(dtype) for p in pictures]


def _blend(dtype: torch.dtype, channels: int, count: int = 1) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        pictures = _pictures(generator, channels, height + 1, width + 2, dtype)
        weight0 = (unit(generator, count, 1, height, width) + 1) / 2
        return *pictures, move(unit(generator, count, 4, height, width)), weight0

    return make


def _similar(generator: torch.Generator, height: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two planes that differ in one sample of a hundred."""
    a, b = _pictures(generator, 1, height, width, dtype)
    return a, torch.where(torch.rand(a.shape, generator=generator) < 0.01, b, a)


def _static_radius(dtype: torch.dtype) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, _move: Move) -> Arguments:
        return _similar(generator, height, width, dtype)

    return make


def _static_edges(dtype: torch.dtype) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, _move: Move) -> Arguments:
        a, b = _similar(generator, height, width, dtype)
        peak = 1 if dtype.is_floating_point else torch.iinfo(dtype).max
        return a, b, reference.static_radius(a, b), 0.2 * peak

    return make


def _blend_plane(dtype: torch.dtype, count: int = 1) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        a, b = _similar(generator, height, width, dtype)
        flow, mask = move(unit(generator, count, 4, height, width)), 9 * unit(generator, count, 1, height, width)
        peak = 1 if dtype.is_floating_point else int(torch.iinfo(dtype).max)
        return a, b, flow, mask, reference.static_radius(a, b), peak

    return make


def _convolve(inputs: int, outputs: int, count: int = 1, **kind: Any) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, _move: Move) -> Arguments:
        bias, slopes = (unit(generator, 1, 1, 1, outputs).flatten() for _ in range(2))
        conv = Conv(
            unit(generator, outputs, inputs // kind.get("groups", 1), 3, 3) / inputs**0.5,
            bias if kind.get("biased", True) else None,
            stride=kind.get("stride", 1),
            groups=kind.get("groups", 1),
            slopes=slopes if kind.get("prelu") else None,
            residual=kind.get("residual", False),
            activated=kind.get("activated", True),
        )
        return sliced(generator, inputs, height, width, count), conv

    return make


def _convolve_chain(channels: int, length: int, **kind: Any) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        layers = [_convolve(channels, channels, 2, **kind)(generator, height, width, move) for _ in range(length)]
        return layers[0][0], tuple(conv for _, conv in layers)

    return make


def _conv_transpose(inputs: int, outputs: int, shuffles: bool, count: int) -> Callable[..., Arguments]:
    def make(generator: torch.Generator, height: int, width: int, _move: Move) -> Arguments:
        weight, bias = unit(generator, inputs, outputs, 4, 4) / inputs**0.5, unit(generator, 1, 1, 1, outputs).flatten()
        return sliced(generator, inputs, height, width, count), TransposedConv.of(weight, bias, shuffles)

    return make


def _head(hidden: int, channels: int, inner: int) -> Callable[..., Arguments]:
    """A frame that is a slice of a larger tensor, as its features are."""

    def make(generator: torch.Generator, height: int, width: int, move: Move) -> Arguments:
        picture = sliced(generator, 3, 2 * height, 2 * width)
        sizes = [(3, 2), *[(hidden, 1)] * inner]
        convs = [_convolve(n, hidden, stride=s, activated=inner > 0)(generator, 1, 1, move)[1] for n, s in sizes]
        last = _conv_transpose(hidden, channels, False, 1)(generator, 1, 1, move)[1]
        return picture, tuple(convs), last, sliced(generator, channels, 2 * height, 2 * width)

    return make


# Float32 positions are off by 6e-8 of the picture's side, and values by their slope times that.
_POSITIONS = 1e-5
CASES = (
    Case("planes_to_rgb", "YUV420P8", _planes_to_rgb(torch.uint8, 2), 1e-6, half=True),
    Case("planes_to_rgb", "YUV444P16", _planes_to_rgb(torch.uint16, None, clamps=False), 1e-6, half=True),
    Case("planes_to_rgb", "YUV410PS", _planes_to_rgb(torch.float32, 4), 1e-6),
    Case("planes_to_rgb", "YUV420PH", _planes_to_rgb(torch.float16, 2), 1e-6),
    Case("planes_to_rgb", "GRAY8", _planes_to_rgb(torch.uint8, None, planes=1), 1e-6, half=True),
    Case("sample", "", _sample(False), 3e-7),
    Case("sample", "adds, batch", _sample(True, 2), 3e-7),
    Case("upsample", "three", _upsample(False, 1), 2e-6),
    Case("upsample", "masks", _upsample(False, 1, 1), 2e-6),
    Case("upsample", "adds two, batch", _upsample(True, 2), 2e-6),
    Case("warp_stacks", "one tap", _warp_stacks(1, 7, 9, 1, 28), _POSITIONS),
    Case("warp_stacks", "one tap, three times", _warp_stacks(1, 7, 9, 1, 28, 3, 4), _POSITIONS, half=True),
    Case(
        "warp_stacks", "four taps, a time for every pixel", _warp_stacks(2, 11, 1, 2, 40, maps=2), _POSITIONS, half=True
    ),
    Case("warp_convolve", "one tap", _warp_convolve(1, 7, 9, 1, 28, 16), _POSITIONS),
    Case("warp_convolve", "one tap, three times", _warp_convolve(1, 3, 1, 1, 12, 32, 3, 4), _POSITIONS, half=True),
    Case(
        "warp_convolve", "four taps, a time for every pixel", _warp_convolve(2, 11, 1, 2, 40, 24), _POSITIONS, half=True
    ),
    Case("blend", "float32", _blend(torch.float32, 3), _POSITIONS),
    Case("blend", "uint8, batch", _blend(torch.uint8, 1, 2), _POSITIONS),
    Case("blend", "uint16", _blend(torch.uint16, 1), _POSITIONS),
    Case("static_radius", "uint8", _static_radius(torch.uint8), 0),
    Case("static_radius", "float32", _static_radius(torch.float32), 0),
    Case("static_edges", "uint8", _static_edges(torch.uint8), 0),
    Case("static_edges", "uint16", _static_edges(torch.uint16), 0),
    Case("static_edges", "float32", _static_edges(torch.float32), 0),
    Case(
        "blend_plane", "uint8", _blend_plane(torch.uint8), 1.01 / 255
    ),  # one code, where a value lies on the border between two
    Case("blend_plane", "uint16, batch", _blend_plane(torch.uint16, 2), 2.01 / 65535),
    Case("blend_plane", "float32", _blend_plane(torch.float32), _POSITIONS),
    Case("convolve", "residual", _convolve(32, 32, residual=True), 1e-6, half=True),
    Case("convolve", "strided", _convolve(24, 40, stride=2, count=2), 1e-6, half=True),
    Case("convolve", "prelu", _convolve(70, 16, prelu=True), 1e-6, half=True),
    Case("convolve", "grouped", _convolve(16, 16, groups=2), 1e-6, half=True),
    Case("convolve", "alone", _convolve(3, 8, stride=2, activated=False, biased=False), 1e-6, half=True),
    Case("convolve_chain", "residual", _convolve_chain(32, 3, residual=True), 1e-6, half=True),
    Case("convolve_chain", "24 channels", _convolve_chain(24, 2), 1e-6, half=True),
    Case("convolve_chain", "prelu", _convolve_chain(16, 2, prelu=True), 1e-6, half=True),
    Case("conv_transpose", "shuffled", _conv_transpose(24, 20, True, 2), 1e-6, half=True),
    Case("conv_transpose", "", _conv_transpose(70, 5, False, 1), 1e-6, half=True),
    Case("head", "", _head(16, 4, 2), 1e-6, half=True),
    Case("head", "wide", _head(32, 8, 2), 1e-6, half=True),
    Case("head", "short", _head(16, 4, 0), 1e-6, half=True),
)


def cast(argument: Any, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Convert an argument's float tensors to `dtype` on `device`; a picture's planes keep their dtype."""
    if isinstance(argument, torch.dtype):
        return dtype
    if isinstance(argument, Axis):
        return argument.to(device or argument.low.device, dtype)
    if isinstance(argument, Conv | TransposedConv | RgbTransform):
        names = ("weight", "bias", "slopes", "rows", "columns")
        parts = {name: cast(getattr(argument, name), dtype, device) for name in names if hasattr(argument, name)}
        return replace(argument, **parts)
    if isinstance(argument, WarpInputs):
        stacks, rest = [argument.stack0, argument.stack1], (argument.taps, argument.extra, argument.times)
        made = stacks, list(argument.maps), argument.rows, argument.columns, *rest
        return warp_inputs(*(cast(part, dtype, device) for part in made))
    if isinstance(argument, list):
        return [cast(part, dtype, device) for part in argument]
    if isinstance(argument, tuple):
        return tuple(cast(part, part.dtype if isinstance(part, Tensor) else dtype, device) for part in argument)
    if isinstance(argument, Tensor):
        kind = dtype if argument.dtype.is_floating_point else argument.dtype
        return _keep_slice(argument, lambda whole: whole.to(device or whole.device, kind))
    return argument


def _keep_slice(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to a tensor; a slice of a larger tensor remains one."""
    whole = tensor._base
    if whole is None:
        return change(tensor)
    return change(whole).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def arguments_of(case: Case, size: tuple[int, int], move: Move, dtype: torch.dtype) -> Arguments:
    """The arguments of a case as a network of this dtype passes them; coordinates stay float32."""
    made = case.make(torch.Generator().manual_seed(size[1]), *size, move)
    if case.op in ("warp_stacks", "warp_convolve", "planes_to_rgb"):  # the last is for the convolution
        return (*(cast(a, torch.float32) for a in made[:-1]), cast(made[-1], dtype))
    arguments = tuple(cast(a, dtype if case.half else torch.float32) for a in made)
    return (*arguments[:-1], cast(made[-1], torch.float32)) if case.op == "head" else arguments


def run(
    op: Callable[..., Tensor],
    arguments: Arguments,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Run an operation on copies of the arguments, since it may overwrite some; on `device`, in `dtype`."""
    copies = (cast(a, dtype or _dtype_of(a), device) for a in arguments)
    return op(*(_keep_slice(a, torch.clone) if isinstance(a, Tensor) else a for a in copies))


def excess(op: Callable[..., Tensor], case: Case, arguments: Arguments, device: torch.device | None = None) -> float:
    """The error of an operation run on `device`, less the error that is allowed; not positive if it passes."""
    plain_op = getattr(reference, case.op)
    exact, plain = run(plain_op, arguments, dtype=torch.float64), run(plain_op, arguments)
    fast = run(op, arguments, device)
    if fast.dtype != plain.dtype or fast.shape != plain.shape:
        return float("inf")
    error, own = ((one.double().cpu() - exact.double()).abs().amax().item() for one in (fast, plain))
    # A convolution of half precision may be rounded once more, before bias and residual are added.
    floor = case.floor + (torch.finfo(fast.dtype).eps / 2 if fast.dtype.itemsize == 2 and case.half else 0)
    allowed = 2 * own + floor * max(1.0, exact.double().abs().amax().item())
    return error - allowed if error == error else float("inf")


def _dtype_of(argument: Any) -> torch.dtype:
    if isinstance(argument, tuple | list):
        argument = argument[0]
    if isinstance(argument, WarpInputs):
        argument = argument.stack0
    if isinstance(argument, Axis | Conv | TransposedConv | RgbTransform):
        argument = argument.weight
    if isinstance(argument, torch.dtype):
        return argument
    return argument.dtype if isinstance(argument, Tensor) else torch.float32


def failing(ops: Ops, op: str, dtype: torch.dtype, device: torch.device) -> Iterator[tuple[Case, float]]:
    """Run an operation's cases on a device.

    Args:
        ops: the backend.
        op: name of the operation.
        dtype: of the convolutions.
        device: to run on.

    Yields:
        The cases that fail, each with the error in excess of what is allowed.
    """
    for case in CASES:
        if case.op == op:
            arguments = arguments_of(case, (31, 65), FLOWS["subpixel"], dtype if case.half else torch.float32)
            over = excess(getattr(ops, op), case, arguments, device)
            if over > 0:
                yield case, over
