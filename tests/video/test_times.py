"""Frames, times and sync of the result against the source, for every container and start that FFmpeg can write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import Programs, video

pytestmark = pytest.mark.usefixtures("mixed_frames")
RATE, FRAMES = 25, 12
PRIMING_S = 1024 / 44100  # silence that AAC begins with; MP4 hides it, Matroska does not
WMA_S = 2 * 2048 / 44100  # its first packet gives no sound


@dataclass(frozen=True, slots=True)
class Case:
    """A file to make.

    Attributes:
        name: of the file; its suffix chooses the container.
        codec: video codec with its options.
        audio: audio codec; None: no audio.
        start: seconds at which the file's clock starts.
        later: seconds by which the audio starts after the picture.
    """

    name: str
    codec: str
    audio: str | None
    start: str = "0"
    later: str = "0"

    def __str__(self) -> str:
        return f"{self.name}-{self.codec.replace(' ', '')}-{self.audio}-{self.start}-{self.later}"


X264, MPEG2, VP9 = "libx264 -preset ultrafast", "mpeg2video", "libvpx-vp9 -cpu-used 8"
# Suffix, codec without and with B-frames (VP9: frames that are not shown), audio.
CONTAINERS = (
    ("mp4", X264, f"{X264} -bf 2", "aac"), ("mov", X264, f"{X264} -bf 2", "aac"),
    ("mkv", X264, f"{X264} -bf 2", "aac"), ("ts", X264, f"{X264} -bf 2", "aac"),
    ("m2ts", MPEG2, f"{X264} -bf 2", "aac"), ("mpg", MPEG2, f"{MPEG2} -bf 2", "mp2"),
    ("vob", MPEG2, f"{MPEG2} -bf 2", "mp2"), ("flv", X264, f"{X264} -bf 2", "aac"),
    ("webm", "libvpx", VP9, "libopus"), ("nut", X264, f"{X264} -bf 2", "aac"), ("3gp", X264, f"{X264} -bf 2", "aac"),
    ("ogv", "libtheora -q:v 10", "libtheora -q:v 10", "libvorbis"), ("wmv", "wmv2", "wmv2", "wmav2"),
    ("avi", "mpeg4 -vtag XVID", "mpeg4 -bf 2 -vtag XVID", "libmp3lame"),
    ("mxf", MPEG2, f"{MPEG2} -bf 2", "pcm_s16le -ar 48000"),
)  # fmt: skip
STARTS, SOUNDS = ("0", "1.466667", "5", "3600"), (None, "0", "0.3", "-0.3")  # seconds; of the sound after the picture
AT_ZERO = frozenset({"ogv", "wmv", "avi", "mxf"})  # FFmpeg writes none of these that starts later


def grid() -> Iterator[Case]:
    """Each container at each start with and without B-frames, with half of the sounds; its neighbours have the rest."""
    for i, (suffix, plain, reordered, audio) in enumerate(CONTAINERS):
        for j, start in enumerate(STARTS):
            for k, codec in enumerate((plain, reordered)):
                sound = SOUNDS[(i + j + 2 * k) % 4]
                begin = "0" if suffix in AT_ZERO else start
                yield Case(f"in.{suffix}", codec, None if sound is None else audio, begin, sound or "0")


CASES = [
    *dict.fromkeys(grid()),
    *(Case(f"in.{suffix}", f"{codec} -bf {b}", None)
      for suffix, codec in (("h264", X264), ("hevc", "libx265 -preset ultrafast"), ("m2v", MPEG2), ("m4v", "mpeg4"))
      for b in (0, 2)),
    Case("in.avi", f"{X264} -bf 2", None), Case("in.ts", f"{MPEG2} -bf 2", "mp2", "5"),
    Case("in.y4m", "wrapped_avframe", None), Case("in.mkv", "libsvtav1 -preset 12", "libopus", "5"),
    Case("in.ivf", VP9, None), Case("in.obu", "libsvtav1 -preset 12", None),
]  # fmt: skip


def make(case: Case, folder: Path, programs: Programs) -> Path:
    """The file of a case, with a fade that makes every frame different."""
    path, seconds = folder / case.name, str(FRAMES / RATE)
    later = float(case.later)
    arguments = ["-f", "lavfi", "-itsoffset", f"{max(-later, 0)}", "-i", f"testsrc2=s=64x64:r={RATE}:d={seconds}"]
    if case.audio:
        arguments += ["-f", "lavfi", "-itsoffset", f"{max(later, 0)}", "-i", f"sine=440:d={seconds}"]
        arguments += ["-c:a", *case.audio.split()]
    codec, *options = case.codec.split()
    arguments += ["-c:v", codec, *options, "-pix_fmt", "yuv420p", "-output_ts_offset", case.start]
    programs.make(*arguments, path)
    return path


def starts(programs: Programs, path: Path) -> tuple[list[Fraction], Fraction | None, int]:
    """Times of the video packets and of the first audio, seconds after the first frame; and the number of frames."""
    shown = programs.probe(
        path, "-show_entries", "packet=codec_type,pts_time,duration_time,size,flags:stream=codec_type,start_time"
    )
    heard = {stream["codec_type"]: Fraction(stream.get("start_time", 0)) for stream in shown["streams"]}

    def hidden(packet: dict[str, str]) -> bool:
        """Whether it is discarded, or all of it is priming: FFmpeg from 7 on hides that in Matroska as well."""
        end = Fraction(packet.get("pts_time", 0)) + Fraction(packet.get("duration_time", 1))
        return "D" in packet["flags"] or (packet["codec_type"] == "audio" and end <= heard["audio"])

    played = [packet for packet in shown["packets"] if int(packet["size"]) and not hidden(packet)]
    times: dict[str, list[Fraction]] = {"video": [], "audio": []}
    for packet in played:
        if "pts_time" in packet:
            times.setdefault(packet["codec_type"], []).append(Fraction(packet["pts_time"]))
    frames = sorted(times["video"])
    begin = frames[0] if frames else Fraction(0)
    count = sum(packet["codec_type"] == "video" for packet in played)
    return [time - begin for time in frames], min((time - begin for time in times["audio"]), default=None), count


@pytest.mark.parametrize(
    ("case", "target"), [(case, ("out.mkv", "out.mp4")[n // 2 % 2]) for n, case in enumerate(CASES)], ids=str
)
def test_times_and_sync(case: Case, target: str, tmp_path: Path, programs: Programs) -> None:
    source, output = make(case, tmp_path, programs), tmp_path / target
    assert video(source, output, "--preset", "ultrafast", "--sc-threshold", "1") == 0
    before, audio_before, count = starts(programs, source)
    after, audio_after, _ = starts(programs, output)
    half, suffix = 0.5 / RATE, Path(case.name).suffix
    assert len(after) == 2 * count
    assert min(programs.times(output)) >= 0
    if len(before) == count:  # else the container does not store all times
        assert [float(time) for time in after[::2]] == pytest.approx([float(time) for time in before], abs=half)
    else:
        assert [float(time) for time in after] == pytest.approx([n / (2 * RATE) for n in range(2 * count)], abs=half)
    if audio_before is not None:
        assert audio_after is not None
        # Priming that an edit list hides (Matroska of FFmpeg from 7 on has the like): of the source, or of audio that
        # mp4 holds only encoded anew. Players hear silence where it is not hidden.
        pairs = {(".ogv", "out.mp4"), (".mkv", "out.mp4")}
        hidden = target.endswith("mkv") if suffix in (".mp4", ".mov") else (suffix, target) in pairs
        allowed = 1 / RATE if suffix in (".avi", ".mpg", ".vob") else WMA_S if suffix == ".wmv" else half
        assert -allowed - (PRIMING_S if hidden else 0) <= audio_after - audio_before <= allowed
