"""What the CPU's kernels get wrong, or cannot run, is computed by the reference, with one warning."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vsrife.ops.cpu import int8
from vsrife.ops.cpu.verification import verified
from vsrife.ops.dispatch import choose
from vsrife.ops.protocol import Axis, Conv
from vsrife.ops.reference import Reference, reference

CPU = torch.device("cpu")
PLANE = torch.zeros(1, 1, 4, 4)


class Broken(Reference):
    """Kernels of which two fail: one is wrong, one does not compile."""

    def __init__(self) -> None:
        self.calls = 0

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        return super().sample(image, rows, columns, accumulate) + 1e-3

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: ARG002
        raise RuntimeError("no such instruction\nmuch more")

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        self.calls += 1
        return super().convolve(x, conv)


def test_kernels_that_fail_give_way_to_the_reference_with_one_warning() -> None:
    ops = verified(Broken(), torch.float32)
    axis = Axis.resizing(4, 4)
    with pytest.warns(
        RuntimeWarning, match=r"plain PyTorch is used instead.*\(sample: case sample is off by 0\.0"
    ) as told:
        assert torch.equal(ops.sample(PLANE, axis, axis), PLANE)
    assert len(told) == 1
    with warnings.catch_warnings(action="error"):
        assert torch.equal(ops.static_radius(PLANE, PLANE), torch.full((1, 1, 4, 4), 32))


def test_the_warning_names_the_error_of_a_compiler() -> None:
    with pytest.warns(RuntimeWarning, match=r"static_radius: RuntimeError: no such instruction\); please report"):
        verified(Broken(), torch.float32).static_radius(PLANE, PLANE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_operation_is_checked_once(dtype: torch.dtype) -> None:
    kernels = Broken()
    ops = verified(kernels, dtype)
    x, conv = torch.zeros(1, 2, 4, 4, dtype=dtype), Conv(torch.zeros(2, 2, 3, 3, dtype=dtype), None)
    ops.convolve(x, conv)
    checked = kernels.calls
    assert checked > 1
    ops.convolve(x, conv)
    assert kernels.calls == checked + 1


def test_what_has_passed_is_not_checked_again_by_another_process(tmp_path: Path) -> None:
    x, conv = torch.zeros(1, 2, 4, 4), Conv(torch.zeros(2, 2, 3, 3), None)
    verified(Broken(), torch.float32, tmp_path / "verdicts").convolve(x, conv)
    later = Broken()
    verified(later, torch.float32, tmp_path / "verdicts").convolve(x, conv)
    assert later.calls == 1


def test_what_has_failed_is_checked_again_by_another_process(tmp_path: Path) -> None:
    for _process in range(2):
        with pytest.warns(RuntimeWarning, match="no such instruction"):
            verified(Broken(), torch.float32, tmp_path).static_radius(PLANE, PLANE)


def test_backend_of_each_device() -> None:
    assert choose(CPU, torch.float64) is reference
    assert choose(torch.device("meta"), torch.float16) is reference
    with warnings.catch_warnings(action="error"):
        kernels = choose(CPU, torch.float32)
        assert torch.equal(kernels.static_radius(PLANE, PLANE), reference.static_radius(PLANE, PLANE))
    assert "Reference" not in type(kernels.static_radius.__self__).__name__  # type: ignore[attr-defined]


def test_eight_bits_give_way_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = Conv(torch.ones(16, 16, 3, 3, dtype=torch.int8), None, scales=torch.ones(16))

    def wrong(x: Tensor, conv: Conv) -> tuple[Tensor, list[int8.ValueRange]]:
        return reference.convolve(x, conv) + 1, []

    monkeypatch.setattr(int8, "vectors_here", lambda: (8,))
    monkeypatch.setattr(int8, "convolve", wrong)
    int8._works.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"convolve in eight bits is off by 1\)"):
        assert not int8.supports(torch.zeros(1, 16, 4, 4), conv)
    int8._works.cache_clear()
