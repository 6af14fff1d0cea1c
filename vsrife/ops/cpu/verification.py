"""Check CPU kernels against the reference on small cases before their first use.

They call private functions of PyTorch and run code compiled for this very CPU: either can be wrong on a machine or with
a version that nobody has tested. That an operation has passed is kept on disk, in a folder whose name holds everything
that could change it, so that other processes need not check it again. A failure is not kept.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vsrife.ops import cases
from vsrife.ops.protocol import OP_NAMES, Ops
from vsrife.ops.reference import reference

CPU = torch.device("cpu")


class _VerifiedOps:
    """Kernels whose operations are checked when first asked for; what fails is computed by the reference instead."""

    def __init__(self, kernels: Ops, dtype: torch.dtype, passed: Path | None) -> None:
        self._kernels, self._dtype, self._passed = kernels, dtype, passed
        self._warns = True

    def __getattr__(self, name: str) -> Any:
        if name not in OP_NAMES:
            return getattr(self._kernels, name)
        problem = self._problem(name)
        if problem and self._warns:
            warn(f"{name}: {problem}")
            self._warns = False
        operation: Callable[..., Tensor] = getattr(reference if problem else self._kernels, name)
        setattr(self, name, operation)  # found from now on before `__getattr__` is asked
        return operation

    def _problem(self, name: str) -> str:
        """What is wrong with an operation, in words; empty if nothing."""
        passed = self._passed and self._passed / f"{name} {str(self._dtype).removeprefix('torch.')}"
        if passed and passed.exists():
            return ""
        problem = problem_of(lambda: self._failures(name))
        if passed and not problem:
            with suppress(OSError):  # the next process checks again
                passed.parent.mkdir(parents=True, exist_ok=True)
                passed.touch()
        return problem

    def _failures(self, name: str) -> Iterable[str]:
        for case, excess in cases.failing(self._kernels, name, self._dtype, CPU):
            yield f"case {case} is off by {excess:.1g}"


def verified(kernels: Ops, dtype: torch.dtype, passed: Path | None = None) -> Ops:
    """The kernels, with the reference in place of each operation that fails its check.

    Args:
        kernels: for CPUs.
        dtype: of the convolutions.
        passed: folder that holds an empty file for each operation that has passed; None, the default: check them all.
    """
    return cast(Ops, _VerifiedOps(kernels, dtype, passed))


def verdicts_folder() -> Path:
    """The folder for the operations that have passed with these sources and libraries on this CPU. Imports numba."""
    import numba  # here, since it is optional
    import platformdirs  # here, so that a network can be measured where only PyTorch is installed
    from llvmlite import binding  # as numba

    sources = sorted(Path(__file__).parents[1].glob("**/*.py"))
    facts = (
        torch.__version__, torch.backends.cpu.get_cpu_capability(), numba.__version__, binding.get_host_cpu_name(),
        binding.get_host_cpu_features().flatten(),
    )  # fmt: skip
    parts = (*(path.read_bytes() for path in sources), *(fact.encode() for fact in facts))
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    return platformdirs.user_cache_path("vsrife", appauthor=False) / "cpu" / digest


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
