"""How long work tells how far it is. The command line draws bars; tests and libraries listen or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Step(Protocol):
    """One step of the work."""

    def advance(self, amount: int = 1) -> None:
        """Some of it is done. May be called from any thread."""


class Progress(Protocol):
    """Receives steps as they begin."""

    def step(
        self, title: str, total: int | None, *, unit: str = ""
    ) -> AbstractContextManager[Step]:
        """Begin a step of ``total`` parts (``None``: unknown); ``unit`` is ``"B"`` for bytes."""


class _Silent:
    def advance(self, amount: int = 1) -> None:
        pass


class Silence:
    """Progress that nobody watches."""

    @contextmanager
    def step(self, title: str, total: int | None, *, unit: str = "") -> Iterator[Step]:
        """Begin a step."""
        yield _Silent()
