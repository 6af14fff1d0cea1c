"""Everything that a container cannot hold is reported: ffprobe finds it in the result, or stderr names it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import av
import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, turn, video

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")
TARGETS = {
    "out.mkv": [], "out.mp4": [], "out.mov": [], "out.ts": [], "out.avi": [], "out.flv": [],
    "out.webm": ["--codec", "vp9", "--preset", "8"], "out.ogv": ["--codec", "libvpx", "--pix-fmt", "yuv420p"],
    "out.mpg": ["--codec", "mpeg2video"], "out.wmv": ["--codec", "wmv2"],
    "out.nut": ["--codec", "ffv1"], "out.hevc": ["--codec", "x265", "--preset", "ultrafast"],
    "out.mxf": ["--codec", "mpeg2video"],
}  # fmt: skip
# What a muxer writes by itself: about the file, not the film.
OWN_TAGS = {
    "application_platform", "encoder", "software", "duration", "major_brand", "minor_version", "compatible_brands",
    "handler_name", "vendor_id",
}  # fmt: skip
_COLOUR = (
    "-aspect", "2:1", "-color_range", "pc", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
    "-chroma_sample_location", "topleft",
)  # fmt: skip
_MPEG_COLOUR = (*_COLOUR[:2], "-color_range", "tv", *_COLOUR[4:10])
_X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", *_COLOUR)
_MPEG2 = ("-c:v", "mpeg2video", "-pix_fmt", "yuv420p", *_MPEG_COLOUR)
_TEXT = ("-map", "2")
_FLAGS = ("-disposition:a:1", "comment")
# Streams are the picture, two of sound and, where mapped, a text; tags and chapters come with all of them.
SOURCES: dict[str, tuple[str, ...]] = {
    "in.mp4": (*_TEXT, *_X264, "-bf", "2", "-c:a", "aac", "-c:a:1", "ac3", "-c:s", "mov_text", *_FLAGS),
    "in.mov": (*_TEXT, *_X264, "-c:a", "pcm_s16le", "-c:a:1", "alac", "-c:s", "mov_text", "-timecode", "01:00:00:00",
               "-metadata", "com.apple.quicktime.model=Camera", "-movflags", "+use_metadata_tags"),
    "in.webm": (*_TEXT, "-c:v", "libvpx-vp9", "-cpu-used", "8", *_COLOUR, "-c:a", "libopus", "-c:a:1", "libvorbis",
                "-c:s", "webvtt", *_FLAGS),
    "turned.mp4": ("-an", *_X264),
    "in.ts": (*_X264, "-c:a", "mp2", "-c:a:1", "ac3", "-metadata", "service_name=One"),
    "in.m2ts": (*_X264, "-c:a", "ac3", "-c:a:1", "aac"),
    "in.mpg": (*_MPEG2, "-c:a", "mp2"), "in.vob": (*_MPEG2, "-c:a", "ac3"), "in.m2v": ("-an", *_MPEG2),
    "in.avi": ("-c:v", "mpeg4", "-aspect", "2:1", "-c:a", "pcm_s16le", "-c:a:1", "pcm_alaw"),
    "in.flv": ("-map", "-0:a:1", *_X264, "-c:a", "aac"), "in.wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "in.ogv": ("-c:v", "libtheora", "-c:a", "libvorbis", "-c:a:1", "flac"),
    "in.nut": (*_TEXT, "-c:v", "ffv1", *_COLOUR, "-c:a", "pcm_s16le", "-c:s", "ass", *_FLAGS),
    "in.hevc": ("-an", "-c:v", "libx265", "-preset", "ultrafast", *_COLOUR),
    "in.h264": ("-an", *_X264), "in.mxf": (*_MPEG2, "-c:a", "pcm_s16le", "-ar", "48000"),
    "in.gif": ("-an",), "in.3gp": (*_X264, "-c:a", "aac"),
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


@pytest.fixture(scope="session")
def make_source(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Callable[[str], Path]:
    """Makes a source of `SOURCES`, once."""
    folder = tmp_path_factory.mktemp("sources")

    @cache
    def make(name: str) -> Path:
        parts, path = folder / "parts.mkv", folder / name
        if not parts.exists():
            (folder / "a.srt").write_text("1\n00:00:00,050 --> 00:00:00,150\nfirst\n")
            (folder / "meta.txt").write_text(
                ";FFMETADATA1\ntitle=A film\nmood=calm\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=100\ntitle=One\n"
            )
            programs.make(
                "-f", "lavfi", "-i", f"testsrc2=s={WIDTH}x{HEIGHT}:r=25:d=0.2", "-f", "lavfi", "-i",
                "sine=440:r=48000:d=0.2", "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-c:a", "flac", "-map", "0", "-map",
                "1", "-map", "1", parts,
            )  # fmt: skip
        programs.make(
            "-i", parts, "-i", folder / "meta.txt", "-i", folder / "a.srt", "-map", "0", *SOURCES[name],
            "-map_metadata", "1", "-map_chapters", "1", "-metadata:s:v", "title=Picture", "-metadata:s:a:0",
            "language=ger", "-metadata:s:a:1", "title=Comments", path,
        )  # fmt: skip
        return turn(path, folder / f"again-{name}", 90) if name.startswith("turned") else path

    return make


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_pair_of_containers(
    source: str, target: str, make_source: Callable[[str], Path], programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_source(source)
    assert video(path, target, *TARGETS[target]) == 0
    said = capsys.readouterr().err
    before, after = _probed(programs, path), _probed(programs, Path(target))
    assert not [each for each in _missing(before, after, said) if each not in said], said


@pytest.mark.parametrize("target", TARGETS)
def test_kept_or_reported(target: str, rich: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    assert video(rich, target, *TARGETS[target]) == 0
    said = capsys.readouterr().err
    before, after = programs.probe(rich), _probed(programs, Path(target))
    assert not [each for each in _missing(before, after, said) if each not in said], said


def _missing(before: Any, after: Any, said: str) -> list[str]:
    """What is not in the result, by words that a message about it must contain; tracks that are left out apart."""
    missing: list[str] = []
    present = {key.lower() for key in after["format"].get("tags", {})}
    missing += [key for key in before["format"].get("tags", {}) if key.lower() not in present | OWN_TAGS]
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
            codecs = {one.get("codec_name"), other.get("codec_name")}
            if len(codecs) > 1 and codecs != {"mp2", "mp3"} and kind != "video":  # MP4 has one number for these
                missing.append(f"track {one['index']} ({kind}")
            tags = {key.lower() for key in other.get("tags", {})}
            known = {key for key, value in one.get("tags", {}).items() if (key, value) != ("language", "und")}
            missing += [key for key in known if key.lower() not in tags | OWN_TAGS]
            missing += [
                name for name, value in one["disposition"].items() if value and not other["disposition"].get(name)
            ]
    picture, result = _of_kind(before, "video")[0], _of_kind(after, "video")[0]
    defaults = {"color_range": "tv", "sample_aspect_ratio": "1:1"}
    missing += [
        word for key, word in COLOURS.items() if key in picture and picture[key] != result.get(key, defaults.get(key))
    ]
    if _rotation(picture) != _rotation(result):
        missing.append("rotation")
    return missing


def _rotation(stream: Any) -> int:
    return next((int(data["rotation"]) for data in stream.get("side_data_list", []) if "rotation" in data), 0)


def _probed(programs: Programs, path: Path) -> Any:
    """What ffprobe says; titles of QuickTime tracks, which the older one of Debian does not see, by PyAV."""
    probed = programs.probe(path)
    if path.suffix in (".mp4", ".mov", ".3gp"):
        with av.open(str(path)) as container:
            for stream, found in zip(container.streams, probed["streams"], strict=True):
                if "name" in stream.metadata:
                    found.setdefault("tags", {})["title"] = stream.metadata["name"]
    return probed


def _of_kind(probed: Any, kind: str) -> list[Any]:
    return [stream for stream in probed["streams"] if stream["codec_type"] == kind]
