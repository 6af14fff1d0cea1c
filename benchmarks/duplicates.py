"""How well repeated frames are found, and how close the motion in their place is to ordinary interpolation.

    python benchmarks/duplicates.py --data FOLDER [--model base] [--part detection|vdecimate|motion ...]
        [--output FILE]

FOLDER holds `eval/sequences` and `train` with footage. Detection: each sequence is shown on twos, as 24 in 30, and with
frames repeated at random (up to 3 times, every fourth on average), encoded anew by x264, and every decoded frame is
asked whether it repeats the one before. Of the footage in `train`, phone_pan_60fps holds 30 frames a second and
silent_film a few repeats: frames whose mean change is less than a third of that of the frames before and after. The
filter decides by the largest change of a block instead. VDecimate: the same of what its props say, 640 pixels wide.

Motion: twos and threes of a sequence, encoded at crf 18, filled at the same rate; ordinary interpolation by 2 and 3 of
the same decoded frames, each once; both against the sequence's own frames. 24 in 30 of synthetic film, a picture that
moves by whole pixels, spread evenly, against the true 30 frames a second; ordinary interpolation from 24 to 30 of the
24 frames; and the clip as it is. PSNR in dB of luma, mean over new frames.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import av
import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

import vsrife
from benchmarks.measure import Row
from vsrife.filters.duplicates import BLOCK_DIFFERENCE, DROPPED, LINKS, REPEAT_DIFFERENCE, Repair, link_windows
from vsrife.filters.frames import props_only
from vsrife.filters.scenechange import cut_clip
from vsrife.timing.duplicates import Link

CRFS = (18, 24, 30)
PARTS = ("detection", "vdecimate", "motion")
TWOS, THREES, IN_30 = (0, 0), (0, 0, 0), (0, 1, 2, 2, 3)
MOST = 3  # repeats of a run
WIDTH_PX = 480  # of the motion part
FILM, STEP_PX = (320, 180, 40), 1  # size and frames of the synthetic film; pixels that it moves in 1/120 s
REAL = ("phone_pan_60fps_01", "phone_pan_60fps_02", "phone_pan_60fps_03", "silent_film_01")


@dataclass(slots=True)
class Counts:
    """Repeated frames found, against the true ones."""

    found: int = 0
    there: int = 0
    both: int = 0

    def add(self, found: Sequence[bool], there: Sequence[bool]) -> None:
        self.found += sum(found)
        self.there += sum(there)
        self.both += sum(a and b for a, b in zip(found, there, strict=True))

    def row(self, *names: str) -> Row:
        def share(of: int) -> str:
            return f"{self.both / of:.3f}" if of else "-"

        return (*names, str(self.there), str(self.found), share(self.found), share(self.there))


def read(path: Path) -> vs.VideoNode:
    return vs.core.bs.VideoSource(str(path), cachemode=0)


def encoded(clip: vs.VideoNode, frames: Sequence[int], crf: int, path: Path) -> vs.VideoNode:
    """These frames of a YUV420P8 clip, encoded by x264 and decoded again."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": str(crf), "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        for n in frames:
            with clip.get_frame(n) as frame:
                planes = [np.asarray(frame[p]) for p in range(3)]
            picture = av.VideoFrame.from_ndarray(np.concatenate([p.reshape(-1) for p in planes]).reshape(
                clip.height * 3 // 2, clip.width), format="yuv420p")  # fmt: skip
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return read(path)


def patterns(frames: int) -> dict[str, list[int]]:
    """Which frame is shown at each place, by name."""
    randomly, rng = [], random.Random(1)
    for n in range(frames):
        randomly += [n] * (1 + (rng.randint(1, MOST) if rng.random() < 0.25 else 0))
    return {
        "on twos": held(frames, TWOS),
        "24 in 30": held(frames, IN_30),
        "at random": randomly,
    }


def held(frames: int, cycle: Sequence[int]) -> list[int]:
    """Frames of a cycle such as A B C C D, over and over, as long as there are frames."""
    distinct = cycle[-1] + 1
    return [n for start in range(0, frames, distinct) for n in (start + i for i in cycle) if n < frames]


def found_repeats(clip: vs.VideoNode) -> list[bool]:
    """Whether the filter takes each frame for a repeat of the one before."""
    repair = Repair("fill", MOST, None, None, None)
    windows = link_windows(props_only(clip), clip, cut_clip(clip, 0.15, reach=MOST + 1), repair)
    return [Link(frame.props[LINKS][repair.reach - 1]) is Link.REPEAT for frame in windows.frames(close=True)]


def detection(data: Path, folder: Path) -> Iterator[Row]:
    sequences = {path.stem: read(path) for path in sorted((data / "eval" / "sequences").glob("*.mp4"))}
    for crf in CRFS:
        for pattern in ("on twos", "24 in 30", "at random"):
            counts = Counts()
            for name, clip in sequences.items():
                shown = patterns(clip.num_frames)[pattern]
                there = [n > 0 and shown[n] == shown[n - 1] for n in range(len(shown))]
                counts.add(found_repeats(encoded(clip, shown, crf, folder / f"{name}.mkv")), there)
            yield counts.row(f"{len(sequences)} sequences, {pattern}", str(crf))
    for path in filter(Path.exists, [data / "train" / f"{name}.mp4" for name in REAL]):
        name, clip = path.stem, read(path)
        counts = Counts()
        counts.add(found_repeats(clip), repeats_by_mean(clip))
        yield counts.row(name, "as it is")


def vdecimate(data: Path, folder: Path) -> Iterator[Row]:
    """Rows of: material, crf, precision and recall of what VDecimate would drop, and of its metric."""
    for crf in (CRFS[0], CRFS[-1]):
        for pattern in ("on twos", "24 in 30", "at random"):
            dropped, near = Counts(), Counts()
            for path in sorted((data / "eval" / "sequences").glob("*.mp4")):
                clip = read(path)
                clip = clip.resize.Bicubic(640, round(clip.height * 640 / clip.width / 2) * 2)
                shown = patterns(clip.num_frames)[pattern]
                there = [n > 0 and shown[n] == shown[n - 1] for n in range(len(shown))]
                marked = encoded(clip, shown, crf, folder / f"{path.stem}.mkv").vivtc.VDecimate(dryrun=1)
                both = [marked_repeats(frame.props) for frame in marked.frames(close=True)]
                dropped.add([False, *(each[0] for each in both[1:])], there)
                near.add([False, *(each[1] for each in both[1:])], there)
            yield pattern, str(crf), ", ".join(dropped.row()[2:]), ", ".join(near.row()[2:])


def marked_repeats(props: Mapping[str, Any]) -> tuple[bool, bool]:
    """By what VDecimate would drop, and by its metric."""
    return bool(props[DROPPED]), props[BLOCK_DIFFERENCE] <= 255 * REPEAT_DIFFERENCE


def repeats_by_mean(clip: vs.VideoNode) -> list[bool]:
    """Whether each frame changes much less than the one before and the one after."""
    compared = clip.std.PlaneStats(clip[0] + clip)
    changes = [float(frame.props["PlaneStatsDiff"]) for frame in compared.frames(close=True)]
    changes[0] = math.inf
    around = zip(changes, [*changes[2:], math.inf], strict=False)
    return [False, *(3 * here < min(pair) for here, pair in zip(changes[1:], around, strict=True))]


def psnr_db(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, float(((a.astype(np.float64) - b) ** 2).mean()))))


def luma(clip: vs.VideoNode, n: int) -> NDArray[np.uint8]:
    with clip.get_frame(n) as frame:
        return np.asarray(frame[0]).copy()


def mean_psnr(clip: vs.VideoNode, truth: vs.VideoNode, frames: Sequence[int]) -> float:
    return float(np.mean([psnr_db(luma(clip, n), luma(truth, n)) for n in frames]))


def motion(data: Path, folder: Path, model: str) -> Iterator[Row]:
    """Rows of: material, the clip as it is, repaired, ordinary interpolation, their difference."""
    for path in sorted((data / "eval" / "sequences").glob("*.mp4")):
        clip = read(path)
        height = round(clip.height * WIDTH_PX / clip.width / 2) * 2
        truth = clip.resize.Bicubic(WIDTH_PX, height)
        for name, count in (("on twos", 2), ("on threes", 3)):
            distinct = list(range(0, truth.num_frames, count))
            shown = [n for n in distinct for _ in range(count)]
            source = encoded(truth, shown, 18, folder / "held.mkv")
            filled = vsrife.RIFE(source, 1, duplicates="fill", model=model)
            once = source.std.SelectEvery(count, 0)
            ordinary = vsrife.RIFE(once, count, model=model)
            new = [n for n in range(distinct[-1]) if n % count]
            yield result(f"{path.stem}, {name}", source, filled, ordinary, truth, new)
    source, truth = synthetic_film(read(data / "eval" / "sequences" / "sintel_cut.mp4"))
    spread = vsrife.RIFE(source, 1, duplicates="even", model=model)
    four = source.std.SelectEvery(5, [0, 1, 2, 4]).std.AssumeFPS(fpsnum=24)
    ordinary = vsrife.RIFE(four, fps=30, model=model)
    new = [n for n in range(5, source.num_frames - 10) if n % 5]
    yield result("synthetic film, 24 in 30", source, spread, ordinary, truth, new)


def result(
    name: str, source: vs.VideoNode, repaired: vs.VideoNode, ordinary: vs.VideoNode, truth: vs.VideoNode,
    frames: Sequence[int],
) -> Row:  # fmt: skip
    held_db, repaired_db, ordinary_db = (mean_psnr(clip, truth, frames) for clip in (source, repaired, ordinary))
    return name, f"{held_db:.2f}", f"{repaired_db:.2f}", f"{ordinary_db:.2f}", f"{repaired_db - ordinary_db:+.3f}"


def synthetic_film(clip: vs.VideoNode) -> tuple[vs.VideoNode, vs.VideoNode]:
    """A picture that moves by whole pixels: 24 frames a second in 30, and 30."""
    width, height, frames = FILM
    picture = luma(clip.resize.Bicubic(format=vs.GRAY8), 0)

    def at(ticks: int) -> NDArray[np.uint8]:  # of 1/120 s
        return picture[60 : 60 + height, ticks * STEP_PX : ticks * STEP_PX + width]

    def made(ticks: Sequence[int]) -> vs.VideoNode:
        blank = vs.core.std.BlankClip(None, width, height, vs.GRAY8, len(ticks), 30, 1, keep=True)

        def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
            frame = f.copy()
            np.asarray(frame[0])[:] = at(ticks[n])
            return frame

        return blank.std.ModifyFrame([blank], fill)

    shown = [4 * (n // 5) + IN_30[n % 5] for n in range(frames)]
    return made([5 * n for n in shown]), made([4 * n for n in range(frames)])


def main(given: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="repeated frames: found, and filled")
    options.add_argument("--data", type=Path, required=True, help="folder with eval/sequences and train")
    options.add_argument("--model", default="base", help="for motion; default: base")
    options.add_argument("--part", choices=PARTS, action="append", help="default: all")
    options.add_argument("--output", type=Path, help="write the tables to this file")
    arguments = options.parse_args(given)
    parts = arguments.part or PARTS
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        if "detection" in parts:
            head: Row = ("material", "crf", "repeats", "found", "precision", "recall")
            lines += table("Repeats found", head, detection(arguments.data, Path(name)))
        if "vdecimate" in parts:
            head = ("material", "crf", "VDecimateDrop: precision, recall", "VDecimateMaxBlockDiff: precision, recall")
            lines += table("Props of VDecimate", head, vdecimate(arguments.data, Path(name)))
        if "motion" in parts:
            head = ("material", "as it is, dB", "repaired, dB", "ordinary, dB", "difference, dB")
            lines += table(f"Motion, {arguments.model}", head, motion(arguments.data, Path(name), arguments.model))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")
    return 0


def table(title: str, head: Row, rows: Iterator[Row]) -> list[str]:
    """A markdown table, printed as its rows come."""
    lines: list[str] = []
    for line in (f"## {title}", "", *map(_line, (head, ("---",) * len(head)))):
        print(line, flush=True)
        lines.append(line)
    for row in rows:
        print(_line(row), flush=True)
        lines.append(_line(row))
    print()
    return [*lines, ""]


def _line(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
