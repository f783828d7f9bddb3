"""What Neptune's attributes mean: ``parameters/lr``, ``sys/name`` and ``source_code/diff`` become facts of a run.

Both sources of Neptune's data (exports and offline folders) give the same attributes. Steps are decimals in Neptune. A
metric whose steps are not all whole gets them multiplied by the least power of ten that makes them whole, and a flag.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from bundler.canonical import MAX_INTEGER
from bundler.errors import SourceError
from bundler.importers.model import ArtefactFile, ImportedRun, MetricPoint
from bundler.importers.values import Flags, clean, flag_counts, flag_steps, logged_order
from bundler.records import CodeVersion, DatasetVersion, Scalar, Source, Status

MAX_POINTS = 5_000_000
"""Most points of one run: about 1 GB of memory."""

MAX_VALUES = 1_000_000
"""Most attributes of one run that are no series, and most members of its sets."""

MAX_TEXT = 64 << 20
"""Most characters of all texts of one run."""

_NOISE = ("monitoring/", "runtime/")
"""Namespaces with what Neptune itself measures: processors, memory, output."""

_PARAMETERS = "parameters/"
_SETTINGS = ("args", "config", "hparams", "hyperparameters", "params", "parameters")
_RUNNING = {"running", "active"}

_Step = Decimal | None
_Sample = tuple[_Step, int, float]


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and time, in milliseconds since 1970-01-01 UTC."""

    milliseconds: int


@dataclass(slots=True)
class Attributes:
    """The attributes of one run, by path."""

    values: dict[str, Scalar | Moment] = field(default_factory=dict)
    sets: dict[str, set[str]] = field(default_factory=dict)
    series: dict[str, list[_Sample]] = field(default_factory=dict)
    files: dict[str, ArtefactFile] = field(default_factory=dict)
    data: list[DatasetVersion] = field(default_factory=list)
    environment: dict[str, Scalar] = field(default_factory=dict)
    flags: Flags = field(default_factory=Flags)
    started: int | None = None
    ended: int | None = None
    _skipped: dict[str, Counter[str]] = field(default_factory=dict)
    _samples: int = 0
    _characters: int = 0

    def assign(self, path: str, value: Scalar | Moment) -> None:
        """Take a single value. A later one takes the place of an earlier one, as in Neptune."""
        own = path.startswith(("sys/", *_NOISE))  # Neptune itself assigns those several times
        if not own and path in self.values and repr(self.values[path]) != repr(value):
            self.flags(f"parameters.{short_name(path)}", "overwritten", "assigned more than once")
        self._count_text(path, value)
        self.values[path] = value
        self._bound(len(self.values), MAX_VALUES, "attributes")

    def add(self, path: str, members: Iterable[str]) -> None:
        """Take members of a set of texts."""
        held = self.sets.setdefault(path, set())
        for member in members:
            self._count_text(path, member)
            held.add(member)
        self._bound(len(held) + len(self.sets), MAX_VALUES, "members of sets")

    def append(self, path: str, step: Decimal | None, time: int, value: float) -> None:
        """Take a point of a series."""
        if path.startswith(_NOISE):
            self.skip("monitoring", path)
            return
        self._samples += 1
        self._bound(self._samples, MAX_POINTS, "metric points")
        self.series.setdefault(path, []).append((step, time, value))

    def skip(self, kind: str, path: str) -> None:
        """Count a value that is no metric, parameter or file."""
        tags = self._skipped.setdefault(kind, Counter())
        tags[path] += 1
        self._bound(len(tags), MAX_VALUES, "series")

    def put(self, file: ArtefactFile) -> None:
        """Take a file; a later one of the same path takes its place."""
        self.files[file.path] = file
        self._bound(len(self.files), MAX_VALUES, "files")

    def run(self, source: Source) -> ImportedRun:
        """The run that the attributes describe."""
        flags = self.flags
        points = tuple(sorted(self._points(), key=logged_order))
        flag_steps(points, flags)
        for kind, paths in sorted(self._skipped.items()):
            flags("metrics", "skipped", f"{kind}: {paths.total()} values of {len(paths)} series")
        if self.series:
            flags("metrics", "not_finite_dropped", "Neptune's clients drop NaN and infinities")
        created = self.values.get("sys/creation_time")
        pinged = self.values.get("sys/ping_time")
        code = self._code()
        return ImportedRun(
            source=source,
            name=self._text("sys/name") or self._text("sys/experiment/name"),
            status=self._status(),
            deleted=self.values.get("sys/trashed") is True,
            started=created.milliseconds if isinstance(created, Moment) else self.started,
            ended=pinged.milliseconds if isinstance(pinged, Moment) else self.ended,
            code=code,
            data=tuple(sorted(self.data, key=lambda each: each.name)),
            parameters=self._parameters(),
            tags=self._tags(),
            points=points,
            artefacts=tuple(self.files[path] for path in sorted(self.files)),
            fidelity=flags.all(),
            environment=self._environment(),
        )

    def _points(self) -> Iterator[MetricPoint]:
        for path, samples in self.series.items():
            name = clean(path) or ""
            for (_, time, value), step in zip(
                samples, whole_steps(name, [each[0] for each in samples], self.flags), strict=True
            ):
                yield MetricPoint(name, step, time, value)
        single: dict[str, int] = {}
        for path, held in self.values.items():
            # `run["accuracy"] = 0.9` and `run["lr"] = 0.1` look the same: both readings are kept.
            if isinstance(held, float) and not path.startswith(("sys/", "source_code/", *_NOISE)):
                name = clean(path) or ""
                if path.partition("/")[0] not in _SETTINGS and path not in self.series:
                    single[name] = 1
                    yield MetricPoint(name, 0, 0, held)
        flag_counts("single_value", single, self.flags)

    def _parameters(self) -> dict[str, Scalar]:
        found: dict[str, Scalar] = {}
        held: dict[str, Scalar | Moment] = {**self.values}
        held |= {path: _json_list(members) for path, members in self.sets.items()}
        # Those in the namespace meant for them first: of two with one name, the other keeps its path.
        for path in sorted(held, key=lambda each: (not each.startswith(_PARAMETERS), each)):
            if path.startswith(("sys/", "source_code/", *_NOISE)):
                continue
            name = short_name(path)
            if name in found:
                name = f"/{clean(path)}"
                self.flags(f"parameters.{name}", "renamed", "parameters/ has one of its name")
            value = held[path]
            if isinstance(value, Moment):
                self.flags(f"parameters.{name}", "type_lost", "a date and time")
                value = _iso(value)
            found[name] = clean(value) if isinstance(value, str) else value
        return found

    def _tags(self) -> dict[str, str]:
        """What Neptune itself notes of a run, and what there is about its source code."""
        told = {"sys/name", "sys/hostname", "sys/owner", "source_code/entrypoint"}
        tags: dict[str, str] = {}
        for path, value in self.values.items():
            if path.startswith(("sys/", "source_code/")) and path not in told:
                name = path.replace("/", ".")
                if path.endswith("/author_email"):
                    name = "email"  # a name that redaction knows
                elif path.endswith("/author_name"):
                    name = "user"
                tags[clean(name) or ""] = (
                    clean(_iso(value) if isinstance(value, Moment) else value) or ""
                )
        for path, members in self.sets.items():
            if path.startswith("sys/"):
                tags[clean(path.replace("/", ".")) or ""] = _json_list(members)
        return tags

    def _environment(self) -> dict[str, Scalar]:
        found = dict(self.environment)
        for path, name in (("sys/hostname", "host"), ("sys/owner", "user")):
            if (text := self._text(path)) is not None:
                found[name] = text
        return found

    def _code(self) -> CodeVersion:
        dirty = self.values.get("source_code/dirty")
        patch = None
        for path in ("source_code/diff.patch", "source_code/diff", "source_code/diff/head"):
            file = self.files.get(path)
            if file is not None and file.file is not None and _is_filled(file.file):
                patch = file.path
        return CodeVersion(
            repository=self._text("source_code/remote/origin"),
            commit=self._text("source_code/commit/commit_id"),
            branch=self._text("source_code/branch"),
            dirty=True if patch else (dirty if isinstance(dirty, bool) else None),
            entry_point=self._text("source_code/entrypoint"),
            patch=patch,
        )

    def _status(self) -> Status:
        """``sys/failed`` is set by an exception only: a run that was killed looks like one that ended well."""
        if self.values.get("sys/failed") is True:
            return "failed"
        if str(self.values.get("sys/state", "")).lower() in _RUNNING:
            return "running"
        if self.values.get("sys/failed") is False:
            self.flags("status", "killed_looks_finished", "Neptune only notes exceptions")
            return "finished"
        return "unknown"

    def _text(self, path: str) -> str | None:
        value = self.values.get(path)
        return clean(value) if isinstance(value, str) and value else None

    def _count_text(self, path: str, value: object) -> None:
        self._characters += len(path) + (len(value) if isinstance(value, str) else 0)
        self._bound(self._characters, MAX_TEXT, "characters of text")

    @staticmethod
    def _bound(count: int, limit: int, what: str) -> None:
        if count > limit:
            raise SourceError(
                f"a run of Neptune has more than {limit:,} {what}",
                remedy="Neptune itself takes no such run; look at what has written it.",
            )


def whole_steps(metric: str, steps: list[Decimal | None], flags: Flags) -> list[int]:
    """``steps`` as integers, in order. A missing one is that after the one before it, as Neptune's server had it."""
    missing = 0
    filled: list[Decimal] = []
    for step in steps:
        if step is None:
            missing += 1
            step = filled[-1] + 1 if filled else Decimal(0)  # noqa: PLW2901  # what it stands for
        filled.append(step)
    if missing:
        flag_counts("no_step", {metric: missing}, flags)
    exponents = [each.normalize().as_tuple().exponent for each in set(filled)]
    decimals = max((-each for each in exponents if isinstance(each, int)), default=0)
    if decimals > 0:
        flags(f"metrics.{metric}", "step_not_whole", f"steps are multiplied by {10**decimals:,}")
    scaled = [int(each.scaleb(max(decimals, 0))) for each in filled]
    if any(abs(each) > MAX_INTEGER for each in scaled):
        flags(f"metrics.{metric}", "step_replaced", "steps beyond 2^53 became their order")
        places = {each: place for place, each in enumerate(sorted(set(scaled)))}
        return [places[each] for each in scaled]
    return scaled


def short_name(path: str) -> str:
    """The name of a parameter: its path with dots, without the namespace that is meant for parameters."""
    return (clean(path.removeprefix(_PARAMETERS)) or "").replace("/", ".")


def _json_list(members: Iterable[str]) -> str:
    return clean(json.dumps(sorted(members), separators=(",", ":"), ensure_ascii=False)) or ""


def _iso(moment: Moment) -> str:
    try:
        return datetime.fromtimestamp(moment.milliseconds / 1000, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(moment.milliseconds)


def _is_filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False
