"""Emit vector code for the work within a row, where speed depends on values staying in vector registers.

Numba compiles the loops around it: threads, strips, borders (`parallel_kernel`). The code within a row is written in
LLVM's intermediate representation by an `Emitter`, compiled in milliseconds on first use by the LLVM that numba brings
along (`emitted`), and called from numba's loops by address.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
Parameters = Mapping[str, ir.Type]  # of an emitted function, by name; addresses are I64


@dataclass(frozen=True, slots=True)
class Emitter:
    """Emits instructions on vectors of `lanes` 32-bit numbers; addresses are 64-bit integers, offsets are in bytes."""

    builder: ir.IRBuilder
    lanes: int

    def vector(self, kind: ir.Type) -> ir.VectorType:
        return ir.VectorType(kind, self.lanes)

    def integer(self, value: int) -> ir.Constant:
        """A 64-bit constant, as addresses and counts are."""
        return ir.Constant(I64, value)

    def constant(self, value: float) -> ir.Constant:
        """A vector of one float32 constant."""
        return ir.Constant(self.vector(F32), [value] * self.lanes)

    def broadcast(self, value: ir.Value) -> ir.Value:
        """A vector of one value."""
        undefined = ir.Constant(self.vector(value.type), ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, undefined, ir.Constant(self.vector(I32), None))

    def broadcast_lane(self, values: ir.Value, lane: int) -> ir.Value:
        """A vector of one lane of another vector, which may have another length."""
        return self.builder.shuffle_vector(values, values, ir.Constant(self.vector(I32), [lane] * self.lanes))

    def shuffle(self, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        """Lanes of two vectors, those of the second numbered after those of the first."""
        return self.builder.shuffle_vector(a, b, ir.Constant(self.vector(I32), list(order)))

    def columns(self, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """Transpose as many vectors of four as there are lanes: all first numbers, all second ones, and so on."""
        joined = list(rows)
        while len(joined) > 1:
            wide = range(2 * joined[0].type.count)
            order = ir.Constant(ir.VectorType(I32, len(wide)), list(wide))
            joined = [self.builder.shuffle_vector(a, b, order) for a, b in zip(joined[::2], joined[1::2], strict=True)]
        return [self.shuffle(joined[0], joined[0], [4 * i + k for i in range(self.lanes)]) for k in range(4)]

    def load(self, kind: ir.Type, address: ir.Value, offset: int = 0, align: int = 4) -> ir.Value:
        pointer = self.builder.inttoptr(self.builder.add(address, self.integer(offset)), kind.as_pointer())
        return self.builder.load(pointer, align=align)

    def load_floats(self, address: ir.Value, offset: int = 0, used: int | None = None) -> ir.Value:
        """Load a vector of float32; only the first `used` numbers are read, the others are 0."""
        kind = self.vector(F32)
        if used is None or used == self.lanes:
            return self.load(kind, address, offset)
        mask = ir.Constant(self.vector(I1), [int(i < used) for i in range(self.lanes)])
        pointer = self.builder.inttoptr(self.builder.add(address, self.integer(offset)), kind.as_pointer())
        signature = ir.FunctionType(kind, [pointer.type, I32, mask.type, kind])
        name = f"llvm.masked.load.v{self.lanes}f32.p0"
        return self._call(name, signature, pointer, ir.Constant(I32, 4), mask, self.constant(0))

    def store(self, value: ir.Value, address: ir.Value, offset: int = 0) -> None:
        pointer = self.builder.inttoptr(self.builder.add(address, self.integer(offset)), value.type.as_pointer())
        self.builder.store(value, pointer, align=1)

    def gather(self, address: ir.Value, offsets: ir.Value) -> ir.Value:
        """Load an int32 for each lane, at this many bytes (int32, not negative) after an address."""
        addresses = self.builder.add(self.broadcast(address), self.builder.zext(offsets, self.vector(I64)))
        pointers = self.builder.inttoptr(addresses, self.vector(I32.as_pointer()))
        kind, mask = self.vector(I32), ir.Constant(self.vector(I1), [1] * self.lanes)
        signature = ir.FunctionType(kind, [pointers.type, I32, mask.type, kind])
        name = f"llvm.masked.gather.v{self.lanes}i32.v{self.lanes}p0"
        return self._call(name, signature, pointers, ir.Constant(I32, 1), mask, ir.Constant(kind, None))

    def multiply(self, a: ir.Value, factor: int) -> ir.Value:
        """A vector of int32 times a constant."""
        return self.builder.mul(a, ir.Constant(self.vector(I32), [factor] * self.lanes))

    def lerp(self, a: ir.Value, b: ir.Value, weight: ir.Value) -> ir.Value:
        """Interpolate between two vectors of float32; `weight` is that of the second."""
        return self.floats("fma", self.builder.fsub(b, a), weight, a)

    def floats(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call LLVM's intrinsic of this name for vectors of float32."""
        return self.call(f"llvm.{name}.v{self.lanes}f32", *arguments)

    def integers(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call LLVM's intrinsic of this name for vectors of int32."""
        return self.call(f"llvm.{name}.v{self.lanes}i32", *arguments)

    def call(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call an LLVM intrinsic whose result has the type of the first argument."""
        kind = arguments[0].type
        return self._call(name, ir.FunctionType(kind, [argument.type for argument in arguments]), *arguments)

    def _call(self, name: str, signature: ir.FunctionType, *arguments: ir.Value) -> ir.Value:
        module = self.builder.module
        return self.builder.call(module.globals.get(name) or ir.Function(module, signature, name), arguments)

    def loop(self, count: ir.Value | int, start: Sequence[ir.Value]) -> Loop:
        """Begin a loop; `Loop.end` ends its body."""
        return Loop(self.builder, self.integer(count) if isinstance(count, int) else count, start)


class Loop:
    """A loop of at least one iteration whose variables stay in registers.

    Args:
        builder: writes the body, from here to `end`.
        count: of iterations.
        start: the variables' first values.

    Attributes:
        values: the iteration's number and the variables, within the body; after `end`, those of the last iteration.
    """

    def __init__(self, builder: ir.IRBuilder, count: ir.Value, start: Sequence[ir.Value]) -> None:
        self.builder, self.count = builder, count
        before, self.block = builder.block, builder.append_basic_block("iteration")
        builder.branch(self.block)
        builder.position_at_end(self.block)
        first = (ir.Constant(I64, 0), *start)
        self.values = [builder.phi(value.type) for value in first]
        for phi, value in zip(self.values, first, strict=True):
            phi.add_incoming(value, before)

    def end(self, following: Sequence[ir.Value]) -> None:
        """Set the variables of the next iteration."""
        builder = self.builder
        number = builder.add(self.values[0], ir.Constant(I64, 1))
        for phi, value in zip(self.values, (number, *following), strict=True):
            phi.add_incoming(value, builder.block)
        after = builder.append_basic_block("after")
        builder.cbranch(builder.icmp_signed("<", number, self.count), self.block, after)
        builder.position_at_end(after)


def emitted(parameters: Parameters, emit: Callable[..., None]) -> tuple[Any, Callable[[Any], int]]:
    """An emitted function, in as many variants as are asked for.

    Args:
        parameters: of the function.
        emit: emits its body, given a builder, the arguments' values and the variant.

    Returns:
        A function for numba's loops to call, which takes an address and a tuple of arguments; and a function that
        returns the address of a variant (any hashable value), compiled on first use.
    """
    return _caller(parameters), cache(partial(_compile, parameters, emit))


def module_of(parameters: Parameters, emit: Callable[..., None], variant: Any) -> ir.Module:
    """Emit a variant as a module of one function called "emitted"."""
    module, machine = ir.Module(), _machine()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), list(parameters.values())), "emitted")
    for argument, name in zip(function.args, parameters, strict=True):
        argument.name = name
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, function.args, variant)
    builder.ret_void()
    return module


def _compile(parameters: Parameters, emit: Callable[..., None], variant: Any) -> int:
    """Compile a variant for the life of the process, which takes milliseconds, and return its address."""
    module = binding.parse_assembly(str(module_of(parameters, emit, variant)))
    engine = binding.create_mcjit_compiler(module, _machine())
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address("emitted"))


def _caller(parameters: Parameters) -> Any:
    """A function of numba's that calls an emitted function at an address."""
    kinds = tuple({I64: types.int64, I32: types.int32, F32: types.float32}[kind] for kind in parameters.values())
    pointer = ir.FunctionType(ir.VoidType(), list(parameters.values())).as_pointer()

    @intrinsic
    def call(_typing, address, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
        def write(_context, builder, _signature, operands):  # type: ignore[no-untyped-def]
            function, values = operands
            unpacked = [builder.extract_value(values, i) for i in range(len(kinds))]
            builder.call(builder.inttoptr(function, pointer), unpacked)

        return types.void(types.int64, types.Tuple(kinds)), write  # type: ignore[attr-defined]

    return call


def parallel_kernel(function: Callable[..., None] | None = None, **options: Any) -> Any:
    """Compile a function by numba, parallel over rows, and cache the code on disk.

    Numba would take cached code for current as long as the function's own file is unchanged. But callers of emitted
    functions and helpers from other modules are compiled in, so that the name it is cached by includes a hash of all
    sources in this folder.
    """
    if function is None:
        return partial(parallel_kernel, **options)
    function.__qualname__ += f"_{_source_hash()}"
    kernel = numba.njit(parallel=True, cache=True, **options)(function)
    kernel.compile = _quietly(kernel.compile)
    return kernel


def _quietly[**P, R](compile_kernel: Callable[P, R]) -> Callable[P, R]:
    """Keep numba from logging each step of its compiler, as it does where loggers are at debug level: in vspipe."""

    def compile_quietly(*arguments: P.args, **keywords: P.kwargs) -> R:
        logger = logging.getLogger("numba")
        level = logger.level
        logger.setLevel(max(level, logging.WARNING))
        try:
            return compile_kernel(*arguments, **keywords)
        finally:
            logger.setLevel(level)

    return compile_quietly


@cache
def _source_hash() -> str:
    """Of the sources in this folder; 16 hexadecimal digits."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]


@cache
def features() -> frozenset[str]:
    """This CPU's instruction sets, by LLVM's names."""
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


def lanes_here() -> int:
    """The number of 32-bit numbers in the longest vector of this CPU."""
    return 16 if "avx512f" in features() else 8 if "avx" in features() else 4


def lanes_for(channels: int) -> int:
    """The longest vector of this CPU whose length divides the channels; 0 where none does."""
    return next((lanes for lanes in (16, 8, 4) if lanes <= lanes_here() and channels % lanes == 0), 0)


def vectors_of(channels: int) -> list[tuple[int, int]]:
    """Split channels into vectors of 16, 8, 4, 2 and 1: the first channel and the length of each."""
    result, first = [], 0
    for lanes in (16, 8, 4, 2, 1):
        while channels - first >= lanes:
            result.append((first, lanes))
            first += lanes
    return result


def _machine() -> binding.TargetMachine:
    """This CPU, with the settings that numba has for its own code."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3,
        reloc="static" if target.name.startswith("x86") else "default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


_engines: list[binding.ExecutionEngine] = []  # own the compiled code
