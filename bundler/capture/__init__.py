"""Writes down, at training time, the environment and the settings that decide whether bits can be repeated.

Two lines in a training script::

    from bundler.capture import capture
    capture("environment.json", seed=7)

Needs nothing but Python 3.9 or later, imports nothing of the training's, changes no state, and draws no random number.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from bundler.capture import collect
from bundler.errors import OutputError

__all__ = ["capture"]


def capture(
    path: str | os.PathLike[str],
    *,
    seed: int | Mapping[str, int] | None = None,
    code: str | os.PathLike[str] = ".",
    identify: bool = False,
    command: bool = False,
) -> dict[str, object]:
    """Write the environment of this process to ``path``, and return what was written.

    ``seed`` is the seed in use, or a mapping of names to seeds; ``code`` a folder of the training's git repository.
    ``identify`` adds host and user, ``command`` the command line. What cannot be found out is listed in
    ``not_recorded``. An earlier file is replaced, as a whole. Raises :class:`OutputError`, and nothing else, if the
    file cannot be written.
    """
    target = os.fspath(path)
    facts = collect.collect(
        seed=seed,
        folder=os.fspath(code),
        identify=identify,
        command=getattr(sys, "orig_argv", sys.argv) if command else None,
        output=target,
    )
    save(target, facts)
    return facts


def save(path: str, facts: Mapping[str, object]) -> None:
    """Write ``facts`` to ``path``. Raises :class:`OutputError`."""
    try:
        collect.write(path, collect.render(facts))
    except (OSError, ValueError) as error:
        # A name with a zero byte is a ValueError.
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"cannot write {path}: {reason}",
            remedy="Check the path, free space and permissions.",
        ) from None
