"""Reads models of rife-ncnn-vulkan: `flownet.param` with `flownet.bin`, and the further pairs of HD v1 to v3.

A `.param` file is the graph as text, a `.bin` file the layers' data in the graph's order, without names. The graph is
not run: its layers with data must be, one by one, those of a known layout in the order of evaluation, and so must its
activations and resizing factors. A changed graph is refused.

Source: the format is that of ncnn (Tencent, BSD 3-Clause), see its wiki on the param and model file structure.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vsrife.checkpoints.finding import GRAPH_SUFFIX, PARTS
from vsrife.checkpoints.reading import StoredFile, read_bytes
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import LAYOUTS, LEGACY_LAYOUTS, MODELS, Layout, LegacyLayout, Shape
from vsrife.networks.ifnet import IFNet
from vsrife.networks.legacy import LegacyNet

_MAGIC = "7767517"
_FLOAT32, _FLOAT32_RAW, _FLOAT16 = 0, 0x0002C056, 0x01306B47  # flags before a layer's weight
_LEAKY, _SIGMOID, _LEAKY_SLOPE = 2, 4, 0.2  # fused activations, and the only slope there is
_WITH_DATA = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "InnerProduct", "PReLU", "MemoryData")
_EXPORTED = ("E01", "E02", "E03", "E04", "E06")  # the older generations that exist as graphs
_LAST = "unet.conv"  # the layer that a sigmoid may be part of
_BATCH_NORM_EPS = 1e-5
_ADVICE = "get the original files; of graphs with the ensemble or refinement built in take the one without"

Keys = Mapping[int, tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """One line of a graph."""

    kind: str
    name: str
    keys: Keys  # of a number: one value; of an array: all

    def key(self, key: int, default: float = 0) -> float:
        return self.keys.get(key, (default,))[0]

    @property
    def weights(self) -> int:
        """The number of values in its weight."""
        if self.kind == "PReLU":
            return int(self.key(0))
        if self.kind == "MemoryData":
            return math.prod(int(self.key(k)) or 1 for k in range(3))
        return int(self.key(2 if self.kind == "InnerProduct" else 6))

    @property
    def has_bias(self) -> bool:
        return self.kind not in ("PReLU", "MemoryData") and bool(self.key(1 if self.kind == "InnerProduct" else 5))

    @property
    def leaks(self) -> bool:
        """Whether it is a LeakyReLU or has one fused into it."""
        if self.kind == "ReLU":
            return True
        return self.kind in _WITH_DATA and self.key(9) == _LEAKY and self.kind != "InnerProduct"


@dataclass(frozen=True, slots=True)
class Slot:
    """The PyTorch layer that the data of one layer of a graph belong to.

    Attributes:
        kind: Of the graph's layer.
        name: Of the PyTorch layer, or of the parameter for "MemoryData".
        shape: Of the weight in PyTorch.
        stride: Of a convolution.
        groups: Of a convolution.
        bias: Whether it has one.
        norm: Name of the batch normalisation that is folded into it, or "".
        slope: Name of the single PReLU slope that the graph holds as text, or "".
        copy: Whether it is a second copy of the same layer, for the other frame.
    """

    kind: str
    name: str
    shape: Shape
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: str = ""
    slope: str = ""
    copy: bool = False


def read(param: Path) -> tuple[StoredFile, Layout | LegacyLayout]:
    """Read the model whose graph is a `flownet.param`.

    Args:
        param: The graph; the other files are beside it.

    Returns:
        Tensors under the names of a .pkl file, with the values stored, and their layout.

    Raises:
        WeightsError: A file is missing, cut short or of another kind, or its graph is not that of a known model.
    """
    digest = hashlib.sha256()
    graph = _read_graph(param)
    layout = _recognise(graph, param)
    _check_factors(graph, layout, param)
    tensors = _read_data(graph, _slots(layout, "flownet"), param, digest.update)
    if isinstance(layout, LegacyLayout) and layout.refiner:
        for net, file in PARTS.items():
            path = param.with_name(f"{file}{GRAPH_SUFFIX}")
            graph, slots = _read_graph(path), _slots(layout, net)
            different = _first_difference(graph, slots)
            if different is not None:
                raise WeightsError(
                    f"{path} is not the graph of {layout.id}, {_expected(graph, slots, different)}; {_ADVICE}"
                )
            tensors |= _read_data(graph, slots, path, digest.update)
    stored = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    return StoredFile(param, stored, digest.hexdigest()), layout


# --- the graph --------------------------------------------------------------------------------------------------------


def _read_graph(path: Path) -> list[GraphLayer]:
    """Return the layers of a graph in order."""
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; put all files of the model into one folder")
    magic, *lines = read_bytes(path).decode("utf-8", errors="replace").splitlines()
    if magic.strip() != _MAGIC:
        raise WeightsError(f"{path} is no ncnn graph as text, got {magic[:24]!r} where {_MAGIC} stands; get it again")
    counts, *lines = lines or [""]
    layers = [_parse_line(line, path) for line in lines if line.strip()]
    count = counts.split()[0] if counts.split() else "nothing"
    if count != str(len(layers)):
        raise WeightsError(
            f"{path} is cut short or changed, got {len(layers)} layers where it says {count}; get it again"
        )
    return layers


def _parse_line(line: str, path: Path) -> GraphLayer:
    try:
        kind, name, inputs, outputs, *rest = line.split()
        keys = [word.split("=", 1) for word in rest[int(inputs) + int(outputs) :]]
        return GraphLayer(kind, name, {_key(key): _values(key, value) for key, value in keys})
    except ValueError as error:
        raise WeightsError(f"{path} is damaged, got the line {line[:60]!r}; get it again") from error


def _key(text: str) -> int:
    key = int(text)
    return key if key >= 0 else -key - 23300


def _values(key: str, text: str) -> tuple[float, ...]:
    values = tuple(map(float, text.split(",")))
    return values[1:] if int(key) < 0 else values  # arrays begin with their length


def _with_data(graph: Sequence[GraphLayer]) -> list[GraphLayer]:
    return [layer for layer in graph if layer.kind in _WITH_DATA]


# --- the layouts ------------------------------------------------------------------------------------------------------


def _candidates() -> list[Layout | LegacyLayout]:
    return [*LAYOUTS.values(), *(LEGACY_LAYOUTS[name] for name in _EXPORTED)]


def _recognise(graph: Sequence[GraphLayer], path: Path) -> Layout | LegacyLayout:
    """Return the layout with exactly these layers; if two have them, that of the version in the folder's name."""
    layouts = [layout for layout in _candidates() if _first_difference(graph, _slots(layout, "flownet")) is None]
    if layouts:
        version = re.search(r"v?(\d+\.\d+)", path.absolute().parent.name)
        spec = MODELS.get(version[1]) if version else None
        return spec.layout if spec and spec.layout in layouts else layouts[-1]

    nearest = max(_candidates(), key=lambda layout: _likeness(graph, _slots(layout, "flownet")))
    slots = _slots(nearest, "flownet")
    index = _first_difference(graph, slots)
    assert index is not None
    difference = _expected(graph, slots, index)
    raise WeightsError(f"{path} is the graph of no known model, nearest is {nearest.id}, but {difference}; {_ADVICE}")


def _likeness(graph: Sequence[GraphLayer], slots: Sequence[Slot]) -> int:
    """Return the number of layers with data that match, counted from both ends."""
    layers = _with_data(graph)
    pairs = list(zip(layers, slots, strict=False)) + list(zip(layers[::-1], slots[::-1], strict=False))
    return sum(_fits(layer, slot) for layer, slot in pairs)


def _first_difference(graph: Sequence[GraphLayer], slots: Sequence[Slot]) -> int | None:
    """Return the index of the first layer with data that does not match its slot; None if all match."""
    layers = _with_data(graph)
    slots = _suited(layers, slots)
    for i, (layer, slot) in enumerate(zip(layers, slots, strict=False)):
        if not _fits(layer, slot):
            return i
    return min(len(layers), len(slots)) if len(layers) != len(slots) else None


def _suited(layers: Sequence[GraphLayer], slots: Sequence[Slot]) -> Sequence[Slot]:
    """Return the slots that a graph has: in some exports, beta is multiplied into the convolutions."""
    if any(layer.kind == "MemoryData" for layer in layers):
        return slots
    return [slot for slot in slots if slot.kind != "MemoryData"]


def _fits(layer: GraphLayer, slot: Slot) -> bool:
    if (layer.kind, layer.weights, layer.has_bias) != (slot.kind, math.prod(slot.shape), slot.bias):
        return False
    if slot.kind in ("PReLU", "MemoryData"):
        return True
    if slot.kind == "InnerProduct":
        return layer.key(9) == (_LEAKY if slot.slope else _SIGMOID) and layer.key(0) == slot.shape[0]
    kernel = slot.shape[-1]
    outputs = slot.shape[1 if slot.kind == "Deconvolution" else 0]
    padding = 1 if slot.kind == "Deconvolution" else kernel // 2
    got = (layer.key(0), layer.key(1), layer.key(2, 1), layer.key(3, 1), layer.key(4), layer.key(7, 1))
    return got == (outputs, kernel, 1, slot.stride, padding, slot.groups) and _fused_fits(layer, slot)


def _fused_fits(layer: GraphLayer, slot: Slot) -> bool:
    """Return whether the activation fused into a convolution, if any, is one that the network has there."""
    if layer.key(9) == _LEAKY:
        return math.isclose(layer.key(10), _LEAKY_SLOPE, rel_tol=1e-6)
    return layer.key(9) == 0 or (layer.key(9) == _SIGMOID and slot.name == _LAST)


def _expected(graph: Sequence[GraphLayer], slots: Sequence[Slot], index: int) -> str:
    """Describe the layer at an index of the layers with data, and the one that belongs there."""
    layers = _with_data(graph)
    slots = _suited(layers, slots)
    got = f"{layers[index].kind} {layers[index].name}" if index < len(layers) else "no further layer"
    slot = slots[index] if index < len(slots) else None
    wanted = f"{slot.name} ({slot.kind} {'×'.join(map(str, slot.shape))}, stride {slot.stride})" if slot else "the end"
    return f"got {got} where {wanted} belongs"


def _check_factors(graph: Sequence[GraphLayer], layout: Layout | LegacyLayout, path: Path) -> None:
    """Check the sizes that blocks work at, and the number of activations.

    Raises:
        WeightsError: They are not those of the layout.
    """
    resizes = [layer for layer in graph if layer.kind == "Interp"]
    bad = [layer.name for layer in resizes if not _resizes_plainly(layer)]
    factors = {layer.key(1, 1) for layer in resizes if layer.key(1, 1) < 1}
    wanted = [{1 / scale for scale in scales} - {1.0} for scales in _scale_lists(layout)]
    if bad or factors not in wanted:
        got = f"{bad[0]} of another kind" if bad else ", ".join(f"{f:g}" for f in sorted(factors))
        raise WeightsError(
            f"{path} resizes in another way than {layout.id}, got {got} where "
            f"{', '.join(f'{f:g}' for f in sorted(wanted[0]))} belong; {_ADVICE}"
        )
    leaks, slopes = [layer for layer in graph if layer.leaks], {layer.key(0) for layer in graph if layer.kind == "ReLU"}
    if len(leaks) != _activations(layout) or any(not math.isclose(s, _LEAKY_SLOPE, rel_tol=1e-6) for s in slopes):
        raise WeightsError(
            f"{path} has other activations than {layout.id}, got {len(leaks)} LeakyReLU of slopes "
            f"{', '.join(f'{s:g}' for s in sorted(slopes | {_LEAKY_SLOPE}))} where {_activations(layout)} of "
            f"{_LEAKY_SLOPE} belong; {_ADVICE}"
        )


def _resizes_plainly(layer: GraphLayer) -> bool:
    """Return whether it is bilinear, by one factor, with half-pixel centres, and not to a fixed size."""
    return layer.key(0) == 2 and layer.key(1, 1) == layer.key(2, 1) and not any(map(layer.key, (3, 4, 6)))


def _scale_lists(layout: Layout | LegacyLayout) -> list[tuple[float, ...]]:
    """Return the scales that a graph of this layout may have."""
    if isinstance(layout, LegacyLayout):
        return [(2, *layout.scales) if layout.family == "attention" else layout.scales]
    # The published graph of 4.25.lite has 16, 8, 4, 2, 1; it is run as its authors' release does.
    return [layout.scales, (16, 8, 4, 2, 1)] if layout.id == "L15" else [layout.scales]


def _activations(layout: Layout | LegacyLayout) -> int:
    """Return the number of LeakyReLU in the network."""
    if isinstance(layout, LegacyLayout) or layout.body == "prelu":
        return 0
    head = 2 * len(layout.head.names[:-1]) if layout.head and layout.head.activated else 0
    return head + layout.blocks * 10


@lru_cache(maxsize=64)
def _slots(layout: Layout | LegacyLayout, net: str) -> tuple[Slot, ...]:
    """Return the layers with data that a graph must have, in its order.

    Args:
        layout: The row of the catalogue.
        net: "flownet", or "contextnet" or "unet" of layouts that have them.
    """
    with torch.device("meta"):
        whole = LegacyNet(layout) if isinstance(layout, LegacyLayout) else IFNet(layout)
    if net != "flownet":
        return tuple(_walk(whole.get_submodule(net), f"{net}."))
    blocks = [slot for name, child in whole.named_children() if "block" in name for slot in _walk(child, f"{name}.")]
    head = list(_walk(whole.get_submodule("encode"), "encode.")) if isinstance(layout, Layout) and layout.head else []
    betas = [Slot("MemoryData", n, tuple(p.shape)) for n, p in whole.named_parameters() if n.endswith(".beta")]
    copies = [Slot(s.kind, s.name, s.shape, s.stride, s.groups, s.bias, copy=True) for s in head]
    return (*betas, *head, *copies, *blocks)


def _walk(module: nn.Module, prefix: str) -> Iterator[Slot]:
    """Yield the layers of a network in order of evaluation, batch normalisation folded into the one before."""
    kinds = nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d | nn.PReLU
    layers = [(f"{prefix}{name}", layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    for (name, layer), (next_name, following) in zip(layers, [*layers[1:], ("", nn.Identity())], strict=True):
        if isinstance(layer, nn.BatchNorm2d) or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            continue
        if isinstance(layer, nn.PReLU):
            yield Slot("PReLU", name, tuple(layer.weight.shape))
            continue
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        norm = next_name if isinstance(following, nn.BatchNorm2d) else ""
        slope = next_name if isinstance(following, nn.PReLU) and following.num_parameters == 1 else ""
        bias = layer.bias is not None or bool(norm)
        yield Slot(_kind(layer), name, tuple(layer.weight.shape), layer.stride[0], layer.groups, bias, norm, slope)


def _kind(layer: nn.Conv2d | nn.ConvTranspose2d) -> str:
    if isinstance(layer, nn.ConvTranspose2d):
        return "Deconvolution"
    if layer.kernel_size == (1, 1):
        return "InnerProduct"
    return "Convolution" if layer.groups == 1 else "ConvolutionDepthWise"


# --- the data ---------------------------------------------------------------------------------------------------------


class _Data:
    """Reads a `.bin` file from beginning to end."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.offset = path, data, 0

    def take(self, count: int, dtype: str, layer: GraphLayer) -> NDArray[np.float32]:
        size = count * np.dtype(dtype).itemsize
        if self.offset + size > len(self.data):
            raise WeightsError(
                f"{self.path} is cut short, got {len(self.data)} bytes where layer {layer.name} ends at "
                f"{self.offset + size}; get it again"
            )
        values = np.frombuffer(self.data, dtype, count, self.offset)
        self.offset += size + -size % 4
        return values.astype(np.float32)

    def weight(self, layer: GraphLayer) -> NDArray[np.float32]:
        """Return a layer's weight, which follows a flag word."""
        flag = int(np.frombuffer(self.data, "<u4", 1, self.offset)[0]) if self.offset + 4 <= len(self.data) else 0
        self.offset += 4
        if flag not in (_FLOAT32, _FLOAT32_RAW, _FLOAT16):
            raise WeightsError(
                f"{self.path} has a weight in an unknown format, got flag {flag:#010x} at layer {layer.name}; get the "
                "original files, in float32 or float16"
            )
        return self.take(layer.weights, "<f2" if flag == _FLOAT16 else "<f4", layer)

    def close(self) -> None:
        if self.offset != len(self.data):
            raise WeightsError(
                f"{self.path} does not belong to its graph, got {len(self.data)} bytes where {self.offset} belong; get "
                "both files again"
            )


def _read_data(
    graph: Sequence[GraphLayer], slots: Sequence[Slot], param: Path, update: Callable[[bytes], None]
) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of one pair of files under their names in PyTorch."""
    path = param.with_suffix(".bin")
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; put all files of the model into one folder")
    raw = read_bytes(path)
    update(read_bytes(param) + raw)
    data = _Data(path, raw)
    layers = _with_data(graph)
    tensors = {slot.name: np.ones(slot.shape, np.float32) for slot in slots if slot.kind == "MemoryData"}
    for layer, slot in zip(layers, _suited(layers, slots), strict=True):
        values = _tensors_of(layer, slot, data)
        if slot.copy and any(not np.array_equal(tensors[name], array) for name, array in values.items()):
            raise WeightsError(f"{path} is not that of a known model, got another {slot.name} for frame 1; {_ADVICE}")
        tensors |= values
    data.close()
    return tensors


def _tensors_of(layer: GraphLayer, slot: Slot, data: _Data) -> dict[str, NDArray[np.float32]]:
    if slot.kind == "MemoryData":
        return {slot.name: data.take(layer.weights, "<f4", layer).reshape(slot.shape)}
    if slot.kind == "PReLU":
        return {f"{slot.name}.weight": data.take(layer.weights, "<f4", layer)}
    weight = data.weight(layer)
    if slot.kind == "Deconvolution":  # stored with outputs first
        inputs, outputs, *kernel = slot.shape
        weight = weight.reshape(outputs, inputs, *kernel).swapaxes(0, 1)
    tensors = {f"{slot.name}.weight": weight.reshape(slot.shape)}
    if slot.slope:
        tensors[f"{slot.slope}.weight"] = np.array([layer.key(10)], np.float32)
    if slot.bias:
        bias = data.take(slot.shape[1 if slot.kind == "Deconvolution" else 0], "<f4", layer)
        tensors |= _as_norm(slot.norm, bias) if slot.norm else {f"{slot.name}.bias": bias}
    return tensors


def _as_norm(name: str, bias: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return a batch normalisation that only adds a bias: the original one is folded into the convolution."""
    one = np.ones_like(bias)
    return {
        f"{name}.weight": one,
        f"{name}.bias": bias,
        f"{name}.running_mean": np.zeros_like(bias),
        f"{name}.running_var": one * (1 - _BATCH_NORM_EPS),
    }
