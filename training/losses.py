"""What training minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.forward import Estimate
from training.samples import Batch
from training.teacher import where_better
from vsrife.ops.reference import resize

PYRAMID_LEVELS = 5
LEAST_LEVEL_PX = 4
CHARBONNIER_EPSILON = 1e-3
BLOCK_DECAY = 0.75  # weight of a block's picture against the one after it


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts; 0 leaves it out."""

    pyramid: float = 1.0
    charbonnier: float = 0.0
    flow: float = 0.0  # distance to the flow of a teacher, where it is better, and of synthetic motion, per pixel


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


def flow_distance(flow: Tensor, target: Tensor, trusted: Tensor) -> Tensor:
    """Mean distance in pixels of a stage's flow (N, 4, h, w) to a target (N, 4, H, W), weighted by (N, 2, H, W)."""
    target, trusted = (resize(m, *flow.shape[-2:]) for m in (target, trusted))
    return ((flow - target).abs().unflatten(1, (2, 2)).mean(2) * trusted).mean()


def trusted_flow(estimate: Estimate, batch: Batch) -> Tensor:
    """Where the flow of a batch is taught, (N, 2, H, W): everywhere it is exact, else where it beats the student's."""
    better = where_better(batch.flow, (batch.frame0, batch.frame1), batch.truth, estimate.stages[-1].warped)
    exact = batch.exact.view(-1, 1, 1, 1)
    return exact + (1 - exact) * better


def compute_loss(estimate: Estimate, batch: Batch, weights: LossWeights) -> Loss:
    """The loss of a batch, averaged over its samples.

    Every block's picture is compared with the truth at the resolution the next block reads it at.
    """
    image_error = estimate.image - batch.truth
    shares = [BLOCK_DECAY**back for back in reversed(range(len(estimate.stages)))]
    parts = {"charbonnier": charbonnier(image_error), "pyramid": image_error.new_zeros(())}
    for share, stage in zip(shares, estimate.stages, strict=True):
        truth = resize(batch.truth, *stage.blend.shape[-2:])
        parts["pyramid"] = parts["pyramid"] + share * laplacian(stage.blend - truth)
    if weights.flow:
        trusted = trusted_flow(estimate, batch)
        distances = [flow_distance(stage.flow, batch.flow, trusted) for stage in estimate.stages]
        parts["flow"] = torch.stack([s * d for s, d in zip(shares, distances, strict=True)]).sum()
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return Loss(total, {name: value.detach() for name, value in parts.items()})
