"""`vsrife video --inverse-telecine` on files that ffmpeg telecines, and the warning about combs."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import pytest

from tests.conftest import VSPipe
from tests.media_clips import Programs, failure, video
from vsrife.cli import main
from vsrife.filters.telecine import find_combs
from vsrife.video.source import open_source

pytestmark = pytest.mark.usefixtures("mixed_frames")
FILM, NTSC = Fraction(24000, 1001), Fraction(30000, 1001)
SCENE = "testsrc2=size=192x128:rate={}:duration={},scroll=horizontal=0.02:vertical=0.01"
UNFLAGGED = ",setfield=prog"
LOSSLESS = ("--codec", "ffv1")


def film_clip(seconds: float) -> str:
    return SCENE.format(FILM, seconds)


def video_clip(seconds: float) -> str:
    """Video of two fields a frame."""
    return SCENE.format(2 * NTSC, seconds) + ",interlace=lowpass=off"


def telecined(seconds: float) -> str:
    return film_clip(seconds) + ",telecine=pattern=23"


def make(programs: Programs, path: Path, graph: str, *options: str) -> Path:
    programs.make("-f", "lavfi", "-i", graph, "-pix_fmt", "yuv420p", "-c:v", "ffv1", *options, path)
    return path


@pytest.fixture(scope="module")
def telecined_file(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    return make(programs, tmp_path_factory.mktemp("film") / "telecined.mkv", telecined(1.3) + UNFLAGGED)


def test_the_film_comes_out_as_it_was(telecined_file: Path, tmp_path: Path, programs: Programs) -> None:
    """Every frame the same in every bit, at film's own rate; at the end fields without a partner may be missing."""
    original = make(programs, tmp_path / "film.mkv", film_clip(1.3))
    output = tmp_path / "out.mkv"
    assert video(telecined_file, output, "--inverse-telecine", "--multi", "1", *LOSSLESS) == 0
    before, after = programs.frame_hashes(original), programs.frame_hashes(output)
    assert len(before) - 1 <= len(after) <= len(before) + 1
    assert after[: len(before) - 1] == before[:-1]
    assert Fraction(programs.stream(output)["r_frame_rate"]) == FILM


def test_ten_bits(tmp_path: Path, programs: Programs) -> None:
    source = tmp_path / "in.mkv"
    programs.make("-f", "lavfi", "-i", telecined(0.9), "-pix_fmt", "yuv420p10le", "-c:v", "ffv1", source)
    output = tmp_path / "out.mkv"
    assert video(source, output, "--inverse-telecine", *LOSSLESS) == 0
    steps = [after - now for now, after in itertools.pairwise(programs.times(output))]
    assert all(abs(step - 1 / (2 * FILM)) <= Fraction(1, 1000) for step in steps)


def test_mixed_material_keeps_exact_times(tmp_path: Path, programs: Programs) -> None:
    """Film, real video and film again: each at its own rate, and as long as before."""
    parts = [telecined(0.84), video_clip(0.67), telecined(0.84)]
    graph = ";".join(f"{part}{UNFLAGGED},fps={NTSC}[p{n}]" for n, part in enumerate(parts))
    source = make(programs, tmp_path / "in.mkv", f"{graph};[p0][p1][p2]concat=n=3")
    count = len(programs.times(source))
    output = tmp_path / "out.mkv"
    assert video(source, output, "--inverse-telecine", "--multi", "1", *LOSSLESS) == 0
    times = programs.times(output)
    steps = [after - now for now, after in itertools.pairwise(times)]
    film, frame = 1 / FILM, 1 / NTSC
    assert all(min(abs(step - film), abs(step - frame)) <= Fraction(1, 1000) for step in steps)
    assert 10 <= sum(abs(step - frame) <= Fraction(1, 1000) for step in steps) <= 25
    assert float(programs.end(output)) == pytest.approx(count * frame, abs=0.045)


def test_a_script_makes_the_same_frames(
    telecined_file: Path, tmp_path: Path, programs: Programs, vspipe: VSPipe, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--inverse-telecine", "--multi", "1")
    output = tmp_path / "out.mkv"
    assert video(telecined_file, output, *options, *LOSSLESS) == 0
    capsys.readouterr()
    assert main(["script", str(telecined_file), *options]) == 0
    script = tmp_path / "printed.vpy"
    script.write_text(capsys.readouterr().out)
    result = vspipe(script, "-c", "y4m", str(tmp_path / "out.y4m"))
    assert result.returncode == 0, result.stderr.decode()
    assert programs.frame_hashes(tmp_path / "out.y4m") == programs.frame_hashes(output)


def test_segments_make_the_same_frames(telecined_file: Path, tmp_path: Path, programs: Programs) -> None:
    hashes = []
    for seconds in ("10", "0.1"):
        output = tmp_path / f"{seconds}.mkv"
        assert video(telecined_file, output, "--inverse-telecine", "--segment", seconds, *LOSSLESS) == 0
        hashes.append(programs.frame_hashes(output))
    assert hashes[0] == hashes[1]


# --- soft telecine ----------------------------------------------------------------------------------------------------


def soft_telecined(programs: Programs, path: Path, frames: int) -> Path:
    """MPEG-2 of film frames of which flags repeat every other one's first field."""
    plain = path.with_suffix(".m2v")
    programs.make(
        "-f", "lavfi", "-i", SCENE.format(NTSC, 3), "-frames:v", str(frames), "-c:v", "mpeg2video", "-flags", "+ildct",
        "-bf", "0", "-q:v", "2", plain,
    )  # fmt: skip
    data, at, picture = bytearray(plain.read_bytes()), 0, 0
    while (at := data.find(b"\x00\x00\x01\xb5", at)) >= 0:
        kind = data[at + 4] >> 4
        if kind == 1:  # sequence extension: not a progressive sequence
            data[at + 5] &= ~0x08
        elif kind == 8:  # picture coding extension: top field first, repeat first field; a progressive frame
            top, repeat = ((1, 1), (0, 0), (0, 1), (1, 0))[picture % 4]
            data[at + 7] = data[at + 7] & 0x7D | top << 7 | repeat << 1
            data[at + 8] |= 0x80
            picture += 1
        at += 4
    plain.write_bytes(data)
    if path.suffix != ".m2v":
        programs.make("-fflags", "+genpts", "-i", plain, "-c", "copy", path)
    return path


@pytest.mark.parametrize("suffix", ["m2v", "mpg", "mkv"])
def test_flags_of_soft_telecine_are_obeyed(suffix: str, tmp_path: Path, programs: Programs) -> None:
    """Frames last two and three fields in turn, or evenly; either way as long as the flags say."""
    source, output = soft_telecined(programs, tmp_path / f"in.{suffix}", 24), tmp_path / "out.mkv"
    assert video(source, output, "--multi", "1", *LOSSLESS) == 0
    times = programs.times(output)
    fields = [round((after - now) * 2 * NTSC) for now, after in itertools.pairwise(times)]
    assert sorted(fields[:4]) == [2, 2, 3, 3]
    assert sum(fields[:20]) == 50

    assert video(source, output, "--multi", "1", "--inverse-telecine", "--overwrite", *LOSSLESS) == 0
    assert Fraction(programs.stream(output)["r_frame_rate"]) == FILM
    assert len(programs.times(output)) == 24


# --- the warning ------------------------------------------------------------------------------------------------------


def test_unflagged_combs_are_named_with_their_remedy(
    telecined_file: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    interlaced = make(programs, tmp_path / "interlaced.mkv", video_clip(1.3) + UNFLAGGED)
    progressive = make(programs, tmp_path / "progressive.mkv", SCENE.format(NTSC, 1.3))
    remedies = {telecined_file: "add --inverse-telecine", interlaced: "add --deinterlace", progressive: None}
    for source, remedy in remedies.items():
        assert main(["video", str(source), str(tmp_path / "out.mkv"), "--quiet", "--end", "3f", "--overwrite"]) == 0
        said = capsys.readouterr().err
        if remedy is None:
            assert said == ""
        else:
            assert f"{source.name}: frames are combed, and no flag says so" in said
            assert remedy in said


def test_real_footage_is_not_called_combed(shared_data: Path) -> None:
    """Fine stripes, pans, grain; and what is interlaced is."""
    names = ("phone_pan_01", "film_1940_01", "stream_01")
    for path in [shared_data / "train" / f"{name}.mp4" for name in names]:
        source = open_source(path)
        assert find_combs(source.clip, source.timeline) is None, path.name
    source = open_source(shared_data / "clips" / "cartoon_480i_tff.mp4")
    assert find_combs(source.clip, source.timeline) == "video"


def test_what_cannot_be_is_one_line(
    telecined_file: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mkv"
    both = failure(capsys, telecined_file, output, "--inverse-telecine", "--deinterlace")
    assert both.startswith("--deinterlace and --inverse-telecine exclude each other")
    options = ("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2")
    flagged = make(programs, tmp_path / "flagged.mkv", video_clip(0.4), *options)
    assert "--inverse-telecine if it is film" in failure(capsys, flagged, output)
    assert not output.exists()


def test_without_pulldown_nothing_is_dropped(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(programs, tmp_path / "in.mkv", SCENE.format(NTSC, 1))
    output = tmp_path / "out.mkv"
    assert video(source, output, "--inverse-telecine", "--multi", "1", *LOSSLESS) == 0
    assert "no pulldown found, so all frames stay" in capsys.readouterr().err
    assert programs.times(output) == programs.times(source)
