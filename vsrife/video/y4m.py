"""Results as raw frames with a line of text before each: YUV4MPEG2, which other programs read from a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from vsrife.errors import OptionError
from vsrife.video import codecs
from vsrife.video.encoder import Frames
from vsrife.video.job import Outcome, Reporter, VideoJob
from vsrife.video.muxer import fit
from vsrife.video.rendering import Product, Seen, make_product

# FFmpeg's chroma location to the tag of 8-bit 4:2:0; unknown is taken for left, as FFmpeg does.
_SITING = {0: "mpeg2", 1: "mpeg2", 2: "jpeg", 3: "paldv"}
_CHROMA = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (2, 0): "411"}
_RANGES = {0: "LIMITED", 1: "FULL"}


def write_y4m(job: VideoJob, file: BinaryIO, report: Reporter) -> Outcome:
    """Write the frames to a file or pipe.

    Raises:
        OptionError: the rate varies, or the format has no name in YUV4MPEG2.
        MediaError: the source cannot be read.
    """
    product = make_product(job.source(None), job.video, montage=job.montage)
    rate = product.times.rate
    if rate is None:
        raise OptionError(
            f"y4m has one frame rate, got a source whose rate varies ({float(product.times.mean_rate):.3f} on "
            "average); give --fps for a constant one"
        )
    layout = _stored(product, job.encode.pix_fmt)
    if len(product.clips) > 1 and not layout.alpha:
        report.warn(f"transparency left out, y4m has it only with yuva444p; got {layout.name}")
    product = replace(product, clips=fit(product, layout))
    file.write(header(product, layout))
    seen = Seen(product.times.schedule)
    done, total = 0, product.times.frames
    for frames in product.frames(0, total):
        if report.stop():
            break
        file.write(b"FRAME\n")
        for rows in _planes(frames):
            file.write(rows)
        seen.see(done, frames)
        done += 1
        report.advance(done, total, *seen.counts())
    file.flush()
    return Outcome(output=job.output, frames=done, total=total, seconds=float(done / rate),
                   cuts=seen.cuts, repeats=seen.repeats, resumable=False)  # fmt: skip


def header(product: Product, layout: codecs.Layout) -> bytes:
    """The line that the stream begins with."""
    source, clip, rate = product.source, product.clips[0], product.times.rate or Fraction(0)
    aspect = source.sample_aspect
    parts = [
        "YUV4MPEG2", f"W{clip.width}", f"H{clip.height}", f"F{rate.numerator}:{rate.denominator}", "Ip",
        f"A{aspect.numerator}:{aspect.denominator}", f"C{_colour_space(layout, source.chroma_location)}",
    ]  # fmt: skip
    if "_Range" in source.props:
        parts.append(f"XCOLORRANGE={_RANGES[int(source.props['_Range'])]}")
    return " ".join(parts).encode() + b"\n"


def _stored(product: Product, pix_fmt: str | None) -> codecs.Layout:
    layout: codecs.Layout | None = codecs.clip_layout(product.clips[0].format, alpha=len(product.clips) > 1)
    if pix_fmt is not None:
        layout = codecs.any_layout(pix_fmt)
    assert layout is not None
    if layout.alpha and (layout.bits, layout.subsampling_w, layout.subsampling_h) != (8, 0, 0):
        layout = replace(layout, alpha=False)
    _colour_space(layout, 0)
    return layout


def _colour_space(layout: codecs.Layout, chroma_location: int) -> str:
    """The tag of a format.

    Raises:
        OptionError: YUV4MPEG2 has none for it.
    """
    chroma = _CHROMA.get((layout.subsampling_w, layout.subsampling_h))
    if layout.floating or layout.family == "RGB" or (layout.family == "YUV" and chroma is None):
        raise OptionError(f"y4m holds YUV and grey of 8 to 16 bits, got {layout.name}; give --pix-fmt, such as yuv444p")
    if layout.family == "GRAY":
        return "mono" if layout.bits == 8 else f"mono{layout.bits}"
    if layout.alpha:
        return "444alpha"
    if layout.bits > 8:
        return f"{chroma}p{layout.bits} XYSCSS={chroma}P{layout.bits}"
    return f"{chroma}{_SITING.get(chroma_location, 'mpeg2')}" if chroma == "420" else str(chroma)


def _planes(frames: Frames) -> Iterator[bytes]:
    for frame in frames:
        for plane in range(frame.format.num_planes):
            yield np.ascontiguousarray(frame[plane]).tobytes()
