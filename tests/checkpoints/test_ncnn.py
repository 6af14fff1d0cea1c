"""Models of rife-ncnn-vulkan load as the same weights, or are refused with what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden import frame_pair, tensors
from tests.golden.legacy import legacy_tensors
from vsrife import interpolate
from vsrife.checkpoints.loading import load_model
from vsrife.errors import WeightsError
from vsrife.networks import legacy
from vsrife.networks.catalogue import LAYOUTS, LEGACY_LAYOUTS, MODELS, Layout, LegacyLayout, Shape

FLOAT16, FLOAT32 = 0x01306B47, 0
INT8 = (0x000D4B38).to_bytes(4, "little")
# Of the published .bin files, with weights in float16: flownet, then contextnet and fusionnet.
PUBLISHED_BYTES = {
    "L01": 10340416, "L02": 10322176, "L03": 10568176, "L04": 10629680, "L05": 10670240, "L06": 10793232,
    "L07": 5319056, "L08": 10793232, "L09": 6000912, "L10": 5257552, "L11": 30826032, "L12": 18713584, "L13": 9759728,
    "L14": 11360684, "L15": 11276252, "L16": 43376108, "L17": 11483660,
    "E01": (12677784, 799760, 7499380), "E02": (26885536, 3192340, 29962920), "E03": (30555792, 2387688, 23686092),
    "E04": (9113436, 2387688, 23686092), "E06": 6269556,
}  # fmt: skip


# --- a writer ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a graph and the data behind it.

    Attributes:
        kind: of the layer.
        keys: as the file has them.
        weight, plain: names of the tensors that follow with a flag word, and without one.
        norm: the batch normalisation to fold into the weight, which then yields the bias.
    """

    kind: str
    keys: str = ""
    weight: str = ""
    plain: str = ""
    norm: str = ""


class Writer:
    """Writes a model as the converters do: names of layers mean nothing, order means all."""

    def __init__(self, layout: Layout | LegacyLayout, weights: Mapping[str, Tensor], flag: int = FLOAT16) -> None:
        self.layout, self.weights, self.flag = layout, weights, flag

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name, rows in self.graphs().items():
            lines = [f"{row.kind} layer{i} 1 1 {i} {i + 1} {row.keys}".rstrip() for i, row in enumerate(rows)]
            text = "\n".join(["7767517", f"{len(lines)} {len(lines) + 1}", *lines, ""])
            (folder / f"{name}.param").write_text(text)
            (folder / f"{name}.bin").write_bytes(b"".join(part for row in rows for part in self.data(row)))
        return folder

    def data(self, row: Row) -> Iterator[bytes]:
        if row.weight:
            weight, bias = self.folded(row)
            stored = weight.transpose(0, 1) if row.kind == "Deconvolution" else weight
            raw = stored.numpy().astype("<f2" if self.flag == FLOAT16 else "<f4").tobytes()
            yield self.flag.to_bytes(4, "little") + raw + bytes(-len(raw) % 4)
            if bias is not None:
                yield bias.numpy().astype("<f4").tobytes()
        if row.plain:
            yield self.weights[row.plain].numpy().astype("<f4").tobytes()

    def folded(self, row: Row) -> tuple[Tensor, Tensor | None]:
        weight = self.weights[f"{row.weight}.weight"]
        if not row.norm:
            return weight, self.weights.get(f"{row.weight}.bias")
        scale, shift, mean, var = (self.weights[f"{row.norm}.{part}"] for part in NORM)
        factor = scale / torch.sqrt(var + 1e-5)
        return weight * factor[:, None, None, None], shift - mean * factor

    # In the order of `ifnet`: what a graph holds.

    def graphs(self) -> dict[str, list[Row]]:
        if isinstance(self.layout, Layout):
            return {"flownet": [*self.betas(), *self.head(), *self.head(), *self.blocks()]}
        found = {"flownet": self.legacy_blocks()}
        if self.layout.refiner:
            found |= {"contextnet": self.context(), "fusionnet": self.fusion()}
        return {name: list(rows) for name, rows in found.items()}

    def conv(self, name: str, keys: str = "", stride: int = 1, norm: str = "") -> Row:
        outputs, inputs, kernel, _ = self.weights[f"{name}.weight"].shape
        bias = " 5=1" if norm or f"{name}.bias" in self.weights else ""
        stride_key = f" 3={stride}" if stride > 1 else ""
        groups = self.layout.groups if isinstance(self.layout, Layout) and ".convblock." in name else 1
        kind, more = ("ConvolutionDepthWise", f" 7={groups}") if groups > 1 else ("Convolution", "")
        count = outputs * inputs * kernel**2
        return Row(
            kind, f"0={outputs} 1={kernel}{stride_key} 4={kernel // 2}{bias} 6={count}{more}{keys}", name, norm=norm
        )

    def deconv(self, name: str, keys: str = "") -> Row:
        inputs, outputs, *_ = self.weights[f"{name}.weight"].shape
        return Row("Deconvolution", f"0={outputs} 1=4 3=2 4=1 5=1 6={inputs * outputs * 16}{keys}", name)

    def prelu(self, name: str) -> Row:
        return Row("PReLU", f"0={len(self.weights[f'{name}.weight'])}", plain=f"{name}.weight")

    def resize(self, factor: float) -> Row:
        return Row("Interp", f"0=2 1={factor:e} 2={factor:e}")

    def betas(self) -> Iterator[Row]:
        for name, tensor in self.weights.items():
            if name.endswith(".beta"):
                yield Row("MemoryData", f"0=1 1=1 2={tensor.shape[1]}", plain=name)

    def head(self) -> Iterator[Row]:
        head = self.layout.head if isinstance(self.layout, Layout) else None
        if head is None:
            return
        for i, name in enumerate(head.names[:-1]):
            yield self.conv(f"encode.{name}", LEAKY if head.activated else "", 2 if i == 0 else 1)
        yield self.deconv(f"encode.{head.names[-1]}")

    def blocks(self) -> Iterator[Row]:
        assert isinstance(self.layout, Layout)
        for i, s in enumerate(self.layout.scales):
            block, body = f"block{i}", "conv" if self.layout.body == "residual" else "0"
            yield self.resize(1 / s)
            for name in ("conv0.0", "conv0.1"):
                yield from self.activated(f"{block}.{name}.0", f"{block}.{name}.1", 2)
            for k in range(8):
                name = f"{block}.convblock.{k}"
                if self.layout.body == "residual":
                    yield from (self.conv(f"{name}.{body}"), Row("BinaryOp", "0=2"), Row("BinaryOp"))
                    yield Row("ReLU", "0=2.000000e-01")
                else:
                    yield from self.activated(f"{name}.0", f"{name}.1")
            yield self.deconv(f"{block}.lastconv.0" if self.layout.shuffles else f"{block}.lastconv")
            yield self.resize(s)

    def activated(self, conv: str, slope: str, stride: int = 1) -> Iterator[Row]:
        """A convolution with PReLU behind, or with the LeakyReLU in it."""
        has_slopes = f"{slope}.weight" in self.weights
        yield self.conv(conv, "" if has_slopes else LEAKY, stride)
        if has_slopes:
            yield self.prelu(slope)

    def legacy_blocks(self) -> Iterator[Row]:
        layout = self.layout
        assert isinstance(layout, LegacyLayout)
        if layout.family == "attention":
            yield self.resize(0.5)
        for i, s in enumerate(layout.scales):
            block = f"block{i}"
            yield self.resize(1 / s)
            if layout.family == "attention":
                yield self.conv(f"{block}.conv0.0", stride=2, norm=f"{block}.conv0.1")
                yield self.prelu(f"{block}.conv0.2")
                for k in range(6):
                    yield from self.attention(f"{block}.res{k}")
                yield self.conv(f"{block}.conv1")
                continue
            for name in ("conv0.0", "conv0.1"):
                yield from self.activated(f"{block}.{name}.0", f"{block}.{name}.1", 2)
            for k in range({"E03": 6, "E04": 3, "E06": 8}[layout.id]):
                names = [f"convblock{k}.0", f"convblock{k}.1"] if layout.id == "E04" else [f"convblock.{k}"]
                for name in names:
                    yield from self.activated(f"{block}.{name}.0", f"{block}.{name}.1")
            yield self.deconv(f"{block}.lastconv" if layout.id == "E06" else f"{block}.conv1")

    def attention(self, name: str, stride: int = 1) -> Iterator[Row]:
        normed = f"{name}.conv1.2.weight" in self.weights
        if f"{name}.conv0.weight" in self.weights:
            yield self.conv(f"{name}.conv0", stride=stride)
        yield self.conv(f"{name}.conv1.0", stride=stride, norm=f"{name}.conv1.1" if normed else "")
        yield self.prelu(f"{name}.conv1.{2 if normed else 1}")
        yield self.conv(f"{name}.conv2.0", norm=f"{name}.conv2.1" if normed else "")
        slope = self.weights[f"{name}.relu1.weight"].item()
        for layer, keys in (("fc1", f"9=2 -23310=1,{slope:e}"), ("fc2", "9=4")):
            weight = self.weights[f"{name}.{layer}.weight"]
            yield Row("InnerProduct", f"0={len(weight)} 2={weight.numel()} {keys}", f"{name}.{layer}")
        yield self.prelu(f"{name}.relu2")

    def stage(self, name: str, stride: int = 2) -> Iterator[Row]:
        """A level of the context or refinement network."""
        if f"{name}.relu2.weight" in self.weights:
            yield from self.attention(name, stride)
        elif f"{name}.conv1.0.weight" in self.weights:
            yield from self.activated(f"{name}.conv1.0", f"{name}.conv1.1", stride)
            yield from self.activated(f"{name}.conv2.0", f"{name}.conv2.1")
        elif f"{name}.0.weight" in self.weights:
            yield from self.activated(f"{name}.0", f"{name}.1", stride)

    def context(self) -> Iterator[Row]:
        for k in range(5):
            yield from self.stage(f"contextnet.conv{k}")

    def fusion(self) -> Iterator[Row]:
        yield from self.stage("unet.conv0")
        for k in range(4):
            yield from self.stage(f"unet.down{k}")
        for k in range(4):
            yield self.deconv(f"unet.up{k}.0")
            yield self.prelu(f"unet.up{k}.1")
        is_deconv = self.weights["unet.conv.weight"].shape[-1] == 4
        yield self.deconv("unet.conv", " 9=4") if is_deconv else self.conv("unet.conv", " 9=4")


NORM = ("weight", "bias", "running_mean", "running_var")
LEAKY = " 9=2 -23310=1,2.000000e-01"


def layout_of(layout_id: str) -> Layout | LegacyLayout:
    return LAYOUTS.get(layout_id) or LEGACY_LAYOUTS[layout_id]


def shapes_of(layout: Layout | LegacyLayout) -> Mapping[str, Shape]:
    return layout.tensor_shapes() if isinstance(layout, Layout) else legacy.tensor_shapes(layout)


def weights_of(layout: Layout | LegacyLayout) -> dict[str, Tensor]:
    """Weights that the rules of the reference outputs give."""
    if isinstance(layout, LegacyLayout):
        return legacy_tensors("ncnn", layout)
    return tensors(next(name for name, spec in MODELS.items() if spec.layout == layout))


def written(layout_id: str, folder: Path, flag: int = FLOAT16) -> Path:
    layout = layout_of(layout_id)
    return Writer(layout, weights_of(layout), flag).write(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4.15.lite as a pair of files."""
    return written("L10", tmp_path_factory.mktemp("ncnn") / "rife-v4.15-lite")


@pytest.fixture
def pair(small: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    for path in small.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


# --- what loads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout_id", PUBLISHED_BYTES)
def test_the_writer_makes_files_of_the_published_sizes(layout_id: str) -> None:
    """So what the reader is tested with is in all likelihood what was published."""
    layout = layout_of(layout_id)
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in shapes_of(layout).items()}
    slopes = {n: torch.zeros(1) for n in weights if n.endswith("relu1.weight")}
    graphs = Writer(layout, {**weights, **slopes}).graphs()
    sizes = tuple(sum(map(math.prod, row_bytes(rows, weights))) for rows in graphs.values())
    expected = PUBLISHED_BYTES[layout_id]
    assert sizes == (expected if isinstance(expected, tuple) else (expected,))


def row_bytes(rows: list[Row], weights: Mapping[str, Tensor]) -> Iterator[tuple[int, int]]:
    """Count and size of the values behind each line."""
    for row in rows:
        if row.weight:
            count = weights[f"{row.weight}.weight"].numel()
            yield 1, 4 + 2 * count + -2 * count % 4
            bias = f"{row.norm or row.weight}.bias"
            yield 4, weights[bias].numel() if bias in weights else 0
        if row.plain:
            yield 4, weights[row.plain].numel()


@pytest.mark.parametrize("layout_id", ["L01", "L09", "L10", "E04", "E06"])
def test_tensors_are_those_of_the_other_format(layout_id: str, tmp_path: Path) -> None:
    folder = written(layout_id, tmp_path / "model")
    loaded = load_model(folder)
    assert loaded.layout is layout_of(layout_id)
    assert loaded.name == "model"
    expected = weights_of(loaded.layout)
    assert loaded.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        rounded = tensor.half().float() if tensor.ndim == 4 and not name.endswith(".beta") else tensor
        assert torch.equal(loaded.tensors[name], rounded), name
    same = load_model(folder / "flownet.param")
    assert same.sha256 == loaded.sha256


@torch.inference_mode()
def test_folded_normalisation_gives_the_same_network(tmp_path: Path) -> None:
    """Of HD v1 the graph holds no normalisation: the network is the same, the tensors are others."""
    layout = LEGACY_LAYOUTS["E01"]
    frames = frame_pair(32, 64)
    expected = legacy.load(layout, weights_of(layout))(*frames)

    def error(flag: int) -> float:
        loaded = load_model(written("E01", tmp_path / f"{flag}", flag))
        assert isinstance(loaded.layout, LegacyLayout)
        return float((legacy.load(loaded.layout, loaded.tensors)(*frames) - expected).abs().max())

    assert error(FLOAT32) <= 1e-5
    assert error(FLOAT16) <= 0.02


def test_a_folder_is_a_model(small: Path) -> None:
    a, b = (frame[0].permute(1, 2, 0).clamp(0, 1).numpy() for frame in frame_pair(40, 64))
    assert interpolate(a, b, 0.3, model=small).shape == (40, 64, 3)


def test_beta_may_be_part_of_the_convolutions(tmp_path: Path) -> None:
    layout = LAYOUTS["L04"]
    ones = {name: torch.ones_like(t) if name.endswith(".beta") else t for name, t in weights_of(layout).items()}
    writer = Writer(layout, ones)
    writer.betas = lambda: iter(())  # type: ignore[method-assign]
    loaded = load_model(writer.write(tmp_path / "rife-v4.6"))
    assert loaded.layout is layout
    assert all(bool((tensor == 1).all()) for name, tensor in loaded.tensors.items() if name.endswith(".beta"))


def test_equal_graphs_are_told_apart_by_the_folder(tmp_path: Path) -> None:
    """From 4.13 on the encoder clamps its frames, which no graph shows."""
    assert load_model(written("L06", tmp_path / "rife-v4.10")).layout is LAYOUTS["L06"]
    assert load_model((tmp_path / "rife-v4.10").rename(tmp_path / "other")).layout is LAYOUTS["L08"]


# --- what is refused --------------------------------------------------------------------------------------------------


def replaced(pattern: str, by: str, count: int = 1) -> Callable[[str], str]:
    def change(text: str) -> str:
        changed, times = re.subn(pattern, by, text, count=count, flags=re.MULTILINE)
        assert times
        return changed

    return change


def without_line(pattern: str) -> Callable[[str], str]:
    """One layer less, and the count says so."""

    def change(text: str) -> str:
        count = int(text.split()[1])
        return replaced(rf"^{pattern}.*\n", "")(text).replace(f"\n{count} ", f"\n{count - 1} ", 1)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda _: "<html>not found", r"flownet\.param is no ncnn graph as text, got '<html>not found' where 7767517"),
        (lambda text: text[: len(text) // 2], r"flownet\.param is (cut short or changed|damaged), got"),
        (
            replaced(r"(^Convolution layer.*0=64 .*) 3=2", r"\1 3=1"),
            r"is the graph of no known model, nearest is L10, but got Convolution layer\d+ where block0\.conv0\.0\.0 "
            r"\(Convolution 64×15×3×3, stride 2\) belongs; get the original files",
        ),
        (without_line(r"Convolution layer\d+ 1 1 \S+ \S+ 0=128"), r"nearest is L10, but got \w+ layer\d+ where block"),
        (without_line("ReLU"), r"has other activations than L10, got 45 LeakyReLU of slopes 0\.2 where 46 of 0\.2"),
        (replaced("ReLU (.*)0=2.0", r"ReLU \g<1>0=1.0"), r"got 46 LeakyReLU of slopes 0\.1, 0\.2 where 46 of 0\.2"),
        (replaced("-23310=1,2.0", "-23310=1,1.0"), r"nearest is L10, but got Convolution layer\d+ where encode\.cnn0"),
        (
            replaced(r"1=1\.25\S+ 2=1\.25\S+", "1=6.25e-02 2=6.25e-02"),
            r"resizes in another way than L10, got 0\.0625, 0\.25, 0\.5 where 0\.125, 0\.25, 0\.5 belong; get",
        ),
        (replaced(r"^Interp(.*) 0=2", r"Interp\1 0=1"), r"in another way than L10, got layer\d+ of another kind"),
    ],
    ids=["page", "cut", "stride", "layer less", "activation less", "slope", "fused slope", "factor", "nearest"],
)  # fmt: skip
def test_a_foreign_or_changed_graph_is_refused(change: Callable[[str], str], expected: str, pair: Path) -> None:
    graph = pair / "flownet.param"
    graph.write_text(change(graph.read_text()))
    with pytest.raises(WeightsError, match=expected):
        load_model(pair)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda data: data[:-4], r"flownet\.bin is cut short, got 5257548 bytes where layer layer\d+ ends at 5257552"),
        (lambda data: data[: len(data) // 2], r"flownet\.bin is cut short, got 2628776 bytes where layer"),
        (lambda data: data + bytes(4), r"flownet\.bin does not belong to its graph, got 5257556 bytes where 5257552"),
        (lambda _: b"", r"flownet\.bin is empty, got 0 bytes"),
        (lambda data: data.replace(b"\x47\x6b\x30\x01", INT8, 1), r"got flag 0x000d4b38 at layer layer32"),
        (lambda data: data[:-2] + b"\xc0\x7f", r"is damaged, got NaN or infinity in block3\.lastconv\.0\.bias"),
    ],
    ids=["cut", "half", "more", "empty", "int8", "not a number"],
)  # fmt: skip
def test_damaged_data_is_refused(change: Callable[[bytes], bytes], expected: str, pair: Path) -> None:
    data = pair / "flownet.bin"
    data.write_bytes(change(data.read_bytes()))
    with pytest.raises(WeightsError, match=expected):
        load_model(pair)


def test_the_encoder_must_be_the_same_for_both_frames(tmp_path: Path) -> None:
    writer = Writer(LAYOUTS["L10"], weights_of(LAYOUTS["L10"]))
    other = Writer(LAYOUTS["L10"], {name: t + 1 for name, t in writer.weights.items()})
    graph = writer.graphs()["flownet"]
    heads = [i for i, row in enumerate(graph) if row.weight.startswith("encode.")]
    folder = writer.write(tmp_path / "model")
    parts = [part for i, row in enumerate(graph) for part in (other if i == heads[-1] else writer).data(row)]
    (folder / "flownet.bin").write_bytes(b"".join(parts))
    with pytest.raises(WeightsError, match=r"got another encode\.cnn3 for frame 1"):
        load_model(folder)


def test_every_file_is_needed(tmp_path: Path, pair: Path) -> None:
    (pair / "flownet.bin").unlink()
    with pytest.raises(WeightsError, match=r"flownet\.bin does not exist; put all files of the model into one folder"):
        load_model(pair)
    folder = written("E04", tmp_path / "rife-v3.1")
    (folder / "fusionnet.param").rename(tmp_path / "fusionnet.param")
    with pytest.raises(WeightsError, match=r"fusionnet\.param does not exist; put all files"):
        load_model(folder)
    (folder / "fusionnet.param").write_bytes((folder / "contextnet.param").read_bytes())
    with pytest.raises(WeightsError, match=r"fusionnet\.param is not the graph of E04, got .* where unet\.conv0\."):
        load_model(folder)


def test_a_graph_with_the_ensemble_built_in_is_refused(tmp_path: Path) -> None:
    writer = Writer(LEGACY_LAYOUTS["E06"], weights_of(LEGACY_LAYOUTS["E06"]))
    blocks = writer.legacy_blocks
    writer.legacy_blocks = lambda: iter([*blocks(), *blocks()])  # type: ignore[method-assign]
    with pytest.raises(
        WeightsError, match=r"graph of no known model, nearest is E06, but got .* where the end belongs;"
    ):
        load_model(writer.write(tmp_path / "model"))


def test_numbers_as_text_are_the_slopes(tmp_path: Path) -> None:
    """The slope of the attention's PReLU is nowhere but in the graph."""
    loaded = load_model(written("E01", tmp_path / "model"))
    expected = weights_of(LEGACY_LAYOUTS["E01"])
    for name in (name for name in expected if name.endswith("relu1.weight")):
        assert np.isclose(loaded.tensors[name].item(), expected[name].item(), rtol=1e-6)
