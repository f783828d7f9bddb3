"""The evaluation of the shipped model: that it can be run, starts the examined code and is given the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from bundler import launching
from bundler.checks.model import Evidence, finding
from bundler.errors import quoted
from bundler.manifest import CODE
from bundler.placeholders import artefacts_named, evaluation_problems
from bundler.records import artefact_location
from bundler.report import Finding
from bundler.spec import TrainingSpec


def evaluation_specification(evidence: Evidence) -> Iterator[Finding]:
    """What ``--evaluate`` will execute must score the model of this release with the code that was examined."""
    training = evidence.contents.training
    evaluation = training.evaluation if training is not None else None
    if training is None or evaluation is None:
        return
    known, named = recorded_artefacts(evidence), artefacts_named(evaluation.command)
    for problem in evaluation_problems(training, evaluation, known):
        yield finding("evaluation-unrunnable", training.run, problem)
    for path in named:
        if path in known and known[path] not in evidence.files:
            yield finding(
                "evaluation-artefact-missing",
                path,
                "is what the evaluation is given and is not in the bundle, so nobody can run it from the bundle alone",
                "note",
            )
    yield from _given_results(evidence, training, named, known)
    files = [path[len(CODE) + 1 :] for path in evidence.files.below(CODE)]
    # What the environment can bring in is said of the training, which has the same.
    for code, reason in launching.problems(evaluation.command, {}, files, training.parameters):
        yield finding(
            code,
            training.run,
            f"the evaluation's command runs other code than that of {CODE}: {quoted(reason, 160)}",
            "warning",
            "Look at what it runs: the code that was examined may not be it.",
        )
    model = evidence.contents.index.facts.model
    if model is None or model not in named:
        yield finding(
            "evaluation-without-model",
            training.run,
            "the command of the evaluation is not given the model of this release, so what it scores is another one",
            "warning",
            "The provider can name it in training.evaluation.command: {artefact.PATH}, with the path in facts.model.",
        )


def _given_results(
    evidence: Evidence, training: TrainingSpec, named: Iterable[str], known: Mapping[str, str]
) -> Iterator[Finding]:
    """What already says the results, or what the model is to predict, is no input of scoring."""
    facts = evidence.contents.index.facts
    environment = (facts.environment or "").removeprefix("artefacts.")
    samplings = [gate.sampling for gate in evidence.contents.index.gates if gate.sampling]
    predictions = {
        each.path
        for each in (training.outputs.predictions, *(each.predictions for each in samplings))
        if each is not None
    }
    for path in named:
        if path == facts.model:
            continue
        if path in predictions:
            why = "the predictions of the run"
        elif path == environment:
            why = "the record of the run's environment"
        elif _is_history(path, training.outputs.histories):
            why = "a record of metrics"
        elif _tells_figures(evidence, training, known.get(path, "")):
            why = "a file with the declared figures in it"
        else:
            continue
        yield finding(
            "evaluation-given-results",
            path,
            f"the evaluation is given {why}, so what it gives may be read there and not computed",
            "warning",
            "The provider can give it the model and the data alone. Figures that stand in the code itself are not"
            " seen here: read it.",
        )


_HISTORIES = (
    *("metrics.*", "metric.*", "*/metrics/*", "results.*", "history.*", "scores.*", "summary.*"),
    *("*_metrics.*", "*_results.*", "wandb-summary.json", "*.wandb", "trainer_state.json"),
    *("*tfevents*", "progress.csv", "*.log"),
)
"""Names under which trackers and trainers keep metrics."""


def _is_history(path: str, declared: Iterable[str]) -> bool:
    name = path.lower().rpartition("/")[2]
    return any(fnmatchcase(path, pattern) for pattern in declared) or any(
        fnmatchcase(each, pattern) for pattern in _HISTORIES for each in (name, f"/{path.lower()}")
    )


LARGEST_READ = 4 << 20
"""Bytes of a file in which figures are looked for."""

DIGITS = 10
"""Digits of a figure that no other number has by chance."""


def _tells_figures(evidence: Evidence, training: TrainingSpec, place: str) -> bool:
    """Whether a small file has a declared figure of the hold-out in it, written with :data:`DIGITS` or more."""
    run = evidence.contents.record(training.run)
    if run is None or place not in evidence.files or evidence.files.sizes[place] > LARGEST_READ:
        return False
    figures = (run.value(each.name) for each in run.metrics if each.role == "hold-out")
    written = [repr(each) for each in figures if each is not None]
    long = [each for each in written if sum(map(str.isdigit, each.lstrip("-0."))) >= DIGITS]
    data = evidence.files.read(place) if long else b""
    return any(each.encode() in data for each in long)


def recorded_artefacts(evidence: Evidence) -> Mapping[str, str]:
    """The artefacts of the run to be trained: path in the tracker → where its bytes lie in the bag, if it has them."""
    training = evidence.contents.training
    run = evidence.contents.record(training.run) if training is not None else None
    if run is None:
        return {}
    return {each.path: artefact_location(run.id, each) for each in run.artefacts if each.sha256}
