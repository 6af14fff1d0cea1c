"""Check CPU kernels against the reference on small cases before their first use.

They call private functions of PyTorch and run code compiled for this very CPU: either can be wrong on a machine or with
a version that nobody has tested.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from vsrife.ops import cases
from vsrife.ops.protocol import OP_NAMES, Ops
from vsrife.ops.reference import reference

CPU = torch.device("cpu")


class _VerifiedOps:
    """Kernels whose operations are checked when first asked for; what fails is computed by the reference instead."""

    def __init__(self, kernels: Ops, dtype: torch.dtype) -> None:
        self._kernels, self._dtype = kernels, dtype
        self._warns = True

    def __getattr__(self, name: str) -> Any:
        if name not in OP_NAMES:
            return getattr(self._kernels, name)
        problem = problem_of(lambda: self._failures(name))
        if problem and self._warns:
            warn(f"{name}: {problem}")
            self._warns = False
        operation: Callable[..., Tensor] = getattr(reference if problem else self._kernels, name)
        setattr(self, name, operation)  # found from now on before `__getattr__` is asked
        return operation

    def _failures(self, name: str) -> Iterable[str]:
        for case, excess in cases.failing(self._kernels, name, self._dtype, CPU):
            yield f"case {case} is off by {excess:.1g}"


def verified(kernels: Ops, dtype: torch.dtype) -> Ops:
    """The kernels, with the reference in place of each operation that fails its check.

    Args:
        kernels: for CPUs.
        dtype: of the convolutions.
    """
    return cast(Ops, _VerifiedOps(kernels, dtype))


def problem_of(check: Callable[[], Iterable[str]]) -> str:
    """The failures of a check, or the error that ended it; empty if it passed."""
    try:
        return "; ".join(check())
    except MemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        return f"{type(error).__name__}: {str(error).strip().partition('\n')[0][:200]}"


def warn(problem: str) -> None:
    """Warn that kernels are not used."""
    warnings.warn(
        f"CPU kernels do not work on this machine and plain PyTorch is used instead, which is slower ({problem}); "
        "please report this with the output of `vsrife doctor`",
        RuntimeWarning,
        stacklevel=3,
    )
