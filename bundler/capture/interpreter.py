"""The environment of another interpreter, which need not have this package: it is handed our own files to run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bundler import canonical
from bundler.capture.collect import MARK
from bundler.errors import MalformedError, UsageError, quoted

_LOAD = (
    "import sys\n"
    # The working directory comes first on the path of -c: a file platform.py there is not the standard library's.
    "sys.path[:] = [each for each in sys.path if each]\n"
    "if sys.version_info < (3, 9): sys.exit('Python 3.9 or later is needed')\n"
    "import importlib, types\n"
    "package = types.ModuleType('aisdp_capture')\n"
    "package.__path__ = [sys.argv.pop(1)]\n"
    "sys.modules[package.__name__] = package\n"
    "importlib.import_module('aisdp_capture.collect').main()\n"
)
"""Loads this folder under a name of its own, without :mod:`bundler`."""

_SECONDS = 60
"""How long an interpreter may take. Its own questions are bounded; the rest is its start, from a slow disk."""


def interpreter_of(command: Sequence[str]) -> Path:
    """The interpreter that ``command`` runs with, if it names one; else the first ``python`` of the search path."""
    names = ["python", "python3"]
    if command and re.fullmatch(r"(python|pypy)[0-9.]*(\.exe)?", Path(command[0]).name):
        names.insert(0, command[0])
    found = next(filter(None, map(shutil.which, names)), sys.executable)
    return Path(found)


def collect_from(python: Path, **options: object) -> dict[str, canonical.Json]:
    """The facts of ``python``; ``options`` are those of :func:`bundler.capture.collect.collect`.

    Not in isolated mode: the training will see PYTHON* variables and the user's packages as well. Raises
    :class:`UsageError` if ``python`` is no interpreter that runs.
    """
    # -B: nothing is written beside our files, by a Python that may be another one.
    command = [str(python), "-B", "-c", _LOAD, str(Path(__file__).parent), json.dumps(options)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = (
            "it did not answer" if isinstance(error, subprocess.TimeoutExpired) else error.strerror
        )
        raise _no_interpreter(python, reason) from None
    lines = done.stdout.decode("utf-8", "backslashreplace").splitlines()
    found = [line[len(MARK) :] for line in lines if line.startswith(MARK)]
    if done.returncode != 0 or not found:
        words = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
        raise _no_interpreter(python, quoted(words[-1], 200) if words else "it printed nothing")
    try:
        value = canonical.parse(found[-1].encode(), name="environment")
    except MalformedError as error:
        raise _no_interpreter(python, error.message) from None
    if not isinstance(value, dict):
        raise _no_interpreter(python, "it printed something else")
    return value


def _no_interpreter(python: Path, reason: str | None) -> UsageError:
    return UsageError(
        f"the environment of {python} cannot be captured: {reason}",
        remedy="Give --python the interpreter of the training, Python 3.9 or later.",
    )
