"""`vsrife doctor`: the report on this machine, and the problems found on broken ones."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import vapoursynth as vs

import vsrife
from vsrife import doctor
from vsrife.checkpoints import finding
from vsrife.cli import main
from vsrife.networks.catalogue import BUNDLED_DEFAULT, BUNDLED_FILE
from vsrife.ops.cpu import int8


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and a benchmark of a second."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(tmp_path / "home" / "models"))
    monkeypatch.setattr(doctor, "BENCHMARK_SIZES", ((64, 48), (80, 64)))
    monkeypatch.setattr(doctor, "BENCHMARK_SECONDS", 1.0)
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home"


def report(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["doctor", "--json", *options]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["usable"] is (code == 0)
    return found


def problems(found: dict[str, Any]) -> str:
    return "\n".join(f"{problem['text']} -> {problem['remedy']}" for problem in found["problems"])


def test_report_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    sections = report(capsys)["sections"]
    assert list(sections) == [
        "system", "packages", "devices", "VapourSynth", "FFmpeg", "models", "folders", "environment", "self-test",
        "benchmark",
    ]  # fmt: skip
    assert sections["system"]["vsrife"] == vsrife.__version__
    assert sections["packages"]["torch"] == importlib.metadata.version("torch")
    assert f"R{vs.core.core_version.release_major}" in sections["VapourSynth"]["core"]
    assert "bs " in sections["VapourSynth"]["plugins"]
    assert "x264" in sections["FFmpeg"]["codecs"]
    assert sections["models"][f"{BUNDLED_DEFAULT} (default)"].startswith("verified, L")
    assert sections["self-test"]["result"].startswith("passed")
    assert "ms per pair" in sections["benchmark"]["64x48"]
    assert "frames/s" in sections["benchmark"]["64x48"]


def test_text_starts_with_problems_and_holds_nothing_private(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSRIFE_MODEL_URL", "https://me:secret@mirror.example/models")
    monkeypatch.setenv("API_TOKEN", "secret")
    (home / "models" / "flownet_v4.6.pkl").write_text("no weights")
    assert main(["doctor", "--no-benchmark"]) == 0
    text = capsys.readouterr().out
    first, *rest = text.splitlines()
    assert first == "problems:"
    assert rest[0].startswith("  ~/models/flownet_v4.6.pkl is damaged")
    assert rest[1] == "    -> expected a state dict as torch.save writes it (nothing else in a pickle is ever run); " \
        "run: python -m vsrife models download 4.6 --force"  # fmt: skip
    assert "VSRIFE_MODEL_DIR" in text
    assert "https://…@mirror.example/models" in text
    assert str(home) not in text
    assert "secret" not in text
    assert "benchmark" not in text


def test_damaged_or_missing_default_model_is_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    data = (finding.package_directory() / BUNDLED_FILE).read_bytes()
    (package / BUNDLED_FILE).write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(finding, "package_directory", lambda: package)
    found = report(capsys, code=1)
    assert found["problems"][0]["fatal"]
    assert "is damaged" in found["problems"][0]["text"]
    assert "benchmark" not in found["sections"]

    shutil.rmtree(package)
    found = report(capsys, code=1)
    assert "reinstall vsrife" in problems(found)


@pytest.mark.parametrize(("model", "missing"), [("lite", False), ("4.26", True)])
def test_a_default_of_the_users_own_is_shown(model: str, missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRIFE_MODEL", model)
    monkeypatch.setattr("vsrife.checkpoints.installed.stored_models", list)
    found: list[doctor.Problem] = []
    assert doctor.models(found) == {"default": f"{model}, set by VSRIFE_MODEL"}
    assert [problem.remedy for problem in found] == ["run: vsrife models default default"] * missing


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here is used")
def test_unused_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found = problems(report(capsys, "--no-benchmark"))
    assert "an NVIDIA GPU is present, but" in found
    assert ("update NVIDIA's driver" if torch.version.cuda else "--index-url https://download.pytorch.org") in found


def test_windows_wheels_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    problem = doctor._unused_gpu(None)
    assert "on Windows, the wheels of PyPI are for CPUs only" in problem.text
    assert "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/" in problem.remedy


@pytest.mark.usefixtures("fake")
def test_a_gpu_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRIFE_CUDA", "")
    monkeypatch.setitem(sys.modules, "triton", None)
    found: list[doctor.Problem] = []
    rows = doctor.devices(found)
    assert rows["cuda:0"].startswith("Fake GPU, compute capability 8.6")
    assert rows["kernels of cuda:0"] == "plain PyTorch: Triton is missing"
    assert rows["VSRIFE_CUDA"] == "not set"
    assert "pip install triton" in {problem.remedy for problem in found}


def test_precisions_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for lanes, bf16, words in (
        ((16, 8), False, "fp32 yes, fp16 slow (emulated), bf16 slow (emulated), int8 default"),
        ((), True, "fp32 yes, fp16 slow (emulated), bf16 default, int8 no (a CPU with AVX-512 VNNI or AVX-VNNI"),
        ((), False, "fp32 default, fp16 slow (emulated), bf16 slow (emulated), int8 no"),
    ):
        monkeypatch.setattr(int8, "vectors_here", lambda lanes=lanes: lanes)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert words in doctor.devices([])["precisions of cpu"]


def test_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "1.13.1+cu117" if name == "torch" else version(name))
    problems: list[doctor.Problem] = []
    assert doctor.packages(problems)["torch"] == "1.13.1+cu117"
    (problem,) = problems
    assert re.fullmatch(r"torch 1\.13\.1\+cu117 is too old, vsrife needs 2\.\d+", problem.text)
    assert problem.remedy == "pip install -U torch"


def test_missing_packages_and_plugins(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in ("numba", "av") else version(name))
    monkeypatch.setattr(doctor, "PLUGINS", {"absent": ("it reads files", "pip install vapoursynth-absent")})
    found = report(capsys, "--no-benchmark")
    assert found["sections"]["packages"]["numba"] == "not installed"
    text = problems(found)
    assert "PyAV is not installed; `vsrife video` encodes with it -> pip install '.[cli]'" in text
    assert "the VapourSynth plugin absent is missing; it reads files -> pip install vapoursynth-absent" in text
    if found["sections"]["devices"]["default"] == "cpu":
        assert "numba is not installed, so a frame takes almost three times as long -> pip install numba" in text


def test_failing_section_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VSRIFE_MODEL_DIR", "/" + "too long " * 1000)
    found = report(capsys, "--no-benchmark")
    assert "failed, got" in problems(found)
    assert found["sections"]["self-test"]["result"].startswith("passed")
