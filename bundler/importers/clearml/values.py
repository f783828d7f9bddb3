"""What a ClearML task says, as values of a run: parameters in their declared types, code, software, hardware, times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bundler.errors import quoted
from bundler.importers.json_lines import a_list, an_object, compact, parsed
from bundler.importers.values import Flag, clean
from bundler.records import CodeVersion, DatasetVersion, Scalar, Status, without_credentials
from bundler.records import moment as moment_of

_STATUS: dict[str, Status] = {
    "created": "scheduled",
    "queued": "scheduled",
    "in_progress": "running",
    "stopped": "killed",
    "failed": "failed",
    "completed": "finished",
    "closed": "finished",
    "publishing": "finished",
    "published": "finished",
}

_TRUTH = {"true": True, "false": False, "": False}

_MACHINE = {
    "OS": "platform",
    "python_version": "python",
    "python_exec": "python.executable",
    "processor": "machine",
    "cpu_cores": "cpu.count",
    "memory_gb": "memory.gb",
    "hostname": "host",
    "gpu_count": "gpu.count",
    "gpu_driver_version": "gpu.driver",
    "gpu_driver_cuda_version": "cuda",
}
"""Names of what ClearML's resource monitor writes into the runtime properties."""

_CARDS = {"gpu_type": "model", "gpu_memory": "memory"}

_TOO_LARGE = "# WARNING! git diff too large"
AUXILIARY = "auxiliary_git_diff"
"""The artefact that holds a diff that is too large for the task itself."""

_PYTHON = re.compile(r"# Python (\S+)")
_PACKAGE = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?\s*(==|@|$)\s*(.*)")


def status_of(value: object) -> Status:
    """ClearML's status in our words; an offline session has none."""
    return _STATUS.get(value, "unknown") if isinstance(value, str) else "unknown"


def moment(value: object) -> int | None:
    """Milliseconds of a time in ISO 8601, which is in UTC where it does not say; ``None`` where it is no time."""
    found = moment_of(value, UTC) if isinstance(value, str) else None
    if found is None:
        return None
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def parameters(task: Mapping[str, Any], flag: Flag) -> dict[str, Scalar]:
    """All parameters as ``Section.name``, cast to the type that is declared beside them. Raises :class:`ValueError`."""
    found: dict[str, Scalar] = {}
    for raw, value, kind in _declared(task):
        dotted = raw.replace("/", ".")
        name = raw if dotted in found else dotted
        if name != dotted:
            flag(f"parameters.{name}", "name_kept", f"there is a parameter {dotted} as well")
        found[name], problem = cast(value, kind)
        if problem:
            flag(f"parameters.{name}", "type_lost", problem)
    return found


def _declared(task: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Name with slashes, value and type of each parameter; configuration objects are text."""
    old = an_object(
        an_object(task.get("execution") or {}, "execution").get("parameters") or {}, "parameters"
    )
    for name, value in old.items():
        yield clean(name) or "", value, "untyped"
    for section, group in an_object(task.get("hyperparams") or {}, "hyperparams").items():
        for name, each in an_object(group, f"section {quoted(section)}").items():
            item = an_object(each, f"parameter {quoted(name)}")
            yield clean(f"{section}/{name}") or "", item.get("value"), item.get("type")
    for name, each in an_object(task.get("configuration") or {}, "configuration").items():
        item = an_object(each, f"configuration {quoted(name)}")
        yield clean(f"configuration/{name}") or "", item.get("value"), "str"


def cast(value: object, kind: object) -> tuple[Scalar, str]:
    """A parameter in its declared type, as ClearML itself would give it, and what is not certain about it."""
    if value is None or isinstance(value, bool | int | float):
        return value, ""
    if not isinstance(value, str):
        return clean(compact(value)), ""
    if not kind or kind == "NoneType":
        # ClearML writes None as an empty text without a type.
        return (clean(value), "no declared type") if value else (None, "")
    reader = _TYPES.get(str(kind).partition("/")[0].strip().lower())
    try:
        return (
            (clean(value), f"declared as {quoted(kind, 40)}")
            if reader is None
            else (reader(value), "")
        )
    except ValueError:
        return clean(value), f"declared as {quoted(kind, 40)}"


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _structure(text: str) -> str | None:
    return clean(compact(parsed(text.encode("utf-8", "surrogatepass"))))


_TYPES: dict[str, Callable[[str], Scalar]] = {
    "str": clean,
    "bool": _truth,
    "int": int,
    "float": float,
    "list": _structure,
    "tuple": _structure,
    "dict": _structure,
}


def data(task: Mapping[str, Any]) -> tuple[DatasetVersion, ...]:
    """Data sets of ClearML that the task got by an alias: their ids, which name an immutable version each."""
    sections = an_object(task.get("hyperparams") or {}, "hyperparams")
    found = an_object(sections.get("Datasets") or {}, "section 'Datasets'")
    return tuple(
        DatasetVersion(
            name=clean(alias) or "", version=_said(an_object(found[alias], "a data set"), "value")
        )
        for alias in sorted(found)
    )


def code(script: Mapping[str, Any]) -> CodeVersion:
    """The code version that ClearML keeps; the patch is named by who writes the file."""
    folder, entry = _said(script, "working_dir"), _said(script, "entry_point")
    joined = f"{folder}/{entry}" if folder not in {None, "."} and entry else entry
    return CodeVersion(
        repository=_said(script, "repository"),
        commit=_said(script, "version_num"),
        branch=_said(script, "branch"),
        entry_point=joined,
    )


def is_cut(diff: str) -> bool:
    """Whether the diff only says that it was too large to be kept in the task."""
    return diff.startswith(_TOO_LARGE)


def environment(task: Mapping[str, Any]) -> dict[str, Scalar]:
    """What the task says about software and hardware. Raises :class:`ValueError`."""
    found: dict[str, Scalar] = {}
    script = an_object(task.get("script") or {}, "script")
    requirements = an_object(script.get("requirements") or {}, "requirements")
    pip = requirements.get("pip")
    if isinstance(pip, str):
        found.update(_packages(pip))
    binary = _said(script, "binary")
    if binary:
        found["python.executable"] = binary
    container = an_object(task.get("container") or {}, "container")
    execution = an_object(task.get("execution") or {}, "execution")
    image = (_said(container, "image") or _said(execution, "docker_cmd") or "").split()
    if image:
        # Arguments after the image may be credentials.
        found["container.image"] = image[0]
    user = _said(task, "user")
    if user:
        found["user"] = user
    found.update(_machine(an_object(task.get("runtime") or {}, "runtime")))
    return found


def _machine(runtime: Mapping[str, Any]) -> Iterator[tuple[str, Scalar]]:
    for name, value in runtime.items():
        shown = _shown(value)
        if name in _CARDS:
            for number, card in enumerate((str(shown) if shown else "").split(", ")):
                yield f"gpu.{number}.{_CARDS[name]}", card
        elif name in _MACHINE:
            yield _MACHINE[name], shown
        elif name != "platform" and not name.startswith("_"):
            # An underscore begins what ClearML's own services keep there, addresses and tokens among it.
            yield f"runtime.{clean(name)}", shown


def _shown(value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(value if isinstance(value, str) else compact(value))


def _packages(text: str) -> Iterator[tuple[str, str]]:
    """Packages of a requirements text, and the interpreter of its first line. Comments and options are left out."""
    for line in text.splitlines():
        python = _PYTHON.match(line)
        if python:
            yield "python", clean(python[1]) or ""
        package = _PACKAGE.fullmatch(line)
        if package:
            yield f"packages.{package[1]}", without_credentials(clean(package[3].strip()) or "")


def tags(task: Mapping[str, Any]) -> dict[str, str]:
    """The task's tags and free texts. Raises :class:`ValueError`."""
    found = {}
    words = sorted(clean(each) or "" for each in a_list(task.get("tags"), "tags"))
    if words:
        found["clearml.tags"] = compact(words)
    for name in ("comment", "type", "parent", "status_message", "status_reason"):
        said = _said(task, name)
        if said:
            found[f"clearml.{name}"] = said
    models = an_object(task.get("models") or {}, "models")
    for each in a_list(models.get("input"), "input models"):
        model = an_object(each, "an input model")
        found[f"clearml.input_model.{clean(model.get('name'))}"] = clean(model.get("model")) or ""
    return found


def _said(value: Mapping[str, Any], name: str) -> str | None:
    """A text that says something."""
    said = value.get(name)
    return clean(said) if isinstance(said, str) and said else None
