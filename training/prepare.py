"""From draws to a batch of tensors on the training device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.degrade import degrade
from training.pack import Pack
from training.samples import Batch, Draws, Mix, colour, gather, halve


class Preparation:
    """Cuts, changes and renders samples.

    Args:
        pack: The clips, on the training device.
        mix: Sizes and shares.
        device: Where the batch goes.
    """

    def __init__(self, pack: Pack, mix: Mix, device: torch.device) -> None:
        self.pixels, self.mix, self.device = pack.pixels, mix, device

    def make(self, draws: Draws, factor: int) -> Batch:
        """The samples of a step, cut `factor` times as large and reduced."""
        frames = self.real(draws, factor)
        frames = degrade(frames, *(self._put(v) for v in (draws.noise, draws.blur, draws.quantiser, draws.seed)))
        flow = frames.new_zeros(len(frames), 4, *frames.shape[-2:])
        known = frames.new_zeros(len(frames))
        return Batch(frames[:, 0], frames[:, 1], frames[:, 2], self._put(draws.timestep), flow, known)

    def real(self, draws: Draws, factor: int) -> Tensor:
        """Frame 0, truth and frame 1 of real clips, (N, 3, 3, crop, crop)."""
        geometry = self._put(np.stack((draws.y, draws.x, draws.height, draws.width)))
        first, orientation = self._put(draws.first), self._put(draws.orientation)
        frames = gather(self.pixels, first, geometry, self.mix.crop_px * factor, orientation)
        frames = colour(frames, self._put(draws.channels), self._put(draws.gain), self._put(draws.gamma))
        return halve(frames) if factor == 2 else frames

    def _put(self, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)
