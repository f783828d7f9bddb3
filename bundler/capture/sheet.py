"""The sheet on which facts are written down, and why the others are not.

This package runs inside somebody's training, with whatever Python (3.9 or later) that has: the standard library only,
no import of what the training has not imported, and no failure that reaches it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

PATIENCE = 5.0
"""Seconds that one program may take to answer."""

BUDGET = 10.0
"""Seconds that all programs together may take."""

MAX_READ = 4 << 20
"""Most bytes that are read of a file."""

_REDIRECTS = r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|NAMESPACE|COMMON_DIR)"
"""Variables that a git hook sets and that would lead to another repository."""

_PRIVATE_NAME = re.compile(r"_(DIR|PATH|FILE|HOST\w*|COMM_ID|URL|ADDR|\w*(TOKEN|SECRET|PASSWORD))$")
_PRIVATE_VALUE = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|@|%40|://")
_WORD = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s=;'\"]+")
_DEVICE_IDENTIFIER = re.compile(r"\b(GPU|MIG)-[0-9A-Fa-f-]{8,}(/\d+)*")


class NotRecordedError(Exception):
    """A fact cannot be had here; the text says why."""


class Sheet:
    """What was found, nested by the dots in its name, and what was not.

    ``root`` is where the files of the system are; a test has its own.
    """

    def __init__(self, root: str = "/") -> None:
        self.facts: dict[str, object] = {}
        self.not_recorded: dict[str, str] = {}
        self._root = root
        self._until = time.monotonic() + BUDGET

    def record(self, name: str, probe: Callable[[], object]) -> bool:
        """Write down what ``probe`` returns, or why it returns nothing; whether it did."""
        return self.attempt(name, lambda: self.put(name, probe()))

    def attempt(self, name: str, action: Callable[[], None]) -> bool:
        """Whether ``action``, which writes down facts about ``name``, came to its end."""
        try:
            action()
        except NotRecordedError as absent:
            self.missing(name, str(absent))
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not end a training
            self.missing(name, f"{type(error).__name__}: {error}")
        else:
            return True
        return False

    def put(self, name: str, value: object) -> None:
        """Write ``value`` down; a mapping becomes a branch. ``None`` says that there is none, which is a fact."""
        *branches, leaf = name.split(".")
        place = self.facts
        for branch in branches:
            place = place.setdefault(branch, {})  # type: ignore[assignment]  # every branch is a dictionary
        if isinstance(value, Mapping) and isinstance(place.get(leaf), dict):
            place[leaf].update(value)  # type: ignore[attr-defined]  # a dictionary: the line above looked
        else:
            place[leaf] = value

    def missing(self, name: str, reason: str) -> None:
        """Write down why ``name`` is not recorded."""
        self.not_recorded[name] = " ".join(reason.split())[:300]

    def read(self, path: str) -> str:
        """The text of a file of the system. Raises :class:`NotRecordedError`."""
        try:
            with open(os.path.join(self._root, path), "rb") as file:  # noqa: PTH118, PTH123
                return file.read(MAX_READ).decode("utf-8", "backslashreplace")
        except OSError as error:
            raise NotRecordedError(f"/{path}: {error.strerror}") from None

    def listed(self, path: str) -> list[str]:
        """The names in a folder of the system, sorted; none if it is not there."""
        try:
            return sorted(os.listdir(os.path.join(self._root, path)))  # noqa: PTH118
        except OSError:
            return []

    def ask(self, *command: str) -> str:
        """What a program prints. Raises :class:`NotRecordedError` if it fails or does not answer in time."""
        program = shutil.which(command[0])
        if program is None:
            raise NotRecordedError(f"{command[0]} is not installed")
        left = min(PATIENCE, self._until - time.monotonic())
        if left <= 0:
            raise NotRecordedError(f"{command[0]} was not asked: others took too long")
        process = subprocess.Popen(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            # A group of its own, so that what it started can be stopped with it.
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=left)
        except BaseException as error:
            _abandon(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise NotRecordedError(f"{command[0]} did not answer in {left:.1f} s") from None
            raise
        if process.returncode != 0:
            words = errors.decode("utf-8", "backslashreplace").strip().splitlines() or [""]
            # git's advice comes after what it says.
            detail = next((line for line in words if line.startswith("fatal: ")), words[-1])
            detail = f": {detail}" if detail else ""
            raise NotRecordedError(f"{command[0]} ended with {process.returncode}{detail}")
        return output.decode("utf-8", "backslashreplace")


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill ``process``, without a wait for one that hangs in a driver and cannot be killed."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait(0.2)
    except (OSError, subprocess.TimeoutExpired):
        pass
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not re.fullmatch(_REDIRECTS, name)}
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def imported(name: str) -> Any:
    """The module ``name``, if the training has imported it; it is never imported for us."""
    module = sys.modules.get(name)
    if module is None:
        raise NotRecordedError(f"{name} is not imported in this process")
    return module


def variables(sheet: Sheet, group: str, names: str) -> None:
    """Write down the environment variables whose names match the pattern ``names``.

    A variable that is not set is not there. What names a folder, machine or person is left out, and said so; a path
    among other flags becomes ``…``.
    """
    for name, value in sorted(os.environ.items()):
        if not re.fullmatch(names, name):
            continue
        if _PRIVATE_NAME.search(name) or _PRIVATE_VALUE.search(value):
            sheet.missing(f"{group}.{name}", "may name a folder, a machine or a person")
        else:
            sheet.put(f"{group}.{name}", _without_paths(_DEVICE_IDENTIFIER.sub(r"\1", value)))


def _without_paths(value: str) -> str:
    """``value`` with ``…`` for each word that has a slash: people's names are in paths of any kind."""
    return _WORD.sub(lambda word: "…" if {"/", "\\"} & set(word[0]) else word[0], value)
