"""Pairs through the engine with the Triton kernels: Triton's interpreter on a fake device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import fake_cuda
from tests.engine.cuda_runs import GPU, expected, largest_difference, network, run
from tests.fake_cuda import Fake
from vsrife.engine import cuda_graph
from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.ops import dispatch

MODEL = "4.15.lite"  # no other with an encoder has pictures and blocks as small
FORMAT = PictureFormat("YUV", 8, False, 32, 32, 1, 1)
PAIRS = [(0, 1), (1, 2)]


def launch_one_program(
    backend: Any, kernel: Any, written: Tensor, *arguments: Any, real: Any, **constants: Any
) -> None:
    """Launch one program for the whole image and none larger: the interpreter runs one after the other."""
    backend.PIXELS = 1 << (written.shape[-2] * written.shape[-1] - 1).bit_length()
    real(kernel, written, *arguments, **constants)


@pytest.mark.parametrize(("mode", "dtype"), [("", torch.float32), ("graph", torch.float16)], ids=str)
def test_frames(mode: str, dtype: torch.dtype, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As plain PyTorch on the CPU gives them, with no warning, no race and no wait for the device."""
    with fake_cuda.interpreted_kernels() as backend:
        monkeypatch.setenv(dispatch.CUDA_VARIABLE, mode)
        monkeypatch.setattr(dispatch, "_cuda_kernels", lambda _device: backend.cuda_ops)
        monkeypatch.setattr(
            backend, "launch", partial(fake_cuda.launch, partial(launch_one_program, backend, real=backend.launch))
        )
        monkeypatch.setattr(cuda_graph, "WARM_UPS", 1)
        engine = Engine(network(MODEL, GPU, dtype), FORMAT)
        frames = run(engine, PAIRS[:1])
        assert any((tmp_path / "verdicts").iterdir())  # compared with plain PyTorch on the device
        fake.host_waits.clear()
        frames += run(engine, PAIRS[1:])
    with dispatch.plain_operations():
        assert largest_difference(frames, expected(MODEL, FORMAT, dtype)[:2]) <= 1
    assert fake.host_waits == {"event": 1}
    assert fake.captures == (mode == "graph")
    assert fake.launches.keys() >= {
        "planes_to_rgb_kernel", "sample_kernel", "upsample_kernel", "warp_stacks_kernel", "blend_kernel",
        "static_radius_kernel", "finish_kernel", "interleave_kernel",
    }  # fmt: skip
    assert not fake.findings
