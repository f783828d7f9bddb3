"""The placeholders of a training or evaluation command: replaced once, literally, never evaluated."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping

from bundler import renaming
from bundler.errors import MalformedError
from bundler.spec import Evaluation, Resources, TrainingSpec

# Trackers allow more in the name of a parameter than anyone would write elsewhere: optimizer/lr, "weight decay".
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*|(?:parameter|artefact)\.[^{}]+)\}")


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace each ``{name}`` in ``text``. Raises :class:`MalformedError` (``placeholder-unknown``)."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(sorted(values))
            raise MalformedError(
                "placeholder-unknown", f"{{{match[1]}}} in {text!r} is unknown; known are: {known}"
            )
        return values[match[1]]

    return _PLACEHOLDER.sub(value, text)


def values_for(  # noqa: PLR0913  # one argument a placeholder
    spec: TrainingSpec,
    *,
    python: str,
    bundle: str,
    out: str,
    seed: int,
    artefacts: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The value of every placeholder. ``bundle`` and ``out`` are folders as the training sees them.

    ``artefacts`` maps the paths that an evaluation may name to where they lie in the bag; a training may name none.
    """
    return {
        "python": python,
        "seed": str(seed),
        "out": out,
        "code": f"{bundle}/{spec.code}",
        **{f"input.{item.name}": f"{bundle}/{item.path}" for item in spec.inputs},
        **{f"parameter.{name}": str(value) for name, value in spec.parameters.items()},
        **{f"artefact.{path}": f"{bundle}/{place}" for path, place in (artefacts or {}).items()},
    }


def artefacts_named(command: Iterable[str]) -> tuple[str, ...]:
    """The paths of the artefacts that ``command`` uses, each once, in the order of its words."""
    names = (match[1] for word in command for match in _PLACEHOLDER.finditer(word))
    paths = (name.removeprefix("artefact.") for name in names if name.startswith("artefact."))
    return tuple(dict.fromkeys(paths))


REDACTED = "[redacted "
"""How a marker begins that stands for personal data (:mod:`bundler.redaction`)."""

_RESOURCES = {"cpus": (1, 4096), "gpus": (0, 64), "memory_bytes": (1 << 20, 64 << 40)}
_LOCATION = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def problems(spec: TrainingSpec) -> Iterator[str]:
    """Say what keeps anybody from running ``spec`` or from reading its output, whatever the machine."""
    yield from _misplaced("outputs.location", spec.outputs.location)
    yield from (f"outputs.rename: {each}" for each in renaming.problems(spec.outputs.rename))
    values = values_for(spec, python="", bundle="", out="", seed=spec.seed)
    for name in spec.environment:
        if not _VARIABLE.fullmatch(name):
            yield f"{name!a} is no name of an environment variable"
    yield from _unbounded(spec.resources)
    seconds = spec.expected_seconds
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        yield f"expected_seconds {seconds:g} is no duration"
    yield from _unfit((*spec.command, *spec.environment.values()), values)


def evaluation_problems(
    spec: TrainingSpec, evaluation: Evaluation, artefacts: Mapping[str, str]
) -> Iterator[str]:
    """Say what keeps anybody from running ``evaluation``, whatever the machine.

    ``artefacts`` are those of the selected run, as in :func:`values_for`, whether their bytes are in the bag or not.
    """
    yield from _misplaced("evaluation.results", evaluation.results)
    if not evaluation.command:
        yield "evaluation.command has no words"
    known = dict(artefacts)
    for path in artefacts_named(evaluation.command):
        if path not in known:
            yield f"{path!a} is no artefact of the selected run"
            known[path] = ""
    values = values_for(spec, python="", bundle="", out="", seed=spec.seed, artefacts=known)
    yield from _unfit(evaluation.command, values)


def _unbounded(resources: Resources) -> Iterator[str]:
    """Numbers that no machine has: a scheduler would wait for it, or divide by zero."""
    for name, (lowest, highest) in _RESOURCES.items():
        number = getattr(resources, name)
        if number is not None and not lowest <= number <= highest:
            yield f"resources.{name} {number} is not between {lowest} and {highest}"


def _misplaced(key: str, location: str) -> Iterator[str]:
    if not _LOCATION.fullmatch(location) or {".", ".."} & {*location.split("/")}:
        yield f"{key} {location!a} is no plain path below {{out}}"


def _unfit(words: Iterable[str], values: Mapping[str, str]) -> Iterator[str]:
    """What keeps these words of a command or environment from being expanded and handed to a program."""
    for text in words:
        try:
            expanded = expand(text, values)
            if "\0" in expanded:
                yield f"{text!a} holds a NUL character"
            if REDACTED in expanded:
                yield f"{text!a} uses a parameter whose value was taken out as personal data"
        except MalformedError as error:
            yield error.message
