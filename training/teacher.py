"""Teachers that see the frame in between: classical optical flow, and a further block of the network."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.forward import Estimate, TrainingForward, warp
from training.start import initialise
from vsrife.networks.catalogue import FLOW_CHANNELS, IMAGE_CHANNELS
from vsrife.networks.ifnet import ResidualConv, leaky
from vsrife.ops.reference import resize

TEACHER_SCALE = 2  # side of the frame / side the privileged block works at
TEACHER_WIDTH = 64
TEACHER_LAYERS = 4

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the privileged block makes of the student's answer."""

    flow: Tensor  # (N, 4, H, W), pixels
    blend: Tensor  # (N, 3, H, W)


class PrivilegedBlock(nn.Module):
    """A further block that sees the truth, as in the RIFE paper; its flow is the student's example."""

    def __init__(self) -> None:
        super().__init__()
        width = TEACHER_WIDTH
        self.first = nn.Conv2d(3 * IMAGE_CHANNELS + 1 + FLOW_CHANNELS, width // 2, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.body = nn.Sequential(*(ResidualConv(width, 1) for _ in range(TEACHER_LAYERS)))
        self.lastconv = nn.Sequential(nn.ConvTranspose2d(width, 4 * (FLOW_CHANNELS + 1), 4, 2, 1), nn.PixelShuffle(2))
        initialise(self)

    def forward(self, estimate: Estimate, truth: Tensor) -> Lesson:
        """Improve the last stage of `estimate`, whose own gradients are not touched."""
        last = estimate.stages[-1]
        height, width = truth.shape[-2:]
        small = (height // TEACHER_SCALE, width // TEACHER_SCALE)
        known = [*last.warped, truth, last.mask, last.flow / TEACHER_SCALE]
        x = torch.cat([resize(part.detach(), *small) for part in known], dim=1)
        out = resize(self.lastconv(self.body(leaky(self.second(leaky(self.first(x)))))), height, width)
        flow = last.flow.detach() + out[:, :FLOW_CHANNELS] * TEACHER_SCALE
        share = torch.sigmoid(last.mask.detach() + out[:, FLOW_CHANNELS:])
        first, second = warp_both(estimate.reads[:2], flow)
        return Lesson(flow, first * share + second * (1 - share))


class Class(nn.Module):
    """A student with or without a privileged block, as one module for DistributedDataParallel."""

    def __init__(self, student: TrainingForward, *, privileged: bool) -> None:
        super().__init__()
        self.student = student
        self.teacher = PrivilegedBlock() if privileged else None

    def forward(
        self, frame0: Tensor, frame1: Tensor, timestep: Tensor, truth: Tensor
    ) -> tuple[Estimate, Lesson | None]:
        estimate: Estimate = self.student(frame0, frame1, timestep)
        return estimate, self.teacher(estimate, truth) if self.teacher else None


def classical_flow(truth: Tensor, frame0: Tensor, frame1: Tensor) -> Tensor:
    """OpenCV's DIS flow from the true frame between to either side.

    Args:
        truth: (N, 3, H, W), 0..1, on any device.
        frame0: the frame before.
        frame1: the frame after.

    Returns:
        (N, 4, H, W) in pixels, x before y, frame 0 before frame 1, on the device of `truth`.
    """
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    middle, *sides = (_grey(frames) for frames in (truth, frame0, frame1))
    flows = [
        np.concatenate([method.calc(middle[i], side[i], None) for side in sides], axis=-1)  # type: ignore[call-overload]
        for i in range(len(truth))
    ]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2).to(truth.device)


def _grey(frames: Tensor) -> NDArray[np.uint8]:
    weights = frames.new_tensor(LUMA).view(1, 3, 1, 1)
    return np.ascontiguousarray(((frames * weights).sum(1) * 255).round().clamp(0, 255).byte().cpu().numpy())


def warp_both(frames: tuple[Tensor, ...], flow: Tensor) -> tuple[Tensor, Tensor]:
    """Frame 0 and frame 1 (N, 3, H, W) warped by a flow (N, 4, H, W)."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=torch.float32)
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    return warp(frames[0], x + flow[:, 0], y + flow[:, 1]), warp(frames[1], x + flow[:, 2], y + flow[:, 3])


@torch.no_grad()
def where_better(estimate: Estimate, flow: Tensor, truth: Tensor) -> Tensor:
    """Where another flow explains the truth better than the student's does.

    Args:
        estimate: the student's.
        flow: (N, 4, H, W), the teacher's.
        truth: the frame between.

    Returns:
        (N, 2, h, w) float32, 1 or 0, for the flow to frame 0 and to frame 1, at the scale of the student's last stage.
    """
    own = estimate.stages[-1].warped
    size = own[0].shape[-2:]
    taught = [resize(image, *size) for image in warp_both(estimate.reads[:2], flow)]
    truth = resize(truth, *size)
    errors = [[(image - truth).abs().mean(1, keepdim=True) for image in images] for images in (own, taught)]
    return torch.cat([(mine > other).float() for mine, other in zip(*errors, strict=True)], dim=1)
