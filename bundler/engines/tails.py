"""The ends of logs on their way to whoever watches: bounded everywhere, and no training ever waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable

MOST = 16 << 10
"""Bytes of one log that are kept anywhere; of what comes faster than it travels, the end arrives."""

_PAUSE = 0.5  # seconds between two sendings
_PATIENCE = 10.0


class Tail:
    """Gives what is added to ``send`` now and then, from a thread of its own."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._text = b""
        self._lock, self._end = threading.Lock(), threading.Event()
        self._sender = threading.Thread(target=self._run, daemon=True)
        self._sender.start()

    def add(self, chunk: bytes) -> None:
        """Take a chunk of the log."""
        with self._lock:
            self._text = (self._text + chunk)[-MOST:]

    def close(self) -> None:
        """Send what is left; no longer than some seconds."""
        self._end.set()
        self._sender.join(_PATIENCE)

    def _run(self) -> None:
        ended = False
        while not ended:
            ended = self._end.wait(_PAUSE)
            with self._lock:
                text, self._text = self._text, b""
            if text:
                self._send(text)


class Tails:
    """The ends of all logs, by the seed of the trial, until somebody takes them."""

    def __init__(self) -> None:
        self._texts: dict[int, bytes] = {}

    def add(self, seed: int, chunk: bytes) -> None:
        """Take a chunk of one log."""
        self._texts[seed] = (self._texts.get(seed, b"") + chunk)[-MOST:]

    def take(self) -> list[tuple[int, bytes]]:
        """What came since the last call."""
        taken, self._texts = list(self._texts.items()), {}
        return taken
