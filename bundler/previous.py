"""The bundle before this one: its log is the beginning of the new log, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bundler.errors import MalformedError
from bundler.evidence import Contents, Files, intact_files, predecessor, read_contents
from bundler.records import RunRecord, history_location
from bundler.spec import Predecessor
from bundler.storage import open_bag
from bundler.storage.writer import write_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Previous:
    """An earlier bundle of the same system, its files checked against its manifests."""

    files: Files
    contents: Contents
    predecessor: Predecessor

    def changed(self, records: Sequence[RunRecord]) -> Iterator[RunRecord]:
        """Those of ``records`` that the earlier log does not hold in the same words: they are appended."""
        latest = {record.id: record for record in self.contents.log}
        return (record for record in records if latest.get(record.id) != record)

    def carry_over(self, bag: Path) -> None:
        """Copy the metric histories of the earlier log's runs into ``bag`` where it has none of its own."""
        for record in self.contents.records:
            path = history_location(record.id)
            if record.history is not None and not (bag / path).exists():
                write_file(bag, path, self.files.read(path))


def open_previous(path: Path) -> Previous:
    """Open the bundle at ``path``. Raises :class:`MalformedError` if its files are not what its manifests say."""
    try:
        files = intact_files(open_bag(path))
        contents = read_contents(files)
    except MalformedError as error:
        raise MalformedError(
            error.code,
            f"the previous bundle {path} is not intact: {error.message}",
            remedy="Run verify-bundle on it and use an intact copy.",
        ) from None
    return Previous(files=files, contents=contents, predecessor=predecessor(files, contents))
