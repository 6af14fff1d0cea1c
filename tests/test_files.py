"""Files are complete or absent under their name; locks hold between processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import Timeout

from vsrife.errors import MediaError
from vsrife.files import atomic_write, file_lock, replace_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_the_file_appears_at_the_end_of_the_block(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "a.bin"
    with atomic_write(target, durable=durable) as part:
        part.write_bytes(b"new")
        assert part.parent == tmp_path
        assert not target.exists()
    assert names(tmp_path) == ["a.bin"]
    assert target.read_bytes() == b"new"


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(target) as part, part.open("wb") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert names(tmp_path) == ["a.bin"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("links", [True, False])
def test_an_existing_file_is_kept_without_overwrite(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse_links)
    target = tmp_path / "a.bin"
    with atomic_write(target, overwrite=False, error=MediaError) as part:
        part.write_bytes(b"first")
    with pytest.raises(FileExistsError), atomic_write(target, overwrite=False, error=MediaError) as part:
        part.write_bytes(b"second")
    assert names(tmp_path) == ["a.bin"]
    assert target.read_bytes() == b"first"


def refuse_links(self: Path, target: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self), None, str(target))


def test_an_error_of_the_system_is_raised_as_the_class_asked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(MediaError, match=r"a\.bin cannot be written, got No space left on device"),
        atomic_write(tmp_path / "a.bin", error=MediaError),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(MediaError, match=r"^unchanged$"), atomic_write(tmp_path / "a.bin", error=MediaError):
        raise MediaError("unchanged")
    with pytest.raises(OSError, match="No such file"), atomic_write(tmp_path / "missing" / "a.bin") as part:
        part.write_bytes(b"")
    assert names(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.bin") as first, atomic_write(tmp_path / "a.bin") as second:
        assert first != second
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert (tmp_path / "a.bin").read_bytes() == b"first"


def test_a_finished_file_replaces_another(tmp_path: Path) -> None:
    source, target = tmp_path / "new", tmp_path / "a.bin"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        replace_file(source, target, overwrite=False)
    replace_file(source, target, durable=True)
    assert names(tmp_path) == ["a.bin"]
    assert target.read_bytes() == b"new"


HOLDER = """
import sys, pathlib
from vsrife.files import file_lock
with file_lock(pathlib.Path(sys.argv[1]), "the test"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_held_between_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == b"held"
        with pytest.raises(Timeout), file_lock(path, "the test", wait=False):
            pass
        assert capsys.readouterr().err == ""
        process.kill()
        with file_lock(path, "the test"):
            pass


def test_waiting_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        threading.Timer(0.3, process.stdin.close).start()
        with file_lock(path, "another download"):
            pass
    assert capsys.readouterr().err == "waiting for another download to finish\n"
