"""Asking an MLflow tracking server over HTTP: connections that stay open, bounded answers, errors that say what to do.

Redirects are not followed: they lead to log-in pages, and would hand the credentials on.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from bundler.errors import SourceError, quoted
from bundler.importers.mlflow.deadlines import Deadline

MAX_ANSWER = 1 << 26
"""Most bytes of one JSON answer."""

_SECONDS_OF_SILENCE = 60
_SECONDS_OF_AN_ANSWER = 600
_BYTES_OF_A_SECOND = 100_000
"""An exchange may take so long, headers and all, and longer only by what comes at this rate (a large file)."""

_WAITS = (0.2, 1.0, 3.0)
"""Seconds before an exchange is tried again."""

_MAX_WAIT = 5.0
"""Most seconds that a server may ask for."""

_BUSY = {429, 500, 502, 503, 504}
_PIECE = 1 << 18
_VERSION = 100
_SHOWN = 2000

_Read = TypeVar("_Read")
_Reading = Callable[[http.client.HTTPResponse, Deadline], _Read]


class RefusedError(SourceError):
    """The server understood, and does not give it: a file that is gone, a run that it does not have."""


class NotThereError(SourceError):
    """The server does not know the endpoint: it is older, or no MLflow of the usual kind."""


class TooLargeError(SourceError):
    """An answer that is larger than was asked for; asking for less may help."""


class _AgainError(Exception):
    """An exchange that may work the next time. ``wait``: seconds that the server asked for."""

    def __init__(self, problem: str, wait: float = 0) -> None:
        super().__init__(problem)
        self.problem = problem
        self.wait = wait


class Server:
    """One tracking server. May be used from several threads: each has its own connection."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        parts = _parts(address)
        self.place = parts.netloc
        self.shown = quoted(f"{parts.scheme}://{parts.netloc}{parts.path}", 200)
        self._parts = parts
        self._tls = _tls(environment) if parts.scheme == "https" else None
        self.unverified = self._tls is not None and self._tls.verify_mode == ssl.CERT_NONE
        """Whether somebody else may have answered: trust was waived."""
        secret = _authorisation(environment)
        if secret and not self._tls and not _is_loopback(parts.hostname or ""):
            raise SourceError(
                f"the credentials for {self.shown} would go over the network in the clear",
                remedy="Write https:// (or reach the server through a tunnel to this machine, http://localhost:PORT);"
                " if it needs no credentials, unset MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and"
                " MLFLOW_TRACKING_TOKEN.",
            )
        self._headers = {"Accept": "application/json", **secret}
        self._own = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def get(
        self, path: str, query: Iterable[tuple[str, str]], *, most: int = MAX_ANSWER
    ) -> dict[str, Any]:
        """The JSON object that the server answers; :class:`TooLargeError` for more than ``most`` bytes."""
        return self._json("GET", f"{path}?{urlencode(list(query))}", None, most)

    def post(
        self, path: str, body: Mapping[str, object], *, most: int = MAX_ANSWER
    ) -> dict[str, Any]:
        """The same for a question in JSON."""
        return self._json("POST", path, json.dumps(body).encode(), most)

    def version(self) -> str | None:
        """The version of MLflow that the server says it is; ``None`` if it says none."""

        def whole(response: http.client.HTTPResponse, deadline: Deadline) -> bytes:
            return b"".join(self._pieces(response, _VERSION, deadline))

        with suppress(SourceError):
            found = self._exchange("GET", "/version", None, whole)
            if found[:1].isdigit() and found.isascii():
                return found.decode().strip()
        return None

    def download(self, path: str, target: Path, *, most: int) -> int:
        """Write what lies at ``path`` into the new file ``target``; returns its size in bytes."""

        def keep(response: http.client.HTTPResponse, deadline: Deadline) -> int:
            try:
                with target.open("wb") as file:
                    for piece in self._pieces(response, most, deadline):
                        file.write(piece)
                    return file.tell()
            except OSError as error:
                raise unkept(error) from None

        return self._exchange("GET", quote(path), None, keep)

    def close(self) -> None:
        """Close all connections."""
        for connection in self._all:
            connection.close()

    def _json(self, method: str, target: str, body: bytes | None, most: int) -> dict[str, Any]:
        def whole(response: http.client.HTTPResponse, deadline: Deadline) -> bytes:
            return b"".join(self._pieces(response, most, deadline))

        data = self._exchange(method, target, body, whole)
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self._no_json(target, data, str(error)) from None
        if not isinstance(answer, dict):
            raise self._no_json(target, data, "no object")
        return answer

    def _exchange(
        self, method: str, target: str, body: bytes | None, read: _Reading[_Read]
    ) -> _Read:
        """What ``read`` makes of the answer; what may work the next time is tried again."""
        for wait in _WAITS:
            try:
                return self._once(method, target, body, read)
            except _AgainError as error:
                time.sleep(max(wait, error.wait))
        try:
            return self._once(method, target, body, read)
        except _AgainError as error:
            raise SourceError(
                f"{self._asked(target)} fails: {error.problem}",
                remedy="Look at the server's log, or try again later.",
            ) from None

    def _once(self, method: str, target: str, body: bytes | None, read: _Reading[_Read]) -> _Read:
        connection = self._connection()
        headers = self._headers | ({"Content-Type": "application/json"} if body else {})
        complete = False
        try:
            if connection.sock is None:
                connection.connect()
            with Deadline(connection.sock, _SECONDS_OF_AN_ANSWER) as deadline:
                try:
                    connection.request(method, self._parts.path + target, body, headers)
                    with connection.getresponse() as response:
                        if response.status != http.client.OK:
                            raise self._refusal(response, target)
                        taken = read(response, deadline)
                except (OSError, http.client.HTTPException, ValueError, _AgainError):
                    if deadline.is_over:
                        raise self._too_slow() from None
                    raise
            complete = True
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(target, error) from None
        finally:
            if not complete:
                # What is left of the answer must not be taken for the next one.
                connection.close()
        return taken

    def _connection(self) -> http.client.HTTPConnection:
        known: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if known is not None:
            return known
        host, port = self._parts.hostname or "", self._parts.port
        made = (
            http.client.HTTPSConnection(host, port, timeout=_SECONDS_OF_SILENCE, context=self._tls)
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=_SECONDS_OF_SILENCE)
        )
        self._own.connection = made
        self._all.append(made)
        return made

    def _pieces(
        self, response: http.client.HTTPResponse, most: int, deadline: Deadline
    ) -> Iterator[bytes]:
        """The body, in pieces. It may neither be longer than ``most``, nor drip for ever, nor end early."""
        left = most
        try:
            while piece := response.read1(_PIECE):
                left -= len(piece)
                if left < 0:
                    raise TooLargeError(
                        f"{self.shown} answers with more than {most:,} bytes",
                        remedy="No MLflow server gives such an answer; look at what runs there.",
                    )
                deadline.later(len(piece) / _BYTES_OF_A_SECOND)
                yield piece
        except TimeoutError:
            raise self._too_slow() from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _AgainError(f"the answer breaks off ({type(error).__name__})") from None
        if deadline.is_over:
            # A body without a length ends where the connection was cut.
            raise self._too_slow()
        if response.length:
            raise _AgainError(f"the answer ends {response.length} bytes early")

    def _refusal(self, response: http.client.HTTPResponse, target: str) -> Exception:
        """What a status other than 200 means."""
        status = response.status
        body = response.read1(_SHOWN)
        said = _said(body)
        answer = f"{self._asked(target)} answers {status}{said}"
        if b"--no-serve-artifacts" in body:
            # MLflow calls this 503, but it does not pass.
            return RefusedError(answer, remedy="Give the folder with the artefacts (artefacts).")
        if status in _BUSY:
            return _AgainError(f"it answers {status}{said}", _wanted(response))
        if status in {401, 403}:
            return SourceError(
                answer,
                remedy="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, as for"
                " MLflow itself; the user must be allowed to read the experiment.",
            )
        if 300 <= status < 400:
            place = response.getheader("Location") or ""
            return SourceError(
                f"{self._asked(target)} answers {status} and leads to {quoted(place.partition('?')[0], 100)}",
                remedy="Give the address that it leads to, unless that is a log-in page.",
            )
        # MLflow says in JSON that there is no such run or file; that there is no such endpoint, it does not.
        kind = NotThereError if status == http.client.NOT_FOUND and not said else RefusedError
        return kind(answer, remedy="Is this the address of an MLflow tracking server?")

    def _unreachable(self, target: str, error: Exception) -> Exception:
        """What an error of the connection means."""
        if isinstance(error, ConnectionRefusedError | socket.gaierror):
            return SourceError(
                f"nothing answers at {self.shown}: {error.strerror or error}",
                remedy="Check the address and whether the MLflow server runs.",
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return SourceError(
                f"the certificate of {self.shown} is not trusted: {quoted(error.verify_message)}",
                remedy="Name the file with its authority in MLFLOW_TRACKING_SERVER_CERT_PATH (or, if you must, set"
                " MLFLOW_TRACKING_INSECURE_TLS=true).",
            )
        if isinstance(error, ssl.SSLError):
            return SourceError(
                f"{self.shown} does not speak TLS as it should: {quoted(error.reason)}",
                remedy="If it has no TLS, write http:// instead of https://.",
            )
        if isinstance(error, TimeoutError):
            return self._too_slow()
        return _AgainError(f"the connection breaks off ({type(error).__name__})")

    def _too_slow(self) -> SourceError:
        return SourceError(
            f"{self.shown} does not answer in time",
            remedy="Check whether the MLflow server is busy, and try again.",
        )

    def _no_json(self, target: str, data: bytes, problem: str) -> SourceError:
        if data.lstrip()[:1] == b"<":
            return SourceError(
                f"{self._asked(target)} answers with a web page instead of JSON",
                remedy="Give the address of the tracking server itself, without /#/experiments; a log-in page in front"
                " of it has to let MLflow's clients through.",
            )
        return SourceError(
            f"{self._asked(target)} answers with what is no JSON: {quoted(problem, 100)}",
            remedy="Is this the address of an MLflow tracking server?",
        )

    def _asked(self, target: str) -> str:
        return f"{self.shown}, asked for {quoted(target.partition('?')[0], 120)},"


def unkept(error: OSError) -> SourceError:
    """What to do where the temporary folder takes no more."""
    return SourceError(
        f"the server's answers cannot be kept in the temporary folder: {error.strerror or error}",
        remedy="Make room there, name another folder (TMPDIR), or give the folder behind the artefact server"
        " (artefacts).",
    )


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address.rstrip("/"))
        port = parts.port  # raises ValueError
        name = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        port, name, parts = None, "", urlsplit("")
    plain = address.isascii() and address.isprintable() and " " not in address
    if not name or not plain or parts.query or parts.fragment:
        # Without the address: it may hold a password.
        raise SourceError(
            "the address of the MLflow server is no plain http(s)://HOST[:PORT][/PATH]",
            remedy="Give the tracking URI, as in MLFLOW_TRACKING_URI.",
        )
    if parts.username is not None or parts.password is not None:
        raise SourceError(
            f"the address of the MLflow server at {quoted(name)} holds a user or password",
            remedy="Leave them out of it, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD: the address is"
            " written into files that others read.",
        )
    host = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{host}:{port}" if port else host)


def _is_loopback(host: str) -> bool:
    """Whether what goes to ``host`` stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _authorisation(environment: Mapping[str, str]) -> dict[str, str]:
    """The header for the credentials that MLflow itself would use; user and password go before a token."""
    user = environment.get("MLFLOW_TRACKING_USERNAME")
    password = environment.get("MLFLOW_TRACKING_PASSWORD")
    token = environment.get("MLFLOW_TRACKING_TOKEN")
    headers = {}
    if user and password:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    elif token:
        if not (token.isascii() and token.isprintable()):
            raise SourceError(
                "MLFLOW_TRACKING_TOKEN is no token: it has line ends or characters beyond ASCII",
                remedy="Set it to the token alone.",
            )
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _tls(environment: Mapping[str, str]) -> ssl.SSLContext:
    own = environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    authority = environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if own:
            context.load_cert_chain(own)
    except OSError as error:  # an ssl.SSLError is one
        raise SourceError(
            f"the certificates that MLFLOW_TRACKING_*_CERT_PATH names cannot be read: {error.strerror or error}",
            remedy="Name PEM files.",
        ) from None
    if environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _wanted(response: http.client.HTTPResponse) -> float:
    """The seconds that a busy server asks for, within reason."""
    text = response.getheader("Retry-After") or ""
    seconds = int(text[:6]) if text[:6].isascii() and text[:6].isdigit() else 0
    return min(float(seconds), _MAX_WAIT)


def _said(body: bytes) -> str:
    """MLflow's own words about an error, if it gives any."""
    try:
        message = json.loads(body)["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f": {quoted(message, 200)}"
