"""The titles of our own experiment logs: they say what a column holds and of what type its cells are.

``param: lr (number)``, ``metric: val_auc [validation]``, ``data: credit [training] (sha256)``, ``tag: reason`` and some
fixed ones. So a log that was made from our template, or exported from a bundle, needs no declared columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast, get_args

from bundler.importers.experiment_log.columns import (
    DataColumns,
    DateColumn,
    DurationColumn,
    LogColumns,
    ParameterColumn,
    ValueType,
)

ID = "Experiment ID"
DATE = "Date (UTC)"
DURATION = "Duration (s)"
FIXED = {
    ID: "id",
    "Name": "name",
    DATE: "date",
    DURATION: "duration",
    "Status": "status",
    "Outcome": "outcome",
    "Deleted": "deleted",
    "Hypothesis": "hypothesis",
    "Notes": "notes",
    "Random seed": "seed",
    "Code commit": "commit",
    "Uncommitted changes": "dirty",
    "Repository": "repository",
    "Branch": "branch",
    "Entry point": "entry_point",
}
TITLE_OF = {key: title for title, key in FIXED.items()}
TAGS = {"Reason": "reason", "Model SHA-256": "model.sha256", "Tracker run ID": "tracker.run_id"}
DATA = {"Data version": "version", "Data SHA-256": "sha256", "Data rows": "rows"}
"""The columns of a log with one data set, which is called ``data``."""

EXAMPLE = "#example"
"""The experiment ID of the row that our template shows; it is no run."""

DATA_FIELDS = ("version", "sha256", "rows", "source", "digest", "used")
_PARAMETER = re.compile(r"param: (.+) \((text|integer|number|boolean|json)\)", re.DOTALL)
_METRIC = re.compile(r"metric: (.+?)(?: \[(?:training|validation|hold-out|other)\])?", re.DOTALL)
_DATA = re.compile(
    rf"data: (.+?)(?: \[([^\]]*)\])?(?: #([0-9]+))? \(({'|'.join(DATA_FIELDS)})\)", re.DOTALL
)
_TAG = re.compile(r"tag: (.+)", re.DOTALL)
_SHOWN = 100
_LONGEST = 200


def parameter_title(name: str, kind: ValueType) -> str:
    """The title of a parameter."""
    return f"param: {name} ({kind})"


def metric_title(name: str, role: str | None = None) -> str:
    """The title of a metric. The role is for readers: what it is, ``facts.metrics`` says."""
    return f"metric: {name} [{role}]" if role else f"metric: {name}"


def data_title(name: str, role: str | None, field: str, number: int = 1) -> str:
    """The title of what ``field`` says about the ``number``-th data set of that name and role."""
    fixed = next((title for title, known in DATA.items() if known == field), None)
    if fixed and (name, role, number) == ("data", None, 1):
        return fixed
    counted = "" if number == 1 else f" #{number}"
    return f"data: {name}{'' if role is None else f' [{role}]'}{counted} ({field})"


def from_titles(titles: Sequence[str]) -> LogColumns | None:
    """What our own ``titles`` declare, ``None`` if they are not ours.

    That is so if the ID is missing, if a title is unknown, or if two are about the same fact.
    """
    found: dict[str, object] = {}
    parameters, metrics, tags = {}, {}, {}
    data: dict[str, DataColumns] = {}
    for title in filter(None, titles):
        if title in FIXED:
            found[FIXED[title]] = _column(title)
        elif title in TAGS:
            tags[TAGS[title]] = title
        elif match := _PARAMETER.fullmatch(title):
            name, kind = match.groups()
            parameters[name] = ParameterColumn(column=title, type=cast(ValueType, kind))
        elif match := _DATA.fullmatch(title):
            name, role, number, field = match.groups()
            _add(data, name, role, number or "1", {field: title})
        elif title in DATA:
            _add(data, "data", None, "1", {DATA[title]: title})
        elif match := _METRIC.fullmatch(title):
            metrics[match[1]] = title
        elif match := _TAG.fullmatch(title):
            tags[match[1]] = title
        else:
            return None
    facts = [*found, *tags, *parameters, *metrics, *(t for d in data.values() for t in _titles(d))]
    if "id" not in found or len(facts) < len(list(filter(None, titles))):
        return None
    return LogColumns(parameters=parameters, metrics=metrics, tags=tags, data=data, **found)  # type: ignore[arg-type]  # each by its field


def _column(title: str) -> str | DateColumn | DurationColumn:
    if title == DATE:
        return DateColumn(column=title)
    return DurationColumn(column=title, unit="seconds") if title == DURATION else title


def _add(
    data: dict[str, DataColumns], name: str, role: str | None, number: str, field: dict[str, str]
) -> None:
    key = json.dumps([name, role, number])
    data[key] = replace(data.get(key, DataColumns(name=name, role=role)), **field)


def _titles(data: DataColumns) -> Iterable[str]:
    return filter(None, (getattr(data, field) for field in DATA_FIELDS))


_LIKELY = {
    "id": ("experimentid", "experiment", "runid", "run", "id", "expid", "experimentno"),
    "name": ("name", "runname", "title"),
    "hypothesis": ("hypothesis", "idea", "purpose"),
    "notes": ("notes", "note", "comment", "comments", "remarks"),
    "outcome": ("outcome", "result", "decision"),
    "status": ("status", "state"),
    "seed": ("seed", "randomseed", "randomstate"),
    "commit": ("commit", "codecommit", "gitcommit", "codeversion", "gitsha", "githash"),
    "date": ("date", "started", "start", "startdate", "datetime", "timestamp"),
    "duration": ("duration", "trainingduration", "trainingtime", "runtime", "time"),
}
_LONG = {
    "date": '{column: %s, format: TODO}  # such as "%%d.%%m.%%Y"',
    "duration": "{column: %s, unit: TODO}",
}


def suggestion(titles: Iterable[str], separator: str = ",") -> str:
    """A declaration to start from, in YAML, with all ``titles``: a human has to finish and check it."""
    left = [title for title in titles if title and len(title) <= _LONGEST]
    known = []
    for key, words in _LIKELY.items():
        match = next((t for t in left if re.sub(r"[^a-z]", "", t.lower()) in words), None)
        if match is not None:
            left.remove(match)
        if match is not None or key == "id":
            quoted = json.dumps(match or "TODO")
            known.append(f"  {key}: {_LONG[key] % quoted if key in _LONG else quoted}")
    lines = ["columns:", *known]
    if separator != ",":
        lines.append(f'  separator: "{separator}"')
    if left:
        kinds = f"a type ({', '.join(get_args(ValueType))})"
        lines.append(
            f"  parameters:  # each needs {kinds}, or belongs under metrics, tags or ignore"
        )
        lines += [
            f"    {json.dumps(title)}: {{column: {json.dumps(title)}, type: TODO}}"
            for title in left[:_SHOWN]
        ]
    if len(left) > _SHOWN:
        lines.append(f"    # and {len(left) - _SHOWN} more")
    return "\n".join(lines)
