"""`vsrife models download`, against a real HTTP server."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.model_mirror import GOOD, OTHER, Mirror, file_of, isolated, serving
from vsrife.checkpoints import transfer
from vsrife.checkpoints.loading import load_model
from vsrife.cli import main
from vsrife.networks.catalogue import LAYOUTS

VERSION = "4.15.lite"
NAME = "flownet_v4.15.lite.pkl"
MEBI = 2**20


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(monkeypatch) as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolated(tmp_path, monkeypatch)


def download(*options: str) -> int:
    return main(["models", "download", VERSION, *options])


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_download_verifies_renames_and_records_the_hash(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download() == 0
    assert mirror.requests == [(f"/release/{NAME}", None, 200)]
    assert files(cache) == [NAME, f"{NAME}.sha256"]
    assert (cache / NAME).read_bytes() == GOOD
    assert (cache / f"{NAME}.sha256").read_text() == f"{hashlib.sha256(GOOD).hexdigest()}  {NAME}\n"
    captured = capsys.readouterr()
    assert captured.out == f"{cache / NAME}\n"
    assert VERSION in captured.err
    assert load_model(VERSION).layout.id == "L10"


def test_a_good_copy_is_kept_a_damaged_one_replaced_and_force_fetches(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download() == download() == 0
    assert len(mirror.requests) == 1
    assert "4.15.lite is here already" in capsys.readouterr().err

    (cache / NAME).write_bytes(OTHER)
    assert download() == 0
    assert "is damaged" in capsys.readouterr().err
    assert (cache / NAME).read_bytes() == GOOD

    mirror.body = OTHER
    assert download("--force") == 0
    assert len(mirror.requests) == 3
    assert load_model(VERSION).sha256 == hashlib.sha256(OTHER).hexdigest()


def test_several_versions_and_a_failure_among_them(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "download", "4.16.lite", "4.26", "v4.15.lite", "4.16.lite"]) == 1
    assert files(cache) == [NAME, f"{NAME}.sha256", "flownet_v4.16.lite.pkl", "flownet_v4.16.lite.pkl.sha256"]
    assert len(mirror.requests) == 3
    assert "flownet_v4.26.pkl gave no weights of 4.26" in capsys.readouterr().err


def test_without_rich_the_progress_is_plain_lines(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    mirror.cuts = [len(GOOD) // 2]
    assert download() == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"4.15.lite: 0 of {len(GOOD):,} bytes"
    assert lines[-1] == f"4.15.lite: {len(GOOD):,} of {len(GOOD):,} bytes"
    assert len(lines) < 16


# --- transfers that break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"one"', None), (None, "Mon, 01 Jan 2024 00:00:00 GMT"), ('W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT")],
    ids=["etag", "date", "weak etag"],
)
def test_a_broken_transfer_goes_on_where_it_stopped(
    etag: str | None, modified: str | None, mirror: Mirror, cache: Path
) -> None:
    mirror.etag, mirror.modified, mirror.cuts = etag, modified, [MEBI, MEBI]
    assert download() == 0
    assert (cache / NAME).read_bytes() == GOOD
    assert [request[1:] for request in mirror.requests] == [
        (None, 200),
        (f"bytes={MEBI}-", 206),
        (f"bytes={2 * MEBI}-", 206),
    ]
    assert mirror.sent == len(GOOD)  # not a byte twice


def test_a_later_run_goes_on_where_this_one_gave_up(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.cuts = [MEBI] + [0] * 5
    assert download() == 1
    assert f"failed 5 times, got {MEBI} bytes" in capsys.readouterr().err
    assert files(cache) == [f"{NAME}.part", f"{NAME}.part.version"]
    assert download() == 0
    assert mirror.sent == len(GOOD)
    assert files(cache) == [NAME, f"{NAME}.sha256"]


def test_a_complete_part_needs_no_request(mirror: Mirror, cache: Path) -> None:
    mirror.cuts = [MEBI] + [0] * 5
    download()
    (cache / f"{NAME}.part").write_bytes(GOOD)
    before = len(mirror.requests)
    assert download() == 0
    assert len(mirror.requests) == before


@pytest.mark.parametrize("etag", ['"one"', None], ids=["ranges ignored", "no version told"])
def test_a_server_that_cannot_resume_starts_over(etag: str | None, mirror: Mirror, cache: Path) -> None:
    mirror.ranges, mirror.etag, mirror.cuts = False, etag, [MEBI]
    assert download() == 0
    assert [status for _, _, status in mirror.requests] == [200, 200]
    assert (cache / NAME).read_bytes() == GOOD


def new_etag(mirror: Mirror) -> None:
    mirror.etag, mirror.body = '"two"', OTHER


def same_etag_other_length(mirror: Mirror) -> None:
    mirror.body = OTHER + b"\0" * 7  # as of a server that takes a range whatever the version


def shorter_than_the_part(mirror: Mirror) -> None:
    mirror.body = OTHER[:1000]


@pytest.mark.parametrize(
    ("change", "statuses"),
    [(new_etag, [200, 200]), (same_etag_other_length, [200, 206, 200])],
    ids=["etag", "length"],
)
def test_a_file_that_changes_on_the_server_is_not_mixed(
    change: Callable[[Mirror], None], statuses: list[int], mirror: Mirror, cache: Path
) -> None:
    mirror.cuts, mirror.then = [MEBI], change
    assert download() == 0
    assert [status for _, _, status in mirror.requests] == statuses
    assert (cache / NAME).read_bytes() == mirror.body


def test_a_part_beyond_the_end_is_given_up(mirror: Mirror, cache: Path) -> None:
    mirror.cuts, mirror.then = [MEBI], shorter_than_the_part
    assert download() == 1  # 416, then 1000 bytes that are no weights
    assert [status for _, _, status in mirror.requests] == [200, 416, 200]
    assert files(cache) == []


def test_a_body_of_unknown_length_is_judged_by_what_it_holds(mirror: Mirror, cache: Path) -> None:
    mirror.says_length = False
    assert download() == 0
    mirror.body = GOOD[:MEBI]
    assert download("--force") == 1
    assert (cache / NAME).read_bytes() == GOOD  # the good copy survives a failed replacement
    assert load_model(VERSION)


# --- wrong answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            Mirror(status=404, body=b"no"),
            r"/release/flownet_v4\.15\.lite\.pkl cannot be downloaded, got status 404 Not",
        ),
        (Mirror(status=403, body=b"no"), r"cannot be downloaded, got status 403 Forbidden"),
        (Mirror(status=503, body=b"no"), r"failed 5 times, got 0 bytes: status 503 Service Unavailable"),
        (Mirror(body=b"<html>log in</html>", content_type="text/html"), r"is not a weights file, got a web page"),
        (Mirror(body=b"<html>log in</html>"), r"gave no weights of 4\.15\.lite and was removed: it is a web page"),
        (Mirror(body=b""), r"and was removed: it is empty, got 0 bytes"),
        (Mirror(body=GOOD[:-1000]), r"and was removed: it is damaged"),
        (
            Mirror(body=file_of(LAYOUTS["L13"])),
            r"was removed: it is not 4\.15\.lite, got the layout of 4\.22\.lite \(L13\)",
        ),
        (Mirror(redirect="ftp://127.0.0.1/flownet.pkl"), r"leads to an insecure address, got ftp://127\.0\.0\.1"),
    ],
    ids=["404", "403", "503", "login page", "disguised page", "empty", "short", "other model", "insecure redirect"],
)
def test_a_wrong_answer_is_named_and_leaves_nothing(
    answer: Mirror, expected: str, mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("status", "body", "content_type", "redirect"):
        setattr(mirror, name, getattr(answer, name))
    assert download() == 1
    captured = capsys.readouterr()
    assert re.search(expected, captured.err)
    assert captured.out == ""
    assert files(cache) == []


def test_no_network_is_told_once_even_for_all(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("VSRIFE_MODEL_URL", f"http://127.0.0.1:{port}")
    assert main(["models", "download", "--all"]) == 1
    error = capsys.readouterr().err
    assert error.count("cannot be reached") == 1
    assert f"http://127.0.0.1:{port}/flownet_v4.0.pkl cannot be reached, got [Errno" in error
    assert f"put the file into {cache} by hand" in error


def test_a_server_that_never_answers_times_out(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.gate.clear()
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.05)
    assert download() == 1
    assert "failed 5 times, got 0 bytes: timed out" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written(mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write_text("a file where the directory should be")
    assert download() == 1
    assert "cannot be written, got File exists" in capsys.readouterr().err
    assert mirror.requests == []


# --- known hashes -----------------------------------------------------------------------------------------------------


def test_a_file_of_another_hash_than_the_released_one_is_refused(
    mirror: Mirror, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror.body = file_of(LAYOUTS["L14"])
    assert main(["models", "download", "4.25"]) == 1
    error = capsys.readouterr().err
    assert re.search(
        r"gave no weights of 4\.25 and was removed: it is another file, got SHA-256 \w+… where 6615", error
    )
    assert files(cache) == []


# --- several at once, and interruption --------------------------------------------------------------------------------


def test_a_second_process_waits_for_the_first(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 600.0)  # a busy machine may take long to start a process
    mirror.gate.clear()
    results: list[int] = []
    first = threading.Thread(target=lambda: results.append(download()))
    first.start()
    while not mirror.requests:
        time.sleep(0.01)
    command = [sys.executable, "-m", "vsrife", "models", "download", VERSION]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr
        assert second.stderr.readline() == "waiting for another download to finish\n"
        mirror.gate.set()
        out, error = second.communicate(timeout=120)
    first.join()
    assert results == [second.returncode] == [0]
    assert out == f"{cache / NAME}\n"
    assert "is here already" in error
    assert len(mirror.requests) == 1
    assert files(cache) == [NAME, f"{NAME}.sha256"]


def test_interruption_keeps_the_part(
    mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    mirror.cuts = [MEBI]
    monkeypatch.setattr("time.sleep", interrupt)
    assert download() == 130
    assert "interrupted" in capsys.readouterr().err
    assert (cache / f"{NAME}.part").read_bytes() == GOOD[:MEBI]
