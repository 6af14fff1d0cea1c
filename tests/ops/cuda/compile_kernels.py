"""Compiles every Triton kernel for a GPU that is not there, as the operations launch it, and prints what it uses.

    python tests/ops/cuda/compile_kernels.py 86

To be run in a process of its own, in which kernels are compiled but never launched: results hold no values.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget

from vsrife.ops.cases import CASES, FLOWS, arguments_of, run
from vsrife.ops.cuda import backend

THREADS_OF_A_WARP = 32
COMPOSED = ("warp_convolve", "convolve_chain", "head")  # of the other operations


class AbsentDriver:
    """The driver of a GPU that is not there, as far as compiling needs one."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, THREADS_OF_A_WARP)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


def stack_bytes(cubin: bytes) -> int:
    """Local memory of each thread, where registers do not suffice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(int(found) for found in re.findall(r"STACK:(\d+)", text))


def main(capability: int) -> None:
    used: dict[str, list[dict[str, Any]]] = {}
    triton.runtime.driver.set_active(AbsentDriver(capability))

    def compile_only(kernel: Any, _written: object, *arguments: Any, groups: int = 1, **constants: Any) -> None:
        compiled = kernel.warmup(*arguments, grid=(1, 1, groups), **constants, P=backend.PIXELS, **backend.FUSION)
        used.setdefault(kernel.__name__, []).append({
            "shared": compiled.metadata.shared,
            "stack": stack_bytes(compiled.asm["cubin"]),
            "multiplies_matrices": "mma" in compiled.asm["ptx"],
        })  # fmt: skip

    first = {case.op: case for case in reversed(CASES) if case.op not in COMPOSED}
    with patch.object(backend, "launch", compile_only), torch.inference_mode():
        for case in first.values():
            run(getattr(backend.cuda_ops, case.op), arguments_of(case, (31, 65), FLOWS["zero"], torch.float16))
    print(json.dumps(used))


if __name__ == "__main__":
    main(int(sys.argv[1]))
