"""From what a tracker holds to what the record says: applies the provider's :class:`bundler.spec.FactMap`.

Nothing is guessed. A fact that is not where the map says stays unknown, and :mod:`bundler.requirements` asks for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from bundler import canonical
from bundler.canonical import Json
from bundler.errors import MalformedError, SourceError
from bundler.history import summarise
from bundler.importers import histories
from bundler.importers.model import ImportedRun
from bundler.importers.values import logged_order
from bundler.manifest import ResourceDescriptor, is_sha256
from bundler.records import (
    Artefact,
    CodeVersion,
    DatasetVersion,
    FidelityFlag,
    MetricRole,
    RunRecord,
    Scalar,
    Status,
    number,
    without_credentials,
)
from bundler.spec import FactMap

CAPTURE_FORMAT = "urn:aisdp-bundler:environment:1"
"""What `bundler capture` writes (docs/capture.md)."""

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
    recorded = dict(
        sorted({**_environment(run, flags), **read_environment(environment, flags)}.items())
    )
    return RunRecord(
        id=run_id,
        name=run.name,
        source=run.source,
        status=_status(run, facts, flags),
        deleted=run.deleted,
        started_at=timestamp(run.started),
        ended_at=timestamp(run.ended),
        code=_code(run, facts, recorded),
        data=_data(run, facts, flags),
        parameters={
            name: _writable(value, f"parameters.{name}", flags)
            for name, value in sorted(run.parameters.items())
        },
        seed=_seed(_lookup(run, facts.seed), flags),
        environment=recorded,
        metrics=summarise(run.points, roles(facts, {point.metric for point in run.points})),
        history=history,
        artefacts=artefacts,
        tags=dict(sorted(run.tags.items())),
        fidelity=tuple(flags),
    )


def renamed(run: ImportedRun, names: Mapping[str, str]) -> ImportedRun:
    """``run`` with other names for its parameters, tags and metrics: ``parameters.random_state`` → ``parameters.seed``.

    Sources that are put together need one name for one thing. Each change is flagged. Raises :class:`SourceError` if
    the run has something of the new name already.
    """
    groups: dict[str, dict[str, str]] = {"parameters": {}, "tags": {}, "metrics": {}}
    for old, new in names.items():
        group, _, name = old.partition(".")
        groups[group][name] = new.partition(".")[2]
    present = {
        "parameters": run.parameters.keys(),
        "tags": run.tags.keys(),
        "metrics": {point.metric for point in run.points},
    }
    flags = list(run.fidelity)
    for group, changes in groups.items():
        for old, new in sorted(changes.items()):
            if old in present[group]:
                if new in present[group] and new not in changes:
                    raise SourceError(
                        f"run {run.source.run_id}: rename {group}.{old}: there is a {group}.{new} already",
                        remedy="Choose another name in sources.rename.",
                    )
                flags.append(
                    FidelityFlag(field=f"{group}.{new}", flag="renamed", detail=f"was {old}")
                )
    metrics = groups["metrics"]
    points = [
        point._replace(metric=metrics.get(point.metric, point.metric)) for point in run.points
    ]
    return replace(
        run,
        parameters={groups["parameters"].get(k, k): v for k, v in run.parameters.items()},
        tags={groups["tags"].get(k, k): v for k, v in run.tags.items()},
        # A stable sort: the order of logging stays.
        points=tuple(sorted(points, key=logged_order)) if metrics else run.points,
        fidelity=tuple(flags),
    )


def with_histories(run: ImportedRun, patterns: Iterable[str]) -> ImportedRun:
    """``run`` with the metric histories in those of its artefacts whose path matches one of ``patterns``.

    A metric that the tracker has itself is left as the tracker has it, and the other history is flagged.
    """
    wanted = tuple(patterns)
    files = [
        (artefact.path, artefact.file)
        for artefact in run.artefacts
        if any(fnmatchcase(artefact.path, pattern) for pattern in wanted)
    ]
    flags = list(run.fidelity)
    points = list(run.points)
    for path, file in files:
        if file is None or not file.is_file():
            continue
        known = {point.metric for point in points}
        history = histories.read_history(file)
        flags += history.flags
        taken = [point for point in history.points if point.metric not in known]
        flags += [
            FidelityFlag(field=f"metrics.{name}", flag="history_not_taken", detail=path)
            for name in sorted({point.metric for point in history.points} & known)
        ]
        flags += [
            FidelityFlag(field=f"metrics.{name}", flag="read_from_artefact", detail=path)
            for name in sorted({point.metric for point in taken})
        ]
        points += taken
    if not files:
        return run
    points.sort(key=logged_order)
    return replace(run, points=tuple(points), fidelity=tuple(flags))


_TREE = r"[0-9a-f]{40}|[0-9a-f]{64}"

_PRECEDENCE: tuple[MetricRole, ...] = ("hold-out", "validation", "training", "other")


def roles(facts: FactMap, metrics: Iterable[str]) -> dict[str, MetricRole]:
    """Return the role of each metric: the first of hold-out, validation, training with a pattern that matches its name.

    A fixed order: that of ``facts.metrics`` is lost in canonical JSON, and a metric that may be one of the hold-out
    is one.
    """
    patterns = [(role, pattern) for role in _PRECEDENCE for pattern in facts.metrics.get(role, ())]
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
    # Not strftime: it does not pad years before 1000.
    return f"{moment.replace(tzinfo=None).isoformat()}.{milliseconds % 1000:03d}Z"


def _lookup(run: ImportedRun, path: str | None) -> Scalar:
    group, _, name = (path or "").partition(".")
    if group == "parameters":
        return run.parameters.get(name)
    return run.tags.get(name) if group == "tags" else None


def _text(value: Scalar) -> str | None:
    return None if value is None or value == "" else str(value)


def _code(run: ImportedRun, facts: FactMap, environment: Mapping[str, Scalar]) -> CodeVersion:
    """The code version: as ``facts`` says, else as the tracker has it, else as `bundler capture` saw it."""
    seen = _captured(environment)
    code = run.code
    dirty = (_text(_lookup(run, facts.code_dirty)) or "").lower()
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    commit = _text(_lookup(run, facts.code_commit)) or code.commit or seen.commit
    if commit != seen.commit:
        # A capture of another commit says nothing about this one.
        seen = CodeVersion()
    recorded = code.dirty if code.dirty is not None else seen.dirty
    repository = code.repository or seen.repository
    tree = code.tree or seen.tree
    return replace(
        code,
        repository=None if repository is None else without_credentials(repository),
        commit=commit,
        branch=code.branch or seen.branch,
        tree=tree if re.fullmatch(_TREE, tree or "") else None,
        dirty=known.get(dirty, recorded),
    )


def _captured(environment: Mapping[str, Scalar]) -> CodeVersion:
    """The code version in what `bundler capture` wrote; other environments have no such words."""
    if environment.get("format") != CAPTURE_FORMAT:
        return CodeVersion()
    dirty = environment.get("code.dirty")
    if environment.get("code.untracked") not in {None, 0}:
        # A file that git does not know may have been imported.
        dirty = dirty or None
    return CodeVersion(
        repository=_text(environment.get("code.remote")),
        commit=_text(environment.get("code.commit")),
        branch=_text(environment.get("code.branch")),
        dirty=dirty if isinstance(dirty, bool) else None,
        tree=_text(environment.get("code.tree")),
    )


def _data(
    run: ImportedRun, facts: FactMap, flags: list[FidelityFlag]
) -> tuple[DatasetVersion, ...]:
    """The run's data sets, each with the version and digest that the run recorded for its data as a whole."""
    version = _text(_lookup(run, facts.data_version))
    sha256 = _text(_lookup(run, facts.data_sha256))
    if sha256 is not None:
        lowered = sha256.strip().lower().removeprefix("sha256:")
        if not is_sha256(lowered):
            flags.append(FidelityFlag(field="data", flag="not_a_sha256", detail=sha256[:80]))
        sha256 = lowered if is_sha256(lowered) else None
    data = _with_rows(run, facts, flags)
    if not data and (version or sha256):
        data = (DatasetVersion(name="data"),)
    return tuple(
        replace(each, version=each.version or version, sha256=each.sha256 or sha256)
        for each in data
    )


def _with_rows(
    run: ImportedRun, facts: FactMap, flags: list[FidelityFlag]
) -> tuple[DatasetVersion, ...]:
    """The run's data sets, with the numbers of rows that it logged elsewhere; a role that none has gets one."""
    data = list(run.data)
    for role, path in sorted(facts.data_rows.items()):
        value = _lookup(run, path)
        if value is None:
            continue
        text = str(value).strip()
        if not re.fullmatch(r"[0-9]{1,15}", text):
            flags.append(
                FidelityFlag(
                    field="data", flag="not_a_number_of_rows", detail=f"{role}: {text[:60]}"
                )
            )
            continue
        having = [index for index, each in enumerate(data) if each.role == role]
        for index in having:
            if data[index].rows is None:
                data[index] = replace(data[index], rows=int(text))
        if not having:
            data.append(DatasetVersion(name=role, role=role, rows=int(text)))
    return tuple(data)


def seed_of(value: Scalar) -> int | None:
    """The seed that a tracker's ``value`` spells, or ``None``."""
    return _seed(value, [])


def _seed(value: Scalar, flags: list[FidelityFlag]) -> int | None:
    if value is None:
        return None
    text = str(value).strip()
    # Length before int(), which refuses more than 4,300 digits with an error of its own.
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        flag = "not_a_whole_number"
    elif len(text) > 17 or abs(int(text)) > canonical.MAX_INTEGER:
        flag = "out_of_range"
    else:
        return int(text)
    flags.append(FidelityFlag(field="seed", flag=flag, detail=text[:80]))
    return None


def _writable(value: Scalar, field: str, flags: list[FidelityFlag]) -> Scalar:
    """``value``, as text where JSON has no number for it."""
    if isinstance(value, float) and not math.isfinite(value):
        text = str(number(value))
    elif isinstance(value, int) and abs(value) > canonical.MAX_INTEGER:
        text = str(value)
    else:
        return value
    flags.append(
        FidelityFlag(field=field, flag="type_lost", detail="a number that JSON cannot carry")
    )
    return text


def _status(run: ImportedRun, facts: FactMap, flags: list[FidelityFlag]) -> Status:
    """The status; where the tracker records none, a run has finished that has the metric which is logged at the end."""
    last = facts.finished_with
    logged = sum(each.metric == last for each in run.points)
    if run.status != "unknown" or last is None or logged == 0:
        return run.status
    if logged > 1:
        flags.append(
            FidelityFlag(field="status", flag="not_inferred", detail=f"{logged} values of {last}")
        )
        return run.status
    flags.append(FidelityFlag(field="status", flag="inferred", detail=f"it has {last}"))
    return "finished"


def _environment(run: ImportedRun, flags: list[FidelityFlag]) -> dict[str, Scalar]:
    """What the tracker itself recorded of hardware and software."""
    return {
        name: _writable(value, f"environment.{name}", flags)
        for name, value in run.environment.items()
    }


def read_environment(data: bytes | None, flags: list[FidelityFlag]) -> Mapping[str, Scalar]:
    """The environment artefact as one level of names, or a flag for what is no strict JSON."""
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
