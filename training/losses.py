"""What training minimises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.forward import Estimate, double, halve
from training.samples import Batch
from vsrife.ops.reference import resize

PYRAMID_LEVELS = 5
LEAST_LEVEL_PX = 4
LEAST_SQUARE = 3e-6  # 55 dB; what is better than this is good enough
AROUND_PX = 5  # side of the square in which pictures are compared
BLOCK_DECAY = 0.75  # weight of a block's picture against the one after it


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each part counts; 0 leaves it out."""

    pyramid: float = 1.0
    psnr: float = 0.0  # logarithm of each sample's mean squared error, so that easy samples count as much as hard ones
    flow: float = 0.0  # distance to a teacher's flow, and to that of synthetic motion, per pixel
    picture: float = 0.0  # pyramid against the teacher's picture, where that is better than the student's


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
        smaller = halve(error)
        total = total + (error - double(smaller)).abs().mean()
        error = smaller
    return total + error.abs().mean()


def log_error(error: Tensor) -> Tensor:
    """Mean over samples of log10 of the mean squared error: a tenth of the PSNR in dB, with the sign of a loss."""
    return (error.pow(2).mean(dim=(1, 2, 3)) + LEAST_SQUARE).log10().mean()


def flow_distance(flow: Tensor, target: Tensor, trusted: Tensor) -> Tensor:
    """Mean distance in pixels of a stage's flow (N, 4, h, w) to a target (N, 4, H, W), weighted by (N, 2, H, W)."""
    target, trusted = (resize(m, *flow.shape[-2:]) for m in (target, trusted))
    x0, y0, x1, y1 = (flow - target).abs().unbind(1)
    return (torch.stack((x0 + y0, x1 + y1), dim=1) / 2 * trusted).mean()


@torch.no_grad()
def is_better(picture: Tensor, own: Tensor, truth: Tensor) -> Tensor:
    """(N, 1, H, W) float32, 1 where a picture is nearer to the truth than the student's own, around each pixel."""
    errors = [(image - truth).abs().mean(1, keepdim=True) for image in (own, picture)]
    return (F.avg_pool2d(errors[0] - errors[1], AROUND_PX, 1, AROUND_PX // 2) > 0).float()


def compute_loss(estimate: Estimate, batch: Batch, weights: LossWeights) -> Loss:
    """The loss of a batch, averaged over its samples.

    Every block's picture is compared with the truth at the resolution the next block reads it at, every block's flow
    with that of the batch. The truth alone has a network average what it cannot know, which shows as double edges; a
    teacher's picture, where it is better, says which of them.
    """
    shares = [BLOCK_DECAY**back for back in reversed(range(len(estimate.stages)))]
    errors = [stage.blend - resize(batch.truth, *stage.blend.shape[-2:]) for stage in estimate.stages]
    parts = {"pyramid": torch.stack([share * laplacian(e) for share, e in zip(shares, errors, strict=True)]).sum()}
    if weights.psnr:
        parts["psnr"] = log_error(errors[-1])
    if weights.flow:
        distances = [flow_distance(stage.flow, batch.flow, batch.trust) for stage in estimate.stages]
        parts["flow"] = torch.stack([s * distance for s, distance in zip(shares, distances, strict=True)]).sum()
    if weights.picture and batch.picture is not None:
        own = estimate.image
        picture, truth = (resize(image, *own.shape[-2:]) for image in (batch.picture, batch.truth))
        parts["picture"] = laplacian((own - picture) * is_better(picture, own, truth))
    total = torch.stack([getattr(weights, name) * value for name, value in parts.items()]).sum()
    return Loss(total, {name: value.detach() for name, value in parts.items()})
