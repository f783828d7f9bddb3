"""The run record: what one training run was made from, did and gave, whatever tracker recorded it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal, NamedTuple

from bundler.manifest import ResourceDescriptor, path_problem

Scalar = str | bool | int | float | None
"""A parameter value as the tracker kept it. MLflow keeps text only."""

Number = float | Literal["NaN", "Infinity", "-Infinity"]
"""A metric value. JSON has no words for the non-finite ones, so they are spelled as text."""

Status = Literal["finished", "failed", "killed", "running", "scheduled", "unknown"]
MetricRole = Literal["training", "validation", "hold-out", "other"]

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What a run id may look like inside a bundle: it becomes a folder name and an anchor of the site."""


MAX_DEPTH = 16
"""Folders above a file of a bag, the bag itself included; a verifier walks no deeper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a record was read: tracker, kind of store, and the tracker's own names for things."""

    tracker: str
    store: str
    experiment_id: str
    experiment: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeVersion:
    """The code that ran. ``dirty`` is ``None`` where the tracker does not say: unknown is not clean.

    ``tree`` is the git tree id of the whole commit, ``patch`` the path of the artefact that holds the uncommitted
    changes, where the tracker kept them.
    """

    repository: str | None = None
    commit: str | None = None
    branch: str | None = None
    dirty: bool | None = None
    entry_point: str | None = None
    tree: str | None = None
    patch: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetVersion:
    """A data set that a run read. ``tracker_digest`` is the tracker's own label, never an identity.

    ``role`` is the tracker's context word (training, validation, holdout …), ``rows`` its number of rows.
    """

    name: str
    role: str | None = None
    source: str | None = None
    version: str | None = None
    sha256: str | None = None
    tracker_digest: str | None = None
    rows: int | None = None


class MetricPoint(NamedTuple):
    """One logged value. ``timestamp`` is in milliseconds since 1970-01-01 UTC."""

    metric: str
    step: int
    timestamp: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """One metric of one run: its last value, and the extremes of its finite points (``None``: no finite one)."""

    name: str
    role: MetricRole
    points: int
    last: Number
    last_step: int
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """A file that a run left. ``sha256`` is ours, over the bytes; ``None`` means the bytes were not found.

    The bytes may be in the bag, at :func:`artefact_location`, or be supplied beside it.
    """

    path: str
    sha256: str | None
    size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FidelityFlag:
    """What the tracker or the import did to a value: ``nan_replaced``, ``inf_clamped``, ``truncated`` …"""

    field: str
    flag: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run. Times are RFC 3339 in UTC with milliseconds; ``history`` is the run's metrics.csv."""

    id: str
    name: str | None
    source: Source
    status: Status
    deleted: bool
    started_at: str | None
    ended_at: str | None
    code: CodeVersion
    data: tuple[DatasetVersion, ...]
    parameters: Mapping[str, Scalar]
    seed: int | None
    environment: Mapping[str, Scalar]
    metrics: tuple[MetricSummary, ...]
    history: ResourceDescriptor | None
    artefacts: tuple[Artefact, ...]
    tags: Mapping[str, str]
    fidelity: tuple[FidelityFlag, ...] = ()

    def metric(self, name: str) -> MetricSummary | None:
        """The summary of metric ``name``, or ``None``."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def value(self, name: str) -> float | None:
        """The last value of metric ``name`` if it is there and finite."""
        metric = self.metric(name)
        return metric.last if metric is not None and isinstance(metric.last, float) else None

    @property
    def seconds(self) -> float | None:
        """How long the run took, where it says so."""
        started, ended = moment(self.started_at), moment(self.ended_at)
        return (ended - started).total_seconds() if started and ended else None

    def fact(self, path: str) -> Scalar:
        """The fact at ``path``: ``seed``, ``status``, ``parameters.NAME``, ``tags.NAME`` or ``environment.NAME``."""
        group, _, name = path.partition(".")
        if group == "seed":
            return self.seed
        if group == "status":
            return self.status
        if group == "parameters":
            return self.parameters.get(name)
        if group == "tags":
            return self.tags.get(name)
        if group == "environment":
            return self.environment.get(name)
        return None


def moment(text: str | None, zone: tzinfo | None = None) -> datetime | None:
    """The time that ``text`` (RFC 3339) says, ``None`` where it says none, such as month 13.

    A text without a time zone is taken to be in ``zone``; without one, it says no time.
    """
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    if found.tzinfo is not None:
        return found
    return found.replace(tzinfo=zone) if zone is not None else None


def history_location(run_id: str) -> str:
    """Where the metric history of a run lies in a bag."""
    return f"data/runs/{run_id}/metrics.csv"


def artefact_location(run_id: str, artefact: Artefact) -> str:
    """Where the bytes of an artefact lie in a bag: by its own path if a bag can hold that, else by its digest."""
    location = f"data/artefacts/{run_id}/{artefact.path}"
    if path_problem(location) is None and location.count("/") < MAX_DEPTH:
        return location
    return f"data/artefacts/{run_id}/{artefact.sha256}"


def without_credentials(url: str) -> str:
    """``url`` without user, password, query and fragment: a record is signed and handed out."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    # User and password first: a password may hold ? and #.
    authority, slash, path = rest.partition("/")
    bare = f"{authority.rpartition('@')[2]}{slash}{path}"
    return f"{scheme}://{re.split('[?#]', bare, maxsplit=1)[0]}"


def number(value: float) -> Number:
    """Return ``value`` in the spelling that JSON can carry."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def is_date(text: str | None) -> bool:
    """Whether ``text`` is a day, or a day and a time, in the form of ISO 8601."""
    try:
        return text is not None and datetime.fromisoformat(text) is not None
    except ValueError:
        return False
