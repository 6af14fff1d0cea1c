"""Compiles Triton kernels for a GPU that is not there, with the arguments that the ops start them with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction, mangle_type

from vsrife.ops import cases, triton_ops

THREADS_OF_A_WARP = 32


def source_of(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ASTSource:
    """What the just-in-time compiler would be given for such a start."""
    values = dict(zip((p.name for p in kernel.params), args, strict=False)) | kwargs
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        if parameter.is_constexpr or (isinstance(value, int) and value == 1):
            constants[(i,)], signature[parameter.name] = value, "constexpr"
            continue
        signature[parameter.name] = mangle_type(value)
        if isinstance(value, torch.Tensor) or (isinstance(value, int) and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def compile_all(capability: int) -> Iterator[str]:
    """Compile every kernel of every case in half precision; yields their names."""
    started: dict[tuple[Any, ...], tuple[ASTSource, dict[str, int]]] = {}

    def record(self: Any, *args: Any, **kwargs: Any) -> None:
        source = source_of(self, args, kwargs)
        kinds = tuple(kind for kind in source.signature.values())
        flags = tuple(v for v in source.constants.values() if isinstance(v, bool))
        options: dict[str, int] = {name: kwargs[name] for name in ("num_warps", "num_stages") if name in kwargs}
        sizes = [kwargs.get(name) for name in ("SIDE", "WIDEST", "M")]
        kind = (self.__name__, kinds.count("*u8"), kinds.count("*u16"), flags, *options.values(), *sizes)
        started.setdefault(kind, (source, options))

    JITFunction.run = record
    for case in cases.CASES:
        dtype = torch.float16 if case.half else torch.float32
        arguments = cases.arguments_of(case, (16, 32), cases.FLOWS["zero"], dtype)
        getattr(triton_ops, case.op)(*arguments)
        if case.label == "residual":
            ways = triton_ops.CONVOLVE_WAYS if case.op == "convolve" else triton_ops.CHAIN_WAYS
            for way in ways.values():
                way(*arguments)
    for (name, *_), (source, options) in started.items():
        triton.compile(source, target=GPUTarget("cuda", capability, THREADS_OF_A_WARP), options=options)
        yield name
