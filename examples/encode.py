"""Make a smooth video from a video file. Needs no ffmpeg program; the sound is copied as it is.

    python examples/encode.py in.mp4 out.mp4                # twice the frame rate
    python examples/encode.py in.mkv out.mkv --multi 5/2
    python examples/encode.py in.mp4 out.mp4 --fps 60 --model 4.26

bestsource reads and PyAV encodes; both come with `pip install '.[cli]'`. Variable rates stay in sync; with --fps they
become constant. Subtitles and chapters are left out, and formats that x264 does not take become 8-bit 4:2:0.
"""

from __future__ import annotations

import argparse
import heapq
import math
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

import vsrife
from vsrife.timing import read_timecodes

PIXEL_FORMATS = {  # of x264, by VapourSynth's name; anything else becomes YUV420P8
    "GRAY8": "gray", "YUV420P8": "yuv420p", "YUV422P8": "yuv422p", "YUV444P8": "yuv444p",
    "GRAY10": "gray10le", "YUV420P10": "yuv420p10le", "YUV422P10": "yuv422p10le", "YUV444P10": "yuv444p10le",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a smooth video from a video file.")
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path, help="replaced if it exists; its suffix chooses the container")
    parser.add_argument("--multi", default="2", help="output frames per source frame, such as 2 (the default) or 5/2")
    parser.add_argument("--fps", help="output rate instead of --multi, such as 60 or 60000/1001")
    parser.add_argument("--model", help="a published version such as 4.26, or a weights file; default: the bundled one")
    arguments = parser.parse_args()
    output: Path = arguments.output
    if output.resolve() == arguments.input.resolve():
        parser.error("the output would replace the input; give another name")
    unfinished = output.with_name(f"{output.stem}.part{output.suffix}")
    try:
        with av.open(str(arguments.input)) as source:
            clip, timecodes = open_clip(arguments.input)
            promised = source.streams.video[0].frames
            if promised > clip.num_frames:
                print(f"only {clip.num_frames} of {promised} frames can be read; is the file whole?", file=sys.stderr)
            if arguments.fps:  # a constant rate, also where the source's varies
                smooth = vsrife.RIFE(clip, fps=arguments.fps, timestamps=timecodes, model=arguments.model)
            else:
                smooth = vsrife.RIFE(clip, arguments.multi, model=arguments.model)
            with av.open(str(unfinished), "w") as target:
                encode(smooth, smooth.fps / clip.fps, source, target)
        unfinished.replace(output)
        print(f"wrote {output}", file=sys.stderr)
    except (vs.Error, av.error.FFmpegError, OSError, ValueError) as error:
        print(f"encode.py: cannot make {output}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    finally:
        unfinished.unlink(missing_ok=True)
    return 0


def open_clip(path: Path) -> tuple[vs.VideoNode, list[Fraction]]:
    """The frames of a video file, and the time of each in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        timecodes = Path(folder) / "timecodes.txt"
        clip = vs.core.bs.VideoSource(path, cachemode=0, timecodes=timecodes)
        if not clip.fps:
            raise ValueError("its frame rate is not known")
        return clip, read_timecodes(timecodes)


def encode(smooth: vs.VideoNode, multi: Fraction, source: InputContainer, target: OutputContainer) -> None:
    """Write the frames of `smooth`, which has `multi` of them for each of `source`, and the sound of `source`."""
    if smooth.format.name not in PIXEL_FORMATS:
        matrix = "709" if smooth.format.color_family == vs.RGB else None
        smooth = smooth.resize.Bicubic(format=vs.YUV420P8, matrix_s=matrix)
    tick = source.streams.video[0].time_base or Fraction(1)
    start = Fraction((source.streams.video[0].start_time or 0) * tick.numerator, tick.denominator)
    # In units of this every duration is whole, also where the source's rate varies: nothing is rounded, nothing drifts.
    units = math.lcm(tick.denominator * multi.numerator, smooth.fps.numerator)  # in a second
    video = add_video(target, smooth, Fraction(1, units if units < 2**31 else 90_000))
    sounds = {stream.index: target.add_stream_from_template(stream) for stream in source.streams.audio}
    target.start_encoding()  # fails now rather than after the first frames
    sound_packets = source.demux(source.streams.audio) if sounds else iter(())
    packets: Iterator[av.Packet[Any]] = heapq.merge(
        video_packets(smooth, video, start),
        (packet for packet in sound_packets if packet.dts is not None),  # None marks the end
        key=lambda packet: (packet.dts or 0) * packet.time_base,
    )
    for packet in packets:
        packet.stream = video if packet.stream is video else sounds[packet.stream.index]
        target.mux(packet)


def video_packets(clip: vs.VideoNode, video: VideoStream, start: Fraction) -> Iterator[av.Packet[Any]]:
    """Encode a clip whose first frame is shown at `start` seconds; with progress on stderr."""
    per_second = video.codec_context.time_base.denominator
    begin, lasts = start, dict[int | None, int]()  # durations by time: packets come out later and in another order
    for number, frame in enumerate(clip.frames(close=True), 1):
        denominator = frame.props.get("_DurationDen")  # readers may not know how long the last frame lasts
        end = begin + (Fraction(frame.props["_DurationNum"], denominator) if denominator else 1 / clip.fps)
        picture = to_picture(frame, PIXEL_FORMATS[clip.format.name])
        picture.pts, picture.time_base = round(begin * per_second), Fraction(1, per_second)
        lasts[picture.pts] = round(end * per_second) - picture.pts
        begin = end
        yield from with_durations(video.encode(picture), lasts)
        print(f"{number} of {clip.num_frames} frames", end="\r", file=sys.stderr, flush=True)
    yield from with_durations(video.encode(None), lasts)
    print(file=sys.stderr)


def with_durations(packets: list[av.Packet[Any]], lasts: dict[int | None, int]) -> Iterator[av.Packet[Any]]:
    for packet in packets:
        packet.duration = lasts.pop(packet.pts)
        yield packet


def add_video(target: OutputContainer, clip: vs.VideoNode, unit: Fraction) -> VideoStream:
    """An x264 stream for the frames of a clip, tagged with its colours and pixel shape."""
    video = target.add_stream("libx264", rate=clip.fps, options={"crf": "18"})
    video.width, video.height, video.pix_fmt = clip.width, clip.height, PIXEL_FORMATS[clip.format.name]
    context, props = video.codec_context, clip.get_frame(0).props
    context.time_base = unit
    context.colorspace, context.color_primaries = props.get("_Matrix", 2), props.get("_Primaries", 2)  # 2: unknown
    context.color_trc = props.get("_Transfer", 2)
    context.color_range = 2 if props.get("_Range") == 1 else 1
    context.sample_aspect_ratio = Fraction(props.get("_SARNum") or 1, props.get("_SARDen") or 1)
    return video


def to_picture(frame: vs.VideoFrame, pixel_format: str) -> av.VideoFrame:
    picture = av.VideoFrame(frame.width, frame.height, pixel_format)
    for number, plane in enumerate(picture.planes):
        samples = np.asarray(frame[number])
        rows = np.frombuffer(plane, samples.dtype).reshape(plane.height, -1)  # wider than the picture
        rows[:, : samples.shape[1]] = samples
    return picture


if __name__ == "__main__":
    sys.exit(main())
