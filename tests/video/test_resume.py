"""`vsrife video`: what is left when a run is killed, interrupted or out of disk, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clips import linear_engine
from tests.conftest import missing
from tests.media_clips import HEIGHT, WIDTH, Programs
from vsrife.cli import main

TESTS = Path(__file__).parents[1]
# The command with frames that are mixed instead of computed.
COMMAND = (
    "import sys, clips, vsrife.cli\n"
    "with clips.linear_engine():\n"
    "    sys.exit(vsrife.cli.main(['video', *sys.argv[1:]]))\n"
)
OPTIONS = ("--segment", "1", "--preset", "ultrafast")
FRAMES = 400


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """Sixteen seconds of moving pictures and sound."""
    path = tmp_path_factory.mktemp("source") / "in.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=25:duration={FRAMES // 25}",
        "-f", "lavfi", "-i", f"sine=440:duration={FRAMES // 25}", "-c:v", "libx264", "-preset", "ultrafast",
        "-c:a", "aac", path,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def uninterrupted(source: Path) -> Path:
    output = source.with_name("whole.mkv")
    assert run(source, output) == 0
    return output


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-c", COMMAND, *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}


def run(*arguments: str | Path, options: tuple[str, ...] = OPTIONS) -> int:
    """Within this process, which is quicker."""
    with linear_engine():
        return main(["video", *map(str, arguments), *options])


@contextmanager
def running_until_segments(count: int, source: Path, output: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has finished at least so many pieces and is still at work."""
    with subprocess.Popen(
        command(source, output, *OPTIONS), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while len(segments(output)) < count:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def segments(output: Path) -> list[Path]:
    return sorted(output.with_name(f"{output.name}.part").glob("*.packets"))


def packets(programs: Programs, path: Path) -> object:
    """Every packet of the file: when, how long, which bytes."""
    entries = "packet=stream_index,pts,duration,flags,size,data_hash"
    return programs.probe(path, "-show_entries", entries, "-show_data_hash", "md5")["packets"]


def test_a_killed_run_goes_on_to_the_same_result(
    source: Path, uninterrupted: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mkv"
    with running_until_segments(2, source, output) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not output.exists()
    done = segments(output)
    assert 2 <= len(done) < 16

    assert run(source, output) == 2
    assert "holds an unfinished run; give --resume to continue it, or --overwrite" in capsys.readouterr().err
    assert run(source, output, "--resume", options=("--multi", "3", "--segment", "1", "--crf", "30")) == 2
    different = "--crf was None, is 30.0; --multi was None, is 3; --preset was ultrafast, is None"
    assert different in capsys.readouterr().err
    other = source.with_name("other.mkv")
    other.write_bytes(source.read_bytes()[:-1000])
    assert run(other, output, "--resume") == 2
    assert "input size was" in capsys.readouterr().err
    assert segments(output) == done

    assert run(source, output, "--resume") == 0
    assert f"{len(done)} of 16 segments are done, continuing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
    assert packets(programs, output) == packets(programs, uninterrupted)
    assert len(programs.frame_hashes(output)) == FRAMES * 2


def test_ctrl_c_finishes_the_file_so_far(
    source: Path, uninterrupted: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.mkv"
    with running_until_segments(2, source, output) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "the same command with --resume makes the rest" in said
    times = programs.times(output)
    assert 100 <= len(times) < FRAMES * 2
    assert f"holds the first {len(times)} of {FRAMES * 2} frames" in said
    whole = programs.times(uninterrupted)
    assert times == whole[: len(times)]
    assert programs.times(output, "a:0")[-1] < whole[len(times)]
    assert len(programs.frame_hashes(output)) == len(times)

    assert run(source, output) == 2
    assert "out.mkv exists; give --overwrite" in capsys.readouterr().err
    assert run(source, output, "--skip-existing", "--resume") == 0  # what is unfinished is not skipped
    assert packets(programs, output) == packets(programs, uninterrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize("room", [0.5, 1.5], ids=["for half", "for the segments alone"])
def test_a_full_disk_is_one_message_and_no_file(room: float, source: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """On a disk of its own, which is gone with the process."""
    size = round(room * uninterrupted.stat().st_size)
    shell = f"""
        mount -t tmpfs -o size={size} tmpfs {tmp_path} || exit 99
        "$@"; code=$?
        cd {tmp_path}; ls; ls out.mkv.part | grep -c packets; exit $code
    """
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0:
        missing("no permission to mount a small disk")
    arguments = ["unshare", "-rm", "sh", "-c", shell, "-", *command(source, tmp_path / "out.mkv", "--quiet", *OPTIONS)]
    result = subprocess.run(arguments, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 1, result.stderr
    assert "cannot be written, got: No space left on device; finished segments stay in" in result.stderr
    assert "--resume" in result.stderr
    assert result.stderr.count("\n") == 1
    listed = result.stdout.split()
    assert listed[0] == "out.mkv.part"
    assert int(listed[1]) >= 1
