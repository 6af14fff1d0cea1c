"""Teachers that see the frame in between: classical optical flow, and a further block of the network."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.forward import warp

LUMA = (0.299, 0.587, 0.114)


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


def where_better(flow: Tensor, frames: tuple[Tensor, Tensor], truth: Tensor, warped: tuple[Tensor, Tensor]) -> Tensor:
    """Where a teacher's flow explains the truth better than the student's does.

    Args:
        flow: (N, 4, H, W), the teacher's.
        frames: frame 0 and frame 1, (N, 3, H, W).
        truth: the frame between.
        warped: both frames warped by the student's flow.

    Returns:
        (N, 2, H, W) float32, 1 or 0, for the flow to frame 0 and to frame 1.
    """
    height, width = truth.shape[-2:]
    x = torch.arange(width, device=truth.device, dtype=torch.float32)
    y = torch.arange(height, device=truth.device, dtype=torch.float32)[:, None]
    maps = []
    with torch.no_grad():
        for k, (frame, student) in enumerate(zip(frames, warped, strict=True)):
            teacher = warp(frame, x + flow[:, 2 * k], y + flow[:, 2 * k + 1])
            gain = (student - truth).abs().mean(1, keepdim=True) - (teacher - truth).abs().mean(1, keepdim=True)
            maps.append((gain > 0).float())
    return torch.cat(maps, dim=1)
