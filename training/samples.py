"""Which pixels make a sample, and how they are changed: drawn on the CPU, carried out on the training device.

Everything random comes from one generator for each step, drawn for the whole batch of all ranks; a rank keeps its part.
So a run is repeatable, can go on after a kill at any step, and does not depend on the number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.pack import CELL_PX, STILL_DIFFERENCE, ClipEntry, Pack, find_cuts
from vsrife.errors import ClipError

STRIDE_SHARES = (0.6, 0.22, 0.11, 0.07)  # of strides 1 to 4
HALFWAY_SHARE = 0.6  # of samples at timestep 1/2; the others lie anywhere between their frames
CANDIDATES = 4  # places looked at before a crop is cut where the most moves
MOVING_SHARE = 0.4  # of crops taken at the liveliest of them; the others are cut blindly
REDUCED_SHARE = 0.25  # of steps whose crops are cut twice as large and halved: sharper pictures, smaller motion
WIDE_CROPS = 4  # ordinary crops that take as long as one of twice the side
TEXTURE_MARGIN_PX = 32  # around a crop that becomes a layer of synthetic motion
PERMUTATIONS = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mix:
    """What a run draws its samples from."""

    crop_px: int
    batch: int  # samples of a step, over all ranks
    synthetic_share: float = 0.25
    still_share: float = 0.08  # of samples in which nothing moves, so that the network learns to leave that alone
    strides: tuple[float, ...] = STRIDE_SHARES  # of strides 1, 2, ... between the frames of a sample
    wide_share: float = 0.0  # of steps with crops of twice the side, and fewer of them
    reduced_share: float = REDUCED_SHARE
    degraded_share: float = 0.3  # of samples that get noise, blur or compression
    halfway_share: float = HALFWAY_SHARE


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the samples of one step."""

    batch: int  # over all ranks
    crop_px: int
    factor: int  # crops are cut this many times as large and reduced


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What was drawn for each sample of a step, N of them. Positions in pixels."""

    shape: Shape
    first: Ints  # (N, 3): first pixel of frame 0, the frame between, frame 1
    timestep: Floats  # (N,)
    y: Ints  # of the crop's upper left corner
    x: Ints
    height: Ints  # of the clip's frames
    width: Ints
    texture: Ints  # (N,): first pixel of another frame, whose parts become layers
    texture_height: Ints
    texture_width: Ints
    texture_y: Ints
    texture_x: Ints
    orientation: Ints  # 0..7: bit 0 mirrors x, bit 1 mirrors y, bit 2 exchanges the axes
    channels: Ints  # (N, 3), order of the colour channels
    gain: Floats
    gamma: Floats
    synthetic: NDArray[np.bool_]
    noise: Floats  # standard deviation, 0..1 scale; 0 for most samples
    blur: Floats  # standard deviation in pixels
    quantiser: Floats  # step of the cosine coefficients, 0..1 scale
    seed: Ints  # for noise and synthetic motion

    def part(self, rank: int, ranks: int) -> Draws:
        """The share of one of `ranks` equal processes, a contiguous piece."""
        size = len(self.timestep) // ranks
        return self._picked(slice(rank * size, (rank + 1) * size))

    def where(self, chosen: NDArray[np.bool_]) -> Draws:
        """The samples that are chosen, (N,) bool."""
        return self._picked(chosen)

    def _picked(self, which: slice | NDArray[np.bool_]) -> Draws:
        arrays = {f.name: getattr(self, f.name)[which] for f in fields(self) if f.name != "shape"}
        return Draws(shape=self.shape, **arrays)


@dataclass(frozen=True, slots=True, eq=False)
class FrameTable:
    """All frames that a sample may start at, over all clips."""

    clip: Ints  # index of the clip
    first: Ints  # first pixel of the frame
    reach: Ints  # frames that follow before a cut or the clip's end
    height: Ints
    width: Ints
    motion: tuple[Map, ...]  # for each clip (frames - 1, rows, columns), mean absolute difference to the next frame
    number: Ints  # of the frame in its clip
    weight: NDArray[np.float64]  # chance of each, sums to 1


def list_frames(pack: Pack) -> FrameTable:
    """Find the frames to start at: two more follow without a cut, and all three differ.

    Raises:
        ClipError: there is none in the whole pack.
    """
    rows: list[tuple[int, int, int, int, int, int]] = []
    weights: list[float] = []
    for number, entry in enumerate(pack.entries):
        usable = _usable_frames(entry)
        share = len(usable) ** -0.5 if usable else 0.0  # long clips count more, but not in proportion
        for frame, reach in usable:
            first = entry.first_pixel + frame * entry.height * entry.width
            rows.append((number, first, reach, entry.height, entry.width, frame))
            weights.append(share)
    if not rows:
        names = ", ".join(entry.name for entry in pack.entries[:4])
        raise ClipError(f"nothing moves in the clips, got {names}; give clips with two moving frames between cuts")
    clip, first_pixel, reach_, height, width, frames = np.array(rows, np.int64).T
    chance = np.array(weights) / np.sum(weights)
    return FrameTable(clip, first_pixel, reach_, height, width, _motion_maps(pack), frames, chance)


def _usable_frames(entry: ClipEntry) -> list[tuple[int, int]]:
    """(frame, frames that follow it before a cut, a repeated frame or the end) of a clip."""
    differences = np.array(entry.differences)
    stops = [*np.flatnonzero(find_cuts(differences) | (differences < STILL_DIFFERENCE)), entry.frames - 1]
    reaches = ((frame, int(next(stop for stop in stops if stop >= frame)) - frame) for frame in range(entry.frames))
    return [(frame, reach) for frame, reach in reaches if reach >= 2]


def _motion_maps(pack: Pack) -> tuple[Map, ...]:
    return tuple(
        np.array(e.motion, np.float32).reshape(e.frames - 1, e.height // CELL_PX, e.width // CELL_PX)
        for e in pack.entries
    )


class Sampler:
    """Draws the samples of any step.

    Args:
        pack: Where they come from.
        mix: Sizes and shares.
        seed: Runs with the same seed, pack and mix see the same samples.
    """

    def __init__(self, pack: Pack, mix: Mix, seed: int) -> None:
        self.table, self.mix, self.seed = list_frames(pack), mix, seed

    def shape(self, step: int) -> Shape:
        """Sizes of a step's samples, the same for all ranks."""
        reduced, wide = np.random.default_rng((self.seed, step, 1)).random(2)
        mix = self.mix
        if wide < mix.wide_share:
            return Shape(mix.batch // WIDE_CROPS, 2 * mix.crop_px, 1)
        return Shape(mix.batch, mix.crop_px, 2 if reduced < mix.reduced_share else 1)

    def draw(self, step: int) -> Draws:
        """The samples of a step, for all ranks."""
        rng = np.random.default_rng((self.seed, step))
        table, shape = self.table, self.shape(step)
        size = shape.batch
        at = rng.choice(len(table.weight), size=size, p=table.weight)
        other = rng.choice(len(table.weight), size=size, p=table.weight)
        first, timestep = self._choose_frames(rng, at)
        synthetic = rng.random(size) < self.mix.synthetic_share
        anywhere = synthetic & (rng.random(size) > self.mix.halfway_share)
        timestep = np.where(anywhere, rng.random(size), timestep).astype(np.float32)
        extent = shape.crop_px * shape.factor
        y, x = self._choose_places(rng, at, extent)
        texture_y, texture_x = (
            (rng.random(size) * np.maximum(side - extent + 1, 1)).astype(np.int64)
            for side in (table.height[other], table.width[other])
        )
        colour = rng.random((5, size)).astype(np.float32)
        degraded = rng.random(size) < self.mix.degraded_share
        zero = np.zeros(size, np.float32)
        return Draws(
            shape, first, timestep, y, x, table.height[at], table.width[at],
            table.first[other], table.height[other], table.width[other], texture_y, texture_x,
            orientation=rng.integers(0, 8, size),
            channels=PERMUTATIONS[rng.integers(0, 6, size)],
            gain=0.85 + 0.3 * colour[0],
            gamma=0.85 + 0.3 * colour[1],
            synthetic=synthetic,
            noise=np.where(degraded, 0.015 * colour[2] ** 2, zero),
            blur=np.where(degraded, np.maximum(0, 2.0 * colour[3] - 1), zero),
            quantiser=np.where(degraded, 0.06 * colour[4] ** 2, zero),
            seed=rng.integers(0, 2**31, size),
        )  # fmt: skip

    def _choose_frames(self, rng: np.random.Generator, at: Ints) -> tuple[Ints, Floats]:
        """First pixels (N, 3) of the frames of samples that start at `at`, and the timestep between them."""
        table, size = self.table, len(at)
        stride = 1 + rng.choice(len(self.mix.strides), size=size, p=self.mix.strides)
        halfway = rng.random(size) < self.mix.halfway_share
        span = np.where(halfway, 2 * stride, rng.integers(3, 2 * stride + 2))
        span = np.minimum(span, table.reach[at])
        span -= np.where(halfway, span % 2, 0)
        between = np.where(halfway, span // 2, 1 + rng.integers(0, np.maximum(span - 1, 1)))
        span_shown = np.where(rng.random(size) < self.mix.still_share, 0, span)
        swap = rng.random(size) < 0.5
        area = table.height[at] * table.width[at]
        begin, end = np.where(swap, span_shown, 0), np.where(swap, 0, span_shown)
        middle = np.minimum(between, span_shown)
        first = table.first[at][:, None] + area[:, None] * np.stack((begin, middle, end), axis=1)
        timestep = np.where(swap, span - between, between) / span
        return first, timestep.astype(np.float32)

    def _choose_places(self, rng: np.random.Generator, at: Ints, extent: int) -> tuple[Ints, Ints]:
        """Upper left corners of the crops, mostly where something moves."""
        table, size = self.table, len(at)
        room = (np.maximum(side[at] - extent + 1, 1) for side in (table.height, table.width))
        ys, xs = ((rng.random((size, CANDIDATES)) * r[:, None]).astype(np.int64) for r in room)
        best = np.zeros(size, np.int64)
        for i in np.flatnonzero(rng.random(size) < MOVING_SHARE):
            cells = table.motion[table.clip[at[i]]][table.number[at[i]]]
            rows = np.minimum((ys[i] + extent // 2) // CELL_PX, cells.shape[0] - 1)
            columns = np.minimum((xs[i] + extent // 2) // CELL_PX, cells.shape[1] - 1)
            best[i] = int(cells[rows, columns].argmax())
        pick = np.arange(size)
        return ys[pick, best], xs[pick, best]


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples on the training device."""

    frame0: Tensor  # (N, 3, H, W), float32, 0..1
    truth: Tensor  # the frame at `timestep`
    frame1: Tensor
    timestep: Tensor  # (N,)
    flow: Tensor  # (N, 4, H, W), pixels from the truth to frame 0 and to frame 1, x before y
    trust: Tensor  # (N, 2, H, W), how much the flow to frame 0 and to frame 1 counts; 0 where it is not known
    picture: Tensor | None = None  # (N, 3, H, W), what a teacher makes of the sample

    def mirrored(self) -> Batch:
        """Return the samples with left and right exchanged, played backwards."""
        sign = self.flow.new_tensor((-1, 1, -1, 1)).view(1, 4, 1, 1)
        return Batch(
            frame0=self.frame1.flip(-1),
            truth=self.truth.flip(-1),
            frame1=self.frame0.flip(-1),
            timestep=1 - self.timestep,
            flow=(self.flow.roll(2, dims=1) * sign).flip(-1),
            trust=self.trust.flip(1, -1),
            picture=None if self.picture is None else self.picture.flip(-1),
        )


def gather(pixels: Tensor, first: Tensor, geometry: Tensor, size: int, orientation: Tensor) -> Tensor:
    """Cut square crops out of a pack.

    Args:
        pixels: (P, 3) uint8.
        first: (N, K), first pixel of each frame.
        geometry: (4, N), y, x of the crop's corner (it may lie outside), height and width of the frames.
        size: side of the crops.
        orientation: (N,), 0..7, see `Draws`.

    Returns:
        (N, K, 3, size, size) uint8; outside the frame its border counts.
    """
    y, x, height, width = geometry[:, :, None, None]
    turn = orientation[:, None, None]
    ramp = torch.arange(size, device=pixels.device)
    down, right = ramp[:, None].expand(size, size)[None], ramp[None].expand(size, size)[None]
    exchanged = (turn & 4) > 0
    rows, columns = torch.where(exchanged, right, down), torch.where(exchanged, down, right)
    rows = torch.where((turn & 2) > 0, size - 1 - rows, rows)
    columns = torch.where((turn & 1) > 0, size - 1 - columns, columns)
    rows = torch.minimum((rows + y).clamp_min(0), height - 1)
    columns = torch.minimum((columns + x).clamp_min(0), width - 1)
    index = first[:, :, None, None] + (rows * width + columns)[:, None]
    return pixels.index_select(0, index.flatten()).view(*index.shape, 3).permute(0, 1, 4, 2, 3)


def colour(frames: Tensor, channels: Tensor, gain: Tensor, gamma: Tensor) -> Tensor:
    """Exchange channels, then gain and gamma: (N, K, 3, H, W) uint8 to float32 0..1."""
    order = channels[:, None, :, None, None].expand(-1, frames.shape[1], -1, *frames.shape[-2:])
    values = frames.gather(2, order).float() / 255
    shape = (-1, 1, 1, 1, 1)
    return ((values * gain.view(shape)).clamp(1e-4, 1)) ** gamma.view(shape)


def halve(frames: Tensor) -> Tensor:
    """(N, K, 3, 2H, 2W) to half the size, each pixel the mean of four."""
    small = F.avg_pool2d(frames.flatten(0, 1), 2)
    return small.view(*frames.shape[:2], *small.shape[1:])
