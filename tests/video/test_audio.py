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


@pytest.mark.parametrize(
    ("codec", "name", "becomes"),
    [("flac", "out.ts", "mp2"), ("pcm_s16le", "out.ts", "mp2"), ("flac", "out.mov", "aac"),
     ("pcm_s24le", "out.webm", "opus"), ("wmav2", "out.mp4", "aac"), ("wmav2", "out.mkv", "ac3"),
     ("libvorbis", "out.mov", "aac")],
)  # fmt: skip
def test_audio_that_does_not_fit_is_converted_and_reported(
    codec: str, name: str, becomes: str, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / ("in.wmv" if codec == "wmav2" else "in.mkv"), tmp_path / name
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=10:duration=1", "-f", "lavfi", "-i",
        "sine=440:duration=1", "-ac", "1", "-c:v", "wmv2" if codec == "wmav2" else "ffv1", "-c:a", codec, source,
    )  # fmt: skip
    codecs = ["--codec", "vp9", "--preset", "8"] if name.endswith("webm") else ["--preset", "ultrafast"]
    assert video(source, output, *codecs) == 0
    assert f"becomes {'lib' if becomes == 'opus' else ''}{becomes}," in capsys.readouterr().err
    assert programs.stream(output, "audio")["codec_name"] == becomes
    assert len(programs.sound(output)) / 48000 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("changes", [False, True])
def test_audio_of_a_broadcast_is_converted(changes: bool, tmp_path: Path, programs: Programs) -> None:
    """Its decoder gives other samples than the container says, and it may go on with other channels and rate."""
    source, output = tmp_path / "in.ts", tmp_path / "out.webm"
    kinds = [("ac3", "48000", "2"), ("ac3", "44100", "6")] if changes else [("mp2", "48000", "2")]
    for codec, rate, channels in kinds:
        programs.make(
            "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=25:duration=0.4", "-f", "lavfi", "-i",
            "sine=440:duration=0.4", "-c:v", "mpeg2video", "-c:a", codec, "-ar", rate, "-ac", channels,
            tmp_path / "part.ts",
        )  # fmt: skip
        with source.open("ab") as joined:
            joined.write((tmp_path / "part.ts").read_bytes())
    assert video(source, output, "--codec", "vp9", "--preset", "8") == 0
    loud = np.abs(programs.sound(output))
    assert len(loud) / 48000 == pytest.approx(0.4 * len(kinds), abs=0.1)
    assert loud[-9600:-4800].max() > 0.05


def test_a_track_of_unknown_codec_is_left_out(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=10:duration=1", "-f", "lavfi", "-i",
        "sine=440:duration=1", "-c:v", "ffv1", "-c:a", "flac", source,
    )  # fmt: skip
    source.write_bytes(source.read_bytes().replace(b"A_FLAC", b"A_ODD!"))
    assert video(source, tmp_path / "out.mkv", "--preset", "ultrafast") == 0
    assert "track 1 (audio, of unknown codec) left out, its codec is unknown" in capsys.readouterr().err
