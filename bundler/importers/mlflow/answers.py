"""What an MLflow server's JSON says, piece by piece. Whatever is not as MLflow writes it raises :class:`TypeError`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers.mlflow.values import dataset
from bundler.importers.values import clean
from bundler.records import DatasetVersion

_WORDS = {"NaN", "Infinity", "-Infinity"}
"""How one of the endpoints spells numbers that JSON has no word for; the other writes them bare."""

Point = tuple[str, int, int, float, bool]
"""Metric, step, timestamp, value, and whether the value is NaN: as a row of the SQL store."""


_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A run as a search gives it: everything but the history of its metrics. ``latest`` holds their last points."""

    run_id: str
    name: str | None
    status: str | None
    started: int | None
    ended: int | None
    stage: str | None
    uri: str | None
    parameters: dict[str, str]
    tags: dict[str, str]
    latest: dict[str, Point]
    data: tuple[DatasetVersion, ...]
    models: tuple[str, ...]


def described(run: dict[str, Any]) -> Described:
    """A run of ``runs/search``."""
    info, data = part(run, "info"), part(run, "data")
    inputs, outputs = part(run, "inputs"), part(run, "outputs")
    return Described(
        run_id=run_id(run),
        name=_optional_word(info.get("run_name")),
        status=_optional_word(info.get("status")),
        started=whole(info.get("start_time")),
        ended=whole(info.get("end_time")),
        stage=_optional_word(info.get("lifecycle_stage")),
        uri=_optional_word(info.get("artifact_uri")),
        parameters=_pairs(data, "params"),
        tags=_pairs(data, "tags"),
        latest=_once((each[0], each) for each in map(point, parts(data, "metrics"))),
        data=tuple(map(_dataset, parts(inputs, "dataset_inputs"))),
        models=tuple(word(each.get("model_id")) for each in parts(outputs, "model_outputs")),
    )


def run_id(run: dict[str, Any]) -> str:
    """The id of a run of ``runs/search``; older servers call it ``run_uuid``."""
    info = part(run, "info")
    found = word(info.get("run_id", info.get("run_uuid")))
    if not found:
        raise TypeError("a run without an id")
    return found


def check_experiment(run: dict[str, Any], asked: str) -> None:
    """Raise :class:`TypeError` where the run says that it belongs to another experiment than ``asked``."""
    found = part(run, "info").get("experiment_id", asked)
    if str(found) != asked:
        raise TypeError(f"a run of experiment {quoted(found)}, which was not asked for")


def start(run: dict[str, Any]) -> int | None:
    """The start time of a run of ``runs/search``."""
    return whole(part(run, "info").get("start_time"))


def point(each: dict[str, Any]) -> Point:
    """One point of a history, or the last one of a metric in ``runs/search``."""
    step, timestamp = whole(each.get("step", 0)), whole(each.get("timestamp"))
    value = number(each.get("value"))
    if step is None or timestamp is None:
        raise TypeError("a point without step or time")
    return word(each.get("key")), step, timestamp, value, math.isnan(value)


def parts(answer: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """The objects in the list ``key``, which is left out where it is empty."""
    found = answer.get(key, [])
    if not isinstance(found, list):
        raise TypeError(f"{quoted(key)} is no list")
    for each in found:
        if not isinstance(each, dict):
            raise TypeError(f"{quoted(key)} holds {quoted(each)}")
        yield each


def part(answer: dict[str, Any], key: str) -> dict[str, Any]:
    """The object ``key``, which is left out where it is empty."""
    found = answer.get(key, {})
    if not isinstance(found, dict):
        raise TypeError(f"{quoted(key)} is no object")
    return found


def word(value: object) -> str:
    """``value`` if it is text, without what cannot be written."""
    if not isinstance(value, str):
        raise TypeError(f"{quoted(value)} is not text")
    return clean(value) or ""


def whole(value: object) -> int | None:
    """``value`` if it is an integer; some servers write 64 bits as text."""
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= 20 and value.removeprefix("-").isdecimal():
        value = int(value)
    if type(value) is not int or abs(value) > MAX_INTEGER:
        raise TypeError(f"{quoted(value)} is not a whole number of 53 bits")
    return value


def number(value: object) -> float:
    """``value`` if it is a number or the word for one that JSON does not have."""
    if isinstance(value, str) and value in _WORDS:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{quoted(value)} is not a number")
    if abs(value) > sys.float_info.max and isinstance(value, int):
        raise TypeError("a number beyond all that a metric can be")
    return float(value)


def _optional_word(value: object) -> str | None:
    return None if value is None else word(value)


def _pairs(data: dict[str, Any], key: str) -> dict[str, str]:
    pairs = ((word(each.get("key")), word(each.get("value", ""))) for each in parts(data, key))
    return dict(sorted(_once(pairs).items()))


def _once(pairs: Iterable[tuple[str, _Value]]) -> dict[str, _Value]:
    """``pairs`` by key. One that is there twice would have two values, and one of them be lost."""
    found: dict[str, _Value] = {}
    for key, value in pairs:
        if key in found:
            raise TypeError(f"{quoted(key)} twice")
        found[key] = value
    return found


def _dataset(each: dict[str, Any]) -> DatasetVersion:
    found = part(each, "dataset")
    tags = _pairs(each, "tags")
    return dataset(
        name=found.get("name"),
        digest=found.get("digest"),
        source=found.get("source"),
        profile=found.get("profile"),
        role=tags.get("mlflow.data.context"),
    )
