"""What a command says: results on stdout, messages and progress on stderr, or JSON lines for machines on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_JSON_SECONDS = 1.0  # between two progress lines for machines

Advance = Callable[[int], None]  # call with the number of frames done so far


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """One for a run of a command. With `json` every line on stdout is an object with the key "event"."""

    quiet: bool = False
    json: bool = False

    def say(self, text: str) -> None:
        """A message for a person; machines get `event`s."""
        if not (self.quiet or self.json):
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Something that a user should know although the work goes on; also when quiet."""
        if self.json:
            self.event("warning", text=text)
        else:
            print(f"vsrife: {text}", file=sys.stderr, flush=True)

    def event(self, kind: str, **fields: object) -> None:
        """A line for machines; nothing without `json`."""
        if self.json:
            print(json.dumps({"event": kind, **fields}, default=str), flush=True)

    @contextmanager
    def progress(self, description: str, total: int | None) -> Iterator[Advance]:
        """Progress in frames with frames/s and time left; gives the function to call with the frames done so far."""
        if self.json:
            yield self._json_progress(description, total)
        elif self.quiet:
            yield lambda _: None
        else:
            with _bar(description, total) as advance:
                yield advance

    def _json_progress(self, description: str, total: int | None) -> Advance:
        start, last = time.monotonic(), 0.0

        def advance(done: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _JSON_SECONDS or done == total:
                last = now
                self.event("progress", task=description, done=done, total=total, fps=round(done / (now - start), 2))

        return advance


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
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    start = time.monotonic()
    with Progress(*columns, console=Terminal(stderr=True)) as bar:
        task = bar.add_task(description, total=total, rate="")

        def advance(done: int) -> None:
            rate = done / max(time.monotonic() - start, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:.1f} frames/s")

        yield advance
