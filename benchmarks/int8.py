"""Speed and quality of `precision="int8"` on a CPU.

    python benchmarks/int8.py [--models base lite fast] [--clips FILE ...] [--size 640x360] [--timed 1280x720]
    python benchmarks/int8.py --truth FOLDER [--models base lite fast]

PSNR compares RGB frames with float32, for a pair of the sample and of each clip. Times are CPU time of one thread,
taken in turns, on the layers' inputs in a pair of the first model.

With `--truth` instead, both precisions are compared with the truth, on the pictures that `training.evaluate` takes from
FOLDER, at 2x and 4x. That needs no CPU with dot products of bytes: the reference stands in, whose sums are as exact.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numba
import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor

from benchmarks.accuracy import RGB, psnr
from benchmarks.engine import with_ops
from benchmarks.inputs import format_of, pictures
from benchmarks.measure import HD, SAMPLE, Report, Row, Size, facts, number
from training.evalsets import EvalSet, find_sets
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.evaluation.metrics import Image8, psnr_db
from vsrife.networks.fold import FoldedNet, fold
from vsrife.ops.protocol import Conv, Ops

CPU = torch.device("cpu")
FIRST = 20  # frame of each pair
Pair = tuple[InputFrame, InputFrame]
Nets = tuple[FoldedNet, FoldedNet]  # float32, int8
TRUTH_HEAD = ("model", "set", "pictures", "float32", "int8", "difference", "largest loss of a picture")
SPEED_HEAD = ("block", "channels", "map", "float32, ms", "int8, ms", "ratio")


def nets_of(model: str) -> Nets:
    weights = read_ifnet(find_weights(model))
    exact, quantized = (fold(weights.layout, weights.tensors, dtype=dtype) for dtype in (torch.float32, torch.int8))
    return exact, quantized


def pair_of(path: Path, size: Size) -> Pair:
    """Two consecutive frames as RGB."""
    clip = vs.core.bs.VideoSource(str(path), cachemode=0)
    clip = clip.std.SetFrameProps(_Matrix=vs.MATRIX_BT709).resize.Bicubic(size.width, size.height, format=vs.RGBS)
    frames = [clip.get_frame(FIRST + i) for i in range(2)]
    a, b = (InputFrame((str(path), i), [np.array(f[p]) for p in range(3)], RGB) for i, f in enumerate(frames))
    return a, b


def between(net: FoldedNet, pair: Pair) -> Tensor:
    height, width = pair[0].planes[0].shape
    planes = Engine(net, PictureFormat("RGB", 32, True, width, height)).interpolate(*pair, 0.5, out="device")
    assert planes is not None
    return torch.stack(planes)


def quality_row(model: str, pairs: Sequence[Pair]) -> Row:
    nets = nets_of(model)
    found = ([between(net, pair) for net in nets] for pair in pairs)
    return model, *(f"{psnr(quantized - exact):.1f}" for exact, quantized in found)


@dataclass(frozen=True, slots=True)
class RecordingOps:
    """Records the inputs of the blocks' bodies."""

    ops: Ops
    inputs: dict[Conv, Tensor] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ops, name)

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor:
        self.inputs[convs[0]] = x.clone(memory_format=torch.channels_last)
        return self.ops.convolve_chain(x, convs)


def cpu_ms(ways: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median CPU milliseconds of each way, in turns, after an untimed call."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, seen in zip(ways, times, strict=True):
            start = time.process_time()
            way()
            if turn:
                seen.append(1e3 * (time.process_time() - start))
    return [statistics.median(seen) for seen in times]


def speed_row(nets: Nets, x: Tensor, index: int, rounds: int) -> Row:
    """Time the body of one block."""
    ways = [partial(net.ops.convolve_chain, x, net.blocks[index].body) for net in nets]
    float_ms, int_ms = cpu_ms(ways, rounds)
    shape = f"{x.shape[-1]}x{x.shape[-2]}"
    return str(index), str(x.shape[1]), shape, *map(number, (float_ms, int_ms, float_ms / int_ms))


def new_frame(engine: Engine, left: InputFrame, right: InputFrame) -> None:
    """Prepare one source frame and compute one new frame, as in a running clip."""
    engine.interpolate(left, replace(right, key=object()), 0.5, out="device")


def frame_row(model: str, size: Size, rounds: int) -> Row:
    """Time the whole engine."""
    frames = pictures(size, CPU, 2)
    ways = [partial(new_frame, Engine(net, format_of(size)), *frames) for net in nets_of(model)]
    float_ms, int_ms = cpu_ms(ways, rounds)
    return model, *map(number, (float_ms, int_ms, float_ms / int_ms))


def shown(engine: Engine, first: Image8, last: Image8, times: Sequence[float]) -> list[Image8]:
    """Pictures between two, as `vsrife.interpolate` makes them."""
    engine.cache.clear()
    a, b = (InputFrame(i, list(picture.transpose(2, 0, 1)), RGB) for i, picture in enumerate((first, last)))
    made = (engine.interpolate(a, b, time, out="device") for time in times)
    return [first if planes is None else torch.stack(planes, -1).numpy() for planes in made]


def truth_row(model: str, evalset: EvalSet) -> Row:
    """Means over the pictures of a set: PSNR against the truth of both precisions, and the largest loss of one."""
    scores = []
    nets = nets_of(model)
    for item in evalset.items():
        height, width = item.first.shape[:2]
        engines = [Engine(net, PictureFormat("RGB", 8, False, width, height)) for net in nets]
        made = (shown(engine, item.first, item.last, list(item.truths)) for engine in engines)
        scores += [
            [psnr_db(picture, truth) for picture in pictures]
            for *pictures, truth in zip(*made, item.truths.values(), strict=True)
        ]
    exact, quantized = (fmean(column) for column in zip(*scores, strict=True))
    worst = max(a - b for a, b in scores)
    figures = f"{exact:.3f}", f"{quantized:.3f}", f"{quantized - exact:+.3f}", f"{worst:.2f}"
    return model, evalset.name, str(len(scores)), *figures


def compare_with_truth(report: Report, given: argparse.Namespace) -> None:
    report.add("PSNR against the truth, dB, RGB of 8 bits:")
    sets = find_sets(given.truth, (2, 4))
    rows = [partial(truth_row, model, evalset) for model in given.models for evalset in sets]
    report.table(TRUTH_HEAD, rows)


def measure(report: Report, given: argparse.Namespace) -> None:
    paths = [SAMPLE, *given.clips]
    pairs = [pair_of(path, given.size) for path in paths]
    report.add("PSNR against float32, dB:")
    report.table(("model", *(p.stem for p in paths)), [partial(quality_row, model, pairs) for model in given.models])
    nets = nets_of(given.models[0])
    recording = RecordingOps(nets[0].ops)
    new_frame(Engine(with_ops(nets[0], recording), format_of(given.timed)), *pictures(given.timed, CPU, 2))
    report.add(
        f"CPU time of the eight layers of a block's body in a pair of {given.timed}, {given.models[0]}, one thread:"
    )
    inputs = [recording.inputs[block.body[0]] for block in nets[0].blocks]
    report.table(SPEED_HEAD, [partial(speed_row, nets, x, i, given.rounds) for i, x in enumerate(inputs)])
    report.add(f"CPU time of a new frame of {given.timed} YUV420P8 in the engine, one thread:")
    rows = [partial(frame_row, model, given.timed, given.rounds) for model in given.models]
    report.table(("model", "float32, ms", "int8, ms", "ratio"), rows)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="speed and quality of int8 on a CPU")
    parser.add_argument("--models", nargs="+", default=["base", "lite", "fast"])
    parser.add_argument("--clips", nargs="*", type=Path, default=[])
    parser.add_argument("--size", type=Size.parse, default=Size(640, 360), help="of the pairs that are compared")
    parser.add_argument("--timed", type=Size.parse, default=HD, help="of the pairs whose layers are timed")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--truth", type=Path, help="folder of pictures, or of folders of these")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    numba.set_num_threads(1)
    report = Report(given.output, minutes=120)
    report.add("## int8 on a CPU", f"{facts(CPU)}.")
    with torch.inference_mode():
        (compare_with_truth if given.truth else measure)(report, given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
