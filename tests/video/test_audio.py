"""Audio that is encoded again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, video

pytestmark = pytest.mark.usefixtures("mixed_frames")


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
