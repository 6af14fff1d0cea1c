"""`python -m training.evaluate` on real footage with known figures, and on sets laid out as RIFE's authors have it."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.color
import torch
from PIL import Image

from tests import golden
from tests.golden.legacy import legacy_tensors
from training.authors import AUTHORS_SETS, HD_FILES, MIDDLEBURY, RawVideo, hd_set, read_raw
from training.evalsets import EvalSet, EvaluationError, Feeding, dropped, find_sets
from training.evaluate import Method, evaluate, main, means, worst
from vsrife.checkpoints.finding import package_directory
from vsrife.evaluation.metrics import Image8, psnr_db
from vsrife.networks.catalogue import BUNDLED_FILE, LEGACY_MODELS

BOOTSTRAP = "bootstrap-4.25"


def run(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """The command's output; it must succeed."""
    code = main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def refused(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    """What the command says when it cannot go on."""
    code = main([str(argument) for argument in argv])
    out, err = capsys.readouterr()
    assert code == 1
    assert "Traceback" not in err + out
    return err


def table(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of `scores.csv` by set and method."""
    with path.open(newline="") as file:
        return {(row["set"], row["method"]): row for row in csv.DictReader(file)}


def noise(height: int, width: int, seed: int) -> Image8:
    grain = np.random.default_rng(seed).random((height, width, 3))
    smooth = cv2.GaussianBlur(grain, (0, 0), 2)
    return np.round(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def write(path: Path, picture: Image8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def load(path: Path) -> Image8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# --- figures that are known -------------------------------------------------------------------------------------------


def test_ucf101_reproduces_known_figures_and_the_bundled_weights_beat_blending(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 95 triplets that are kept: baselines as the data's README states them, in the authors' folder layout."""
    (tmp_path / "UCF101").mkdir()
    (tmp_path / "UCF101" / "ucf101_interp_ours").symlink_to(shared_data / "eval" / "ucf101")
    out = run(
        capsys, "--authors", "ucf101", "--root", tmp_path, "-o", tmp_path / "out", "--no-perceptual", "--worst", "1"
    )
    assert "UCF101: 95 pictures" in out
    assert "35.282 dB" in out  # what the paper's model reaches on all 379
    rows = table(tmp_path / "out" / "scores.csv")
    for method, decibels, similarity in (
        ("repeat", 31.129, 0.9206),
        ("blend", 33.041, 0.9500),
        ("dis", 34.170, 0.9610),
    ):
        row = rows["UCF101", method]
        assert float(row["psnr_db"]) == pytest.approx(decibels, abs=0.01)
        assert float(row["ssim"]) == pytest.approx(similarity, abs=1e-4)
        assert f"{decibels:.2f}" in out
    (ours,) = (row for (_, method), row in rows.items() if method not in ("repeat", "blend", "dis"))
    assert float(ours["psnr_db"]) >= 33.041 + 0.4
    assert float(ours["ssim"]) > 0.9500
    assert load(tmp_path / "out" / "scores.png").shape[1] > 500
    with (tmp_path / "out" / "items.csv").open(newline="") as file:
        lowest = min(
            (float(row["psnr_db"]), row["item"]) for row in csv.DictReader(file) if row["method"] == ours["method"]
        )
    (strip,) = (tmp_path / "out" / "strips").iterdir()
    assert strip.stem == f"UCF101_{lowest[1]}_0.5"
    check_strip(strip, shared_data / "eval" / "ucf101" / lowest[1], lowest[0])


def check_strip(path: Path, triplet: Path, decibels: float) -> None:
    """The first row: source before, ours, truth and four times their difference, at full size."""
    canvas, side = load(path), 256
    source, ours, truth, error = (canvas[24 : 24 + side, 6 + i * (side + 6) :][:, :side] for i in range(4))
    assert np.array_equal(source, load(triplet / "frame_00.webp"))
    assert np.array_equal(truth, load(triplet / "frame_01_gt.webp"))
    assert psnr_db(ours, truth) == pytest.approx(decibels, abs=1e-3)
    assert np.array_equal(error, np.minimum(4 * np.abs(ours.astype(int) - truth), 255))


def test_published_forward_reaches_what_the_weights_card_says(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """33.61 dB over the 95 triplets in float32, without the engine's rule that equal parts stay as they are."""
    weights = shared_data / "models" / f"{BOOTSTRAP}.safetensors"
    options = ("--forward", "published", "-b", "none", "--no-perceptual", "-m", weights)
    out = run(capsys, shared_data / "eval" / "ucf101", *options, "-o", tmp_path, "--worst", "0")
    assert "networks run as: published" in out
    assert float(table(tmp_path / "scores.csv")["ucf101", BOOTSTRAP]["psnr_db"]) == pytest.approx(33.61, abs=0.01)


def test_bundled_models_reach_what_their_cards_say(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On every set the default is better than the published network it comes from, and the smaller ones come near."""
    sets = {"UCF101": "ucf101", "Middlebury": "middlebury_other", "DAVIS": "davis"}
    folders = [shared_data / "eval" / name for name in sets.values()]
    models = {BUNDLED_FILE, "lite.safetensors", "fast.safetensors"}
    chosen = [word for name in sorted(models) for word in ("-m", package_directory() / name)]
    options = ("--forward", "published", "-b", "none", "--no-perceptual", "-o", tmp_path, "--worst", "0")
    run(capsys, *folders, *chosen, *options)
    rows = {key: float(row["psnr_db"]) for key, row in table(tmp_path / "scores.csv").items()}
    for name in (Path(model).stem for model in models):
        card = (package_directory() / f"{name}.md").read_text(encoding="utf-8")
        ours, published = (
            {title: float(re.search(rf"^\| {title}[^|]*\|{skipped} ([\d.]+)", card, re.MULTILINE)[1]) for title in sets}  # type: ignore[index]
            for skipped in ("", "[^|]*\\|")
        )
        assert {title: rows[folder, name] for title, folder in sets.items()} == pytest.approx(ours, abs=0.01)
        if name != "fast":
            assert all(ours[title] > published[title] - (0.4 if name == "lite" else 0) for title in sets)
    assert all(rows[folder, "fast"] > rows[folder, "lite"] - 1.0 for folder in sets.values())


def test_sequences_are_rebuilt_at_4x(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = shared_data / "eval" / "sequences" / "caminandes.mp4"
    run(
        capsys,
        clip,
        "--multi",
        "4",
        "-b",
        "blend",
        "-b",
        "dis",
        "--limit",
        "8",
        "-o",
        tmp_path,
        "--no-perceptual",
        "--worst",
        "1",
    )
    rows = table(tmp_path / "scores.csv")
    for method, decibels, similarity in (("blend", 28.36, 0.8802), ("dis", 29.36, 0.8773)):
        row = rows["caminandes 4x", method]
        assert row["pictures"] == "24"
        assert float(row["psnr_db"]) == pytest.approx(decibels, abs=0.01)
        assert float(row["ssim"]) == pytest.approx(similarity, abs=1e-4)


def test_several_models_in_one_run(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A copy scores the same under its own name, and lines up with the original."""
    original = shared_data / "models" / f"{BOOTSTRAP}.safetensors"
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(original.read_bytes())
    out = run(capsys, shared_data / "eval" / "ucf101", "--limit", "2", "-m", original, "-m", copy, "-b", "blend")
    ours, again, blend = (line.split() for line in out.splitlines()[-3:])
    assert (ours[0], again[0], blend[0]) == (BOOTSTRAP, "copy", "blend")
    assert ours[1:] == again[1:] != blend[1:]
    assert len(ours) == 5  # PSNR, SSIM, IE, SSIMULACRA2


@pytest.mark.parametrize("version", ["3.8", "4.15.lite"])
def test_both_ways_to_run_a_network_agree(version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also for a model before 4.x, which reaches a quarter by halving twice. Only what is equal in both frames may
    differ; here nothing is."""
    weights = tmp_path / "weights.pkl"
    torch.save(legacy_tensors(version) if version in LEGACY_MODELS else golden.tensors(version), weights)
    for n in range(5):
        write(tmp_path / "in" / f"{n}.png", noise(64, 96, n))
    for forward in ("engine", "published"):
        options = ("--multi", "4", "-m", weights, "-b", "none", "--no-perceptual", "--forward", forward)
        run(capsys, tmp_path / "in", *options, "-o", tmp_path / forward, "--worst", "0")
    engine, published = ((tmp_path / name / "items.csv").read_text().splitlines() for name in ("engine", "published"))
    assert len(engine) == len(published) == 4
    for a, b in zip(engine[1:], published[1:], strict=True):
        first, second = (line.split(",") for line in (a, b))
        assert first[:4] == second[:4]
        assert float(first[4]) == pytest.approx(float(second[4]), abs=0.01)


# --- the authors' sets ------------------------------------------------------------------------------------------------


def test_middlebury_has_the_figures_of_the_data_and_the_scripts_canvas(shared_data: Path, tmp_path: Path) -> None:
    """The six kept sequences stand in for all twelve, each for its neighbour, so the means are those of the six."""
    kept = sorted((shared_data / "eval" / "middlebury_other").iterdir())
    for i, name in enumerate(MIDDLEBURY):
        for source, target in (
            ("frame_00", tmp_path / "other-data" / name / "frame10.png"),
            ("frame_02", tmp_path / "other-data" / name / "frame11.png"),
            ("frame_01_gt", tmp_path / "other-gt-interp" / name / "frame10i11.png"),
        ):
            write(target, load(kept[i // 2] / f"{source}.webp"))
    (evalset,) = AUTHORS_SETS["middlebury"].open(tmp_path)
    shapes: set[tuple[int, ...]] = set()
    corners = []

    def network(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:
        shapes.add(first.shape)
        corners.append(first[0, 0])
        yield from (((first.astype(float) + last) / 2).round().astype(np.uint8) for _ in times)

    (scores,) = evaluate(evalset, [Method("net", network, fed=True)], ["psnr_db", "ie"]).values()
    assert shapes == {(480, 640, 3)}  # zeros to the right and below
    first = next(evalset.items()).first
    assert np.array_equal(corners[0], first[0, 0, ::-1])  # BGR
    assert means(scores)["psnr_db"] == pytest.approx(25.465, abs=0.01)
    item = next(evalset.items())
    blend = np.rint((item.first.astype(float) + item.last) / 2)
    assert scores[0].values["ie"] == pytest.approx(np.abs(blend - item.truths[0.5]).mean())
    (tmp_path / "other-gt-interp" / "Venus" / "frame10i11.png").unlink()
    with pytest.raises(EvaluationError, match=r"Middlebury OTHER must be whole, got no .*Venus.frame10i11\.png"):
        AUTHORS_SETS["middlebury"].open(tmp_path)


def test_vimeo90k_takes_what_its_list_names(tmp_path: Path) -> None:
    folder = tmp_path / "vimeo_interp_test"
    for name in ("00001/0001", "00001/0002", "00002/0005"):
        for i in (1, 2, 3):
            write(folder / "target" / name / f"im{i}.png", np.full((8, 8, 3), i * 10, np.uint8))
    (folder / "tri_testlist.txt").write_text("00002/0005\n00001/0001\n\n")
    (evalset,) = AUTHORS_SETS["vimeo90k"].open(tmp_path)
    items = list(evalset.items())
    assert [item.name for item in items] == ["00002/0005", "00001/0001"]
    assert [int(p[0, 0, 0]) for p in (items[0].first, items[0].truths[0.5], items[0].last)] == [10, 20, 30]
    assert evalset.feeding(items[0].first) == Feeding(bgr=True)


def raw_frames(path: Path, width: int, height: int, count: int) -> list[bytes]:
    """Writes a raw 4:2:0 file of noise."""
    random = np.random.default_rng(count)
    frames = [random.integers(0, 256, width * height * 3 // 2, np.uint8).tobytes() for _ in range(count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(frames))
    return frames


def scripts_rgb(data: bytes, width: int, height: int) -> Image8:
    """As the scripts make it, with scikit-image and Pillow's default."""
    planes = np.frombuffer(data, np.uint8)
    y, u, v = np.split(planes, [width * height, width * height * 5 // 4])
    full = [np.array(Image.fromarray(c.reshape(height // 2, width // 2)).resize((width, height))) for c in (u, v)]
    yuv = np.stack([y.reshape(height, width) / 255.0, full[0] / 255.0 - 0.5, full[1] / 255.0 - 0.5], axis=-1)
    rgb: Image8 = (255.0 * np.clip(skimage.color.yuv2rgb(yuv), 0, 1)).astype(np.uint8)
    return rgb


def test_hd_frames_and_scores_are_those_of_the_scripts(tmp_path: Path) -> None:
    """Two small files of different length: luma PSNR, mean in each file first, then over files."""
    videos = [RawVideo("a.yuv", 64, 48, "720p"), RawVideo("b.yuv", 32, 16, "720p")]
    frames = [raw_frames(tmp_path / v.path, v.width, v.height, count) for v, count in zip(videos, (6, 4), strict=True)]
    assert np.array_equal(next(read_raw(tmp_path, videos[0], 1)), scripts_rgb(frames[0][0], 64, 48))

    fed: list[Image8] = []

    def network(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:  # noqa: ARG001
        fed.append(first)
        yield from (first for _ in times)

    evalset = hd_set("HD", tmp_path, videos, 2)
    (scores,) = evaluate(evalset, [Method("net", network, fed=True)], ["luma_psnr_db"]).values()
    by_file = []
    for video, data in zip(videos, frames, strict=True):
        rgb = [scripts_rgb(frame, video.width, video.height) / 255.0 for frame in data]
        luma = [skimage.color.rgb2yuv(picture)[..., 0] * 255 for picture in rgb]
        pairs = [n for n in range(0, 100, 2) if n + 2 < len(rgb)]
        errors = [math.sqrt(((luma[n + 1] - luma[n]) ** 2).mean()) for n in pairs]
        by_file.append(np.mean([20 * math.log10(255 / error) for error in errors]))
    assert len(scores) == 3  # two pairs and one
    assert means(scores)["luma_psnr_db"] == pytest.approx(np.mean(by_file), abs=1e-9)
    assert fed[0].shape == (48 + 2 * 16, 64, 3)  # 16 rows above and below, replicated, RGB
    assert np.array_equal(fed[0][15], scripts_rgb(frames[0][0], 64, 48)[0])


def test_hd_pairs_and_rows_by_size(tmp_path: Path) -> None:
    """A pair begins before frame 100; 24, 4 and 16 rows are replicated; 4x has a score for each size."""
    starts = [int(item.name.split()[-1]) for item in dropped((np.zeros((2, 2, 3), np.uint8),) * 101, 4, "x")]
    assert starts == list(range(0, 100, 4))
    raw_frames(tmp_path / "x.yuv", 16, 16, 120)
    items = hd_set("HD", tmp_path, [RawVideo("x.yuv", 16, 16, "544p")], 2).items()
    assert [int(item.name.split()[-1]) for item in items] == list(range(0, 100, 2))
    for video in HD_FILES:
        (tmp_path / video.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / video.path).touch()
    sets = AUTHORS_SETS["hd4x"].open(tmp_path)
    assert {s.name for s in sets} == {"HD 4x 544p", "HD 4x 720p", "HD 4x 1080p"}
    rows = {height: sets[0].feeding(np.zeros((height, 8, 3), np.uint8)).rows for height in (720, 1080, 544)}
    assert rows == {720: 24, 1080: 4, 544: 16}


@pytest.mark.parametrize("name", AUTHORS_SETS)
def test_a_set_that_is_not_there_says_where_it_goes_and_where_to_get_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = refused(capsys, "--authors", name, "--root", tmp_path)
    row = AUTHORS_SETS[name]
    assert row.title in text
    assert row.source in text
    assert all(folder in text for folder in row.folders)


# --- any folder -------------------------------------------------------------------------------------------------------


def test_numbered_images_are_read_in_order_and_at_their_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames 1 to 13 get brighter by equal steps: blending is exact only if order and times are right."""
    for n in range(1, 14):
        write(tmp_path / "in" / f"frame{n}.png", np.full((16, 16, 3), 16 * n, np.uint8))
    options = ("--multi", "4", "--multi", "2", "-b", "blend", "--no-perceptual", "-o", tmp_path / "out", "--worst", "0")
    run(capsys, tmp_path / "in", *options)
    rows = table(tmp_path / "out" / "scores.csv")
    assert [float(rows[name, "blend"]["psnr_db"]) for name in ("in 4x", "in 2x")] == [100, 100]
    assert [rows[name, "blend"]["pictures"] for name in ("in 4x", "in 2x")] == ["9", "6"]


def test_a_folder_of_folders_and_clips(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for stem in ("im1", "im2", "im3"):
            write(tmp_path / "all" / "triplets" / name / f"{stem}.png", noise(8, 8, 1))
    for n in range(3):
        write(tmp_path / "all" / "clips" / "walk" / f"{n}.png", noise(8, 8, n))
    (tmp_path / "all" / "notes.txt").touch()
    found = find_sets(tmp_path / "all", [2])
    assert {s.name: sum(1 for _ in s.items()) for s in found} == {"triplets": 2, "walk 2x": 1}
    assert [s.name for s in find_sets(tmp_path / "all" / "triplets" / "one", [2])] == ["one"]


def test_the_worst_cases_are_the_lowest_scores_of_different_items() -> None:
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (0, 200, 90, 0, 0, 10, 0, 0, 0)]
    evalset = EvalSet(name="x", items=lambda: dropped(frames, 4, "x"), measures=("psnr_db",))

    def repeat(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:  # noqa: ARG001
        yield from (first for _ in times)

    (scores,) = evaluate(evalset, [Method("repeat", repeat)], ["psnr_db"]).values()
    assert [(score.item, score.time) for score in worst(scores, 2)] == [("x 0", 0.25), ("x 4", 0.25)]


def triplet(folder: Path, *sizes: tuple[int, int]) -> None:
    for i, (width, height) in enumerate(sizes, 1):
        write(folder / "t" / f"im{i}.png", np.zeros((height, width, 3), np.uint8))


def nothing(_: Path) -> None: ...


def no_video(folder: Path) -> None:
    (folder / "clip.mp4").write_bytes(b"no video")


def two_sizes(folder: Path) -> None:
    triplet(folder, (8, 8), (8, 8), (8, 9))


def cut_short(folder: Path) -> None:
    triplet(folder, (8, 8), (8, 8), (8, 8))
    (folder / "t" / "im2.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("make", "says"),
    [(nothing, "got none"), (no_video, "got no frames"), (two_sizes, "got 8x8, 8x8, 8x9"), (cut_short, "im2.png")],
)
def test_what_cannot_be_used_is_named(
    make: Callable[[Path], None], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    make(folder)
    text = refused(capsys, folder, "-b", "blend")
    assert says in text
    assert str(folder) in text
