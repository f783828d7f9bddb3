"""``bundle.yaml``: what the provider writes. Read strictly, so that a typo is an error and not a silence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from bundler import canonical, codec, importers, renaming, resources
from bundler.errors import MalformedError, UsageError
from bundler.importers.experiment_log.columns import LogColumns
from bundler.records import is_date
from bundler.redaction import PersonalData
from bundler.spec import (
    Evaluation,
    FactMap,
    Gate,
    Outputs,
    ReproducibilitySpec,
    Resources,
    Sampling,
    SelectionSpec,
    Statistic,
    System,
)
from bundler.strict_yaml import parse_yaml

MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """A tracker store. Paths are relative to bundle.yaml; ``store`` may be an address instead.

    ``artefacts`` is the folder of the runs' files, where they are elsewhere. ``rename`` gives parameters, tags and
    metrics of this source the names that the other sources use. ``histories`` are patterns of artefacts (Hugging
    Face's trainer_state.json, TensorBoard's event files) whose metrics belong to the run. ``columns`` says what the
    columns of an experiment log mean.
    """

    tracker: str
    store: str
    experiment: str | None = None
    artefacts: str | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    histories: tuple[str, ...] = ()
    columns: LogColumns | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to repeat the training. ``code`` is a folder of a git repository; ``inputs`` are files that it reads."""

    code: str
    command: tuple[str, ...]
    outputs: Outputs
    inputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    lock: str | None = None
    wheels: str | None = None
    evaluation: Evaluation | None = None
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """A container image that the training ran in: an OCI layout or archive, a `docker save` archive, or a reference.

    ``reference`` and ``platform`` (``linux/amd64``) say which of several images in ``path`` is meant.
    """

    path: str | None = None
    reference: str | None = None
    platform: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """The whole of ``bundle.yaml``."""

    version: Literal[1]
    system: System
    facts: FactMap
    selection: SelectionSpec
    reproducibility: ReproducibilitySpec
    sources: tuple[SourceConfig, ...] = ()
    gates: tuple[Gate, ...] = ()
    training: TrainingConfig | None = None
    embed: Literal["selected", "all", "none"] = "selected"
    keep_personal_data: tuple[PersonalData, ...] = ()
    images: tuple[ImageConfig, ...] = ()


def with_sources(config: BuildConfig, given: Iterable[str]) -> BuildConfig:
    """``config`` with the sources that ``--from`` gave instead of its own. Raises :class:`UsageError` for none."""
    sources = tuple(map(source_of, given)) or config.sources
    if not sources:
        raise UsageError(
            "no source of runs is named",
            remedy="Write the section sources, or give --from TRACKER:STORE.",
        )
    return replace(config, sources=sources)


def load(path: Path) -> BuildConfig:
    """Read ``bundle.yaml``. Raises :class:`UsageError` that names the line or the key."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}",
            remedy="Run `bundler init` in the training repository to write one.",
        ) from None
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
    try:
        value = parse_yaml(data)
        _refuse_unwritable(value)
        config = codec.from_json(BuildConfig, value)
        problem = next(_problems(config), None)
    except MalformedError as error:
        raise UsageError(
            f"{path}: {error.message}", remedy="docs/bundle-yaml.md describes every key."
        ) from None
    if problem is not None:
        raise UsageError(f"{path}: {problem}", remedy="docs/bundle-yaml.md describes every key.")
    return config


def _refuse_unwritable(value: Any, place: str = "") -> None:
    """Numbers and text that YAML has and the bundle's JSON has not: they are refused here, where they have a place."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_unwritable(key, place)
            name = str(key) if str(key).isprintable() else ascii(key)[1:-1]
            _refuse_unwritable(item, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _refuse_unwritable(item, f"{place}[{position}]")
    else:
        try:
            canonical.serialise(value)
        except MalformedError as error:
            raise MalformedError("structure", f"{place or 'document'}: {error.message}") from None


def _problems(config: BuildConfig) -> Iterator[str]:
    """What the types allow and would not work: in words, with the place."""
    parts = {
        "system": ("System", config.system),
        "selection": ("SelectionSpec", config.selection),
        "reproducibility": ("ReproducibilitySpec", config.reproducibility),
        **{f"gates[{i}]": ("Gate", gate) for i, gate in enumerate(config.gates)},
    }
    for place, (kind, part) in parts.items():
        yield from _violations(kind, part, place)
    names = [gate.name for gate in config.gates]
    margins = [each.metric for each in config.reproducibility.tolerances]
    for place, words in (("gates", names), ("reproducibility.tolerances", margins)):
        yield from (
            f"{place}: {word!r} stands twice"
            for word in sorted(set(words))
            if words.count(word) > 1
        )
    for i, gate in enumerate(config.gates):
        yield from _sampling_problems(gate.sampling, f"gates[{i}].sampling")
    declared = config.selection.declared_at
    if declared is not None and not is_date(declared):
        yield f"selection.declared_at: {declared!r} is no date such as 2026-11-25"
    yield from _source_problems(config)
    yield from _name_problems(config)


def _source_problems(config: BuildConfig) -> Iterator[str]:
    """What is wrong with the places that things come from, and with the names that they get."""
    for i, source in enumerate(config.sources):
        yield from (f"sources[{i}].rename: {each}" for each in renaming.problems(source.rename))
        if source.columns is not None:
            yield from (f"sources[{i}].columns.{each}" for each in source.columns.problems())
    for i, image in enumerate(config.images):
        if image.path is None and image.reference is None:
            yield f"images[{i}]: neither path nor reference"
    if config.training is not None:
        names = config.training.outputs.rename
        yield from (f"training.outputs.rename: {each}" for each in renaming.problems(names))


def _name_problems(config: BuildConfig) -> Iterator[str]:
    """Names of facts that are none."""
    facts = config.facts
    single = ("seed", "code_commit", "code_dirty", "data_version", "data_sha256")
    paths = {name: getattr(facts, name) for name in single}
    paths |= {f"data_rows.{role}": path for role, path in facts.data_rows.items()}
    for name, path in paths.items():
        if path is not None and not path.startswith(("parameters.", "tags.")):
            yield f"facts.{name}: {path!r} is neither parameters.NAME nor tags.NAME"
    for path in config.selection.eligible:
        if path not in {"seed", "status"} and not path.startswith(_FACTS):
            yield f"selection.eligible: {path!r} is no fact; facts are: seed, status, {'NAME, '.join(_FACTS)}NAME"


_FACTS = ("parameters.", "tags.", "environment.")


def source_of(text: str) -> SourceConfig:
    """The source that ``TRACKER:STORE`` or ``TRACKER:STORE#EXPERIMENT`` names.

    A path is relative to the working folder. Raises :class:`UsageError`.
    """
    tracker, colon, rest = text.partition(":")
    store, _, experiment = rest.partition("#")
    if "#" in rest and Path(rest).exists():
        # A name may hold the sign as well.
        store, experiment = rest, ""
    if not (tracker and colon and store):
        raise UsageError(
            f"--from {text!r} is not TRACKER:STORE",
            remedy=f"Such as mlflow:mlflow.db or wandb:wandb#my-project. Trackers: {', '.join(importers.names())}.",
        )
    located = importers.located(Path.cwd(), store)
    return SourceConfig(tracker=tracker, store=str(located), experiment=experiment or None)


def _sampling_problems(sampling: Sampling | None, place: str) -> Iterator[str]:
    if sampling is None:
        return
    if sampling.kind == "auc" and sampling.positives is None:
        yield f"{place}.positives: missing; how many rows of the hold-out are of the positive class"
    if sampling.kind == "difference" and len(sampling.groups) != 2:
        yield f"{place}.groups: expected two numbers of rows, found {len(sampling.groups)}"
    if sampling.kind == "predictions":
        if sampling.predictions is None:
            yield f"{place}.predictions: missing; the artefact with a line an example, and its columns label and score"
        if sampling.statistic is None:
            yield f"{place}.statistic: missing; which of {', '.join(get_args(Statistic))} the metric is"


def _violations(kind: str, part: object, place: str) -> Iterator[str]:
    """What the JSON Schema of the bundle says against ``part``: the bounds of numbers, mostly."""
    # jsonschema takes a tenth of a second to import.
    from jsonschema import Draft202012Validator  # noqa: PLC0415
    from jsonschema.exceptions import best_match  # noqa: PLC0415

    whole: Any = canonical.parse(resources.schemas()["bundle-1.schema.json"], name="schema")
    schema = {"$ref": f"#/$defs/{kind}", "$defs": whole["$defs"]}
    error = best_match(Draft202012Validator(schema).iter_errors(codec.to_json(part)))
    if error is not None:
        where = "".join(
            f"[{each}]" if isinstance(each, int) else f".{each}" for each in error.absolute_path
        )
        yield f"{place}{where}: {' '.join(error.message.split())[:200]}"
