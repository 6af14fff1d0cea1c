"""Choose the backend of the operations by device, dtype and what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

from vsrife.errors import DeviceError, first_line
from vsrife.ops.cpu.verification import verdicts_folder, verified
from vsrife.ops.protocol import Ops
from vsrife.ops.reference import reference

CUDA_VARIABLE = "VSRIFE_CUDA"
CUDA_MODES = ("graph", "plain")

_plain: ContextVar[bool] = ContextVar("plain_operations", default=False)
_disabled: set[torch.device] = set()  # CUDA devices whose kernels have failed in this process


def choose(device: torch.device, dtype: torch.dtype) -> Ops:
    """The operations for convolutions of `dtype` on `device`; those of a CUDA device change where a kernel fails."""
    if dtype == torch.float64 or _plain.get():
        return reference
    if device.type == "cuda":
        return _cuda_kernels(device) if uses_kernels(device) else reference
    return _cpu_kernels(dtype) if device.type == "cpu" else reference


@cache
def _cpu_kernels(dtype: torch.dtype) -> Ops:
    try:
        from vsrife.ops.cpu.kernels import cpu_ops  # here, since numba is optional
    except ImportError:
        return reference
    return verified(cpu_ops, dtype, verdicts_folder())


# --- CUDA -------------------------------------------------------------------------------------------------------------


@cache
def _cuda_kernels(device: torch.device) -> Ops:
    """Those in Triton; plain PyTorch, with a warning that says what to do, where they cannot run."""
    problem = kernels_problem(device)
    if not problem:
        from vsrife.ops.cuda.backend import cuda_ops  # here, since Triton is optional

        return cuda_ops
    if cuda_mode() != "plain" and not torch.version.hip:
        warnings.warn(f"{device} uses plain PyTorch alone, which is slower: {problem}", RuntimeWarning, stacklevel=2)
    return reference


def cuda_mode() -> str:
    """How CUDA devices are used, by the environment variable `VSRIFE_CUDA`: "graph", "plain", or "" for the default.

    Raises:
        DeviceError: the variable has another value.
    """
    mode = os.environ.get(CUDA_VARIABLE, "")
    if mode not in ("", *CUDA_MODES):
        raise DeviceError(f"{CUDA_VARIABLE} must be 'graph' or 'plain', got {mode!r}; unset it for the default")
    return mode


def kernels_problem(device: torch.device) -> str:
    """Why Triton's kernels cannot run on a CUDA device, and what to do about it; empty where they can."""
    if cuda_mode() == "plain":
        return f"{CUDA_VARIABLE}=plain is set"
    if torch.version.hip:
        return "the kernels are for NVIDIA GPUs"
    try:
        import triton  # here, since PyTorch brings it along on Linux only
    except ImportError:
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"Triton is missing; pip install {package}"
    try:
        with torch.cuda.device(device):
            triton.runtime.driver.active.get_current_target()  # builds Triton's launcher with the C compiler
    except Exception as error:  # compilers fail in many ways
        if isinstance(error, subprocess.CalledProcessError | OSError) or "compiler" in str(error):
            return "Triton needs a C compiler and Python's headers; install gcc and python3-dev"
        return f"Triton cannot start, got {first_line(error)!r}; report this with the output of `vsrife doctor`"
    return ""


def uses_kernels(device: torch.device) -> bool:
    """Whether a CUDA device runs Triton's kernels, as far as they have not failed yet."""
    return device not in _disabled and not _plain.get() and _cuda_kernels(device) is not reference


def uses_graphs(device: torch.device) -> bool:
    """Whether the motion of a pair is recorded as a CUDA graph."""
    return device.type == "cuda" and cuda_mode() == "graph" and not _plain.get()


def disable_kernels(device: torch.device, reason: str) -> None:
    """Use plain PyTorch on a CUDA device until the process ends, with a warning."""
    if device in _disabled:
        return
    _disabled.add(device)
    warnings.warn(
        f"{device} uses plain PyTorch from here on, which is slower: {reason}; report this with the output of "
        "`vsrife doctor`",
        RuntimeWarning,
        stacklevel=2,
    )


@contextmanager
def plain_operations() -> Iterator[None]:
    """Within the block, `choose` returns plain PyTorch in this thread."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)
