"""The first pair on a device, computed both ways; and what is told where kernels cannot run."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engine.cuda_runs import GPU, YUV420P8, expected, largest_difference, network, run
from tests.fake_cuda import Fake
from vsrife import __version__
from vsrife.engine import verification
from vsrife.engine.engine import Engine
from vsrife.engine.verification import _verdicts_folder
from vsrife.ops import dispatch
from vsrife.ops.cuda import KernelError
from vsrife.ops.reference import Reference


class Kernels(Reference):
    """In place of Triton's: plain PyTorch, with an error added to planes."""

    def __init__(self, error: int = 0) -> None:
        self.error, self.calls = error, 0

    def blend_plane(self, *arguments: Any) -> Tensor:
        self.calls += 1
        return super().blend_plane(*arguments) + self.error


class WrongFlow(Kernels):
    def upsample(self, *arguments: Any) -> Tensor:
        return super().upsample(*arguments) + 5


class BrokenKernels(Kernels):
    def blend_plane(self, *_arguments: Any) -> Tensor:
        self.calls += 1
        raise KernelError("blend_kernel failed, got RuntimeError: out of resources")


def frames_with(kernels: Kernels, monkeypatch: pytest.MonkeyPatch, mode: str = "") -> None:
    """Run pairs as the first of a process, and compare them with the CPU's."""
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, mode)
    monkeypatch.setattr(dispatch, "_cuda_kernels", lambda _device: kernels)
    monkeypatch.setattr(dispatch, "_disabled", set())
    monkeypatch.setattr(verification, "_verified", set())
    frames = run(Engine(network("4.25.lite", GPU), YUV420P8), [(0, 1), (1, 2)])
    with dispatch.plain_operations():
        assert largest_difference(frames, expected("4.25.lite", YUV420P8)[:2]) <= 1


def test_right_kernels_are_verified_once(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for calls in (3 * 3, 2 * 3):  # three planes for each pair; another process reads the verdict
        kernels = Kernels()
        frames_with(kernels, monkeypatch)
        assert kernels.calls == calls
    assert float((tmp_path / "verdicts" / "L15 float32 YUV8 11").read_text()) >= verification.LEAST_DB[torch.float32]
    assert not fake.findings


@pytest.mark.usefixtures("fake")
def test_wrong_kernels_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for calls in (3, 0):
        kernels = Kernels(error=20)
        with pytest.warns(RuntimeWarning, match=r"came out wrong, \d+\.\d dB .* report this") as warned:
            frames_with(kernels, monkeypatch)
        assert len(warned) == 1
        assert kernels.calls == calls
    assert any((tmp_path / "verdicts").iterdir())


def test_a_graph_of_wrong_kernels_is_not_replayed(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were recorded when they were compared."""
    with pytest.warns(RuntimeWarning, match="came out wrong"):
        frames_with(WrongFlow(), monkeypatch, mode="graph")
    assert fake.captures == 2


@pytest.mark.usefixtures("fake")
def test_kernels_that_fail_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(RuntimeWarning, match="uses plain PyTorch from here on, .* out of resources; report") as warned:
        frames_with(BrokenKernels(), monkeypatch)
    assert len(warned) == 1
    assert not (tmp_path / "verdicts").exists()  # the cause may be cured


@pytest.mark.usefixtures("fake")
def test_a_verdict_holds_for_one_gpu_and_set_of_versions() -> None:
    triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
    name = _verdicts_folder(GPU).name
    for fact in (
        "Fake_GPU",
        "sm86",
        f"vsrife{__version__}",
        f"torch{torch.__version__}",
        f"triton{triton.__version__}",
    ):
        assert fact in name
    assert "cudnn" in name
    assert "driver" in name


def test_not_a_number_is_no_match() -> None:
    plane = torch.full((4, 4), float("nan"))
    assert not verification.psnr([plane], [plane], 1) >= 40


def test_a_damaged_file_counts_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "L15 float32 YUV8 11"
    path.write_text("")
    assert verification._read(path) is None


# --- what is told where kernels cannot run ----------------------------------------------------------------------------


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(("platform", "package"), [("win32", "triton-windows"), ("linux", "triton")])
def test_missing_triton(platform: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, "")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.warns(RuntimeWarning, match=rf"cuda:0 uses plain PyTorch alone, .*; pip install {package}$") as warned:
        assert not dispatch.uses_kernels(GPU)
    assert len(warned) == 1


@pytest.mark.usefixtures("fake")
def test_missing_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the error that Triton itself raises."""
    triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
    build = pytest.importorskip("triton.runtime.build").compile_module_from_src

    class Driver:
        def get_current_target(self) -> None:
            build("int x;", "vsrife_test")

    monkeypatch.setenv(dispatch.CUDA_VARIABLE, "")
    monkeypatch.setenv("CC", "/bin/false")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(triton.runtime, "driver", SimpleNamespace(active=Driver()))
    assert dispatch.kernels_problem(GPU).endswith("; install gcc and python3-dev")


@pytest.mark.usefixtures("fake")
def test_plain_mode_and_rocm_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not dispatch.uses_kernels(GPU)
        monkeypatch.setenv(dispatch.CUDA_VARIABLE, "")
        monkeypatch.setattr(torch.version, "hip", "6.4")
        dispatch._cuda_kernels.cache_clear()
        assert not dispatch.uses_kernels(GPU)
