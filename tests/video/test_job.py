"""`vsrife video`: what of a file is kept, seen by programs that share nothing with the command.

Most tests mix frames instead of running the network, so that a frame of flat grey tells its time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.clips import linear_engine
from tests.media_clips import HEIGHT, WIDTH, Programs, write_greys
from vsrife.cli import main


@pytest.fixture(scope="session")
def programs(ffmpeg: str, ffprobe: str) -> Programs:
    return Programs(ffmpeg, ffprobe)


@pytest.fixture
def mixing() -> Iterator[None]:
    """New frames are mixed, which takes no time."""
    with linear_engine():
        yield


def video(*arguments: str | Path) -> int:
    return main(["video", "--quiet", *map(str, arguments)])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line that a failing command says."""
    assert video(*arguments) in (1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("vsrife: ")
    assert said.err.count("\n") == 1, said.err
    return said.err.removeprefix("vsrife: ")


# --- the first command of the README ----------------------------------------------------------------------------------


def test_sample_becomes_48_fps_with_its_sound(sample: Path, tmp_path: Path, programs: Programs) -> None:
    """With the network, as a program of its own, cut short to two frames."""
    output = tmp_path / "sample-48fps.mp4"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "vsrife",
        "video",
        sample,
        output,
        "--start",
        "34f",
        "--end",
        "37f",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "wrote" in result.stderr
    assert "6 frames, 1 scene cuts" in result.stderr
    assert "100%" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sample-48fps.mp4"]
    kept = (
        "codec_name",
        "pix_fmt",
        "color_range",
        "color_space",
        "color_transfer",
        "color_primaries",
        "width",
        "height",
    )
    before, after = programs.stream(sample), programs.stream(output)
    assert [after.get(key) for key in kept] == [before.get(key) for key in kept]
    assert after["avg_frame_rate"] == "48/1"
    assert programs.times(output) == [Fraction(n, 48) for n in range(6)]
    assert programs.stream(output, "audio")["codec_name"] == programs.stream(sample, "audio")["codec_name"]


@pytest.mark.usefixtures("mixing")
def test_whole_sample_keeps_its_sound_bit_for_bit(sample: Path, tmp_path: Path, programs: Programs) -> None:
    output = tmp_path / "out.mp4"
    assert video(sample, output, "--preset", "ultrafast") == 0
    assert programs.times(output) == [Fraction(n, 48) for n in range(144)]
    entries = ("-select_streams", "a", "-show_entries", "packet=pts,size,data_hash", "-show_data_hash", "md5")
    assert programs.probe(output, *entries)["packets"] == programs.probe(sample, *entries)["packets"]
    assert programs.stream(output, "audio") == programs.stream(sample, "audio")


# --- what a container holds -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """Two sounds, two texts, chapters, a font, a cover, tags, languages and dispositions; 4 seconds at 10 fps."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "a.srt").write_text(
        "1\n00:00:00,500 --> 00:00:01,500\nfirst\n\n2\n00:00:02,000 --> 00:00:03,500\nsecond\n"
    )
    (folder / "meta.txt").write_text(
        ";FFMETADATA1\ntitle=A film\nartist=Somebody\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=1000\ntitle=One\n"
        "[CHAPTER]\nTIMEBASE=1/1000\nSTART=1000\nEND=4000\ntitle=Two\n"
    )
    (folder / "font.ttf").write_bytes(bytes(range(256)) * 4)
    programs.make("-i", folder / "a.srt", folder / "a.ass")
    path = folder / "rich.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate=10:duration=4",
        "-f", "lavfi", "-i", "sine=440:duration=4", "-f", "lavfi", "-i", "sine=880:duration=4",
        "-i", folder / "a.srt", "-i", folder / "a.ass", "-i", folder / "meta.txt",
        "-map", "0:v", "-map", "1:a", "-map", "2:a", "-map", "3:s", "-map", "4:s",
        "-map_metadata", "5", "-map_chapters", "5",
        "-attach", folder / "font.ttf", "-metadata:s:t", "mimetype=font/ttf",
        "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a:0", "aac", "-c:a:1", "flac",
        "-c:s:0", "srt", "-c:s:1", "ass", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=jpn",
        "-metadata:s:a:1", "title=Comments", "-metadata:s:s:0", "language=eng", "-metadata:s:s:1", "language=ger",
        "-disposition:a:1", "comment", "-disposition:s:1", "forced", "-metadata:s:v", "language=fre", path,
    )  # fmt: skip
    return path


@pytest.mark.usefixtures("mixing")
def test_everything_is_kept_in_matroska(
    rich: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mkv"
    assert video(rich, output, "--preset", "ultrafast") == 0
    assert capsys.readouterr().err == ""
    before, after = programs.probe(rich), programs.probe(output)

    def described(probed: dict[str, list[dict[str, dict[str, str]]]]) -> list[object]:
        return [
            (stream["codec_type"], stream.get("codec_name"), stream["disposition"],
             *(stream["tags"].get(tag) for tag in ("language", "title", "filename", "mimetype")))
            for stream in probed["streams"]
        ]  # fmt: skip

    assert described(after) == described(before)
    assert [(c["start_time"], c["end_time"], c["tags"]) for c in after["chapters"]] == [
        (c["start_time"], c["end_time"], c["tags"]) for c in before["chapters"]
    ]
    for tag in ("title", "ARTIST"):
        assert after["format"]["tags"][tag] == before["format"]["tags"][tag]
    for select in ("a:0", "a:1", "s:0", "s:1"):
        assert programs.times(output, select) == programs.times(rich, select)
    with av.open(str(output)) as container:
        assert container.streams.attachments[0].data == bytes(range(256)) * 4
    start = programs.times(rich)[0]  # the sound begins a little earlier
    assert programs.times(output) == [start + Fraction(n, 20) for n in range(80)]


@pytest.mark.usefixtures("mixing")
def test_mp4_gets_what_it_can_hold_and_the_rest_is_told(
    rich: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mp4"
    assert video(rich, output, "--preset", "ultrafast") == 0
    told = capsys.readouterr().err
    assert "track 4 (subtitle, ass, ger) becomes plain mov_text" in told
    assert "track 5 (attachment, font.ttf) left out" in told or "left out, mp4 holds no files" in told
    after = programs.probe(output)
    assert [stream["codec_name"] for stream in after["streams"][:5]] == ["h264", "aac", "flac", "mov_text", "mov_text"]
    assert [stream["tags"]["language"] for stream in after["streams"][:5]] == ["fre", "eng", "jpn", "eng", "ger"]
    assert [c["tags"]["title"] for c in after["chapters"]] == ["One", "Two"]
    assert after["format"]["tags"]["title"] == "A film"
    for path, text in ((rich, "before.srt"), (output, "after.srt")):
        programs.make("-i", path, "-map", "s:0", tmp_path / text)
    assert (tmp_path / "after.srt").read_text() == (tmp_path / "before.srt").read_text()


@pytest.mark.usefixtures("mixing")
def test_cover_and_unusual_tags(tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    source, cover, tagged = tmp_path / "in.mp4", tmp_path / "cover.png", tmp_path / "in.mkv"
    write_greys(tmp_path / "v.mkv", [40, 60, 80], range(4), Fraction(1, 10))
    programs.make("-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", "1", cover)
    programs.make("-i", tmp_path / "v.mkv", "-i", cover, "-map", "0", "-map", "1", "-c:v:0", "libx264", "-c:v:1", "png",
                  "-disposition:v:1", "attached_pic", "-metadata", "title=A film", source)  # fmt: skip
    programs.make("-i", source, "-map", "0:0", "-c", "copy", "-metadata", "mood=calm", tagged)
    for name in ("out.mp4", "out.mkv"):
        assert video(source, tmp_path / name, "--start", "1f") == 0
        picture = [s for s in programs.probe(tmp_path / name)["streams"] if s["disposition"]["attached_pic"]]
        assert [(s["codec_name"], s["width"]) for s in picture] == [("png", 32)]
        programs.make("-i", tmp_path / name, "-map", f"0:{picture[0]['index']}", "-c", "copy", tmp_path / "again.png")
        assert (tmp_path / "again.png").read_bytes() == cover.read_bytes()
    assert programs.times(tmp_path / "out.mp4") == [Fraction(n, 20) for n in range(4)]
    assert capsys.readouterr().err == ""
    assert video(tagged, tmp_path / "tags.mp4") == 0
    assert capsys.readouterr().err == "vsrife: tags left out, mp4 has no place for them: MOOD; .mkv has\n"
    assert programs.probe(tmp_path / "tags.mp4")["format"]["tags"]["title"] == "A film"


@pytest.mark.usefixtures("mixing")
def test_a_part_moves_sound_text_and_chapters(rich: Path, tmp_path: Path, programs: Programs) -> None:
    output = tmp_path / "out.mkv"
    assert video(rich, output, "--start", "0:01.2", "--end", "30f", "--preset", "ultrafast") == 0
    assert programs.times(output) == [Fraction(n, 20) for n in range(36)]
    after = programs.probe(output)
    assert [(c["start_time"], c["end_time"], c["tags"]["title"]) for c in after["chapters"]] == [
        ("0.000000", "1.800000", "Two")
    ]
    assert programs.times(output, "s:0") == [0, Fraction(8, 10)]
    texts = programs.probe(output, "-select_streams", "s:0", "-show_packets")["packets"]
    assert [float(text["pts_time"]) + float(text["duration_time"]) for text in texts] == pytest.approx([0.3, 1.8])
    sound = programs.times(output, "a:1")
    assert 0 <= sound[0] < Fraction(1, 10)
    assert Fraction(17, 10) < sound[-1] < Fraction(18, 10)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mixing")
def test_rotation_stays(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source = shared_data / "clips" / "phone_vfr_rotated_hevc.mp4"
    for name in ("out.mp4", "out.mkv"):
        assert video(source, tmp_path / name, "--end", "2f", "--preset", "ultrafast") == 0
        before, after = programs.stream(source), programs.stream(tmp_path / name)
        assert after["side_data_list"] == before["side_data_list"]
        assert (after["width"], after["height"], after["color_range"]) == (1440, 1080, "pc")


@pytest.mark.usefixtures("mixing")
@pytest.mark.parametrize("codec", ["x265", "svt-av1"])
def test_hdr10_stays(codec: str, shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source, output = shared_data / "clips" / "cartoon_hdr10_tags_hevc10.mkv", tmp_path / "out.mkv"
    preset = {"x265": "ultrafast", "svt-av1": "10"}[codec]
    assert video(source, output, "--end", "2f", "--codec", codec, "--preset", preset) == 0
    before, after = programs.stream(source), programs.stream(output)
    for key in ("pix_fmt", "color_range", "color_space", "color_transfer", "color_primaries"):
        assert after[key] == before[key], key
    first = ("-select_streams", "v", "-read_intervals", "%+#1", "-show_frames")
    before, after = ({s.get("side_data_type"): s for s in programs.probe(p, *first)["frames"][0]["side_data_list"]}
                     for p in (source, output))  # fmt: skip
    light, mastering = "Content light level metadata", "Mastering display metadata"
    assert after[light] == before[light]
    for key in before[mastering].keys() - {"side_data_type"}:
        assert float(Fraction(after[mastering][key])) == pytest.approx(
            float(Fraction(before[mastering][key])), rel=2e-3
        )


@pytest.mark.usefixtures("mixing")
def test_odd_size_and_full_chroma_stay(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source, output = shared_data / "clips" / "cartoon_odd_427x239_444.mp4", tmp_path / "out.mp4"
    assert video(source, output, "--end", "2f", "--preset", "ultrafast") == 0
    after = programs.stream(output)
    assert (after["width"], after["height"], after["pix_fmt"]) == (427, 239, "yuv444p")


@pytest.mark.usefixtures("mixing")
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


@pytest.mark.usefixtures("mixing")
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name", "decoder"),
    [
        ("ffv1", "yuva444p", "out.mkv", []),
        ("prores", "yuva444p", "out.mov", []),
        ("vp9", "yuva420p", "out.webm", ["-c:v", "libvpx-vp9"]),
    ],
)
def test_transparency_stays(
    codec: str, pix_fmt: str, name: str, decoder: list[str], tmp_path: Path, programs: Programs
) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / name
    write_greys(source, [40, 60, 80], range(4), Fraction(1, 10), pix_fmt=pix_fmt)
    assert video(source, output, "--codec", codec) == 0
    assert programs.greys(output, "a", *decoder) == pytest.approx([40, 50, 60, 70, 80, 80], abs=1)


@pytest.mark.usefixtures("mixing")
def test_one_frame(tmp_path: Path, programs: Programs) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_greys(source, [90], [0, 100], Fraction(1, 1000), codec="libx264", qp="0")
    assert video(source, output) == 0
    assert programs.times(output) == [0, Fraction(1, 20)]
    assert programs.end(output) == Fraction(1, 10)
    assert programs.greys(output) == pytest.approx([90, 90], abs=1)


# --- formats that do not fit ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mixing")
def test_a_codec_that_cannot_hold_the_format_says_what_can(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_greys(source, [40, 60], range(3), Fraction(1, 10), pix_fmt="yuv420p")
    programs.make("-i", source, "-c:v", "ffv1", "-pix_fmt", "yuv422p16le", tmp_path / "deep.mkv")
    said = failure(capsys, tmp_path / "deep.mkv", output)
    assert said == (
        "libx264 cannot hold all of the source's pixel format, got yuv422p16le; give --pix-fmt yuv422p10le to convert, "
        "or --codec ffv1 to keep it\n"
    )
    assert not output.exists()
    assert video(tmp_path / "deep.mkv", output, "--pix-fmt", "yuv422p10le") == 0
    assert programs.stream(output)["pix_fmt"] == "yuv422p10le"
    assert programs.greys(output) == pytest.approx([40, 50, 60, 60], abs=1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["out.webm", "--codec", "x265"], "webm cannot hold x265; it holds svt-av1, vp9; .mkv holds most"),
        (["out.mkv", "--codec", "nonsense"], "--codec must be x264, x265,"),
        (
            ["out.mkv", "--pix-fmt", "yuv411p"],
            "--pix-fmt must be a format of libx264, got 'yuv411p'; give one of yuv420p",
        ),
        (["out.mkv", "--codec", "ffv1", "--crf", "20"], "ffv1 has no crf, got --crf 20; leave --crf out"),
        (["out.mkv", "--preset", "warp"], "libx264 cannot encode 64x48 yuv420p with crf=18, preset=warp"),
        (["out.xyz"], "no container goes by the name 'out.xyz'"),
        (["absent/out.mkv"], "cannot be written, got no folder absent"),
        (["out.mkv", "--start", "5", "--end", "1"], "no frame lies between --start and --end"),
        (["out.mkv", "--start", "abc"], "--start must be a time like 90, 1:30"),
        (["out.mkv", "--multi", "0.5"], "multi must be at least 1, got '0.5'"),
        (["out.mkv", "--multi", "3", "--fps", "60"], "give one of them"),
        (["out.mkv", "--model", "4.99"], "4.99"),
        (["in.mkv"], "the output would replace the input"),
        (["there.mkv"], "there.mkv exists; give --overwrite to replace it, or another name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_greys(Path("in.mkv"), [40, 60], range(3), Fraction(1, 10))
    Path("there.mkv").write_text("an earlier result")
    source = Path("in.mkv").read_bytes()
    assert expected in failure(capsys, "in.mkv", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "there.mkv"]
    assert Path("there.mkv").read_text() == "an earlier result"
    assert Path("in.mkv").read_bytes() == source


@pytest.mark.parametrize("content", ["absent", "empty", "text", "sound", "cut short", "cut short mkv"])
def test_what_cannot_be_read_is_one_line_and_leaves_nothing(
    content: str, sample: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mkv"
    if content == "empty":
        source.touch()
    elif content == "text":
        source.write_text("no video at all")
    elif content == "sound":
        programs.make("-f", "lavfi", "-i", "sine=440:duration=1", source)
    elif content == "cut short":
        source.write_bytes(sample.read_bytes()[:100_000])
    elif content == "cut short mkv":
        source = tmp_path / "in.mkv"
        programs.make("-i", sample, "-c", "copy", source)
        source.write_bytes(source.read_bytes()[:100_000])
    expected = {
        "absent": "cannot be read, got: No such file", "empty": "is empty, got 0 bytes",
        "text": "cannot be read, got: Invalid",
        "sound": "holds no video, got audio", "cut short": "of 72 frames; copy it again, or give --end",
        "cut short mkv": "of more frames; copy it again, or give --end",
    }[content]  # fmt: skip
    said = failure(capsys, source, output)
    assert str(source) in said
    assert expected in said
    assert {path.name for path in tmp_path.iterdir()} <= {source.name}


# --- slow motion ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mixing")
def test_slow_motion_stretches_pictures_text_and_chapters(
    rich: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mkv"
    assert video(rich, output, "--slow-motion", "3", "--end", "2", "--preset", "ultrafast") == 0
    assert "left out of slow motion; --stretch-audio" in capsys.readouterr().err
    after = programs.probe(output)
    assert [stream["codec_type"] for stream in after["streams"]] == ["video", "subtitle", "subtitle", "attachment"]
    start = programs.times(rich)[0]
    assert programs.times(output) == [start + Fraction(n, 10) for n in range(60)]
    assert programs.times(output, "s:0") == [Fraction(3, 2) + start]
    assert [(c["start_time"], c["end_time"]) for c in after["chapters"]] == [
        ("0.000000", "2.954000"), ("2.954000", "6.023000"),
    ]  # fmt: skip


@pytest.mark.usefixtures("mixing")
def test_slow_motion_with_sound_keeps_pitch_and_sync(tmp_path: Path, programs: Programs) -> None:
    """A beep of 1 kHz from second 1 to 1.5 is one from second 4 to 6, four times slower.

    What is slowed down comes in windows of 40 ms of the source, so its edges are not sharp.
    """
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    programs.make(
        "-f", "lavfi", "-i", f"color=gray:size={WIDTH}x{HEIGHT}:rate=10:duration=2",
        "-f", "lavfi", "-i", "aevalsrc='if(between(t,1,1.5),sin(2*PI*1000*t),0)':s=48000:d=2",
        "-c:v", "libx264", "-c:a", "aac", source,
    )  # fmt: skip
    assert video(source, output, "--slow-motion", "4", "--stretch-audio") == 0
    sound = programs.sound(output)
    loud = np.flatnonzero(np.abs(sound) > 0.3) / 48000
    assert loud[0] == pytest.approx(4, abs=0.12)
    assert loud[-1] == pytest.approx(6, abs=0.12)
    spectrum = np.abs(np.fft.rfft(sound[int(4.5 * 48000) : int(5.5 * 48000)]))
    assert int(spectrum.argmax()) == pytest.approx(1000, abs=10)
    assert programs.times(output)[-1] == Fraction(79, 10)


@pytest.mark.usefixtures("mixing")
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


# --- for machines -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mixing")
def test_json_lines_tell_progress_and_result(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate=10:duration=0.1,loop=2:1:0,setpts=N/10/TB",
        "-f", "lavfi", "-i", f"mandelbrot=size={WIDTH}x{HEIGHT}:rate=10", "-filter_complex",
        "[1]trim=end_frame=2,format=yuv420p[b];[0]format=yuv420p[a];[a][b]concat", "-c:v", "ffv1", source,
    )  # fmt: skip
    assert main(["video", "--json", str(source), str(output)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[-1] == {
        "event": "done", "output": str(output), "frames": 10, "total": 10, "seconds": 0.5, "cuts": 1, "repeats": 2
    }  # fmt: skip
    progress = [line for line in lines if line["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 10
