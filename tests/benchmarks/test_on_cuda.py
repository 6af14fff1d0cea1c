"""The benchmarks on a fake CUDA device: they run to their end, and wait for it no more than the filter does.

`network.py` is not among them: the published network is a module, which the fake device cannot hold.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from benchmarks import accuracy, engine, measure, ops
from benchmarks.inputs import folded, format_of
from benchmarks.measure import QUICK
from tests.engine.cuda_runs import GPU
from tests.fake_cuda import Fake
from vsrife.engine.engine import Engine


@pytest.mark.parametrize("command", [accuracy, engine, ops], ids=lambda command: command.__name__)
def test_commands(
    command: ModuleType, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure.Rates, "of", lambda *_: measure.Rates(1e9, 1e9))  # copies of a GiB
    monkeypatch.setattr(engine, "first_frames", lambda *_: (1.0, 1.0))  # of other processes
    assert command.main(["--device", "cuda:0", "--quick", "--models", "4.25.lite"]) == 0
    text = capsys.readouterr().out
    assert "Fake GPU" in text
    assert "failed" not in text
    assert not fake.findings


def test_frames_are_awaited_one_by_one(fake: Fake) -> None:
    running, frames = Engine(folded("4.25.lite", GPU, torch.float32), format_of(QUICK)), engine._arrays(QUICK, 4)
    engine._clip(running, frames)
    fake.host_waits.clear()
    engine._clip(running, frames)
    assert fake.host_waits == {"event": 3}
