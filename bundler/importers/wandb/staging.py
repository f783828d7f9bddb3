"""Where W&B leaves the bytes of logged artefacts: in its staging folder, which is not in the folder of the run.

It is ``artifacts/staging`` below ``$WANDB_DATA_DIR``, or else below the user's data folder. Files in it are called as
the manifest says (``tmp…``), and count only with the MD5 that it names.

The user's own folders are searched only by who reads his own runs. Who reads a store that others made, as a verifier
does after a re-run, must not lend them his files: there the store and the folder it lies in are all that is searched.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bundler.data_hashes import kind_of

_STAGING = ("artifacts", "staging")
_HINT = (
    "W&B keeps it in artifacts/staging below $WANDB_DATA_DIR (~/.local/share/wandb where that is not set):"
    " sources.artefacts can name that folder"
)


@dataclass(frozen=True, slots=True)
class Places:
    """Folders to look for the bytes of artefacts in; ``told`` names them without saying where they are."""

    folders: tuple[Path, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """Where was looked in vain, and where else the bytes may be."""
        return f"looked in {', '.join((*self.told, 'files of the run'))}; {_HINT}"


def places(store: Path, artefacts: Path | None, environment: Mapping[str, str] | None) -> Places:
    """Where to look: in ``artefacts``, beside ``store`` and, given the user's ``environment``, in his data folder."""
    found = [(artefacts, "sources.artefacts")] if artefacts is not None else []
    found += [(each, "artifacts/staging beside the runs") for each in _beside(store)]
    if environment is not None:
        staging = data_folder(environment).joinpath(*_STAGING)
        found += [(staging, "artifacts/staging of W&B's data folder")] if staging.is_dir() else []
    told = dict.fromkeys(words for _, words in found)
    return Places(tuple(folder for folder, _ in found), tuple(told))


def _beside(store: Path) -> list[Path]:
    """Staging folders in ``store`` and in the folder that it lies in, never above it; links are not followed."""
    found = []
    for base in (store, store.parent):
        outer, inner = base / _STAGING[0], base.joinpath(*_STAGING)
        if all(stat.S_ISDIR(kind_of(each)) for each in (outer, inner)):
            found.append(inner)
    return found


def data_folder(environment: Mapping[str, str]) -> Path:
    """W&B's data folder, as its client works it out."""
    named = environment.get("WANDB_DATA_DIR")
    if named:
        return Path(named).expanduser()
    home = Path(environment.get("HOME") or "~").expanduser()
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "wandb"
    if os.name == "nt":
        return Path(environment.get("LOCALAPPDATA") or home / "AppData" / "Local", "wandb", "wandb")
    return Path(environment.get("XDG_DATA_HOME", "").strip() or home / ".local" / "share", "wandb")
