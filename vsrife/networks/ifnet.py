"""The published forward of every RIFE 4.x version, as one module that a layout describes.

This is the network as its authors run it: every intermediate at full resolution, straightforward and slow. It is the
reference that the lazy forward (`pyramid`) is tested against, and what training differentiates. Parameters keep the
names of the published checkpoints.

Source: IFNet_HDv3 of the 4.x releases (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022; Practical-RIFE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsrife.networks.catalogue import BODY_LAYERS, FLOW_CHANNELS, IMAGE_CHANNELS, Head, Layout
from vsrife.ops.protocol import LEAKY_SLOPE
from vsrife.ops.reference import resize, warp

LARGE_MOTION_PX = 32  # 4.0 and 4.1 try again at doubled scales when both halves of block 1's flow exceed this


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)


class Encoder(nn.Module):
    """The head: one frame to feature channels at full resolution.

    The layers are registered under the names of the checkpoint, so that weights load by name.
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head
        inputs = IMAGE_CHANNELS
        for i, name in enumerate(head.names[:-1]):
            self.add_module(name, nn.Conv2d(inputs, head.hidden, 3, stride=2 if i == 0 else 1, padding=1))
            inputs = head.hidden
        self.add_module(head.names[-1], nn.ConvTranspose2d(inputs, head.channels, 4, stride=2, padding=1))

    def forward(self, frame: Tensor) -> Tensor:
        """(N, 3, H, W), nominally 0..1, to (N, channels, H, W)."""
        x = frame.clamp(0, 1) if self.head.clamps else frame
        *convs, last = self.head.names
        for name in convs:
            x = self.get_submodule(name)(x)
            if self.head.activated:
                x = leaky(x)
        out: Tensor = self.get_submodule(last)(x)
        return out


class ResidualConv(nn.Module):
    """`LeakyReLU(conv(x) * beta + x)`."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return leaky(self.conv(x) * self.beta + x)


class IFBlock(nn.Module):
    """One step of the pyramid: a reduced stack of frames in, flow, mask and carried features out."""

    def __init__(self, layout: Layout, index: int) -> None:
        super().__init__()
        width = layout.widths[index]
        self.layout = layout

        def activation(channels: int) -> nn.Module:
            return nn.PReLU(channels) if layout.body == "prelu" else nn.LeakyReLU(LEAKY_SLOPE)

        def strided(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), activation(outputs))

        def body() -> nn.Module:
            if layout.body == "residual":
                return ResidualConv(width, layout.groups)
            return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), activation(width))

        self.conv0 = nn.Sequential(strided(layout.block_inputs(index), width // 2), strided(width // 2, width))
        self.convblock = nn.Sequential(*(body() for _ in range(BODY_LAYERS)))
        self.lastconv: nn.Module
        if layout.shuffles:
            transposed = nn.ConvTranspose2d(width, 4 * layout.outputs, 4, stride=2, padding=1)
            self.lastconv = nn.Sequential(transposed, nn.PixelShuffle(2))
        else:
            self.lastconv = nn.ConvTranspose2d(width, layout.outputs, 4, stride=2, padding=1)

    def forward(self, stack: Tensor, flow: Tensor | None, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the block at 1/scale of the frame.

        Args:
            stack: (N, C, H, W), everything but the flow, at full resolution.
            flow: (N, 4, H, W) in pixels, or None for the first block.
            scale: frame side over the side that the block works at.

        Returns:
            Flow (N, 4, H, W) in pixels, mask logit (N, 1, H, W), carried features (N, C, H, W), C possibly 0.
        """
        height, width = stack.shape[-2:]
        small = (int(height / scale), int(width / scale))
        x = resize(stack, *small)
        if flow is not None:
            x = torch.cat((x, resize(flow, *small) / scale), dim=1)
        x = self.conv0(x)
        y = self.convblock(x)
        out = self.lastconv(y + x if self.layout.body == "prelu" else y)
        gain = scale if self.layout.shuffles else 2 * scale
        out = resize(out, height, width)
        used = FLOW_CHANNELS + 1 + self.layout.carried_channels
        return out[:, :FLOW_CHANNELS] * gain, out[:, FLOW_CHANNELS : FLOW_CHANNELS + 1], out[:, 5:used]


@dataclass(frozen=True, slots=True)
class Interpolation:
    """What the network found for one pair and timestep, at the padded size."""

    image: Tensor  # (N, 3, H, W), 0..1
    flows: tuple[Tensor, ...]  # per block (N, 4, H, W): accumulated flow in pixels, x before y, frame 0 before frame 1
    masks: tuple[Tensor, ...]  # per block (N, 1, H, W): logit, large where frame 0 is taken


def swap(flow: Tensor) -> Tensor:
    """Exchange the two halves of a flow of (N, 4, H, W)."""
    return torch.cat((flow[:, 2:], flow[:, :2]), dim=1)


def warp_by_flow(image: Tensor, flow: Tensor) -> Tensor:
    """Backward warp of (N, C, H, W) by a displacement of (N, 2, H, W) in pixels, x before y."""
    height, width = image.shape[-2:]
    x = torch.arange(width, device=flow.device, dtype=flow.dtype)
    y = torch.arange(height, device=flow.device, dtype=flow.dtype)[:, None]
    return warp(image, x + flow[:, 0], y + flow[:, 1])


class IFNet(nn.Module):
    """The network of one layout.

    Args:
        layout: the row of the catalogue that describes it.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        if layout.head:
            self.encode = Encoder(layout.head)
        for i in range(layout.blocks):
            self.add_module(f"block{i}", IFBlock(layout, i))

    def forward(
        self,
        frame0: Tensor,
        frame1: Tensor,
        timestep: float | Tensor = 0.5,
        *,
        scale: float = 1.0,
        ensemble: bool = False,
    ) -> Interpolation:
        """Interpolate between two frames of any size.

        Args:
            frame0: (N, 3, H, W), nominally 0..1.
            frame1: the next frame, same shape.
            timestep: 0..1, 0 is the time of `frame0`; or a time for every pixel, (N, 1, H, W), whose border is repeated
                into the padding.
            scale: flow scale, 0.25, 0.5, 1, 2 or 4; below 1 looks for larger motion.
            ensemble: average with the pass in the other time direction; layouts with carried features reject it.

        Returns:
            The interpolation at the size of the frames (the padding is cropped).

        Raises:
            ValueError: `ensemble` on a layout that does not support it.
        """
        if ensemble and not self.layout.ensemble:
            raise ValueError(f"layout {self.layout.id} cannot run as an ensemble")
        height, width = frame0.shape[-2:]
        padded_width, padded_height = self.layout.padded(width, height, scale)
        pad = (0, padded_width - width, 0, padded_height - height)
        if isinstance(timestep, Tensor):
            timestep = F.pad(timestep, pad, mode="replicate")
        result = self._forward(F.pad(frame0, pad), F.pad(frame1, pad), timestep, scale, ensemble)

        def crop(maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(m[..., :height, :width] for m in maps)

        image = result.image[..., :height, :width]
        return Interpolation(image, crop(result.flows), crop(result.masks))

    def _forward(
        self, frame0: Tensor, frame1: Tensor, timestep: float | Tensor, scale: float, ensemble: bool
    ) -> Interpolation:
        head0, head1 = (self.encode(f) for f in (frame0, frame1)) if self.layout.head else (frame0[:, :0],) * 2
        frame0, frame1 = frame0.clamp(0, 1), frame1.clamp(0, 1)
        time = timestep if isinstance(timestep, Tensor) else torch.full_like(frame0[:, :1], timestep)
        scales = list(self.layout.scale_list(scale))
        may_rescale = self.layout.rescales

        flow, mask, carried = self._block(0, (frame0, frame1, head0, head1), time, None, None, scales[0], ensemble)
        flows, masks = [flow], [mask]
        index = 1
        while index < self.layout.blocks:
            warped = tuple(
                warp_by_flow(x, f)
                for x, f in ((frame0, flow[:, :2]), (frame1, flow[:, 2:]), (head0, flow[:, :2]), (head1, flow[:, 2:]))
            )
            before = (flow, mask)
            delta, new_mask, carried = self._block(index, warped, time, (mask, carried), flow, scales[index], ensemble)
            if may_rescale and index == 1 and self._moves_far(warped, time, before, scales[index]):
                # Second try of 4.0 and 4.1: everything from block 0 on once more, coarser, once per pair.
                may_rescale = False
                scales = [2 * s for s in scales]
                pair = (frame0, frame1, head0, head1)
                flow, mask, carried = self._block(0, pair, time, None, None, scales[0], False)
                flows, masks = [flow], [mask]
                continue
            flow = flow + delta
            mask = mask + new_mask if self.layout.mask_accumulates else new_mask
            flows.append(flow)
            masks.append(mask)
            index += 1
        return Interpolation(self._blend(frame0, frame1, flow, mask), tuple(flows), tuple(masks))

    def _block(
        self,
        index: int,
        pair: tuple[Tensor, ...],
        time: Tensor,
        previous: tuple[Tensor, Tensor] | None,
        flow: Tensor | None,
        scale: float,
        ensemble: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One block on (frame 0, frame 1, head 0, head 1), all warped after the first block."""
        block = self.get_submodule(f"block{index}")
        out: tuple[Tensor, Tensor, Tensor] = block(torch.cat((*pair, time, *(previous or ())), dim=1), flow, scale)
        if not ensemble:
            return out
        frame0, frame1, head0, head1 = pair
        mask = () if previous is None else (-previous[0],)
        stack = torch.cat((frame1, frame0, head1, head0, 1 - time, *mask), dim=1)
        flow2, mask2, _ = block(stack, None if flow is None else swap(flow), scale)
        return (out[0] + swap(flow2)) / 2, (out[1] - mask2) / 2, out[2]

    def _moves_far(self, warped: tuple[Tensor, ...], time: Tensor, before: tuple[Tensor, Tensor], scale: float) -> bool:
        """Whether block 1, run in one direction, finds motion beyond `LARGE_MOTION_PX` towards both frames."""
        flow, mask = before
        delta = self._block(1, warped, time, (mask, mask[:, :0]), flow, scale, False)[0].abs()
        return bool(delta[:, :2].max() > LARGE_MOTION_PX and delta[:, 2:].max() > LARGE_MOTION_PX)

    @staticmethod
    def _blend(frame0: Tensor, frame1: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
        weight0 = torch.sigmoid(mask)
        return warp_by_flow(frame0, flow[:, :2]) * weight0 + warp_by_flow(frame1, flow[:, 2:]) * (1 - weight0)
