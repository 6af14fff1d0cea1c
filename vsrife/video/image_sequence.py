"""Picture files as a source, and results as picture files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs

from vsrife.errors import MediaError, OptionError
from vsrife.images.files import PICTURE_SUFFIXES, Picture, read_picture, write_picture
from vsrife.images.numbering import numbered
from vsrife.timing.timeline import constant
from vsrife.video import codecs, resume
from vsrife.video.encoder import Frames
from vsrife.video.job import Outcome, Reporter, VideoJob, identify
from vsrife.video.muxer import fit
from vsrife.video.rendering import Product, Seen, make_product
from vsrife.video.source import Source, explained

DEFAULT_RATE = Fraction(24)

# --- in ---------------------------------------------------------------------------------------------------------------


def open_pictures(paths: Sequence[Path], rate: Fraction) -> Source:
    """A clip of picture files, in order, all of the size and format of the first.

    Raises:
        MediaError: the first one cannot be read. Later ones are read, and told of, when their turn comes.
    """
    first = read_picture(paths[0])
    colours, alpha = _blank(first, len(paths), rate), None
    clip = colours.std.ModifyFrame([colours], _reader(paths, first, _colour_planes))
    if first.has_alpha:
        grey = vs.GRAY8 if first.bits == 8 else vs.GRAY16
        blank = colours.std.BlankClip(format=grey, keep=True)
        alpha = blank.std.ModifyFrame([blank], _reader(paths, first, lambda picture: [picture.pixels[..., -1]]))
    props = {"_Matrix": 0 if first.channels > 2 else 1, "_Primaries": 1, "_Transfer": 13, "_Range": 1}
    return Source(
        path=paths[0].parent, clip=clip.std.SetFrameProps(**props), timeline=constant(len(paths), rate),
        origin=Fraction(0), track=-1, readable=len(paths), promised=len(paths), props=props,
        sample_aspect=Fraction(1), chroma_location=0, display_matrix=None, alpha=alpha, keywords={}, has_streams=False,
    )  # fmt: skip


def _blank(picture: Picture, length: int, rate: Fraction) -> vs.VideoNode:
    grey = picture.channels <= 2
    name = {(8, True): vs.GRAY8, (16, True): vs.GRAY16, (8, False): vs.RGB24, (16, False): vs.RGB48}
    height, width = picture.pixels.shape[:2]
    return vs.core.std.BlankClip(
        width=width, height=height, format=name[picture.bits, grey], length=length, fpsnum=rate.numerator,
        fpsden=rate.denominator, keep=True,
    )  # fmt: skip


def _colour_planes(picture: Picture) -> list[Any]:
    return [picture.pixels[..., channel] for channel in range(3 if picture.channels > 2 else 1)]


def _reader(paths: Sequence[Path], first: Picture, planes_of: Callable[[Picture], list[Any]]) -> Callable[..., Any]:
    def read(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        picture = read_picture(paths[n])
        if picture.pixels.shape != first.pixels.shape or picture.bits != first.bits:
            raise MediaError(
                f"{paths[n]} is unlike the first picture, got {picture.size} with {picture.channels} channels of "
                f"{picture.bits} bits; that is {first.size} with {first.channels} of {first.bits}: convert it"
            )
        frame = f.copy()
        for number, plane in enumerate(planes_of(picture)):
            np.asarray(frame[number])[:] = plane
        return frame

    return read


# --- out --------------------------------------------------------------------------------------------------------------


def pattern_of(text: str) -> Path:
    """Where numbered pictures go: a folder gets `%08d.png`, a name like `out/f_%05d.webp` stands for itself.

    Raises:
        OptionError: the name has a suffix of pictures but no number.
    """
    path = Path(text)
    if numbered(path, 0):
        return path
    if path.suffix.lower() in PICTURE_SUFFIXES:
        raise OptionError(f"pictures need a number in their name, got {path.name!r}; write it like %05d{path.suffix}")
    return path / "%08d.png"


def write_pictures(job: VideoJob, report: Reporter) -> Outcome:
    """Write the frames as picture files, numbered from 0 in the pattern that `job.output` is.

    Each appears when it is complete; `resume` goes on after those that are there.

    Raises:
        OptionError: there are pictures already and neither `resume` nor `overwrite` is asked for.
        MediaError: the source cannot be read, or a picture not be written.
    """
    state, continued = _begin(job)
    try:
        product = make_product(job.source(state / "index"), job.video, montage=job.montage)
        product = replace(product, clips=fit(product, _stored(product, job.encode.pix_fmt)))
        done = _first_missing(job.output, product.times.frames) if continued else 0
        outcome = _write_frames(job, product, done, report)
    finally:
        if not _numbered(job.output, 0).exists():
            resume.remove(state)
            with suppress(OSError):  # there may be other things in it
                job.output.parent.rmdir()
    if outcome.whole:
        resume.remove(state)
    return outcome


def _write_frames(job: VideoJob, product: Product, done: int, report: Reporter) -> Outcome:
    """Write what follows the first `done` frames."""
    times, seen = product.times, Seen(product.times.schedule)
    report.advance(done, times.frames, 0, 0)
    for frames in product.frames(done, times.frames):
        if report.stop():
            break
        seen.see(done, frames)
        write_picture(_numbered(job.output, done), Picture(_pixels(frames)))
        done += 1
        report.advance(done, times.frames, *seen.counts())
    return Outcome(output=job.output.parent, frames=done, total=times.frames, seconds=float(times[done] - times[0]),
                   cuts=seen.cuts, repeats=seen.repeats)  # fmt: skip


def _begin(job: VideoJob) -> tuple[Path, bool]:
    """Make the folder and the state beside it; gives the state, and whether an earlier run goes on."""
    folder, state = job.output.parent, resume.folder_of(job.output.parent)
    there = _numbered(job.output, 0)
    if there.exists() and not (job.overwrite or (job.resume and state.is_dir())):
        raise OptionError(f"{there} exists; give --overwrite to replace pictures, or another folder")
    with explained(folder, "cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
        return resume.begin(folder, identify(job), resume=job.resume, overwrite=job.overwrite)


def _first_missing(pattern: Path, frames: int) -> int:
    return next((n for n in range(frames) if not _numbered(pattern, n).exists()), frames)


def _numbered(pattern: Path, n: int) -> Path:
    path = numbered(pattern, n)
    assert path is not None  # `pattern_of` has made sure
    return path


def _stored(product: Product, pix_fmt: str | None) -> codecs.Layout:
    """What pictures hold: grey or RGB, 8 or 16 bits, with alpha where the clip has it."""
    if pix_fmt is not None:
        raise OptionError(f"pictures are RGB or grey, as deep as the source, got --pix-fmt {pix_fmt}; leave it out")
    source = codecs.clip_layout(product.clips[0].format, alpha=len(product.clips) > 1)
    bits = 8 if source.bits == 8 else 16
    return codecs.Layout("GRAY" if source.family == "GRAY" else "RGB", bits, False, 0, 0, source.alpha)


def _pixels(frames: Frames) -> Any:
    planes = [np.asarray(frame[plane]) for frame in frames for plane in range(frame.format.num_planes)]
    return np.stack(planes, axis=-1)
