"""`vsrife script`: what it prints makes, in vspipe, the frames that `vsrife video` encodes; and plays in mpv."""

from __future__ import annotations

import hashlib
import json
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs

from tests.clips import pan, without_rate
from tests.conftest import VSPipe
from vsrife.cli import main

BRIDGE = Path(__file__).parents[1] / "mpv_bridge.py"
ODD_NAME = '-it\'s a "clip" \\n über 映画 {0}\n#1.mkv'


def make_clip(ffmpeg: str, path: Path, *, variable: bool = False) -> Path:
    """Twelve frames of 64x64 at 24 a second, or eight at varying distances."""
    source = "testsrc2=size=64x64:rate=24:duration=0.5"
    if variable:
        source += ",select='not(eq(mod(n,3),1))'"
    command = [ffmpeg, "-loglevel", "error", "-f", "lavfi", "-i", source, "-vsync", "vfr" if variable else "cfr"]
    subprocess.run([*command, "-pix_fmt", "yuv420p", "-c:v", "ffv1", f"file:{path}"], check=True)
    return path


@pytest.fixture(scope="module")
def constant(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(ffmpeg, tmp_path_factory.mktemp("clips") / "constant.mkv")


@pytest.fixture(scope="module")
def variable(ffmpeg: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(ffmpeg, tmp_path_factory.mktemp("clips") / "variable.mkv", variable=True)


def script_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["script", *arguments]) == 0
    return capsys.readouterr().out


def saved(text: str, folder: Path) -> Path:
    path = folder / "printed.vpy"
    path.write_text(text, encoding="utf-8")
    return path


def run(vspipe: VSPipe, script: Path) -> tuple[list[str], Fraction]:
    """MD5 of each frame that vspipe writes, and their rate."""
    result = vspipe(script, "-c", "y4m", "-")
    assert result.returncode == 0, result.stderr.decode()
    header, *frames = result.stdout.split(b"FRAME\n")
    rate = next(word for word in header.decode().split() if word.startswith("F"))
    return [hashlib.md5(frame).hexdigest() for frame in frames], Fraction(rate[1:].replace(":", "/"))


def hashes_of_video(ffmpeg: str, path: Path) -> list[str]:
    command = [ffmpeg, "-loglevel", "error", "-i", str(path), "-map", "0:v", "-vsync", "0", "-f", "framemd5", "-"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def rate_of_video(ffprobe: str, path: Path) -> Fraction:
    command = [ffprobe, "-loglevel", "error", "-select_streams", "v", "-show_entries", "stream=r_frame_rate"]
    text = subprocess.run([*command, "-of", "csv=p=0", str(path)], check=True, capture_output=True, text=True).stdout
    return Fraction(text.strip().strip(","))


CASES = {
    "a part": ["--multi", "5/2", "--start", "2f", "--end", "0.3"],
    "slow motion": ["--slow-motion", "3", "--end", "4f"],
    "repairs": ["--multi", "1", "--duplicates", "even", "--max-repeats", "2", "--replace", "1,6-7", "--start", "2f"],
    "slow motion to a rate": ["--fps", "30", "--slow-motion", "2", "--end", "4f"],
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_the_script_makes_what_the_video_command_encodes(
    options: list[str],
    constant: Path,
    tmp_path: Path,
    vspipe: VSPipe,
    ffmpeg: str,
    ffprobe: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = saved(script_of(capsys, str(constant), *options), tmp_path)
    video = tmp_path / "out.mkv"
    assert main(["video", str(constant), str(video), "--codec", "ffv1", "--quiet", *options]) == 0

    assert run(vspipe, script) == (hashes_of_video(ffmpeg, video), rate_of_video(ffprobe, video))


def test_a_variable_rate_becomes_a_constant_one(
    variable: Path, tmp_path: Path, vspipe: VSPipe, ffmpeg: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = saved(script_of(capsys, str(variable), "--fps", "48", "--start", "1f"), tmp_path)
    video = tmp_path / "out.mkv"
    assert main(["video", str(variable), str(video), "--codec", "ffv1", "-q", "--fps", "48", "--start", "1f"]) == 0
    expected = hashes_of_video(ffmpeg, video)
    assert len(set(expected)) > 8
    assert run(vspipe, script) == (expected, Fraction(48))


@pytest.mark.parametrize("slower", [1, 3])
def test_a_variable_rate_keeps_its_timing(
    slower: int, variable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--multi", "2", *(["--slow-motion", str(slower)] if slower > 1 else [])]
    script = saved(script_of(capsys, str(variable), *options), tmp_path)
    try:
        runpy.run_path(str(script))
        clip = vs.get_output(0).clip
        props = [dict(frame.props) for frame in clip.frames(close=True)]
    finally:
        vs.clear_outputs()
    durations = [Fraction(one["_DurationNum"], one["_DurationDen"]) for one in props]
    assert len(set(durations)) > 1
    # The container does not tell how long the last frame lasts.
    assert float(sum(durations)) == pytest.approx(0.5 * slower, abs=0.045 * slower)


def test_any_file_name(constant: Path, tmp_path: Path, vspipe: VSPipe, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ODD_NAME
    path.write_bytes(constant.read_bytes())
    script = saved(script_of(capsys, str(path)), tmp_path)
    result = vspipe(script, "--info")
    assert result.returncode == 0, result.stderr.decode()
    assert "Frames: 24\n" in result.stdout.decode()


def test_only_what_differs_from_the_filters_own_ways_is_printed(
    constant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\nclip = vsrife.RIFE(clip, multi=2)\n" in script_of(capsys, str(constant))
    assert "RIFE(clip, fps='60000/1001', sc_threshold=0.0)\n" in script_of(
        capsys, str(constant), "--fps", "59.94", "--sc-threshold", "0"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.safetensors").touch()
    options = ["--uhd", "--model", "my.safetensors", "--device", "cpu", "--precision", "fp32", "--sc-threshold", "1"]
    text = script_of(capsys, str(constant), *options)
    assert f"model={str(tmp_path / 'my.safetensors')!r}" in text  # whole, since a script may run anywhere
    for keyword in ("scale=0.5", "device='cpu'", "precision='fp32'", "sc_threshold=1.0"):
        assert keyword in text


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ([], 2, "IN is missing"),
        (["nowhere.mkv"], 1, "nowhere.mkv is no file"),
        (["CLIP", "--multi", "2", "--fps", "60"], 2, "give one of them"),
        (["CLIP", "--model", "4.2x"], 2, "did you mean 4.2"),
        (["CLIP", "--mpv"], 2, "leave IN out"),
        (["--mpv", "--start", "3"], 2, "--start is up to the player"),
        (["--mpv", "--slow-motion", "3"], 2, "--slow-motion is up to the player"),
        (["--mpv", "--replace", "3"], 2, "--replace is up to the player"),
        (["CLIP", "--replace", "12"], 2, "--replace must be frames from 0 to 11, got 12"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(
    arguments: list[str], code: int, expected: str, constant: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["script", *(str(constant) if argument == "CLIP" else argument for argument in arguments)]) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.out == ""


# --- mpv --------------------------------------------------------------------------------------------------------------


def test_the_mpv_script_plays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = saved(script_of(capsys, "--mpv", "--multi", "2"), tmp_path)
    command = [sys.executable, str(BRIDGE), str(script), "--frames", "6"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    rounds: list[dict[str, Any]] = json.loads(result.stdout)
    assert len(rounds[0]["shown"]) == 11


@pytest.mark.parametrize(
    ("container_fps", "multi"),
    [(24000 / 1001, Fraction(1001, 400)), (60.0, 1), (120.0, 1), (0.0, 2), (float("nan"), 2)],
)
def test_the_mpv_script_aims_at_a_rate(
    container_fps: float, multi: Fraction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = saved(script_of(capsys, "--mpv", "--fps", "60"), tmp_path)
    try:
        runpy.run_path(str(script), init_globals={"video_in": without_rate(pan(8)), "container_fps": container_fps})
        clip = vs.get_output(0).clip
    finally:
        vs.clear_outputs()
    assert clip.num_frames == -(-8 * multi // 1)


def test_the_line_for_mpv_conf_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["script", "--mpv"]) == 0
    captured = capsys.readouterr()
    line = 'vf=vapoursynth="~~/vsrife.vpy"'
    assert f"#   {line}\n" in captured.out
    assert line in captured.err
