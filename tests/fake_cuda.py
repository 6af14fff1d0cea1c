"""A CUDA device made of CPU tensors, to run the CUDA path where there is no GPU.

    with fake_cuda() as fake:                       # torch.cuda says that there are two devices
        engine = Engine(fold(..., device=torch.device("cuda", 0)), fmt)
        engine.interpolate(first, second, 0.5)
    assert not fake.findings

How it works:
- A `FakeTensor` says that it lies on cuda:N and holds its values in a CPU tensor. `FakeMode` sees every PyTorch
  operation of every thread: it unwraps the tensors, computes at once on the CPU, and wraps the results.
- Streams compute nothing. They carry vector clocks, as race detectors do: each operation advances the clock of its
  stream, `wait_stream` and events join clocks. Memory remembers who wrote and read it last. A later access whose stream
  has not joined that clock is a race on a real device, whatever the fake computed.
- Graphs record the operations between `capture_begin` and `capture_end` and fill their results with NaN, since a real
  capture computes nothing. `replay` repeats the operations into the same memory.

What it reports, in `findings`, as (kind, text):
    race      an access that is not ordered after an earlier one on another stream
    lifetime  memory dropped while another stream may still use it, without `record_stream`
    device    tensors of two devices, or of device and host, in one operation
    capture   something that is illegal while a stream captures, or would not be recorded
Waits of the host for the device are counted in `host_waits`, launches in `launches`.

What it cannot see: cuDNN, real concurrency, Triton's launcher, errors inside kernels, time.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import vsrife.ops.cuda
from vsrife.engine import cuda_graph, device_thread, loaded, transfer, verification
from vsrife.ops import dispatch

aten = torch.ops.aten
Clock = dict[str, int]  # by the name of a stream: how much of it has happened before

COPIES = (aten._to_copy.default, aten.copy_.default)
VALUES_READ = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default, aten.is_nonzero.default)
NOT_PERMITTED = "CUDA error: operation not permitted when stream is capturing"


class _Thread(threading.local):
    """What CUDA keeps for each thread."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, Stream] = {}  # the current one of each device
        self.capture: Graph | None = None
        self.clock: Clock = {}  # what the host has waited for


@dataclass
class Fake:
    """State and findings of the fake devices."""

    devices: int
    capability: tuple[int, int]
    findings: set[tuple[str, str]] = field(default_factory=set)
    host_waits: Counter[str] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)  # by operation or kernel
    captures: int = 0
    replays: int = 0
    cudnn_threads: set[int] = field(default_factory=set)  # that ran convolutions
    free_bytes: int | None = None  # next allocations raise an out-of-memory error at 0
    held_bytes: Counter[int] = field(default_factory=Counter)  # by device
    peak_bytes: Counter[int] = field(default_factory=Counter)  # the most since `reset_peak_memory_stats`
    lock: Any = field(default_factory=threading.RLock)
    thread: _Thread = field(default_factory=_Thread)
    memory: dict[int, _Memory] = field(default_factory=dict)
    pinned: dict[int, weakref.ref[Tensor]] = field(default_factory=dict)  # by address
    capturing: list[Graph] = field(default_factory=list)
    defaults: list[Stream] = field(default_factory=list)

    def found(self, kind: str, text: str) -> None:
        with self.lock:
            self.findings.add((kind, text))

    def host_wait(self, what: str) -> None:
        if self.thread.capture is not None:
            self.thread.capture.invalid = True
            raise RuntimeError(f"{NOT_PERMITTED}: {what}")
        self.host_waits[what] += 1

    def access(self, tensor: Tensor, stream: Stream, *, writes: bool) -> None:
        """Check an access of memory against the accesses before it."""
        memory = self.memory.get(_address(tensor))
        capture = self.thread.capture
        if memory is None or (capture is not None and stream is capture.stream):  # nothing runs during a capture
            return
        with self.lock:
            earlier = [memory.writer] if memory.writer else []
            earlier += memory.readers.items() if writes else ()
            for name, when in earlier:
                if name != stream.name and stream.clock.get(name, 0) < when:
                    self.found("race", f"{stream.name} {'writes' if writes else 'reads'} {memory.what} of {name}")
            now = stream.clock.get(stream.name, 0)
            if writes:
                memory.writer, memory.readers = (stream.name, now), {}
            else:
                memory.readers[stream.name] = now

    def dropped(self, address: int) -> None:
        """One tensor fewer refers to this memory; the last one gives it back to the stream that allocated it."""
        with self.lock:
            memory = self.memory.get(address)
            if memory is None:
                return
            memory.references -= 1
            if memory.references:
                return
            del self.memory[address]
            self.held_bytes[memory.owner.device.index] -= memory.nbytes
            uses = [*memory.readers.items(), *([memory.writer] if memory.writer else [])]
            for name, when in [] if memory.private else uses:
                if name != memory.owner.name and memory.owner.clock.get(name, 0) < when and name not in memory.users:
                    self.found("lifetime", f"{memory.what} of {memory.owner.name} dropped while {name} uses it")


@dataclass
class _Memory:
    """What happened to one allocation."""

    owner: Stream  # that it was allocated on
    what: str
    nbytes: int
    private: bool = False  # to a graph, with which it is freed
    references: int = 0
    writer: tuple[str, int] | None = None
    readers: Clock = field(default_factory=dict)
    users: set[str] = field(default_factory=set)  # of `record_stream`


_fake: Fake = None  # type: ignore[assignment] # set by `fake_cuda`


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _join(clock: Clock, other: Clock) -> None:
    for name, when in other.items():
        clock[name] = max(clock.get(name, 0), when)


def _index(device: Any) -> int:
    if device is None:
        return _fake.thread.device
    index = device if isinstance(device, int) else torch.device(device).index
    return _fake.thread.device if index is None else index


# --- streams, events, graphs ------------------------------------------------------------------------------------------


class Stream:
    """In place of `torch.cuda.Stream`."""

    _numbers = itertools.count(1)

    def __init__(self, device: Any = None, name: str = "") -> None:
        self.device = torch.device("cuda", _index(device))
        self.name = name or f"stream {next(self._numbers)} of {self.device}"
        self.clock: Clock = {}
        self.capture: Graph | None = None

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        event.wait(self)

    def advance(self) -> None:
        """One more operation, after everything that the host has waited for."""
        with _fake.lock:
            _join(self.clock, _fake.thread.clock)
            self.clock[self.name] = self.clock.get(self.name, 0) + 1


class Event:
    """In place of `torch.cuda.Event`."""

    def __init__(self, **_options: Any) -> None:
        self.clock: Clock | None = None

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or _current_stream()
        stream.advance()
        self.clock = dict(stream.clock)

    def wait(self, stream: Stream) -> None:
        assert self.clock is not None
        with _fake.lock:
            _join(stream.clock, self.clock)

    def synchronize(self) -> None:
        assert self.clock is not None, "waited for before it was recorded"
        _fake.host_wait("event")
        _join(_fake.thread.clock, self.clock)


class TimedEvent(Event):
    """In place of `torch.Event`; every two are a millisecond apart."""

    def elapsed_time(self, _later: TimedEvent) -> float:
        return 1.0


def _current_stream(device: Any = None) -> Stream:
    index = _index(device)
    return _fake.thread.streams.get(index, _fake.defaults[index])


@contextmanager
def _stream(stream: Stream) -> Iterator[None]:
    """In place of `torch.cuda.stream`."""
    index, thread = _index(stream.device), _fake.thread
    before, device = dict(thread.streams), thread.device
    thread.device, thread.streams[index] = index, stream
    try:
        yield
    finally:
        thread.device, thread.streams = device, before


@contextmanager
def _device(device: Any) -> Iterator[None]:
    """In place of `torch.cuda.device`."""
    before, _fake.thread.device = _fake.thread.device, _index(device)
    try:
        yield
    finally:
        _fake.thread.device = before


def _empty_cache() -> None:
    if any(graph.device == _fake.thread.device for graph in _fake.capturing):
        _fake.found("capture", "empty_cache while a stream of the device captures")


class Graph:
    """In place of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.steps: list[tuple[Callable[[], None], Sequence[Tensor], Sequence[Tensor]]] = []  # run, reads, writes
        self.invalid = self.ended = False

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:  # noqa: ARG002
        stream = _current_stream()
        if stream in _fake.defaults:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        if _fake.capturing:  # PyTorch documents one capture a process at a time
            _fake.found("capture", "two captures at once")
            for graph in _fake.capturing:
                graph.invalid = True
            raise RuntimeError(NOT_PERMITTED)
        if stream.device.index != _fake.thread.device:
            _fake.found("capture", f"{stream.name} captures while cuda:{_fake.thread.device} is current: empty graph")
        self.stream, self.device = stream, stream.device.index
        stream.capture = _fake.thread.capture = self
        _fake.capturing.append(self)
        _fake.captures += 1

    def pool(self) -> int:
        return id(self)

    def capture_end(self) -> None:
        _fake.capturing.remove(self)
        self.stream.capture = _fake.thread.capture = None
        if _current_stream() is not self.stream:
            raise RuntimeError("capture must end on the stream it began on")
        if self.invalid:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        self.ended = True
        for _, _, writes in self.steps:
            for tensor in writes:
                if tensor.is_floating_point():
                    tensor.fill_(float("nan"))

    def replay(self) -> None:
        assert self.ended
        _fake.replays += 1
        stream = _current_stream()
        stream.advance()
        for run, reads, writes in self.steps:
            for tensor in reads:
                _fake.access(tensor, stream, writes=False)
            with torch._C._DisableTorchDispatch():
                run()
            for tensor in writes:
                _fake.access(tensor, stream, writes=True)


# --- tensors ----------------------------------------------------------------------------------------------------------


class FakeTensor(Tensor):
    """A tensor that says cuda:N; its values are those of `elem`, on the CPU."""

    elem: Tensor

    @staticmethod
    def __new__(cls, elem: Tensor, device: torch.device) -> FakeTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(), dtype=elem.dtype,
            device=device,
        )  # fmt: skip
        tensor.elem = elem
        address = _address(elem)
        if address:
            with _fake.lock:
                memory = _fake.memory.get(address)
                if memory is None:
                    owner = _current_stream(device)
                    what, private = f"{elem.dtype} {tuple(elem.shape)}", _fake.thread.capture is not None
                    nbytes, index = elem.untyped_storage().nbytes(), device.index
                    memory = _fake.memory[address] = _Memory(owner, what, nbytes, private)
                    _fake.held_bytes[index] += nbytes
                    _fake.peak_bytes[index] = max(_fake.peak_bytes[index], _fake.held_bytes[index])
                memory.references += 1
            weakref.finalize(tensor, _fake.dropped, address).atexit = False
        return tensor

    def record_stream(self, stream: Stream) -> None:  # type: ignore[override]
        _fake.memory[_address(self.elem)].users.add(stream.name)

    # What PyTorch does in C++ with the storage, which a wrapper has not.

    def data_ptr(self) -> int:
        return self.elem.data_ptr()

    def cpu(self, *_: Any) -> Tensor:
        return aten._to_copy.default(self, device=torch.device("cpu"))  # type: ignore[no-any-return]

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        if self.elem.is_contiguous(memory_format=memory_format):
            return self
        return aten.clone.default(self, memory_format=memory_format)  # type: ignore[no-any-return]

    def copy_(self, other: Tensor, non_blocking: bool = False) -> Tensor:
        return aten.copy_.default(self, other, non_blocking)  # type: ignore[no-any-return]

    def item(self) -> Any:
        return aten._local_scalar_dense.default(self)

    def __invert__(self) -> Tensor:
        return aten.bitwise_not.default(self)  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __getitem__(self, key: Any) -> Tensor:
        result, keys = self, key if isinstance(key, tuple) else (key,)
        used = sum(k is not None and k is not Ellipsis for k in keys)
        at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
        dim = 0
        for k in (*keys[:at], *(slice(None),) * (self.dim() - used), *keys[at + 1 :]):
            if k is None:
                result = aten.unsqueeze.default(result, dim)
            elif isinstance(k, slice):
                if k != slice(None):
                    result = aten.slice.Tensor(result, dim, k.start, k.stop, k.step or 1)
            else:
                result = aten.select.int(result, dim, k)
                continue
            dim += 1
        return result

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self[key]
        target.copy_(value) if isinstance(value, Tensor) else target.fill_(value)

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _dispatch(func, args, kwargs or {})


class FakeMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Intercepts every operation of a thread, including the ones that make new tensors."""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    """`function` of every leaf of tuples, lists and dictionaries; a tenth of the time of PyTorch's."""
    kind = type(tree)
    if kind is dict:
        return {key: _map(function, value) for key, value in tree.items()}
    if kind is tuple or kind is list:
        return kind([_map(function, value) for value in tree])
    return function(tree)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    _map(found.append, tree)
    return found


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(tree) if isinstance(leaf, Tensor)]


def _unwrap(leaf: Any) -> Any:
    return leaf.elem if isinstance(leaf, FakeTensor) else leaf


def _dispatch(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation: where it happens, whether that is in order, and its result."""
    leaves, wanted = _leaves((args, kwargs)), kwargs.get("device")
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    given = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
    if not given and not any(isinstance(leaf, torch.device) and leaf.type == "cuda" for leaf in leaves):
        return _on_host(func, args, kwargs)
    if _is_composite(func):
        with FakeMode():  # type: ignore[no-untyped-call]
            result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
    copies = func in COPIES
    if copies and wanted is not None:
        target = wanted
    else:
        target = given[0].device if given else torch.device("cuda", _index(wanted))
    if not copies:
        _check_devices(func, tensors, target)
    stream = _current_stream((given[0].device if given else target) if target.type == "cpu" else target)
    _count_waits(func, args, kwargs, target)
    stream.advance()
    return _compute(func, args, kwargs, given, target, stream)


@cache
def _is_composite(func: Any) -> bool:
    """Whether PyTorch makes it of other operations; sampling by a grid is one kernel on a real device."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return composite and func is not aten.grid_sampler.default


def _on_host(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pins = kwargs.pop("pin_memory", False)
    result = func(*args, **kwargs)
    if pins:
        _fake.pinned[_address(result)] = weakref.ref(result)
    return result


def _check_devices(func: Any, tensors: Sequence[Tensor], target: torch.device) -> None:
    for tensor in tensors:
        if tensor.device != target and tensor.dim() > 0:
            _fake.found("device", f"{func} of {target} and {tensor.device}")
            raise RuntimeError(f"expected all tensors to be on the same device, got {target} and {tensor.device}")


def _is_pinned(tensor: Tensor) -> bool:
    reference = _fake.pinned.get(_address(tensor))
    return reference is not None and reference() is not None


def _count_waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], target: torch.device) -> None:
    if func in VALUES_READ:
        _fake.host_wait(str(func))
    if func not in COPIES:
        return
    source = args[1] if func is aten.copy_.default else args[0]
    into = args[0] if func is aten.copy_.default else None
    to_device = isinstance(into, FakeTensor) if into is not None else target.type == "cuda"
    if isinstance(source, FakeTensor) == to_device:
        return
    host = source if to_device else into
    blocks = not (kwargs.get("non_blocking") or (func is aten.copy_.default and len(args) > 2 and args[2]))
    if blocks or host is None or not _is_pinned(host):
        _fake.host_wait("copy to the device" if to_device else "copy to the host")


def _compute(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: Sequence[FakeTensor], target: torch.device,
    stream: Stream,
) -> Any:  # fmt: skip
    capture = _fake.thread.capture
    if capture is not None and stream is not capture.stream:
        _fake.found("capture", f"{func} runs on {stream.name} during a capture on {capture.stream.name}")
    own_args, own_kwargs = _map(_unwrap, (args, kwargs))
    if own_kwargs.get("device") is not None:
        own_kwargs["device"] = torch.device("cpu")
    for name in ("pin_memory",) if func is aten.copy_.default else ("pin_memory", "non_blocking"):
        own_kwargs.pop(name, None)
    mutated = _mutated(func, args, kwargs)
    view = func.is_view or func in (aten.detach.default, aten.alias.default)
    if not view:
        name = func.name()
        _fake.launches[name] += 1
        if "convolution" in name:
            _fake.cudnn_threads.add(threading.get_ident())
        for tensor in given:
            _fake.access(tensor.elem, stream, writes=any(tensor is m for m in mutated))
    if _fake.free_bytes == 0 and not view and not mutated:
        raise torch.OutOfMemoryError("CUDA out of memory")
    result = func(*own_args, **own_kwargs)
    if func in VALUES_READ or (target.type == "cpu" and func is aten._to_copy.default):
        return result
    if capture is not None and stream is capture.stream and not view:
        capture.steps.append(_step(func, own_args, own_kwargs, result, [_unwrap(m) for m in mutated]))
    if func is aten.copy_.default:
        return args[0]

    def wrap(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        for known in (*mutated, *given):
            if _unwrap(known) is leaf:
                return known
        made = FakeTensor(leaf, target)
        if not view:
            _fake.access(leaf, stream, writes=True)
        return made

    return _map(wrap, result)


def _mutated(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that an operation writes to."""
    written = []
    for i, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written += _tensors(args[i] if i < len(args) else kwargs.get(argument.name))
    return written


def _step(
    func: Any, args: Any, kwargs: Any, result: Any, mutated: Sequence[Tensor]
) -> tuple[Callable[[], None], Sequence[Tensor], Sequence[Tensor]]:
    """An operation that a graph repeats into the memory of its first result."""
    writes = mutated or _tensors(result)

    def run() -> None:
        again = _tensors(func(*args, **kwargs))
        if not mutated:
            for old, new in zip(writes, again, strict=True):
                old.copy_(new)

    return run, _tensors((args, kwargs)), writes


def launch(real: Callable[..., None], kernel: Any, written: Tensor, *arguments: Any, **constants: Any) -> None:
    """Run a Triton kernel in the interpreter, as an operation of the current stream.

    Args:
        real: `backend.launch`, in whose place this is called.
        kernel: made while `triton.knobs.runtime.interpret` was set.
        written: the tensor that it writes.
        arguments: of the kernel.
        constants: of the kernel.
    """
    name, stream = kernel.fn.__name__, _current_stream()
    for tensor in _tensors(arguments):
        if tensor.device != stream.device:
            _fake.found("device", f"{name} on {stream.device} is given a tensor of {tensor.device}")
    stream.advance()
    _fake.launches[name] += 1
    own, target = _map(_unwrap, arguments), _unwrap(written)
    reads = _tensors(own)
    for tensor in reads:
        _fake.access(tensor, stream, writes=tensor is target)

    def run() -> None:
        with torch._C._DisableTorchDispatch():
            real(kernel, target, *own, **constants)

    run()
    if _fake.thread.capture is not None:
        _fake.thread.capture.steps.append((run, reads, [target]))


# --- installation -----------------------------------------------------------------------------------------------------


@contextmanager
def fake_cuda(devices: int = 2, capability: tuple[int, int] = (8, 6)) -> Iterator[Fake]:
    """Make `torch.cuda` speak of fake devices; in this thread and in those started within the block."""
    global _fake
    fake = _fake = Fake(devices, capability)
    fake.defaults = [Stream(i, f"default of cuda:{i}") for i in range(devices)]
    run, tensor = threading.Thread.run, torch.tensor

    def run_with_mode(self: threading.Thread) -> None:
        with FakeMode():  # type: ignore[no-untyped-call]
            run(self)

    def new_tensor(data: Any, *, dtype: Any = None, device: Any = None, **rest: Any) -> Tensor:
        made = tensor(data, dtype=dtype, **rest)
        return made if device is None else made.to(device)

    attributes: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: devices, "is_initialized": lambda: True,
        "_lazy_init": lambda: None, "init": lambda: None, "current_device": lambda: fake.thread.device,
        "set_device": lambda device: setattr(fake.thread, "device", _index(device)), "device": _device,
        "Stream": Stream, "Event": Event, "stream": _stream, "current_stream": _current_stream,
        "CUDAGraph": Graph, "empty_cache": _empty_cache, "is_current_stream_capturing": lambda: bool(fake.capturing),
        "synchronize": lambda _device=None: fake.host_wait("device"),
        "get_device_capability": lambda _device=None: capability, "get_device_name": lambda _device=None: "Fake GPU",
        "get_device_properties": lambda _device=None: SimpleNamespace(
            multi_processor_count=4, name="Fake GPU", major=capability[0], minor=capability[1]
        ),
        "mem_get_info": lambda _device=None: (8 << 30, 12 << 30),
        "memory_allocated": lambda device=None: fake.held_bytes[_index(device)],
        "max_memory_allocated": lambda device=None: fake.peak_bytes[_index(device)],
        "reset_peak_memory_stats": lambda device=None: fake.peak_bytes.update(
            {_index(device): fake.held_bytes[_index(device)] - fake.peak_bytes[_index(device)]}
        ),
    }  # fmt: skip
    with (
        patch.multiple("torch.cuda", **attributes),
        patch.object(threading.Thread, "run", run_with_mode),
        patch.object(torch, "tensor", new_tensor),
        patch.object(torch, "Event", TimedEvent),
        # `Module.to` makes new parameters: it cannot put memory of another device into the old ones.
        patch("torch.__future__.get_overwrite_module_params_on_conversion", lambda: True),
        FakeMode(),  # type: ignore[no-untyped-call]
    ):
        yield fake


@contextmanager
def fresh_cuda(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Fake]:
    """Two fake devices that run plain PyTorch, as in a process that has not used CUDA before.

    Args:
        monkeypatch: of the test; undoes the rest.
        folder: for the verdicts on kernels.
    """
    monkeypatch.setenv(dispatch.CUDA_VARIABLE, "plain")
    monkeypatch.setattr(device_thread, "_threads", {})
    monkeypatch.setattr(dispatch, "_disabled", set())
    monkeypatch.setattr(verification, "_verified", set())
    monkeypatch.setattr(verification, "_verdicts_folder", lambda _device: folder / "verdicts")
    monkeypatch.setattr(cuda_graph, "_recordings", weakref.WeakKeyDictionary())
    monkeypatch.setattr(loaded, "_networks", OrderedDict())
    caches = dispatch._cuda_kernels, transfer.transfer_for, cuda_graph._capture_stream
    for cached in caches:
        cached.cache_clear()
    with fake_cuda() as fake:
        yield fake
    for cached in caches:
        cached.cache_clear()


@contextmanager
def interpreted_kernels() -> Iterator[ModuleType]:
    """Yield `vsrife.ops.cuda.backend`, imported anew so that Triton's interpreter runs its kernels on the CPU."""
    triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
    names = [f"vsrife.ops.cuda.{name}" for name in ("kernels", "backend")]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)
            # An import from the package takes its attribute, where there is one, without a look into `sys.modules`.
            monkeypatch.delattr(vsrife.ops.cuda, name.rpartition(".")[2], raising=False)
        backend = import_module(names[1])
        assert type(backend.kernels.blend_kernel).__name__ == "InterpretedFunction"
        yield backend
        for name in names:  # what was imported before is put back; where nothing was, nothing of this stays
            sys.modules.pop(name, None)
            vsrife.ops.cuda.__dict__.pop(name.rpartition(".")[2], None)
