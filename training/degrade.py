"""What video loses on its way: blur, coding and noise, simulated on the training device.

All three frames of a sample are treated alike; noise goes on the two that the network reads, since nobody wants the
noise of the frame in between predicted.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

CODED_BLOCK_PX = 8
BLUR_RADIUS_PX = 3


def blur(frames: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (N, K, 3, H, W) by a standard deviation in pixels for each sample, (N,)."""
    samples, others = frames.shape[0], frames.shape[1:3].numel()
    offsets = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=frames.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(others, dim=0)
    planes = frames.reshape(1, samples * others, *frames.shape[-2:])
    for weight, pad in (
        (kernel[:, None, None], (BLUR_RADIUS_PX,) * 2 + (0, 0)),
        (kernel[:, None, :, None], (0, 0) + (BLUR_RADIUS_PX,) * 2),
    ):
        planes = F.conv2d(F.pad(planes, pad, mode="replicate"), weight, groups=samples * others)
    return planes.reshape(frames.shape)


def cosine_basis(device: torch.device) -> Tensor:
    """The orthonormal 8x8 cosine transform as a matrix, one basis vector for each row."""
    n = torch.arange(CODED_BLOCK_PX, device=device, dtype=torch.float32)
    basis = torch.cos(math.pi * (n + 0.5) * n[:, None] / CODED_BLOCK_PX) * math.sqrt(2 / CODED_BLOCK_PX)
    basis[0] /= math.sqrt(2)
    return basis


def quantise(frames: Tensor, step: Tensor) -> Tensor:
    """Round the cosine coefficients of 8x8 blocks, as block coders do.

    Args:
        frames: (N, K, 3, H, W), sides multiples of 8.
        step: (N,), of the lowest frequency, 0..1 scale; grows threefold to the highest.
    """
    basis, side = cosine_basis(frames.device), CODED_BLOCK_PX
    height, width = frames.shape[-2:]
    blocks = frames.reshape(*frames.shape[:-2], height // side, side, width // side, side).transpose(-3, -2)
    coefficients = basis @ blocks @ basis.T
    order = torch.arange(side, device=frames.device)
    growth = 1 + (order + order[:, None]) / (side - 1)
    steps = step.clamp_min(1e-6).view(-1, *(1,) * (blocks.dim() - 1)) * growth
    restored = basis.T @ (torch.round(coefficients / steps) * steps) @ basis
    return restored.transpose(-3, -2).reshape(frames.shape)


def add_noise(frames: Tensor, sigma: Tensor, seeds: Tensor) -> Tensor:
    """Add noise of the given standard deviation, (N,), to (N, K, 3, H, W).

    The noise of a sample follows from its seed alone, on every device and for every split into ranks.
    """
    index = torch.arange(frames[0].numel(), device=frames.device)
    state = seeds[:, None] * 7919 + index
    total = torch.stack([_uniform(state + salt) for salt in (0, 1 << 33, 1 << 34)]).sum(0)  # variance 3 / 12
    noise = ((total - 1.5) * 2).view(frames.shape)
    return frames + noise * sigma.view(-1, 1, 1, 1, 1)


def _uniform(state: Tensor) -> Tensor:
    """Hash int64 numbers to 0..1."""
    for multiplier in (0x9E3779B1, 0x85EBCA6B):
        state = (state ^ (state >> 15)) * multiplier & 0xFFFFFFFF
    return (state ^ (state >> 13)).float() / 2**32


def degrade(frames: Tensor, noise: Tensor, blurs: Tensor, steps: Tensor, seeds: Tensor) -> Tensor:
    """Frame 0, truth and frame 1, (N, 3, 3, H, W), as a worse recording shows them; a strength of 0 changes nothing."""
    touched = (noise > 0) | (blurs > 0) | (steps > 0)
    if not bool(touched.any()):
        return frames
    worse = quantise(blur(frames[touched], blurs[touched]), steps[touched])
    noisy = add_noise(worse, noise[touched], seeds[touched])
    result = frames.clone()
    result[touched] = torch.stack((noisy[:, 0], worse[:, 1], noisy[:, 2]), dim=1).clamp(0, 1)
    return result
