"""Results as YUV4MPEG2: raw frames with a header line, for pipes to other programs.

VapourSynth's own writer is not used: its header lacks pixel aspect, range and chroma location, and it knows no alpha.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

from vsrife.errors import OptionError
from vsrife.video.job import Outcome, VideoJob
from vsrife.video.pixel_formats import PixelFormat, clip_format, parse_format
from vsrife.video.rendering import FrameStats, RenderedClip, fit, render
from vsrife.video.reporting import Reporter

# FFmpeg's chroma location to the tag of 8-bit 4:2:0; unspecified counts as left, as in FFmpeg.
_SITING = {0: "mpeg2", 1: "mpeg2", 2: "jpeg", 3: "paldv"}
_CHROMA = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (2, 0): "411"}
_RANGES = {0: "LIMITED", 1: "FULL"}


def write_y4m(job: VideoJob, file: BinaryIO, report: Reporter) -> Outcome:
    """Write the frames to a file or pipe.

    Raises:
        OptionError: the rate varies, or YUV4MPEG2 has no tag for the pixel format.
        MediaError: the source cannot be read.
    """
    rendered = render(job.source(job.inputs, None), job.video, report, side_by_side=job.side_by_side)
    rate = rendered.times.rate
    if rate is None:
        raise OptionError(
            f"y4m has one frame rate, got a source whose rate varies ({float(rendered.times.mean_rate):.3f} on "
            "average); give --fps for a constant one"
        )
    stored = _stored_format(rendered, job.encode.pix_fmt)
    if len(rendered.clips) > 1 and not stored.alpha:
        report.warn(f"transparency left out, y4m has it only with yuva444p, got {stored.name}")
    rendered = fit(rendered, stored)
    file.write(header(rendered, stored))
    stats = FrameStats(rendered.times.schedule)
    done, total = 0, rendered.times.frames
    for frames in rendered.frames(0, total):
        if report.stop():
            break
        file.write(b"FRAME\n")
        for frame in frames:
            for plane in range(frame.format.num_planes):
                file.write(_cropped(frame, plane, rendered.size).tobytes())
        stats.add(done, frames)
        done += 1
        report.advance(done, total, cuts=stats.cuts, duplicates=stats.duplicates)
    file.flush()
    return Outcome(output=job.output, frames=done, total=total, seconds=float(done / rate),
                   cuts=stats.cuts, duplicates=stats.duplicates, resumable=False)  # fmt: skip


def header(rendered: RenderedClip, stored: PixelFormat) -> bytes:
    """The first line of the stream."""
    source, (width, height), rate = rendered.source, rendered.size, rendered.times.rate or Fraction(0)
    aspect = source.sample_aspect
    parts = [
        "YUV4MPEG2", f"W{width}", f"H{height}", f"F{rate.numerator}:{rate.denominator}", "Ip",
        f"A{aspect.numerator}:{aspect.denominator}", f"C{_color_space(stored, source.chroma_location)}",
    ]  # fmt: skip
    if "_Range" in source.props:
        parts.append(f"XCOLORRANGE={_RANGES[int(source.props['_Range'])]}")
    return " ".join(parts).encode() + b"\n"


def _cropped(frame: vs.VideoFrame, plane: int, size: tuple[int, int]) -> NDArray[Any]:
    """A plane without the padding of odd sizes."""
    across, down = (frame.format.subsampling_w, frame.format.subsampling_h) if plane else (0, 0)
    return np.ascontiguousarray(np.asarray(frame[plane])[: -(-size[1] // (1 << down)), : -(-size[0] // (1 << across))])


def _stored_format(rendered: RenderedClip, pix_fmt: str | None) -> PixelFormat:
    stored = clip_format(rendered.clips[0].format, alpha=len(rendered.clips) > 1)
    if pix_fmt is not None:
        stored = parse_format(pix_fmt)
    if stored.alpha and (stored.bits, stored.subsampling_w, stored.subsampling_h) != (8, 0, 0):
        stored = replace(stored, alpha=False)
    _color_space(stored, 0)
    return stored


def _color_space(stored: PixelFormat, chroma_location: int) -> str:
    """The tag of a pixel format.

    Raises:
        OptionError: YUV4MPEG2 has none for it.
    """
    chroma = _CHROMA.get((stored.subsampling_w, stored.subsampling_h))
    if stored.floating or stored.family == "RGB" or (stored.family == "YUV" and chroma is None):
        raise OptionError(f"y4m holds YUV and grey of 8 to 16 bits, got {stored.name}; give --pix-fmt, such as yuv444p")
    if stored.family == "GRAY":
        return "mono" if stored.bits == 8 else f"mono{stored.bits}"
    if stored.alpha:
        return "444alpha"
    if stored.bits > 8:
        return f"{chroma}p{stored.bits} XYSCSS={chroma}P{stored.bits}"
    return f"{chroma}{_SITING.get(chroma_location, 'mpeg2')}" if chroma == "420" else str(chroma)
