"""Synthetic motion with exact truth at any timestep: layers cut from real frames, moved smoothly.

A layer has a texture and a shape, both pictures, and a velocity field v in pixels per pair of frames. At time t it
shows, at pixel x, what lies at x + (t - 1/2) v(x) of its pictures. So every time between can be drawn exactly. The
shapes are those that interpolation finds hard: smooth blobs that cover and uncover each other, thin bars and lattices,
words. Some textures are repeated patterns.

The simplest case is one layer without shape under a constant velocity: a still picture seen through a moving window.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.forward import warp

SHAPES = 96  # in the atlas, a third each of words, bars and lattices
ATLAS_PX = 256
LAYERS = 2  # in front of the background
FLOW_ITERATIONS = 4
WORDS = ("subtitle", "The end", "24", "RIFE", "a quick fox", "EXIT", "Scene 7", "12:45", "news", "Hello!")


@dataclass(frozen=True, slots=True)
class Motion:
    """How far and how synthetic layers move. Pixels per pair of frames."""

    spread_px: float = 8.0  # standard deviation of a layer's shift
    reach: float = 1.0  # up to how many times as far the layers of a sample go
    bend_px: float = 2.0  # of smooth non-rigid motion
    turn: float = 0.05  # of rotation, growth and shear, pixels for each pixel from the centre
    layers: bool = True  # False: the moving window over a still picture


@dataclass(frozen=True, slots=True)
class Rendering:
    """Frame 0, the frame at the timestep, frame 1 and the flow of the visible layer."""

    frames: Tensor  # (N, 3, 3, H, W)
    flow: Tensor  # (N, 4, H, W), pixels from the frame between to frame 0 and to frame 1


def draw_atlas(seed: int) -> Tensor:
    """Shapes for layers, (SHAPES, 1, ATLAS_PX, ATLAS_PX) float32, 0..1, soft at the edges."""
    rng = np.random.default_rng(seed)
    kinds = (_draw_words, _draw_bars, _draw_lattice)
    shapes = [kinds[i % len(kinds)](rng) for i in range(SHAPES)]
    return torch.from_numpy(np.stack(shapes).astype(np.float32) / 255)[:, None]


def _blank() -> NDArray[np.uint8]:
    return np.zeros((ATLAS_PX, ATLAS_PX), np.uint8)


def _draw_words(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A few lines of text in several sizes."""
    image = _blank()
    for row in range(24, ATLAS_PX, int(rng.integers(28, 70))):
        word = WORDS[rng.integers(len(WORDS))]
        place = (int(rng.integers(0, 90)), row)
        scale, width = float(rng.uniform(0.5, 1.6)), int(rng.integers(1, 4))
        cv2.putText(image, word, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, width, cv2.LINE_AA)
    return image


def _draw_bars(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Thin straight lines, as wires, poles and branches are."""
    image = _blank()
    for _ in range(int(rng.integers(2, 9))):
        ends = rng.integers(-20, ATLAS_PX + 20, (2, 2))
        cv2.line(image, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 255, int(rng.integers(1, 6)), cv2.LINE_AA)
    return image


def _draw_lattice(rng: np.random.Generator) -> NDArray[np.uint8]:
    """A fence or a grid: the same line again and again."""
    image = _blank()
    step, width = int(rng.integers(8, 28)), int(rng.integers(1, 4))
    for at in range(0, ATLAS_PX, step):
        cv2.line(image, (at, 0), (at + int(rng.integers(0, 2)), ATLAS_PX), 255, width, cv2.LINE_AA)
        if step > 14:
            cv2.line(image, (0, at), (ATLAS_PX, at), 255, width, cv2.LINE_AA)
    return image


class Renderer:
    """Renders samples of synthetic motion on the training device.

    Args:
        device: Where the pictures are.
        seed: Of the shapes.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self.atlas = draw_atlas(seed).to(device)

    def render(self, textures: Tensor, timestep: Tensor, seeds: NDArray[np.int64], motion: Motion) -> Rendering:
        """Draw one sample for each pair of textures.

        Args:
            textures: (N, 2, 3, S, S) float32, 0..1: background, and what the layers in front are cut from.
            timestep: (N,), 0..1.
            seeds: (N,), decide shapes and velocities.
            motion: How far layers move.

        Returns:
            Crops of the size of the textures; beyond them their border counts.
        """
        count, size = len(textures), textures.shape[-1]
        numbers = [np.random.default_rng(int(seed)) for seed in seeds]
        times = torch.stack((torch.zeros_like(timestep), timestep, torch.ones_like(timestep)), dim=1)
        velocity = self._velocity(numbers, size, motion, 1.0)
        images = [move(textures[:, 0], velocity, times[:, k]) for k in range(3)]
        flow = trace(velocity, timestep)
        for layer in range(LAYERS if motion.layers else 0):
            texture, shape = self._cut(numbers, textures, layer)
            velocity = self._velocity(numbers, size, motion, 1.5)
            covers = [move(shape, velocity, times[:, k]) for k in range(3)]
            moved = [move(texture, velocity, times[:, k]) for k in range(3)]
            images = [torch.lerp(i, m, c) for i, m, c in zip(images, moved, covers, strict=True)]
            flow = torch.where(covers[1] > 0.5, trace(velocity, timestep), flow)
        assert len(images[0]) == count
        return Rendering(torch.stack(images, dim=1), flow)

    def _velocity(self, numbers: list[np.random.Generator], size: int, motion: Motion, gain: float) -> Tensor:
        """Velocities (N, 2, size, size) in pixels per pair: shift, a linear part and a smooth bend."""
        bends = motion.layers
        drawn = [
            (
                rng.normal(0, gain * motion.spread_px * motion.reach ** rng.random(), 2),
                rng.normal(0, motion.turn * bends, (2, 2)),
                rng.normal(0, motion.bend_px * bends, (2, 4, 4)) * (rng.random() < 0.5),
            )
            for rng in numbers
        ]
        shift, linear, bend = (
            torch.from_numpy(np.stack(part).astype(np.float32)).to(self.atlas.device)
            for part in zip(*drawn, strict=True)
        )
        ramp = torch.arange(size, device=shift.device, dtype=torch.float32) - (size - 1) / 2
        from_centre = torch.stack((ramp.expand(size, size), ramp[:, None].expand(size, size)))
        turned = torch.einsum("nij,jhw->nihw", linear, from_centre)
        smooth = F.interpolate(bend, size=(size, size), mode="bicubic", align_corners=True)
        return shift[:, :, None, None] + turned + smooth

    def _cut(self, numbers: list[np.random.Generator], textures: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Texture (N, 3, S, S) and shape (N, 1, S, S) of one layer for each sample."""
        size = textures.shape[-1]
        pictures, shapes = [], []
        for rng, texture in zip(numbers, textures[:, 1], strict=True):
            picture = texture.roll((int(rng.integers(size)), int(rng.integers(size))), (-2, -1)) if layer else texture
            kind, strength = rng.random(), float(rng.random())
            if kind < 0.15:
                picture = self._pattern(rng, size)
            elif kind < 0.3:
                picture = torch.lerp(picture, picture.new_tensor(rng.random((3, 1, 1))), strength)
            pictures.append(picture)
            blob = rng.random() < 0.5
            shapes.append(self._blob(rng, size) if blob else self._from_atlas(rng, size))
        return torch.stack(pictures), torch.stack(shapes)

    def _pattern(self, rng: np.random.Generator, size: int) -> Tensor:
        """Stripes or a chequerboard in two colours, (3, size, size)."""
        ramp = torch.arange(size, device=self.atlas.device, dtype=torch.float32)
        period, angle = rng.uniform(5, 24), rng.uniform(0, np.pi)
        along = ramp * np.cos(angle) + ramp[:, None] * np.sin(angle)
        across = ramp[:, None] * np.cos(angle) - ramp * np.sin(angle)
        wave = torch.sin(along * (2 * np.pi / period))
        if rng.random() < 0.5:
            wave = wave * torch.sin(across * (2 * np.pi / period))
        share = torch.sigmoid(4 * wave)
        first, second = (torch.from_numpy(rng.random((3, 1, 1)).astype(np.float32)).to(share.device) for _ in range(2))
        return torch.lerp(first.expand(3, size, size), second.expand(3, size, size), share)

    def _blob(self, rng: np.random.Generator, size: int) -> Tensor:
        """A smooth shape with soft edges, (1, size, size)."""
        cells = int(rng.integers(3, 8))
        field = torch.from_numpy(rng.normal(0, 1, (1, 1, cells, cells)).astype(np.float32)).to(self.atlas.device)
        smooth = F.interpolate(field, size=(size, size), mode="bicubic", align_corners=True)[0]
        return torch.sigmoid((smooth - float(rng.uniform(0.2, 0.8))) * (2.0 * size / cells))

    def _from_atlas(self, rng: np.random.Generator, size: int) -> Tensor:
        """A stored shape, tiled to the size and turned by a quarter or not, (1, size, size)."""
        shape = self.atlas[rng.integers(len(self.atlas))]
        if rng.random() < 0.5 and not rng.random() < 0.3:
            shape = shape.transpose(-2, -1)
        shape = shape.roll((int(rng.integers(ATLAS_PX)), int(rng.integers(ATLAS_PX))), (-2, -1))
        tiles = -(-size // ATLAS_PX)
        return shape.repeat(1, tiles, tiles)[:, :size, :size]


def _positions(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.arange(size, device=device, dtype=torch.float32)
    return x, x[:, None]


def move(picture: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
    """A layer's picture (N, C, S, S) at a time (N,) under its velocity (N, 2, S, S)."""
    x, y = _positions(picture.shape[-1], picture.device)
    offset = (time - 0.5).view(-1, 1, 1, 1) * velocity
    return warp(picture, x + offset[:, 0], y + offset[:, 1])


def trace(velocity: Tensor, timestep: Tensor) -> Tensor:
    """Where the content of each pixel at `timestep` is in frame 0 and in frame 1, as flow (N, 4, S, S) in pixels.

    The content at x and t lies in frame k at the place x' with x' + (k - 1/2) v(x') = x + (t - 1/2) v(x); found by
    fixed-point iteration, which converges since v changes by much less than a pixel for each pixel.
    """
    x, y = _positions(velocity.shape[-1], velocity.device)
    source = (timestep - 0.5).view(-1, 1, 1, 1) * velocity
    halves = []
    for share in (-0.5, 0.5):
        flow = source - share * velocity
        for _ in range(FLOW_ITERATIONS):
            flow = source - share * warp(velocity, x + flow[:, 0], y + flow[:, 1])
        halves.append(flow)
    return torch.cat(halves, dim=1)
