"""Checks of what to run on, and how: device, precision, flow scale."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from numbers import Real
from typing import get_args

import torch

from vsrife.engine.keywords import FLOW_SCALES, Precision
from vsrife.errors import DeviceError, OptionError, first_line, shown
from vsrife.networks.catalogue import INT8_BUNDLED
from vsrife.ops.dispatch import cuda_mode

_DTYPES: dict[str, torch.dtype] = {
    "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8
}  # fmt: skip
_BEST_PRECISION: dict[str, Precision] = {"cuda": "fp16", "xpu": "fp16"}  # of devices that are all alike; else "fp32"


def parse_device(device: str | torch.device | None) -> torch.device:
    """The torch device to run on; None or "auto" is the best present.

    Raises:
        DeviceError: no such device here.
    """
    cuda_mode()  # a wrong value of its environment variable is an error of this call
    if device is None or device == "auto":
        return _best_device()
    if isinstance(device, str) and "," in device:
        raise DeviceError(
            f"device must be one here, got {shown(device)}; several share the frames of a clip, in RIFE alone"
        )
    try:
        held = torch.zeros(1, device=torch.device(device))
        held.cpu()  # a device that holds no data fails here
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = first_line(error)
        name = str(device) if isinstance(device, torch.device) else device
        raise DeviceError(f"device cannot be used, got {shown(name)} ({reason}); try 'cpu'") from error
    return held.device  # with its index: "cuda" and "cuda:0" are one


def _best_device() -> torch.device:
    """The first device that can run something; warns of those passed over, such as GPUs too old for this PyTorch."""
    candidates: list[str] = []
    if torch.cuda.is_available():
        first = torch.cuda.current_device()
        candidates += [f"cuda:{i}" for i in sorted(range(torch.cuda.device_count()), key=lambda i: i != first)]
    if torch.xpu.is_available():
        candidates.append(f"xpu:{torch.xpu.current_device()}")
    if torch.backends.mps.is_available():
        candidates.append("mps")
    for name in candidates:
        try:
            return parse_device(name)
        except DeviceError as error:
            warnings.warn(
                f"{name} is passed over, got {first_line(error.__cause__ or error)!r}; install a PyTorch build "
                "that supports it, or name another device",
                RuntimeWarning,
                stacklevel=3,
            )
    return torch.device("cpu")


def parse_devices(device: str | torch.device | None) -> tuple[torch.device, ...]:
    """The torch devices that share a clip: one as for `parse_device`, or several as in "cuda:0,1".

    Raises:
        DeviceError: no such device here, or one that is named twice; only "cpu" may be.
    """
    if not isinstance(device, str) or "," not in device:
        return (parse_device(device),)
    chosen: list[torch.device] = []
    for name in map(str.strip, device.split(",")):
        if name.isdecimal() and chosen:  # a number alone is one more of the same kind
            name = f"{chosen[-1].type}:{name}"
        one = parse_device(name)
        if one in chosen and one.type != "cpu":
            raise DeviceError(
                f"device must name each device once, got {str(one)!r} again in {shown(device)}; leave it out"
            )
        chosen.append(one)
    return tuple(chosen)


def best_precision(device: torch.device, bundled: str | None = None) -> Precision:
    """The fastest of full quality: half precision or eight bits where there are units for it.

    Half precision was seen to stay far above 48 dB of float32, eight bits to keep the quality of some bundled models.

    Args:
        device: to run on.
        bundled: name of the bundled model to run; None: another one.
    """
    if device.type == "cpu":
        if bundled in INT8_BUNDLED and not _bytes_problem([device]):
            return "int8"
        # They double the rate of convolutions. Without them bf16 is computed in float32, which is slower.
        return "bf16" if any(_cpu_has(units) for units in ("avx512_bf16", "amx_tile")) else "fp32"
    return _BEST_PRECISION.get(device.type, "fp32")


def _cpu_has(units: str) -> bool:
    """Whether PyTorch knows that this CPU has units of a kind; older and other builds of it do not say."""
    return bool(getattr(torch.cpu, f"_is_{units}_supported", bool)())


def parse_precision(precision: str | None, *devices: torch.device, bundled: str | None = None) -> torch.dtype:
    """The dtype of the convolutions; None is the best that is safe on the device for the model.

    Several devices compute frames of one clip: where their best differs, it is float32.

    Args:
        precision: of `Precision`, or None.
        devices: to run on.
        bundled: name of the bundled model to run; None: another one.

    Raises:
        OptionError: no such precision.
        DeviceError: int8, where a device does not compute in bytes.
    """
    if precision is None:
        best = {best_precision(device, bundled) for device in devices}
        return _DTYPES[best.pop() if len(best) == 1 else "fp32"]
    if not isinstance(precision, str) or precision not in _DTYPES:
        choices = ", ".join(get_args(Precision))
        raise OptionError(f"precision must be one of {choices}, got {shown(precision)}; leave it out for the best")
    problem = _bytes_problem(devices) if precision == "int8" else ""
    if problem:
        raise DeviceError(f"precision 'int8' {problem}")
    return _DTYPES[precision]


def _bytes_problem(devices: Iterable[torch.device]) -> str:
    """Why devices do not compute in bytes, and what to do; empty where they do."""
    for device in devices:
        if device.type != "cpu":
            return f"is for CPUs, got device {str(device)!r}; leave precision out"
    try:
        from vsrife.ops.cpu import int8  # here, since numba is optional
    except ImportError:
        return "needs numba, which is not installed; pip install numba"
    return "" if int8.vectors_here() else "needs a CPU with AVX-512 VNNI or AVX-VNNI, got one without; leave it out"


def parse_scale(scale: float) -> float:
    if isinstance(scale, bool) or not isinstance(scale, Real) or scale not in FLOW_SCALES:
        raise OptionError(f"scale must be 0.25, 0.5, 1, 2 or 4, got {shown(scale)}; for 4K sources try 0.5")
    return float(scale)
