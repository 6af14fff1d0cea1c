"""Completion in a real bash on a real terminal, and what other shells get."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from vsrife.cli import main
from vsrife.networks.catalogue import BUNDLED_DEFAULT

PATIENCE_S = 60.0


class Shell:
    """An interactive bash with vsrife's completion."""

    def __init__(self, folder: Path) -> None:
        bash = shutil.which("bash")
        if bash is None:
            missing("bash is not installed")
        self.terminal, inner = pty.openpty()
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": programs, "PS1": "$ ", "TERM": "dumb", "HISTFILE": ""}
        self.process = subprocess.Popen(
            [bash, "--norc", "--noprofile", "-i"],
            stdin=inner, stdout=inner, stderr=inner, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.type("bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'\n")
        self.type("eval \"$(vsrife completion bash)\"; echo rea''dy\n")
        self.read_until("ready")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def read_until(self, expected: str) -> str:
        """What the terminal shows up to and with some text."""
        shown, end = "", time.monotonic() + PATIENCE_S
        while expected not in shown:
            ready, _, _ = select.select([self.terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{expected!r} did not come; the terminal shows {shown!r}"
            shown += os.read(self.terminal, 4096).decode(errors="replace")
        return shown

    def complete(self, line: str, expected: str) -> None:
        """Press Tab after a line, see that the text comes, and clear the line."""
        self.type(f"{line}\t")
        self.read_until(expected)
        self.type("\x15\n")  # Ctrl-U empties the line
        self.read_until("$ ")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("completion")
    (folder / "my_weights.safetensors").touch()
    shell = Shell(folder)
    yield shell
    shell.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vsrife mod", "vsrife models "),
        ("vsrife models downl", "download "),
        ("vsrife models download 4.25.l", "4.25.lite "),
        ("vsrife video --slow", "--slow-motion "),
        (f"vsrife video --model {BUNDLED_DEFAULT[:6]}", BUNDLED_DEFAULT),
        ("vsrife video --model 4.26.h", "4.26.heavy "),
        ("vsrife video --model my_", "my_weights.safetensors"),
        ("vsrife video --device xp", "xpu "),
        ("vsrife video --precision b", "bf16 "),
        ("vsrife video --codec svt", "svt-av1 "),
        ("vsrife models verify 4.25.l", "4.25.lite "),
    ],
)
def test_tab_completes(line: str, expected: str, shell: Shell) -> None:
    shell.complete(line, expected[len(line) :] if expected.startswith(line) else expected)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    assert f"_VSRIFE_COMPLETE={name}_complete" in capsys.readouterr().out


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == 2
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
