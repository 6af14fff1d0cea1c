"""Downloads published weights.

A download goes to a `.part` file beside its target. A broken transfer is taken up again where it stopped, within the
run and in later runs, as long as the server still has the same file (ETag or date, and length). Only a complete file
that loads strictly as the version asked for is renamed to its final name; then its SHA-256 is written beside it, and
every later load checks it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from vsrife._version import __version__
from vsrife.checkpoints.installed import install, locked, writing
from vsrife.checkpoints.weights import MAX_BYTES, model_directory, read_weights
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import ModelSpec

MIRROR = "https://github.com/HolyWu/vs-rife/releases/download/model"
MIRROR_VARIABLE = "VSRIFE_MODEL_URL"
ATTEMPTS = 5  # in a row without a byte more than before
RETRY_SECONDS = 1.0  # before the second attempt; doubled before each further one
TIMEOUT_SECONDS = 30.0  # without an answer or a byte
CHUNK_BYTES = 256 * 1024
TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)

Report = Callable[[int, int | None], None]  # bytes done, bytes in all where the server tells


class _BrokenError(Exception):
    """The transfer stopped early; another attempt may go on from there."""


class UnreachableError(WeightsError):
    """The server cannot be reached at all, so that other downloads would fail as well."""


def download(spec: ModelSpec, *, force: bool = False) -> Path:
    """Fetch the published weights of `spec` into `model_directory()`, unless a good copy is there.

    Progress and messages go to stderr. A second process that wants to download waits for the first.

    Args:
        force: Fetch and replace even a good copy.

    Returns:
        The path of the file, which loads strictly as `spec`.

    Raises:
        OptionError: the address in `VSRIFE_MODEL_URL` is none.
        WeightsError: the server cannot be reached, does not have the file, or gave another; or there is no room.
    """
    url = f"{mirror()}/{spec.filename}"
    target = model_directory() / spec.filename
    with writing(target), locked(target.parent, "another download"):
        if force or not _is_good(target, spec):
            _fetch(url, target, spec)
    return target


def mirror() -> str:
    """The address that the files are under: `VSRIFE_MODEL_URL`, or else the release of vs-rife."""
    base = (os.environ.get(MIRROR_VARIABLE) or MIRROR).rstrip("/")
    parts = urlsplit(base)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise OptionError(f"{MIRROR_VARIABLE} must be an https:// or http:// address, got {base!r}")
    return base


def _is_good(target: Path, spec: ModelSpec) -> bool:
    if not target.exists():
        return False
    try:
        read_weights(target, spec)
    except WeightsError as error:
        _say(f"{str(error).partition('; ')[0]}; downloading it again")
        return False
    _say(f"{spec.name} is here already")
    return True


def _fetch(url: str, target: Path, spec: ModelSpec) -> None:
    part = _Part(target.with_name(f"{target.name}.part"))
    with _progress(spec.name) as report:
        _transfer(url, part, report)
    try:
        sha256 = read_weights(part.path, spec).sha256
    except WeightsError as error:
        part.discard()
        reason = str(error).replace(str(part.path), "it")
        raise WeightsError(f"{url} gave no weights of {spec.name} and was removed: {reason}") from error
    install(part.path, target, sha256)
    part.discard()


@dataclass(frozen=True, slots=True)
class _Version:
    """Which file the server has: what If-Range sends back, and its length in bytes."""

    validator: str
    total: int


@dataclass(frozen=True, slots=True)
class _Part:
    """A file under way, and beside it which version of the server's file its bytes belong to."""

    path: Path

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.version")

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> _Version | None:
        """None where the file cannot be taken up again."""
        try:
            validator, total = self._note.read_text(encoding="utf-8").splitlines()
            return _Version(validator, int(total))
        except (FileNotFoundError, ValueError):
            return None

    def restart(self, version: _Version | None) -> None:
        """Empty the file for the bytes of `version`."""
        self.path.write_bytes(b"")  # before the note: old bytes never stand beside a new note
        self._note.unlink(missing_ok=True)
        if version:
            self._note.write_text(f"{version.validator}\n{version.total}\n", encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def _transfer(url: str, part: _Part, report: Report) -> None:
    """Complete `part`, in several attempts where the connection breaks."""
    failures, longest = 0, part.size
    while True:
        try:
            return _attempt(url, part, report)
        except _BrokenError as broken:
            # Only more bytes than ever count as progress: a server without ranges starts from 0 each time.
            failures = 0 if part.size > longest else failures + 1
            longest = max(longest, part.size)
            if failures >= ATTEMPTS:
                raise WeightsError(
                    f"the download of {url} failed {failures} times, got {part.size} bytes: {broken}; run "
                    f"the same command again, it goes on from there"
                ) from broken
            _say(f"{broken}; trying again")
            time.sleep(RETRY_SECONDS * 2 ** max(failures - 1, 0))


def _attempt(url: str, part: _Part, report: Report) -> None:
    """One request for what `part` still lacks.

    Raises:
        _BrokenError: another attempt may help.
        WeightsError: it would not.
    """
    known = part.version()
    if known is None or part.size > known.total:
        part.discard()
        known = None
    elif part.size == known.total:
        return
    with _open(url, part, known) as response:
        total = _begin(url, response, part, known)
        with part.path.open("ab") as file:
            report(part.size, total)
            while chunk := _read(response):
                file.write(chunk)
                report(file.tell(), total)
                if max(file.tell(), total or 0) > MAX_BYTES:
                    part.discard()
                    raise WeightsError(f"{url} is no RIFE weights file, got more than {MAX_BYTES:,} bytes")
            file.flush()
            os.fsync(file.fileno())  # the rename that follows must not overtake the bytes
    if total is not None and part.size != total:
        raise _BrokenError(f"{part.size} of {total} bytes came")


def _begin(url: str, response: http.client.HTTPResponse, part: _Part, known: _Version | None) -> int | None:
    """Check an answer's head and make `part` ready for its body; gives the length of the whole file."""
    if response.headers.get_content_type() == "text/html":
        raise WeightsError(
            f"{url} is not a weights file, got a web page; if the network has a log-in page, open a browser first"
        )
    if response.status == 206 and known:
        if _content_range(response) == (part.size, known.total) and _validator(response) in (None, known.validator):
            return known.total
        part.discard()
        raise _BrokenError("the file on the server has changed")
    if response.status != 200:
        raise WeightsError(f"{url} gave no file, got status {response.status} {response.reason}")
    total = response.length
    validator = _validator(response)
    part.restart(_Version(validator, total) if validator and total is not None else None)
    return total


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may send: a strong ETag, or else the date."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _content_range(response: http.client.HTTPResponse) -> tuple[int, int]:
    """First byte and length of the whole of a partial answer; (-1, -1) where it does not say."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else (-1, -1)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise WeightsError(f"{req.full_url} leads to an insecure address, got {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, part: _Part, known: _Version | None) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": f"vsrife/{__version__}"})
    if known and part.size:
        request.add_header("Range", f"bytes={part.size}-")
        request.add_header("If-Range", known.validator)
    try:
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(
            request, timeout=TIMEOUT_SECONDS
        )
    except urllib.error.HTTPError as error:
        with error:
            raise _status_error(url, error, part) from error
    except WeightsError:
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if part.size:
            raise _BrokenError(str(reason)) from error
        raise UnreachableError(
            f"{url} cannot be reached, got {reason}; check the network and the proxy settings, or put the file "
            f"into {part.path.parent} by hand"
        ) from error
    return response


def _status_error(url: str, error: urllib.error.HTTPError, part: _Part) -> Exception:
    """What a refusal of the server means for us."""
    if error.code == 416:  # the server's file is shorter than what is here
        part.discard()
        return _BrokenError("the file on the server has changed")
    if error.code in TRANSIENT_STATUS:
        return _BrokenError(f"status {error.code} {error.reason}")
    return WeightsError(
        f"{url} cannot be downloaded, got status {error.code} {error.reason}; name another mirror in "
        f"{MIRROR_VARIABLE}, or put the file into {part.path.parent} by hand"
    )


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


# --- around it --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Report]:
    """Shows a download on stderr: a bar where rich is installed, else a line for every tenth."""
    try:
        import rich.console
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
    if sys.stderr is not None:  # as in a player without a console
        sys.stderr.write(f"{text}\n")
