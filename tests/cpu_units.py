"""CPUs with other units for convolutions than this one."""

from __future__ import annotations

import pytest
import torch

from vsrife.ops.cpu import int8


def simulate_cpu(monkeypatch: pytest.MonkeyPatch, *units: str) -> None:
    """Make vsrife see a CPU with these units alone, of "bf16", "amx" and "vnni".

    What the CPU has not is computed all the same: bf16 by PyTorch, eight bits by the reference, with sums as exact.
    """
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "bf16" in units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in units)
    if "vnni" not in units:
        monkeypatch.setattr(int8, "vectors_here", lambda: ())
    elif not int8.vectors_here():
        monkeypatch.setattr(int8, "vectors_here", lambda: (8,))
        monkeypatch.setattr(int8, "supports", lambda *_: False)
