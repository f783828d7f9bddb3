"""What Annex IV and the reproducibility specification ask for, and what the evidence does not show: the gaps.

A gap of level *required* means that the claim "completeness" is not met. One *recommended* weakens the evidence and
is shown. Each requirement is one row; a run requirement is asked of every run with one of its statuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bundler.lockfiles import Lock
from bundler.manifest import is_sha256
from bundler.records import FidelityFlag, RunRecord, is_date, moment
from bundler.selection import repetitions
from bundler.spec import (
    FactMap,
    GapLevel,
    Gate,
    ImageIdentity,
    ReproducibilitySpec,
    SelectionSpec,
    System,
)

MIN_REPETITIONS = 3
"""Fewest independent runs of the selected configuration that show a variance between seeds."""

MANY_BY_HAND = 10
"""From so many experiments a quarter on, a log that is kept by hand is no longer adequate."""

_SKIPPED = {
    "symlink_skipped": "it is there as a link, or behind one, which is not followed",
    "special_skipped": "it is there, but not as a regular file",
    "missing": "it is named, but the file is missing",
    "unreadable": "its folder could not be listed",
    "artefacts_unreachable": "the artefacts are not on this machine",
}
"""What importers flag where an artefact is not taken, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Everything that requirements look at. ``lock`` is ``None`` where there is none that can be read."""

    system: System
    selection: SelectionSpec
    reproducibility: ReproducibilitySpec
    gates: tuple[Gate, ...]
    facts: FactMap
    records: Sequence[RunRecord]
    has_training_spec: bool
    code_files: int
    lock: Lock | None
    images: tuple[ImageIdentity, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One row. ``point`` is where it is asked; whether it is shown, the kinds of requirement below say."""

    code: str
    level: GapLevel
    point: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequirement(Requirement):
    """Asked of each run; ``finished_only`` spares runs that ended before they could have it.

    ``why`` says of a run that does not show it what its record says about the reason, "" for nothing.
    """

    shown: Callable[[RunRecord], bool]
    finished_only: bool = False
    why: Callable[[RunRecord], str] = lambda _: ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleRequirement(Requirement):
    """Asked once."""

    shown: Callable[[Declared], bool]


def run_requirements(facts: FactMap) -> tuple[RunRequirement, ...]:
    """What every run must show, given where this provider keeps its facts."""
    return (
        RunRequirement(
            code="run-code-version",
            level="required",
            point="Annex IV 2(a)",
            message="no code version is recorded",
            remedy="Train from git, log the commit and name it in facts.code_commit, or use `bundler capture`.",
            shown=lambda run: run.code.commit is not None,
        ),
        RunRequirement(
            code="run-code-clean",
            level="recommended",
            point="Annex IV 2(a)",
            message="whether the working tree was clean is not recorded: unknown is not clean",
            remedy="Log the state of the tree and name it in facts.code_dirty, or use `bundler capture`.",
            shown=lambda run: run.code.dirty is not None,
        ),
        RunRequirement(
            code="run-code-dirty",
            level="recommended",
            point="Annex IV 2(a)",
            message="trained from a working tree with uncommitted changes",
            remedy="Train the released model from a commit.",
            shown=lambda run: run.code.dirty is not True,
        ),
        RunRequirement(
            code="run-data-version",
            level="required",
            point="Annex IV 2(d)",
            message="no data version with a SHA-256 is recorded (a tracker's own digest is no identity)",
            remedy="Log the SHA-256 of the data as a tag or parameter and name it in facts.data_sha256.",
            shown=lambda run: any(is_sha256(each.sha256 or "") for each in run.data),
        ),
        RunRequirement(
            code="run-parameters",
            level="required",
            point="Annex IV 2(b)",
            message="no hyperparameters are recorded",
            remedy="Log them as parameters of the run.",
            shown=lambda run: bool(run.parameters),
        ),
        RunRequirement(
            code="run-seed",
            level="required",
            point="reproducibility: seed",
            message="no seed is recorded",
            remedy="Log the seed as a parameter and name it in facts.seed.",
            shown=lambda run: run.seed is not None,
        ),
        RunRequirement(
            code="run-environment",
            level="required",
            point="Annex IV 2(c)",
            message="no compute environment is recorded",
            remedy="Log what `bundler capture` writes (docs/capture.md), and name it in facts.environment.",
            shown=lambda run: bool(run.environment),
            finished_only=True,
            why=lambda run: _absence(run, (facts.environment or "").removeprefix("artefacts.")),
        ),
        RunRequirement(
            code="run-times",
            level="required",
            point="Annex IV 2(g)",
            message="start or end time is missing",
            remedy="Log times: `timestamp` in each line of plain files, timestamp=True in DVCLive; end runs properly.",
            shown=lambda run: run.started_at is not None and run.ended_at is not None,
            finished_only=True,
        ),
        RunRequirement(
            code="run-history",
            level="required",
            point="Annex IV 2(g)",
            message="no metric was logged at more than one step",
            remedy="Log metrics at every epoch; or attach a history that an artefact holds (sources.histories).",
            shown=lambda run: any(each.points > 1 for each in run.metrics),
            finished_only=True,
        ),
        RunRequirement(
            code="run-hold-out",
            level="required",
            point="Annex IV 2(g), 3",
            message="no final hold-out metric",
            remedy="Log them at the end of training and list their names in facts.metrics under hold-out.",
            shown=lambda run: any(each.role == "hold-out" for each in run.metrics),
            finished_only=True,
        ),
        RunRequirement(
            code="run-model",
            level="required",
            point="Annex IV 2(a), 2(c)",
            message="no model artefact with a content hash",
            remedy="Log the model as an artefact and name its path in facts.model.",
            shown=lambda run: any(
                each.path == facts.model and each.sha256 for each in run.artefacts
            ),
            finished_only=True,
            why=lambda run: _absence(run, facts.model or ""),
        ),
        RunRequirement(
            code="source-damaged",
            level="recommended",
            point="Annex IV 2(g)",
            message="the source is damaged, and a part of the run could not be read",
            remedy="Import an intact copy; the record of each run names file and place under fidelity.",
            shown=lambda run: not any(_is_damage(flag) for flag in run.fidelity),
        ),
        RunRequirement(
            code="artefact-missing",
            level="recommended",
            point="Annex IV 2(g)",
            message="artefacts are named and not there, or are links or special files, which are not followed",
            remedy="Put the files themselves there (the record of each run names them under fidelity and artefacts).",
            shown=lambda run: all(each.sha256 for each in run.artefacts) and not any(_skipped(run)),
        ),
    )


BUNDLE_REQUIREMENTS: tuple[BundleRequirement, ...] = (
    BundleRequirement(
        code="system-identity",
        level="required",
        point="Annex IV 1(a)",
        message="name or version of the system is not stated",
        remedy="Write system.name and system.version.",
        shown=lambda d: _written(d.system.name) and _written(d.system.version),
    ),
    BundleRequirement(
        code="intended-purpose",
        level="required",
        point="Annex IV 1(a)",
        message="the intended purpose is not stated",
        remedy="Write system.intended_purpose.",
        shown=lambda d: _written(d.system.intended_purpose),
    ),
    BundleRequirement(
        code="provider",
        level="required",
        point="Annex IV 1(a)",
        message="the provider is not named",
        remedy="Write system.provider.",
        shown=lambda d: _written(d.system.provider),
    ),
    BundleRequirement(
        code="responsible-person",
        level="recommended",
        point="Annex IV 2(g)",
        message="test reports are to be signed by the responsible persons; none is named",
        remedy="Write system.responsible.",
        shown=lambda d: _written(d.system.responsible or ""),
    ),
    BundleRequirement(
        code="rationale",
        level="required",
        point="Annex IV 2(b)",
        message="why the selected model was selected is not written down",
        remedy="Write selection.rationale.",
        shown=lambda d: _written(d.selection.rationale),
    ),
    BundleRequirement(
        code="criteria-dated",
        level="recommended",
        point="Art. 9(8)",
        message="the selection criteria are not dated",
        remedy="Write selection.declared_at: when the criteria were fixed, as 2026-11-25.",
        shown=lambda d: is_date(d.selection.declared_at),
    ),
    BundleRequirement(
        code="candidates",
        level="required",
        point="Annex IV 2(b)",
        message="the log holds no run beside the selected one, so nothing shows a choice",
        remedy="Import the whole experiment, baselines and rejected runs included.",
        shown=lambda d: len(d.records) > 1,
    ),
    BundleRequirement(
        code="log-adequacy",
        level="recommended",
        point="Annex IV 2(g)",
        message=f"{MANY_BY_HAND} or more experiments of one quarter were logged by hand",
        remedy="Use an experiment tracker: at this rate a spreadsheet misses runs, and nobody would see it.",
        shown=lambda d: max(_by_hand(d.records).values(), default=0) < MANY_BY_HAND,
    ),
    BundleRequirement(
        code="gates",
        level="required",
        point="Art. 9(8)",
        message="no validation gate is declared",
        remedy="Declare gates with metric, comparator and threshold.",
        shown=lambda d: bool(d.gates),
    ),
    BundleRequirement(
        code="gate-fairness",
        level="recommended",
        point="Annex IV 2(g), 3",
        message="no gate of category fairness",
        remedy="Declare a gate over a disparity metric, with the groups of the hold-out.",
        shown=lambda d: any(gate.category == "fairness" for gate in d.gates),
    ),
    BundleRequirement(
        code="repetitions",
        level="required",
        point="reproducibility: repeated runs",
        message=f"fewer than {MIN_REPETITIONS} runs of the selected configuration with different seeds",
        remedy="Repeat it with three to five seeds at the commit of the selected run (`bundler rerun`); others, and"
        " those of another git tree, do not count.",
        shown=lambda d: len(repetitions(d.selection.run, d.records, d.facts)) >= MIN_REPETITIONS,
    ),
    BundleRequirement(
        code="mechanisms",
        level="required",
        point="reproducibility: mechanisms",
        message="how repeatability is brought about is not written down",
        remedy="Write reproducibility.mechanisms.",
        shown=lambda d: any(map(_written, d.reproducibility.mechanisms)),
    ),
    BundleRequirement(
        code="limitations",
        level="recommended",
        point="reproducibility: limitations",
        message="no known limitation of the reproducibility is written down",
        remedy="Write reproducibility.limitations and factors_of_variation.",
        shown=lambda d: any(map(_written, d.reproducibility.limitations)),
    ),
    BundleRequirement(
        code="tolerances",
        level="required",
        point="reproducibility: tolerance bounds",
        message="no tolerance is declared for a metric",
        remedy="Write reproducibility.tolerances: an absolute margin a metric.",
        shown=lambda d: bool(d.reproducibility.tolerances),
    ),
    BundleRequirement(
        code="training-spec",
        level="required",
        point="Annex VII 4.4",
        message="nothing says how to repeat the training",
        remedy="Write the section training: code, command, inputs, outputs.",
        shown=lambda d: d.has_training_spec,
    ),
    BundleRequirement(
        code="code-included",
        level="required",
        point="Annex IV 2(a)",
        message="the training code is not in the bundle",
        remedy="Set training.code to the folder of the training repository.",
        shown=lambda d: d.code_files > 0,
    ),
    BundleRequirement(
        code="lock",
        level="required",
        point="Annex IV 1(c)",
        message="no list of the software versions is in the bundle",
        remedy="Set training.lock to a lock file or pinned requirements.",
        shown=lambda d: d.lock is not None and d.lock.lists_any,
    ),
    BundleRequirement(
        code="lock-hashed",
        level="recommended",
        point="Annex IV 1(c)",
        message="it is not shown that every dependency, transitive ones included, is pinned with a hash",
        remedy="Use a lock that has the graph: uv.lock, poetry.lock, pylock.toml, pixi.lock (docs/lock-files.md).",
        shown=lambda d: d.lock is not None and d.lock.answer == "yes",
    ),
    BundleRequirement(
        code="image-unresolved",
        level="recommended",
        point="Annex IV 1(c), 2(c)",
        message="a container image is named by a tag alone, or which of several is meant stays open",
        remedy="Name it by digest (repository@sha256:…), or give the image and its platform (images).",
        shown=lambda d: all(image.resolved for image in d.images),
    ),
)


def _by_hand(records: Sequence[RunRecord]) -> Counter[str]:
    """Number of runs of experiment logs by the quarter in which they started, such as 2026-Q1."""
    manual = (run.started_at for run in records if run.source.tracker == "experiment-log")
    times = filter(None, map(moment, manual))
    return Counter(f"{time.year}-Q{(time.month + 2) // 3}" for time in times)


def _is_damage(flag: FidelityFlag) -> bool:
    """Whether ``flag`` says that the import could not read all that there was, not what the tracker did before."""
    if flag.flag in {"truncated_file", "id_mismatch", "digest_mismatch", "hash_mismatch"}:
        return True
    whole = flag.field in {"run", "environment", "data", "metrics", "parameters"}
    return whole and flag.flag in {"truncated", "unreadable", "beginning_missing"}


def _skipped(run: RunRecord) -> Iterator[FidelityFlag]:
    """The flags of files that were named or seen, and not taken."""
    return (each for each in run.fidelity if each.field == "artefacts" and each.flag in _SKIPPED)


def _absence(run: RunRecord, path: str) -> str:
    """Why the bytes of artefact ``path`` are not known, as far as the record says."""
    for flag in _skipped(run):
        place = flag.detail.rstrip("/")
        # A place is a file, a folder above it, or "." for all of them; an address that leads nowhere names none.
        everywhere = place == "." or (
            flag.flag == "artefacts_unreachable" and not place.startswith("models/")
        )
        if path and (everywhere or path == place or path.startswith(f"{place}/")):
            return _SKIPPED[flag.flag]
    listed = any(each.path == path and not each.sha256 for each in run.artefacts)
    return _SKIPPED["missing"] if listed else ""


def _written(text: str) -> bool:
    """Whether a human wrote something: ``bundler init`` leaves TODO in the places that it cannot fill."""
    return bool(text.strip()) and not text.strip().upper().startswith("TODO")
