"""Writes weights for other programs: safetensors, and the published forward of 4.x as an ONNX graph.

The graph is built from the layout alone, node by node, so it is small, takes frames of any size and number, and is
written in a moment. It does what `networks.ifnet.IFNet` does in one time direction; the tests run both.

`torch.onnx.export` does not replace it (tried with PyTorch 2.14.1 and onnxscript 0.7.2 on IFNet as it is, with height
and width dynamic). The tracing exporter, which is deprecated, stores the padded size and the sizes of the blocks as
constants, because they come from `math.ceil` and `int` of the frame's size: traced at 100x70, a frame of 130x33 comes
out 128 wide. The exporter on `torch.export` (dynamo=True) succeeds in strict mode alone, after minutes, and writes a
graph that onnxruntime 1.32 refuses: "Node input 'pad_1_min_1' is not a graph input".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from vsrife._version import __version__
from vsrife.checkpoints.loading import IFNetWeights, Weights
from vsrife.errors import WeightsError
from vsrife.files import atomic_write
from vsrife.networks.catalogue import BODY_LAYERS, FLOW_CHANNELS, IMAGE_CHANNELS, Layout

if TYPE_CHECKING:
    import onnx

Half = Literal["fp32", "fp16"]

OPSET = 16  # the first that can warp (GridSample)
IR_VERSION = 8  # of the format that came with it, so that older runtimes read the file
LEAKY_SLOPE = 0.2


def export_safetensors(weights: Weights, path: Path, precision: Half = "fp32") -> None:
    """Write the tensors that the layout needs, without training-only parts and prefixes.

    Args:
        weights: What to write.
        path: Of the file; replaced if it exists.
        precision: Of the stored values. They are converted to float32 when they are loaded.

    Raises:
        WeightsError: The file cannot be written.
    """
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[precision]
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in weights.tensors.items()}
    with atomic_write(path, error=WeightsError) as part:
        part.write_bytes(safetensors.torch.save(tensors, metadata=_provenance(weights)))


def export_onnx(weights: IFNetWeights, path: Path, precision: Half = "fp32", scale: float = 1.0) -> None:
    """Write the published forward as an ONNX graph for any number and size of frames.

    Inputs are `img0` and `img1`, (N, 3, H, W) float32 RGB of 0..1, and `timestep`, (N, 1, 1, 1) or (1, 1, 1, 1)
    float32; the output is `image`, (N, 3, H, W) float32. The graph pads the frames with zeros, as the published forward
    does.

    Args:
        weights: What to write. For 4.0 and 4.1 the graph has no second try on large motion.
        path: Of the file; replaced if it exists.
        precision: Of the convolutions and their weights. Positions, flow and blending stay in float32.
        scale: Flow scale, 0.25, 0.5, 1, 2 or 4.

    Raises:
        WeightsError: The file cannot be written.
        ModuleNotFoundError: The package onnx is not installed.
    """
    import onnx  # of the optional extra `export`

    model = onnx_model(weights, precision, scale)
    with atomic_write(path, error=WeightsError) as part:
        onnx.save(model, part)


def onnx_model(weights: IFNetWeights, precision: Half = "fp32", scale: float = 1.0) -> onnx.ModelProto:
    """Return the graph that `export_onnx` writes, checked by onnx."""
    import onnx  # of the optional extra `export`
    from onnx import helper

    tensors = {name: tensor.numpy() for name, tensor in weights.tensors.items()}
    graph = _Forward(weights.layout, tensors, np.dtype("float16" if precision == "fp16" else "float32"), scale).graph()
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="vsrife",
        producer_version=__version__,
    )
    helper.set_model_props(model, _provenance(weights) | {"precision": precision, "scale": f"{scale:g}"})
    onnx.checker.check_model(model, full_check=True)
    return model


def _provenance(weights: Weights) -> dict[str, str]:
    return {"model": weights.name, "layout": weights.layout.id, "source_sha256": weights.sha256}


class _Pair(NamedTuple):
    """Names of both frames and their features, warped or not."""

    frame0: str
    frame1: str
    head0: str | None
    head1: str | None

    def names(self) -> list[str]:
        return [name for name in self if name]


class _Graph:
    """Nodes and constants of a graph under construction. Values are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper  # of the optional extra `export`

        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Store a constant and return its name; equal small ones are stored once."""
        for name, other in self.constants.items():
            if value.size < 16 and other.dtype == value.dtype and np.array_equal(other, value):
                return name
        name = f"constant_{len(self.constants)}"
        self.constants[name] = value
        return name

    def floats(self, *values: float) -> str:
        return self.constant(np.array(values, np.float32))

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))


class _Forward(_Graph):
    """The forward of one layout, node by node."""

    def __init__(
        self, layout: Layout, tensors: dict[str, NDArray[np.float32]], dtype: np.dtype[Any], scale: float
    ) -> None:
        super().__init__()
        self.layout, self.tensors, self.dtype = layout, tensors, dtype
        self.scales = layout.scale_list(scale)
        self.align = layout.align(scale)

    def graph(self) -> onnx.GraphProto:
        from onnx import TensorProto, helper, numpy_helper  # of the optional extra `export`

        self._pad()
        result = self._crop(self._interpolate())
        self.nodes[-1].output[0] = result = "image"

        def value(name: str, *shape: str | int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        frame = ("batch", IMAGE_CHANNELS, "height", "width")
        return helper.make_graph(
            self.nodes,
            "rife",
            [value("img0", *frame), value("img1", *frame), value("timestep", "times", 1, 1, 1)],
            [value(result, *frame)],
            initializer=[numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )

    def _pad(self) -> None:
        """Pad the frames with zeros on the right and at the bottom, to a multiple of the layout's alignment."""
        self.size = self.node("Shape", "img0", start=2)
        rounded = self.node(
            "Div", self.node("Add", self.size, self.integers(self.align - 1)), self.integers(self.align)
        )
        self.padded_size = self.node("Mul", rounded, self.integers(self.align))
        margin = self.node("Concat", self.integers(*[0] * 6), self.node("Sub", self.padded_size, self.size), axis=0)
        self.frames = [self.node("Pad", name, margin) for name in ("img0", "img1")]
        batch = self.node("Shape", "img0", end=1)
        plane = self.node("Concat", batch, self.integers(1), self.padded_size, axis=0)
        self.time = self.node("Expand", "timestep", plane)
        self.columns, self.rows = self._positions(1), self._positions(0)

    def _positions(self, axis: int) -> tuple[str, str]:
        """Return the indices of the padded frame along an axis, to broadcast to (N, H, W), and the last of them."""
        size = self.node("Gather", self.padded_size, self.constant(np.array(axis, np.int64)))
        zero, one = (self.constant(np.array(value, np.int64)) for value in (0, 1))
        index = self.node("Cast", self.node("Range", zero, size, one), to=1)
        shaped = self.node("Unsqueeze", index, self.integers(0, 2 - axis))
        return shaped, self.node("Cast", self.node("Sub", size, one), to=1)

    def _crop(self, image: str) -> str:
        return self.node("Slice", image, self.integers(0, 0), self.size, self.integers(2, 3))

    # --- layers -------------------------------------------------------------------------------------------------------

    def _conv(self, x: str, name: str, stride: int = 1, groups: int = 1, beta: str | None = None) -> str:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        if beta:
            factor = self.tensors[beta].reshape(-1)
            weight, bias = weight * factor[:, None, None, None], bias * factor
        parameters = (self.constant(array.astype(self.dtype)) for array in (weight, bias))
        return self.node("Conv", x, *parameters, strides=[stride] * 2, pads=[1] * 4, group=groups)

    def _transposed(self, x: str, name: str) -> str:
        parameters = (self.constant(self.tensors[f"{name}.{part}"].astype(self.dtype)) for part in ("weight", "bias"))
        return self.node("ConvTranspose", x, *parameters, strides=[2, 2], pads=[1] * 4)

    def _activated(self, x: str, slopes: str | None = None) -> str:
        if slopes in self.tensors:
            return self.node("PRelu", x, self.constant(self.tensors[slopes].reshape(-1, 1, 1).astype(self.dtype)))
        return self.node("LeakyRelu", x, alpha=LEAKY_SLOPE)

    def _resized(self, x: str, factor: float) -> str:
        if factor == 1:
            return x
        mode: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        return self.node("Resize", x, "", self.floats(1, 1, factor, factor), **mode)

    def _cast(self, x: str, dtype: np.dtype[Any]) -> str:
        from onnx import helper  # of the optional extra `export`

        same = self.dtype == np.dtype("float32")
        return x if same else self.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(dtype))

    def _channels(self, x: str, start: int, end: int) -> str:
        return self.node("Slice", x, self.integers(start), self.integers(end), self.integers(1))

    # --- parts --------------------------------------------------------------------------------------------------------

    def _head(self, frame: str) -> str | None:
        head = self.layout.head
        if not head:
            return None
        x = self.node("Clip", frame, *self._unit()) if head.clamps else frame
        x = self._cast(x, self.dtype)
        *convs, last = (f"encode.{name}" for name in head.names)
        for i, name in enumerate(convs):
            x = self._conv(x, name, stride=1 if i else 2)
            x = self._activated(x) if head.activated else x
        return self._cast(self._transposed(x, last), np.dtype("float32"))

    def _unit(self) -> tuple[str, str]:
        zero, one = (self.constant(np.array(value, np.float32)) for value in (0, 1))
        return zero, one

    def _block(self, index: int, inputs: Sequence[str], flow: str | None) -> tuple[str, str, str | None]:
        """Return the names of a block's flow in pixels, mask logit and carried features."""
        scale, name, layout = self.scales[index], f"block{index}", self.layout
        x = self._resized(self.node("Concat", *inputs, axis=1), 1 / scale)
        if flow:
            small = self.node("Mul", self._resized(flow, 1 / scale), self.floats(1 / scale))
            x = self.node("Concat", x, small, axis=1)
        x = self._cast(x, self.dtype)
        for k in (0, 1):
            x = self._activated(self._conv(x, f"{name}.conv0.{k}.0", stride=2), f"{name}.conv0.{k}.1.weight")
        y = self._body(x, name)
        if layout.body == "prelu":
            y = self.node("Add", y, x)
        y = self._transposed(y, f"{name}.lastconv.0" if layout.shuffles else f"{name}.lastconv")
        y = self.node("DepthToSpace", y, blocksize=2, mode="CRD") if layout.shuffles else y
        factor = scale if layout.shuffles else 2 * scale
        out = self._resized(self._cast(y, np.dtype("float32")), factor)
        delta = self.node("Mul", self._channels(out, 0, FLOW_CHANNELS), self.floats(factor))
        mask = self._channels(out, FLOW_CHANNELS, FLOW_CHANNELS + 1)
        first = FLOW_CHANNELS + 1
        carried = self._channels(out, first, first + layout.carried_channels) if layout.carried_channels else None
        return delta, mask, carried

    def _body(self, x: str, block: str) -> str:
        for k in range(BODY_LAYERS):
            name = f"{block}.convblock.{k}"
            if self.layout.body == "residual":
                y = self._conv(x, f"{name}.conv", groups=self.layout.groups, beta=f"{name}.beta")
                x = self._activated(self.node("Add", y, x))
            else:
                x = self._activated(self._conv(x, f"{name}.0"), f"{name}.1.weight")
        return x

    def _warped(self, images: Sequence[str], flow: str, first: int) -> list[str]:
        """Warp images backward by flow channels `first` (x) and `first + 1` (y)."""
        axes = []
        for channel, (index, last) in enumerate((self.columns, self.rows), start=first):
            moved = self.node("Squeeze", self._channels(flow, channel, channel + 1), self.integers(1))
            position = self.node("Div", self.node("Add", index, moved), last)  # 0..1
            scaled = self.node("Sub", self.node("Mul", position, self.floats(2)), self.floats(1))
            axes.append(self.node("Unsqueeze", scaled, self.integers(3)))
        grid = self.node("Concat", *axes, axis=3)
        options: dict[str, Any] = {"mode": "bilinear", "padding_mode": "border", "align_corners": 1}
        return [self.node("GridSample", image, grid, **options) for image in images]

    def _interpolate(self) -> str:
        head0, head1 = (self._head(frame) for frame in self.frames)
        frame0, frame1 = (self.node("Clip", frame, *self._unit()) for frame in self.frames)
        pair = _Pair(frame0, frame1, head0, head1)
        flow, mask, carried = self._block(0, [*pair.names(), self.time], None)
        warped = self._warped_pair(pair, flow)
        for index in range(1, self.layout.blocks):
            inputs = [*warped.names(), self.time, mask, *([carried] if carried else [])]
            delta, new_mask, carried = self._block(index, inputs, flow)
            flow = self.node("Add", flow, delta)
            mask = self.node("Add", mask, new_mask) if self.layout.mask_accumulates else new_mask
            is_last = index == self.layout.blocks - 1
            warped = self._warped_pair(_Pair(frame0, frame1, None, None) if is_last else pair, flow)
        weight0 = self.node("Sigmoid", mask)
        difference = self.node("Mul", self.node("Sub", warped.frame0, warped.frame1), weight0)
        return self.node("Add", warped.frame1, difference)

    def _warped_pair(self, pair: _Pair, flow: str) -> _Pair:
        warped = []
        for first, images in ((0, (pair.frame0, pair.head0)), (2, (pair.frame1, pair.head1))):
            names = self._warped([image for image in images if image], flow, first)
            warped.append((*names, None)[:2])
        (frame0, head0), (frame1, head1) = warped
        assert frame0
        assert frame1
        return _Pair(frame0, frame1, head0, head1)
