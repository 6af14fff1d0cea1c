"""How fast the filter is on this machine, as a markdown table.

    python benchmarks/speed.py [--model 4.26] [--sizes 640x360 1280x720 1920x1080] [--frames 48] [--repeats 5]

Two parts, each accuracy-checked first:
- through the filter: output frames/s of a 2x conversion of YUV420P8, by the real vspipe with no output, source frames
  from `examples/sample.mp4` enlarged beforehand so that decoding does not count;
- the network alone: seconds per pair of the lazy, folded forward (one new source frame encoded, the other cached, as in
  a running clip) and of the published forward at full resolution with the same weights, alternating in one run.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import vapoursynth as vs
from torch import Tensor

import vsrife
from vsrife import pyramid
from vsrife.fold import FoldedNet, fold
from vsrife.network import IFNet
from vsrife.weights import load_weights

SAMPLE = Path(__file__).parents[1] / "examples" / "sample.mp4"
LEAST_PSNR_DB = 48.0  # of the lazy forward against the published one; below, no speed is printed
SCRIPT = """
import vapoursynth as vs
import vsrife
clip = vs.core.bs.VideoSource({sample!r}, cachemode=0)[:{unique}].resize.Bicubic({width}, {height})
frames = [clip.get_frame(n) for n in range({unique})]
held = clip.std.BlankClip(length={frames}, keep=True)
held = held.std.ModifyFrame([held], lambda n, f: frames[n % {unique}])
vsrife.RIFE(held, 2, model={model!r}, sc_threshold=1.0).set_output()
"""


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> Size:
        width, height = text.split("x")
        return cls(int(width), int(height))

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


def filter_rate(size: Size, model: str | None, frames: int) -> float:
    """Output frames per second through vspipe, the first frame included, loading the weights not."""
    script = SCRIPT.format(
        sample=str(SAMPLE), unique=min(8, frames), width=size.width, height=size.height, frames=frames, model=model
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speed.vpy"
        path.write_text(script)
        scripts = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [scripts / "vspipe", path, "--"], capture_output=True, text=True, check=False, env=environment
        )
    match = re.search(r"\(([\d.]+) fps\)", done.stderr)
    if done.returncode or not match:
        raise RuntimeError(f"vspipe failed: {done.stderr}")
    return float(match[1])


def pair_of(size: Size) -> tuple[Tensor, Tensor]:
    """Two consecutive frames of the sample as (1, 3, H, W) RGB, 0..1."""
    clip = vs.core.bs.VideoSource(SAMPLE, cachemode=0).resize.Bicubic(size.width, size.height, format=vs.RGBS)
    first, second = (
        torch.stack([torch.from_numpy(np.array(frame[p])) for p in range(3)])[None]
        for frame in (clip.get_frame(n) for n in (8, 9))
    )
    return first, second


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def network_times(size: Size, net: FoldedNet, naive: IFNet, repeats: int) -> tuple[float, float]:
    """Median seconds per pair: lazy, published.

    Raises:
        RuntimeError: the two do not show the same picture.
    """
    frame0, frame1 = pair_of(size)
    width, height = net.layout.padded(size.width, size.height, net.scale)
    pad = (0, width - size.width, 0, height - size.height)
    padded0, padded1 = F.pad(frame0, pad), F.pad(frame1, pad)
    known = pyramid.encode(net, padded0)

    def lazy() -> Tensor:
        new = pyramid.encode(net, padded1)
        field = pyramid.estimate(net, known, new, 0.5)
        share = torch.sigmoid(field.mask(height, width))
        return net.ops.blend(known.stack[:, :3], new.stack[:, :3], field.flow(), share)[
            ..., : size.height, : size.width
        ]

    def published() -> Tensor:
        image: Tensor = naive(frame0, frame1, 0.5).image
        return image

    error = (lazy() - published()).square().mean().item()
    if error > 10 ** (-LEAST_PSNR_DB / 10):
        raise RuntimeError(f"the lazy forward is wrong at {size}: mean squared error {error}")
    rounds = [(seconds(lazy), seconds(published)) for _ in range(repeats)]
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="speed of the filter and of the network alone")
    parser.add_argument("--model")
    parser.add_argument(
        "--sizes", nargs="+", type=Size.parse, default=[Size(640, 360), Size(1280, 720), Size(1920, 1080)]
    )
    parser.add_argument("--frames", type=int, default=48, help="source frames through the filter")
    parser.add_argument("--repeats", type=int, default=5, help="pairs through the network")
    arguments = parser.parse_args(argv)

    weights = load_weights(arguments.model)
    net = fold(weights.layout, weights.tensors)
    naive = IFNet(weights.layout).eval()
    naive.load_state_dict(dict(weights.tensors))
    print(f"{weights.name}, float32, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, ")
    print(f"PyTorch {torch.__version__}, VapourSynth {vs.__version__}, vsrife {vsrife.__version__}\n")
    print("| size | filter, output frames/s | network, s per pair | published forward, s per pair | ratio |")
    print("|---|---|---|---|---|")
    for size in arguments.sizes:
        with torch.inference_mode():
            lazy, published = network_times(size, net, naive, arguments.repeats)
        rate = filter_rate(size, arguments.model, arguments.frames)
        print(f"| {size} | {rate:.2f} | {lazy:.3f} | {published:.3f} | {published / lazy:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
