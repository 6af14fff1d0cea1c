"""What the encoded video stream keeps of the source: size, rotation, colour, HDR, transparency."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import Programs, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


def test_rotation_stays(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source = shared_data / "clips" / "phone_vfr_rotated_hevc.mp4"
    for name in ("out.mp4", "out.mkv"):
        assert video(source, tmp_path / name, "--end", "2f", "--preset", "ultrafast") == 0
        before, after = programs.stream(source), programs.stream(tmp_path / name)
        assert after["side_data_list"] == before["side_data_list"]
        assert (after["width"], after["height"], after["color_range"]) == (1440, 1080, "pc")


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


def test_odd_size_and_full_chroma_stay(shared_data: Path, tmp_path: Path, programs: Programs) -> None:
    source, output = shared_data / "clips" / "cartoon_odd_427x239_444.mp4", tmp_path / "out.mp4"
    assert video(source, output, "--end", "2f", "--preset", "ultrafast") == 0
    after = programs.stream(output)
    assert (after["width"], after["height"], after["pix_fmt"]) == (427, 239, "yuv444p")


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
