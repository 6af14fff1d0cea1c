"""`vsrife video`: what is left when a run is killed, interrupted or out of disk, and how it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from tests.clips import linear_engine
from tests.conftest import missing
from tests.media_clips import HEIGHT, WIDTH, Programs
from vsrife.cli import main
from vsrife.errors import MediaError
from vsrife.files import file_lock
from vsrife.video import encoder, job, muxer
from vsrife.video.encoder import Frames, VideoSettings
from vsrife.video.resume import folder_of

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


# --- the folder of a run ----------------------------------------------------------------------------------------------


SHORT = ("--end", "80f")  # three segments and a bit


@pytest.fixture(scope="module")
def short(source: Path) -> Path:
    """The result of a run that nothing disturbs."""
    output = source.with_name("short.mkv")
    assert run(source, output, *SHORT) == 0
    return output


@pytest.fixture
def interrupted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run whose encoder failed at the third segment."""
    output, encode = tmp_path / "out.mkv", encoder.encode

    def failing(settings: VideoSettings, frames: Iterable[Frames]) -> Iterator[av.Packet[Any]]:
        if len(segments(output)) == 2:
            raise MediaError("broken")
        yield from encode(settings, frames)

    with monkeypatch.context() as patched:
        patched.setattr(encoder, "encode", failing)
        assert run(source, output, *SHORT) == 1
    assert len(segments(output)) == 2
    return output


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_segment_is_made_anew(
    damage: str, source: Path, short: Path, interrupted: Path, programs: Programs,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = segments(interrupted)[1]
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes({"empty": b"", "cut": bytes(data[:-7]), "flipped": bytes(data)}[damage])
    assert run(source, interrupted, "--resume", *SHORT) == 0
    assert f"{path.name} in {path.parent} is damaged and is made anew" in capsys.readouterr().err
    assert packets(programs, interrupted) == packets(programs, short)


@pytest.mark.parametrize("state", ["", "no JSON", "[1, 2]", "\0\xff"])
def test_a_damaged_state_starts_anew(
    state: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, folder = tmp_path / "out.mkv", tmp_path / "out.mkv.part"
    folder.mkdir()
    (folder / "job.json").write_text(state, encoding="latin-1")
    (folder / "0000000000.packets").write_bytes(b"nonsense")
    assert run(source, output, "--end", "2f") == 2
    assert "holds an unfinished run" in capsys.readouterr().err
    assert run(source, output, "--resume", "--end", "2f") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize("option", ["--overwrite", "--resume"])
def test_foreign_files_are_never_deleted(
    option: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    thesis = tmp_path / "out.mkv.part" / "sub" / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("x")
    assert run(source, tmp_path / "out.mkv", option, "--end", "2f") == 2
    said = capsys.readouterr().err
    assert "out.mkv.part must be free for the unfinished result, got the foreign file sub" in said
    assert said.count("\n") == 1
    assert thesis.read_text() == "x"


def test_a_second_run_is_refused(source: Path, interrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with file_lock(folder_of(interrupted) / "lock", "a first run"):
        for option in ("--overwrite", "--resume", "--quiet"):
            assert run(source, interrupted, option, *SHORT) == 1
            said = capsys.readouterr().err
            assert f"another run is making {interrupted}" in said
            assert said.count("\n") == 1
    assert len(segments(interrupted)) == 2


def test_a_file_that_appears_meanwhile_is_kept(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write_file = tmp_path / "out.mkv", muxer.write_file

    def late(*arguments: Any) -> None:
        write_file(*arguments)
        output.write_text("somebody else's")

    with monkeypatch.context() as patched:
        patched.setattr(job, "write_file", late)
        assert run(source, output, "--end", "60f") == 1
    assert "was made by another program during the run and is kept" in capsys.readouterr().err
    assert output.read_text() == "somebody else's"
    assert run(source, output, "--resume", "--end", "60f") == 2
    assert "out.mkv exists; give --overwrite" in capsys.readouterr().err
    assert run(source, output, "--resume", "--overwrite", "--end", "60f") == 0
    assert output.stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


@pytest.mark.parametrize("options", [(), ("--codec", "x265"), ("--codec", "svt-av1")], ids=str)
def test_encoders_give_the_same_bits_again(
    options: tuple[str, ...], source: Path, tmp_path: Path, programs: Programs
) -> None:
    for name in ("a.mkv", "b.mkv"):
        assert run(source, tmp_path / name, "--end", "60f" if not options else "20f", options=options) == 0
    assert packets(programs, tmp_path / "a.mkv") == packets(programs, tmp_path / "b.mkv")
