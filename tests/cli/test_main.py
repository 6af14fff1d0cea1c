"""The command as a whole: exit codes, and output that nobody takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vsrife.cli import main
from vsrife.images.files import Picture, write_picture

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["models list", "models list --json", "completion bash", "--help"])
def test_full_stdout_is_one_line(command: str) -> None:
    with FULL.open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vsrife", *command.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert (
        result.stderr
        == "vsrife: stdout cannot be written, got: No space left on device; make room or write elsewhere\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither pipes nor devices among files")
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("image pipe a.png", "picture must be a file, got pipe, a pipe or device; save it to a file"),
        ("flow a.png /dev/zero", "picture must be a file, got /dev/zero, a pipe or device"),
        ("video pipe out.mkv", "an input must be a file, since it is read twice, got pipe, a pipe or device"),
        ("video pictures out.mkv", "an input must be a file, since it is read twice, got pictures/1.png, a pipe"),
        ("video a.png out.mkv --retime pipe", "--retime must be a file, got pipe, a pipe or device"),
        ("video a.png out.mkv --model pipe", "--model "),
        ("video a.png /dev/null --overwrite", "the output must be a file, got /dev/null, a pipe or device; --y4m"),
        ("image a.png b.png -o /dev/null --overwrite", "picture file must end in"),
        ("image a.png b.png -o pipe.png --overwrite", "pipe.png cannot be replaced by a file, got a pipe or device"),
        ("image a.png b.png -o link.png", "link.png exists; give another name, or --overwrite"),
        ("video a.png link.png", "link.png"),
        ("video a.png link.mkv", "link.mkv is a link to nothing; give --overwrite to replace it, or another name"),
        ("video a.png --y4m link.mkv", "link.mkv is a link to nothing"),
        ("video a.png --png link.mkv", "pictures go into a folder, got the file link.mkv"),
        (f"video a.png {'a' * 300}.mkv", "… (306 characters) cannot be used, got: File name too long"),
        (f"video {'a' * 300}.mkv out.mkv", "… (306 characters) cannot be used, got: File name too long"),
    ],
    ids=lambda value: value[:40],
)
def test_names_that_are_no_files_are_refused(
    command: str, expected: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once: opening a pipe would wait for ever, and replacing a device would break the system."""
    for name in ("a.png", "b.png"):
        write_picture(Path(name), Picture(np.zeros((16, 16, 3), np.uint8)))
    Path("pictures").mkdir()
    for name in ("pipe", "pipe.png", "pictures/1.png"):
        os.mkfifo(name)
    for name in ("link.png", "link.mkv"):
        Path(name).symlink_to("nowhere")
    before = {*empty_folder.rglob("*")}
    assert main(command.split()) in (1, 2)
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("vsrife: ") == 1
    assert {*empty_folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["video", "in.mkv", ""], "an argument must not be empty, got ''; a variable of your shell may be unset"),
        (["image", "folder", "a.png"], "picture must be a file, got the folder folder; name one in it"),
        (["doctor", "--choose", "99999x99999@1"], "--choose must be an even size up to 16384 pixels"),
        (["video", "a.y4m", "out.mkv"], "a.y4m cannot be read, got: Invalid argument; get it again, or, if a player"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_clumsy_arguments_get_advice(
    arguments: list[str], expected: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    Path("a.y4m").write_bytes(b"\xef\xbb\xbfYUV4MPEG2 W4 H4 F25:1\n")
    assert main(arguments) in (1, 2)
    assert expected in capsys.readouterr().err
    assert {path.name for path in empty_folder.iterdir()} == {"folder", "a.y4m"}


@pytest.mark.parametrize("pattern", ["%03d.png", "./%03d.png"])
def test_pictures_go_into_the_current_folder(pattern: str, empty_folder: Path) -> None:
    write_picture(Path("a.png"), Picture(np.zeros((16, 16), np.uint8)[..., None]))
    assert main(["video", "a.png", "--images", pattern, "--device", "cpu", "--quiet"]) == 0
    assert {path.name for path in empty_folder.iterdir()} == {"a.png", "000.png", "001.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/null")
def test_raw_frames_go_to_a_device(empty_folder: Path) -> None:
    write_picture(Path("a.png"), Picture(np.zeros((16, 16), np.uint8)[..., None]))
    assert main(["video", "a.png", "--y4m", "/dev/null", "--device", "cpu"]) == 0
    assert Path("/dev/null").is_char_device()
    assert [path.name for path in empty_folder.iterdir()] == ["a.png"]
