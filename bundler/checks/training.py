"""The training specification: what a re-run will execute is the training of the selected run, and its code and data."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bundler import launching
from bundler.checks.model import Evidence, finding
from bundler.errors import quoted
from bundler.git_trees import FOLDER, blob_id, is_plain, tree_id
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
    yield from _same_facts(evidence, training)
    if training.code != CODE or any(not item.path.startswith(DATASETS) for item in training.inputs):
        yield finding(
            "training-place",
            run.id,
            f"code and inputs must lie in {CODE} and {DATASETS}, and nowhere else",
        )
    yield from _code_findings(evidence, training, run)
    yield from _command_findings(evidence, training)
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


def _same_facts(evidence: Evidence, training: TrainingSpec) -> Iterator[Finding]:
    """A re-run is read by the specification's maps of facts and images, the records were by those of the index."""
    index = evidence.contents.index
    if (training.facts, training.images) != (index.facts, index.images):
        words = "facts and images are not those of the index: a re-run would be read otherwise"
        yield finding("training-facts", training.run, words)


def _code_findings(evidence: Evidence, training: TrainingSpec, run: RunRecord) -> Iterator[Finding]:
    """The code must be the tree that git names, file by file, and that of the recorded commit."""
    trees = training.code_trees
    places = [tree.at for tree in trees]
    if "" not in places:
        yield finding(
            "training-code-commit",
            run.id,
            f"that {CODE} is the code of commit {run.code.commit} cannot be seen from the bundle alone",
            "warning",
            "Compare it with a clone of the repository.",
        )
        return
    unfit = [at for at, count in Counter(places).items() if count > 1]
    unfit += [at for at in places if not (at == "" or is_plain(at))]
    unfit += [tree.commit for tree in trees if len(tree.commit) != len(tree.tree)]
    if (
        len(trees) > MAX_TREES
        or sum(len(tree.at) * len(tree.entries) for tree in trees) > MAX_NAMES
    ):
        unfit.append("more than a verifier reads")
    unfit += [tree.folder for tree in trees if not (tree.folder == "" or is_plain(tree.folder))]
    if unfit:
        yield finding("code-tree", CODE, f"{quoted(unfit[0])}: listed twice, or no place for code")
        return
    main = trees[places.index("")]
    yield from _commit_findings(main, run)
    yield from _tree_findings(evidence, trees, main)
    for tree in trees:
        where = f"{CODE}/{tree.at}".rstrip("/")
        command = shlex.join(["git", "rev-parse", f"{tree.commit}:{tree.folder}"])
        yield finding(
            "training-code-commit",
            run.id,
            f"{where} is git tree {tree.tree}; that commit {tree.commit} has it is the provider's word until"
            f" `{command}` says the same in a clone of the repository",
            "note",
        )


def _commit_findings(main: CodeTree, run: RunRecord) -> Iterator[Finding]:
    """The tree must be that of the commit, and of the tree, that the run recorded."""
    commit = (run.code.commit or "").lower()
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit) or not main.commit.startswith(commit):
        recorded = f"commit {quoted(commit)}" if commit else "no commit"
        yield finding(
            "code-other-commit",
            run.id,
            f"the run recorded {recorded}, the code is that of {main.commit}",
        )
    root = _root_tree(main)
    if root is None:
        yield finding(
            "code-tree",
            CODE,
            f"the folders above {main.folder} do not lead to its tree {main.tree}",
        )
    elif run.code.tree not in {None, root}:
        yield finding(
            "code-other-tree",
            run.id,
            f"the run recorded tree {run.code.tree}, the code is from {root}",
        )


def _root_tree(main: CodeTree) -> str | None:
    """The tree of the whole commit, computed upwards from ``folder``; ``None`` if the listings do not fit."""
    names = main.folder.split("/") if main.folder else []
    if len(names) != len(main.above):
        return None
    below = main.tree
    for name, listing in zip(reversed(names), reversed(main.above), strict=True):
        if TreeEntry(mode=FOLDER, id=below, path=name) not in listing:
            return None
        below = tree_id(listing, main.tree, listed=False)
    return below


def _tree_findings(
    evidence: Evidence, trees: Sequence[CodeTree], main: CodeTree
) -> Iterator[Finding]:
    known: dict[str, TreeEntry] = {}
    for tree in trees:
        if tree_id(tree.entries, tree.tree) != tree.tree:
            yield finding(
                "code-tree", tree.at or CODE, f"the listing does not have the id {tree.tree}"
            )
        prefix = f"{tree.at}/" if tree.at else ""
        for entry in tree.entries:
            # What a submodule holds, its own listing names alone.
            if known.setdefault(prefix + entry.path, entry) is not entry:
                yield finding("code-tree", prefix + entry.path, "two listings name it")
    submodules = {(path, entry.id) for path, entry in known.items() if entry.mode == SUBMODULE}
    for tree in trees:
        if tree is not main and (tree.at, tree.commit) not in submodules:
            yield finding("code-submodule", tree.at, f"no tree names it at {tree.commit}")
    yield from _file_findings(evidence, known)


def _file_findings(evidence: Evidence, known: Mapping[str, TreeEntry]) -> Iterator[Finding]:
    """Every file of the code must be the committed one; what is left out is said."""
    present = {path[len(CODE) + 1 :] for path in evidence.files.below(CODE)}
    for path in sorted(present):
        named = known.get(path)
        data = evidence.files.read(f"{CODE}/{path}")
        if named is None or named.mode not in _FILES or blob_id(data, named.id) != named.id:
            yield finding(
                "code-file", f"{CODE}/{path}", "is not the file of that name in the commit"
            )
    left_out = sorted(
        path for path, entry in known.items() if path not in present and entry.mode != SUBMODULE
    )
    if left_out:
        yield finding(
            "code-left-out",
            CODE,
            f"{len(left_out)} files of the commit are not in the bundle: {', '.join(map(quoted, left_out[:3]))}",
            "note",
        )


def _command_findings(evidence: Evidence, training: TrainingSpec) -> Iterator[Finding]:
    """What runs must be the code that was examined, not a word of the command or an input."""
    files = [path[len(CODE) + 1 :] for path in evidence.files.below(CODE)]
    command, values = training.command, training.parameters
    for code, reason in launching.problems(command, training.environment, files, values):
        if code == launching.COMMAND:
            yield finding(
                "training-command-elsewhere",
                training.run,
                f"the command runs no file of {CODE}, or other code too: {quoted(reason, 160)}",
                "warning",
                "Look at what it runs: the code that was examined may not be it.",
            )
        else:
            yield finding(
                "training-code-elsewhere",
                training.run,
                f"other code than that of {CODE} can be brought in: {quoted(reason, 160)}",
                "warning",
                "Look at what the named option or variables point to.",
            )


MAX_TREES = 1000
MAX_NAMES = 1 << 26
"""Most characters that the places of all entries may come to: a small file can name a large one many times."""

_FILES = {"100644", "100755", "100664"}
SUBMODULE = "160000"


def _installed_packages(evidence: Evidence, run: RunRecord) -> Iterator[Finding]:
    """A lock says what should be installed, a record what was: where they differ, the lock is not the training's."""
    if evidence.lock is None:
        return
    differences = compare(evidence.lock, run.environment)
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
