"""Things outside of the repository that tests need, as fixtures.

A test whose thing is not here is skipped with the reason. Where the environment variable `CI` is set nothing may be
missing, and it fails instead; so does a test marked `needs_cuda` where `VSRIFE_REQUIRE_CUDA=1` is set.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.media_clips import Programs

if TYPE_CHECKING:
    from tests.fake_cuda import Fake

ROOT = Path(__file__).parents[1]
TEST_DATA_VARIABLE = "VSRIFE_TEST_DATA"
REQUIRE_CUDA_VARIABLE = "VSRIFE_REQUIRE_CUDA"

os.environ.pop("VSRIFE_MODEL", None)  # the user's default model is not what tests mean by none
_threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
for _name in (
    "OMP_NUM_THREADS",
    "NUMBA_NUM_THREADS",
):  # processes of tests share the cores instead of fighting for them
    os.environ.setdefault(_name, str(_threads))


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; CI is set, so nothing may be missing", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_cuda") is None:
        return
    import torch

    if torch.cuda.is_available():
        return
    if os.environ.get(REQUIRE_CUDA_VARIABLE) == "1":
        pytest.fail(f"no CUDA device here, but {REQUIRE_CUDA_VARIABLE}=1", pytrace=False)
    pytest.skip("no CUDA device here")


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sample() -> Path:
    """The sample clip: 72 frames of 640x360 at 24 fps with sound, a cut before frame 36."""
    return ROOT / "examples" / "sample.mp4"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real footage and ground truth beside the repository, or `VSRIFE_TEST_DATA`."""
    folder = Path(os.environ.get(TEST_DATA_VARIABLE) or ROOT.parent / "shared")
    if not folder.is_dir():
        missing(f"no test data in {folder}; {TEST_DATA_VARIABLE} names another folder")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Clips, evaluation sets and models."""
    return _folder(shared / "data")


@pytest.fixture(scope="session")
def golden_data(shared: Path) -> Path:
    """Outputs of the published networks for inputs that a script makes."""
    return _folder(shared / "golden")


def _folder(path: Path) -> Path:
    if not path.is_dir():
        missing(f"no {path}")
    return path


# --- surroundings -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed_frames() -> Iterator[None]:
    """New frames are mixed instead of computed, which takes no time."""
    from tests.clips import linear_engine  # imports torch and vapoursynth, which not every test needs

    with linear_engine():
        yield


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """Two fake CUDA devices that run plain PyTorch, in a process that has not used CUDA before."""
    from tests.fake_cuda import fresh_cuda  # imports torch, which not every test needs

    with fresh_cuda(monkeypatch, tmp_path) as fake:
        yield fake


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ffmpeg() -> str:
    """Path of the program `ffmpeg`."""
    return _program("ffmpeg")


@pytest.fixture(scope="session")
def ffprobe() -> str:
    """Path of the program `ffprobe`."""
    return _program("ffprobe")


@pytest.fixture(scope="session")
def programs(ffmpeg: str, ffprobe: str) -> Programs:
    """Both, to make files and to look into results."""
    return Programs(ffmpeg, ffprobe)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser `chromium`."""
    return _program("chromium")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"{name} is not installed")
    return path


@dataclass(frozen=True, slots=True)
class VSPipe:
    """Runs the `vspipe` that pip installed beside this Python.

    Attributes:
        program: its path.
        environment: variables it needs, for tests that start it themselves, e.g. in a pipe.
    """

    program: str
    environment: dict[str, str]

    def __call__(
        self, script: Path, *args: str, timeout: float = 300, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `vspipe script args...`, e.g. `vspipe(script, "-c", "y4m", "-")`, or `"--"` for no output.

        Raises:
            subprocess.TimeoutExpired: after `timeout` seconds; vspipe has been ended.
        """
        command = [self.program, str(script), *args]
        # The installed program is a launcher: its group has to end, or the real one would go on.
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=cwd,
            start_new_session=True,
        ) as process:
            try:
                out, error = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, error)


@pytest.fixture(scope="session")
def vspipe(tmp_path_factory: pytest.TempPathFactory) -> VSPipe:
    """The installed `vspipe`, configured in a folder of this run instead of the user's."""
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("config")),
    }
    subprocess.run([programs / "vapoursynth", "config"], env=environment, check=True, capture_output=True)
    return VSPipe(str(programs / "vspipe"), environment)
