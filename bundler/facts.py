"""From what a tracker holds to what the record says: applies the provider's :class:`bundler.spec.FactMap`.

Nothing is guessed. A fact that is not where the map says stays unknown, and :mod:`bundler.requirements` asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from bundler import canonical
from bundler.canonical import Json
from bundler.errors import MalformedError
from bundler.history import summarise
from bundler.importers.model import ImportedRun
from bundler.manifest import ResourceDescriptor
from bundler.records import (
    Artefact,
    CodeVersion,
    DatasetVersion,
    FidelityFlag,
    MetricRole,
    RunRecord,
    Scalar,
)
from bundler.spec import FactMap

MAX_ENVIRONMENT_BYTES = 1 << 20
"""Largest environment artefact that is read into a record."""


def record_of(  # noqa: PLR0913  # one argument a source of facts
    run: ImportedRun,
    facts: FactMap,
    *,
    run_id: str,
    history: ResourceDescriptor | None,
    artefacts: tuple[Artefact, ...],
    environment: bytes | None,
) -> RunRecord:
    """Return the record of ``run``. ``environment`` are the bytes of the artefact that ``facts`` names, if found."""
    flags = list(run.fidelity)
    return RunRecord(
        id=run_id,
        name=run.name,
        source=run.source,
        status=run.status,
        deleted=run.deleted,
        started_at=timestamp(run.started),
        ended_at=timestamp(run.ended),
        code=_code(run, facts),
        data=_data(run, facts),
        parameters=dict(sorted(run.parameters.items())),
        seed=_seed(_lookup(run, facts.seed), flags),
        environment=_environment(environment, flags),
        metrics=summarise(run.points, roles(facts, {point.metric for point in run.points})),
        history=history,
        artefacts=artefacts,
        tags=dict(sorted(run.tags.items())),
        fidelity=tuple(flags),
    )


def roles(facts: FactMap, metrics: Iterable[str]) -> dict[str, MetricRole]:
    """Return the role of each metric: that of the first pattern that matches its name."""
    patterns = [(role, pattern) for role, group in facts.metrics.items() for pattern in group]
    return {
        metric: next((role for role, pattern in patterns if fnmatchcase(metric, pattern)), "other")
        for metric in metrics
    }


def timestamp(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds, or ``None`` for no time or one outside the years 1 to 9999."""
    if milliseconds is None:
        return None
    try:
        # Whole seconds and milliseconds apart: a float would round.
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def _lookup(run: ImportedRun, path: str | None) -> Scalar:
    group, _, name = (path or "").partition(".")
    if group == "parameters":
        return run.parameters.get(name)
    return run.tags.get(name) if group == "tags" else None


def _text(value: Scalar) -> str | None:
    return None if value is None or value == "" else str(value)


def _code(run: ImportedRun, facts: FactMap) -> CodeVersion:
    commit = _text(_lookup(run, facts.code_commit)) or run.code.commit
    dirty = (_text(_lookup(run, facts.code_dirty)) or "").lower()
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    return replace(run.code, commit=commit, dirty=known.get(dirty, run.code.dirty))


def _data(run: ImportedRun, facts: FactMap) -> tuple[DatasetVersion, ...]:
    """The run's data sets, each with the version and digest that the run recorded for its data as a whole."""
    version = _text(_lookup(run, facts.data_version))
    sha256 = _text(_lookup(run, facts.data_sha256))
    data = run.data
    if not data and (version or sha256):
        data = (DatasetVersion(name="data"),)
    return tuple(
        replace(each, version=each.version or version, sha256=each.sha256 or sha256)
        for each in data
    )


def _seed(value: Scalar, flags: list[FidelityFlag]) -> int | None:
    try:
        seed = int(str(value))
    except ValueError:
        return None
    if abs(seed) > canonical.MAX_INTEGER:
        flags.append(FidelityFlag(field="seed", flag="out_of_range", detail=str(value)[:80]))
        return None
    return seed


def _environment(data: bytes | None, flags: list[FidelityFlag]) -> Mapping[str, Scalar]:
    if data is None:
        return {}
    try:
        value = canonical.parse(data, name="environment artefact")
    except MalformedError as error:
        flags.append(FidelityFlag(field="environment", flag="unreadable", detail=error.message))
        return {}
    return dict(sorted(_flatten(value, "").items()))


def _flatten(value: Json, prefix: str) -> dict[str, Scalar]:
    """Nested objects and lists as one level, names joined with dots."""
    if isinstance(value, dict):
        items: Iterable[tuple[str, Json]] = value.items()
    elif isinstance(value, list):
        items = ((str(position), item) for position, item in enumerate(value))
    else:
        return {prefix or "value": value}
    flat: dict[str, Scalar] = {}
    for name, item in items:
        flat.update(_flatten(item, f"{prefix}.{name}" if prefix else name))
    return flat
