"""A video as an animated GIF, WebP or PNG."""

from __future__ import annotations

from collections.abc import Iterator

from vsrife.images.animation import check_animation, write_animation
from vsrife.images.files import Picture, PictureHeader
from vsrife.video.image_sequence import as_picture
from vsrife.video.job import Outcome, VideoJob, check_output
from vsrife.video.pixel_formats import PixelFormat
from vsrife.video.rendering import FrameStats, fit, render
from vsrife.video.reporting import Reporter


def write_animated(job: VideoJob, report: Reporter) -> Outcome:
    """Write the frames as an animation, each at its own time, with alpha if the source has it; without audio.

    Raises:
        OptionError: the output exists, or the frames would not fit into memory.
        MediaError: the source cannot be read, or the file not be written.
        KeyboardInterrupt: the run was interrupted; nothing is written.
    """
    check_output(job)
    rendered = render(job.source(job.inputs, None), job.video, report, side_by_side=job.side_by_side)
    alpha = len(rendered.clips) > 1
    rendered = fit(rendered, PixelFormat("RGB", 8, False, 0, 0, alpha))
    times, (width, height) = rendered.times, rendered.size
    check_animation(job.output, PictureHeader(width, height, 3 + alpha, 8), times.frames)
    stats = FrameStats(times.schedule)

    def pictures() -> Iterator[Picture]:
        for done, frames in enumerate(rendered.frames(0, times.frames)):
            if report.stop():
                raise KeyboardInterrupt
            stats.add(done, frames)
            yield as_picture(frames, rendered.size)
            report.advance(done + 1, times.frames, cuts=stats.cuts, duplicates=stats.duplicates)

    write_animation(job.output, pictures(), times.__getitem__)
    return Outcome(output=job.output, frames=times.frames, total=times.frames,
                   seconds=float(times[times.frames] - times[0]), cuts=stats.cuts, duplicates=stats.duplicates,
                   resumable=False)  # fmt: skip
