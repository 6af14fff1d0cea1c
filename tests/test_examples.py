"""Every script in `examples/`, run with the command line at its head, through the installed vspipe and ffmpeg."""

from __future__ import annotations

import json
import math
import re
import runpy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from tests.clips import core, equal, pan, planes_of, without_rate
from tests.conftest import VSPipe
from vsrife.filters.player import player_keywords

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BRIDGE = Path(__file__).with_name("mpv_bridge.py")
FIRST, FRAMES, CUT = 26, 20, 10  # the part of the sample that is played, and its cut


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to stand in, with the examples beside."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    return tmp_path


@pytest.fixture
def source(folder: Path, ffmpeg: str, sample: Path) -> Path:
    """A small part of the sample clip with its sound, as `in.mp4`."""
    return cut_out(ffmpeg, sample, folder / "in.mp4", "null")


def cut_out(ffmpeg: str, sample: Path, target: Path, video_filter: str) -> Path:
    start = Fraction(FIRST, 24)
    picture = f"trim=start_frame={FIRST}:end_frame={FIRST + FRAMES},setpts=PTS-STARTPTS,scale=96:54,{video_filter}"
    sound = f"atrim=start={float(start)}:duration={FRAMES / 24},asetpts=PTS-STARTPTS"
    command: list[str | Path] = [ffmpeg, "-v", "error", "-i", sample, "-vf", picture, "-af", sound]
    command += ["-vsync", "passthrough", "-c:v", "libx264", "-crf", "10", "-c:a", "aac", target]
    subprocess.run(command, check=True)
    return target


def documented_command(script: str) -> str:
    """The command line from the head of a script: a line that begins with vspipe, and those it runs on to."""
    text = (EXAMPLES / script).read_text()
    found = re.search(r"^# +(vspipe .*\n(?:# +ffmpeg .*\n)?)", text, re.MULTILINE)
    assert found, f"no command in {script}"
    return re.sub(r"\n# +", "\n", found.group(1))


def run_documented(script: str, folder: Path, vspipe: VSPipe) -> Path:
    """Run it in bash; the file it writes."""
    command = documented_command(script)
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{command}"],
        cwd=folder,
        env=vspipe.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return folder / command.split()[-1]


def probe(ffprobe: str, path: Path, *arguments: str) -> Any:
    command: list[str | Path] = [ffprobe, "-v", "error", *arguments, "-of", "json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def decoded(ffprobe: str, path: Path) -> tuple[Fraction, list[Fraction], list[str]]:
    """Rate, times of all decoded frames in seconds, kinds of all streams."""
    streams = probe(ffprobe, path, "-show_streams")["streams"]
    video = next(stream for stream in streams if stream["codec_type"] == "video")
    assert video["codec_name"] == "h264"
    frames = probe(ffprobe, path, "-select_streams", "v", "-show_frames", "-show_entries", "frame=pts")["frames"]
    times = [frame["pts"] * Fraction(video["time_base"]) for frame in frames]
    return Fraction(video["r_frame_rate"]), times, [stream["codec_type"] for stream in streams]


@pytest.mark.parametrize(
    ("script", "rate", "frames", "sound"),
    [
        ("double.vpy", 48, 2 * FRAMES, True),
        ("to_60fps.vpy", 60, FRAMES * 5 // 2, True),
        ("slow_motion.vpy", 24, 8 * FRAMES, False),
        ("scene_props.vpy", 48, 2 * FRAMES, True),
        ("anime.vpy", 48, 2 * FRAMES, True),
    ],
)
@pytest.mark.usefixtures("source")
def test_encoding(script: str, rate: int, frames: int, sound: bool, folder: Path, vspipe: VSPipe, ffprobe: str) -> None:
    """What the encoder wrote has all frames, each at its time, as long as the source, and the sound with it."""
    output = run_documented(script, folder, vspipe)
    fps, times, streams = decoded(ffprobe, output)
    assert fps == rate
    assert len(times) == frames
    assert times == [Fraction(n, rate) for n in range(frames)]
    assert sorted(streams) == (["audio", "video"] if sound else ["video"])
    if sound:  # and neither is longer
        assert Fraction(frames, rate) == Fraction(FRAMES, 24)


# Frames dropped at random places, as a phone does in the dark.
KEPT = (0, 1, 2, 4, 5, 8, 9, 10, 11, 14, 16, 17, 19)


def test_variable_rate_to_constant(folder: Path, vspipe: VSPipe, ffmpeg: str, ffprobe: str, sample: Path) -> None:
    """Frames whose time is an output time come out as they are; the others lie between."""
    select = "select='" + "+".join(f"eq(n,{n})" for n in KEPT) + "'"
    source = cut_out(ffmpeg, sample, folder / "phone.mp4", select)
    _, times, _ = decoded(ffprobe, source)
    assert times == [Fraction(n, 24) for n in KEPT]

    output = run_documented("vfr_to_60.vpy", folder, vspipe)
    fps, times, streams = decoded(ffprobe, output)
    assert fps == 60
    assert times == [Fraction(n, 60) for n in range(len(times))]
    assert abs(len(times) - FRAMES * 60 // 24) <= 60 * 2 // 24  # the last duration is not in the file
    assert sorted(streams) == ["audio", "video"]

    raw = vspipe(EXAMPLES / "vfr_to_60.vpy", "-a", f"source={source}", "-")
    assert raw.returncode == 0, raw.stderr
    frame_bytes = 96 * 54 * 3 // 2
    made = np.frombuffer(raw.stdout, np.uint8).reshape(-1, frame_bytes)
    assert len(made) == len(times)
    clip = core.bs.VideoSource(source)
    originals = [np.concatenate([p.ravel() for p in planes_of(clip, i)]) for i in range(clip.num_frames)]
    for i, frame in enumerate(KEPT):
        output_frame = Fraction(frame * 60, 24)
        if output_frame.denominator == 1:
            assert equal([made[int(output_frame)]], [originals[i]]), f"source frame {frame}"
    middle = made[int(Fraction(9 * 60, 48))]  # between 4 and 5
    assert not any(equal([middle], [original]) for original in originals)


@pytest.mark.parametrize(("name", "frames"), [("drone_vfr_aac.mp4", 2), ("phone_vfr_rotated_hevc.mp4", 0)])
def test_real_variable_rates(name: str, frames: int, vspipe: VSPipe, ffprobe: str, shared_data: Path) -> None:
    """As long as the source, whose last frame lasts as long as the one before."""
    source = shared_data / "clips" / name
    packets = probe(ffprobe, source, "-select_streams", "v", "-show_entries", "packet=pts_time")["packets"]
    times = sorted(Fraction(packet["pts_time"]) for packet in packets)
    result = vspipe(EXAMPLES / "vfr_to_60.vpy", "-a", f"source={source}", "-i", "-")
    assert result.returncode == 0, result.stderr
    info = dict(line.split(": ", 1) for line in result.stdout.decode().splitlines() if ": " in line)
    assert info["FPS"].startswith("60/1 ")
    assert int(info["Frames"]) == pytest.approx((2 * times[-1] - times[-2] - times[0]) * 60, abs=1)
    if frames:
        result = vspipe(EXAMPLES / "vfr_to_60.vpy", "-a", f"source={source}", "-e", str(frames - 1), "--")
        assert result.returncode == 0, result.stderr
        assert f"Output {frames} frames" in result.stderr.decode()


def test_time_codes_of_a_file(source: Path, tmp_path: Path, vspipe: VSPipe) -> None:
    """At half the speed the clip lasts twice as long."""
    path = tmp_path / "slow.txt"
    path.write_text("# timecode format v2\n" + "".join(f"{n * 1000 / 12:.3f}\n" for n in range(FRAMES)))
    arguments = ("-a", f"source={source}", "-a", f"timecodes={path}", "-i", "-")
    result = vspipe(EXAMPLES / "vfr_to_60.vpy", *arguments)
    assert result.returncode == 0, result.stderr
    assert f"Frames: {FRAMES * 60 // 12}" in result.stdout.decode()


def test_marks_of_another_filter(source: Path, tmp_path: Path, vspipe: VSPipe) -> None:
    written = tmp_path / "props.json"
    result = vspipe(EXAMPLES / "scene_props.vpy", "-a", f"source={source}", "-j", str(written), "--")
    assert result.returncode == 0, result.stderr
    frames = json.loads(written.read_text())
    marked = {
        key: [n for n, frame in enumerate(frames) if frame.get(key)] for key in ("_SceneChangeNext", "_SceneChangePrev")
    }
    assert marked == {"_SceneChangeNext": [2 * CUT - 2], "_SceneChangePrev": [2 * CUT - 1]}


def vspipe_scripts() -> list[str]:
    return sorted(path.name for path in EXAMPLES.glob("*.vpy") if path.name != "mpv.vpy")


@pytest.mark.parametrize("script", vspipe_scripts())
def test_the_sample_is_the_default(script: str, vspipe: VSPipe) -> None:
    result = vspipe(EXAMPLES / script, "-s", "1", "-e", "1", "-c", "y4m", "-")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"YUV4MPEG2 C420 W640 H360 ")
    assert len(result.stdout.partition(b"FRAME\n")[2]) == 640 * 360 * 3 // 2


@pytest.mark.parametrize("script", vspipe_scripts())
def test_scripts_are_short_and_say_how_to_run_them(script: str) -> None:
    lines = (EXAMPLES / script).read_text().splitlines()
    assert len(lines) <= 25
    assert f"examples/{script}" in documented_command(script)
    assert f"`{script}`" in (EXAMPLES / "README.md").read_text()


# --- mpv --------------------------------------------------------------------------------------------------------------


def watch(*arguments: str, script: Path = EXAMPLES / "mpv.vpy") -> tuple[list[dict[str, Any]], str]:
    """What came of playing a script, for every seek; and what reached the terminal."""
    command = [sys.executable, str(BRIDGE), str(script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    rounds: list[dict[str, Any]] = json.loads(result.stdout)
    return rounds, result.stderr


def assert_shown(played: dict[str, Any], frames: int, multi: int, first: int = 0) -> None:
    """All that a filter of pairs can show: the frames up to the last source frame.

    Where there was no time for a new frame, either of its source frames may be shown.
    """
    shown = played["shown"]
    assert len(shown) == (frames - 1) * multi + 1, played["reason"]
    assert "EOF" in played["reason"]
    assert played["color_family"] == "YUV"
    duration = Fraction(41708, 1_000_000) / multi
    for n, props in enumerate(shown):
        if n < (frames - 1) * multi:
            assert Fraction(props["_DurationNum"], props["_DurationDen"]) == duration
        assert props["_MP_IMAGE"] - 0x7F00_0000_0000 - first in (n // multi, -(-n // multi))


@pytest.mark.parametrize(("concurrent", "buffered"), [(1, 2), (2, 4), (8, 4)])
def test_mpv_plays_to_the_end(concurrent: int, buffered: int) -> None:
    (played,), _ = watch("--concurrent", str(concurrent), "--buffered", str(buffered))
    assert_shown(played, frames=48, multi=2)
    assert len(played["shown"]) == 95
    assert played["furthest_back"] < concurrent * buffered


def test_mpv_seeks_without_loading_the_network_again(capsys: pytest.CaptureFixture[str]) -> None:
    rounds, _ = watch("--seeks", "3", "--frames", "6")
    for seek, played in enumerate(rounds):
        assert_shown(played, frames=6, multi=2, first=1000 * seek)
        assert played["weights_read"] == 1
        assert played["workers"] == 0, "a worker outlived its environment"
    with capsys.disabled():
        print(f"\nmpv.vpy: {rounds[0]['load_ms']} ms, then {[r['load_ms'] for r in rounds[1:]]} ms at a seek")


@pytest.mark.parametrize("user_data", ["", "realtime=no duplicates=fill", "realtime=overlay fps=60"])
def test_mpv_seeks_in_mid_play(user_data: str) -> None:
    """Frames in flight come back although their source is gone, and nothing outlives its environment."""
    rounds, _ = watch(
        "--seeks", "2", "--frames", "40", "--jump-after", "13", "--concurrent", "3", "--buffered", "8",
        "--user-data", user_data,
    )  # fmt: skip
    assert [played["reason"] for played in rounds] == ["seek"] * 3
    assert [len(played["shown"]) for played in rounds] == [13] * 3
    assert [played["workers"] for played in rounds] == [0] * 3
    assert [played["asked_while_loading"] for played in rounds] == [0] * 3


@pytest.mark.parametrize(
    ("container_fps", "display_fps", "user_data", "multi"),
    [
        ("23.976", "60", "", 2),
        ("29.97", "59.94", "", 2),
        ("29.97", "59.94006", "4", 2),
        ("23.976", "119.88", "", 2),
        ("23.976", "119.88", "5", 5),
        ("24", "144", "4", 4),
        ("60", "60", "", 1),
        ("50", "60", "4", 1),
        ("0", "60", "", 2),
        ("nan", "60", "3", 3),
        ("24", "0", "", 2),
        ("24", "0", "2.5", Fraction(5, 2)),
        ("nan", "60", "5/2", Fraction(5, 2)),
        ("23.976", "60", "2.5", 2),
        ("23.976", "60", "fps=60 model=lite", Fraction(5, 2)),
        ("29.8403", "60", "fps=60", Fraction(376, 187)),
        ("24", "144", "fps=display", 6),
        ("24", "0", "fps=display", 2),
        ("50", "60", "scale=0.5 multi=3", 1),
    ],
)
def test_mpv_rates(container_fps: str, display_fps: str, user_data: str, multi: Fraction) -> None:
    """Never more than the display can show, or the user wants; unknown rates do no harm."""
    variables = {
        "video_in": without_rate(pan(3)),
        "container_fps": float(container_fps),
        "display_fps": float(display_fps),
        "user_data": user_data,
    }
    try:
        runpy.run_path(str(EXAMPLES / "mpv.vpy"), init_globals=variables)
        clip = vs.get_output(0).clip
    finally:
        vs.clear_outputs()
    assert clip.num_frames == math.ceil(3 * multi)


def test_mpv_with_deeper_samples() -> None:
    (played,), _ = watch("--frames", "3", "--format", "YUV422P10", "--size", "66", "50")
    assert_shown(played, frames=3, multi=2)


def test_mpv_durations_fit_into_32_bits(tmp_path: Path) -> None:
    """A measured rate makes a fine fraction."""
    script = tmp_path / "fine.vpy"
    script.write_text("import vsrife\nvsrife.RIFE(video_in, multi='29841/12500').set_output()\n")
    (played,), _ = watch("--frames", "12", script=script)
    shown = [Fraction(props["_DurationNum"], props["_DurationDen"]) for props in played["shown"]]
    expected = Fraction(41708, 1_000_000) * Fraction(12500, 29841)
    assert len(shown) == 27  # of 12 source frames; one more would need another
    assert all(abs(duration / expected - 1) < Fraction(1, 10**9) for duration in shown[:-3])


def test_mpv_shows_warnings_once() -> None:
    _, text = watch("--frames", "3", "--seeks", "1", "--field-based", "2")
    assert text.count("source frame 0 is interlaced") == 2  # one for each filter, not for each handler


@pytest.mark.parametrize(
    ("user_data", "text"),
    [
        ("fast", "user-data must be a number such as 4 or 5/2, or options such as .*, got 'fast'"),
        ("modle=lite", "out of multi, fps, model, .*, got 'modle=lite'"),
        ("multi=half", "got 'multi=half'"),
        ("realtime=maybe", "got 'realtime=maybe'"),
        ("multi=2 fps=60", "takes multi or fps, got both"),
    ],
)
def test_mpv_user_data_that_cannot_be_read(user_data: str, text: str) -> None:
    variables = {"video_in": without_rate(pan(2)), "container_fps": 24.0, "display_fps": 60.0, "user_data": user_data}
    with pytest.raises(ValueError, match=text):
        runpy.run_path(str(EXAMPLES / "mpv.vpy"), init_globals=variables)


def test_mpv_user_data_chooses_the_network() -> None:
    variables = {"video_in": without_rate(pan(2)), "user_data": "model=fast scale=0.5 realtime=no precision=fp32"}
    keywords = player_keywords(variables, model="lite", fps=60)
    assert keywords == {"model": "fast", "scale": 0.5, "realtime": False, "precision": "fp32", "multi": 2}
    assert player_keywords({**variables, "user_data": "3"}, model="lite", fps=60) == {
        "model": "lite", "realtime": True, "multi": 3,
    }  # fmt: skip
    tall = vs.core.std.BlankClip(width=64, height=1440)
    assert player_keywords({"video_in": tall})["scale"] == 0.5
    assert player_keywords({"video_in": tall, "user_data": "scale=1"})["scale"] == 1
