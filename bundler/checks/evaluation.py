"""The evaluation of the shipped model: that it can be run, starts the examined code and is given the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bundler import launching
from bundler.checks.model import Evidence, finding
from bundler.errors import quoted
from bundler.manifest import CODE
from bundler.placeholders import artefacts_named, evaluation_problems
from bundler.records import artefact_location
from bundler.report import Finding


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


def recorded_artefacts(evidence: Evidence) -> Mapping[str, str]:
    """The artefacts of the run to be trained: path in the tracker → where its bytes lie in the bag, if it has them."""
    training = evidence.contents.training
    run = evidence.contents.record(training.run) if training is not None else None
    if run is None:
        return {}
    return {each.path: artefact_location(run.id, each) for each in run.artefacts if each.sha256}
