"""The published forward of the models before 4.x, as one module that a row of the catalogue describes.

Nine generations: HD v1 to v3, the paper's models, and what lies between them and 4.x. Parameters keep the names of the
published checkpoints; those of the separate files contextnet.pkl and unet.pkl have `contextnet.` and `unet.` before
them. Convolutions run in the dtype of their weights, everything else in that of the frames.

Source: the releases of RIFE before 4.0 (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022, and its earlier arXiv versions; Practical-RIFE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vsrife.networks.cancellation import Cancellation, never
from vsrife.networks.catalogue import BODY_LAYERS, FLOW_CHANNELS, IMAGE_CHANNELS, LegacyLayout, Refiner, Shape
from vsrife.networks.ifnet import swap, warp_by_flow
from vsrife.ops.dispatch import choose
from vsrife.ops.protocol import Ops
from vsrife.ops.reference import resize

COUNTER = ".num_batches_tracked"  # of batch normalisation: only training counts
_ATTENTION_CHANNELS = 16
_RESIDUAL_BLOCKS = 6  # in a flow block of "attention"
_CHAIN = {"half": 6, "full": BODY_LAYERS}  # inner convolutions of a block without pairs
_LEVELS = 4

Levels = tuple[Tensor, ...]


def resized(image: Tensor, factor: float) -> Tensor:
    """(N, C, H, W) at `factor` times the size."""
    height, width = image.shape[-2:]
    return resize(image, round(height * factor), round(width * factor))


# --- layers -----------------------------------------------------------------------------------------------------------


def conv_prelu(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2), nn.PReLU(outputs)
    )  # fmt: skip


def deconv_prelu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_deconv(inputs, outputs), nn.PReLU(outputs))


def _deconv(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)


def _normalised(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class DoubleConv(nn.Module):
    """Two convolutions, the first with a stride."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv_prelu(inputs, outputs, stride)
        self.conv2 = conv_prelu(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return y


class AttentionBlock(nn.Module):
    """Two convolutions with a skip, whose channels are weighted by the mean of the whole map.

    Here and below layers are registered in the order of their evaluation: `ncnn` relies on it.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3, *, normalised: bool = False
    ) -> None:
        super().__init__()
        changes = stride != 1 or inputs != outputs
        self.conv0 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False) if changes else nn.Identity()
        if normalised:
            self.conv1 = nn.Sequential(*_normalised(inputs, outputs, kernel, stride), nn.PReLU(outputs))
            self.conv2 = nn.Sequential(*_normalised(outputs, outputs, 3))
        else:
            self.conv1 = conv_prelu(inputs, outputs, stride, kernel)
            self.conv2 = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1))
        self.fc1 = nn.Conv2d(outputs, _ATTENTION_CHANNELS, 1, bias=False)
        self.relu1 = nn.PReLU(1)
        self.fc2 = nn.Conv2d(_ATTENTION_CHANNELS, outputs, 1, bias=False)
        self.relu2 = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.conv1(x))
        mean = y.mean((2, 3), keepdim=True)
        weight = torch.sigmoid(self.fc2(self.relu1(self.fc1(mean))))
        out: Tensor = self.relu2(y * weight + self.conv0(x))
        return out


# --- flow -------------------------------------------------------------------------------------------------------------


class FlowBlock(nn.Module):
    """One step from coarse to fine: its convolutions. The flow networks below handle sizes and units."""

    def __init__(self, layout: LegacyLayout, inputs: int, width: int) -> None:
        super().__init__()
        self.layout = layout
        if layout.family == "attention":
            self.conv0 = nn.Sequential(*_normalised(inputs, width, layout.kernel, 2), nn.PReLU(width))
            for i in range(_RESIDUAL_BLOCKS):
                self.add_module(f"res{i}", AttentionBlock(width, width, kernel=layout.kernel, normalised=True))
            self.conv1: nn.Module = nn.Conv2d(width, 8, 3, padding=1)
            return
        first = 1 if layout.doubled else 2
        self.conv0 = nn.Sequential(conv_prelu(inputs, width // 2, first), conv_prelu(width // 2, width, 2))
        if layout.pairs:
            for i in range(layout.pairs):
                self.add_module(f"convblock{i}", nn.Sequential(conv_prelu(width, width), conv_prelu(width, width)))
        else:
            self.convblock = nn.Sequential(*(conv_prelu(width, width) for _ in range(_CHAIN[layout.family])))
        if layout.family == "full":
            self.lastconv = _deconv(width, FLOW_CHANNELS + 1)
        elif layout.family == "half":
            self.conv1 = _deconv(width, FLOW_CHANNELS)
        else:
            self.conv1 = nn.Sequential(*deconv_prelu(width, width // 2), _deconv(width // 2, FLOW_CHANNELS))
            self.conv2 = nn.Sequential(*deconv_prelu(width, width // 2), _deconv(width // 2, 1))

    def forward(self, stack: Tensor) -> Tensor:
        """The block's maps: flow, then the mask where the block yields one."""
        x = self.conv0(stack.to(next(self.parameters()).dtype))
        for module in self._body():
            x = module(x) + x if self.layout.pairs or self.layout.family == "full" else module(x)
        return self._last(x).to(stack.dtype)

    def _body(self) -> Iterable[nn.Module]:
        if self.layout.family == "attention":
            return [self.get_submodule(f"res{i}") for i in range(_RESIDUAL_BLOCKS)]
        if self.layout.pairs:
            return [self.get_submodule(f"convblock{i}") for i in range(self.layout.pairs)]
        return [self.convblock]

    def _last(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.layout.family == "attention":
            y = F.pixel_shuffle(self.conv1(x), 2)
        elif self.layout.family == "full":
            y = self.lastconv(x)
        elif self.layout.family == "half":
            y = self.conv1(x)
        else:
            y = torch.cat((self.conv1(x), self.conv2(x)), dim=1)
        return y


_LATER_INPUTS = {"attention": 8, "half": 10, "mirrored": 11, "full": 17}  # of blocks after the first, without time


def _block_inputs(layout: LegacyLayout, index: int) -> int:
    first = 11 if layout.family == "mirrored" else 2 * IMAGE_CHANNELS
    return (first if index == 0 else _LATER_INPUTS[layout.family]) + layout.takes_time


# --- context and refinement -------------------------------------------------------------------------------------------


class Context(nn.Module):
    """Features of one frame at four sizes, each half the one before."""

    def __init__(self, refiner: Refiner, first_stride: int) -> None:
        super().__init__()
        width = refiner.width
        if refiner.stem:
            self.conv0 = _stem(refiner, IMAGE_CHANNELS)
        layer = _layer(refiner)
        self.conv1 = layer(width if refiner.stem else IMAGE_CHANNELS, width, first_stride)
        for i in range(1, _LEVELS):
            self.add_module(f"conv{i + 1}", layer(width << (i - 1), width << i, 2))
        self.stem = refiner.stem

    def forward(self, frame: Tensor) -> Levels:
        """The levels of (1, 3, H, W), not warped, fine to coarse, in the dtype of the weights."""
        x = frame.to(next(self.parameters()).dtype)
        x = self.conv0(x) if self.stem else x
        levels = []
        for i in range(_LEVELS):
            x = self.get_submodule(f"conv{i + 1}")(x)
            levels.append(x)
        return tuple(levels)


class Refinement(nn.Module):
    """The U-net that corrects the blend."""

    def __init__(self, refiner: Refiner, inputs: int, *, doubled: bool) -> None:
        super().__init__()
        c = refiner.width
        self.refiner = refiner
        if refiner.stem:
            self.conv0 = _stem(refiner, inputs)
        layer = _layer(refiner)
        self.down0 = layer(c if refiner.stem else inputs, 2 * c, 1 if doubled else 2)
        for i in range(1, _LEVELS):
            self.add_module(f"down{i}", layer(2 * c << i, 2 * c << i, 2))
        for i in range(_LEVELS):
            self.add_module(f"up{i}", deconv_prelu(32 * c >> i, 8 * c >> i))
        outputs = IMAGE_CHANNELS + refiner.masks
        self.conv: nn.Module
        if refiner.stem and not refiner.attention:
            self.conv = _deconv(c, outputs)
        else:
            outputs *= 4 if refiner.stem else 1
            self.conv = nn.Conv2d(c, outputs, 3, stride=2 if doubled else 1, padding=1)

    def forward(self, stack: Tensor, levels0: Levels, levels1: Levels) -> Tensor:
        """Logits at the size of the stack, from it and the warped levels of both frames."""
        x = stack.to(self.conv.weight.dtype)  # type: ignore[arg-type]
        x = self.conv0(x) if self.refiner.stem else x
        passed = []
        for i, pair in enumerate(zip(levels0, levels1, strict=True)):
            x = self.get_submodule(f"down{i}")(x)
            passed.append(x)
            x = torch.cat((x, *pair), dim=1)
        for i in range(_LEVELS):
            x = x if i == 0 else torch.cat((x, passed[-1 - i]), dim=1)
            x = self.get_submodule(f"up{i}")(x)
        out: Tensor = self.conv(x)
        out = F.pixel_shuffle(out, 2) if self.refiner.stem and self.refiner.attention else out
        return out.to(stack.dtype)


def _layer(refiner: Refiner) -> Callable[[int, int, int], nn.Module]:
    return AttentionBlock if refiner.attention else DoubleConv


def _stem(refiner: Refiner, inputs: int) -> nn.Module:
    return conv_prelu(inputs, refiner.width, 2) if refiner.attention else DoubleConv(inputs, refiner.width, 2)


def warped_levels(levels: Levels, flow: Tensor) -> Levels:
    """Warp every level by a flow (1, 2, h, w) in pixels of that size, which is at most twice the first level's."""
    result = []
    for level in levels:
        if flow.shape[-2:] != level.shape[-2:]:
            flow = resized(flow, 0.5) * 0.5
        result.append(warp_by_flow(level.to(flow.dtype), flow).to(level.dtype))
    return tuple(result)


# --- the network ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one frame, independent of the frame that it is paired with.

    Attributes:
        image: (1, 3, H, W) RGB at the padded size, nominally 0..1, not clamped: these models read it as it is.
        levels: of the context network; none without a refinement.
    """

    image: Tensor
    levels: Levels


@dataclass(frozen=True, slots=True)
class Estimate:
    """The result for one pair and timestep, at the padded size.

    Attributes:
        flow: (1, 4, H, W) in pixels: x and y towards frame 0, then towards frame 1.
        mask: (1, 1, H, W) logit, large where frame 0 is taken.
        residual: (1, 3, H, W) RGB, -1..1, to add to the blend before clamping to 0..1; None without a refinement.
        image: (1, 3, H, W) RGB, a mean of several passes, to show instead of what flow, mask and residual give; else
            None.
    """

    flow: Tensor
    mask: Tensor
    residual: Tensor | None
    image: Tensor | None = None


class LegacyNet(nn.Module):
    """The network of one generation.

    Args:
        layout: the row of the catalogue that describes it.
        scale: flow scale, 0.25, 0.5, 1, 2 or 4; below 1 looks for larger motion.
    """

    def __init__(self, layout: LegacyLayout, scale: float = 1.0) -> None:
        super().__init__()
        self.layout, self.scale = layout, scale
        for i, width in enumerate(layout.widths):
            self.add_module(f"block{i}", FlowBlock(layout, _block_inputs(layout, i), width))
        if layout.refiner:
            self.contextnet = Context(layout.refiner, 1 if layout.doubled else 2)
            self.unet = Refinement(layout.refiner, _LATER_INPUTS[layout.family], doubled=layout.doubled)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""
        return next(self.parameters()).dtype

    @property
    def exact(self) -> torch.dtype:
        """Of coordinates, flow and blend."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def ops(self) -> Ops:
        """The fastest operations for this device and dtype."""
        return choose(self.device, self.dtype)

    def encode(self, frame: Tensor) -> Features:
        """Compute the features of one frame, (1, 3, H, W), padded to `layout.padded`."""
        return Features(frame, self.contextnet(frame) if self.layout.refiner else ())

    def estimate(
        self,
        features0: Features,
        features1: Features,
        timestep: float | Tensor = 0.5,
        cancellation: Cancellation = never,
    ) -> Estimate:
        """Estimate flow, mask and refinement between two frames.

        Args:
            features0: of the frame at time 0.
            features1: of the frame at time 1, of the same size.
            timestep: 0..1, or one for every pixel, (1, 1, H, W); no effect on layouts that know the middle alone.
            cancellation: called before each block.
        """
        flow, mask = self.flow(features0, features1, timestep, cancellation)
        cancellation()
        return self.refine(features0, features1, flow, mask)

    def flow(
        self, features0: Features, features1: Features, timestep: float | Tensor, cancellation: Cancellation = never
    ) -> tuple[Tensor, Tensor | None]:
        """Flow (1, 4, H, W) in pixels and mask logit, both at full size; or the flow alone, at half size and in pixels
        of that."""
        flow_network = _FLOW_NETWORKS[self.layout.family]
        flow, mask = flow_network(self, features0.image, features1.image, timestep, cancellation)
        return torch.cat((flow, -flow), dim=1) if flow.shape[1] == 2 else flow, mask

    def refine(self, features0: Features, features1: Features, flow: Tensor, mask: Tensor | None) -> Estimate:
        """Complete the result of `flow` to an estimate; the refinement, where there is one, runs here."""
        if self.layout.refiner is None:
            assert mask is not None
            return Estimate(flow, mask, None)
        flow0, flow1 = flow[:, :2], flow[:, 2:]
        levels = warped_levels(features0.levels, flow0), warped_levels(features1.levels, flow1)
        images = features0.image, features1.image
        if mask is not None:
            stack: tuple[Tensor, ...] = (*images, *_warped(images, flow), mask, flow)
        else:
            flow = 2 * resized(flow, 2)
            stack = (*_warped(images, flow), flow[:, :2] if self.layout.family == "attention" else flow)
        logits = self.unet(torch.cat(stack, dim=1), *levels)
        residual = 2 * torch.sigmoid(logits[:, :IMAGE_CHANNELS]) - 1
        return Estimate(flow, logits[:, IMAGE_CHANNELS:] if mask is None else mask, residual)

    def forward(self, frame0: Tensor, frame1: Tensor, timestep: float = 0.5) -> Tensor:
        """The picture in between, as published.

        Args:
            frame0: (1, 3, H, W) RGB of any size, nominally 0..1.
            frame1: the next frame, same shape.
            timestep: 0..1, 0 is the time of `frame0`.

        Returns:
            (1, 3, H, W).
        """
        height, width = frame0.shape[-2:]
        padded_width, padded_height = self.layout.padded(width, height, self.scale)
        pad = (0, padded_width - width, 0, padded_height - height)
        features0, features1 = (self.encode(F.pad(frame, pad)) for frame in (frame0, frame1))
        return blended(features0.image, features1.image, self.estimate(features0, features1, timestep))[
            ..., :height, :width
        ]


def blended(frame0: Tensor, frame1: Tensor, estimate: Estimate) -> Tensor:
    """The published picture, at the padded size."""
    warped0, warped1 = _warped((frame0, frame1), estimate.flow)
    weight0 = torch.sigmoid(estimate.mask)
    blend = warped0 * weight0 + warped1 * (1 - weight0)
    return blend if estimate.residual is None else (blend + estimate.residual).clamp(0, 1)


def _warped(images: tuple[Tensor, Tensor], flow: Tensor) -> tuple[Tensor, Tensor]:
    return warp_by_flow(images[0], flow[:, :2]), warp_by_flow(images[1], flow[:, 2:])


# Each flow network takes the padded frames and the timestep, and returns flow and mask logit at full size; or, without
# a mask, flow at half size in pixels of that, with 4 channels or the 2 that both frames share.
_FlowNetwork = Callable[[LegacyNet, Tensor, Tensor, float | Tensor, Cancellation], tuple[Tensor, Tensor | None]]


def _attention_flow(
    net: LegacyNet, frame0: Tensor, frame1: Tensor, _timestep: float | Tensor, cancellation: Cancellation
) -> tuple[Tensor, None]:
    images = tuple(resized(frame, 0.5 * net.scale) for frame in (frame0, frame1))
    flow: Tensor | None = None
    for i, s in enumerate(net.layout.scales):
        cancellation()
        if flow is None:
            stack = torch.cat(images, dim=1)
        else:
            stack = torch.cat((warp_by_flow(images[0], flow), warp_by_flow(images[1], -flow), flow), dim=1)
        delta = resized(net.get_submodule(f"block{i}")(resized(stack, 1 / s)), s)
        flow = delta if flow is None else flow + delta
    assert flow is not None
    return resized(flow, 1 / net.scale) / net.scale, None


def _half_flow(
    net: LegacyNet, frame0: Tensor, frame1: Tensor, _timestep: float | Tensor, cancellation: Cancellation
) -> tuple[Tensor, None]:
    images = resized(frame0, net.scale), resized(frame1, net.scale)
    flow: Tensor | None = None
    for i, s in enumerate(net.layout.scales):
        cancellation()
        unit = s if net.layout.pairs else 1  # blocks with pairs work in pixels of their own size
        if flow is None:
            stack = resized(torch.cat(images, dim=1), 1 / s)
        else:
            full = 2 * resized(flow, 2)
            stack = torch.cat((*_warped(images, full), full / unit), dim=1)
            stack = resized(stack, 1 / s)
        delta = resized(net.get_submodule(f"block{i}")(stack), s) * unit
        flow = delta if flow is None else flow + delta
    assert flow is not None
    return resized(flow, 1 / net.scale) / net.scale, None


def _mirrored_flow(
    net: LegacyNet, frame0: Tensor, frame1: Tensor, _timestep: float | Tensor, cancellation: Cancellation
) -> tuple[Tensor, Tensor]:
    flow = frame0.new_zeros(1, FLOW_CHANNELS, *frame0.shape[-2:])
    mask = flow[:, :1]
    warped = frame0, frame1
    for i, s in enumerate(net.layout.scale_list(net.scale)):
        cancellation()

        def run(images: tuple[Tensor, ...], mask: Tensor, flow: Tensor, i: int = i, s: float = s) -> Tensor:
            stack = torch.cat((*images, mask, flow / s), dim=1)
            return resized(net.get_submodule(f"block{i}")(resized(stack, 1 / s)), s)

        there, back = run(warped, mask, flow), run(warped[::-1], -mask, swap(flow))
        flow = flow + s * (there[:, :FLOW_CHANNELS] + swap(back[:, :FLOW_CHANNELS])) / 2
        mask = mask + (there[:, FLOW_CHANNELS:] - back[:, FLOW_CHANNELS:]) / 2
        warped = _warped((frame0, frame1), flow)
    return flow, mask


def _full_flow(
    net: LegacyNet, frame0: Tensor, frame1: Tensor, timestep: float | Tensor, cancellation: Cancellation
) -> tuple[Tensor, Tensor]:
    time = (torch.zeros_like(frame0[:, :1]) + timestep,) if net.layout.takes_time else ()
    flow: Tensor | None = None
    mask: Tensor | None = None
    for i, s in enumerate(net.layout.scale_list(net.scale)):
        cancellation()
        stack: tuple[Tensor, ...] = (frame0, frame1, *time)
        if flow is not None and mask is not None:
            stack = (*stack, *_warped((frame0, frame1), flow), mask, flow / s)
        maps = net.get_submodule(f"block{i}")(resized(torch.cat(stack, dim=1), 1 / s))
        gain = s if net.layout.doubled else 2 * s
        maps = resize(maps, *frame0.shape[-2:])
        delta, step = maps[:, :FLOW_CHANNELS] * gain, maps[:, FLOW_CHANNELS:]
        flow = delta if flow is None else flow + delta
        mask = step if mask is None else mask + step
    assert flow is not None
    assert mask is not None
    return flow, mask


_FLOW_NETWORKS: dict[str, _FlowNetwork] = {
    "attention": _attention_flow,
    "half": _half_flow,
    "mirrored": _mirrored_flow,
    "full": _full_flow,
}


@lru_cache(maxsize=16)
def tensor_shapes(layout: LegacyLayout) -> dict[str, Shape]:
    """Every tensor that the weights of a layout hold, by its name; the counters of batch normalisation left out."""
    with torch.device("meta"):
        state = LegacyNet(layout).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(COUNTER)}


def load(
    layout: LegacyLayout,
    tensors: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> LegacyNet:
    """The network with its weights, ready to run.

    Args:
        layout: the row of the catalogue that the tensors belong to.
        tensors: exactly those of `tensor_shapes`.
        scale: flow scale, 0.25, 0.5, 1, 2 or 4.
        device: where the network runs; None is the CPU.
        dtype: of the convolutions.
    """
    with torch.device("meta"):
        net = LegacyNet(layout, scale).requires_grad_(False)
    counters = {name: torch.zeros((), dtype=torch.int64) for name in net.state_dict() if name.endswith(COUNTER)}
    net.load_state_dict({**tensors, **counters}, assign=True)
    _fold_normalisation(net.eval())
    return net.to(device or torch.device("cpu"), dtype).to(memory_format=torch.channels_last)


def _fold_normalisation(net: LegacyNet) -> None:
    """Put each batch normalisation into the convolution before it."""
    for module in net.modules():
        layers = list(module) if isinstance(module, nn.Sequential) else []
        for i, (layer, following) in enumerate(pairwise(layers)):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                assert isinstance(module, nn.Sequential)
                module[i], module[i + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
