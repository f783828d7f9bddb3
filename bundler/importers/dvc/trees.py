"""The files of a DVC repository at one time: in a commit, or in the working tree."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from bundler.data_hashes import kind_of
from bundler.datasets import below
from bundler.importers.dvc.git import Blob, Objects, Repository, blob_id
from bundler.importers.files import unreadable

_MAX_COMPARED = 256 << 20
"""Most bytes of a file of the working tree that is compared with a commit's."""


class Tree(Protocol):
    """Files by path, relative to the root of the DVC repository; each has the id that git gives to its bytes."""

    @property
    def files(self) -> Mapping[str, Blob]:
        """All files of the tree."""

    def read(self, path: str, limit: int) -> bytes:
        """The bytes of a file. Raises :class:`ValueError` for more than ``limit``."""

    def id_of(self, path: str) -> str:
        """The id that git gives to the file's bytes; empty for a file that is too large to be looked at."""


class CommitTree:
    """The files of a commit."""

    def __init__(self, repository: Repository, objects: Objects, commit: str) -> None:
        self.files: Mapping[str, Blob] = repository.files(commit)
        self._objects = objects

    def read(self, path: str, limit: int) -> bytes:
        """See :class:`Tree`."""
        return self._objects.blob(self.files[path], limit)

    def id_of(self, path: str) -> str:
        """See :class:`Tree`."""
        return self.files[path].id


class WorkingTree:
    """The files of the folder, without links and what git ignores; ids are as long as ``like``."""

    def __init__(self, repository: Repository, folder: Path, like: str) -> None:
        self._folder = folder
        self._like = like
        self.files: Mapping[str, Blob] = {
            path: Blob("", 0)
            for path in repository.working()
            if (place := below(folder, path)) is not None and stat.S_ISREG(kind_of(place))
        }

    def read(self, path: str, limit: int) -> bytes:
        """See :class:`Tree`."""
        place = below(self._folder, path)
        try:
            if place is None or not kind_of(place):
                raise ValueError("no longer there")
            with place.open("rb") as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            raise unreadable(self._folder / path, error) from None
        if len(data) > limit:
            raise ValueError(f"more than {limit:,} bytes")
        return data

    def blob(self, path: str, limit: int) -> Blob:
        """The file as git would keep it."""
        data = self.read(path, limit)
        return Blob(blob_id(data, self._like), len(data))

    def id_of(self, path: str) -> str:
        """See :class:`Tree`."""
        try:
            return self.blob(path, _MAX_COMPARED).id
        except ValueError:
            return ""
