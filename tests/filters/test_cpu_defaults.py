"""The default precision of a CPU, whatever units it has: the frames of that precision, close to those of float32."""

from __future__ import annotations

import pytest
import torch

from tests.clips import equal, pan, planes_of, psnr_db
from tests.cpu_units import simulate_cpu
from vsrife import RIFE
from vsrife.engine.loaded import NetworkOptions


@pytest.mark.parametrize(("units", "precision"), [((), "fp32"), (("bf16",), "bf16"), (("vnni", "bf16"), "int8")])
def test_frames(units: tuple[str, ...], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_cpu(monkeypatch, *units)
    clip = pan(2, 96, 64)
    default, named, exact = (
        planes_of(RIFE(clip, device="cpu", model="fast", precision=given), 1) for given in (None, precision, "fp32")
    )
    assert equal(default, named)
    assert equal(default, exact) == (precision == "fp32")
    assert psnr_db(default[0], exact[0], 255) > 40


def test_published_weights_keep_the_float_path(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_cpu(monkeypatch, "vnni")
    assert NetworkOptions.of(device="cpu", model="4.25").dtype == torch.float32
    assert NetworkOptions.of(device="cpu").dtype == torch.int8
    monkeypatch.setenv("VSRIFE_MODEL", "4.26")
    assert NetworkOptions.of(device="cpu").dtype == torch.float32
