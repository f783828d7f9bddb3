"""Versions of packages, spelled in one way, so that two spellings of a version are equal texts."""

from __future__ import annotations

import re

_PEP_440 = re.compile(
    r"""v?
    (?:(?P<epoch>[0-9]+)!)?
    (?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|beta|preview|pre|a|b|c|rc)[-_.]?(?P<pre_number>[0-9]*))?
    (?:-(?P<bare_post>[0-9]+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>[0-9]*))?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>[0-9]*))?
    """,
    re.VERBOSE,
)
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}


def same_version(locked: str, found: str) -> bool:
    """Whether ``found`` is the version ``locked``. A local label (``+cpu``) counts only where it is declared."""
    public, label = _spelled(locked)
    found_public, found_label = _spelled(found)
    return public == found_public and label in {"", found_label}


def _spelled(version: str) -> tuple[str, str]:
    """The public version and the local label of ``version``, in lower case and normalised."""
    public, _, label = version.strip().lower().partition("+")
    match = _PEP_440.fullmatch(public)
    parts = re.split(r"[-_.]", label)
    return _normal(match) if match else _of_conda(public), ".".join(map(_number, parts))


def _normal(match: re.Match[str]) -> str:
    """The normal form of PEP 440, its release without zeros at the end: 1.0 and 1.0.0 are one version."""
    text = _release(match["release"].split("."))
    epoch = _number(match["epoch"] or "0")
    if epoch != "0":
        text = f"{epoch}!{text}"
    if match["pre"]:
        text += _PRE.get(match["pre"], match["pre"]) + _number(match["pre_number"] or "0")
    if match["post"] or match["bare_post"]:
        text += ".post" + _number(match["bare_post"] or match["post_number"] or "0")
    if match["dev"]:
        text += ".dev" + _number(match["dev_number"] or "0")
    return text


def _of_conda(version: str) -> str:
    """Another version, such as conda has (``1.1.1w``, ``9_2``): an underscore parts numbers as a full stop does."""
    epoch, mark, rest = version.rpartition("!")
    text = _release(re.split(r"[._]", rest))
    return f"{epoch}!{text}" if mark and _number(epoch) != "0" else text


def _release(parts: list[str]) -> str:
    """``parts`` without zeros that say nothing. As text: a hostile one may have thousands of digits."""
    numbers = [_number(part) for part in parts]
    while len(numbers) > 1 and numbers[-1] == "0":
        numbers.pop()
    return ".".join(numbers)


def _number(text: str) -> str:
    """``text`` without zeros before it, if it is a number."""
    return (text.lstrip("0") or "0") if text.isascii() and text.isdigit() else text
