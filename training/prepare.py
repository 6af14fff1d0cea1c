"""From draws to a batch of tensors on the training device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.degrade import degrade
from training.pack import Pack
from training.samples import TEXTURE_MARGIN_PX, Batch, Draws, colour, gather, halve
from training.synthetic import Motion, Renderer, Rendering

ATLAS_SEED = 7


class Preparation:
    """Cuts, changes and renders samples.

    Args:
        pack: The clips, on the training device.
        device: Where the batch goes.
    """

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self.pixels, self.device = pack.pixels, device
        self.renderer = Renderer(device, ATLAS_SEED)

    def make(self, draws: Draws, motion: Motion) -> Batch:
        """The samples of a step; the flow of the synthetic ones is known.

        Args:
            draws: What was drawn for them.
            motion: How synthetic ones move.
        """
        frames = self.real(draws)
        flow = frames.new_zeros(len(frames), 4, *frames.shape[-2:])
        made = self._put(draws.synthetic)
        if draws.synthetic.any():
            rendering = self.synthetic(draws.where(draws.synthetic), motion)
            frames[made], flow[made] = rendering.frames, rendering.flow
        frames = degrade(frames, *(self._put(v) for v in (draws.noise, draws.blur, draws.quantiser, draws.seed)))
        trust = made.float().view(-1, 1, 1, 1).expand(-1, 2, *flow.shape[-2:])
        return Batch(frames[:, 0], frames[:, 1], frames[:, 2], self._put(draws.timestep), flow, trust)

    def synthetic(self, draws: Draws, motion: Motion) -> Rendering:
        """Layers cut from two real frames and moved; rendered with a margin, so that little comes from outside."""
        factor = draws.shape.factor
        size = (draws.shape.crop_px + 2 * TEXTURE_MARGIN_PX) * factor
        offset = TEXTURE_MARGIN_PX * factor
        places = ((draws.y, draws.x, draws.height, draws.width),
                  (draws.texture_y, draws.texture_x, draws.texture_height, draws.texture_width))  # fmt: skip
        pictures = []
        for first, (y, x, height, width) in zip((draws.first[:, 0], draws.texture), places, strict=True):
            geometry = self._put(np.stack((y - offset, x - offset, height, width)))
            pictures.append(
                gather(self.pixels, self._put(first)[:, None], geometry, size, self._put(draws.orientation))
            )
        textures = self._coloured(torch.cat(pictures, dim=1), draws)
        rendering = self.renderer.render(textures, self._put(draws.timestep), draws.seed, motion)
        inner = slice(TEXTURE_MARGIN_PX, -TEXTURE_MARGIN_PX)
        return Rendering(rendering.frames[..., inner, inner], rendering.flow[..., inner, inner])

    def real(self, draws: Draws) -> Tensor:
        """Frame 0, truth and frame 1 of real clips, (N, 3, 3, crop, crop)."""
        geometry = self._put(np.stack((draws.y, draws.x, draws.height, draws.width)))
        first, orientation = self._put(draws.first), self._put(draws.orientation)
        frames = gather(self.pixels, first, geometry, draws.shape.crop_px * draws.shape.factor, orientation)
        return self._coloured(frames, draws)

    def _coloured(self, frames: Tensor, draws: Draws) -> Tensor:
        frames = colour(frames, self._put(draws.channels), self._put(draws.gain), self._put(draws.gamma))
        return halve(frames) if draws.shape.factor == 2 else frames

    def _put(self, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device, non_blocking=True)
