"""Numbered picture files as a source, and results as numbered picture files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

from vsrife.errors import MediaError, OptionError, shown
from vsrife.files import is_taken
from vsrife.images.files import (
    PICTURE_SUFFIXES,
    Picture,
    PictureHeader,
    common_samples,
    convert,
    read_header,
    read_picture,
    write_picture,
)
from vsrife.images.numbering import numbered
from vsrife.timing.timeline import constant
from vsrife.video import resume
from vsrife.video.encoder import Frames
from vsrife.video.job import Outcome, VideoJob, identify
from vsrife.video.pixel_formats import PixelFormat, clip_format
from vsrife.video.rendering import FrameStats, RenderedClip, fit, render
from vsrife.video.reporting import Reporter
from vsrife.video.source import Source, media_errors

DEFAULT_RATE = Fraction(24)

# --- in ---------------------------------------------------------------------------------------------------------------


def open_pictures(paths: Sequence[Path], rate: Fraction) -> Source:
    """Open picture files, in order, as a clip with the fewest channels and bits that hold them all.

    Raises:
        MediaError: a file has another size than the first, or its header cannot be read. Damage beyond the header
            comes up when the frame is read.
    """
    headers = [read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if header.size != first.size:
            raise MediaError(
                f"pictures of a sequence must have the same size, got {first.size} ({paths[0]}) and {header.size} "
                f"({path}); scale or crop one, or leave it out"
            )
    kind = PictureHeader(first.width, first.height, *common_samples(headers))
    colours = 3 if kind.channels >= 3 else 1

    @lru_cache(maxsize=2)  # colours and alpha of a frame are asked for one after the other
    def read(n: int) -> Picture:
        return convert(read_picture(paths[n]), kind.channels, kind.bits)

    clip = _clip(kind, colours, len(paths), rate, lambda n: read(n).pixels[..., :colours])
    alpha = _clip(kind, 1, len(paths), rate, lambda n: read(n).pixels[..., -1:]) if kind.has_alpha else None
    props = {"_Matrix": 0 if colours == 3 else 1, "_Primaries": 1, "_Transfer": 13, "_Range": 1}
    return Source(
        path=paths[0].parent, clip=clip.std.SetFrameProps(**props), size=(kind.width, kind.height),
        read_size=(kind.width, kind.height),
        timeline=constant(len(paths), rate), origin=Fraction(0), track=-1, readable=len(paths), promised=len(paths),
        props=props,
        sample_aspect=Fraction(1), chroma_location=0, display_matrix=None, alpha=alpha, keywords={}, has_streams=False,
    )  # fmt: skip


def _clip(
    kind: PictureHeader, planes: int, length: int, rate: Fraction, pixels: Callable[[int], NDArray[Any]]
) -> vs.VideoNode:
    """A clip of pictures (H, W, planes)."""
    family, sample = vs.GRAY if planes == 1 else vs.RGB, vs.INTEGER
    blank = vs.core.std.BlankClip(
        width=kind.width, height=kind.height, format=vs.core.query_video_format(family, sample, kind.bits).id,
        length=length, fpsnum=rate.numerator, fpsden=rate.denominator, keep=True,
    )  # fmt: skip

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame, samples = f.copy(), pixels(n)
        for plane in range(planes):
            np.asarray(frame[plane])[:] = samples[..., plane]
        return frame

    return blank.std.ModifyFrame([blank], fill)


# --- out --------------------------------------------------------------------------------------------------------------


def pattern_of(text: str) -> Path:
    """The pattern of file names for a value of --images: "%08d.png" in a folder, or a numbered name as it is.

    Raises:
        OptionError: the name has a suffix of pictures but no number.
    """
    path = Path(text)
    if numbered(path, 0):
        return path
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise OptionError(f"pictures need a number in their name, got {shown(path.name)}; write %05d{path.suffix}")
    return path / "%08d.png"


def write_pictures(job: VideoJob, report: Reporter) -> Outcome:
    """Write the frames as picture files, numbered from 0 in the pattern `job.output`.

    Each file appears when it is complete; `resume` continues after the last of them.

    Raises:
        OptionError: there are pictures already, and neither `resume` nor `overwrite` is given.
        MediaError: the source cannot be read, or a picture not be written.
    """
    folder, first = job.output.parent, _numbered(job.output, 0)
    is_new = not folder.exists()
    state = resume.folder_of(folder)
    if is_taken(first) and not (job.overwrite or (job.resume and state.is_dir())):
        raise OptionError(f"{first} exists; give --overwrite to replace pictures, or another folder")
    if is_taken(folder) and not folder.is_dir():
        raise OptionError(f"pictures go into a folder, got the file {folder}; give another name")
    identity = identify(job)
    with ExitStack() as stack:
        with media_errors(folder, "cannot be written"):
            continued = stack.enter_context(
                resume.run_folder(folder, identity, resume=job.resume, overwrite=job.overwrite)
            )
            started_ns = resume.started_ns(state)
            folder.mkdir(parents=True, exist_ok=True)
        try:
            rendered = render(
                job.source(job.inputs, resume.index_folder(state)), job.video, report, side_by_side=job.side_by_side
            )
            rendered = fit(rendered, _stored_format(rendered, job.encode.pix_fmt))
            done = _count_done(job.output, rendered.times.frames, started_ns) if continued else 0
            outcome = _write_frames(job, rendered, done, report)
        except BaseException:
            if not first.exists():
                resume.remove(folder)
                with suppress(OSError):  # it may hold other files
                    if is_new:
                        folder.rmdir()
            raise
        if outcome.complete:
            resume.remove(folder)
    return outcome


def _write_frames(job: VideoJob, rendered: RenderedClip, done: int, report: Reporter) -> Outcome:
    """Write the frames after the first `done`."""
    times, stats = rendered.times, FrameStats(rendered.times.schedule)
    report.advance(done, times.frames, cuts=0, duplicates=0)
    for frames in rendered.frames(done, times.frames):
        if report.stop():
            break
        stats.add(done, frames)
        write_picture(_numbered(job.output, done), as_picture(frames, rendered.size))
        done += 1
        report.advance(done, times.frames, cuts=stats.cuts, duplicates=stats.duplicates)
    return Outcome(output=job.output.parent, frames=done, total=times.frames, seconds=float(times[done] - times[0]),
                   cuts=stats.cuts, duplicates=stats.duplicates)  # fmt: skip


def _count_done(pattern: Path, frames: int, started_ns: int) -> int:
    """The number of leading pictures that are newer than the start of the run; older ones are to be replaced."""

    def is_done(n: int) -> bool:
        path = _numbered(pattern, n)
        return path.exists() and path.stat().st_mtime_ns >= started_ns

    return next((n for n in range(frames) if not is_done(n)), frames)


def _numbered(pattern: Path, n: int) -> Path:
    path = numbered(pattern, n)
    assert path is not None  # `pattern_of` has checked it
    return path


def _stored_format(rendered: RenderedClip, pix_fmt: str | None) -> PixelFormat:
    """Grey or RGB, 8 or 16 bits, with alpha if the clip has it."""
    if pix_fmt is not None:
        raise OptionError(f"pictures are RGB or grey, as deep as the source, got --pix-fmt {pix_fmt}; leave it out")
    source = clip_format(rendered.clips[0].format, alpha=len(rendered.clips) > 1)
    bits = 8 if source.bits == 8 else 16
    return PixelFormat("GRAY" if source.family == "GRAY" else "RGB", bits, False, 0, 0, source.alpha)


def as_picture(frames: Frames, size: tuple[int, int]) -> Picture:
    """A frame and its alpha as a picture of this width and height, without the padding of odd sizes."""
    width, height = size
    planes = [np.asarray(frame[plane]) for frame in frames for plane in range(frame.format.num_planes)]
    return Picture(np.stack(planes, axis=-1)[:height, :width])
