"""The package as it is built, installed and documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import vapoursynth as vs
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import vsrife
from vsrife.cli import main
from vsrife.networks.catalogue import BUNDLED_DEFAULT, BUNDLED_FILE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

INTERPOLATE = """
import sys
from pathlib import Path

import vapoursynth as vs
import vsrife

assert Path(vsrife.__file__).is_relative_to(sys.prefix), vsrife.__file__
blank = vs.core.std.BlankClip(format=vs.YUV420P8, width=64, height=48, length=1, fpsnum=24, fpsden=1)
clip = blank.std.BlankClip(color=[60, 128, 128]) + blank.std.BlankClip(color=[90, 128, 128])
output = vsrife.RIFE(clip, multi=2, sc_threshold=1.0, device="cpu")
assert (output.num_frames, output.fps) == (4, 48)
luma = [frame.props.PlaneStatsAverage * 255 for frame in output.std.PlaneStats().frames()]
assert luma[0] < luma[1] < luma[2] == luma[3], luma
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def required_by(name: str, *extras: str) -> dict[str, Distribution]:
    """The installed package of that name and all that it requires, by name."""
    package = distribution(name)
    found = {name: package}
    for requirement in map(Requirement, package.requires or []):
        if any(requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            found |= required_by(canonicalize_name(requirement.name), *requirement.extras)
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The programs of a virtual environment that holds nothing but PyTorch.

    PyTorch and what it requires (5 GB) are those of this environment, behind links: a disk that took them once need
    not take them again.
    """
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    links = folder / "torch"
    links.mkdir()
    for package in required_by("torch").values():
        for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            if not (links / name).exists():
                (links / name).symlink_to(Path(str(package.locate_file(name))))
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "torch.pth").write_text(f"{links}\n")
    return folder / "bin"


def test_wheel_holds_the_weights_and_types_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    weights = ROOT / "models" / BUNDLED_FILE
    assert sizes[f"vsrife/models/{BUNDLED_FILE}"] == weights.stat().st_size
    assert {"vsrife/py.typed", f"vsrife/models/{weights.stem}.md", "vsrife/models/ATTRIBUTION.md"} <= sizes.keys()
    sources = {f"vsrife/{path.relative_to(ROOT / 'vsrife')}" for path in (ROOT / "vsrife").rglob("*.py")}
    assert {name for name in sizes if name.endswith(".py")} == sources
    assert {name.partition("/")[0] for name in sizes} == {"vsrife", f"vsrife-{vsrife.__version__}.dist-info"}


def test_wheel_interpolates_in_an_empty_environment(wheel: Path, environment: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VSRIFE_MODEL_DIR")}

    def run(*command: str | Path) -> str:
        result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run(environment / "pip", "install", "--quiet", wheel)
    run(environment / "python", "-c", INTERPOLATE)
    (default,) = (row for row in json.loads(run(environment / "vsrife", "models", "list", "--json")) if row["default"])
    assert (default["name"], default["licence"]) == (BUNDLED_DEFAULT, "CC-BY 4.0")
    assert Path(default["path"]).is_relative_to(environment.parent)
    assert run(environment / "vsrife", "models", "verify", "default").startswith(f"{default['name']}: good")


def test_public_names_are_these() -> None:
    """A name more or less is a decision about the public interface."""
    assert sorted(vsrife.__all__, key=str.lower) == [
        "__version__", "ClipError", "DeviceError", "Flow", "flow", "interpolate", "MediaError", "merge", "OptionError",
        "RIFE", "rife", "RifeError", "WeightsError",
    ]  # fmt: skip
    assert set(vsrife.__all__) <= set(dir(vsrife))


def test_public_names_resolve() -> None:
    assert [name for name in vsrife.__all__ if not hasattr(vsrife, name)] == []
    with pytest.raises(AttributeError, match="module 'vsrife' has no attribute 'absent'"):
        vsrife.absent  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, vsrife; sys.exit(bool({'torch', 'numpy', 'vapoursynth'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the documentation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = {page.parent / link for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text)}
    named = re.findall(r"(?<![\w./-])((?:\.ci|benchmarks|docs|examples|models|tests|vsrife)/[\w./-]*\w)", text)
    paths = links | {ROOT / name for name in named}
    assert {str(path.relative_to(ROOT, walk_up=True)) for path in paths if not path.exists()} == set()


def test_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    output = vs.get_output(0)
    assert isinstance(output, vs.VideoOutputTuple)
    assert (output.clip.num_frames, output.clip.fps) == (144, 48)
    vs.clear_outputs()


def test_vsrife_commands_of_the_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {
        command
        for page in PAGES
        for command in re.findall(r"(?:-m |bin/)vsrife (\w+ \w+)", page.read_text(encoding="utf-8"))
    }
    assert "models download" in commands
    for command in commands:
        assert main([*command.split(), "--help"]) == 0, command
    assert "Usage: vsrife models" in capsys.readouterr().out


def test_the_readme_has_one_marked_test_command() -> None:
    marked = re.findall(r"<!-- test command -->\n```\n(.+)\n```", README)
    assert marked == ["python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/pytest"]
