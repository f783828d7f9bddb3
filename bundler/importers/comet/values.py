"""What Comet's messages say, as values of a run: metric points, parameters, software and hardware."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from bundler.canonical import MAX_INTEGER
from bundler.errors import quoted
from bundler.importers.json_lines import a_list, a_text, an_object, compact
from bundler.importers.model import MetricPoint
from bundler.importers.values import Flag, clean, flag_counts, flag_steps, integer
from bundler.records import Scalar

MAX_POINTS = 5_000_000
MAX_NAMES = 64 << 20
"""Most characters of the names of all metrics of one run together."""

CUT = " [truncated]"
"""What Comet ends a name or value with that it has cut."""

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How Comet spells the numbers that JSON has no words for."""

_OWN_METRICS = ("sys.", "process duration")
"""What Comet itself measures beside the training."""

_DETAILS = {
    "hostname": "host",
    "ip": "ip",
    "machine": "machine",
    "os": "platform",
    "os_release": "os.release",
    "os_type": "os.type",
    "processor": "cpu.model",
    "python_exe": "python.executable",
    "python_version": "python",
    "python_version_verbose": "python.build",
    "user": "user",
    "command": "command",
}
"""Names of Comet's system details. Environment variables (``env``) are left out: they hold credentials."""

_GPU = {"name": "model", "total_memory": "memory", "uuid": "uuid", "power_limit": "power_limit"}


class Points:
    """The metric points of one run, in order of logging."""

    def __init__(self) -> None:
        self._points: list[MetricPoint] = []
        self._counts: dict[str, Counter[str]] = {}
        self._announced = False
        self._given: set[str] = set()
        self._own = 0
        self._names: dict[str, str] = {}
        self._length = 0

    def restart(self) -> None:
        """Another archive of the same run begins: no step is announced there yet."""
        self._announced = False

    def announce(self) -> None:
        """Comet writes ``curr_step`` where a step was given that is not that of the metric before."""
        self._announced = True

    def add(self, payload: Mapping[str, Any]) -> None:
        """Take one message. Raises :class:`ValueError` for what is no metric at all."""
        said = an_object(payload["metric"], "a metric")
        name = full_name(a_text(said.get("metricName"), "the name of a metric"), payload)
        if name.startswith(_OWN_METRICS):
            self._own += 1
            return
        timestamp = integer(payload.get("local_timestamp"))
        if timestamp is None or abs(timestamp) > MAX_INTEGER:
            raise ValueError(f"metric {quoted(name)} without a time")
        step = self._step(name, said.get("step"))
        value = _value(said.get("metricValue"))
        if value is None:
            self._count("not_a_number", name)
            return
        if said.get("epoch") is not None and said["epoch"] != step:
            self._count("epoch_dropped", name)
        if len(self._points) == MAX_POINTS:
            raise ValueError(f"more than {MAX_POINTS:,} points in one run")
        if self._announced:
            self._given.add(name)
            self._announced = False
        self._points.append(MetricPoint(self._one(name), step, timestamp, value))

    def all(self, flag: Flag) -> tuple[MetricPoint, ...]:
        """The points by metric, time, step and order of logging; what happened to them is flagged."""
        points = sorted(self._points, key=lambda point: point[:3])
        for kind, counts in self._counts.items():
            flag_counts(kind, counts, flag)
        steps: dict[str, set[int]] = {}
        for point in points:
            steps.setdefault(point.metric, set()).add(point.step)
        for name, used in steps.items():
            if name.endswith(CUT):
                flag(f"metrics.{name}", "truncated", "Comet cut the name")
            missing = self._counts.get("step_missing", Counter())[name]
            if len(used) == 1 and name not in self._given and not missing:
                flag(f"metrics.{name}", "step_inherited", "may be the step of the metric before")
        flag_steps(points, flag)
        if self._own:
            flag("metrics", "system_skipped", f"{self._own} points of Comet's own measurements")
        return tuple(points)

    def _one(self, name: str) -> str:
        """``name``, kept once for all the points that have it."""
        if name not in self._names:
            self._length += len(name)
            if self._length > MAX_NAMES:
                raise ValueError(f"more than {MAX_NAMES:,} characters of names of metrics")
        return self._names.setdefault(name, name)

    def _step(self, name: str, step: object) -> int:
        if step is None:
            self._count("step_missing", name)
            return 0
        whole = integer(step)
        if whole is None and isinstance(step, float) and math.isfinite(step):
            whole = math.floor(step)
            if whole != step:
                self._count("step_rounded", name)
        if whole is None or abs(whole) > MAX_INTEGER:
            raise ValueError(f"metric {quoted(name)} with step {quoted(step)}")
        return whole

    def _count(self, kind: str, name: str) -> None:
        self._counts.setdefault(kind, Counter())[name] += 1


class Parameters:
    """The parameters of one run: the last value of each."""

    def __init__(self) -> None:
        self._values: dict[str, Scalar] = {}
        self._changed: Counter[str] = Counter()
        self._words: set[str] = set()

    def add(self, payload: Mapping[str, Any], parameter: object, points: Points) -> None:
        """Take one message. Raises :class:`ValueError` for what is no parameter at all."""
        said = an_object(parameter, "a parameter")
        own_name = a_text(said.get("paramName"), "the name of a parameter")
        if is_counter(said):
            if own_name == "curr_step":
                points.announce()
            return
        name = full_name(own_name, payload)
        given = said.get("paramValue")
        value = scalar(given)
        if name in self._values and (self._values[name], type(self._values[name])) != (
            value,
            type(value),
        ):
            self._changed[name] += 1
        self._values[name] = value
        (self._words.add if isinstance(given, str) and given in _WORDS else self._words.discard)(
            name
        )

    def all(self, flag: Flag) -> dict[str, Scalar]:
        """Values by name. Comet joins nested names with ``|``; here they are joined with dots."""
        found = {}
        for name, value in self._values.items():
            dotted = name.replace("|", ".")
            if dotted != name and dotted in self._values:
                flag(f"parameters.{name}", "name_kept", f"there is a parameter {dotted} as well")
                dotted = name
            found[dotted] = value
            if self._changed[name]:
                flag(f"parameters.{dotted}", "overwritten", f"{self._changed[name]} times")
            if name in self._words:
                flag(f"parameters.{dotted}", "type_lost", "Comet writes such a number as text")
            if name.endswith(CUT) or (isinstance(value, str) and value.endswith(CUT)):
                flag(f"parameters.{dotted}", "truncated", "Comet cut it")
        return found

    def get(self, name: str) -> Scalar:
        """The value of ``name``, or ``None``."""
        return self._values.get(name)


def is_counter(parameter: object) -> bool:
    """Whether ``parameter`` is one by which Comet itself counts steps."""
    return (
        isinstance(parameter, dict)
        and parameter.get("paramName") in ("curr_step", "curr_epoch")
        and parameter.get("source") == "auto-logged"
    )


def full_name(name: str, payload: Mapping[str, Any]) -> str:
    """A metric's or parameter's name with its context (``train``, ``validate``), as Comet itself shows it."""
    context = payload.get("context")
    return clean(f"{context}_{name}" if isinstance(context, str) and context else name) or ""


def scalar(value: object) -> Scalar:
    """``value`` as one value of a record: lists and objects become JSON text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(value if isinstance(value, str) else compact(value))


def text(value: object) -> str:
    """``value`` as text; what is none becomes JSON."""
    return clean(value if isinstance(value, str) else compact(value)) or ""


def _details(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    for theirs, ours in _DETAILS.items():
        if payload.get(theirs) not in (None, ""):
            yield ours, scalar(payload[theirs])


def _packages(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    for line in a_list(payload.get("installed_packages"), "installed_packages"):
        name, _, version = text(line).partition("==")
        yield f"packages.{name.strip()}", version.strip()


def _package(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    yield f"packages.{text(payload.get('name'))}", text(payload.get("version"))


def _gpus(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    for position, each in enumerate(a_list(payload.get("gpu_static_info"), "gpu_static_info")):
        gpu = an_object(each, "a graphics card")
        number = integer(gpu.get("gpu_index"))
        for theirs, ours in _GPU.items():
            if gpu.get(theirs) is not None:
                yield f"gpu.{position if number is None else number}.{ours}", scalar(gpu[theirs])


def _information(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    pair = an_object(payload.get("system_info"), "system_info")
    yield f"system.{text(pair.get('key'))}", scalar(pair.get("value"))


def _cloud(payload: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    yield "cloud.provider", scalar(payload.get("provider"))


FACTS = {
    "system_details": _details,
    "installed_packages": _packages,
    "log_dependency": _package,
    "gpu_static_info": _gpus,
    "system_info": _information,
    "cloud_details": _cloud,
}
"""Types of messages that tell of software and hardware."""


def _value(value: object) -> float | None:
    if isinstance(value, str):
        return _WORDS.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
