"""The training specification: what a re-run will execute is the training of the selected run, and its code and data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bundler.checks.completeness import lock_of
from bundler.checks.model import Evidence, finding
from bundler.git_trees import blob_id, tree_id
from bundler.lockfiles import compare
from bundler.manifest import CODE, DATASETS
from bundler.placeholders import problems
from bundler.records import RunRecord, artefact_location
from bundler.report import Finding
from bundler.spec import CodeTree, TrainingSpec, TreeEntry


def training_specification(evidence: Evidence) -> Iterator[Finding]:
    """What a re-run will execute must be the training of the selected run, on the data that the run recorded."""
    training = evidence.contents.training
    if training is None:
        return
    run = evidence.contents.record(training.run)
    if run is None or training.run != evidence.contents.index.selection.run:
        yield finding("training-run", training.run, "is not the selected run")
        return
    if training.seed != run.seed:
        yield finding(
            "training-seed", run.id, f"seed {training.seed} is not the recorded {run.seed}"
        )
    if dict(training.parameters) != dict(run.parameters):
        yield finding("training-parameters", run.id, "the parameters are not the recorded ones")
    for problem in problems(training):
        yield finding("training-unrunnable", run.id, problem)
    if training.code != CODE or any(not item.path.startswith(DATASETS) for item in training.inputs):
        yield finding(
            "training-place",
            run.id,
            f"code and inputs must lie in {CODE} and {DATASETS}, and nowhere else",
        )
    yield from _code_findings(evidence, training, run)
    recorded = {data.sha256 for data in run.data if data.sha256}
    shipped = set()
    for item in training.inputs:
        shipped.add(item.sha256)
        if evidence.files.digests.get(item.path) != item.sha256:
            yield finding("training-input", item.path, "is not the declared input, or not there")
    if not recorded <= shipped:
        yield finding(
            "training-data",
            run.id,
            "data that the run recorded by SHA-256 are not among the shipped inputs",
        )
    yield from _installed_packages(evidence, run)
    yield from _compared_tensors(evidence, training)
    yield from given_results(evidence)


def _code_findings(evidence: Evidence, training: TrainingSpec, run: RunRecord) -> Iterator[Finding]:
    """The code must be the tree that git names, file by file, and that of the recorded commit."""
    trees = training.code_trees
    main = next((tree for tree in trees if not tree.at), None)
    if main is None:
        yield finding(
            "training-code-commit",
            run.id,
            f"that {CODE} is the code of commit {run.code.commit} cannot be seen from the bundle alone",
            "warning",
            "Compare it with a clone of the repository.",
        )
        return
    if run.code.commit is None or not main.commit.startswith(run.code.commit):
        yield finding(
            "code-other-commit",
            run.id,
            f"the run recorded commit {run.code.commit}, the code is that of {main.commit}",
        )
    elif not main.folder and run.code.tree not in {None, main.tree}:
        yield finding(
            "code-other-tree",
            run.id,
            f"the run recorded tree {run.code.tree}, the code is that of {main.tree}",
        )
    else:
        yield finding(
            "training-code-commit",
            run.id,
            f"{CODE} is git tree {main.tree}; that commit {main.commit} has it, `git rev-parse"
            f" {main.commit}:{main.folder}` says in any clone of the repository",
            "note",
        )
    yield from _tree_findings(evidence, trees, main.commit)


def _tree_findings(evidence: Evidence, trees: Sequence[CodeTree], commit: str) -> Iterator[Finding]:
    known: dict[str, TreeEntry] = {}
    submodules = {("", commit)}
    for tree in trees:
        if tree_id(tree.entries, tree.tree) != tree.tree:
            yield finding(
                "code-tree", tree.at or CODE, f"the listing does not have the id {tree.tree}"
            )
        prefix = f"{CODE}/{tree.at}/" if tree.at else f"{CODE}/"
        for entry in tree.entries:
            known[prefix + entry.path] = entry
            if entry.mode == "160000":
                submodules.add(((prefix + entry.path)[len(CODE) + 1 :], entry.id))
    for tree in trees:
        if (tree.at, tree.commit) not in submodules:
            yield finding("code-submodule", tree.at, f"no tree names it at {tree.commit}")
    present = set(evidence.files.below(CODE))
    for path in sorted(present):
        named = known.get(path)
        if named is None or blob_id(evidence.files.read(path), named.id) != named.id:
            yield finding("code-file", path, "is not the file of that name in the commit")
    left_out = sorted(
        path for path, entry in known.items() if path not in present and entry.mode != "160000"
    )
    if left_out:
        yield finding(
            "code-left-out",
            CODE,
            f"{len(left_out)} files of the commit are not in the bundle: {', '.join(left_out[:3])}",
            "note",
        )


def _installed_packages(evidence: Evidence, run: RunRecord) -> Iterator[Finding]:
    """A lock says what should be installed, a record what was: where they differ, the lock is not the training's."""
    lock = lock_of(evidence)
    if lock is None:
        return
    differences = compare(lock, run.environment)
    changed = [each for each in differences if each.kind == "another version"]
    if changed:
        named = ", ".join(
            f"{each.package} {each.recorded} (lock: {' or '.join(each.locked)})"
            for each in changed[:3]
        )
        yield finding(
            "lock-other-version",
            run.id,
            f"{len(changed)} packages were installed in another version than the lock pins: {named}",
            "warning",
            "Ask for the lock that the training was made with.",
        )
    absent = [each.package for each in differences if each.kind == "not in the lock"]
    if absent:
        yield finding(
            "lock-incomplete",
            run.id,
            f"{len(absent)} installed packages are not in the lock: {', '.join(absent[:3])}",
            "note",
        )


def _compared_tensors(evidence: Evidence, training: TrainingSpec) -> Iterator[Finding]:
    """Equal bits say something only if they are the model's."""
    model = evidence.contents.index.facts.model
    if training.outputs.tensors and model is not None and model not in training.outputs.tensors:
        yield finding(
            "training-tensors-not-model",
            model,
            "the tensors to be compared are not those of the model of this release",
            "warning",
        )
    run = evidence.contents.record(training.run)
    for artefact in run.artefacts if run is not None else ():
        missing = artefact_location(training.run, artefact) not in evidence.files
        if artefact.path in training.outputs.tensors and missing:
            yield finding(
                "training-tensors-missing",
                artefact.path,
                "is to be compared tensor by tensor and is not in the bundle",
                "note",
            )


def given_results(evidence: Evidence) -> Iterator[Finding]:
    """A training that is handed what it is to produce reproduces nothing. Only whole files can be recognised."""
    training, model = evidence.contents.training, evidence.contents.index.facts.model
    run = evidence.contents.record(training.run) if training is not None else None
    if training is None or run is None:
        return
    compared = {*training.outputs.tensors, model}
    results = {each.sha256 for each in run.artefacts if each.path in compared and each.sha256}
    given = [*evidence.files.below(training.code), *(item.path for item in training.inputs)]
    for path in given:
        if evidence.files.digests.get(path) in results:
            yield finding(
                "training-given-result",
                path,
                "the training is given the very file that it is to produce",
                "warning",
                "Take it out of code and inputs: copying it would look like reproducing it.",
            )
