"""Personal data and credentials in files whose bytes are evidence: found and said, never changed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from bundler.errors import UsageError
from bundler.redaction import credential_name, personal_data_in
from bundler.spec import Gap

MAX_SEARCHED = 1 << 20
"""Largest file, in bytes, that is searched."""

_PLACES = ("data/artefacts", "data/code", "data/datasets", "data/environment")


def gaps(bag: Path, kept: Collection[str]) -> Iterator[Gap]:
    """What lies in the folder ``bag`` and should not be handed out.

    Credentials count everywhere; personal data only in artefacts, because code names its authors.
    """
    found: dict[str, set[str]] = {}
    for place in _PLACES:
        for file in sorted((bag / place).rglob("*")):
            if file.is_file() and file.stat().st_size <= MAX_SEARCHED:
                found[file.relative_to(bag).as_posix()] = set(_kinds(file))
    secret = sorted(path for path, kinds in found.items() if "credential" in kinds)
    if secret:
        yield Gap(
            level="required",
            code="credential-embedded",
            point="GDPR Art. 32",
            subject=_listed(secret),
            message="files of the bundle hold what looks like a credential",
            remedy="Revoke it, take it out of what is shipped, and build again: a bundle is handed to many.",
        )
    personal = {
        path: kinds - {"credential"} - set(kept)
        for path, kinds in found.items()
        if path.startswith(_PLACES[0])
    }
    paths = sorted(path for path, kinds in personal.items() if kinds)
    if paths:
        kinds = sorted({kind for path in paths for kind in personal[path]})
        yield Gap(
            level="recommended",
            code="personal-data-embedded",
            point="GDPR Art. 5(1)(c)",
            subject=_listed(paths),
            message=f"embedded artefacts hold what looks like personal data ({', '.join(kinds)})",
            remedy="A bundle is handed to many: log the artefacts without it, or do not embed them.",
        )


def refuse_credentials(command: Collection[str], environment: Mapping[str, str]) -> None:
    """A training specification is signed and handed out as it is. Raises :class:`UsageError` for a credential in it."""
    names = [name for name, value in environment.items() if credential_name(name) and value]
    names += [name for name, value in environment.items() if _secret(value)]
    places = [f"training.environment.{name}" for name in names]
    places += ["training.command"] if _secret(" ".join(command)) else []
    if places:
        raise UsageError(
            f"{places[0]} looks like a credential, and everything in a bundle is handed out",
            remedy="Take it out: a re-run has no network, so nothing can need it.",
        )


def _secret(text: str) -> bool:
    return "credential" in personal_data_in(text)


def _kinds(file: Path) -> tuple[str, ...]:
    """Kinds of personal data in a text file, none for anything else."""
    try:
        return personal_data_in(file.read_bytes().decode())
    except UnicodeDecodeError:
        return ()


def _listed(paths: list[str]) -> str:
    many = "file" if len(paths) == 1 else "files"
    return f"{len(paths)} {many}: {', '.join(paths[:3])}{', …' if len(paths) > 3 else ''}"
