"""What came out of one run of a DVC repository: metrics, parameters and files, and whether they fit together."""

from __future__ import annotations

import io
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from bundler.data_hashes import digest_stream, folder_md5
from bundler.datasets import DataDigest, Pointer
from bundler.importers.dvc import metrics as dvc_metrics
from bundler.importers.dvc.metrics import Value
from bundler.importers.dvc.origins import Before, LiveFolders, Tracked, live_folders, tracked
from bundler.importers.dvc.pipeline import DEFAULT_PARAMETERS, Pipeline
from bundler.importers.dvc.trees import Tree
from bundler.importers.dvc.values import MAX_FILE, parsed, scalar
from bundler.importers.files import unreadable
from bundler.importers.model import ArtefactFile, MetricPoint
from bundler.importers.values import Flag, clean, readable_name
from bundler.records import Scalar

MAX_BLOB = 256 << 20
"""Most bytes of a file in git that is read whole."""

_SERIES = re.compile(r"(?:(.*)/)?plots/metrics/(.+)")
_REPORTS = {"report.html", "report.md", "report.ipynb", "dvc.yaml", "params.yaml", "metrics.json"}


@dataclass
class Results:
    """Files of one run, from its ``tree`` and, by ``find``, from DVC's cache.

    ``consistent`` becomes false where ``dvc.lock`` does not fit what the commit holds: something was changed after the
    pipeline ran, or the pipeline did not run to its end. ``added``: ``*.dvc`` files that came with any run's results.
    """

    tree: Tree
    pipeline: Pipeline
    find: Callable[[Pointer], DataDigest]
    before: Before
    added: Callable[[], set[str]]
    flag: Flag
    consistent: bool = True
    outs: dict[str, DataDigest] = field(default_factory=dict)
    cached: dict[str, Path] = field(default_factory=dict)

    def gather(self) -> None:
        """Look for the outputs of the stages: those in git are held against the lock, the others found in the cache."""
        for pointer in self.pipeline.of_stages("out"):
            if self.in_git(pointer.path):
                self._compare(pointer, "run")
                continue
            found = self.outs[pointer.path] = self.find(pointer)
            for path, file in found.files if found.state in {"verified", "legacy"} else ():
                self.cached[f"{pointer.path}/{path}" if path else pointer.path] = file
        if self.pipeline.unlocked or not self.pipeline.is_locked:
            self.consistent = False

    @property
    def saved(self) -> bool:
        """Whether this is a working tree that was saved as an experiment, not the outcome of ``dvc exp run``.

        Saving (``dvc exp save``, DVCLive) makes ``dvc.lock`` fit whatever lies there, and forgets to remove its
        arguments from what it commits. They are a pickle, which nobody should open.
        """
        return ".dvc/tmp/repro.dat" in self.tree.files

    def code_differs(self) -> bool | None:
        """Whether a dependency that git tracks has other bytes than at the run; ``None``: no stage names one."""
        known = [
            self._compare(pointer, "code")
            for pointer in self.pipeline.of_stages("dep")
            if self.in_git(pointer.path)
        ]
        return any(known) if known else None

    def in_git(self, path: str) -> bool:
        """Whether git tracks a file, or something in a folder, of this path."""
        return path in self.tree.files or path in self._folders

    @cached_property
    def _folders(self) -> set[str]:
        """All folders that git has files in."""
        found: set[str] = set()
        for path in self.tree.files:
            while "/" in path and (path := path.rpartition("/")[0]) not in found:
                found.add(path)
        return found

    def _below(self, folder: str) -> Iterator[str]:
        return (path for path in self.tree.files if path.startswith(f"{folder}/"))

    def _compare(self, pointer: Pointer, group: str) -> bool:
        """Whether what git has is another thing than ``dvc.lock`` says; it is flagged then."""
        if pointer.md5 is None:
            return False
        try:
            found = self._md5s(pointer)
        except (ValueError, KeyError):
            found = set()
        if pointer.md5 in found:
            return False
        self.consistent = False
        self.flag(group, "stale", f"{clean(pointer.path)} changed after dvc.lock was written")
        return True

    def _md5s(self, pointer: Pointer) -> set[str]:
        """The digests that DVC gives to what git has at the path of ``pointer``."""
        if not pointer.is_folder:
            return set(self._digests(pointer.path, legacy=pointer.legacy))
        length = len(pointer.path) + 1
        files = {
            path[length:]: self._digests(path, legacy=pointer.legacy)
            for path in self._below(pointer.path)
        }
        forms = range(2 if pointer.legacy else 1)
        return {folder_md5({path: each[form] for path, each in files.items()}) for form in forms}

    def _digests(self, path: str, *, legacy: bool) -> tuple[str, ...]:
        return digest_stream(io.BytesIO(self.tree.read(path, MAX_BLOB)), legacy=legacy).md5s

    # --- metrics ------------------------------------------------------------------------------------------------------

    def points(self) -> tuple[MetricPoint, ...]:
        """All metric points. Two sources of one name are told apart by their paths."""
        series, last = self._series, self._last()
        sources = Counter(name for name, _ in {*((n, s) for s, n, _ in series), *_pairs(last)})

        def named(source: str, name: str) -> str:
            return f"{source}:{name}" if sources[name] > 1 else name

        logged = (
            point
            for source, name, path in series
            for point in self._points(path, named(source, name))
        )
        values = [Value(named(s, v.name), v.value, v.step) for s, v in last]
        return dvc_metrics.joined(logged, values, self.flag)

    def start(self) -> int | None:
        """When the first value was logged, where that is known."""
        points = (point for _, name, path in self._series for point in self._points(path, name))
        return dvc_metrics.span(points)[0]

    @cached_property
    def live(self) -> LiveFolders:
        """The folders of DVCLive."""
        folders = {source for source, _, _ in self._all_series}
        for path in self.pipeline.metrics & {*self.tree.files, *self.cached}:
            if posixpath.basename(path) == dvc_metrics.SUMMARY:
                folders.add(posixpath.dirname(path) or ".")
        return live_folders(folders, self.before, self.pipeline, self.flag)

    @cached_property
    def tracked(self) -> Tracked:
        """What the ``*.dvc`` files are to the run."""
        return tracked(self.pipeline, self.before, self.live, self.added, self.flag)

    def _of_run(self, paths: Iterable[str]) -> list[str]:
        """``paths`` without those in a folder of DVCLive that an earlier run wrote, sorted."""
        return sorted(path for path in paths if not self.live.is_left(path))

    @cached_property
    def _series(self) -> list[tuple[str, str, str]]:
        """Folder of DVCLive, metric and path of each series of the run."""
        return [each for each in self._all_series if each[0] in self.live.own]

    @cached_property
    def _all_series(self) -> list[tuple[str, str, str]]:
        found = []
        for path in sorted({*self.tree.files, *self.cached}):
            parts = _SERIES.fullmatch(path)
            name = dvc_metrics.series_name(parts[2]) if parts else None
            if parts and name:
                found.append((parts[1] or ".", name, path))
        return found

    def _points(self, path: str, metric: str) -> Iterator[MetricPoint]:
        try:
            with self.opened(path) as stream:
                lines = dvc_metrics.lines_of(stream)
                yield from dvc_metrics.series(metric, lines, self.flag, path)
        except ValueError as error:
            self._unreadable("metrics", path, error)

    def _last(self) -> list[tuple[str, Value]]:
        """Source and last value of each metric of a file that the pipeline names, or DVCLive wrote."""
        live = {source for source, _, _ in self._series}
        summaries = {_joined(source, dvc_metrics.SUMMARY): source for source in live}
        found = []
        for declared in self._of_run({*self.pipeline.metrics, *summaries}):
            paths = self._files(declared)
            if not paths:
                self.flag("metrics", "missing", clean(declared) or "")
            for path in paths:
                source = summaries.get(path)
                values = dvc_metrics.last_values(
                    self._value("metrics", path), "." if source is None else "/", self.flag
                )
                try:
                    found += [(source or path, value) for value in values]
                except ValueError as error:
                    self._unreadable("metrics", path, error)
        return found

    # --- parameters ---------------------------------------------------------------------------------------------------

    def parameters(self, *, ran: bool) -> dict[str, Scalar]:
        """All parameters. If it ``ran``, values that ``dvc.lock`` says a stage ran with stand before the file's."""
        files: dict[str, dict[str, Scalar]] = {}
        live = {_joined(source, DEFAULT_PARAMETERS) for source, _, _ in self._series}
        for path in self._of_run({DEFAULT_PARAMETERS, *live, *self.pipeline.parameters}):
            values = self._parameters_in(path)
            if ran:
                self._as_locked(path, values)
            if values:
                files[path] = values
        return self._told_apart(files)

    def _parameters_in(self, path: str) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        for each in self._files(path):
            value = self._value("parameters", each)
            try:
                found = dvc_metrics.parameters(value, self.flag) if value else {}
            except ValueError as error:
                self._unreadable("parameters", each, error)
                continue
            values |= {name: scalar(item) for name, item in found.items()}
        return values

    def _as_locked(self, path: str, values: dict[str, Scalar]) -> None:
        for name, item in self.pipeline.locked.get(path, {}).items():
            locked = scalar(item)
            if name in values and repr(values[name]) != repr(locked):
                self.consistent = False
                detail = f"{path} has {values[name]!r}, the run had {locked!r}"
                self.flag(f"parameters.{name}", "stale", (clean(detail) or "")[:200])
            values[name] = locked

    def _told_apart(self, files: Mapping[str, Mapping[str, Scalar]]) -> dict[str, Scalar]:
        """Parameters of all files; where two say different things by one name, each has its file before it."""
        said: dict[str, set[str]] = {}
        for values in files.values():
            for name, value in values.items():
                said.setdefault(name, set()).add(repr(value))
        found: dict[str, Scalar] = {}
        for path, values in files.items():
            for name, value in values.items():
                found[name if len(said[name]) == 1 else f"{clean(path)}:{name}"] = value
        return found

    # --- files --------------------------------------------------------------------------------------------------------

    def artefacts(self, extract: Callable[[str], Path]) -> Iterator[ArtefactFile]:
        """Outputs that are no metrics. ``extract`` gives the place of a file that is in git only."""
        told = {path for declared in self.pipeline.metrics for path in self._files(declared)}
        told |= {path for _, _, path in self._series}
        told |= {
            _joined(source, name) for source, _, _ in self._series for name in sorted(_REPORTS)
        }
        models = self._of_run({*self.pipeline.models.values()})
        for pointer in self.tracked.outputs:
            if pointer.path not in self.outs:
                self.outs[pointer.path] = self.find(pointer)
        for path, found in sorted(self.outs.items()):
            yield from self._outs(path, found, told)
        own = [each.path for each in self.pipeline.of_stages("out") if each.path not in self.outs]
        for declared in sorted({*own, *models} - {*self.outs}):
            for path in self._files(declared):
                if path not in told:
                    name = readable_name(path, self.flag, "artefacts")
                    yield ArtefactFile(path=name, file=extract(path))

    def _outs(self, path: str, found: DataDigest, told: set[str]) -> Iterator[ArtefactFile]:
        name = readable_name(path, self.flag, "artefacts")
        if found.state in {"absent", "mismatch"}:
            flag = "missing" if found.state == "absent" else "digest_mismatch"
            self.flag("artefacts", flag, f"{name}: {found.detail}" if found.detail else name)
            yield ArtefactFile(path=name, file=None)
            return
        if found.state == "legacy":
            self.flag("artefacts", "legacy_md5", name)
        for inside, file in found.files:
            full = f"{path}/{inside}" if inside else path
            if full not in told:
                yield ArtefactFile(path=readable_name(full, self.flag, "artefacts"), file=file)

    def _files(self, declared: str) -> list[str]:
        """The file of this path, or those of the folder."""
        if declared in self.tree.files or declared in self.cached:
            return [declared]
        known = {*self._below(declared)} if declared in self._folders else set()
        return sorted(known | {each for each in self.cached if each.startswith(f"{declared}/")})

    @contextmanager
    def opened(self, path: str) -> Iterator[BinaryIO]:
        """A file of the commit or of the cache. Raises :class:`ValueError` for one that is too large to be read."""
        if path in self.tree.files:
            yield io.BytesIO(self.tree.read(path, MAX_BLOB))
            return
        try:
            with self.cached[path].open("rb") as stream:
                yield stream
        except OSError as error:
            raise unreadable(self.cached[path], error) from None

    def _value(self, group: str, path: str) -> Any:
        """What a file says; nothing, and a flag, if it cannot be read."""
        try:
            with self.opened(path) as stream:
                data = stream.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                raise ValueError(f"more than {MAX_FILE:,} bytes")  # noqa: TRY301  # as a broken file
            return parsed(data, path)
        except ValueError as error:
            self._unreadable(group, path, error)
            return {}

    def _unreadable(self, group: str, path: str, error: ValueError) -> None:
        self.flag(group, "unreadable", clean(f"{path}: {error}") or "")


def _pairs(last: list[tuple[str, Value]]) -> Iterator[tuple[str, str]]:
    return ((value.name, source) for source, value in last)


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"
