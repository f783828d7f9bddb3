"""Shipping what a re-run needs: the code as committed, the data, the list of packages, the training specification."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bundler import canonical, codec
from bundler.config import BuildConfig, TrainingConfig
from bundler.errors import SourceError, UsageError
from bundler.lockfiles import parse_requirements
from bundler.manifest import path_problem
from bundler.records import RunRecord
from bundler.repository import Repository
from bundler.spec import TRAINING_FORMAT, Gap, Input, Outputs, TrainingSpec
from bundler.storage.writer import write_file

CODE = "data/code"
SPEC = "data/spec/training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """What came into the bag: the specification's path, the number of code files, the state of the lock, and gaps."""

    spec: str | None = None
    code_files: int = 0
    lock_present: bool = False
    lock_hashed: bool = False
    gaps: tuple[Gap, ...] = ()


def ship_training(config: BuildConfig, base: Path, bag: Path, selected: RunRecord) -> Shipped:
    """Write code, inputs, lock and ``training.json`` for the selected run into ``bag``."""
    training = config.training
    if training is None:
        return Shipped()
    code_files, gaps = _ship_code(config, training, base, bag, selected)
    inputs = tuple(
        _ship_input(name, base / path, bag) for name, path in sorted(training.inputs.items())
    )
    lock, hashed = _ship_lock(training, base, bag)
    if selected.seed is None:
        raise UsageError(
            f"the selected run {selected.id} records no seed, so its training cannot be specified",
            remedy="Log the seed and name it in facts.seed, or leave out the section training.",
        )
    spec = TrainingSpec(
        format=TRAINING_FORMAT,
        run=selected.id,
        seed=selected.seed,
        command=training.command,
        code=CODE,
        parameters=selected.parameters,
        environment=training.environment,
        inputs=inputs,
        outputs=Outputs(
            tracker=training.outputs.tracker,
            location=training.outputs.location,
            tensors=training.outputs.tensors,
        ),
        lock=lock,
        expected_seconds=_duration(selected),
    )
    write_file(bag, SPEC, canonical.serialise(codec.to_json(spec)))
    return Shipped(
        spec=SPEC,
        code_files=code_files,
        lock_present=lock is not None,
        lock_hashed=hashed,
        gaps=tuple(gaps),
    )


def _ship_code(
    config: BuildConfig, training: TrainingConfig, base: Path, bag: Path, selected: RunRecord
) -> tuple[int, list[Gap]]:
    """Ship the code of the commit that the selected run recorded; HEAD, with a gap, where that is not to be had."""
    folder = base / training.code
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder",
            remedy="Set training.code to the folder of the training code.",
        )
    repository = Repository(folder)
    gaps = []
    commit = selected.code.commit
    if commit is None or not repository.has(commit):
        commit = repository.head()
        if commit is None:
            raise SourceError(
                f"the repository of {folder} has no commit", remedy="Commit the code."
            )
        gaps.append(
            _gap(
                "required",
                "code-commit-missing",
                f"run {selected.id}",
                f"the recorded commit is not in the repository; the code shipped is that of {commit[:12]}",
                "Build from a clone that has the commit of the selected run.",
            )
        )
    stores = _below(folder, base, config)
    kept, left_out = [], []
    for file in repository.files(commit):
        path = f"{CODE}/{file.path}"
        if any(file.path == store or file.path.startswith(store + "/") for store in stores):
            continue
        if path_problem(path) is not None:
            left_out.append(file.path)
            continue
        write_file(bag, path, repository.read(file))
        kept.append(path)
    if left_out:
        gaps.append(
            _gap(
                "recommended",
                "code-left-out",
                f"{len(left_out)} files: {', '.join(map(ascii, left_out[:3]))}",
                "files whose names cannot stand in a bag (hidden, spaces, not ASCII) are left out",
                "Rename them if the training needs them.",
            )
        )
    return len(kept), gaps


def _below(folder: Path, base: Path, config: BuildConfig) -> list[str]:
    """The tracker stores that lie in the code folder: they are evidence, not code."""
    stores = []
    for source in config.sources:
        for path in (source.store, source.artefacts):
            if path is None:
                continue
            try:
                stores.append((base / path).resolve().relative_to(folder.resolve()).as_posix())
            except ValueError:
                continue
    return [store for store in stores if store != "."]


def _ship_input(name: str, file: Path, bag: Path) -> Input:
    data = _read(file, f"training.inputs.{name}")
    path = f"data/datasets/{name}/{file.name}"
    problem = path_problem(path)
    if problem is not None:
        raise UsageError(
            f"training.inputs.{name}: {file.name!r} cannot stand in a bag: {problem}",
            remedy="Rename the file.",
        )
    write_file(bag, path, data)
    return Input(name=name, path=path, sha256=hashlib.sha256(data).hexdigest())


def _ship_lock(training: TrainingConfig, base: Path, bag: Path) -> tuple[str | None, bool]:
    if training.lock is None:
        return None, False
    data = _read(base / training.lock, "training.lock")
    path = "data/environment/requirements.txt"
    write_file(bag, path, data)
    return path, parse_requirements(data.decode("utf-8", "replace")).hashed


def _read(file: Path, key: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{key}: cannot read {file}: {error.strerror}", remedy="Check the path."
        ) from None


def _duration(run: RunRecord) -> float | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return (
        datetime.fromisoformat(run.ended_at) - datetime.fromisoformat(run.started_at)
    ).total_seconds()


def _gap(level: str, code: str, subject: str, message: str, remedy: str) -> Gap:
    return Gap(
        level=level,  # type: ignore[arg-type]  # one of two words, above
        code=code,
        point="Annex IV 2(a)",
        subject=subject,
        message=message,
        remedy=remedy,
    )
