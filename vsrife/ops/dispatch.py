"""Chooses the twin of each op: by device, dtype and what is installed.

`reference` holds every op in plain PyTorch. A twin has the same signature and the same meaning within rounding.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.cuda import rehearsal
from vsrife.ops.reference import Axis, Conv, Expansion, Reading, Warping


class Ops(Protocol):
    """The ops that have twins; `reference` documents them."""

    def see(self, planes: Sequence[Tensor], reading: Reading, clamps: bool, into: Tensor) -> Tensor: ...

    def sample(self, image: Tensor, rows: Axis, columns: Axis, total: Tensor | None = None) -> Tensor: ...

    def enlarge(self, maps: Sequence[Tensor], height: int, width: int, total: Tensor | None = None) -> Tensor: ...

    def warp_stacks(self, given: Warping, into: Tensor) -> Tensor: ...

    def warp_convolve(self, given: Warping, conv: Conv) -> Tensor: ...

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, share: Tensor) -> Tensor: ...

    def calm(self, a: Tensor, b: Tensor) -> Tensor: ...

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, calmness: Tensor, peak: int) -> Tensor: ...

    def convolve(self, x: Tensor, conv: Conv) -> Tensor: ...

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor: ...

    def expand(self, x: Tensor, expansion: Expansion) -> Tensor: ...

    def head(self, x: Tensor, convs: Sequence[Conv], last: Expansion, into: Tensor) -> Tensor: ...


def choose(device: torch.device, dtype: torch.dtype) -> Ops:
    """The ops for convolutions of `dtype` on `device`; in a rehearsal those that are not checked yet."""
    if rehearsal.goes_on() and device.type == "cuda":
        from vsrife.ops.cuda import kernels

        return kernels
    return _chosen(device, dtype)


@lru_cache(maxsize=8)
def _chosen(device: torch.device, dtype: torch.dtype) -> Ops:
    if dtype == torch.float64:
        return reference
    if device.type == "cuda":
        return _on_cuda(device, dtype)
    try:
        from vsrife.ops.cpu import kernels
    except ImportError:  # numba is optional
        return reference
    return kernels if device.type == "cpu" else reference


def _on_cuda(device: torch.device, dtype: torch.dtype) -> Ops:
    try:
        from vsrife.ops.cuda import kernels
    except ImportError:  # PyTorch brings Triton along on Linux only
        return reference
    rehearse(device, dtype)
    with _checking:  # a second thread waits, and finds what the first has learnt
        return proven(kernels, device, dtype)


def rehearse(
    device: torch.device, dtype: torch.dtype, what: Hashable = None, work: Callable[[], object] = lambda: None
) -> None:
    """Compile the kernels that `work` and the check of a CUDA device need, once, all cores busy with it.

    Compiling them one after the other, each when it is needed, makes a first frame wait several times as long.

    Args:
        device: nothing is done for others than CUDA devices.
        dtype: of the convolutions.
        what: names `work`, which is rehearsed once for each name.
        work: is gone through without starting a kernel. It must not keep anything, since results hold no values.
    """
    if device.type != "cuda" or dtype == torch.float64 or (device, dtype, what) in _rehearsed or rehearsal.goes_on():
        return
    try:
        from vsrife.ops import cases
        from vsrife.ops.cuda import kernels
    except ImportError:
        return
    with _rehearsing:  # a second thread waits, and finds what the first has compiled
        check = [partial(cases.run_all, kernels, name, dtype, device) for name in OP_NAMES]
        if (device, dtype, None) not in _rehearsed:
            rehearsal.compile_ahead(*check, work)
        elif (device, dtype, what) not in _rehearsed:
            rehearsal.compile_ahead(work)
        _rehearsed.update([(device, dtype, None), (device, dtype, what)])


@lru_cache(maxsize=8)
def proven(twins: object, device: torch.device, dtype: torch.dtype) -> Ops:
    """The ops of `twins` that compile and are right on this device, each with `reference` behind it.

    Each is run once on small cases whose exact answer is known. What fails is told in one warning and done by plain
    PyTorch instead.
    """
    kept, told = {}, []
    for name in OP_NAMES:
        twin = _Twin(name, getattr(twins, name), getattr(reference, name))
        problem = _problem(twins, name, device, dtype)
        if problem:
            twin.gives_way = True
            told.append(f"{name} ({problem})")
        kept[name] = twin
    if told:
        _warn(device, ", ".join(told))
    return cast(Ops, SimpleNamespace(**kept))


def _problem(twins: object, name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why an op cannot be used on a device; empty where it can."""
    from vsrife.ops import cases

    try:
        wrong = [f"case {case} off by {over:.1g}" for case, over in cases.failing(twins, name, dtype, device)]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        return _reason(error)
    return ", ".join(wrong)


class _Twin:
    """A fast op that gives way to the plain one, for good, when it turns out not to compile for some shape."""

    def __init__(self, name: str, fast: Callable[..., Tensor], plain: Callable[..., Tensor]) -> None:
        self.name, self.fast, self.plain = name, fast, plain
        self.gives_way = False

    def __call__(self, *arguments: Any) -> Tensor:
        if not self.gives_way:
            try:
                return self.fast(*arguments)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                self.gives_way = True
                _warn(_device_of(arguments), f"{self.name} ({_reason(error)})")
        return self.plain(*arguments)


def _device_of(arguments: Sequence[Any]) -> torch.device:
    """Of the first tensor."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            return argument.device
        if isinstance(argument, Warping):
            return argument.stack0.device
        if isinstance(argument, list | tuple):
            return _device_of(argument)
    raise TypeError("no tensor among the arguments of an op")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition('\n')[0][:200]}"


def _warn(device: torch.device, what: str) -> None:
    warnings.warn(
        f"fast kernels do not work on {device} here and plain PyTorch does their work, which is slower: {what}; please "
        "report this with the versions of PyTorch, Triton and the driver",
        RuntimeWarning,
        stacklevel=3,
    )


OP_NAMES = (
    "see", "sample", "enlarge", "warp_stacks", "warp_convolve", "blend", "calm", "blend_plane", "convolve",
    "convolve_chain", "expand", "head",
)  # fmt: skip
_checking = threading.Lock()
_rehearsing = threading.Lock()
_rehearsed: set[Hashable] = set()
