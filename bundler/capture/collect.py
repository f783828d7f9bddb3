"""All facts on one sheet, as plain values that strict JSON can carry, and into a file as a whole or not at all."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence

from . import code, determinism, hardware, software
from .privacy import Privacy
from .sheet import Sheet

FORMAT = "urn:aisdp-bundler:environment:1"

MAX_TEXT = 8192
"""Longest text that is recorded, in characters."""

MAX_INTEGER = 2**53 - 1
"""Largest whole number that every JSON reader keeps; a larger one becomes text."""

MARK = "aisdp-environment:"
"""Begins the line that :func:`main` prints: what else an interpreter prints when it starts is not ours."""


def collect(  # noqa: PLR0913  # one argument an option
    *,
    seed: object = None,
    folder: str = ".",
    identify: bool = False,
    command: Sequence[str] | None = None,
    output: str | None = None,
    root: str = "/",
) -> dict[str, object]:
    """The facts of this process, nested. Nothing that goes wrong with one of them is raised."""
    now = time.time()
    sheet = Sheet(root)
    sheet.put("format", FORMAT)
    sheet.put("captured_at", _timestamp(now))
    privacy = Privacy()
    sheet.attempt("software", lambda: software.record(sheet))
    sheet.attempt("hardware", lambda: hardware.record(sheet))
    sheet.attempt("determinism", lambda: determinism.record(sheet, seed))
    sheet.attempt("code", lambda: code.record(sheet, folder, output))
    if command is not None:
        sheet.record("command", lambda: shlex.join(command))
    if identify:
        sheet.record("host", platform.node)
        sheet.put("user", privacy.user)
    return _written(sheet, privacy)


def _timestamp(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{whole}.{milliseconds % 1000:03d}Z"


def _written(sheet: Sheet, privacy: Privacy) -> dict[str, object]:
    facts: dict[str, object] = {}

    def add(name: str, value: object) -> None:
        # An address names the account that owns a repository: that is no secret, and the address is wrong without.
        facts[clean(name)] = _plain(sheet, privacy, name, value, account=name != "code")

    for name, value in sheet.facts.items():
        sheet.attempt(name, functools.partial(add, name, value))
    reasons = {name: privacy.cleaned(text) for name, text in sheet.not_recorded.items()}
    return {**facts, "not_recorded": {clean(name): clean(reasons[name]) for name in reasons}}


def _plain(sheet: Sheet, privacy: Privacy, name: str, value: object, *, account: bool) -> object:
    """``value`` as JSON can carry it, without what names a person."""
    if isinstance(value, Mapping):
        return {
            clean(str(key)): _plain(sheet, privacy, f"{name}.{key}", item, account=account)
            for key, item in value.items()
        }
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= MAX_INTEGER else str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    text = privacy.cleaned(clean(str(value)), account=account)
    if len(text) > MAX_TEXT:
        sheet.missing(name, f"longer than {MAX_TEXT} characters")
        return None
    return text


def clean(text: str) -> str:
    """``text`` as UTF-8 can carry it: half a character becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def render(facts: Mapping[str, object]) -> bytes:
    """The file: strict JSON for people and programs, names sorted."""
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, indent=2, sort_keys=True)
    return text.encode() + b"\n"


def write(path: str, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all; a regular file of that name is replaced. Raises ``OSError``."""
    target = os.path.abspath(path)  # noqa: PTH100
    if os.path.lexists(target) and not os.path.isfile(target):  # noqa: PTH113
        raise FileExistsError(errno.EEXIST, "it exists and is no regular file")
    folder, name = os.path.split(target)
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    # Not tempfile: processes of one training may write at once, on machines whose process numbers are the same.
    staging = os.path.join(folder, f".{name}.{os.urandom(6).hex()}.partial")  # noqa: PTH118
    try:
        with open(staging, "xb") as file:  # noqa: PTH123
            file.write(data)
        os.replace(staging, target)
    except BaseException:
        if os.path.lexists(staging):
            os.unlink(staging)  # noqa: PTH108
        raise


def main() -> None:
    """Print the facts of this interpreter; its first argument is a JSON object with the options of :func:`collect`."""
    options = json.loads(sys.argv[1])
    print(f"\n{MARK}{json.dumps(collect(**options))}")  # noqa: T201  # the parent reads it
