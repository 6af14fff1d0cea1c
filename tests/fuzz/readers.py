"""The readers of our own making, each as a function of a file. What it may raise is an error of vsrife's own.

python -m tests.fuzz.readers curve --seconds 600        # or scripts/fuzz, for all of them

Fuzzing starts from `corpus/NAME`, keeps what reaches new code in `.fuzz/NAME`, and leaves an input that broke the
reader in `.fuzz`. Once mended, that input goes into `corpus/NAME`, where `test_fuzz.py` reads it at every run.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
FOUND = Path(__file__).parents[2] / ".fuzz"
_INSTRUMENTED = ["vsrife.errors", "vsrife.checkpoints", "vsrife.images", "vsrife.timing", "vsrife.video"]
_MOST_BYTES = 12_000
_MOST_MIB = 4096


def read_ncnn(path: Path) -> None:
    from vsrife.checkpoints import ncnn
    from vsrife.errors import RifeError

    path.with_suffix(".bin").write_bytes(bytes(4096))
    with suppress(RifeError):
        ncnn.read(path)


def read_timecodes(path: Path) -> None:
    from vsrife.errors import RifeError
    from vsrife.timing import parsing, schedule

    with suppress(RifeError):
        times = parsing.read_timecodes(path)
        schedule.check_timestamps(times, len(times))


def read_curve(path: Path) -> None:
    from vsrife.errors import RifeError
    from vsrife.timing import parsing

    with suppress(RifeError):
        list(islice(parsing.parse_times(path, Fraction(25)), 100))


def read_segment(path: Path) -> None:
    """As it is, which the checksum refuses, and with a checksum that is right."""
    from vsrife.errors import RifeError
    from vsrife.video import resume

    data = path.read_bytes()
    segments = resume.Segments(path.parent, 1, 1)
    for footer in (b"", resume._FOOTER.pack(1, 0, 0, 0, zlib.crc32(data))):
        segments.path(0).write_bytes(data + footer)
        segments.discard_damaged()
        if segments.done():
            resume.read_footer(segments.path(0))
            with suppress(RifeError):
                list(resume.read_packets(segments.path(0)))


def read_safetensors(path: Path) -> None:
    from vsrife.checkpoints import installed, reading
    from vsrife.errors import RifeError

    for read in (reading.read_file, installed._header_shapes):
        with suppress(RifeError):
            read(path)


def read_y4m(path: Path) -> None:
    """FFmpeg and bestsource parse it; what follows from the header is ours."""
    from vsrife.errors import RifeError
    from vsrife.video.source import media_errors, open_source

    with suppress(RifeError):
        source = open_source(path)
        with media_errors(path):
            source.clip.get_frame(source.readable - 1).close()


READERS: Mapping[str, tuple[str, Callable[[Path], None]]] = {  # name of the file, reader
    "ncnn": ("flownet.param", read_ncnn),
    "timecodes": ("times.txt", read_timecodes),
    "curve": ("curve.csv", read_curve),
    "segment": ("segment", read_segment),
    "safetensors": ("model.safetensors", read_safetensors),
    "y4m": ("video.y4m", read_y4m),
}


def read(name: str, data: bytes, folder: Path) -> None:
    """Let a reader read a file of these bytes in an empty folder.

    Raises:
        Exception: any but vsrife's own is a fault.
    """
    file, reader = READERS[name]
    path = folder / file
    path.write_bytes(data)
    reader(path)


def can_fuzz() -> bool:
    """Whether atheris is installed."""
    return find_spec("atheris") is not None


def main() -> None:
    """Fuzz a reader."""
    parser = ArgumentParser(prog="fuzz", description="Fuzz a reader, guided by coverage.")
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--found", type=Path, default=FOUND, help="folder for inputs that reach new code or break it")
    parser.add_argument("--timeout", type=int, default=20, help="seconds after which an input counts as a hang")
    options = parser.parse_args()
    import atheris

    kept = options.found / options.reader
    kept.mkdir(parents=True, exist_ok=True)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        folder = Path(temporary)
        with atheris.instrument_imports(include=_INSTRUMENTED):
            read(options.reader, b"", folder)
        arguments = [
            f"-max_total_time={options.seconds}", f"-timeout={options.timeout}", f"-max_len={_MOST_BYTES}",
            f"-report_slow_units={options.timeout}", f"-rss_limit_mb={_MOST_MIB}",
            f"-malloc_limit_mb={_MOST_MIB // 4}", f"-artifact_prefix={options.found}/{options.reader}-",
            "-print_final_stats=1", str(kept), str(CORPUS / options.reader),
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *arguments], lambda data: read(options.reader, data, folder))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
