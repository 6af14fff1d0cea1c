"""The `device` and `precision` keywords."""

from __future__ import annotations

import pytest
import torch

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
