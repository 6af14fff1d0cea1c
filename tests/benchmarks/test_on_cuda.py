"""The benchmarks on a fake CUDA device: they run to their end, and wait for it no more than the filter does."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import vapoursynth as vs

from benchmarks import accuracy, engine, filter, measure, memory, network, ops
from benchmarks.inputs import folded, format_of
from benchmarks.measure import QUICK
from tests.engine.cuda_runs import GPU
from tests.fake_cuda import Fake
from vsrife.engine.engine import Engine


def python_here(command: list[str], **_: Any) -> SimpleNamespace:
    """`subprocess.run` of `python -c`, in this process, where the fake device is."""
    with redirect_stdout(io.StringIO()) as output:
        exec(command[2], {})
    return SimpleNamespace(returncode=0, stdout=output.getvalue(), stderr="")


def vspipe_here(script: str, _target: str) -> None:
    """`vspipe`, in this process."""
    exec(compile(Path(script).read_text(), script, "exec"), {})
    output = vs.get_output(0)
    assert isinstance(output, vs.VideoOutputTuple)
    for frame in output.clip.frames():
        frame.close()
    vs.clear_outputs()


@pytest.mark.parametrize("command", [accuracy, engine, filter, memory, network, ops], ids=lambda each: each.__name__)
def test_commands(
    command: ModuleType, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure.Rates, "of", lambda *_: measure.Rates(1e9, 1e9))  # copies of a GiB
    monkeypatch.setattr(engine, "subprocess", SimpleNamespace(run=python_here))
    monkeypatch.setattr(filter, "vspipe", vspipe_here)
    monkeypatch.setattr(sys, "path", [*sys.path])  # their scripts put the checkout there
    # Convolutions in half precision are slow on the CPU that computes for the fake device.
    precision = "fp16" if command is accuracy else "fp32"
    assert command.main(["--device", "cuda:0", "--quick", "--models", "4.22.lite", "--precision", precision]) == 0
    text = capsys.readouterr().out
    assert "Fake GPU" in text
    assert "| 64x64 |" in text or command is accuracy
    assert "failed" not in text
    assert not fake.findings


def test_frames_are_awaited_one_by_one(fake: Fake) -> None:
    running, frames = Engine(folded("4.22.lite", GPU, torch.float32), format_of(QUICK)), engine._arrays(QUICK, 4)
    engine._clip(running, frames)
    fake.host_waits.clear()
    engine._clip(running, frames)
    assert fake.host_waits == {"event": 3}
