"""`vsrife models export`: what other programs read gives the pictures of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch
from numpy.typing import NDArray

from tests.clips import panned, psnr_db
from vsrife.checkpoints.export import export_onnx
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import IFNetWeights, load_model, read_ifnet
from vsrife.cli import main
from vsrife.networks.catalogue import LAYOUTS, Layout
from vsrife.networks.ifnet import IFNet

Array = NDArray[np.float32]


def random_net(layout: Layout) -> IFNet:
    """A network of random weights, whose channel factors are not all 1."""
    torch.manual_seed(1)
    net = IFNet(layout).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("beta"):
                parameter.uniform_(0.5, 1.5)
    return net


def weights_of(net: IFNet) -> IFNetWeights:
    tensors = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    return IFNetWeights(name="random", path=Path("random.pkl"), layout=net.layout, tensors=tensors, sha256="0" * 64)


def pair(width: int, height: int, batch: int = 1) -> tuple[Array, Array]:
    def frames(n: int) -> Array:
        return np.stack([panned(n, width, height, seed=seed).transpose(2, 0, 1) for seed in range(batch)])

    return frames(0), frames(2)


def run(path: Path, a: Array, b: Array, *timesteps: float) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the runtime warns of its own rewriting
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    times = np.array(timesteps, np.float32).reshape(-1, 1, 1, 1)
    inputs: dict[str, Any] = {"img0": a, "img1": b, "timestep": times}
    result: Array = session.run(["image"], inputs)[0]
    return result


def expected(net: IFNet, a: Array, b: Array, timestep: float, scale: float = 1.0) -> Array:
    with torch.inference_mode():
        image = net(torch.from_numpy(a), torch.from_numpy(b), timestep, scale=scale).image
    result: Array = image.numpy()
    return result


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.id)
def test_the_graph_of_every_layout_is_the_published_forward(layout: Layout, tmp_path: Path) -> None:
    net = random_net(layout)
    path = tmp_path / "net.onnx"
    export_onnx(weights_of(net), path)
    a, b = pair(70, 50)
    difference = float(np.abs(run(path, a, b, 0.3) - expected(net, a, b, 0.3)).max())
    print(f"{layout.id}: largest difference {difference:.1e}")
    assert difference < 1e-4


def test_one_file_takes_any_size_and_number_of_frames(tmp_path: Path) -> None:
    net = random_net(LAYOUTS["L10"])
    path = tmp_path / "net.onnx"
    export_onnx(weights_of(net), path)
    for width, height, batch in ((33, 1, 1), (64, 64, 1), (97, 131, 2)):
        a, b = pair(width, height, batch)
        image = run(path, a, b, 0.5)
        assert image.shape == a.shape
        np.testing.assert_allclose(image, expected(net, a, b, 0.5), atol=1e-4)
    np.testing.assert_allclose(run(path, a, b, 0.2, 0.5)[1], image[1], atol=1e-6)  # a time for each frame
    np.testing.assert_allclose(run(path, a, b, 0.2, 0.5)[0], expected(net, a, b, 0.2)[0], atol=1e-4)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2, 4])
def test_flow_scales(scale: float, tmp_path: Path) -> None:
    net = random_net(LAYOUTS["L10"])
    path = tmp_path / "net.onnx"
    export_onnx(weights_of(net), path, scale=scale)
    a, b = pair(70, 50)
    image, whole = run(path, a, b, 0.5), expected(net, a, b, 0.5)
    np.testing.assert_allclose(image, expected(net, a, b, 0.5, scale), atol=1e-4)
    assert not np.allclose(image, whole, atol=1e-4)


def test_a_command_exports_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, half = tmp_path / "rife.onnx", tmp_path / "half.onnx"
    assert main(["models", "export", "default", str(path)]) == 0
    assert main(["models", "export", "default", str(half), "--precision", "fp16"]) == 0
    assert capsys.readouterr().out == f"{path}\n{half}\n"
    assert half.stat().st_size < 0.55 * path.stat().st_size

    weights = read_ifnet(find_weights())
    net = IFNet(weights.layout).eval()
    net.load_state_dict(dict(weights.tensors))
    a, b = pair(96, 80)
    reference = expected(net, a, b, 0.5)
    np.testing.assert_allclose(run(path, a, b, 0.5), reference, atol=2e-4)
    assert psnr_db(run(half, a, b, 0.5), reference, 1) > 48

    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["source_sha256"] == weights.sha256
    assert properties["layout"] == weights.layout.id


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "F32"), ("fp16", "F16")])
def test_safetensors_come_back_as_a_model(precision: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "out.safetensors"
    assert main(["models", "export", "default", str(path), "--precision", precision]) == 0
    before, after = load_model(), load_model(path)
    assert after.layout == before.layout
    rounded = {
        name: tensor.half().float() if precision == "fp16" else tensor for name, tensor in before.tensors.items()
    }
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in rounded.items())
    with safetensors.safe_open(path, framework="numpy") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {dtype}  # noqa: SIM118
        assert file.metadata()["source_sha256"] == before.sha256


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.safetensors"
    path.write_text("mine")
    assert main(["models", "export", "default", str(path)]) == 1
    assert "out.safetensors exists already; replace it with --overwrite" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["models", "export", "default", str(path), "--overwrite"]) == 0
    assert load_model(path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["out.pt"], "OUT must end in .onnx or .safetensors, got 'out.pt'"),
        (["out.onnx", "--scale", "3"], "--scale is 0.25, 0.5, 1, 2 or 4 and for .onnx alone, got 3 for out.onnx"),
        (["out.safetensors", "--scale", "2"], "got 2 for out.safetensors"),
        (["out.onnx", "--precision", "bf16"], "'bf16' is not one of 'fp32', 'fp16'"),
    ],
)
def test_wrong_usage(options: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, *rest = options
    assert main(["models", "export", "default", str(tmp_path / target), *rest]) == 2
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "export", "default", str(tmp_path / "none" / "out.onnx")]) == 1
    assert "out.onnx cannot be written, got No such file or directory" in capsys.readouterr().err
