"""Times of frames and audio in the result.

New frames are mixed instead of computed: the grey of a flat frame tells which source time it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests import media_clips
from tests.media_clips import HEIGHT, WIDTH, Programs, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


MILLISECOND = Fraction(1, 1000)


def video(*arguments: str | Path) -> None:
    """Run the command without cuts."""
    assert media_clips.video(*arguments, "--sc-threshold", "1") == 0


def triangle(count: int, step: int = 3) -> list[int]:
    """Levels that rise and fall between 40 and 200."""
    phase = np.arange(count) * step % 320
    return [int(level) for level in 40 + np.where(phase < 160, phase, 320 - phase)]


def assert_frames_show_their_time(
    programs: Programs, path: Path, times: Sequence[Fraction], levels: Sequence[int], within: float = 1.5
) -> None:
    """Every frame has the grey that the source has at its time, mixed from the frames around."""
    shown = [float(time) for time in programs.times(path)]
    expected = np.interp(shown, [float(time) for time in times[: len(levels)]], levels)
    assert programs.greys(path) == pytest.approx(list(expected), abs=within)


def test_two_minutes_of_23_976_to_59_94_end_on_the_millisecond(tmp_path: Path, programs: Programs) -> None:
    """The source's container rounds to milliseconds; a flash near the end tells how far the frames have drifted."""
    source, output = tmp_path / "in.mkv", tmp_path / "out.mp4"
    rate, count, flash = Fraction(24000, 1001), 2878, 2868
    levels = [200 if n >= flash else 40 for n in range(count)]
    ticks = [round(n / rate * 1000) for n in range(count + 1)]
    write_greys(source, levels, ticks, MILLISECOND, codec="libx264", preset="ultrafast", qp="0", g="5000")
    video(source, output, "--fps", "60000/1001", "--preset", "ultrafast")

    stream = programs.stream(output)
    assert (stream["r_frame_rate"], stream["avg_frame_rate"]) == ("60000/1001", "60000/1001")
    times = programs.times(output)
    assert times == [n * Fraction(1001, 60000) for n in range(7195)]
    assert abs(programs.end(output) - count / rate) < Fraction(1001, 60000)
    # Two output frames lie between the last dark frame and the first bright one.
    greys = programs.greys(output)
    for n in np.flatnonzero((np.array(greys) > 45) & (np.array(greys) < 195)):
        position = (greys[n] - 40) / 160
        seen_at = (flash - 1 + position) * 1001 / 24000
        assert seen_at == pytest.approx(float(times[n]), abs=0.001)
    first_bright = next(n for n, grey in enumerate(greys) if grey > 195)
    assert 0 <= times[first_bright] - flash / rate < Fraction(1001, 60000)


@pytest.mark.parametrize("options", [["--multi", "5/2"], ["--fps", "4"]], ids=" ".join)
def test_minutes_of_a_phones_variable_rate_stay_in_sync(options: list[str], tmp_path: Path, programs: Programs) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    count = 240
    steps = np.random.default_rng(5).integers(18000, 102001, count)  # 0.2 to 1.13 s: as uneven as a phone, but few
    ticks = [0, *(int(tick) for tick in np.cumsum(steps))]
    times = [Fraction(tick, 90000) for tick in ticks]
    levels = triangle(count)
    write_greys(source, levels, ticks, Fraction(1, 90000), codec="libx264", preset="ultrafast", qp="0", bf="0")
    assert times[-1] > 150
    video(source, output, *options, "--preset", "ultrafast")

    shown = programs.times(output)
    if options[0] == "--fps":
        assert shown == [Fraction(n, 4) for n in range(len(shown))]
        assert 0 <= Fraction(len(shown), 4) - times[-1] < Fraction(1, 4)
    else:
        places = [Fraction(2 * n, 5) for n in range(count * 5 // 2)]
        lefts = [int(place) for place in places]
        exact = [times[k] + (p - k) * (times[k + 1] - times[k]) for k, p in zip(lefts, places, strict=True)]
        assert shown == exact
        assert programs.end(output) == times[-1]
    assert_frames_show_their_time(programs, output, times, levels)


@pytest.fixture(scope="module")
def beeping(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """A bright frame from 1.0 s on, and a beep that begins with it; sound with priming samples and an edit list."""
    path = tmp_path_factory.mktemp("beep") / "beep.mp4"
    programs.make(
        "-f", "lavfi", "-i", f"color=black:size={WIDTH}x{HEIGHT}:rate=25:duration=2",
        "-f", "lavfi", "-i", "aevalsrc='if(gte(t,1),sin(2*PI*1000*t),0)':s=48000:d=2",
        "-vf", "geq=lum='if(gte(T,1),200,40)':cb=128:cr=128", "-c:v", "libx264", "-bf", "2", "-qp", "0",
        "-c:a", "aac", path,
    )  # fmt: skip
    return path


def onsets(programs: Programs, path: Path) -> tuple[float, float]:
    """When the picture becomes bright and when the sound becomes loud, in seconds of the file's clock."""
    begin = Fraction(programs.probe(path)["format"]["start_time"])
    pairs = zip(programs.times(path), programs.greys(path), strict=True)
    bright = next(time for time, grey in pairs if grey > 190) - begin
    loud = np.flatnonzero(np.abs(programs.sound(path)) > 0.3)[0] / 48000
    return float(bright), float(loud)


@pytest.mark.parametrize("source_name", ["beep.mp4", "beep.mkv", "beep.ts"])
@pytest.mark.parametrize("output_name", ["out.mp4", "out.mkv"])
def test_sound_and_picture_stay_together(
    source_name: str, output_name: str, beeping: Path, tmp_path: Path, programs: Programs
) -> None:
    """Also where the file's clock begins at 1.4 s, as in a transport stream."""
    source = beeping.with_name(source_name)
    if source != beeping:
        programs.make("-i", beeping, "-c", "copy", source)
    video(source, tmp_path / output_name)
    bright, loud = onsets(programs, source)
    assert loud - bright == pytest.approx(0, abs=0.03)
    new_bright, new_loud = onsets(programs, tmp_path / output_name)
    assert new_loud - new_bright == pytest.approx(loud - bright, abs=0.0015)
    if source_name == "beep.ts":
        assert programs.times(tmp_path / output_name)[0] < Fraction(1, 10)


@pytest.mark.parametrize("output_name", ["out.mp4", "out.mkv"])
def test_a_part_has_its_own_sound(output_name: str, beeping: Path, tmp_path: Path, programs: Programs) -> None:
    video(beeping, tmp_path / output_name, "--start", "0.52", "--end", "1.8")
    bright, loud = onsets(programs, tmp_path / output_name)
    assert bright == pytest.approx(1 - 0.52, abs=0.002)
    assert loud == pytest.approx(1 - 0.52, abs=0.002)
    assert len(programs.sound(tmp_path / output_name)) / 48000 == pytest.approx(1.28, abs=0.03)


def test_frames_before_an_edit_lists_start_stay_hidden(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    """The file holds two frames that are not to be shown."""
    source, output = shared_data / "clips" / "film_h264_aac_24fps.mp4", tmp_path / "out.mp4"
    video(source, output, "--end", "3f", "--preset", "ultrafast")
    assert programs.times(output) == [Fraction(n, 48) for n in range(6)]
    programs.make("-i", source, "-frames:v", "1", "-c:v", "ffv1", tmp_path / "first.mkv")
    assert programs.greys(output)[0] == pytest.approx(programs.greys(tmp_path / "first.mkv")[0], abs=1)


def test_real_variable_rate_keeps_its_times(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source, output = shared_data / "clips" / "drone_vfr_aac.mp4", tmp_path / "out.mp4"
    video(source, output, "--preset", "ultrafast", "--end", "60f")
    assert programs.times(output)[::2] == programs.times(source)[:60]


def test_a_lower_constant_rate_is_possible(tmp_path: Path, programs: Programs) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mp4"
    write_greys(source, triangle(51), range(0, 2041, 40), MILLISECOND)
    video(source, output, "--fps", "24")
    assert programs.times(output) == [Fraction(n, 24) for n in range(49)]
    assert_frames_show_their_time(programs, output, [Fraction(n, 25) for n in range(52)], triangle(51))


def test_a_rate_may_be_given_instead_of_the_files_times(tmp_path: Path, programs: Programs) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mp4"
    write_greys(source, triangle(5), [0, 10, 200, 201, 330, 400], MILLISECOND)
    video(source, output, "--rate", "23.976")
    assert programs.times(output) == [n * Fraction(1001, 48000) for n in range(10)]
