"""Every error that crosses a public boundary: one message, one remedy, one documented exit code."""

from __future__ import annotations


class BundlerError(Exception):
    """Base of all errors of this project.

    ``message`` says what is wrong, ``remedy`` what to do about it; ``exit_code`` is what the command
    line ends with (docs/exit-codes.md).
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def quoted(value: object, length: int = 60) -> str:
    """How a message quotes something from outside: escaped, so that it cannot steer a terminal, and cut."""
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


class GapsError(BundlerError):
    """``build-bundle --strict`` found evidence gaps of level "required"."""

    exit_code = 1


class UsageError(BundlerError):
    """The command line or ``bundle.yaml`` asks for something that cannot be."""

    exit_code = 2


class MalformedError(BundlerError):
    """Bytes that are not what their format demands; ``code`` names the finding."""

    exit_code = 3

    def __init__(self, code: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


class AuthenticityError(MalformedError):
    """No trusted key signed these bytes; ``code`` names the finding."""


class EnvironmentNotRecreatableError(BundlerError):
    """The software that the training needs cannot be provided on this machine."""

    exit_code = 4


class SandboxUnavailableError(BundlerError):
    """No sandbox works on this machine, so nothing of the bundle was executed."""

    exit_code = 5


class HostileOutputError(BundlerError):
    """A re-run left output that a verifier must not read (links, devices, too much of it)."""

    exit_code = 6


class SourceError(BundlerError):
    """A tracker store, artefact or other source cannot be read."""

    exit_code = 7


class OutputError(BundlerError):
    """The result cannot be written (permissions, disk full, target exists)."""

    exit_code = 8
