"""Everything that a container cannot hold is reported: ffprobe finds it in the result, or stderr names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, video

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")
TARGETS = {
    "out.mkv": [], "out.mp4": [], "out.mov": [], "out.ts": [], "out.avi": [], "out.flv": [],
    "out.webm": ["--codec", "vp9", "--preset", "8"], "out.mpg": ["--codec", "mpeg2video"],
    "out.wmv": ["--codec", "wmv2"], "out.nut": ["--codec", "ffv1"],
}  # fmt: skip
COLOURS = {
    "color_space": "matrix", "color_primaries": "primaries", "color_transfer": "transfer", "color_range": "range",
    "chroma_location": "chroma location", "sample_aspect_ratio": "pixel aspect ratio",
}  # fmt: skip


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """FLAC and PCM, styled and plain text, chapters, a file, tags, flags, languages, colours, a shape."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "a.srt").write_text("1\n00:00:00,050 --> 00:00:00,250\nfirst\n")
    programs.make("-i", folder / "a.srt", folder / "a.ass")
    (folder / "font.ttf").write_bytes(bytes(64))
    (folder / "meta.txt").write_text(
        ";FFMETADATA1\ntitle=A film\nmood=calm\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=200\ntitle=One\n"
    )
    path = folder / "rich.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=s={WIDTH}x{HEIGHT}:r=25:d=0.3", "-f", "lavfi", "-i", "sine=440:d=0.3",
        "-i", folder / "a.srt", "-i", folder / "a.ass", "-i", folder / "meta.txt", "-map", "0", "-map", "1",
        "-map", "1", "-map", "2", "-map", "3", "-map_metadata", "4", "-map_chapters", "4", "-c:v", "libx264", "-preset",
        "ultrafast",
        "-pix_fmt", "yuv420p", "-aspect", "2:1", "-color_range", "pc", "-colorspace", "bt709", "-color_primaries",
        "bt709", "-color_trc", "bt709", "-chroma_sample_location", "topleft", "-c:a:0", "flac", "-c:a:1", "pcm_s16le",
        "-c:s:0", "srt", "-c:s:1", "ass", "-attach", folder / "font.ttf", "-metadata:s:t", "mimetype=font/ttf",
        "-metadata:s:v", "title=Picture", "-metadata:s:a:0", "language=ger", "-metadata:s:a:1", "title=Comments",
        "-disposition:a:1", "comment", "-disposition:s:1", "forced", path,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("target", TARGETS)
def test_kept_or_reported(target: str, rich: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    assert video(rich, target, *TARGETS[target]) == 0
    said = capsys.readouterr().err
    before, after = programs.probe(rich), programs.probe(Path(target))
    assert not [each for each in _missing(before, after, said) if each not in said], said


def _missing(before: Any, after: Any, said: str) -> list[str]:
    """What is not in the result, by words that a message about it must contain; tracks that are left out apart."""
    missing: list[str] = []
    present = {key.lower() for key in after["format"].get("tags", {})}
    missing += [key for key in before["format"]["tags"] if key.lower() not in present | {"encoder"}]
    if len(after.get("chapters", [])) < len(before["chapters"]):
        missing.append("chapters left out")
    left_out = {int(number) for number in re.findall(r"^vsrife: track (\d+) \([^)]*\) left out", said, re.MULTILINE)}
    pairs = {
        kind: [stream for stream in _of_kind(before, kind) if stream["index"] not in left_out]
        for kind in ("video", "audio", "subtitle", "attachment")
    }
    for kind, streams in pairs.items():
        kept = [stream for stream in _of_kind(after, kind) if stream.get("codec_name") or kind == "attachment"]
        for number in range(len(kept), len(streams)):
            missing.append(f"track {streams[number]['index']} ({kind}")
        for one, other in zip(streams, kept, strict=False):
            if one.get("codec_name") != other.get("codec_name") and kind != "video":
                missing.append(f"track {one['index']} ({kind}")
            tags = {key.lower() for key in other.get("tags", {})}
            missing += [key for key in one.get("tags", {}) if key.lower() not in tags | {"duration", "encoder"}]
            missing += [
                name for name, value in one["disposition"].items() if value and not other["disposition"].get(name)
            ]
    picture, result = _of_kind(before, "video")[0], _of_kind(after, "video")[0]
    missing += [word for key, word in COLOURS.items() if picture.get(key) != result.get(key) and key in picture]
    return missing


def _of_kind(probed: Any, kind: str) -> list[Any]:
    return [stream for stream in probed["streams"] if stream["codec_type"] == kind]
