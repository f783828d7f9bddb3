"""The placeholders of a training command: replaced once, literally, never evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from bundler import renaming
from bundler.errors import MalformedError
from bundler.spec import TrainingSpec

# Trackers allow more in the name of a parameter than anyone would write elsewhere: optimizer/lr, "weight decay".
_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*|parameter\.[^{}]+)\}")


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


def values_for(
    spec: TrainingSpec, *, python: str, bundle: str, out: str, seed: int
) -> dict[str, str]:
    """The value of every placeholder. ``bundle`` and ``out`` are folders as the training sees them."""
    return {
        "python": python,
        "seed": str(seed),
        "out": out,
        "code": f"{bundle}/{spec.code}",
        **{f"input.{item.name}": f"{bundle}/{item.path}" for item in spec.inputs},
        **{f"parameter.{name}": str(value) for name, value in spec.parameters.items()},
    }


REDACTED = "[redacted "
"""How a marker begins that stands for personal data (:mod:`bundler.redaction`)."""

_LOCATION = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def problems(spec: TrainingSpec) -> Iterator[str]:
    """Say what keeps anybody from running ``spec`` or from reading its output, whatever the machine."""
    location = spec.outputs.location
    if not _LOCATION.fullmatch(location) or {".", ".."} & {*location.split("/")}:
        yield f"outputs.location {location!a} is no plain path below {{out}}"
    yield from (f"outputs.rename: {each}" for each in renaming.problems(spec.outputs.rename))
    values = values_for(spec, python="", bundle="", out="", seed=spec.seed)
    for name in spec.environment:
        if not _VARIABLE.fullmatch(name):
            yield f"{name!a} is no name of an environment variable"
    for text in (*spec.command, *spec.environment.values()):
        try:
            expanded = expand(text, values)
            if "\0" in expanded:
                yield f"{text!a} holds a NUL character"
            if REDACTED in expanded:
                yield f"{text!a} uses a parameter whose value was taken out as personal data"
        except MalformedError as error:
            yield error.message
