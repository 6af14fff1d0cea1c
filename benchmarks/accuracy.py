"""Check that what is to be timed is correct on a device: every op, then the engine against the authors' networks.

    python benchmarks/accuracy.py [--device cuda] [--precision fp16] [--quick] [--output FILE]

Needs PyTorch, NumPy and a checkout. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import numpy as np
import torch
from torch import Tensor

from benchmarks.inputs import GOLDEN, golden, made_weights
from benchmarks.measure import LEAST_PSNR_DB, Report, Row, arguments, begin
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.networks.catalogue import MODELS
from vsrife.networks.fold import fold
from vsrife.ops import cases
from vsrife.ops.dispatch import choose
from vsrife.ops.protocol import Ops

VERSIONS = ("4.6", "4.22.lite", "4.25", "4.25.lite", "4.26.heavy")
LARGEST_ERROR = 2e-4  # of float32 against the authors' code
RGB = Colorimetry(matrix=0, full_range=True, chroma_location=0)


def wrong_ops(ops: Ops, dtype: torch.dtype, device: torch.device) -> list[str]:
    """Ops that fail a case on this device, with the case."""
    found = (cases.failing(ops, name, dtype, device) for name in sorted({case.op for case in cases.CASES}))
    return [f"{case.op}: {case} exceeds its limit by {over:.2g}" for group in found for case, over in group]


def golden_errors(
    device: torch.device, dtype: torch.dtype, versions: Sequence[str]
) -> Iterable[tuple[str, float, float]]:
    """Yield for every stored case of some versions its name, the largest error, and PSNR in dB."""
    stored_cases = json.loads((GOLDEN / "cases.json").read_text(encoding="ascii"))
    with np.load(GOLDEN / "outputs.npz") as stored:
        for case in sorted(stored_cases, key=lambda case: (case["version"], case.get("boost", 1.0))):
            if case["version"] not in versions or case["key"] not in stored or case.get("ensemble"):
                continue
            error = _rebuilt(case, device, dtype) - torch.from_numpy(stored[case["key"]])
            yield case["key"], error.abs().max().item(), psnr(error)


def _rebuilt(case: Mapping[str, object], device: torch.device, dtype: torch.dtype) -> Tensor:
    version, width, height = str(case["version"]), int(str(case["width"])), int(str(case["height"]))
    tensors = made_weights(version, float(str(case.get("boost", 1.0))))
    scale = float(str(case.get("scale", 1.0)))
    net = fold(MODELS[version].layout, tensors, scale=scale, device=device, dtype=dtype)
    engine = Engine(net, PictureFormat("RGB", 32, True, width, height))
    left, right = (InputFrame(i, list(frame), RGB) for i, frame in enumerate(golden().frames(height, width)))
    planes = engine.interpolate(left, right, float(str(case["timestep"])), out="device")
    assert planes is not None
    return torch.stack(planes).cpu()


def psnr(error: Tensor) -> float:
    return float(-10 * torch.log10(error.double().square().mean().clamp_min(1e-12)))


def row(kind: torch.dtype, device: torch.device, versions: Sequence[str]) -> Row:
    """Check the engine in one precision."""
    errors = list(golden_errors(device, kind, versions))
    largest, least = max(e for _, e, _ in errors), min(p for *_, p in errors)
    right = largest <= LARGEST_ERROR if kind == torch.float32 else least >= LEAST_PSNR_DB
    name = str(kind).removeprefix("torch.")
    return name, str(len(errors)), f"{largest:.2g}", f"{least:.1f}", "yes" if right else "NO"


def accuracy(report: Report, device: torch.device, dtype: torch.dtype, versions: Sequence[str]) -> bool:
    """Report the checks, and return whether all pass."""
    kinds = list(dict.fromkeys((torch.float32, dtype)))
    head = ("precision", "cases", "largest error", "least PSNR, dB", "right")
    rows = report.table(head, [partial(row, kind, device, versions) for kind in kinds])
    wrong = [f"- {kind}: {text}" for kind in kinds for text in wrong_ops(choose(device, kind), kind, device)]
    wrong += [f"- the engine in {cells[0]}" for cells in rows if cells[-1] == "NO"]
    if wrong:
        report.add("Wrong, so nothing is timed:", "\n".join(wrong))
    if len(rows) < len(kinds):
        raise RuntimeError("not everything could be checked")
    return not wrong


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("whether what is to be measured is right on a device", argv)
    against = "against the stored outputs of the authors' networks"
    report = begin(given, "Accuracy", given.device, given.dtype, against)
    versions = [v for v in given.models if v in VERSIONS] or VERSIONS[:1] if given.quick else VERSIONS
    with torch.inference_mode():
        return 0 if accuracy(report, given.device, given.dtype, versions) else 1


if __name__ == "__main__":
    sys.exit(main())
