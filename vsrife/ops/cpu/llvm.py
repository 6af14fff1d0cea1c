"""Functions for a CPU written in LLVM's language, where what matters is that values stay in vector registers.

They are compiled in milliseconds when first needed, by the compiler that numba brings along, and called from its
kernels, which do what surrounds them: threads, strips and borders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from llvmlite import binding, ir
from numba.core import types
from numba.extending import intrinsic

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
Form = Mapping[str, ir.Type]  # the arguments of a function by name; addresses are I64


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes instructions on vectors of `lanes` 32-bit numbers; addresses are 64-bit integers, offsets bytes."""

    to: ir.IRBuilder
    lanes: int

    def vector(self, kind: ir.Type) -> ir.VectorType:
        return ir.VectorType(kind, self.lanes)

    def number(self, value: int) -> ir.Constant:
        return ir.Constant(I64, value)

    def filled(self, value: float) -> ir.Constant:
        return ir.Constant(self.vector(F32), [value] * self.lanes)

    def spread(self, value: ir.Value) -> ir.Value:
        """A vector of one value."""
        none = ir.Constant(self.vector(value.type), ir.Undefined)
        first = self.to.insert_element(none, value, ir.Constant(I32, 0))
        return self.to.shuffle_vector(first, none, ir.Constant(self.vector(I32), None))

    def floats_at(self, address: ir.Value, offset: int = 0, used: int | None = None) -> ir.Value:
        """A vector of float32 of which the first `used` numbers are read and the others are 0."""
        kind = self.vector(F32)
        if used is None or used == self.lanes:
            return self.load(kind, address, offset)
        mask = ir.Constant(self.vector(I1), [int(i < used) for i in range(self.lanes)])
        pointer = self.to.inttoptr(self.to.add(address, self.number(offset)), kind.as_pointer())
        form = ir.FunctionType(kind, [pointer.type, I32, mask.type, kind])
        return self._function(
            f"llvm.masked.load.v{self.lanes}f32.p0", form, pointer, ir.Constant(I32, 4), mask, self.filled(0)
        )

    def spread_lane(self, values: ir.Value, lane: int) -> ir.Value:
        """A vector of one number of another, which may have another length."""
        return self.to.shuffle_vector(values, values, ir.Constant(self.vector(I32), [lane] * self.lanes))

    def shuffled(self, a: ir.Value, b: ir.Value, order: Sequence[int]) -> ir.Value:
        """Numbers of two vectors, those of the second counted on."""
        return self.to.shuffle_vector(a, b, ir.Constant(self.vector(I32), list(order)))

    def whole(self, name: str, *arguments: ir.Value) -> ir.Value:
        """An LLVM intrinsic for int32."""
        return self.call(f"llvm.{name}.v{self.lanes}i32", *arguments)

    def times(self, a: ir.Value, factor: int) -> ir.Value:
        """Of int32."""
        return self.to.mul(a, ir.Constant(self.vector(I32), [factor] * self.lanes))

    def columns(self, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """Of as many vectors of four as there are lanes, the first numbers, the second and so on."""
        joined = list(rows)
        while len(joined) > 1:
            wide = range(2 * joined[0].type.count)
            order = ir.Constant(ir.VectorType(I32, len(wide)), list(wide))
            joined = [self.to.shuffle_vector(a, b, order) for a, b in zip(joined[::2], joined[1::2], strict=True)]
        return [self.shuffled(joined[0], joined[0], [4 * i + k for i in range(self.lanes)]) for k in range(4)]

    def gather(self, address: ir.Value, offsets: ir.Value) -> ir.Value:
        """Int32 from this many bytes (int32, not negative) behind an address, for each lane."""
        places = self.to.add(self.spread(address), self.to.zext(offsets, self.vector(I64)))
        pointers = self.to.inttoptr(places, self.vector(I32.as_pointer()))
        kind, use = self.vector(I32), ir.Constant(self.vector(I1), [1] * self.lanes)
        form = ir.FunctionType(kind, [pointers.type, I32, use.type, kind])
        name = f"llvm.masked.gather.v{self.lanes}i32.v{self.lanes}p0"
        return self._function(name, form, pointers, ir.Constant(I32, 1), use, ir.Constant(kind, None))

    def mixed(self, a: ir.Value, b: ir.Value, weight: ir.Value) -> ir.Value:
        """Between two vectors of float32; `weight` is that of the second."""
        return self.floats("fma", self.to.fsub(b, a), weight, a)

    def load(self, kind: ir.Type, address: ir.Value, offset: int = 0, aligned: int = 4) -> ir.Value:
        pointer = self.to.inttoptr(self.to.add(address, self.number(offset)), kind.as_pointer())
        return self.to.load(pointer, align=aligned)

    def store(self, value: ir.Value, address: ir.Value, offset: int = 0) -> None:
        pointer = self.to.inttoptr(self.to.add(address, self.number(offset)), value.type.as_pointer())
        self.to.store(value, pointer, align=1)

    def call(self, name: str, *arguments: ir.Value) -> ir.Value:
        """An LLVM intrinsic whose result is of the arguments' type."""
        kind = arguments[0].type
        return self._function(name, ir.FunctionType(kind, [argument.type for argument in arguments]), *arguments)

    def _function(self, name: str, form: ir.FunctionType, *arguments: ir.Value) -> ir.Value:
        known = self.to.module.globals.get(name) or ir.Function(self.to.module, form, name)
        return self.to.call(known, arguments)

    def floats(self, name: str, *arguments: ir.Value) -> ir.Value:
        return self.call(f"llvm.{name}.v{self.lanes}f32", *arguments)

    def loop(self, count: ir.Value | int, start: Sequence[ir.Value]) -> Loop:
        return Loop(self, self.number(count) if isinstance(count, int) else count, start)


class Loop:
    """A loop of at least one turn whose values live in registers."""

    def __init__(self, writer: Writer, count: ir.Value, start: Sequence[ir.Value]) -> None:
        self.to, self.count = writer.to, count
        before, self.block = self.to.block, self.to.append_basic_block("turn")
        self.to.branch(self.block)
        self.to.position_at_end(self.block)
        self.values = [self.to.phi(value.type) for value in (ir.Constant(I64, 0), *start)]
        for phi, value in zip(self.values, (ir.Constant(I64, 0), *start), strict=True):
            phi.add_incoming(value, before)

    def end(self, following: Sequence[ir.Value]) -> None:
        """What the values are in the next turn."""
        turn = self.to.add(self.values[0], ir.Constant(I64, 1))
        for phi, value in zip(self.values, (turn, *following), strict=True):
            phi.add_incoming(value, self.to.block)
        after = self.to.append_basic_block("after")
        self.to.cbranch(self.to.icmp_signed("<", turn, self.count), self.block, after)
        self.to.position_at_end(after)


def compiled(form: Form, write: Callable[..., None], shape: Any) -> int:
    """Compile a function, which takes milliseconds; it stays for the life of the process.

    Args:
        form: its arguments.
        write: writes its body with a builder, given the arguments' values and `shape`.
        shape: all that is constant in the code.

    Returns:
        Its address.
    """
    module, machine = ir.Module(), _machine()
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), list(form.values())), "made")
    builder = ir.IRBuilder(function.append_basic_block())
    write(builder, function.args, shape)
    builder.ret_void()
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _engines.append(engine)
    return int(engine.get_function_address("made"))


@cache
def features() -> frozenset[str]:
    """What this CPU has, as LLVM calls it."""
    return frozenset(name for name, there in binding.get_host_cpu_features().items() if there)


def lanes_here() -> int:
    """How many 32-bit numbers a vector of this CPU holds."""
    return 16 if "avx512f" in features() else 8 if "avx" in features() else 4


def _machine() -> binding.TargetMachine:
    """This CPU, as numba has it for its own code."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=3,
        reloc="static" if target.name.startswith("x86") else "default", codemodel="jitdefault", jit=True,
    )  # fmt: skip


def function(form: Form, write: Callable[..., None]) -> tuple[Any, Callable[[Any], int]]:
    """A function in as many shapes as are asked for; arguments as those of `compiled`.

    Returns:
        What numba calls, with an address and a tuple of arguments; and from a shape, the address.
    """
    return _calling(form), cache(partial(compiled, form, write))


def _calling(form: Form) -> Any:
    """For numba: call a function of this form at an address.

    Numba keeps its code on disk and notices changes of its own file alone: after a change here, `__pycache__` must go.
    """
    kinds = tuple({I64: types.int64, I32: types.int32, F32: types.float32}[kind] for kind in form.values())
    pointer = ir.FunctionType(ir.VoidType(), list(form.values())).as_pointer()

    @intrinsic
    def call(_typing, address, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
        def write(_context, builder, _signature, given):  # type: ignore[no-untyped-def]
            function, values = given
            unpacked = [builder.extract_value(values, i) for i in range(len(kinds))]
            builder.call(builder.inttoptr(function, pointer), unpacked)

        return types.void(types.int64, types.Tuple(kinds)), write  # type: ignore[attr-defined]

    return call


_engines: list[binding.ExecutionEngine] = []  # their code goes with them
