"""Every kernel compiled to machine code for GPUs that are not here; Triton brings along all that this needs."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")

ROOT = Path(__file__).parents[3]
KERNELS = {
    "planes_to_rgb_kernel", "sample_kernel", "upsample_kernel", "warp_stacks_kernel", "blend_kernel",
    "static_radius_kernel", "finish_kernel", "interleave_kernel",
}  # fmt: skip
SHARED_BYTES = 48 << 10  # available to a program on every GPU
STACK_BYTES = 256


@pytest.mark.parametrize("capability", [75, 80, 86, 89, 90, 100, 120])
def test_kernels_compile(capability: int, tmp_path: Path) -> None:
    """Without tensor cores, so that those of Turing need no code of their own, and without large spills."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("compile_kernels.py")
    command = [sys.executable, str(script), str(capability)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr[-2000:]
    used = json.loads(done.stdout)
    assert used.keys() == KERNELS
    for kernel, variants in used.items():
        for each in variants:
            assert each["shared"] <= SHARED_BYTES, kernel
            assert each["stack"] < STACK_BYTES, kernel
            assert not each["multiplies_matrices"], kernel


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the driver that does nothing is built with gcc")
def test_kernels_launch(tmp_path: Path) -> None:
    """Triton's launcher takes the arguments and grids of every kernel; no GPU is there to run them."""
    headers = Path(triton.__file__).parent / "backends" / "nvidia" / "include"
    source = Path(__file__).with_name("null_driver.c")
    command = ["gcc", "-shared", "-fPIC", f"-I{headers}", "-o", str(tmp_path / "libcuda.so.1"), str(source)]
    subprocess.run(command, check=True)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(("TRITON_LIBCUDA_PATH", "LD_LIBRARY_PATH"), str(tmp_path))
    script = Path(__file__).with_name("launch_kernels.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, done.stderr[-2000:]
    assert set(json.loads(done.stdout)) == KERNELS


def test_no_kernel_multiplies_matrices() -> None:
    """Convolutions are cuDNN's. Below capability 8.0 Triton would compile `tl.dot` without tensor cores."""
    from vsrife.ops.cuda import kernels  # here, since Triton is optional

    assert "tl.dot" not in inspect.getsource(kernels)
