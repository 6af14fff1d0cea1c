"""Launches every Triton kernel through Triton's own launcher, on a driver that does nothing; prints their names.

    TRITON_LIBCUDA_PATH=FOLDER LD_LIBRARY_PATH=FOLDER python tests/ops/cuda/launch_kernels.py

FOLDER holds `null_driver.c` as libcuda.so.1. Tensors are the CPU's, whose addresses nobody follows.
"""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.nvidia.driver import CudaLauncher, CudaUtils

from tests.ops.cuda.compile_kernels import COMPOSED, AbsentDriver
from vsrife.ops.cases import CASES, FLOWS, arguments_of, run
from vsrife.ops.cuda import backend


class NullDriver(AbsentDriver):
    """Triton's driver of NVIDIA GPUs, without what asks PyTorch for one."""

    def __init__(self) -> None:
        super().__init__(86)
        self.utils, self.launcher_cls = CudaUtils(), CudaLauncher


def main() -> None:
    launched = set[str]()
    triton.runtime.driver.set_active(NullDriver())
    real = backend.launch

    def recorded(kernel: Any, *arguments: Any, **constants: Any) -> None:
        real(kernel, *arguments, **constants)
        launched.add(kernel.__name__)

    first = {case.op: case for case in reversed(CASES) if case.op not in COMPOSED}
    with patch.object(backend, "launch", recorded), torch.inference_mode():
        for case in first.values():
            run(getattr(backend.cuda_ops, case.op), arguments_of(case, (31, 65), FLOWS["zero"], torch.float16))
    print(json.dumps(sorted(launched)))


if __name__ == "__main__":
    main()
