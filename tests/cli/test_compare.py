"""`vsrife compare`: which frames count, what they score, and what is written; the page in a real browser."""

from __future__ import annotations

import csv
import json
import subprocess
from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vsrife
from tests.chromium import complaints, opened, requests
from tests.clips import panned, texture
from vsrife.cli import main
from vsrife.evaluation.comparison import Comparison, DropPlan, ScoredFrame, Target, WorstFrames
from vsrife.evaluation.metrics import Image8, psnr_db, ssim
from vsrife.evaluation.page import Page, write_page

WIDTH, HEIGHT = 96, 64
CUT, STILL = 9, (14, 15, 16)  # the first frame of the second scene; three equal frames


def frames() -> list[Image8]:
    """20 frames in two scenes of strong contrast that move by 2 pixels a frame."""
    scenes = [panned(n, WIDTH, HEIGHT, seed=100 if n < CUT else 101) for n in range(20)]
    pictures = [np.round(255 * np.clip(0.5 + (scene - 0.5) * 4, 0, 1)).astype(np.uint8) for scene in scenes]
    for n in STILL:
        pictures[n] = pictures[STILL[0]]
    return pictures


def write_clip(path: Path, pictures: Sequence[Image8], ffmpeg: str, *options: str) -> Path:
    """A lossless RGB file with 24 frames a second, unless the options of ffmpeg say otherwise."""
    height, width = pictures[0].shape[:2]
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "24", "-i", "-"]
    command = [ffmpeg, "-v", "error", "-y", *source, *options, "-c:v", "ffv1", "-pix_fmt", "gbrp", str(path)]
    subprocess.run(command, input=b"".join(p.tobytes() for p in pictures), check=True)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, ffmpeg: str) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "walk.mkv", frames(), ffmpeg)


def scores_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_frames_that_were_dropped(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cut, the repeated frame and the last frame, which no kept frame follows, are left out, and named."""
    assert main(["compare", str(clip), "--drop", "2", "-o", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    pictures, rows = frames(), scores_of(tmp_path / "out")
    assert [int(row["frame"]) for row in rows] == [1, 3, 5, 7, 11, 13, 17]
    assert "7 frames scored" in err
    assert f"1 across scene changes (before frame {CUT})" in err
    assert "1 equal to a neighbour" in err  # 15
    assert "1 after the last kept frame" in err  # 19
    model = out.splitlines()[1].split()[0]
    for row in rows:
        n = int(row["frame"])
        before, truth, after = pictures[n - 1 : n + 2]
        blend = np.rint((before.astype(float) + after) / 2)
        assert float(row["seconds"]) == pytest.approx(n / 24, abs=1e-5)
        assert float(row["repeat psnr_db"]) == pytest.approx(psnr_db(before, truth), rel=1e-4)
        assert float(row["blend psnr_db"]) == pytest.approx(psnr_db(blend.astype(np.uint8), truth), rel=1e-4)
        assert float(row["blend ssim"]) == pytest.approx(ssim(blend.astype(np.uint8), truth), rel=1e-4)
        ours = vsrife.interpolate(before, after)
        assert float(row[f"{model} psnr_db"]) == pytest.approx(psnr_db(ours, truth), rel=1e-3)
    means = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:]}
    assert list(means) == [model, "repeat", "blend", "dis"]
    for method, (decibels, similarity, perceptual) in means.items():
        assert float(decibels) == pytest.approx(np.mean([float(row[f"{method} psnr_db"]) for row in rows]), abs=0.006)
        assert float(similarity) == pytest.approx(np.mean([float(row[f"{method} ssim"]) for row in rows]), abs=6e-5)
        assert float(perceptual) == pytest.approx(
            np.mean([float(row[f"{method} ssimulacra2"]) for row in rows]), abs=0.006
        )


def test_every_fourth_frame_and_two_models(
    clip: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Groups across a cut are left out whole; a copy of the weights scores the same under its own name."""
    original = shared_data / "models" / "bootstrap-4.25.safetensors"
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(original.read_bytes())
    out = tmp_path / "out"
    options = ["--drop", "4", "-m", str(original), "-m", str(copy), "--baseline", "blend", "--worst", "1", "--json"]
    assert main(["compare", str(clip), "-o", str(out), *options]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ours, again, blend = (event for event in events if event["event"] == "score")
    assert (ours.pop("method"), again.pop("method"), blend["method"]) == ("bootstrap-4.25", "copy", "blend")
    assert ours == again
    assert blend["psnr_db"] < ours["psnr_db"]
    assert (events[-1]["event"], events[-1]["frames"], events[-1]["left_out"]) == ("done", 7, 8)
    rows, pictures = scores_of(out), frames()
    assert [int(row["frame"]) for row in rows] == [1, 2, 3, 5, 6, 7, 13]  # 14 and 15 repeat 16
    first = rows[0]
    mixed = np.rint(0.75 * pictures[0].astype(float) + 0.25 * pictures[4])
    assert float(first["blend psnr_db"]) == pytest.approx(psnr_db(mixed.astype(np.uint8), pictures[1]), rel=1e-4)


def test_frames_of_variable_rate_are_rebuilt_at_their_own_times(tmp_path: Path, ffmpeg: str) -> None:
    """Brightness follows the time of the frames, so that blending is exact at the right time, and only there."""
    times = [0, 1, 3, 4, 7, 9, 10]
    pictures = [np.full((48, 64, 3), 30 + 12 * t, np.uint8) + (texture(64, 48) > 0.5) for t in times]
    expression = "+".join(f"eq(N,{n})*{t}" for n, t in enumerate(times))
    variable = ("-vf", f"settb=1/10,setpts='{expression}'", "-fps_mode", "passthrough", "-enc_time_base", "1/10")
    path = write_clip(tmp_path / "vfr.mkv", [p.astype(np.uint8) for p in pictures], ffmpeg, *variable)
    options = ["--baseline", "blend", "--sc-threshold", "1", "-o", str(tmp_path / "out"), "--quiet"]
    assert main(["compare", str(path), *options]) == 0
    rows = scores_of(tmp_path / "out")
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0.1, 0.4, 0.9])
    assert [float(row["blend psnr_db"]) for row in rows] == [100, 100, 100]


def test_part_of_a_real_film_with_a_cut(sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames 31 to 38 with a cut before frame 36, numbered as in the file; plot and strips of the right frames."""
    out = tmp_path / "out"
    options = ["--start", "31f", "--frames", "8", "--worst", "2", "--baseline", "blend"]
    assert main(["compare", str(sample), "-o", str(out), *options]) == 0
    assert "across scene changes (before frame 36)" in capsys.readouterr().err
    rows = scores_of(out)
    assert [int(row["frame"]) for row in rows] == [32, 34]
    method = next(key for key in rows[0] if key.endswith(" psnr_db"))
    assert float(rows[0]["seconds"]) == pytest.approx(32 / 24, abs=1e-5)
    lowest = min(rows, key=lambda row: float(row[method]))["frame"]
    strips = sorted(path.name for path in (out / "strips").iterdir())
    assert strips == [f"frame_{int(lowest):06d}.png"]  # the other is its neighbour
    with Image.open(out / "strips" / strips[0]) as strip:
        assert strip.width > 4 * 640
        assert strip.height > 2 * 360
    with Image.open(out / "plot.png") as plot:
        seen = np.asarray(plot.convert("RGB")).reshape(-1, 3)
    for color in ("#0072b2", "#8a8a8a", "#f3dcdc"):  # the model, blending, what was left out
        assert (seen == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=1).sum() > 50


def test_the_worst_keeps_few_and_far_between() -> None:
    worst = WorstFrames(3, spacing=4)
    ranks = np.random.default_rng(1).permutation(200)
    for number, rank in enumerate(ranks):
        blank = np.zeros((1, 1, 3), np.uint8)
        worst.offer(ScoredFrame(Target(number, 0, 0, Fraction(0)), blank, blank, blank, {}, {}), float(rank))
    kept = [case.target.number for case in worst.frames()]
    assert len(kept) == 3
    assert ranks[kept[0]] == 0
    assert all(abs(a - b) >= 4 for a in kept for b in kept if a != b)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_compared_is_said_before_anything_is_written(
    clip: Path, tmp_path: Path, ffmpeg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*argv: str | Path) -> tuple[int, str]:
        code = main(["compare", *map(str, argv)])
        return code, capsys.readouterr().err

    full = tmp_path / "full"
    full.mkdir()
    (full / "kept.txt").write_text("mine")
    code, text = refused(clip, "-o", full)
    assert code == 2
    assert "--overwrite" in text
    assert [path.name for path in full.iterdir()] == ["kept.txt"]
    code, text = refused(clip, "-o", tmp_path / "a", "-m", tmp_path / "none.pkl")
    assert code == 1
    assert "none.pkl" in text
    no_video = tmp_path / "notes.mkv"
    no_video.write_text("no video")
    code, text = refused(no_video, "-o", tmp_path / "b")
    assert code == 1
    assert "notes.mkv" in text
    short = write_clip(tmp_path / "short.mkv", frames()[:2], ffmpeg)
    code, text = refused(short, "-o", tmp_path / "c")
    assert code == 1
    assert "1 after the last kept frame" in text
    cut = write_clip(tmp_path / "cut.mkv", frames()[CUT - 1 : CUT + 2], ffmpeg)
    code, text = refused(cut, "-o", tmp_path / "d")
    assert code == 1
    assert "across scene changes" in text
    assert not any((tmp_path / name).exists() for name in "abcd")


# --- the page ---------------------------------------------------------------------------------------------------------

NAME = 'a<b>"&'
COLORS = {"source before": (200, 0, 0), "truth": (0, 160, 0), "source after": (200, 200, 0),
          NAME: (0, 0, 180), "blend": (10, 150, 20)}  # fmt: skip


def flat(name: str) -> Image8:
    return np.tile(np.array(COLORS[name], np.uint8), (90, 160, 1))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, five scored frames with a gap, two cases of flat colour."""
    numbers = [1, 3, 7, 9, 11]
    plan = DropPlan(2, [], [5], [], [5])
    result = Comparison(plan, [NAME, "blend"], ["psnr_db", "ssim"], array("q", numbers))
    for key, base in (("psnr_db", 30.0), ("ssim", 0.9)):
        result.scores[key] = {NAME: array("d", (base + n / 100 for n in numbers)), "blend": array("d", [base] * 5)}
    for number in (3, 9):
        target = Target(number, number - 1, number + 1, Fraction(1, 2))
        scores = {name: {"psnr_db": 30.0 + number, "ssim": 0.5} for name in (NAME, "blend")}
        pictures = {name: flat(name) for name in (NAME, "blend")}
        result.worst.append(
            ScoredFrame(target, flat("source before"), flat("truth"), flat("source after"), pictures, scores)
        )
    path = tmp_path_factory.mktemp("page") / "compare.html"
    write_page(path, Page("</script><i>walk", "5 frames", result, [(5, 5)], lambda n: n / 24))
    return path


def test_the_page_in_a_browser(page: Path, chromium: str, tmp_path: Path) -> None:
    """Nothing comes from outside; the divider follows mouse, finger and keys, and both sides show what is chosen."""
    with opened(chromium, page, tmp_path / "profile") as tab:
        assert tab.js("document.title") == "</script><i>walk"
        tab.wait("[...document.images].every(i => i.complete && i.naturalWidth === 160)")
        left, top, width, height = tab.box("#pair")
        assert width / height == pytest.approx(16 / 9, rel=0.01)
        middle = top + height / 2

        def seen() -> tuple[tuple[int, ...], tuple[int, ...]]:
            """The colours near the left and the right edge."""
            picture = tab.screenshot()
            row = int(top + height / 4)
            return tuple(picture[row, int(left + 30)]), tuple(picture[row, int(left + width - 30)])

        def near(color: tuple[int, ...], name: str) -> bool:
            return bool(np.abs(np.subtract(color, COLORS[name])).max() <= 4)

        def divider() -> float:
            """Where the left picture ends, in percent, as it is drawn."""
            clipped = tab.js("getComputedStyle(document.getElementById('left')).clipPath")
            return 100 - float(clipped.split()[1].removesuffix("%"))

        def choose(control: str, value: str) -> None:
            tab.js(f"c = document.getElementById('{control}'); c.value = {json.dumps(value)};"
                   "c.dispatchEvent(new Event('change'))")  # fmt: skip

        assert near(seen()[0], "truth")
        assert near(seen()[1], NAME)
        assert divider() == pytest.approx(50)
        tab.drag(left + width / 2, middle, left + width * 0.8, middle)
        assert divider() == pytest.approx(80, abs=0.2)
        boundary = tab.screenshot()[int(top + height / 4)]
        assert near(tuple(boundary[int(left + width * 0.7)]), "truth")
        assert near(tuple(boundary[int(left + width * 0.9)]), NAME)
        tab.press("ArrowLeft")
        assert divider() == pytest.approx(79.9, abs=0.2)
        tab.press("Home")
        assert divider() == 0
        assert near(seen()[0], NAME)
        tab.press("f")
        assert divider() == 100
        assert near(seen()[1], "truth")
        tab.swipe(left + width * 0.5, middle, left + width * 0.3, middle)
        assert divider() == pytest.approx(30, abs=0.2)
        choose("choose-left", "source before")
        choose("choose-right", "error:blend")
        tab.wait("[...document.images].every(i => i.complete)")
        source, error = seen()
        assert near(source, "source before")
        assert np.abs(np.subtract(error, (40, 40, 80))).max() <= 12  # four times what is missing
        assert "blend: PSNR 33.00 dB, SSIM 0.5000" in tab.js("document.getElementById('says-right').textContent")
        tab.js("document.querySelectorAll('#cases button')[1].click()")
        assert "PSNR 39.00 dB" in tab.js("document.getElementById('says-right').textContent")
        assert tab.js("[...document.querySelectorAll('#cases button')].map(b => b.ariaPressed)") == ["false", "true"]
        choose("zoom", "2")
        assert tab.box("#pair")[2] == 320
        assert {address.partition(":")[0] for address in requests(tab)} == {"file", "data"}
        assert complaints(tab) == []


def test_the_plot_of_the_page(page: Path, chromium: str, tmp_path: Path) -> None:
    """Curves break where frames were left out, are read off at the pointer and with keys, and can be hidden."""
    with opened(chromium, page, tmp_path / "profile", height=1800) as tab:
        curves = "[...document.querySelectorAll('#plot .curve')].map(c => c.getAttribute('d'))"
        readings = "[...document.querySelectorAll('#legend output')].map(o => o.textContent)"
        first, second = tab.js(curves)
        assert first.count("M") == second.count("M") == 2
        assert first.count("L") == 3
        left, top, width, height = tab.box("#plot")
        tab.mouse("mouseMoved", left + width - 20, top + height / 2, buttons=0)
        assert tab.js(readings) == ["30.11", "30.00"]
        assert tab.js("document.getElementById('where').textContent") == "frame 11"
        tab.js("document.getElementById('plot').focus()")
        tab.press("ArrowLeft")
        assert tab.js(readings) == ["30.09", "30.00"]
        tab.js("c = document.getElementById('measure'); c.value = 'ssim'; c.dispatchEvent(new Event('change'))")
        assert tab.js(readings) == ["0.9900", "0.9000"]
        tab.js("document.querySelectorAll('#legend input')[1].click()")
        assert len(tab.js(curves)) == 1
        cells = tab.js("[...document.querySelectorAll('#scores td')].map(c => c.textContent + (c.className && '*'))")
        assert cells == [NAME, "30.06*", "0.9620*", "blend", "30.00", "0.9000"]
        assert complaints(tab) == []


def test_the_command_writes_the_page(clip: Path, tmp_path: Path, chromium: str) -> None:
    options = ["--frames", "9", "--worst", "1", "--html", "--quiet", "-o", str(tmp_path / "out")]
    assert main(["compare", str(clip), *options]) == 0
    text = (tmp_path / "out" / "compare.html").read_text()
    assert text.count("data:image/webp;base64,") == 7  # of one case: two sources, truth, a model, three baselines
    with opened(chromium, tmp_path / "out" / "compare.html", tmp_path / "profile") as tab:
        tab.wait("document.images.length === 2 && [...document.images].every(i => i.naturalWidth === 96)")
        assert len(tab.js("[...document.querySelectorAll('#scores tbody tr')].map(r => r.innerText)")) == 4
        assert {address.partition(":")[0] for address in requests(tab)} == {"file", "data"}
        assert complaints(tab) == []
