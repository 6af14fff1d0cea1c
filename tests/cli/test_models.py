"""`vsrife models`: what its commands print, and the question before a download."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.model_mirror import GOOD, Mirror, isolated, serving
from vsrife.checkpoints import finding
from vsrife.checkpoints.download import MIRROR
from vsrife.checkpoints.download import mirror as mirror_address
from vsrife.checkpoints.finding import DOWNLOADABLE
from vsrife.checkpoints.loading import load_model, read_ifnet
from vsrife.cli import main
from vsrife.networks.catalogue import BUNDLED_DEFAULT, BUNDLED_FILE, MODELS

VERSION = "4.15.lite"
NAME = "flownet_v4.15.lite.pkl"
command = importlib.import_module("vsrife.cli.models")  # as an attribute of the package, it is the group of commands


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(monkeypatch) as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolated(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "Usage: vsrife [OPTIONS] COMMAND"),
        (["models"], "Usage: vsrife models [OPTIONS] COMMAND"),
        (["models", "fetch"], "No such command 'fetch'"),
        (["models", "download"], "no version given; name one, such as 4.26, or use --all"),
        (["models", "download", "4.26", "--all"], "--all is every version, got 4.26 as well"),
        (["models", "download", "4.62"], "got '4.62'; did you mean 4.6"),
        (["models", "download", "my.pkl"], "only published versions can be downloaded, got 'my.pkl'"),
        (["models", "download", "4.15.lite", "4.99"], "got '4.99'"),
        (["models", "download", "3.1"], "no source of 3.1 is known; it cannot be downloaded: get its release"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(argv: list[str], expected: str, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert expected in capsys.readouterr().err
    assert mirror.requests == []  # all arguments are checked before anything is done


def test_a_mirror_that_is_no_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VSRIFE_MODEL_URL", "file:///etc")
    assert main(["models", "download", VERSION]) == 2
    assert "VSRIFE_MODEL_URL must be an https:// or http:// address, got 'file:///etc'" in capsys.readouterr().err
    monkeypatch.delenv("VSRIFE_MODEL_URL")
    assert mirror_address() == MIRROR == "https://github.com/HolyWu/vs-rife/releases/download/model"


def test_list_shows_every_model_and_what_is_here(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    (cache / NAME).write_bytes(GOOD)
    assert main(["models", "list"]) == 0
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["model", "layout", "parameters", "size", "licence", "where"]
    assert rows[1][0] == BUNDLED_DEFAULT
    assert rows[1][5] == f"damaged or missing: {cache.parent / 'package' / BUNDLED_FILE}"
    assert [row[0] for row in rows[2:]] == list(DOWNLOADABLE)
    assert [row for row in rows[2:] if row[5] != "-"] == [
        [VERSION, "L10", "2,616,476", f"{len(GOOD) / 1e6:.1f} MB", "its authors' terms", str(cache / NAME)]
    ]
    assert ["4.25.heavy", "L16", "21,663,528", "-", "its authors' terms", "-"] in rows


def test_the_bundled_model_is_listed_with_its_licence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    assert main(["models", "list", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    (default,) = (model for model in models if model["default"])
    bundled = finding.package_directory() / BUNDLED_FILE
    layout = read_ifnet(bundled).layout
    assert default == {
        "name": bundled.stem, "kind": "bundled", "default": True, "licence": "CC-BY 4.0", "path": str(bundled),
        "bytes": bundled.stat().st_size, "layout": layout.id, "parameters": layout.parameters(),
    }  # fmt: skip


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    command = [sys.executable, "-m", "vsrife", "models", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_path_prints_the_directory(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path"]) == 0
    assert capsys.readouterr().out == f"{cache}\n"


def test_list_and_path_import_neither_torch_nor_vapoursynth() -> None:
    code = (
        "import sys; from vsrife.cli import main; main(['models', 'list']); main(['models', 'path']);"
        "sys.exit(bool({'torch', 'vapoursynth'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# --- the default ------------------------------------------------------------------------------------------------------


def test_the_default_is_kept_beside_the_models(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.mkdir()
    (cache / NAME).write_bytes(GOOD)
    assert main(["models", "default", VERSION]) == 0
    assert capsys.readouterr().out == f"{VERSION}  ({cache / 'default'}: {cache / NAME})\n"
    assert (cache / "default").read_text() == f"{VERSION}\n"
    assert load_model(None).name == load_model("default").name == VERSION

    main(["models", "list", "--json"])
    assert [row["name"] for row in json.loads(capsys.readouterr().out) if row["default"]] == [VERSION]
    main(["models", "list"])
    assert f"the default is {VERSION}, set by {cache / 'default'}" in capsys.readouterr().err

    other = cache.parent / "other.pkl"
    other.write_bytes(GOOD)
    monkeypatch.setenv("VSRIFE_MODEL", str(other))
    assert main(["models", "default"]) == 0
    assert capsys.readouterr().out == f"{other}  (VSRIFE_MODEL: {other})\n"
    assert load_model(None).path == other


def test_the_default_can_be_a_file_and_goes_back_to_the_bundled_model(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cache.parent / "other.pkl"
    other.write_bytes(GOOD)
    monkeypatch.chdir(cache.parent)
    assert main(["models", "default", "other.pkl"]) == 0
    assert (cache / "default").read_text() == f"{other}\n"
    (cache.parent / "package").mkdir()
    (cache.parent / "package" / BUNDLED_FILE).write_bytes(b"weights")
    capsys.readouterr()
    assert main(["models", "default", "default"]) == 0
    assert capsys.readouterr().out.startswith(f"{BUNDLED_DEFAULT}  (bundled: ")
    assert not (cache / "default").exists()


def test_a_default_that_is_missing_or_unknown_is_refused(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "default", "4.26"]) == 1
    assert "run: python -m vsrife models download 4.26" in capsys.readouterr().err
    assert main(["models", "default", "nope"]) == 2
    assert not (cache / "default").exists()


# --- a missing model --------------------------------------------------------------------------------------------------


def picture_command(folder: Path, *options: str) -> list[str]:
    """A command that names a model, and then fails because its pictures are missing."""
    return ["image", str(folder / "a.png"), str(folder / "b.png"), "-o", str(folder / "c.png"), *options]


@pytest.mark.parametrize(
    ("terminal", "answer", "options", "downloads"),
    [
        (True, True, (), True),
        (True, False, (), False),
        (False, True, (), False),
        (False, False, ("--yes",), True),
    ],
    ids=["agreed", "declined", "no terminal", "--yes"],
)
def test_a_missing_model_is_downloaded_after_a_question(
    terminal: bool,
    answer: bool,
    options: tuple[str, ...],
    downloads: bool,
    mirror: Mirror,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(command, "_at_terminal", lambda: terminal)

    def confirm(text: str, **_: object) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr(click, "confirm", confirm)
    assert main(picture_command(cache.parent, "--model", VERSION, *options)) != 0
    assert (cache / NAME).exists() == downloads == bool(mirror.requests)
    assert bool(asked) == (terminal and not options)
    error = capsys.readouterr().err
    assert ("run: python -m vsrife models download 4.15.lite" in error) != downloads


def test_a_model_that_is_here_or_is_a_file_is_not_asked_about(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "confirm", lambda *_, **__: pytest.fail("asked"))
    cache.mkdir()
    (cache / NAME).write_bytes(GOOD)
    command.offer_download(VERSION, yes=True)
    command.offer_download(str(cache / NAME), yes=True)
    command.offer_download(None, yes=True)
    assert mirror.requests == []


# --- the documentation ------------------------------------------------------------------------------------------------


def model_table() -> str:
    """The table of docs/guide/models.md, from the catalogue."""
    lines = ["| version | layout | parameters | aligns to | ensemble |", "|---|---|---:|---:|---|"]
    for spec in MODELS.values():
        layout = spec.layout
        ensemble = "yes" if layout.ensemble else "no"
        lines.append(f"| {spec.name} | {layout.id} | {layout.parameters():,} | {layout.align_px} | {ensemble} |")
    return "\n".join(lines)


def test_the_documented_table_is_the_catalogue() -> None:
    page = Path(__file__).parents[2] / "docs" / "guide" / "models.md"
    assert model_table() in page.read_text(encoding="utf-8")
