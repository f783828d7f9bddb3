"""What a commit of a DVC repository says of its pipeline: ``dvc.yaml``, ``dvc.lock`` and ``*.dvc``.

``dvc.yaml`` says what is declared, ``dvc.lock`` what ran. Where they differ, the lock is the run's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bundler.data_pointers import Pointer, is_outside, pointers_of_file, pointers_of_lock
from bundler.errors import SourceError
from bundler.importers.dvc.values import MAX_FILE, flat, mapping, parsed
from bundler.importers.values import Flag, clean

Read = Callable[[str, int], bytes]
"""Reads a file of the commit by its path, bounded. Raises :class:`ValueError` for one that is too large."""

DEFAULT_PARAMETERS = "params.yaml"
"""The file of parameters that DVC reads unasked."""


@dataclass(kw_only=True, slots=True)
class Pipeline:
    """The pipelines of one commit. Paths are relative to the root of the DVC repository.

    ``locked``: file of parameters → name → value, as stages ran with them. ``declared``: dependencies of all stages.
    ``unlocked``: stages of ``dvc.yaml`` that never ran. ``artifacts``: what it lists so, but data sets.
    """

    commands: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    parameters: set[str] = field(default_factory=set)
    uncached: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    locked: dict[str, dict[str, Any]] = field(default_factory=dict)
    pointers: list[Pointer] = field(default_factory=list)
    unlocked: set[str] = field(default_factory=set)
    is_locked: bool = False

    @property
    def has_stages(self) -> bool:
        """Whether there are any, run or not."""
        return self.is_locked or bool(self.unlocked)

    def of_stages(self, role: str) -> list[Pointer]:
        """Pointers of ``dvc.lock``, each path once: what several stages read is the same."""
        found = {each.path: each for each in self.pointers if each.role == role and each.stage}
        return [found[path] for path in sorted(found)]

    def tracked(self) -> list[Pointer]:
        """Outputs of ``*.dvc`` files: what was added or imported."""
        return [each for each in self.pointers if each.role == "out" and each.stage is None]


def pipeline_of(paths: Mapping[str, object], read: Read, flag: Flag) -> Pipeline:
    """The pipelines of the files ``paths``. What cannot be read is flagged: the rest still counts."""
    found = Pipeline()
    for path in sorted(paths):
        folder, name = posixpath.split(path)
        if name == "dvc.yaml":
            described = _parsed(path, read, flag)
            _declare(found, mapping(described), folder, flag)
            lock = posixpath.join(folder, "dvc.lock")
            if lock in paths:
                _lock(found, _parsed(lock, read, flag), lock, described, flag)
        elif name.endswith(".dvc") and name != ".dvc":
            try:
                found.pointers += pointers_of_file(_parsed(path, read, flag), path)
            except SourceError as error:
                flag("data", "unreadable", error.message)
    return found


def _parsed(path: str, read: Read, flag: Flag) -> Any:
    try:
        return parsed(read(path, MAX_FILE), path)
    except ValueError as error:
        flag("run", "unreadable", clean(f"{path}: {error}") or "")
        return None


def _declare(found: Pipeline, value: Mapping[str, Any], folder: str, flag: Flag) -> None:
    """Take what a ``dvc.yaml`` in ``folder`` declares."""
    found.metrics |= _paths(value.get("metrics"), folder, flag)
    found.parameters |= _paths(value.get("params"), folder, flag)
    for name, item in mapping(value.get("artifacts")).items():
        for path in _paths([mapping(item).get("path")], folder, flag):
            if mapping(item).get("type") != "dataset":
                found.artifacts.add(path)
            if mapping(item).get("type") in {None, "model"}:
                found.models[clean(name) or ""] = path
    for name, stage in mapping(value.get("stages")).items():
        # A stage for each of several values: its paths are named in the lock.
        own = mapping(mapping(stage).get("do")) or mapping(stage)
        base = posixpath.join(folder, str(own.get("wdir") or "."))
        found.unlocked.add(_stage(folder, name))
        found.declared |= _paths(own.get("deps"), base, flag)
        found.metrics |= _paths(own.get("metrics"), base, flag)
        found.parameters |= {
            path
            for entry in _items(own.get("params"))
            if isinstance(entry, dict)
            for path in _paths(list(entry), base, flag)
        }
        for key in ("outs", "metrics", "plots"):
            for entry in _items(own.get(key)):
                if any(mapping(each).get("cache") is False for each in mapping(entry).values()):
                    found.uncached |= _paths([entry], base, flag)


def _lock(found: Pipeline, value: Any, place: str, described: Any, flag: Flag) -> None:
    """Take what a ``dvc.lock`` says that ran."""
    content = mapping(value)
    stages = mapping(content.get("stages") if "schema" in content else content)
    folder = posixpath.dirname(place)
    try:
        found.pointers += pointers_of_lock(content, place, described)
    except SourceError as error:
        flag("run", "unreadable", error.message)
        return
    for name, stage in stages.items():
        found.is_locked = True
        found.unlocked -= {_stage(folder, name), _stage(folder, str(name).partition("@")[0])}
        command = mapping(stage).get("cmd")
        lines = command if isinstance(command, list) else [command]
        found.commands[_stage(folder, name)] = clean(" && ".join(map(str, lines))) or ""
        own = mapping(mapping(mapping(described).get("stages")).get(str(name).partition("@")[0]))
        wdir = (mapping(own.get("do")) or own).get("wdir")
        base = posixpath.join(folder, str(wdir or "."))
        for file, values in mapping(mapping(stage).get("params")).items():
            for path in _paths([file], base, flag):
                found.parameters.add(path)
                try:
                    found.locked.setdefault(path, {}).update(flat(values))
                except ValueError as error:
                    flag("parameters", "unreadable", f"{place}: {error}")


def _stage(folder: str, name: object) -> str:
    """What DVC calls a stage: its name, behind its file for one that is not at the root."""
    text = clean(name) or ""
    return f"{folder}/dvc.yaml:{text}" if folder else text


def _items(value: Any) -> list[Any]:
    """Entries of a list, or the pairs of a mapping as such entries."""
    if isinstance(value, dict):
        return [{key: each} for key, each in value.items()]
    return value if isinstance(value, list) else []


def _paths(value: Any, base: str, flag: Flag) -> set[str]:
    return {path for entry in _items(value) for path in _path(entry, base, flag)}


def _path(entry: Any, base: str, flag: Flag) -> Iterator[str]:
    """The path of an entry ``PATH`` or ``{PATH: options}``, if it is one of this repository."""
    text = next(iter(entry), None) if isinstance(entry, dict) else entry
    if not isinstance(text, str) or not text:
        return
    if "${" in text:
        flag("run", "template_not_resolved", (clean(text) or "")[:80])
        return
    path = text if is_outside(text) else posixpath.normpath(posixpath.join(base, text))
    if not is_outside(path):
        yield path
