"""Compiles Triton kernels for a GPU that is not there, with the arguments that the ops start them with.

To be run in a process of its own, in which kernels are compiled but never started: results hold no values.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend

from benchmarks.inputs import folded, format_of, pictures
from benchmarks.measure import Size
from vsrife.engine.engine import Engine
from vsrife.ops import cases
from vsrife.ops.cuda import kernels, rehearsal
from vsrife.ops.dispatch import OP_NAMES

THREADS_OF_A_WARP = 32
CPU = torch.device("cpu")


class Absent:
    """A driver of a GPU that is not there, as far as compiling needs one."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, THREADS_OF_A_WARP)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 0


def compile_only(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """In place of `kernels._start`."""
    kernel.warmup(*arguments, grid=grid, **constants, **kernels.FUSION)


def check() -> None:
    """What a device has to pass, and every way of a residual convolution."""
    for op in OP_NAMES:
        cases.run_all(kernels, op, torch.float16, CPU)
    for case, arguments in (*cases.checked("convolve", torch.float16), *cases.checked("convolve_chain", torch.float16)):
        if case.label == "residual":
            ways = kernels.CONVOLVE_WAYS if case.op == "convolve" else kernels.CHAIN_WAYS
            for name, way in ways.items():
                if name not in kernels.CUDNN_WAYS:
                    way(*arguments)


def rehearse(compiled: list[str]) -> list[int]:
    """How many kernels a rehearsal compiles; then the check, a frame, three times at once, a frame of another size."""
    net = folded("4.25", CPU, torch.float16)
    counts = list[int]()

    def counted() -> None:
        counts.append(len(compiled) - sum(counts))

    def engine(width: int, height: int) -> Engine:
        return Engine(net, format_of(Size(width, height)))

    with patch("vsrife.networks.fold.choose", lambda *_given: kernels):
        first, second = pictures(Size(128, 64), CPU, 2)
        prepared = engine(128, 64)._prepare(first)
        rehearsal.compile_ahead(*(partial(cases.run_all, kernels, op, torch.float16, CPU) for op in OP_NAMES))
        rehearsal.compile_ahead(partial(prepared._rehearsal, net))
        assert (prepared._sources, prepared._calm[1]) == ((), ())  # nothing without values is kept
        counted()
        for op in OP_NAMES:
            cases.run_all(kernels, op, torch.float16, CPU)
        counted()
        engine(128, 64).compute(first, second, 0.5)
        counted()
        several = engine(128, 64)
        several.at_once = 3
        several.start(first, second, [0.25, 0.5, 0.75])
        counted()
        left, right = pictures(Size(192, 128), CPU, 2)
        engine(192, 128).compute(left, right, 0.5)
        counted()
    return counts


def broken() -> list[str]:
    """What is told of a kernel that an assembler refuses: in a rehearsal, and when it is started later."""
    told = []
    works = [partial(cases.run_all, kernels, "calm", torch.float16, CPU)]
    with patch.object(CUDABackend, "make_cubin", side_effect=RuntimeError("ptxas does not know this chip")):
        for run in (partial(rehearsal.compile_ahead, *works), *works, *works):
            try:
                run()
                told.append("nothing")
            except RuntimeError as error:
                told.append(str(error))
    works[0]()
    return told


def main(what: str, capability: int) -> None:
    compiled = list[str]()
    triton.runtime.driver.set_active(Absent(capability))
    triton.knobs.compilation.listener = lambda *, src, **_rest: compiled.append(src.name)
    with patch.object(kernels, "_start", compile_only), torch.inference_mode():
        if what == "check":
            check()
            print(json.dumps(compiled))
        else:
            print(json.dumps(rehearse(compiled) if what == "rehearse" else broken()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
