"""Models before 4.x: recognised, equal to the authors' outputs, and run in the filter at any time."""

from __future__ import annotations

import json
import logging
import math
import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

import vsrife.filters.rife
from tests.clips import equal, pan, planes_of, psnr_db, spliced, texture
from tests.golden.legacy import LegacyCase, checksum, full_cases, legacy_output, legacy_tensors, own_cases
from vsrife import RIFE, interpolate
from vsrife.arrays import flow
from vsrife.checkpoints import finding
from vsrife.checkpoints.loading import LegacyWeights, load_model, read_ifnet
from vsrife.engine import legacy as engine_legacy
from vsrife.engine.cache import Cache
from vsrife.engine.color import difference_in_planes, to_rgb
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.legacy import MIDPOINTS_KEPT, frame_at, reachable
from vsrife.engine.sources import InputFrame
from vsrife.errors import OptionError, WeightsError
from vsrife.networks import legacy
from vsrife.networks.catalogue import LAYOUTS, LEGACY_LAYOUTS, LEGACY_MODELS, LegacyLayout, Refiner
from vsrife.networks.legacy import LegacyNet, tensor_shapes

LARGEST_ERROR = 2e-4  # float32 on any CPU against float32 on the authors' code; values in 0..1
SCALED = {  # of the full set
    "1.5_64x96_t0.5_s0.5", "2.0_64x96_t0.5_s2.0", "3.8_64x96_t0.5_s0.5", "3.8_64x96_t0.5_s2.0", "3.9_64x96_t0.5_s0.5",
    "RIFE_64x96_t0.5_s2.0", "RIFE_m_64x96_t0.5_s0.5", "RIFE_2R_64x96_t0.5_s0.5",
}  # fmt: skip

# Narrow variants of the generations: as quick as tests need, through every way of the forward pass.
SMALL: dict[str, LegacyLayout] = {
    "E01": replace(LEGACY_LAYOUTS["E01"], widths=(12, 8, 8), refiner=Refiner(width=4, attention=True)),
    "E04": replace(LEGACY_LAYOUTS["E04"], widths=(12, 8, 8), refiner=Refiner(width=4, stem=True)),
    "E05": replace(LEGACY_LAYOUTS["E05"], widths=(12, 8, 8)),
    "E07": replace(LEGACY_LAYOUTS["E07"], widths=(12, 8, 8), refiner=Refiner(width=4, masks=False)),
    "E08": replace(LEGACY_LAYOUTS["E08"], widths=(12, 8, 8), refiner=Refiner(width=4, masks=False)),
}  # fmt: skip


def small_net(layout_id: str, scale: float = 1.0) -> LegacyNet:
    return legacy.load(SMALL[layout_id], legacy_tensors("small", SMALL[layout_id]), scale=scale)


# --- the networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", own_cases(), ids=lambda case: case.key)
@torch.inference_mode()
def test_published_forward_equals_the_authors_output(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    assert_equals_output(case, request)


@torch.inference_mode()
def test_published_forward_at_other_flow_scales(golden_data: Path, request: pytest.FixtureRequest) -> None:
    cases = sorted(full_cases(golden_data / "legacy"), key=lambda case: case.version)
    assert len(cases) == 32
    for case in cases:
        if case.key in SCALED:
            assert_equals_output(case, request)


def assert_equals_output(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    net = legacy.load(case.layout, legacy_tensors(case.version), scale=case.scale)
    got = net(*case.frames, case.timestep)[0]
    expected = legacy_output(case, request)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= LARGEST_ERROR, case.key


def test_tensors_of_every_generation(golden_data: Path) -> None:
    """Names and shapes are those in the published checkpoints."""
    table = json.loads((golden_data / "legacy" / "tensors.json").read_text(encoding="ascii"))
    assert set(table["layouts"]) == set(LEGACY_LAYOUTS)
    for layout_id, shapes in table["layouts"].items():
        expected = {name: tuple(shape) for name, shape in shapes.items() if not name.endswith(legacy.COUNTER)}
        assert tensor_shapes(LEGACY_LAYOUTS[layout_id]) == expected
    assert {version: LEGACY_MODELS[version].layout.id for version in table["versions"]} == table["versions"]
    assert checksum(legacy_tensors("3.8")) == 0x430E444D  # so the rule gives the weights of the reference outputs
    assert checksum(legacy_tensors("1.2")) == 0x9C908F8C


def test_the_documentation_lists_them() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "models.md").read_text(encoding="utf-8")
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = {name.strip(): row for row in table for name in row[0].split(",")}
    for spec in LEGACY_MODELS.values():
        values = sum(math.prod(shape) for shape in tensor_shapes(spec.layout).values())
        _, _, files, count, times, refinement = (cell.strip() for cell in rows[spec.name])
        assert count == f"{values:,}"
        assert (times == "any") == spec.layout.takes_time
        assert (refinement == "yes") == (spec.layout.refiner is not None)
        assert ("contextnet" in files) == (spec.layout.id in ("E01", "E02", "E03", "E04"))


@pytest.mark.parametrize("layout_id", SMALL)
@torch.inference_mode()
def test_half_precision_stays_near(layout_id: str) -> None:
    """Coordinates, flow and blend are float32 whatever the convolutions are."""
    frames = own_cases()[0].frames
    net = small_net(layout_id)
    exact = net(*frames)
    half = legacy.load(net.layout, legacy_tensors("small", net.layout), dtype=torch.bfloat16)(*frames)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.02


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory of models, empty; nothing else is looked into."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(finding, "package_directory", lambda: tmp_path / "package")
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(folder))
    return folder


def filled(layout_id: str, value: float = 0.5) -> dict[str, Tensor]:
    """Cheap weights: every value the same, in memory once."""
    shapes = tensor_shapes(LEGACY_LAYOUTS[layout_id])
    return {name: torch.full((1,) * len(shape), value).expand(shape) for name, shape in shapes.items()}


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """What a release's contextnet.pkl or unet.pkl holds, or (block) its flownet.pkl."""
    cut = "" if part == "block" else f"{part}."
    return {name.removeprefix(cut): tensor for name, tensor in tensors.items() if name.startswith(part)}


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def save_release(layout_id: str, folder: Path) -> Path:
    """A folder as the releases have it."""
    tensors = filled(layout_id)
    if LEGACY_LAYOUTS[layout_id].family == "full" or not LEGACY_LAYOUTS[layout_id].refiner:
        save(tensors, folder / "flownet.pkl")
        return folder
    for part, name in (("block", "flownet"), ("contextnet", "contextnet"), ("unet", "unet")):
        save(part_of(tensors, part), folder / f"{name}.pkl")
    return folder


@pytest.mark.parametrize("layout_id", LEGACY_LAYOUTS)
def test_a_folder_as_released_is_recognised_by_its_tensors(layout_id: str, tmp_path: Path) -> None:
    folder = save_release(layout_id, tmp_path / "train_log")
    (folder / "IFNet_HDv3.py").write_text("raise SystemExit('never run')\n")
    loaded = load_model(folder)
    assert isinstance(loaded, LegacyWeights)
    assert loaded.layout.id == {"E09": "E07"}.get(layout_id, layout_id)  # the same tensors: only the user can tell
    assert loaded.name == "train_log"
    assert {n: tuple(t.shape) for n, t in loaded.tensors.items()} == tensor_shapes(loaded.layout)
    assert load_model(folder / "flownet.pkl").sha256 == loaded.sha256


def test_what_a_file_may_hold_beside(tmp_path: Path) -> None:
    """Teachers, and counters of batch normalisation, are left out."""
    more = {"block_tea.conv0.0.0.weight": torch.ones(45, 8, 3, 3), "teacher.x": torch.ones(1)}
    loaded = load_model(save({**filled("E05"), **more}, tmp_path / "HDv3.pkl"))
    assert isinstance(loaded, LegacyWeights)
    assert (loaded.layout.id, loaded.name) == ("E05", "HDv3")
    counters = {f"block0.res{i}.conv1.1.num_batches_tracked": torch.tensor(5) for i in range(6)}
    whole = load_model(save({**filled("E01"), **counters}, tmp_path / "one file.pkl"))  # parts in one file
    assert isinstance(whole, LegacyWeights)
    assert whole.layout.id == "E01"


def test_4_0_with_its_refinement_is_4_0(tmp_path: Path) -> None:
    tensors = {name: torch.ones(shape) for name, shape in LAYOUTS["L01"].tensor_shapes().items()}
    paper = filled("E07")
    tensors |= {name: t for name, t in paper.items() if name.startswith(("contextnet.", "unet."))}
    assert load_model(save(tensors, tmp_path / "flownet.pkl")).layout is LAYOUTS["L01"]


def test_the_large_paper_model_is_named(tmp_path: Path, cache: Path) -> None:
    path = save(filled("E09"), tmp_path / "large.pkl")
    named = load_model(f"RIFE_2R:{path}")
    assert named.layout is LEGACY_LAYOUTS["E09"]
    assert named.name == "RIFE_2R"
    save_release("E09", cache / "RIFE_2R")
    assert load_model("rife_2r").layout is LEGACY_LAYOUTS["E09"]
    with pytest.raises(WeightsError, match=r"large\.pkl is not 3\.8, got the tensors of RIFE \(the paper's model\);"):
        load_model(f"3.8:{path}")


def test_a_version_that_is_not_here_says_where_to_put_it(cache: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"^the weights of 2\.3 are not in .*; it cannot be downloaded: get its release"
    ):
        load_model("v2.3")
    save_release("E03", cache / "2.3")
    assert load_model("v2.3").layout is LEGACY_LAYOUTS["E03"]
    with pytest.raises(OptionError, match=r"got '2\.9'; did you mean .*and before 4\.x 1\.2, 1\.5,"):
        load_model("2.9")


def without(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            lambda t: {"flownet": part_of(t, "block"), "unet": part_of(t, "unet")},
            r"flownet\.pkl is the flow network of 3\.0, 3\.1 \(HD v3\.0, v3\.1\), got no contextnet\.pkl beside it;",
        ),
        (
            lambda t: {"flownet": part_of(t, "block")},
            r"got no contextnet\.pkl and no unet\.pkl beside it; put all files of the release into one folder",
        ),
        (
            lambda t: {
                "flownet": part_of(t, "block"), "contextnet": part_of(t, "unet"), "unet": part_of(t, "contextnet")
            },
            r"fits no RIFE generation, nearest is that of 3\.0, 3\.1 .* \(E04\), but got .*missing: contextnet\.conv1",
        ),
        (
            lambda t: {"flownet": without(t, "block1.conv1.bias")},
            r"nearest is that of 3\.0, 3\.1 .* but got missing: block1\.conv1\.bias 4; get the files again",
        ),
        (
            lambda t: {"flownet": {**t, "block3.extra": torch.ones(2)}},
            r"but got unknown: block3\.extra 2; get the files again",
        ),
        (
            lambda t: {"flownet": part_of(t, "contextnet")},
            r"flownet\.pkl is a contextnet of 2\.0.* alone; give the flownet file, or the folder of all files$",
        ),
        (lambda _: {"contextnet": {}}, r"is a folder without a model, got none of flownet\.pkl, flownet\.pth"),
    ],
    ids=["no context", "flow alone", "exchanged", "damaged", "foreign", "context alone", "no flownet"],
)  # fmt: skip
def test_what_is_missing_or_foreign_is_named(
    files: Callable[[Mapping[str, Tensor]], dict[str, dict[str, Tensor]]], expected: str, tmp_path: Path
) -> None:
    for name, tensors in files(filled("E04")).items():
        save(tensors, tmp_path / f"{name}.pkl")
    with pytest.raises(WeightsError, match=expected):
        load_model(tmp_path)


def test_other_tools_say_that_a_model_is_older(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"is a model before 4\.x, 3\.8 \(HDv3 of June 2021\); only 4\.x can be used here"
    ):
        read_ifnet(save(filled("E05"), tmp_path / "a.pkl"))


# --- times between ----------------------------------------------------------------------------------------------------


def test_times_that_are_reached() -> None:
    assert [reachable(t) for t in (0.5, 0.25, 3 / 8, 1 / 1024)] == [Fraction(t) for t in (0.5, 0.25, 3 / 8, 1 / 1024)]
    assert reachable(1 / 3) == Fraction(21, 64)
    assert [reachable(t) for t in (0.001, 0.999)] == [0, 1]
    assert max(abs(reachable(n / 1001) - Fraction(n, 1001)) for n in range(1, 1001)) <= Fraction(1, 128)


@pytest.mark.parametrize("parts", [2, 8, 64])
@pytest.mark.parametrize("step", [1, -1])
def test_every_frame_of_a_pair_is_made_once(parts: int, step: int) -> None:
    """With a line for a clip, a frame is its own time: it is right, and few are kept."""
    made: list[Fraction] = []

    def midpoint(before: Fraction, after: Fraction, _key: Hashable, _read_again: bool) -> Fraction:
        made.append((before + after) / 2)
        return made[-1]

    cache = Cache(2)
    for n in range(1, parts)[::step]:
        time = Fraction(n, parts)
        assert frame_at(cache, Fraction(0), Fraction(1), "pair", time, midpoint) == time
        assert len(cache.keys("midpoint")) <= MIDPOINTS_KEPT
    assert sorted(made) == [Fraction(n, parts) for n in range(1, parts)]


def engine_pair(fmt: str = "RGBS", width: int = 70, height: int = 46) -> tuple[PictureFormat, list[InputFrame]]:
    clip = pan(2, width, height, fmt)
    known = clip.format
    floating = known.sample_type == vs.FLOAT
    family: Any = known.color_family.name
    picture_format = PictureFormat(
        family, known.bits_per_sample, floating, width, height, known.subsampling_w, known.subsampling_h
    )
    color = Colorimetry(matrix=1, full_range=family == "RGB", chroma_location=0)
    return picture_format, [InputFrame(n, planes_of(clip, n), color) for n in range(2)]


@torch.inference_mode()
def test_a_quarter_is_the_middle_of_unrounded_padded_middles() -> None:
    net = small_net("E07")
    fmt, pictures = engine_pair()
    first, second = (
        torch.nn.functional.pad(torch.from_numpy(np.stack(p.planes))[None], (0, 96 - 70, 0, 64 - 46)) for p in pictures
    )
    middle = net(first, second)
    expected = net(first, middle)[0, :, :46, :70]
    got = Engine(net, fmt).interpolate(pictures[0], pictures[1], 0.25, out="device")
    assert got is not None
    assert (torch.stack(got) - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("layout_id", ["E05", "E07"])
@pytest.mark.parametrize("fmt", ["YUV420P8", "RGBS"])
def test_order_of_requests_does_not_matter(layout_id: str, fmt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = small_net(layout_id)
    picture_format, (left, right) = engine_pair(fmt)
    times = [n / 4 for n in range(1, 4)] + [1 / 3]

    def frames(order: list[float], engine: Engine) -> dict[float, list[NDArray[Any]]]:
        return {t: [p.numpy() for p in engine.interpolate(left, right, t, out="device") or ()] for t in order}

    linear = frames(times, Engine(net, picture_format))
    shuffled = random.Random(1).sample(times, len(times))
    for kept in (MIDPOINTS_KEPT, 1):
        monkeypatch.setattr(engine_legacy, "MIDPOINTS_KEPT", kept)
        again = frames(shuffled, Engine(net, picture_format))
        assert all(equal(linear[t], again[t]) for t in times)
    assert not equal(linear[0.25], linear[0.5])


def test_rounded_times_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    engine_legacy.warn_inexact.cache_clear()
    fmt, (left, right) = engine_pair()
    engine = Engine(small_net("E05"), fmt)
    with caplog.at_level(logging.WARNING, logger="vsrife"):
        engine.interpolate(left, right, 0.25, out="device")
        assert not caplog.records
        engine.interpolate(left, right, 1 / 3, out="device")
        engine.interpolate(left, right, 0.3, out="device")
    assert len(caplog.records) == 1
    assert "exactly for powers of two and otherwise to the nearest 1/64 of a frame" in caplog.text


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_arrays_give_the_published_picture(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    case = next(case for case in own_cases() if case.key == "3.8_45x70_t0.5")
    path = tmp_path / "flownet.pkl"
    torch.save(legacy_tensors("3.8"), path)
    a, b = (frame[0].permute(1, 2, 0).numpy() for frame in case.frames)
    got = interpolate(a, b, model=path, precision="fp32")
    assert np.abs(got.transpose(2, 0, 1) - legacy_output(case, request).numpy()).max() <= LARGEST_ERROR
    found = flow(a, b, model=path)
    assert found.to_a.shape == (45, 70, 2)
    with pytest.raises(OptionError, match=r"timestep must be 0\.5 for the motion of 3\.8 .*, got 0\.3; models from"):
        flow(a, b, 0.3, model=path)
    with pytest.raises(OptionError, match=r"timestep must be one number for 3\.8 .*, got one for every pixel"):
        interpolate(a, b, np.full((45, 70), 0.5, np.float32), model=path)
    with pytest.raises(OptionError, match=r"ensemble must be False for models before 4\.x, got True for flownet"):
        interpolate(a, b, model=path, ensemble=True)


def test_a_time_for_every_pixel_where_the_network_takes_a_time() -> None:
    fmt, (left, right) = engine_pair()
    engine = Engine(small_net("E08"), fmt)
    times = torch.full((46, 70), 0.3)
    times[:, :10], times[:, 60:] = 0, 1
    got, uniform = (
        engine.interpolate(left, right, times, out="device"),
        engine.interpolate(left, right, 0.3, out="device"),
    )
    assert got is not None
    assert uniform is not None
    for plane, before, after in zip(got, left.planes, right.planes, strict=True):
        assert (plane[:, :10] - torch.as_tensor(before)[:, :10]).abs().max() <= 1e-6
        assert (plane[:, 60:] - torch.as_tensor(after)[:, 60:]).abs().max() <= 1e-6
    same = engine.interpolate(left, right, torch.full((46, 70), 0.3), out="device")
    assert same is not None
    assert all((a - b).abs().max() <= 1e-6 for a, b in zip(same, uniform, strict=True))


@pytest.mark.parametrize("layout_id", ["E01", "E04", "E05", "E08"])
def test_native_planes_show_the_published_picture(layout_id: str) -> None:
    """8-bit RGB is the published picture, rounded; YUV is near it: what the refinement adds is converted."""
    net = small_net(layout_id)
    published, rounded, yuv = (halfway(net, *engine_pair(fmt)) for fmt in ("RGBS", "RGB24", "YUV444P16"))
    expected = torch.stack(published).clamp(0, 1).numpy()
    inner = np.s_[:, 12:-12, 12:-12]  # at the border the network sees zeros, native planes do not
    assert psnr_db(torch.stack(rounded).numpy()[inner] / 255, expected[inner], 1.0) > 40
    fmt, (picture, _) = engine_pair("YUV444P16")
    seen = to_rgb([plane[None, None] for plane in yuv], fmt, picture.color)[0].clamp(0, 1).numpy()
    assert psnr_db(seen[inner], expected[inner], 1.0) > 34


def halfway(net: LegacyNet, fmt: PictureFormat, pair: list[InputFrame]) -> tuple[Tensor, ...]:
    planes = Engine(net, fmt).interpolate(pair[0], pair[1], 0.5, out="device")
    assert planes is not None
    return planes


@pytest.mark.parametrize("matrix", [1, 6, 8, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_a_difference_of_rgb_in_planes(matrix: int, full_range: bool) -> None:
    """Added to the planes, it is added to what the network sees of them."""
    fmt = PictureFormat("YUV", 12, False, 16, 8)
    color = Colorimetry(matrix, full_range, 0)
    generator = torch.Generator().manual_seed(1)
    planes = [torch.rand(1, 1, 8, 16, generator=generator) * fmt.peak for _ in range(3)]
    difference = torch.rand(1, 3, 8, 16, generator=generator) - 0.5
    more = difference_in_planes(difference, fmt, color)
    changed = to_rgb([a + b for a, b in zip(planes, more, strict=True)], fmt, color)
    assert (changed - to_rgb(planes, fmt, color) - difference).abs().max() <= 1e-4


@pytest.mark.parametrize("layout_id", ["E05", "E07"])
def test_what_stands_still_keeps_its_codes(layout_id: str) -> None:
    """The left half is equal in both, but for where the flow reaches over."""
    fmt, (left, right) = engine_pair("YUV420P8")
    fmt = replace(fmt, width=256, height=32)
    still, moved = (rgb_codes(texture(256, 64, seed)[:32]) for seed in (1, 2))
    after = [plane.copy() for plane in still]
    for plane, other in zip(after, moved, strict=True):
        plane[:, -plane.shape[1] // 4 :] = other[:, -plane.shape[1] // 4 :]
    pair = InputFrame(0, still, left.color), InputFrame(1, after, right.color)
    got = Engine(small_net(layout_id), fmt).interpolate(*pair, 0.25, out="device")
    assert got is not None
    for made, before in zip(got, still, strict=True):
        plane = made.numpy()
        assert np.array_equal(plane[:, : plane.shape[1] // 4], before[:, : before.shape[1] // 4])
    assert not np.array_equal(got[0].numpy(), still[0])


def rgb_codes(picture: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """Codes that serve as planes of 4:2:0."""
    codes = (picture * 255).astype(np.uint8)
    return [codes[..., 0].copy(), codes[::2, ::2, 1].copy(), codes[::2, ::2, 2].copy()]


# --- the filter -------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Filters run a narrow network: HD v3 with a refinement; this counts how often."""
    counted: list[float] = []
    real = LegacyNet.estimate

    def estimate(self: LegacyNet, a: Any, b: Any, timestep: Any = 0.5, *rest: Any) -> Any:
        counted.append(timestep)
        return real(self, a, b, timestep, *rest)

    monkeypatch.setattr(LegacyNet, "estimate", estimate)
    monkeypatch.setattr(vsrife.filters.rife, "network", lambda options: small_net("E04", options.scale))
    return counted


@pytest.mark.parametrize(
    ("fmt", "width", "height"),
    [("YUV420P8", 70, 46), ("YUV422P10", 34, 17), ("YUV444PS", 33, 18), ("GRAY16", 31, 17), ("RGBH", 17, 33),
     ("RGB30", 40, 24)],
)  # fmt: skip
@pytest.mark.usefixtures("runs")
def test_formats_and_odd_sizes(fmt: str, width: int, height: int) -> None:
    clip = pan(3, width, height, fmt)
    output = RIFE(clip, 4, sc_threshold=1.0)
    assert (output.format.id, output.width, output.height) == (clip.format.id, width, height)
    for n in range(9):
        frame = planes_of(output, n)
        assert equal(frame, planes_of(clip, n // 4)) == (n % 4 == 0)
        assert all(np.isfinite(plane.astype(np.float32)).all() for plane in frame)


def test_linear_and_random_access_agree_and_nothing_is_made_twice(runs: list[float]) -> None:
    clip = pan(3, 64, 48)
    output = RIFE(clip, 8, sc_threshold=1.0)
    linear = [planes_of(output, n) for n in range(output.num_frames)]
    assert len(runs) == 2 * 7
    order = random.Random(2).sample(range(output.num_frames), output.num_frames)
    again = RIFE(clip, 8, sc_threshold=1.0)
    assert all(equal(planes_of(again, n), linear[n]) for n in order)


@pytest.mark.usefixtures("runs")
def test_nothing_is_blended_across_a_cut() -> None:
    clip = spliced(2, 2)
    output = RIFE(clip, 4)
    before, after = planes_of(clip, 1), planes_of(clip, 2)
    assert all(equal(planes_of(output, n), before if n < 6 else after) for n in range(4, 9))


@pytest.mark.usefixtures("runs")
def test_flow_scale_and_carried_clips() -> None:
    clip = pan(2, 64, 48)
    coarse, carried = RIFE(clip, 4, scale=0.5, sc_threshold=1.0, carry=[pan(2, 32, 24, "GRAYS")])
    assert not equal(planes_of(coarse, 1), planes_of(RIFE(clip, 4, sc_threshold=1.0), 1))
    moved = planes_of(carried, 1)[0]
    assert moved.shape == (24, 32)
    assert not np.array_equal(moved, planes_of(carried, 0)[0])
