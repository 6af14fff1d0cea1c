"""The Triton kernels: run by Triton's interpreter on the CPU, and compiled where a GPU is.

bfloat16 is not tried in the interpreter, which takes such numbers for integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.fake_cuda import interpreted_kernels
from vsrife.ops.cases import CASES, FLOWS, Case, arguments_of, excess

pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
SIZES = [(1, 1), (1, 29), (11, 23)]
HALF = [case for case in CASES if case.half]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The kernels as the interpreter runs them."""
    if torch.cuda.is_available():
        pytest.skip("the kernels are compiled in this process; the cases marked needs_cuda run them")
    with interpreted_kernels() as backend:
        yield backend


@pytest.fixture
def launches(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were started."""
    started: list[str] = []
    kind = type(interpreted.kernels.blend_kernel)
    launch = kind.run

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        started.append(self.fn.__name__)
        return launch(self, *args, **kwargs)

    monkeypatch.setattr(kind, "run", recorded)
    return started


def moves(case: Case) -> list[str]:
    return list(FLOWS) if case.op in ("warp_stacks", "blend", "blend_plane") else ["subpixel"]


SINGLE = [(case, move) for case in CASES for move in moves(case)]


@pytest.mark.parametrize(("case", "move"), SINGLE, ids=lambda x: str(x))
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_kernel_in_float32(
    case: Case, move: str, size: tuple[int, int], interpreted: ModuleType, launches: list[str]
) -> None:
    """At most twice the error of plain PyTorch, plus the floor of the case; both against float64."""
    over = excess(getattr(interpreted.cuda_ops, case.op), case, arguments_of(case, size, FLOWS[move], torch.float32))
    assert over <= 0
    assert launches or case.op == "static_edges"  # which no engine asks of a GPU: plain PyTorch


@pytest.mark.parametrize("case", HALF, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_kernel_in_half_precision(
    case: Case, size: tuple[int, int], interpreted: ModuleType, launches: list[str]
) -> None:
    over = excess(
        getattr(interpreted.cuda_ops, case.op), case, arguments_of(case, size, FLOWS["subpixel"], torch.float16)
    )
    assert over <= 0
    assert launches


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("case", "move"), SINGLE, ids=lambda x: str(x))
def test_kernel_on_a_gpu(case: Case, move: str, dtype: torch.dtype) -> None:
    from vsrife.ops.cuda.backend import cuda_ops  # here, since Triton is optional

    if dtype != torch.float32 and not case.half:
        pytest.skip("networks of half precision hand this op float32")
    for size in (*SIZES, (31, 65), (272, 480)):
        arguments = arguments_of(case, size, FLOWS[move], dtype)
        assert excess(getattr(cuda_ops, case.op), case, arguments, torch.device("cuda")) <= 0


def test_not_a_number_reads_inside_the_picture(interpreted: ModuleType) -> None:
    picture, weight0 = torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    flow = torch.full((1, 4, 8, 8), float("nan"))
    flow[..., ::2] = float("inf")
    assert torch.equal(interpreted.cuda_ops.blend(picture, picture, flow, weight0), picture)
