"""A real HTTP server on this machine that does what mirrors of weights do, and worse; and a package index of wheels."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from vsrife.checkpoints import finding, transfer
from vsrife.networks.catalogue import LAYOUTS, Layout


def file_of(layout: Layout, value: float = 0.5) -> bytes:
    buffer = io.BytesIO()
    torch.save(
        {
            f"module.{name}": torch.full(shape, value, dtype=torch.float16)
            for name, shape in layout.tensor_shapes().items()
        },
        buffer,
    )
    return buffer.getvalue()


GOOD = file_of(LAYOUTS["L10"])
OTHER = file_of(LAYOUTS["L10"], 0.25)


@dataclass
class Mirror:
    """What the server does; `cuts` are the body lengths after which it hangs up, one for each request in turn."""

    body: bytes = GOOD
    etag: str | None = '"one"'
    modified: str | None = None
    content_type: str = "application/octet-stream"
    status: int = 200
    ranges: bool = True
    says_length: bool = True
    redirect: str | None = None
    cuts: list[int] = field(default_factory=list)
    then: Callable[[Mirror], None] | None = None  # done after a cut
    gate: threading.Event = field(default_factory=threading.Event)  # bodies are held back while it is not set
    requests: list[tuple[str, str | None, int]] = field(default_factory=list)  # path, Range, status sent
    sent: int = 0  # bytes of bodies


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, mirror: Mirror, *args: object) -> None:
        self.mirror = mirror
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        mirror = self.mirror
        status, start = mirror.status, 0
        range_wanted = self.headers.get("Range")
        unchanged = self.headers.get("If-Range") in (mirror.etag, mirror.modified)
        if status == 200 and mirror.ranges and range_wanted and unchanged:
            start = int(range_wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(mirror.body) else 416
        if mirror.redirect:
            status = 302
        body = mirror.body[start:] if status != 416 else b""
        mirror.requests.append((self.path, range_wanted, status))
        self.send_response(status)
        self.send_header("Content-Type", mirror.content_type)
        self.send_header("Connection", "close")
        if mirror.says_length:
            self.send_header("Content-Length", str(len(body)))
        if mirror.etag:
            self.send_header("ETag", mirror.etag)
        if mirror.modified:
            self.send_header("Last-Modified", mirror.modified)
        if mirror.redirect:
            self.send_header("Location", mirror.redirect)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(mirror.body) - 1}/{len(mirror.body)}")
        self.end_headers()
        mirror.gate.wait()
        cut = mirror.cuts.pop(0) if mirror.cuts else len(body)
        with contextlib.suppress(ConnectionError):  # of a client that has had enough
            self.wfile.write(body[:cut])
        mirror.sent += min(cut, len(body))
        self.close_connection = True
        if cut < len(body) and mirror.then:
            mirror.then(mirror)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """Run a server, and make it the mirror."""
    mirror = Mirror()
    mirror.gate.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, mirror)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("VSRIFE_MODEL_URL", f"http://127.0.0.1:{server.server_port}/release/")
        yield mirror
        mirror.gate.set()
        server.shutdown()
        thread.join()


def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty folder for downloads and one for wheels, no waits, and no proxy or index of this machine.

    Returns:
        The folder that downloads go to.
    """
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("VSRIFE_MODEL", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setattr(transfer, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(finding, "package_directory", lambda: tmp_path / "package")
    return tmp_path / "cache"


def write_wheel(folder: Path, requirement: str, files: dict[str, bytes]) -> Path:
    """Write a wheel such as an index has; its code would fail if it were run."""
    name, version = requirement.split("==")
    info = f"{name}-{version}.dist-info"
    files = files | {
        f"{name}/__init__.py": b"raise SystemExit('this wheel must not be imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{member},,\n" for member in [*files, f"{info}/RECORD"]))
    return path
