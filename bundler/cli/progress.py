"""Progress of long work: bars on a terminal, plain lines elsewhere, and the tail of each training's log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bundler.cli.layout import shown_text

MOST_TAILS = 8
"""Most lines of logs that are shown at once."""


class Bars:
    """Progress on standard error, with the last line of each training's log below it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._tails = Tails()

    def tell(self, words: str) -> None:
        """Say something that is known before the end."""
        self._console.print(Text(shown_text(words), style="yellow"))

    def log(self, seed: int, chunk: bytes) -> None:
        """The training with ``seed`` printed ``chunk``. May be called from any thread."""
        line = self._tails.heard(seed, chunk)
        if line and not self._console.is_terminal:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    @contextmanager
    def step(self, title: str, total: int | None, *, unit: str = "") -> Iterator[Bar]:
        """Show a bar (a spinner if ``total`` is unknown); without a terminal, one line when it begins."""
        if not self._console.is_terminal:
            sys.stderr.write(f"{title} …\n")
            sys.stderr.flush()
            yield Bar(None, 0)
            return
        amount = DownloadColumn() if unit == "B" else MofNCompleteColumn()
        columns = (
            (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            if total is None
            else (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
        )
        with _Watched(self._tails, *columns, console=self._console, transient=True) as progress:
            yield Bar(progress, progress.add_task(escape(title), total=total))
        self._tails.clear()


class _Watched(Progress):
    """Progress bars, and below them what trainings print."""

    def __init__(self, tails: Tails, *columns: ProgressColumn, **options: Any) -> None:
        self._below = tails
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, then a line a training."""
        yield from super().get_renderables()
        for line in self._below.lines():
            yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


class Tails:
    """The last line that each training printed; where nobody watches, one line a training now and then."""

    EVERY = 30.0
    """Seconds between two lines of one training in a log."""

    def __init__(self) -> None:
        self._last: dict[int, str] = {}
        self._next: dict[int, float] = {}
        self._lock = threading.Lock()

    def heard(self, seed: int, chunk: bytes) -> str:
        """Note ``chunk``; returns a line that is due in a log, or an empty text."""
        # What untrusted code prints is shown as the characters that it is, never as commands to the terminal.
        lines = chunk.decode("utf-8", "replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not said:
            return ""
        line = f"seed {seed}: {shown_text(said)[:200]}"
        now = time.monotonic()
        with self._lock:
            self._last[seed] = line
            if now < self._next.get(seed, 0.0):
                return ""
            self._next[seed] = now + self.EVERY
        return line

    def lines(self) -> list[str]:
        """The last line of each training, the one that began last at the end; at most a handful."""
        with self._lock:
            return list(self._last.values())[-MOST_TAILS:]

    def clear(self) -> None:
        """A step is over."""
        with self._lock:
            self._last.clear()


class Bar:
    """One step's progress; nothing where nobody watches."""

    def __init__(self, progress: Progress | None, task: int) -> None:
        self._progress = progress
        self._task = task
        self._lock = threading.Lock()

    def advance(self, amount: int = 1) -> None:
        """Some of it is done."""
        if self._progress is not None:
            with self._lock:
                self._progress.advance(self._task, amount)  # type: ignore[arg-type]  # TaskID is an int
