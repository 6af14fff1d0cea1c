"""The Triton kernels: run by Triton's interpreter on the CPU, and compiled where a GPU is.

bfloat16 is not tried in the interpreter, which takes such numbers for integers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import vsrife.ops.cuda
import vsrife.ops.dispatch
from vsrife.ops import reference
from vsrife.ops.cases import CASES, FLOWS, Case, arguments_of, excess
from vsrife.ops.cuda import rehearsal
from vsrife.ops.cuda.choices import Choices
from vsrife.ops.dispatch import OP_NAMES, proven

triton = pytest.importorskip("triton", reason="PyTorch brings Triton along on Linux only")
SIZES = [(1, 1), (1, 29), (11, 23)]
HALF = [case for case in CASES if case.half]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The kernels as the interpreter runs them."""
    if torch.cuda.is_available():
        pytest.skip("the kernels are compiled in this process; the cases marked needs_cuda run them")
    before, triton.knobs.runtime.interpret = triton.knobs.runtime.interpret, True
    sys.modules.pop("vsrife.ops.cuda.kernels", None)
    kernels = import_module("vsrife.ops.cuda.kernels")
    assert type(kernels._blend_kernel).__name__ == "InterpretedFunction"
    yield kernels
    triton.knobs.runtime.interpret = before
    del sys.modules["vsrife.ops.cuda.kernels"], vsrife.ops.cuda.kernels


@pytest.fixture
def launches(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were started."""
    started: list[str] = []
    kind = type(interpreted._blend_kernel)
    launch = kind.run

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        started.append(self.fn.__name__)
        return launch(self, *args, **kwargs)

    monkeypatch.setattr(kind, "run", recorded)
    return started


def moves(case: Case) -> list[str]:
    return list(FLOWS) if case.op in ("warp_stacks", "blend", "blend_plane") else ["subpixel"]


SINGLE = [(case, move) for case in CASES for move in moves(case)]


@pytest.mark.parametrize(("case", "move"), SINGLE, ids=lambda x: str(x))
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_kernel_in_float32(
    case: Case, move: str, size: tuple[int, int], interpreted: ModuleType, launches: list[str]
) -> None:
    """At most twice the error of plain PyTorch, plus the floor of the case; both against float64."""
    over = excess(getattr(interpreted, case.op), case, arguments_of(case, size, FLOWS[move], torch.float32))
    assert over <= 0
    assert launches or case.op == "expand"  # which leaves float32 to PyTorch


@pytest.mark.parametrize("case", HALF, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_kernel_in_half_precision(
    case: Case, size: tuple[int, int], interpreted: ModuleType, launches: list[str]
) -> None:
    over = excess(getattr(interpreted, case.op), case, arguments_of(case, size, FLOWS["subpixel"], torch.float16))
    assert over <= 0
    assert launches


@pytest.mark.parametrize("case", [c for c in HALF if c.op == "convolve" and "grouped" not in c.label], ids=str)
def test_every_way_of_a_convolution(case: Case, interpreted: ModuleType) -> None:
    arguments = arguments_of(case, (5, 9), FLOWS["zero"], torch.float16)
    for name, way in interpreted.CONVOLVE_WAYS.items():
        if name not in interpreted.CUDNN_WAYS:
            assert excess(way, case, arguments) <= 0, name


def test_every_way_of_a_chain(interpreted: ModuleType) -> None:
    """Tiles at the border and inside, of more than one picture."""
    case = next(case for case in CASES if str(case) == "convolve_chain-24 channels")
    arguments = arguments_of(case, (19, 9), FLOWS["zero"], torch.float16)
    for name, way in interpreted.CHAIN_WAYS.items():
        assert excess(way, case, arguments) <= 0, name


@pytest.mark.needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("case", "move"), SINGLE, ids=lambda x: str(x))
def test_kernel_on_a_gpu(case: Case, move: str, dtype: torch.dtype) -> None:
    from vsrife.ops.cuda import kernels

    if dtype != torch.float32 and not case.half:
        pytest.skip("networks of half precision hand this op float32")
    for size in (*SIZES, (31, 65), (272, 480)):
        arguments = arguments_of(case, size, FLOWS[move], dtype)
        assert excess(getattr(kernels, case.op), case, arguments, torch.device("cuda")) <= 0


def test_a_way_that_is_wrong_or_does_not_compile_is_not_chosen(interpreted: ModuleType) -> None:
    x, convs = arguments_of(next(c for c in CASES if c.op == "convolve_chain"), (5, 9), FLOWS["zero"], torch.float16)
    plain = reference.convolve_chain

    def wrong(x: Tensor, convs: Any) -> Tensor:
        result = plain(x, convs)
        result[0, 0, 0, 0] += 1
        return result

    def broken(_x: Tensor, _convs: Any) -> Tensor:
        raise RuntimeError("out of resources")

    for way in (wrong, broken):
        assert interpreted._milliseconds(way, plain, x, convs) == float("inf")


def test_not_a_number_reads_inside_the_picture(interpreted: ModuleType) -> None:
    picture, share = torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    flow = torch.full((1, 4, 8, 8), float("nan"))
    flow[..., ::2] = float("inf")
    assert torch.equal(interpreted.blend(picture, picture, flow, share), picture)


# --- whether a device is trusted --------------------------------------------------------------------------------------


def names(ops: Any) -> list[str]:
    """Ops that do not give way to plain PyTorch."""
    return [name for name in OP_NAMES if not getattr(ops, name).gives_way]


def wrong_sample(*arguments: Any) -> Tensor:
    return reference.sample(*arguments) * 1.01


def broken_calm(*_planes: Tensor) -> Tensor:
    raise RuntimeError("ptxas does not know this chip\nand much more")


class Twins:
    """Ops in place of a module's: the plain ones, but for those that are given."""

    def __init__(self, **others: Callable[..., Tensor]) -> None:
        for name in OP_NAMES:
            setattr(self, name, others.get(name, getattr(reference, name)))


def test_what_is_wrong_or_does_not_compile_gives_way() -> None:
    twins = Twins(sample=wrong_sample, calm=broken_calm)
    with pytest.warns(RuntimeWarning, match=r"sample \(case sample off by .*calm \(RuntimeError: ptxas") as told:
        ops = proven(twins, CPU, torch.float32)
    assert len(told) == 1
    assert "much more" not in str(told[0].message)
    assert names(ops) == [name for name in OP_NAMES if name not in ("sample", "calm")]
    plane = torch.zeros(1, 1, 4, 4)
    assert torch.equal(ops.calm(plane, plane), torch.full((1, 1, 4, 4), 32))
    proven(twins, CPU, torch.float32)  # checked once


def test_a_shape_that_does_not_compile_gives_way_later() -> None:
    def fails_when_large(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[-1] > 100:
            raise RuntimeError("out of resources")
        return reference.calm(a, b)

    ops = proven(Twins(calm=fails_when_large), CPU, torch.float32)
    assert "calm" in names(ops)
    plane = torch.zeros(1, 1, 4, 200)
    with pytest.warns(RuntimeWarning, match=r"calm \(RuntimeError: out of resources\)"):
        assert torch.equal(ops.calm(plane, plane), torch.full((1, 1, 4, 200), 32))
    ops.calm(plane, plane)  # in silence


def test_an_op_of_many_maps_gives_way_later() -> None:
    """Also where no argument is a tensor by itself."""

    def fails(*_arguments: object) -> Tensor:
        raise RuntimeError("out of resources")

    ops = proven(Twins(), CPU, torch.float16)
    for name in ("enlarge", "warp_convolve"):
        twin: Any = getattr(ops, name)
        case = next(case for case in CASES if case.op == name)
        arguments = arguments_of(case, (5, 9), FLOWS["zero"], torch.float32)
        expected, twin.fast = twin.plain(*arguments), fails
        with pytest.warns(RuntimeWarning, match=rf"{name} \(RuntimeError: out of resources\)"):
            assert torch.equal(twin(*arguments), expected)


def test_the_kernels_are_trusted(interpreted: ModuleType) -> None:
    assert names(proven(interpreted, CPU, torch.float16)) == list(OP_NAMES)


def test_a_device_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever thread comes first; the others wait for it."""
    checked: list[str] = []

    def problem(_twins: object, name: str, *_rest: object) -> str:
        checked.append(name)
        return ""

    monkeypatch.setattr(vsrife.ops.dispatch, "_problem", problem)
    monkeypatch.setattr(vsrife.ops.cuda, "kernels", Twins(), raising=False)
    found: list[object] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(vsrife.ops.dispatch._on_cuda(torch.device("cuda:7"), torch.float16))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checked == list(OP_NAMES)
    assert len({id(ops) for ops in found}) == 1


# --- compiling for a GPU that is not there ----------------------------------------------------------------------------


def for_hopper(what: str, request: pytest.FixtureRequest, cache: Path) -> Any:
    """What `triton_targets` finds. It compiles to machine code: Triton brings along all that is needed for that."""
    if sys.platform != "linux":
        pytest.skip("Triton's compiler is for Linux")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    tests = request.path.parent
    done = subprocess.run(
        [sys.executable, str(tests / "triton_targets.py"), what, "90"],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(tests.parent)},
    )
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_kernel_compiles_for_hopper(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    compiled = for_hopper("check", request, tmp_path)
    for kernel in ("see", "sample", "enlarge", "warp_stacks", "blend", "blend_plane", "reach", "calm", "convolve",
                   "finish", "chain", "expand"):  # fmt: skip
        assert f"_{kernel}_kernel" in compiled


@pytest.mark.slow
def test_a_rehearsal_compiles_all_that_is_needed(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """For the check of a device and a frame; other sizes and several times at once need few others."""
    ahead, check, frame, several, other = for_hopper("rehearse", request, tmp_path)
    assert ahead > 30
    assert (check, frame) == (0, 0)
    assert several + other <= 4


@pytest.mark.slow
def test_what_does_not_compile_is_told_when_it_is_started(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    refused = "ptxas does not know this chip"
    assert for_hopper("broken", request, tmp_path) == ["nothing", refused, refused]


def test_a_rehearsal_fails_nothing(interpreted: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """Where one work fails the others are gone through; afterwards kernels are started as before."""
    seen: list[bool] = []

    def broken() -> None:
        raise RuntimeError("out of resources")

    with caplog.at_level("DEBUG"):
        rehearsal.compile_ahead(broken, lambda: seen.append(rehearsal.goes_on()))
    assert seen == [True]
    assert "out of resources" in caplog.text
    assert not rehearsal.goes_on()
    plane = torch.zeros(1, 1, 4, 4)
    assert torch.equal(interpreted.calm(plane, plane), torch.full((1, 1, 4, 4), 32))


def test_a_triton_without_such_a_module_compiles_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton.runtime._async_compile", None)
    rehearsal.compile_ahead(pytest.fail)


def test_a_rehearsal_goes_through_all_ways_that_will_be_timed(
    interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []
    x, choices = torch.zeros(1, 1, 600, 600), Choices(None)

    def way(name: str) -> Callable[[Tensor, Any], Tensor]:
        def called(x: Tensor, _rest: Any) -> Tensor:
            run.append(name)
            if name == "b":
                raise RuntimeError("out of resources")
            return x

        return called

    ways = {name: way(name) for name in "abc"}
    monkeypatch.setattr(interpreted, "choices_on", lambda _device: choices)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)

    def work() -> None:
        interpreted._in_fastest_way("any", (1,), ways, way("plain"), x, None)

    rehearsal.compile_ahead(work)
    assert run == ["a", "b"]
    task = f"any {(x.dtype, *x.shape[1:], *x.stride()[1:], 1)}"
    choices.fastest(task, list(ways), {"a": 2.0, "b": float("inf"), "c": 1.0}.__getitem__)
    rehearsal.compile_ahead(work)
    assert run == ["a", "b", "c"]


def test_one_way_serves_every_batch(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is chosen by the time for one picture."""
    timed: list[tuple[str, int]] = []

    def milliseconds(way: Callable[[Tensor, Any], Tensor], _plain: object, x: Tensor, rest: Any) -> float:
        name = "ab"[int(way(x, rest)[0, 0, 0, 0])]
        timed.append((name, len(x)))
        return {"a": 2.0, "b": 1.0}[name]

    choices = Choices(None)
    monkeypatch.setattr(interpreted, "choices_on", lambda _device: choices)
    monkeypatch.setattr(interpreted, "_milliseconds", milliseconds)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    ways = {"a": lambda x, _rest: torch.zeros_like(x), "b": lambda x, _rest: torch.ones_like(x)}
    for count in (3, 1, 2):
        x = torch.zeros(count, 16, 5, 9).contiguous(memory_format=torch.channels_last)
        got = interpreted._in_fastest_way("any", ("batch",), ways, reference.convolve, x, None)
        assert torch.equal(got, torch.ones_like(x))
    assert timed == [("a", 1), ("b", 1)]


def test_a_device_is_rehearsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    works: list[int] = []
    monkeypatch.setattr(vsrife.ops.cuda, "kernels", Twins(), raising=False)
    monkeypatch.setattr(vsrife.ops.dispatch, "_rehearsed", set())
    monkeypatch.setattr(rehearsal, "compile_ahead", lambda *given: works.append(len(given)))
    gpu = torch.device("cuda:7")
    for what in ("1920x1080", "1920x1080", "640x360"):
        vsrife.ops.dispatch.rehearse(gpu, torch.float16, what, lambda: None)
    vsrife.ops.dispatch.rehearse(gpu, torch.float16)
    assert works == [len(OP_NAMES) + 1, 1]
    monkeypatch.undo()  # for real, one does not wait for the other
    rehearsal.compile_ahead(lambda: vsrife.ops.dispatch.rehearse(gpu, torch.float16, "nested", pytest.fail))
    assert (gpu, torch.float16, "nested") not in vsrife.ops.dispatch._rehearsed
    vsrife.ops.dispatch.rehearse(CPU, torch.float16, "1920x1080", pytest.fail)
    assert len(works) == 2
