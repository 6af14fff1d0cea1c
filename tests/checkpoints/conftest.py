"""Stand-ins for the directories that models are in."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsrife.checkpoints import finding


@pytest.fixture
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Empty stand-ins for the package's directory and the user's, so that no test sees what this machine has."""
    package, cache = tmp_path / "package", tmp_path / "cache"
    package.mkdir()
    cache.mkdir()
    monkeypatch.setattr(finding, "package_directory", lambda: package)
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(cache))
    return package, cache
