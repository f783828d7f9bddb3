"""Neptune's exports: ``data/PROJECT/RUN_part_N.parquet`` and the files beside them, as neptune-exporter writes them.

One row an attribute or a point of a series, with its value in the column of its type. Read with pyarrow (extra
``parquet``), in batches and in another process (:mod:`bundler.importers.neptune.reader`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Self

from bundler.errors import SourceError, quoted
from bundler.importers.files import below, too_large, unreadable, walk
from bundler.importers.model import ArtefactFile
from bundler.importers.neptune import reader as neptune_reader
from bundler.importers.neptune.attributes import MAX_VALUES, Attributes, Moment
from bundler.importers.values import Flags

MAX_PART = 2 << 30
"""Most bytes of a part; the exporter begins a new one at 50 million."""

MAX_DECODED = 8 << 30
"""Most bytes of a part when it is decompressed, as it says itself; a batch at a time is in memory."""

MAX_ROWS = 50_000_000
"""Most rows of a part."""

MAX_RUNS = 1_000_000
"""Most runs of a store."""

MAX_RUNS_OF_PART = 300
"""Most runs of a part, which is read once for each. The exporter makes parts of one run."""

MAX_SECONDS = 300.0
"""Longest that the other process may take for the next rows, which are some thousand."""

MAX_BATCH = 1 << 30
"""Most characters of the rows that are taken from the other process at a time."""

_PART = re.compile(r"(?:(?P<run>.+)_)?part_(?P<number>[0-9]{1,9})\.parquet")
_KEYS = ("project_id", "run_id", "attribute_path")
_SINGLE = {
    "int": "int_value",
    "float": "float_value",
    "string": "string_value",
    "bool": "bool_value",
}
_FILES = {"file", "file_series", "file_set", "artifact"}


@dataclass(slots=True)
class ExportedRun:
    """A run of an export: its parts in order, and when it began (milliseconds)."""

    project: str
    run: str
    parts: list[Path]
    started: int | None = None


def is_part(name: str) -> bool:
    """Whether a file of this ``name`` is a part of an export."""
    return _PART.fullmatch(name) is not None


def find(folder: Path, reader: PartReader) -> list[ExportedRun]:
    """All runs below ``folder``. Raises :class:`SourceError` for an export that was not finished."""
    flags = Flags()
    parts: list[Path] = []
    for each in walk(folder, "", flags):
        if each.file is None:
            continue
        if each.file.name.endswith(".parquet.tmp"):
            raise SourceError(
                f"{quoted(str(each.file), 200)} is a part of a run whose export was not finished",
                remedy="Export the run again, or remove its files that end in .tmp.",
            )
        if is_part(each.file.name):
            parts.append(each.file)
    runs: dict[tuple[str, str], ExportedRun] = {}
    for part in sorted(parts, key=_place):
        for run in _index(part, runs, reader):
            _take_part(part, run)
        if len(runs) > MAX_RUNS:
            raise too_large(folder, f"{MAX_RUNS:,} runs")
    return list(runs.values())


def read(run: ExportedRun, store: Path, given: Path | None, reader: PartReader) -> Attributes:
    """The attributes of ``run``.

    Paths of its files are relative to the folder ``given``, else to ``files`` in ``store``, where the exporter puts it.
    """
    attributes = Attributes()
    files = given or below(store, "files", attributes.flags)
    _flag_gaps(run, attributes.flags)
    for part in run.parts:
        for row in reader.rows(part, neptune_reader.TYPES):
            if (row["project_id"], row["run_id"]) == (run.project, run.run):
                _take(row, attributes, files)
    return attributes


def _index(
    part: Path, runs: dict[tuple[str, str], ExportedRun], reader: PartReader
) -> list[ExportedRun]:
    """The runs that have rows in ``part``."""
    found: dict[tuple[str, str], ExportedRun] = {}
    for row in reader.rows(part, (*_KEYS, "datetime_value")):
        project, identity = row["project_id"], row["run_id"]
        if not isinstance(project, str) or not isinstance(identity, str):
            raise damaged(part, "a row without project or run")
        key = (project, identity)
        if key not in found:
            found[key] = runs.setdefault(key, ExportedRun(project, identity, []))
            if len(found) > MAX_RUNS_OF_PART:
                raise too_large(part, f"{MAX_RUNS_OF_PART:,} runs")
        run = found[key]
        if row["attribute_path"] == "sys/creation_time" and row["datetime_value"] is not None:
            run.started = row["datetime_value"]
    return list(found.values())


def _take_part(part: Path, run: ExportedRun) -> None:
    """Take ``part``, unless another of its number is known: the run was exported twice, or a part was copied."""
    number = _place(part)[2]
    for each in run.parts:
        if _place(each)[2] == number:
            raise SourceError(
                f"part {number} of run {quoted(run.run)} is in {quoted(str(each), 200)} and in"
                f" {quoted(str(part), 200)}",
                remedy="Its points would count twice: remove one of them, or give only one export.",
            )
    run.parts.append(part)


def _take(row: dict[str, Any], attributes: Attributes, files: Path | None) -> None:
    path, kind = row["attribute_path"], row["attribute_type"]
    if not isinstance(path, str) or not isinstance(kind, str):
        attributes.flags("run", "unreadable", "a row without attribute or type")
    elif kind == "float_series":
        time = row["timestamp"]
        value = row["float_value"]
        if time is None:
            attributes.flags(f"metrics.{path}", "no_time", "")
        if value is None:
            attributes.flags(f"metrics.{path}", "no_value", "")
        else:
            attributes.append(path, row["step"], time or 0, value)
    elif kind in _SINGLE:
        attributes.assign(path, row[_SINGLE[kind]])
    elif kind == "datetime":
        moment = row["datetime_value"]
        attributes.assign(path, None if moment is None else Moment(moment))
    elif kind == "string_set":
        members = row["string_set_value"] or ()
        attributes.add(path, [each for each in members if isinstance(each, str)])
    elif kind in _FILES:
        _take_file(path, kind, row, attributes, files)
    else:
        attributes.skip(kind, path)


def _take_file(
    path: str, kind: str, row: dict[str, Any], attributes: Attributes, files: Path | None
) -> None:
    """A file, a folder of files, or one file of a series (which is called by its step)."""
    stored = (row["file_value"] or {}).get("path")
    place = None
    if isinstance(stored, str) and files is not None:
        place = below(files, "/".join(PurePosixPath(stored).parts), attributes.flags)
    shown = artefact_path(path)
    if kind == "file_series":
        step = row["step"]
        name = PurePosixPath(stored).name if isinstance(stored, str) else str(step)
        shown = f"{shown}/{name}"
    if place is None:
        attributes.flags("artefacts", "missing" if files else "artefacts_unreachable", shown)
        attributes.put(ArtefactFile(path=shown, file=None))
    elif place.is_dir():
        for each in walk(place, f"{shown}/", attributes.flags):
            attributes.put(each)
    else:
        attributes.put(ArtefactFile(path=shown, file=place))


def artefact_path(path: str) -> str:
    """The path of an attribute as that of an artefact: relative, and without steps upwards."""
    parts = [
        part
        for part in path.encode("utf-8", "backslashreplace").decode().split("/")
        if part not in {"", ".", ".."}
    ]
    return "/".join(parts) or "file"


def _flag_gaps(run: ExportedRun, flags: Flags) -> None:
    numbers = [_place(part)[2] for part in run.parts]
    missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
    own = [_PART.fullmatch(part.name) for part in run.parts]
    if missing and all(each is not None and each["run"] for each in own):
        flags("run", "truncated", f"part {missing[0]} of the export is missing")


def _place(part: Path) -> tuple[str, str, int]:
    match = _PART.fullmatch(part.name)
    return (str(part.parent), (match and match["run"]) or "", int(match["number"]) if match else 0)


class PartReader:
    """Reads parts in another process, which is started when the first is asked for.

    What ends that process is an error of the source, as is what it refuses.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the other process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def rows(self, part: Path, columns: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Rows of ``part`` as dictionaries; times in milliseconds. Raises :class:`SourceError`."""
        try:
            size = part.stat().st_size
        except OSError as error:
            raise unreadable(part, error) from None
        if size > MAX_PART:
            raise too_large(part, f"{MAX_PART:,} bytes")
        answered = False
        try:
            self._ask(part, list(columns))
            while not answered:
                answer = self._answer(part)
                answered = "rows" not in answer
                if not answered:
                    yield from _rows(answer["rows"])
        finally:
            if not answered:
                self.close()  # what is still to come would be taken for the next answer
        if "error" in answer:
            raise damaged(part, answer["error"])

    def _ask(self, part: Path, columns: list[str]) -> None:
        if self._process is None:
            if find_spec("pyarrow") is None:
                raise SourceError(
                    f"{quoted(str(part), 200)} is a parquet file, which needs pyarrow",
                    remedy="Install it: pip install 'aisdp-bundler[parquet]'",
                )
            self._process = subprocess.Popen(
                [sys.executable, "-I", neptune_reader.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
        limits = {
            "rows": MAX_ROWS,
            "bytes when decompressed": MAX_DECODED,
            "members of sets": MAX_VALUES,
        }
        place = os.fspath(part.absolute())
        request = json.dumps({"part": place, "columns": columns, "limits": limits})
        stream = self._process.stdin
        with suppress(BrokenPipeError):  # told by the answer that does not come
            if stream is not None:
                stream.write(request + "\n")
                stream.flush()

    def _answer(self, part: Path) -> dict[str, Any]:
        """The next rows, the end, or an error."""
        process, late = self._process, threading.Event()
        if process is None or process.stdout is None:
            raise damaged(part, "the decoder was ended")

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(MAX_SECONDS, end)
        timer.start()
        try:
            line = process.stdout.readline(MAX_BATCH)
        finally:
            timer.cancel()
        if late.is_set():
            raise damaged(part, f"the decoder took more than {MAX_SECONDS:,.0f} seconds")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise damaged(part, "the decoder broke off or took too much memory") from None
        return answer


def _rows(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    columns = {name: _column(name, held) for name, held in batch.items()}
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _column(name: str, held: Any) -> list[Any]:
    if name in neptune_reader.TEXTS:
        texts = held["texts"]
        return [None if place is None else texts[place] for place in held["places"]]
    if name == "step":
        return [None if text is None else Decimal(text) for text in held]
    return list(held)


def damaged(part: Path, problem: str) -> SourceError:
    """A part that the exporter has not written like this."""
    return SourceError(
        f"{quoted(str(part), 200)} cannot be read as a part of a Neptune export: {quoted(problem, 300)}",
        remedy="Use an intact copy of the export.",
    )
