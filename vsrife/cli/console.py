"""Output of the commands: results on stdout, messages and progress on stderr; with --json, JSON lines on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130  # exit codes
_NOUNS = {  # of counts beside the progress bar
    "cuts": "scene cut", "duplicates": "duplicate", "nodes": "node", "devices": "device", "retries": "retried segment"
}  # fmt: skip
_JSON_SECONDS = 1.0  # between two progress events


class Advance(Protocol):
    """Report progress: frames done, the total once it is known, and further counts to show.

    Rates count from the first call, because frames done by then may come from an earlier run.
    """

    def __call__(self, done: int, total: int | None = None, **more: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Output of one run of a command.

    Attributes:
        quiet: print warnings and errors only.
        json: print JSON objects with the key "event" on stdout, one a line, instead of messages.
    """

    quiet: bool = False
    json: bool = False

    def say(self, text: str) -> None:
        """Print a message, unless `quiet` or `json`."""
        if not (self.quiet or self.json):
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, even if `quiet`."""
        if self.json:
            self.event("warning", text=text)
        else:
            print(f"vsrife: {text}", file=sys.stderr, flush=True)

    def event(self, kind: str, **fields: object) -> None:
        """Print a JSON event if `json`."""
        if self.json:
            print(json.dumps({"event": kind, **fields}, default=str), flush=True)

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """Show progress in frames, with rate and time left; yields the function that reports it."""
        if self.json:
            yield self._json_progress(description, total)
        elif self.quiet:
            yield lambda done, total=None, **more: None  # noqa: ARG005
        else:
            with _bar(description, total) as advance:
                yield advance

    def _json_progress(self, description: str, total: int | None) -> Advance:
        rate, last = _Rate(), 0.0

        def advance(done: int, total: int | None = total, **more: object) -> None:
            nonlocal last
            fps, now = rate(done), time.monotonic()
            if now - last >= _JSON_SECONDS or done == total:
                last = now
                eta = round((total - done) / fps, 1) if total is not None and fps > 0 else None
                self.event("progress", task=description, done=done, total=total, fps=round(fps, 2), eta=eta, **more)

        return advance


def plural(count: object, noun: str) -> str:
    """A count with its noun: "1 scene cut", "0 duplicates"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


class _Rate:
    """Frames per second since the first call."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def __call__(self, done: int) -> float:
        now = time.monotonic()
        if self._first is None:
            self._first = now, done
        start, before = self._first
        return (done - before) / max(now - start, 1e-9)


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Advance]:
    from rich.console import Console as Terminal
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), TextColumn("{task.fields[more]}"),
    )  # fmt: skip
    rate, first = _Rate(), True
    bar = Progress(*columns, console=Terminal(stderr=True))
    task = bar.add_task(description, total=total, rate="", more="")

    def advance(done: int, total: int | None = total, **more: object) -> None:
        nonlocal first
        if first:
            bar.start()  # not before: an error that is known at once stands alone
            bar.reset(task, completed=done, total=total)
            first = False
        shown = ", ".join(plural(value, _NOUNS.get(name, name)) for name, value in more.items())
        bar.update(task, completed=done, total=total, rate=f"{rate(done):.1f} frames/s", more=shown)

    try:
        yield advance
    finally:
        if not first:
            bar.stop()
