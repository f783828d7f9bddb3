"""``bundler rerun``: the selected training repeated with other seeds, by the provider, where the provider trains.

One run shows no variance. Three are the least from which an interval says anything, five are recommended
(docs/repeating.md). No sandbox: it is the provider's own code. The command, its parameters and its outputs are those of
``bundle.yaml``, as a verifier will run them, so what is repeated here can be repeated there.

Every run is kept, a failed one too: a log without the bad runs would be no evidence.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bundler import canonical, importers
from bundler.build import selected_run
from bundler.config import BuildConfig, SourceConfig, TrainingConfig
from bundler.errors import MalformedError, SourceError, UsageError
from bundler.gates import judge, measured
from bundler.intake import Intake
from bundler.manifest import CODE, DATASETS
from bundler.placeholders import expand, problems, values_for
from bundler.progress import Progress
from bundler.records import RunRecord
from bundler.repeat_runs import Attempt, Repeated, Training
from bundler.repeat_sources import new_sources, unreadable
from bundler.repository import Repository
from bundler.selection import (
    code_version,
    configuration,
    other_code,
    repetitions,
    same_configuration,
)
from bundler.spec import TRAINING_FORMAT, FactMap, GateResult, Input, Outputs, TrainingSpec
from bundler.statistics import pessimistic_bound, sample_variance
from bundler.storage.hashing import digest_bytes
from bundler.training import outputs_of

RECOMMENDED = 5
LEAST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to repeat. ``base`` is the folder that the paths of ``config`` are relative to, ``name`` its file there.

    ``seeds`` are to be run; with none, as many new ones as make ``runs`` independent runs with those of the log.
    """

    config: BuildConfig
    base: Path
    output: Path
    python: Path
    name: str = "bundle.yaml"
    seeds: tuple[int, ...] = ()
    runs: int = RECOMMENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be run: a training a seed. ``before`` counts the independent runs that the log has already.

    ``selected`` is the run that they repeat, ``warnings`` say why the results may not count.
    """

    request: Request
    selected: RunRecord
    records: tuple[RunRecord, ...]
    outputs: Outputs
    trainings: tuple[Training, ...]
    before: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A metric over independent runs: mean, and half the width of its 95 % t interval (``None`` for one run)."""

    metric: str
    runs: int
    mean: float
    half: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What declared and new runs came to: the ``sources`` to add, and what the log is with them.

    ``runs`` counts the independent ones. ``problems`` say of each new run that is no repetition why it is none.
    """

    sources: tuple[SourceConfig, ...]
    runs: int
    intervals: tuple[Interval, ...]
    gates: tuple[GateResult, ...]
    problems: tuple[str, ...]


def plan(request: Request, progress: Progress) -> Plan:
    """Read the log, find the selected run, and choose the seeds.

    Raises :class:`UsageError` where bundle.yaml does not say how to train or the command has no use for a seed, and
    :class:`SourceError`.
    """
    config, training = request.config, request.config.training
    if training is None:
        raise UsageError(
            "bundle.yaml does not say how to train", remedy="Write the section training."
        )
    with tempfile.TemporaryDirectory(prefix="bundler-rerun-") as folder:
        records = _records(config, request.base, progress, Path(folder))
    selected = selected_run(config.selection.run, records)
    _refuse_seedless(training, selected, config.facts)
    outputs = outputs_of(config, training, selected)
    known = repetitions(selected.id, records, config.facts)
    seeds = request.seeds or _next_seeds(request.runs - len(known), selected, records, config.facts)
    _refuse_known(request.seeds, known)
    code = (request.base / training.code).resolve()
    tree, warnings = _code_of(code, selected, _no_code(request))
    return Plan(
        request=request,
        selected=selected,
        records=records,
        outputs=outputs,
        trainings=_trainings(request, training, selected, code, tree, seeds),
        before=len(known),
        warnings=warnings,
    )


def repeated(plan: Plan) -> Repeated:
    """The runs of ``plan``, ready to begin: those that are finished in the output folder are not run again."""
    return Repeated(
        plan.request.output,
        plan.trainings,
        problem_of=lambda out: unreadable(out, plan.outputs),
    )


def conclude(plan: Plan, attempts: Iterable[Attempt], progress: Progress) -> Conclusion:
    """Read everything back as build-bundle will with the new sources, and compute what can be declared."""
    config, base = plan.request.config, plan.request.base
    problems = [f"seed {each.seed}: {each.problem}" for each in attempts if each.problem]
    sources, origins = new_sources(
        config, base, plan.request.output, plan.outputs, {each.source for each in plan.records}
    )
    whole = replace(config, sources=(*config.sources, *sources))
    with tempfile.TemporaryDirectory(prefix="bundler-rerun-") as folder:
        records = _records(whole, base, progress, Path(folder), predictions=True)
        gates = _gates(plan, records, Path(folder))
    runs = repetitions(plan.selected.id, records, config.facts)
    counted = {each.id for each in runs}
    finished = {f"seed-{each.seed}" for each in attempts if not each.problem}
    for record in records:
        name = origins.get(record.source)
        if name not in finished:
            continue
        if record.id not in counted:
            why = _why_none(record, plan.selected, config.facts)
            problems.append(f"{name} is no repetition: {why}")
        elif name != f"seed-{record.seed}":
            problems.append(f"{name} records the seed {record.seed}")
    metrics = dict.fromkeys(
        (
            *(each.metric for each in config.reproducibility.tolerances),
            *(gate.metric for gate in config.gates),
        )
    )
    found = (_interval(metric, runs) for metric in metrics)
    return Conclusion(
        sources=sources,
        runs=len(runs),
        intervals=tuple(each for each in found if each is not None),
        gates=gates,
        problems=tuple(problems),
    )


def _records(
    config: BuildConfig, base: Path, progress: Progress, bag: Path, *, predictions: bool = False
) -> tuple[RunRecord, ...]:
    """The log, as build-bundle makes it in ``bag``; with ``predictions`` those that a gate needs are there as well."""
    wanted = predictions and any(
        gate.sampling is not None and gate.sampling.kind == "predictions" for gate in config.gates
    )
    intake = Intake(replace(config, embed="selected" if wanted else "none"), base, bag)
    return tuple(intake.records(progress))


def _gates(plan: Plan, records: Sequence[RunRecord], bag: Path) -> tuple[GateResult, ...]:
    config, selected = plan.request.config, plan.selected

    def read(path: str) -> bytes:
        try:
            return (bag / path).read_bytes()
        except OSError:
            raise MalformedError("file-missing", f"{path} cannot be read") from None

    return judge(
        config.gates,
        selected.id,
        records,
        config.facts,
        measure=lambda sampling: measured(sampling, selected, read),
    )


def _refuse_seedless(training: TrainingConfig, selected: RunRecord, facts: FactMap) -> None:
    """A command that does not take the seed from us would repeat the same run, and nobody would notice."""
    if selected.seed is None:
        raise UsageError(
            f"the selected run {selected.id} records no seed, so it cannot be repeated with another one",
            remedy="Log the seed, and name it in facts.seed.",
        )
    words = " ".join((*training.command, *training.environment.values()))
    if "{seed}" not in words:
        raise UsageError(
            "training.command does not use {seed}, so each run would have the same one",
            remedy="Hand the seed over, such as --seed={seed}.",
        )
    fixed = f"{{{facts.seed.replace('parameters.', 'parameter.', 1)}}}"
    if fixed in words:
        raise UsageError(
            f"training uses {fixed}, which is the seed of the selected run in each repetition",
            remedy="Write {seed} there.",
        )


def _next_seeds(
    count: int, selected: RunRecord, records: Sequence[RunRecord], facts: FactMap
) -> tuple[int, ...]:
    """The first ``count`` of 1, 2, 3 … that no run of this configuration had, whatever became of it.

    Not chosen by anybody: who may choose seeds can choose results.
    """
    used = {each.seed for each in same_configuration(selected.id, records, facts)}
    free = (seed for seed in range(1, len(used) + max(count, 0) + 2) if seed not in used)
    return tuple(seed for seed, _ in zip(free, range(count), strict=False))


def _refuse_known(seeds: Sequence[int], known: Sequence[RunRecord]) -> None:
    twice = sorted({each.seed for each in known if each.seed is not None} & {*seeds})
    if twice:
        raise UsageError(
            f"the log has a finished run of this configuration with seed {twice[0]} already",
            remedy="Another one would not be independent of it: choose other seeds.",
        )


def _no_code(request: Request) -> tuple[str, ...]:
    """What is no code, from the code folder: bundle.yaml, the output folder, and the stores of trackers."""
    config, base = request.config, request.base
    code = (base / config.training.code).resolve() if config.training else base
    stores = (importers.located(base, each.store) for each in config.sources)
    served = (base / each.artefacts for each in config.sources if each.artefacts)
    places = [base / request.name, request.output, *stores, *served]
    found = (os.path.relpath(each.resolve(), code) for each in places if isinstance(each, Path))
    return tuple(each for each in found if each != "." and not each.startswith(".."))


def _code_of(
    code: Path, selected: RunRecord, besides: Iterable[str]
) -> tuple[str, tuple[str, ...]]:
    """The git tree that the runs will be of, and why they may not be of the selected run's code.

    What lies at ``besides`` is no code, so git may see it changed.
    """
    repository = Repository(code)
    head = repository.head()
    commit, its_tree = code_version(selected)
    if head is None:
        raise SourceError(f"the repository of {code} has no commit", remedy="Commit the code.")
    tree, warnings = repository.whole_tree(head), []
    if repository.is_dirty(besides):
        warnings.append(
            f"{code} has uncommitted changes: the runs will not be those of the commit; commit or stash them first"
        )
    if not commit:
        warnings.append(
            "the selected run records no commit: nobody can tell whether this is its code"
        )
    elif not repository.has(commit):
        warnings.append(
            f"the commit of the selected run is not in the repository of {code}: runs that record another one do not"
            " count as repetitions"
        )
    elif repository.commit(commit) != head and its_tree != tree:
        warnings.append(
            f"{code} is not at the code of the selected run, commit {commit[:12]}: runs that record another one do not"
            " count as repetitions; check that out first"
        )
    return tree, tuple(warnings)


def _trainings(  # noqa: PLR0913  # what a command is made from
    request: Request,
    training: TrainingConfig,
    selected: RunRecord,
    code: Path,
    tree: str,
    seeds: Iterable[int],
) -> tuple[Training, ...]:
    inputs = {name: request.base / path for name, path in training.inputs.items()}
    for name, path in inputs.items():
        if not path.is_file():
            raise SourceError(
                f"training.inputs.{name}: there is no file {path}", remedy="Check the path."
            )
    spec = TrainingSpec(
        format=TRAINING_FORMAT,
        run=selected.id,
        seed=selected.seed or 0,
        command=training.command,
        code=CODE,
        parameters=selected.parameters,
        environment=training.environment,
        inputs=tuple(Input(name=name, path=f"{DATASETS}{name}", sha256="") for name in inputs),
        outputs=training.outputs,
    )
    problem = next(problems(spec), None)
    if problem is not None:
        raise UsageError(f"training cannot be run: {problem}", remedy="Correct the section.")
    # What makes two runs runs of one training: the folder of a run may be of an earlier bundle.yaml or commit.
    words = [*spec.command, *spec.environment.items(), *map(str, spec.parameters.items()), tree]
    identity = digest_bytes(canonical.serialise([str(each) for each in words]))

    def of(seed: int) -> Training:
        values = values_for(
            spec,
            python=str(request.python),
            bundle="",
            out=str(request.output.absolute() / f"seed-{seed}"),
            seed=seed,
        )
        values |= {
            "code": str(code),
            **{f"input.{n}": str(p.absolute()) for n, p in inputs.items()},
        }
        return Training(
            seed=seed,
            command=tuple(expand(word, values) for word in spec.command),
            environment={name: expand(text, values) for name, text in spec.environment.items()},
            folder=code,
            identity=identity,
        )

    return tuple(of(seed) for seed in seeds)


def _why_none(record: RunRecord, selected: RunRecord, facts: FactMap) -> str:
    """Why ``record`` is no repetition of ``selected`` with another seed."""
    mine, its = dict(configuration(selected, facts)), dict(configuration(record, facts))
    names = sorted({name for name, _ in {*mine.items()} ^ {*its.items()}})
    if names:
        return f"other parameters than the selected run: {', '.join(map(ascii, names[:3]))}"
    if {(each.role, each.sha256) for each in record.data} != {
        (each.role, each.sha256) for each in selected.data
    }:
        return "it records other data than the selected run"
    code = other_code(selected, record)
    if code:
        return f"it is a run {code}"
    if record.status != "finished":
        return (
            f"its status is {record.status}; a metric of its end can say more (facts.finished_with)"
        )
    if record.seed is None:
        return "it records no seed"
    return f"a run with its seed {record.seed} is in the log already"


def _interval(metric: str, runs: Sequence[RunRecord]) -> Interval | None:
    """Mean and two-sided 95 % t interval of the last values; ``None`` if no run has one."""
    values = [value for run in runs if (value := run.value(metric)) is not None]
    if not values:
        return None
    half = None
    if len(values) > 1:
        variance = sample_variance(values) / len(values)
        parts = [(variance, len(values) - 1)]
        half = pessimistic_bound(0.0, parts, confidence=0.975, lower=False)
    return Interval(metric=metric, runs=len(values), mean=sum(values) / len(values), half=half)
