"""``bundler init``: a ``bundle.yaml`` with everything that can be detected, each value with where it came from.

What only a human can know is marked TODO. Nothing is guessed silently: where several answers are possible, the file
lists them and leaves the choice open.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bundler.config import SourceConfig
from bundler.errors import OutputError, UsageError
from bundler.starter.composition import compose
from bundler.starter.detection import Detected, detect

__all__ = ["Detected", "compose", "detect", "write_starter"]


def write_starter(
    folder: Path, target: Path, experiment: str | None, sources: Sequence[SourceConfig] = ()
) -> int:
    """Write ``target`` for the repository ``folder``; return how many places are marked TODO.

    Raises :class:`OutputError` if ``target`` exists, :class:`UsageError` if ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", remedy="Name your training repository.")
    if target.exists():
        raise OutputError(
            f"{target} exists; it is never overwritten", remedy="Use -o, or remove it."
        )
    text = compose(detect(folder, experiment, sources))
    try:
        # "x": a link that leads nowhere is there as well, and is not followed.
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None
    return sum("TODO" in line and not line.startswith("# ") for line in text.splitlines())
