"""`vsrife video` on files whose frames repeat or are damaged: what is shown, when, and the same from every segment."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from tests.media_clips import Programs, failure, video, write_greys
from vsrife.cli import main
from vsrife.video.job import VideoJob, run
from vsrife.video.muxer import EncodeOptions
from vsrife.video.plan import VideoOptions
from vsrife.video.reporting import Reporter
from vsrife.video.source import open_source

pytestmark = pytest.mark.usefixtures("mixed_frames")
TWOS = (40, 40, 60, 60, 80, 80, 100, 100, 120)
TICK = Fraction(1, 25)
LOSSLESS = ("--codec", "ffv1")


def make(path: Path, levels: Sequence[int] = TWOS, ticks: Sequence[int] | None = None) -> Path:
    write_greys(path, levels, range(len(levels) + 1) if ticks is None else ticks, TICK)
    return path


def shown(programs: Programs, source: Path, *options: str) -> list[float]:
    """Levels of the result's frames."""
    output = source.with_name("out.mkv")
    assert video(source, output, "--overwrite", *LOSSLESS, *options) == 0
    return programs.greys(output)


def test_motion_fills_in_at_the_same_rate(tmp_path: Path, programs: Programs) -> None:
    source = make(tmp_path / "in.mkv")
    assert shown(programs, source, "--multi", "1") == list(TWOS)
    assert shown(programs, source, "--multi", "1", "--duplicates", "fill") == list(range(40, 121, 10))
    assert programs.times(tmp_path / "out.mkv") == programs.times(source)


def test_a_higher_rate_moves_evenly(tmp_path: Path, programs: Programs) -> None:
    source = make(tmp_path / "in.mkv")
    expected = [*range(40, 121, 5), 120]
    assert shown(programs, source, "--duplicates", "fill") == expected
    assert shown(programs, source, "--duplicates", "fill", "--fps", "50") == expected


def test_24_in_30_is_spread_evenly(tmp_path: Path, programs: Programs) -> None:
    levels = [20 * (4 * (n // 5) + (0, 1, 2, 2, 3)[n % 5]) for n in range(15)]
    moved = shown(programs, make(tmp_path / "in.mkv", levels), "--multi", "1", "--duplicates", "even")
    assert moved[:12] == [16 * n for n in range(12)]


def test_the_bound_on_repeats(tmp_path: Path, programs: Programs) -> None:
    source = make(tmp_path / "in.mkv", (40, 40, 40, 70, 70, 80))
    options = ("--multi", "1", "--duplicates", "fill", "--max-repeats")
    assert shown(programs, source, *options, "1") == [40, 40, 40, 70, 75, 80]
    assert shown(programs, source, *options, "2") == [40, 50, 60, 70, 75, 80]


def test_variable_rates_move_evenly_in_time(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    """A frame that is shown at a quarter of the way shows a quarter of the motion, in a printed script as well."""
    source = make(tmp_path / "in.mkv", (40, 40, 80, 80, 140, 160), (0, 1, 4, 6, 8, 9, 10))
    options = ("--multi", "1", "--duplicates", "fill")
    assert shown(programs, source, *options) == [40, 50, 80, 110, 140, 160]
    assert programs.times(tmp_path / "out.mkv") == programs.times(source)

    assert main(["script", str(source), *options]) == 0
    script = tmp_path / "printed.vpy"
    script.write_text(capsys.readouterr().out)
    try:
        runpy.run_path(str(script))
        with closing(vs.get_output(0).clip.frames(close=True)) as frames:
            assert [int(np.asarray(frame[0])[0, 0]) for frame in frames] == [40, 50, 80, 110, 140, 160]
    finally:
        vs.clear_outputs()


@pytest.mark.parametrize("mode", ["fill", "even"])
@pytest.mark.parametrize("multi", [1, 2])
def test_a_repeat_before_a_cut_stays(mode: str, multi: int, tmp_path: Path, programs: Programs) -> None:
    """A A | B holds A: dark pictures on twos, then bright ones, encoded by ffmpeg with x264."""
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    scene = "testsrc2=size=96x64:rate=12:duration=0.5,lutyuv=y={}:u=128:v=128,fps=24"
    dark, bright = (scene.format(luma) for luma in ("val/2", "255-val/2"))
    programs.make(
        "-f", "lavfi", "-i", f"{dark}[a];{bright}[b];[a][b]concat=n=2", "-pix_fmt", "yuv420p", "-c:v", "libx264",
        "-crf", "18", source,
    )  # fmt: skip
    options = ("--duplicates", mode, "--multi", str(multi), *LOSSLESS)
    assert video(source, output, *options) == 0
    before, after = programs.frame_hashes(source), programs.frame_hashes(output)
    assert (len(before), len(after)) == (24, 24 * multi)
    cut = 11 * multi + 1  # at twice the rate, halfway between both scenes belongs to the later one
    assert after[cut - 1] in before[10:12]
    assert after[cut] == before[12]
    assert after[multi] != before[1]  # elsewhere motion takes the place of a repeat
    greys = programs.greys(output)
    assert max(greys[:cut]) < 100 < 150 < min(greys[cut:])


def test_damaged_frames_are_counted_in_the_whole_file(tmp_path: Path, programs: Programs) -> None:
    source = make(tmp_path / "in.mkv", (40, 50, 255, 70, 80, 0, 1, 110))
    assert shown(programs, source, "--multi", "1", "--replace", "2,5-6") == list(range(40, 111, 10))
    part = ("--start", "1f", "--end", "7f", "--multi", "1", "--replace")
    assert shown(programs, source, *part, "2,5-6") == [50, 60, 70, 80, 80, 80]
    assert shown(programs, source, *part, "0") == [50, 255, 70, 80, 0, 1]


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = make(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    refused = {
        ("--duplicates", "drop"): "'drop' is not one of 'keep', 'fill', 'even'",
        ("--max-repeats", "0"): "0 is not in the range 1<=x<=60",
        ("--replace", "9"): "--replace must be frames from 0 to 8, got 9; count from 0",
        ("--replace", "7-5"): "--replace must have ranges that increase, got '7-5'; write 5-7",
        ("--replace", "two"): "--replace must list frames and ranges such as 120,455-456, got 'two'",
        ("--replace", "2-3", "--start", "2f", "--end", "4f"): "--replace must leave a frame, got all from 2 to 3",
    }
    for options, expected in refused.items():
        assert expected in failure(capsys, source, output, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


# --- segments ---------------------------------------------------------------------------------------------------------


def job_of(source: Path, output: Path, segment: Fraction, **options: Any) -> VideoJob:
    return VideoJob(
        source=open_first, inputs=(source,), output=output, encode=EncodeOptions(codec="ffv1"),
        video=VideoOptions(duplicates="even", replace="31-33", network={"model": None}, **options),
        segment_seconds=segment,
    )  # fmt: skip


def open_first(files: Sequence[Path], index: Path | None) -> Any:
    return open_source(files[0], index)


def quiet(stop_after: int | None = None) -> Reporter:
    done = 0

    def advance(*_: int, **__: int) -> None:
        nonlocal done
        done += 1

    return Reporter(
        say=lambda _: None, warn=lambda _: None, advance=advance,
        stop=lambda: stop_after is not None and done > stop_after,
    )  # fmt: skip


@pytest.mark.parametrize("multi", [Fraction(1), Fraction(5, 2)])
def test_runs_that_span_segments(multi: Fraction, tmp_path: Path, programs: Programs) -> None:
    """One segment, many, or an interruption: every frame is the same. Rhythms of several kinds, pauses, damage."""
    rhythm = [0, 1, 2, 2, 3] * 4 + [4, 4, 4] * 5 + [5] * 9 + [6, 6]
    levels, level = [], 30
    for before, now in zip([0, *rhythm], rhythm, strict=False):
        level += 9 if now != before else 0
        levels.append(level)
    source = make(tmp_path / "in.mkv", [each % 200 + 20 for each in levels])
    whole, parts, resumed = (tmp_path / name for name in ("whole.mkv", "parts.mkv", "resumed.mkv"))
    run(job_of(source, whole, Fraction(100), multi=multi), quiet())
    run(job_of(source, parts, 3 * TICK, multi=multi), quiet())
    interrupted = run(job_of(source, resumed, 3 * TICK, multi=multi), quiet(stop_after=20))
    assert 0 < interrupted.frames < interrupted.total
    run(replace(job_of(source, resumed, 3 * TICK, multi=multi), resume=True), quiet())
    expected = programs.frame_hashes(whole)
    assert len(set(expected)) > len(set(levels))
    assert programs.frame_hashes(parts) == expected
    assert programs.frame_hashes(resumed) == expected
