"""Networks loaded in this process."""

from __future__ import annotations

import pytest
import torch
import vapoursynth as vs

from vsrife.engine import loaded
from vsrife.engine.loaded import NETWORKS_KEPT, NetworkOptions, network
from vsrife.errors import OptionError

core = vs.core
CPU = torch.device("cpu")


def test_networks_are_shared_and_bounded() -> None:
    usual = NetworkOptions(None, 1.0, False, CPU, torch.float32)
    first = network(usual)
    assert network(NetworkOptions(None, 1.0, False, CPU, torch.float32)) is first
    for scale in (0.5, 2.0, 4.0):
        assert network(NetworkOptions(None, scale, False, CPU, torch.float32)) is not first
        assert len(loaded._networks) <= NETWORKS_KEPT
    assert network(usual) is not first
    with pytest.raises(OptionError, match="ensemble must be False for models with carried features, got True for"):
        network(NetworkOptions(None, 1.0, True, CPU, torch.float32))
