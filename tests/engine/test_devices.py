"""The `device` and `precision` keywords."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from tests.fake_cuda import Fake
from vsrife.engine.devices import parse_device, parse_devices, parse_precision
from vsrife.errors import DeviceError

CPU = torch.device("cpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_devices("cpu") == parse_devices(CPU) == (CPU,)
    assert parse_devices("cpu,cpu") == (CPU, CPU)
    with pytest.raises(DeviceError, match=r"device cannot be used, got 'cuda:98' \("):
        parse_devices("cpu,cuda:98,99")
    with pytest.raises(DeviceError, match="device cannot be used, got ''"):
        parse_devices("cpu,")
    with pytest.raises(DeviceError, match="device must be one here, got 'cpu,cpu'; several share the frames of a clip"):
        parse_device("cpu,cpu")
    monkeypatch.setattr("vsrife.engine.devices.parse_device", torch.device)  # as if all were here
    assert parse_devices("cuda:0,1, xpu:1") == (torch.device("cuda:0"), torch.device("cuda:1"), torch.device("xpu:1"))
    with pytest.raises(DeviceError, match=r"device must name each device once, got 'cuda:1' again in 'cuda:1,0,1'; "):
        parse_devices("cuda:1,0,1")


def test_one_precision_for_all_devices() -> None:
    first, second = (torch.device("cuda", index) for index in range(2))
    assert parse_precision(None, first, second) == torch.float16
    assert parse_precision(None, first, CPU) == torch.float32
    assert parse_precision("bf16", first, CPU) == torch.bfloat16


def test_the_best_device_is_one_that_can_run(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that PyTorch has no code for is passed over, with a warning; named, it is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_device(None) == torch.device("cuda", 0)
    zeros = torch.zeros

    def without_kernels_for(*old: int) -> None:
        def fails(*size: Any, device: torch.device) -> torch.Tensor:
            if device.type == "cuda" and (device.index or 0) in old:
                raise torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
            return zeros(*size, device=device)

        monkeypatch.setattr(torch, "zeros", fails)

    without_kernels_for(0)
    with pytest.warns(RuntimeWarning, match="cuda:0 is passed over, .*no kernel image.*; install a PyTorch build"):
        assert parse_device(None) == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="no kernel image"):
        parse_device("cuda:0")
    without_kernels_for(0, 1)
    with pytest.warns(RuntimeWarning, match="cuda:. is passed over"):
        assert parse_device(None) == parse_device("auto") == torch.device("cpu")
    assert not fake.findings


def test_the_mode_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRIFE_CUDA", "fast")
    with pytest.raises(DeviceError, match="VSRIFE_CUDA must be 'graph' or 'plain', got 'fast'"):
        parse_device("cpu")
