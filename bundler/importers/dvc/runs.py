"""Which runs a DVC repository holds: experiments, what failed or waits in the queue, and commits with results.

DVC keeps an experiment as a commit under ``refs/exps/BASELINE/NAME``, outside every branch. What ``dvc exp run
--queue`` took is a stash entry until it has run; if it fails, the entry moves to ``refs/exps/celery/failed``. Without
experiments, people commit ``dvc.lock`` and metrics on a branch: each commit that brings new results is a run as well,
unless an experiment has the very same (``dvc exp apply`` or ``branch`` brought them there). Results in the working tree
that no commit has are a run too. An experiment that was removed leaves no trace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from bundler.importers.dvc.git import Blob, Repository, is_id
from bundler.importers.dvc.trees import WorkingTree
from bundler.importers.values import clean

Kind = Literal["experiment", "commit", "failed", "queued", "workspace"]

WORKSPACE = "workspace"
"""Id of the run whose results are in no commit yet."""

MAX_RESULT = 256 << 20
"""Most bytes of a result file of the working tree."""

_EXPERIMENT = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})/(.+)")
_STASHED = re.compile(r"(?:commit: )?dvc-exp:[0-9a-f]+:([0-9a-f]+):([^~^:\\?\[\]*]*)(?::.*)?\Z")
_QUEUES: tuple[tuple[Kind, str], ...] = (
    ("failed", "refs/exps/celery/failed"),
    ("queued", "refs/exps/celery/stash"),
)
_RESULTS = {"dvc.lock", "metrics.json"}

Results = frozenset[tuple[str, str]]
"""Path and id of the files that say what came out of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run by its commit (that of HEAD for the working tree). ``baseline``: what an experiment started from.

    ``doubt``: name and detail of a fidelity flag, for an entry of the queue that is not as DVC writes it.
    """

    kind: Kind
    commit: str
    name: str | None
    baseline: str | None = None
    doubt: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        """The commit, which names the run in DVC as well."""
        return WORKSPACE if self.kind == "workspace" else self.commit

    @property
    def ran(self) -> bool:
        """Whether what its commit holds are results of its own, not left over from an earlier run."""
        return self.kind not in {"failed", "queued"}


def find(repository: Repository, working: WorkingTree, metrics: set[str]) -> list[Found]:
    """All runs, each once. ``metrics``: files of metrics that the pipeline names, beside ``metrics.json``."""
    runs: dict[str, Found] = {}
    for each in (*_experiments(repository), *_queued(repository)):
        known = runs.setdefault(each.commit, each)
        if known is not each and known.kind == each.kind:
            both = ", ".join(name for name in (known.name, each.name) if name)
            runs[each.commit] = replace(known, name=both or None)
    seen = {_results(repository.files(run.commit), metrics) for run in runs.values() if run.ran}
    baselines = {run.baseline for run in runs.values() if run.baseline is not None}
    names = _names(repository)
    paths = (":(glob)**/dvc.lock", ":(glob)**/metrics.json", *(f":(literal){m}" for m in metrics))
    for commit in repository.changing(tuple(paths), set(filter(repository.has, baselines))):
        results = _results(repository.files(commit), metrics)
        if results and results not in seen and commit not in runs:
            runs[commit] = Found(kind="commit", commit=commit, name=names.get(commit))
        seen.add(results)
    found = list(runs.values())
    uncommitted = _uncommitted(working, metrics)
    if uncommitted and uncommitted not in seen:
        head = repository.head() or ""
        found.append(Found(kind="workspace", commit=head, name=WORKSPACE))
    return found


def _experiments(repository: Repository) -> Iterator[Found]:
    for ref, commit in repository.refs("refs/exps"):
        parts = _EXPERIMENT.fullmatch(ref)
        if parts is not None:
            baseline = parts[1] + parts[2]
            yield Found(kind="experiment", commit=commit, name=clean(parts[3]), baseline=baseline)


def _queued(repository: Repository) -> Iterator[Found]:
    """Entries of the queues. A ref holds its newest one, git's log of the ref all, but a clone has no logs."""
    for kind, ref in _QUEUES:
        tip = dict(repository.refs(ref)).get(ref)
        if tip is None:
            continue
        entries = repository.log(ref)
        if not entries or entries[0][0] != tip:
            lost = ("queue_log_missing", f"git has no log of {ref} to its end: others may be lost")
            yield _entry(kind, tip, repository.subject(tip), lost)
        for commit, message in entries:
            yield _entry(kind, commit, message, None)


def _entry(kind: Kind, commit: str, message: str, doubt: tuple[str, str] | None) -> Found:
    parts = _STASHED.match(message)
    if parts is None:
        doubt = doubt or (
            "queue_entry_unnamed",
            "its message names neither experiment nor baseline",
        )
        return Found(kind=kind, commit=commit, name=None, doubt=doubt)
    baseline = parts[1] if is_id(parts[1]) else None
    name = clean(parts[2]) or None
    return Found(kind=kind, commit=commit, name=name, baseline=baseline, doubt=doubt)


def _names(repository: Repository) -> dict[str, str]:
    """Commit → the branch or else tag that is there, the first by name."""
    found: dict[str, str] = {}
    for kind in ("refs/heads", "refs/tags"):
        for ref, commit in repository.refs(kind):
            found.setdefault(commit, clean(ref[len(kind) + 1 :]) or "")
    return found


def _results(files: Mapping[str, Blob], metrics: set[str]) -> Results:
    return frozenset((path, blob.id) for path, blob in files.items() if _is_result(path, metrics))


def _uncommitted(working: WorkingTree, metrics: set[str]) -> Results:
    results = set()
    for path in working.files:
        if _is_result(path, metrics):
            with suppress(ValueError):
                results.add((path, working.blob(path, MAX_RESULT).id))
    return frozenset(results)


def _is_result(path: str, metrics: set[str]) -> bool:
    return path in metrics or path.rpartition("/")[2] in _RESULTS
