"""Fetches one file from one address, and resumes where an earlier transfer stopped."""

from __future__ import annotations

import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from vsrife._version import __version__
from vsrife.checkpoints.reading import MAX_BYTES
from vsrife.errors import WeightsError

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


def transfer(url: str, part: Path, report: Report) -> None:
    """Complete `part` from `url`, in several attempts if the connection breaks.

    Bytes of an earlier transfer are kept if the server still has the same file: a note beside `part` records its ETag
    or date, and its length.

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
            say(f"{broken}; trying again")
            time.sleep(RETRY_SECONDS * 2 ** max(failures - 1, 0))


def discard(part: Path) -> None:
    """Delete `part` and its note."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def say(text: str) -> None:
    """Print a line to stderr, if there is one: a player may have no console."""
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


def _attempt(url: str, part: Path, report: Report) -> None:
    """Make one request for what `part` still lacks."""
    validator, total = _read_note(part)
    done = _size(part) if validator else 0
    if validator and done == total:
        return
    with _open(url, part, done, validator) as response:
        etag = response.headers.get("ETag", "")
        fresh = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
        if response.headers.get_content_type() == "text/html":
            raise WeightsError(
                f"{url} is not a weights file, got a web page; if the network has a log-in page, open a browser first"
            )
        if response.status == 206:
            span = response.headers.get("Content-Range")
            if fresh not in ("", validator) or span != f"bytes {done}-{total - 1}/{total}":
                _restart(part)
        else:
            done, total = 0, response.length or 0
            discard(part)  # before the note: old bytes never stand beside a new note
            if fresh and total:
                _note(part).write_text(f"{fresh}\n{total}\n", encoding="utf-8")
        with part.open("ab") as file:
            report(done, total or None)
            for chunk in _chunks(response):
                done += file.write(chunk)
                report(done, total or None)
                if done > MAX_BYTES:
                    discard(part)
                    raise WeightsError(f"{url} is no RIFE weights file, got more than {MAX_BYTES:,} bytes")
    if total and done != total:
        raise _BrokenError(f"{done} of {total} bytes came")


def _open(url: str, part: Path, done: int, validator: str) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"vsrife/{__version__}"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    try:
        opener = urllib.request.build_opener(_Redirects)
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the server's file is shorter than `part`
                _restart(part)
            if error.code in TRANSIENT_STATUS:
                raise _BrokenError(f"status {error.code} {error.reason}") from error
            raise WeightsError(
                f"{url} cannot be downloaded, got status {error.code} {error.reason}; name another mirror in "
                f"VSRIFE_MODEL_URL, or put the file into {part.parent} by hand"
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
            fp.close()
            raise WeightsError(f"{req.full_url} leads to an insecure address, got {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the body piece by piece. Only what fails on the network is a broken transfer, not what fails on disk."""
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error


def _restart(part: Path) -> None:
    discard(part)
    raise _BrokenError("the file on the server has changed")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _read_note(part: Path) -> tuple[str, int]:
    """Return ETag or date, and length; ("", 0) if `part` cannot be resumed."""
    try:
        validator, total = _note(part).read_text(encoding="utf-8").splitlines()
        return (validator, int(total)) if _size(part) <= int(total) else ("", 0)
    except (FileNotFoundError, ValueError):
        return "", 0


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
