"""All of the engine's targets on one device, as markdown: one run, under ten minutes on a GPU.

    python benchmarks/gpu.py [--device cuda] [--sizes 1920x1080] [--models 4.6 4.25] [--quick] [--output FILE]

Needs PyTorch (with Triton on a GPU) and a checkout, nothing else: weights are made by the rule of the golden tests.
Where VapourSynth and vspipe are installed the filter is measured as well. First comes accuracy: every op on this
device, then the engine against the outputs of the authors' networks. What is wrong is not timed.

Floors stand beside the times: operations over the rate of a large matrix product, bytes over the bandwidth of a large
copy, both measured in the same run. `moved once` counts two frames read and one written; `layers` reads and writes
every layer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from measure import (
    FULL_HD,
    LEAST_PSNR_DB,
    UHD,
    Rates,
    Report,
    Size,
    arguments,
    facts,
    milliseconds,
    number,
    table,
    wait,
)
from ops import HEAD as OPS_HEAD
from ops import rows as ops_rows
from ops import wrong_ops
from torch import Tensor

from vsrife import pyramid
from vsrife.catalogue import BODY_LAYERS, IMAGE_CHANNELS, MODELS, Layout
from vsrife.engine import Engine, Picture
from vsrife.fold import FoldedNet, fold
from vsrife.network import IFNet
from vsrife.ops import choose
from vsrife.planes import Colorimetry, PictureFormat

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
GOLDEN_VERSIONS = ("4.6", "4.22.lite", "4.25", "4.25.lite", "4.26.heavy")
LARGEST_ERROR = 2e-4  # of float32 against the authors' code
RGB = Colorimetry(matrix=0, full_range=True, chroma_location=0)
BT709 = Colorimetry(matrix=1, full_range=False, chroma_location=0)
STEPS = 8  # pairs of a running clip that are timed together


@dataclass(frozen=True, slots=True)
class Target:
    """A promise for an H100."""

    what: str
    unit: str
    value: float
    most: bool  # whether less is better


TARGETS = (
    Target("engine, 4.6, 1920x1080", "ms per new frame", 0.6, True),
    Target("engine, 4.25, 1920x1080", "ms per new frame", 0.6, True),
    Target("network, 4.6, 1920x1080, against the published forward", "times", 8, False),
    Target("network, 4.25, 1920x1080, against the published forward", "times", 8, False),
    Target("filter, 1920x1080 YUV420P8", "output frames/s", 800, False),
    Target("filter, 3840x2160 YUV420P8", "output frames/s", 220, False),
    Target("first frame, nothing compiled", "s", 10, True),
    Target("first frame, same process", "s", 0.2, True),
)


# --- weights and pictures ---------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _golden() -> ModuleType:
    """The rule that makes weights and frames; a module without imports from the tests."""
    spec = importlib.util.spec_from_file_location("make_inputs", GOLDEN / "make_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=2)
def tensors_of(version: str, boost: float = 1.0) -> dict[str, Tensor]:
    made: Mapping[str, np.ndarray] = _golden().weights(version, MODELS[version].layout.tensor_shapes(), boost)
    return {name: torch.from_numpy(array) for name, array in made.items()}


def network_of(version: str, device: torch.device, dtype: torch.dtype) -> FoldedNet:
    return fold(MODELS[version].layout, tensors_of(version), device=device, dtype=dtype)


def pictures(size: Size, device: torch.device, count: int) -> list[Picture]:
    """YUV420P8 frames of a pattern that moves by a few pixels; planes lie on the device."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, size.height // 16 + 9, size.width // 16 + 9), generator=generator)
    large = F.interpolate(coarse, scale_factor=16, mode="bicubic", align_corners=False).clamp(0, 1) * 219 + 16
    planes = []
    for i in range(count):
        moved = large[0, :, 2 * i : 2 * i + size.height, 6 * i : 6 * i + size.width].to(torch.uint8)
        planes.append([moved[0].contiguous(), *(moved[p, ::2, ::2].contiguous() for p in (1, 2))])
    return [Picture(i, [p.to(device) for p in three], BT709) for i, three in enumerate(planes)]


def format_of(size: Size) -> PictureFormat:
    return PictureFormat("YUV", 8, False, size.width, size.height, 1, 1)


# --- accuracy ---------------------------------------------------------------------------------------------------------


def golden_errors(
    device: torch.device, dtype: torch.dtype, versions: Sequence[str]
) -> Iterable[tuple[str, float, float]]:
    """Every stored case of some versions: its name, the largest error, PSNR in dB."""
    cases = json.loads((GOLDEN / "cases.json").read_text(encoding="ascii"))
    with np.load(GOLDEN / "outputs.npz") as stored:
        for case in sorted(cases, key=lambda case: (case["version"], case.get("boost", 1.0))):
            if case["version"] not in versions or case["key"] not in stored or case.get("ensemble"):
                continue
            error = _rebuilt(case, device, dtype) - torch.from_numpy(stored[case["key"]])
            yield case["key"], error.abs().max().item(), psnr(error)


def _rebuilt(case: Mapping[str, object], device: torch.device, dtype: torch.dtype) -> Tensor:
    version, width, height = str(case["version"]), int(str(case["width"])), int(str(case["height"]))
    tensors = tensors_of(version, float(str(case.get("boost", 1.0))))
    scale = float(str(case.get("scale", 1.0)))
    net = fold(MODELS[version].layout, tensors, scale=scale, device=device, dtype=dtype)
    engine = Engine(net, PictureFormat("RGB", 32, True, width, height))
    left, right = (Picture(i, list(frame), RGB) for i, frame in enumerate(_golden().frames(height, width)))
    planes = engine.interpolate(left, right, float(str(case["timestep"])))
    assert planes is not None
    return torch.stack(planes)


def psnr(error: Tensor) -> float:
    return float(-10 * torch.log10(error.double().square().mean().clamp_min(1e-12)))


def accuracy(report: Report, device: torch.device, dtype: torch.dtype, versions: Sequence[str]) -> bool:
    """Report what is right and what is not; whether all is."""
    wrong, rows = [], []
    for kind in dict.fromkeys((torch.float32, dtype)):
        wrong += [f"- {kind}: {line}" for line in wrong_ops(choose(device, kind), kind, device)]
        errors = list(golden_errors(device, kind, versions))
        largest, least = max(e for _, e, _ in errors), min(p for *_, p in errors)
        right = largest <= LARGEST_ERROR if kind == torch.float32 else least >= LEAST_PSNR_DB
        name, verdict = str(kind).removeprefix("torch."), "yes" if right else "NO"
        rows.append((name, len(errors), f"{largest:.2g}", f"{least:.1f}", verdict))
        if not right:
            wrong.append(f"- the engine in {kind}")
    report.add("## Accuracy", "Against the stored outputs of the authors' networks.")
    report.add(table(("precision", "cases", "largest error", "least PSNR, dB", "right"), rows))
    if wrong:
        report.add("Wrong, so nothing is timed:", "\n".join(wrong))
    return not wrong


# --- floors -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """What one pair takes, one new frame encoded.

    Attributes:
        operations: multiplications and additions.
        least: bytes, when two frames are read, one is written, weights are read once and heads are kept per frame.
        layers: bytes, when every convolution reads its input and writes its output once.
    """

    operations: float
    least: float
    layers: float


def work(layout: Layout, size: Size, itemsize: int) -> Work:
    """From the channel counts of a layout."""
    width, height = layout.padded(size.width, size.height, 1.0)
    area = width * height
    macs, values = 0.0, 0.0

    def layer(inputs: int, outputs: int, places: float, read: float, taps: int = 9, groups: int = 1) -> None:
        nonlocal macs, values
        macs += taps * inputs * outputs / groups * places
        values += inputs * read + outputs * (places if taps == 9 else 4 * places) + taps * inputs * outputs / groups

    if layout.head:
        layer(IMAGE_CHANNELS, layout.head.hidden, area / 4, area)
        for _ in range(layout.head.inner):
            layer(layout.head.hidden, layout.head.hidden, area / 4, area / 4)
        layer(layout.head.hidden, layout.head.channels, area / 4, area / 4, taps=16)
    for i, (c, s) in enumerate(zip(layout.widths, layout.scales, strict=True)):
        cells = area / s**2
        layer(layout.block_inputs(i), c // 2, cells / 4, cells)
        layer(c // 2, c, cells / 16, cells / 4)
        for _ in range(BODY_LAYERS):
            layer(c, c, cells / 16, cells / 16, groups=layout.groups)
        used = layout.outputs if i < layout.blocks - 1 and layout.carried_channels else 5
        layer(c, used * (4 if layout.shuffles else 1), cells / 16, cells / 16, taps=16)
    least = (3 * IMAGE_CHANNELS + 3 * layout.feature_channels) * area + layout.parameters()
    return Work(2 * macs, least * itemsize, values * itemsize)


# --- times ------------------------------------------------------------------------------------------------------------


def network_ways(version: str, size: Size, device: torch.device, dtype: torch.dtype) -> list[Callable[[], Tensor]]:
    """A pair by our forward, and by the published one in the same precision with the same weights."""
    layout, net = MODELS[version].layout, network_of(version, device, dtype)
    naive = IFNet(layout).eval()
    naive.load_state_dict(tensors_of(version))
    naive = naive.to(device, dtype)
    width, height = layout.padded(size.width, size.height, 1.0)
    frames = [f.clamp(0, 1) for f in torch.rand((2, 1, 3, height // 8, width // 8), device=device)]
    frame0, frame1 = (F.interpolate(f, size=(height, width), mode="bicubic").clamp(0, 1) for f in frames)
    half0, half1 = frame0.to(dtype), frame1.to(dtype)
    known = pyramid.encode(net, frame0)

    def ours() -> Tensor:
        new = pyramid.encode(net, frame1)
        field = pyramid.estimate(net, known, new, 0.5)
        share = torch.sigmoid(field.mask(height, width))
        return net.ops.blend(known.stack[:, :3], new.stack[:, :3], field.flow(), share)

    def published() -> Tensor:
        image: Tensor = naive(half0, half1, 0.5).image
        return image

    return [ours, published]


def network_row(
    version: str, size: Size, device: torch.device, dtype: torch.dtype, rates: Rates, repeats: int, compiles: bool
) -> tuple[str, ...]:
    ours, published = network_ways(version, size, device, dtype)
    ways = [ours, published]
    if compiles:
        ways.append(torch.compile(published))
    ms, *others = milliseconds(ways, device, repeats)
    done = work(MODELS[version].layout, size, dtype.itemsize)
    floors = (rates.floor_ms(done.operations, done.least), rates.floor_ms(done.operations, done.layers))
    compiled = [number(others[1]), number(others[1] / ms)] if compiles else ["-", "-"]
    return (
        version, str(size), number(ms), number(others[0]), number(others[0] / ms), *compiled,
        *(number(floor) for floor in floors),
    )  # fmt: skip


NETWORK_HEAD = (
    "model", "size", "ms per pair", "published, ms", "ratio", "torch.compile of it, ms", "ratio",
    "floor moved once, ms", "floor layers, ms",
)  # fmt: skip


def engine_row(version: str, size: Size, device: torch.device, dtype: torch.dtype, repeats: int) -> tuple[str, ...]:
    """A running clip of YUV420P8 through the engine, planes on the device; then with both ways over the bus."""
    net, frames = network_of(version, device, dtype), pictures(size, device, STEPS + 1)
    hosted = [Picture(p.key, [torch.as_tensor(x).cpu().numpy() for x in p.planes], p.color) for p in frames]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def clip(shown: Sequence[Picture], run: Callable[..., object]) -> None:
        engine.prepared.clear()
        for left, right in pairwise(shown):
            run(left, right, 0.5)

    engine = Engine(net, format_of(size))
    on_device, over_bus = milliseconds(
        [lambda: clip(frames, engine.compute), lambda: clip(hosted, engine.interpolate)], device, max(2, repeats // 3)
    )
    start = time.perf_counter()
    engine.prepared.clear()
    engine.interpolate(hosted[0], hosted[1], 0.5)
    seek = 1e3 * (time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return (
        version, str(size), number(on_device / STEPS), number(over_bus / STEPS), number(seek), number(peak),
        number(host),
    )  # fmt: skip


ENGINE_HEAD = (
    "model", "size", "ms per new frame", "with transfers, ms", "after a seek, ms", "device MiB", "host MiB",
)  # fmt: skip

FIRST_FRAME = """
import sys, time
sys.path[:0] = {paths!r}
import torch
from gpu import Engine, Size, format_of, network_of, pictures
device = torch.device({device!r})
torch.zeros(1, device=device)
size, dtype = Size({width}, {height}), torch.{dtype}
frames = [p for p in pictures(size, torch.device("cpu"), 2)]
for _ in range(2):
    start = time.perf_counter()
    net = network_of("4.25", device, dtype) if _ == 0 else net
    planes = Engine(net, format_of(size)).interpolate(*frames, 0.5)
    print(time.perf_counter() - start)
"""


def first_frames(size: Size, device: torch.device, dtype: torch.dtype, *, cold: bool) -> tuple[float, float]:
    """Seconds to the first frame of a new process, with nothing compiled if `cold`, and of the next filter in it."""
    with tempfile.TemporaryDirectory() as folder:
        caches = {"TRITON_CACHE_DIR": folder, "NUMBA_CACHE_DIR": folder} if cold else {}
        environment = os.environ | caches
        script = FIRST_FRAME.format(
            paths=[str(ROOT), str(ROOT / "benchmarks")], device=str(device), width=size.width, height=size.height,
            dtype=str(dtype).removeprefix("torch."),
        )  # fmt: skip
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the first frame failed: {done.stderr[-2000:]}")
    first, second = (float(line) for line in done.stdout.split())
    return first, second


# --- the whole --------------------------------------------------------------------------------------------------------


def against_targets(seen: Mapping[str, float]) -> Iterable[tuple[str, ...]]:
    for target in TARGETS:
        value = seen.get(target.what)
        if value is None:
            yield target.what, "not measured", f"{target.value:g} {target.unit}", ""
            continue
        met = value <= target.value if target.most else value >= target.value
        yield target.what, number(value), f"{target.value:g} {target.unit}", "yes" if met else "no"


def filter_rates(report: Report, sizes: Sequence[Size], device: torch.device, quick: bool) -> dict[str, float]:
    """The real filter under vspipe, where it is installed."""
    if importlib.util.find_spec("vapoursynth") is None:
        report.add("## Filter", "Not measured: VapourSynth is not installed.")
        return {}
    from filter import HEAD, measured

    results = list(measured(sizes, device, frames=6 if quick else 240, formats=("YUV420P8",) if quick else None))
    report.add("## Filter", "The bundled model, 2x, under vspipe.", table(HEAD, (result.row() for result in results)))
    return {f"filter, {r.size} {r.format}": r.to_null for r in results}


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("all of the engine's targets on one device", argv)
    device, dtype, report = given.device, given.dtype, Report(given.output)
    seen: dict[str, float] = {}
    with torch.inference_mode():
        rates = Rates.of(device, dtype)
        report.add("# Engine", f"{facts(device, dtype)}; {rates}.")
        if not accuracy(report, device, dtype, given.models if given.quick else GOLDEN_VERSIONS):
            return 1
        middle = given.sizes[len(given.sizes) // 2 : len(given.sizes) // 2 + 1]
        report.add("## Ops", table(OPS_HEAD, ops_rows(middle, dtype, device, rates, given.repeats)))
        rows = [
            network_row(version, size, device, dtype, rates, given.repeats, device.type == "cuda" and size != UHD)
            for version in given.models
            for size in given.sizes
        ]
        seen |= {f"network, {r[0]}, {r[1]}, against the published forward": float(r[4]) for r in rows}
        report.add("## Network", table(NETWORK_HEAD, rows))
        rows = [engine_row(v, s, device, dtype, given.repeats) for v in given.models for s in given.sizes]
        seen |= {f"engine, {r[0]}, {r[1]}": float(r[2]) for r in rows}
        report.add("## Engine", table(ENGINE_HEAD, rows))
    wait(device)
    size = FULL_HD if FULL_HD in given.sizes else given.sizes[0]
    cold, warm = first_frames(size, device, dtype, cold=not given.quick)
    seen |= {"first frame, same process": warm} | ({} if given.quick else {"first frame, nothing compiled": cold})
    seen |= filter_rates(report, given.sizes, device, given.quick)
    report.add("## Targets on an H100", table(("what", "seen", "target", "met"), against_targets(seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
