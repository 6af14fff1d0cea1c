"""Tracks, chapters, attachments, covers and tags in the result, as ffprobe reports them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


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
    second = start + 3 * (1 - start)
    assert [(Fraction(c["start_time"]), Fraction(c["end_time"])) for c in after["chapters"]] == [
        (0, second), (second, start + 6),
    ]  # fmt: skip
