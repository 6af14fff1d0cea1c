"""What training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.forward import Estimate
from training.samples import Batch
from training.teacher import Lesson, where_better
from vsrife.ops.reference import resize

PYRAMID_LEVELS = 5
LEAST_LEVEL_PX = 4
CHARBONNIER_EPSILON = 1e-3
LEAST_SQUARE = 3e-6  # 55 dB; what is better than this is good enough
BLOCK_DECAY = 0.75  # weight of a block's picture against the one after it


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts; 0 leaves it out."""

    pyramid: float = 1.0
    charbonnier: float = 0.0
    psnr: float = 0.0  # logarithm of each sample's mean squared error, so that easy samples count as much as hard ones
    flow: float = 0.0  # distance to the flow of a teacher, where it is better, and of synthetic motion, per pixel
    teacher: float = 1.0  # the privileged block's own picture; no influence on the student
    distilled: float = 0.01  # distance to the privileged block's flow, where it is better, per pixel


@dataclass(frozen=True, slots=True)
class Loss:
    """One step's loss: the total, and its parts before they are weighted."""

    total: Tensor
    parts: dict[str, Tensor]


def laplacian(error: Tensor) -> Tensor:
    """Mean absolute value of each level of the Laplacian pyramid of an error image (N, C, H, W), summed.

    The pyramid is linear, so that of a difference is the difference of the pyramids.
    """
    total = error.new_zeros(())
    for _ in range(PYRAMID_LEVELS - 1):
        if min(error.shape[-2:]) < 2 * LEAST_LEVEL_PX:
            break
        smaller = F.avg_pool2d(error, 2)
        total = total + (error - resize(smaller, *error.shape[-2:])).abs().mean()
        error = smaller
    return total + error.abs().mean()


def charbonnier(error: Tensor) -> Tensor:
    """Mean of a smooth absolute value."""
    return torch.sqrt(error * error + CHARBONNIER_EPSILON**2).mean()


def log_error(error: Tensor) -> Tensor:
    """Mean over samples of log10 of the mean squared error: a tenth of the PSNR in dB, with the sign of a loss."""
    return (error.pow(2).mean(dim=(1, 2, 3)) + LEAST_SQUARE).log10().mean()


def flow_distance(flow: Tensor, target: Tensor, trusted: Tensor) -> Tensor:
    """Mean distance in pixels of a stage's flow (N, 4, h, w) to a target (N, 4, H, W), weighted by (N, 2, H, W)."""
    target, trusted = (resize(m, *flow.shape[-2:]) for m in (target, trusted))
    x0, y0, x1, y1 = (flow - target).abs().unbind(1)
    return (torch.stack((x0 + y0, x1 + y1), dim=1) / 2 * trusted).mean()


def distil(estimate: Estimate, flow: Tensor, trusted: Tensor, shares: Sequence[float]) -> Tensor:
    """Distance of every block's flow to one that is trusted where (N, 2, H, W) says."""
    distances = [flow_distance(stage.flow, flow, trusted) for stage in estimate.stages]
    return torch.stack([share * distance for share, distance in zip(shares, distances, strict=True)]).sum()


def compute_loss(estimate: Estimate, lesson: Lesson | None, batch: Batch, weights: LossWeights) -> Loss:
    """The loss of a batch, averaged over its samples.

    Every block's picture is compared with the truth at the resolution the next block reads it at. A teacher's flow
    counts where it explains the truth better than the student's; the flow of synthetic motion counts everywhere.
    """
    shares = [BLOCK_DECAY**back for back in reversed(range(len(estimate.stages)))]
    errors = [stage.blend - resize(batch.truth, *stage.blend.shape[-2:]) for stage in estimate.stages]
    parts = {
        "charbonnier": charbonnier(errors[-1]),
        "pyramid": torch.stack([share * laplacian(e) for share, e in zip(shares, errors, strict=True)]).sum(),
    }
    if weights.psnr:
        parts["psnr"] = log_error(errors[-1])
    if weights.flow:
        taught, exact = (value.view(-1, 1, 1, 1) for value in (batch.taught, batch.exact))
        trusted = taught * torch.maximum(exact, where_better(estimate, batch.flow, batch.truth))
        parts["flow"] = distil(estimate, batch.flow, trusted, shares)
    if lesson is not None:
        flow = lesson.flow.detach()
        parts["teacher"] = laplacian(lesson.blend - batch.truth)
        parts["distilled"] = distil(estimate, flow, where_better(estimate, flow, batch.truth), shares)
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return Loss(total, {name: value.detach() for name, value in parts.items()})
