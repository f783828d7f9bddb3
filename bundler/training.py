"""Shipping what a re-run needs: the code as committed, the data, the list of packages, the training specification."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from bundler import canonical, codec, importers
from bundler.config import BuildConfig, TrainingConfig
from bundler.environments.wheels import lacking
from bundler.environments.wheels import parse as parse_wheels
from bundler.errors import MalformedError, SourceError, UsageError
from bundler.gates import predictions_of
from bundler.lockfiles import Lock
from bundler.lockfiles import parse as parse_lock
from bundler.manifest import CODE, DATASETS, path_problem
from bundler.placeholders import evaluation_problems, problems
from bundler.privacy import refuse_credentials
from bundler.records import RunRecord, artefact_location
from bundler.shipped_code import code_gap, ship_code
from bundler.spec import (
    TRAINING_FORMAT,
    Gap,
    ImageIdentity,
    Input,
    Outputs,
    TrainingSpec,
)
from bundler.storage.hashing import digest_bytes
from bundler.storage.writer import write_file

SPEC = "data/spec/training.json"
WHEELS = "data/environment/wheels.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What came into the bag: the specification's path, the number of code files, the lock, and gaps."""

    spec: str | None = None
    code_files: int = 0
    lock: Lock | None = None
    gaps: tuple[Gap, ...] = ()


def ship_training(  # noqa: PLR0913  # what is shipped, and what it is known by
    config: BuildConfig,
    base: Path,
    bag: Path,
    selected: RunRecord,
    images: tuple[ImageIdentity, ...] = (),
    redacted: Collection[str] = (),
) -> Shipped:
    """Write code, inputs, lock and ``training.json`` for the selected run into ``bag``.

    ``redacted`` are the fields of which something was taken out in the run's record.
    """
    training = config.training
    if training is None:
        return Shipped()
    scoring = training.evaluation.command if training.evaluation else ()
    refuse_credentials((*training.command, *scoring), training.environment)
    code = ship_code(config, training, base, bag, selected)
    inputs = tuple(
        _ship_input(name, base / path, bag) for name, path in sorted(training.inputs.items())
    )
    lock, listed = _ship_lock(training, base, bag)
    wheels = _ship_wheels(training, base, bag, listed)
    if selected.seed is None:
        raise UsageError(
            f"the selected run {selected.id} records no seed, so its training cannot be specified",
            remedy="Log the seed and name it in facts.seed, or leave out the section training.",
        )
    outputs = outputs_of(config, training, selected)
    spec = TrainingSpec(
        format=TRAINING_FORMAT,
        run=selected.id,
        seed=selected.seed,
        command=training.command,
        code=CODE,
        parameters=selected.parameters,
        environment=training.environment,
        inputs=inputs,
        outputs=outputs,
        lock=lock,
        expected_seconds=None if selected.seconds is None else max(0.0, selected.seconds),
        code_trees=code.trees,
        wheels=wheels,
        evaluation=training.evaluation,
        resources=training.resources,
        facts=config.facts,
        images=images,
    )
    gaps = [
        *code.gaps,
        *_unrunnable(spec, selected, redacted),
        *_unscorable(spec, selected),
        *_tensor_gaps(spec, bag, selected),
    ]
    write_file(bag, SPEC, canonical.serialise(codec.to_json(spec)))
    return Shipped(
        spec=SPEC,
        code_files=code.files,
        lock=listed,
        gaps=tuple(gaps),
    )


def outputs_of(config: BuildConfig, training: TrainingConfig, selected: RunRecord) -> Outputs:
    """Where a re-run leaves its record: read as the selected run's source is, unless the section says otherwise.

    The predictions that gates rest on are compared with the re-run's, unless the section names others.
    """
    outputs = training.outputs
    if outputs.predictions is None:
        outputs = replace(outputs, predictions=predictions_of(config.gates))
    read = [
        (dict(source.rename), source.histories)
        for source in config.sources
        if source.tracker == selected.source.tracker == outputs.tracker
    ]
    if outputs.rename or outputs.histories or not read:
        return outputs
    if any(each != read[0] for each in read):
        raise UsageError(
            f"the sources of {outputs.tracker} are read in several ways; which one is the re-run's?",
            remedy="Write rename and histories under training.outputs as well.",
        )
    return replace(outputs, rename=read[0][0], histories=read[0][1])


def _unrunnable(spec: TrainingSpec, selected: RunRecord, redacted: Collection[str]) -> list[Gap]:
    """What keeps a verifier from running the command and reading its output, whatever the machine."""
    importers.find(spec.outputs.tracker, built_in_only=True)
    scoring = spec.evaluation.command if spec.evaluation else ()
    words = " ".join((*spec.command, *spec.environment.values(), *scoring))
    lost = [
        f"parameter {name} was taken out in part as personal data"
        for name in spec.parameters
        if f"parameters.{name}" in redacted and f"{{parameter.{name}}}" in words
    ]
    return [
        code_gap(
            "required",
            "training-unrunnable",
            f"run {selected.id}",
            f"nobody can repeat the training as it is specified: {problem}",
            "Correct the section training.",
        )
        for problem in (*problems(spec), *lost)
    ]


def _unscorable(spec: TrainingSpec, selected: RunRecord) -> list[Gap]:
    """What keeps a verifier from scoring the shipped model."""
    if spec.evaluation is None:
        return []
    named = {
        each.path: artefact_location(selected.id, each)
        for each in selected.artefacts
        if each.sha256
    }
    return [
        code_gap(
            "required",
            "evaluation-unrunnable",
            f"run {selected.id}",
            f"nobody can score the model as it is specified: {problem}",
            "Correct training.evaluation.",
        )
        for problem in evaluation_problems(spec, spec.evaluation, named)
    ]


def _tensor_gaps(spec: TrainingSpec, bag: Path, selected: RunRecord) -> list[Gap]:
    """Tensors that nothing can be compared with, because the run has none of that name or they are not embedded."""
    known = {each.path: artefact_location(selected.id, each) for each in selected.artefacts}
    absent = [
        path for path in spec.outputs.tensors if not (bag / known.get(path, "data/none")).is_file()
    ]
    if not absent:
        return []
    return [
        code_gap(
            "recommended",
            "tensors-missing",
            f"run {selected.id}",
            f"tensors to be compared are not in the bundle: {', '.join(map(ascii, absent[:3]))}",
            "Name artefacts of the selected run in training.outputs.tensors, and embed them.",
        )
    ]


def _ship_input(name: str, file: Path, bag: Path) -> Input:
    data = _read(file, f"training.inputs.{name}")
    path = f"{DATASETS}{name}/{file.name}"
    problem = path_problem(path)
    if problem is not None:
        raise UsageError(
            f"training.inputs.{name}: {path!r} cannot stand in a bag: {problem}",
            remedy="Rename the input or the file.",
        )
    write_file(bag, path, data)
    return Input(name=name, path=path, sha256=digest_bytes(data))


def _ship_lock(training: TrainingConfig, base: Path, bag: Path) -> tuple[str | None, Lock | None]:
    if training.lock is None:
        return None, None
    data = _read(base / training.lock, "training.lock")
    try:
        lock = parse_lock(training.lock, data)
    except MalformedError as error:
        raise SourceError(f"training.lock: {error.message}", remedy=error.remedy) from None
    # Under the name by which a verifier knows the format again.
    path = f"data/environment/{lock.format}"
    write_file(bag, path, data)
    return path, lock


def _ship_wheels(training: TrainingConfig, base: Path, bag: Path, lock: Lock | None) -> str | None:
    if training.wheels is None:
        return None
    data = _read(base / training.wheels, "training.wheels")
    try:
        listed = parse_wheels(data, name=training.wheels)
    except MalformedError as error:
        raise SourceError(
            f"training.wheels: {error.message}",
            remedy="Write the file with `bundler capture-wheels`.",
        ) from None
    absent = [] if lock is None else list(lacking(listed.wheels, lock))
    if absent:
        raise SourceError(
            f"training.wheels: packages of the lock are not in it: {', '.join(absent[:8])}",
            remedy="Write it anew: bundler capture-wheels --lock LOCK -o WHEELHOUSE.",
        )
    write_file(bag, WHEELS, data)
    return WHEELS


def _read(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{key}: cannot read {file}: {error.strerror}", remedy="Check the path."
        ) from None
