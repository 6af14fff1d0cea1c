"""Small video files, the command `vsrife video`, and FFmpeg's programs to look into results."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from vsrife.cli import main

WIDTH, HEIGHT = 64, 48


@dataclass(frozen=True, slots=True)
class Programs:
    """Debian's ffmpeg and ffprobe, which share no code with PyAV's."""

    ffmpeg: str
    ffprobe: str

    def make(self, *arguments: str | Path) -> None:
        """Run ffmpeg without questions."""
        subprocess.run([self.ffmpeg, "-v", "error", "-nostdin", "-y", *arguments], check=True, timeout=120)

    def probe(self, path: Path, *arguments: str) -> Any:
        """What ffprobe says about a file, by default all about its streams and the container."""
        wanted = arguments or ("-show_streams", "-show_format", "-show_chapters")
        command: list[str | Path] = [self.ffprobe, "-v", "error", "-of", "json", *wanted, path]
        return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)

    def stream(self, path: Path, kind: str = "video") -> Any:
        return next(stream for stream in self.probe(path)["streams"] if stream["codec_type"] == kind)

    def times(self, path: Path, select: str = "v:0") -> list[Fraction]:
        """When the packets of a stream are shown, in order."""
        shown = self.probe(path, "-select_streams", select, "-show_entries", "packet=pts:stream=time_base")
        tick = Fraction(shown["streams"][0]["time_base"])
        return sorted(packet["pts"] * tick for packet in shown["packets"])

    def end(self, path: Path) -> Fraction:
        """When the last frame ends."""
        shown = self.probe(path, "-select_streams", "v:0", "-show_entries", "packet=pts,duration:stream=time_base")
        tick = Fraction(shown["streams"][0]["time_base"])
        ends: list[int] = [packet["pts"] + packet["duration"] for packet in shown["packets"]]
        return max(ends) * tick

    def greys(self, path: Path, plane: str = "y", *options: str) -> list[float]:
        """Mean of each frame's luma, or of another plane, as stored."""
        size = self.stream(path)
        command: list[str | Path] = [
            self.ffmpeg, "-v", "error", *options, "-i", path, "-map", "v:0", "-fps_mode", "passthrough",
            "-vf", f"extractplanes={plane}", "-f", "rawvideo", "-pix_fmt", "gray", "-",
        ]  # fmt: skip
        raw = subprocess.run(command, check=True, capture_output=True, timeout=120).stdout
        pictures = np.frombuffer(raw, np.uint8).reshape(-1, size["width"] * size["height"])
        return [float(mean) for mean in pictures.mean(axis=1)]

    def frame_hashes(self, path: Path) -> list[str]:
        """Of each decoded video frame."""
        command: list[str | Path] = [
            self.ffmpeg, "-v", "error", "-i", path, "-map", "v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-",
        ]  # fmt: skip
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
        return [line.rsplit(",", 1)[1].strip() for line in text.splitlines() if not line.startswith("#")]

    def sound(self, path: Path, rate: int = 48000) -> NDArray[np.float32]:
        """The first sound track as one channel, from time 0 on."""
        command: list[str | Path] = [
            self.ffmpeg, "-v", "error", "-i", path, "-map", "a:0", "-af", "aresample=async=1:first_pts=0",
            "-ac", "1", "-ar", str(rate), "-f", "f32le", "-",
        ]  # fmt: skip
        return np.frombuffer(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout, np.float32)


def video(*arguments: str | Path) -> int:
    """Run `vsrife video --quiet` in this process; returns the exit code."""
    return main(["video", "--quiet", *map(str, arguments)])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that must fail with a single line on stderr; returns that line."""
    assert video(*arguments) in (1, 2)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("vsrife: ")
    assert said.err.count("\n") == 1, said.err
    return said.err.removeprefix("vsrife: ")


def write_greys(
    path: Path,
    levels: Sequence[int],
    ticks: Sequence[int],
    tick: Fraction,
    *,
    codec: str = "ffv1",
    pix_fmt: str = "yuv420p",
    **options: str,
) -> None:
    """A video of flat frames, one luma level each.

    Args:
        path: of the file.
        levels: of the frames, 8 bit.
        ticks: when they are shown, and the end of the last.
        tick: seconds.
        codec: of FFmpeg.
        pix_fmt: planar.
        options: of the codec.
    """
    rate = (len(levels) / ((ticks[-1] - ticks[0]) * tick)).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.time_base = stream.time_base = tick
        lasts = {}
        packets = []
        for level, begin, end in zip(levels, ticks, ticks[1:], strict=False):
            picture = flat(level, pix_fmt)
            picture.pts, picture.time_base = begin, tick
            lasts[begin] = end - begin
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode(None)]:
            packet.duration = lasts[packet.pts or 0]
            container.mux(packet)


QUARTERS = (1, 0, -1, 0)  # cosines of 0, 90, 180 and 270 degrees


def turn(source: Path, target: Path, degrees: int) -> Path:
    """Copy the video of a file with a tag that rotates it."""
    quarter = degrees // 90
    cosine, sine = (65536 * QUARTERS[n % 4] for n in (quarter, quarter - 1))
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        stream.set_display_matrix((cosine, sine, 0, -sine, cosine, 0, 0, 0, 2**30))
        for packet in read.demux(read.streams.video[0]):
            if packet.size:
                packet.stream = stream
                written.mux(packet)
    return target


def flat(level: int, pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A frame of one luma level without colour."""
    picture = av.VideoFrame(WIDTH, HEIGHT, pix_fmt)
    for number, plane in enumerate(picture.planes):
        plane.update(bytes([level if number in (0, 3) else 128]) * plane.buffer_size)
    return picture
