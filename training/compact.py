"""Re-encode training clips so small that they travel with the code to a rented GPU.

    python -m training.compact CLIPS OUT [--width 640] [--budget-mib 38]

H.264 in mp4, at most `--width` pixels wide, which OpenCV's VideoCapture decodes everywhere. The quality falls in steps
until all clips together fit the budget. Needs PyAV (`pip install vsrife[cli]`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from training.console import exit_code
from training.pack import check_clip, find_clips
from vsrife.errors import MediaError, OptionError

FIRST_CRF, LAST_CRF, CRF_STEP = 18, 32, 2
EVEN = 2  # 4:2:0 needs even sides


def fitting_size(width: int, height: int, limit: int) -> tuple[int, int]:
    """Even sides, at most `limit` wide, in the same proportion."""
    factor = min(1.0, limit / width)
    return round(width * factor / EVEN) * EVEN, round(height * factor / EVEN) * EVEN


def encode_clip(source: Path, target: Path, limit: int, crf: int) -> None:
    """Re-encode one clip without its sound, every frame once.

    Raises:
        MediaError: it cannot be decoded.
        ClipError: it is too short or too small to train on.
    """
    import av

    try:
        with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
            stream = reader.streams.video[0]
            width, height = fitting_size(stream.width, stream.height, limit)
            out = writer.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "slow"})
            out.width, out.height, out.pix_fmt = width, height, "yuv420p"
            count = 0
            for frame in reader.decode(stream):
                small = frame.reformat(width, height, "yuv420p", interpolation="LANCZOS")
                small.pts = count
                writer.mux(out.encode(small))
                count += 1
            writer.mux(out.encode())
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(
            f"{source} cannot be decoded, got {error}; convert it, or take it out of the folder"
        ) from error
    check_clip(source, count, height, width)


def compact(clips: Sequence[Path], folder: Path, *, limit: int, budget_bytes: int) -> int:
    """Re-encode clips into a new folder; returns the constant quality (CRF) that fitted.

    Raises:
        OptionError: they do not fit even at the lowest quality, or the folder exists.
    """
    if folder.exists():
        raise OptionError(f"{folder} exists already; give a new folder, or delete it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    crf = FIRST_CRF
    while crf <= LAST_CRF:
        work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            for clip in clips:
                encode_clip(clip, work / f"{clip.stem}.mp4", limit, crf)
            size = sum(path.stat().st_size for path in work.iterdir())
            if size <= budget_bytes:
                work.rename(folder)
                return crf
        finally:
            shutil.rmtree(work, ignore_errors=True)
        crf += CRF_STEP
    got = f"got {size:,} bytes at CRF {LAST_CRF} for a budget of {budget_bytes:,}"
    raise OptionError(f"the clips do not fit, {got}; raise the budget or lower the width")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.compact", description="Re-encode clips to fit a budget")
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--budget-mib", type=float, default=38.0)
    arguments = parser.parse_args(argv)

    def work() -> None:
        budget = int(arguments.budget_mib * 2**20)
        crf = compact(find_clips(arguments.clips), arguments.out, limit=arguments.width, budget_bytes=budget)
        print(f"{arguments.out}: CRF {crf}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
