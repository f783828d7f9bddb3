"""What a training repository shows by itself: git, locks, versions, data, tracker store, runs."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from bundler import importers
from bundler.config import SourceConfig
from bundler.errors import MalformedError, SourceError
from bundler.facts import MAX_ENVIRONMENT_BYTES, read_environment
from bundler.importers.model import ArtefactFile, ImportedRun, Importer, Store
from bundler.lockfiles import parse as parse_lock
from bundler.manifest import path_problem
from bundler.records import without_credentials
from bundler.repository import Repository

LOCKS = (
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    "pixi.lock",
    "conda-lock.yml",
    "Pipfile.lock",
    "requirements.lock",
    "requirements.txt",
)
"""Those that show the most come first."""
ROLES = {
    "hold-out": ("holdout", "hold_out", "test"),
    "validation": ("val", "valid", "best_val", "dev"),
    "training": ("train",),
}
ENVIRONMENTS = ("environment.json", "env.json")
SHOWN = 5
"""How many choices are listed."""

MAX_DATA = 200_000_000
"""Largest file, in bytes, that may be the data of the training."""

MAX_HASHED = 4_000_000_000
"""Most bytes that are hashed to find the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A store of runs: its place as bundle.yaml names it, how many runs it has, and how it became known.

    ``columns`` are lines that describe the columns of an experiment log, to be completed before it can be read.
    """

    tracker: str
    store: str
    experiment: str | None
    artefacts: str | None
    runs: int
    why: str
    columns: tuple[str, ...] = ()


@dataclass(slots=True)
class Detected:
    """What was found in a training repository. ``notes`` are facts without a place of their own in the file."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    runs: list[ImportedRun] = field(default_factory=list)
    lock: str | None = None
    locks: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    inputs_note: str = ""

    @property
    def tracker(self) -> str | None:
        """The tracker of the first store."""
        return self.origins[0].tracker if self.origins else None


def detect(folder: Path, experiment: str | None, sources: Sequence[SourceConfig] = ()) -> Detected:
    """Look at ``folder``, and at ``sources`` instead of the stores in it, changing nothing."""
    found = Detected(folder)
    _detect_git(found)
    _detect_locks(found)
    pointers = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("?*.dvc") if path.is_file()
    )
    if pointers or (folder / "dvc.lock").exists():
        listed = shortened(pointers) or "dvc.lock"
        found.notes.append(f"DVC pointers: {listed} (their md5 is no SHA-256: log one as a tag)")
    if sources:
        for source in sources:
            _add_origin(found, source, "given with --from")
    else:
        _detect_store(found, experiment)
    _detect_environment(found)
    _detect_data(found)
    return found


def _detect_git(found: Detected) -> None:
    try:
        repository = Repository(found.folder)
    except SourceError:
        found.notes.append("no git repository here: training.code needs one")
        return
    state = "with uncommitted changes" if repository.is_dirty() else "clean"
    found.notes.append(f"git: HEAD {repository.head()}, working tree {state}")
    found.notes.append(f"git: remote origin {repository.remote() or 'not set'}")


def _detect_locks(found: Detected) -> None:
    found.locks = [name for name in LOCKS if (found.folder / name).is_file()]
    found.lock = next(iter(found.locks), None)
    version = found.folder / ".python-version"
    if version.is_file():
        found.notes.append(
            f"python: {version.read_text(errors='replace').strip()[:40]} from .python-version"
        )
    _detect_project(found)
    if found.lock is not None:
        with suppress(OSError, MalformedError):
            lock = parse_lock(found.lock, (found.folder / found.lock).read_bytes())
            found.notes.append(
                f"lock: every dependency pinned with a hash: {lock.answer} ({found.lock})"
            )
            if "torch" in lock.packages:
                found.notes.append(f"torch: {lock.packages['torch']} from {found.lock}")


def _detect_project(found: Detected) -> None:
    try:
        project = tomllib.loads((found.folder / "pyproject.toml").read_text(encoding="utf-8"))
        wanted = project["project"]["requires-python"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    found.notes.append(
        f"python: {str(wanted)[:40]} is asked for by requires-python in pyproject.toml"
    )


def _detect_environment(found: Detected) -> None:
    """Versions of python and torch that the runs recorded, each with how many runs had it."""
    versions: dict[str, Counter[str]] = {"python": Counter(), "torch": Counter()}
    path = next(iter(names_with(paths_of(found.runs), ENVIRONMENTS)), None)
    artefacts = [each for run in found.runs for each in run.artefacts if each.path == path]
    for artefact in artefacts:
        recorded = read_environment(_start_of(artefact), [])
        for name, counted in versions.items():
            known = {name, f"{name}_version", f"{name}.version", f"versions.{name}"}
            value = next((recorded[key] for key in recorded if key.lower() in known), None)
            if value is not None:
                counted[str(value)[:40]] += 1
    for name, counted in versions.items():
        for version, count in counted.most_common(SHOWN):
            found.notes.append(f"{name}: {version} from {path} of {share(count, found)}")


def _start_of(artefact: ArtefactFile) -> bytes | None:
    try:
        if artefact.file is None or not artefact.file.is_file():
            return None
        with artefact.file.open("rb") as file:
            return file.read(MAX_ENVIRONMENT_BYTES)
    except OSError:
        return None


def _detect_data(found: Detected) -> None:
    """Find the tracked file whose SHA-256 the runs recorded: a verifier asks for it."""
    tag = next(iter(names_with(keys_of(found.runs, "tags"), ("sha256",))), None)
    recorded = Counter(
        run.tags[tag].strip().lower().removeprefix("sha256:")
        for run in found.runs
        if tag is not None and tag in run.tags
    )
    files = _files_of(found, recorded)
    matching = [
        (digest, path) for digest, _ in recorded.most_common() if (path := files.get(digest))
    ]
    if matching:
        digest, path = matching[0]
        found.inputs = {"data": path}
        others = shortened([path for _, path in matching[1:]])
        found.inputs_note = (
            f"its SHA-256 is tags.{tag} of {share(recorded[digest], found)}; use {{input.data}} in the command"
            + (f"; TODO: other runs had: {others}" if others else "")
        )
    elif recorded:
        found.inputs_note = (
            f"TODO: no file in git has the SHA-256 that runs recorded (tags.{tag}): a verifier asks for the one that"
            " has, {data: data/file.csv}, used as {input.data}"
        )


def _files_of(found: Detected, wanted: Counter[str]) -> dict[str, str]:
    """Tracked files outside of the store by those SHA-256 digests that are ``wanted``."""
    if not wanted:
        return {}
    try:
        tracked = Repository(found.folder).tracked()
    except SourceError:
        return {}
    stores = [
        f"{place}/"
        for origin in found.origins
        for place in (origin.store, origin.artefacts)
        if place
    ]
    files: dict[str, str] = {}
    left = MAX_HASHED
    for path in tracked:
        file = found.folder / path
        try:
            size = file.stat().st_size
            odd = file.is_symlink() or not file.is_file() or path_problem(file.name) is not None
            if odd or size >= MAX_DATA or size > left or path.startswith(tuple(stores)):
                continue
            left -= size
            with file.open("rb") as data:
                digest = hashlib.file_digest(data, "sha256").hexdigest()
        except OSError:
            continue
        if digest in wanted:
            files.setdefault(digest, path)
    return files


def _detect_store(found: Detected, experiment: str | None) -> None:
    stores = [
        (name, store)
        for name in importers.names()
        for store in importers.find(name).detect(found.folder)
    ]
    if not stores:
        found.notes.append("no tracker store found in this folder; --from names one elsewhere")
        return
    for name, other in stores[1:]:
        place = other.relative_to(found.folder).as_posix()
        found.notes.append(f"another store: {name} {place}")
    tracker, store = stores[0]
    served = tracker == "mlflow" and (found.folder / "mlartifacts").is_dir()
    source = SourceConfig(
        tracker=tracker,
        store=store.relative_to(found.folder).as_posix(),
        experiment=experiment,
        artefacts="mlartifacts" if served else None,
    )
    _add_origin(found, source, "found in this folder")


def _add_origin(found: Detected, source: SourceConfig, why: str) -> None:
    importer = importers.find(source.tracker)
    store = importers.located(found.folder, source.store)
    place = _from_folder(found.folder, source.store)
    experiment = source.experiment
    columns = _columns_wanted(importer, store, source)
    if columns:
        found.origins.append(
            Origin(
                tracker=source.tracker,
                store=place,
                experiment=experiment,
                artefacts=source.artefacts,
                runs=0,
                why=why,
                columns=columns,
            )
        )
        return
    if experiment is None:
        names = importer.experiments(store)
        if len(names) > 1:
            found.notes.append(f"experiments in {place}, most runs first: {', '.join(names)}")
        experiment = names[0] if names else None
    artefacts = found.folder / source.artefacts if source.artefacts else None
    with importer.open(store, experiment=experiment, artefacts=artefacts) as session:
        runs = [_thinned(run) for run in session]
    found.runs += runs
    found.origins.append(
        Origin(
            tracker=source.tracker,
            store=place,
            experiment=experiment,
            artefacts=source.artefacts,
            runs=len(runs),
            why=why,
        )
    )


def _columns_wanted(importer: Importer, store: Store, source: SourceConfig) -> tuple[str, ...]:
    """What the importer of experiment logs asks for, if titles of ``store`` are not those of our own logs."""
    if source.tracker != "experiment-log":
        return ()
    try:
        with importer.open(store, experiment=source.experiment, artefacts=None):
            return ()
    except SourceError as error:
        _, asked, rest = error.remedy.partition("\ncolumns:")
        if not asked:
            raise
        return ("columns:", *rest.splitlines()[1:])


def _from_folder(folder: Path, store: str) -> str:
    """A path as bundle.yaml will name it, relative to its folder where that is simpler; an address as it is."""
    located = importers.located(folder, store)
    if isinstance(located, str):
        return without_credentials(located)
    with suppress(ValueError):
        return located.resolve().relative_to(folder.resolve()).as_posix()
    return str(located)


def _thinned(run: ImportedRun) -> ImportedRun:
    """``run`` with the last point of each metric only: all points of all runs need not fit into memory."""
    return replace(run, points=tuple({point.metric: point for point in run.points}.values()))


def keys_of(runs: Sequence[ImportedRun], group: str) -> Counter[str]:
    """How many of ``runs`` have each name in ``group`` (parameters or tags)."""
    return Counter(name for run in runs for name in getattr(run, group))


def names_with(present: Counter[str], words: tuple[str, ...]) -> list[str]:
    """Names that hold one of ``words``, most frequent first."""
    return [name for name, _ in present.most_common() if any(word in name for word in words)]


def paths_of(runs: Sequence[ImportedRun]) -> Counter[str]:
    """How many of ``runs`` left each artefact."""
    return Counter(artefact.path for run in runs for artefact in run.artefacts)


def shortened(items: Iterable[str]) -> str:
    """The first of ``items``, and how many more there are."""
    known = list(items)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def share(count: int, found: Detected) -> str:
    """How many of all runs: "9 of 9 runs"."""
    total = len(found.runs)
    return "the only run" if total == 1 else f"{count} of {total} runs"
