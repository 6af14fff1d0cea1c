"""Which frames the result shows: deinterlaced, along a speed ramp, beside the source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, failure, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


def test_interlaced_is_refused_or_deinterlaced(
    shared_data: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = shared_data / "clips" / "cartoon_480i_tff.mp4", tmp_path / "out.mp4"
    assert "interlaced, got top field first" in (said := failure(capsys, source, output))
    assert "--deinterlace" in said
    assert list(tmp_path.iterdir()) == []
    assert video(source, output, "--deinterlace", "--end", "4f", "--preset", "ultrafast") == 0
    after = programs.stream(output)
    assert (after["avg_frame_rate"], after["sample_aspect_ratio"]) == ("120/1", "32:27")
    assert after.get("field_order") == "progressive"
    assert programs.times(output) == [Fraction(n, 120) for n in range(8)]


def test_a_speed_ramp_shows_the_source_times_of_the_curve(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brightness rises with every frame and tells the source time: half speed, then backwards."""
    source, output, curve = tmp_path / "in.mkv", tmp_path / "out.mkv", tmp_path / "curve.csv"
    programs.make(
        "-f", "lavfi", "-i", f"color=black:size={WIDTH}x{HEIGHT}:rate=10:duration=2,geq=lum='40+8*N':cb=128:cr=128",
        "-f", "lavfi", "-i", "sine=frequency=440:duration=2", "-c:v", "ffv1", "-c:a", "flac", source,
    )  # fmt: skip
    curve.write_text("output,source\n0,0\n2,1\n3,0\n")
    assert video(source, output, "--retime", curve, "--codec", "ffv1", "--sc-threshold", "1") == 0
    assert "track 1 (audio, flac) left out of the speed ramp" in capsys.readouterr().err
    assert [stream["codec_type"] for stream in programs.probe(output)["streams"]] == ["video"]
    assert programs.times(output) == [Fraction(n, 10) for n in range(30)]
    shown = programs.greys(output)
    expected = [40 + 8 * n / 2 for n in range(20)] + [40 + 8 * (10 - n) for n in range(10)]
    assert shown == pytest.approx(expected, abs=0.51)
    assert video(source, tmp_path / "b.mkv", "--retime", curve, "--multi", "3") == 2
    assert "--retime sets the speed by itself, got --multi, --exp or --slow-motion" in capsys.readouterr().err


@pytest.mark.usefixtures("empty_folder")
def test_montage_shows_the_source_at_the_left(programs: Programs) -> None:
    write_greys(Path("in.mkv"), [40, 60, 80], range(4), Fraction(1, 10))
    assert video("in.mkv", "out.mkv", "--montage", "--codec", "ffv1") == 0
    stream = programs.stream(Path("out.mkv"))
    assert (stream["width"], stream["height"]) == (2 * WIDTH, HEIGHT)
    for side, levels in (("0", [40, 40, 60, 60, 80, 80]), (str(WIDTH), [40, 50, 60, 70, 80, 80])):
        programs.make("-i", "out.mkv", "-vf", f"crop={WIDTH}:{HEIGHT}:{side}:0", "-c:v", "ffv1", f"{side}.mkv")
        assert programs.greys(Path(f"{side}.mkv")) == levels
