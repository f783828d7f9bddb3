"""An end to an exchange over a socket that none of its parts has by itself.

A socket's own limit is one of silence: a server that keeps sending headers is never silent.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self


class Deadline:
    """Cuts ``connection`` off after so many ``seconds``, unless :meth:`later` gives it more; a context manager.

    Who waits for the connection in another thread gets an error or the end of the data, and asks :attr:`is_over`.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + seconds
        self._left = threading.Event()
        self._guard = threading.Thread(target=self._wait, daemon=True)

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._guard.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the connection alone from now on."""
        self._left.set()
        self._guard.join()

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._end

    def later(self, seconds: float) -> None:
        """Give it so many ``seconds`` more."""
        self._end += seconds

    def _wait(self) -> None:
        while not self._left.wait(max(0.0, self._end - time.monotonic())):
            if self.is_over:
                with suppress(OSError):  # closed already
                    # Not the method of a TLS connection, which would take it to pieces while another thread reads.
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
                return
