"""The choice of codec and pixel format."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import Programs, failure, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


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
