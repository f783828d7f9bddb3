"""``bundler init``: a ``bundle.yaml`` with everything that can be detected, each value with where it came from.

What only a human can know is marked TODO. Nothing is guessed silently: where several answers are possible, the file
lists them and leaves the choice open.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundler import importers
from bundler.errors import OutputError, SourceError, UsageError
from bundler.facts import MAX_ENVIRONMENT_BYTES, read_environment
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.lockfiles import parse_requirements
from bundler.manifest import path_problem
from bundler.repository import Repository

LOCKS = (
    "requirements.lock",
    "requirements.txt",
    "uv.lock",
    "poetry.lock",
    "pylock.toml",
    "conda-lock.yml",
    "pixi.lock",
)
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


@dataclass(slots=True)
class Detected:
    """What was found in a training repository. ``notes`` are facts without a place of their own in the file."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    tracker: str | None = None
    store: str | None = None
    artefacts: str | None = None
    experiment: str | None = None
    runs: list[ImportedRun] = field(default_factory=list)
    lock: str | None = None
    locks: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    inputs_note: str = ""


def write_starter(folder: Path, target: Path, experiment: str | None) -> int:
    """Write ``target`` for the repository ``folder``; return how many places are marked TODO.

    Raises :class:`OutputError` if ``target`` exists, :class:`UsageError` if ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", remedy="Name your training repository.")
    if target.exists():
        raise OutputError(
            f"{target} exists; it is never overwritten", remedy="Use -o, or remove it."
        )
    text = compose(detect(folder, experiment))
    try:
        # "x": a link that leads nowhere is there as well, and is not followed.
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}") from None
    return sum("TODO" in line and not line.startswith("# ") for line in text.splitlines())


def detect(folder: Path, experiment: str | None) -> Detected:
    """Look at ``folder``, changing nothing in it."""
    found = Detected(folder)
    _detect_git(found)
    _detect_locks(found)
    pointers = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("?*.dvc") if path.is_file()
    )
    if pointers or (folder / "dvc.lock").exists():
        listed = _listed(pointers) or "dvc.lock"
        found.notes.append(f"DVC pointers: {listed} (their md5 is no SHA-256: log one as a tag)")
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
    found.lock = next((name for name in found.locks if name.startswith("requirements")), None)
    version = found.folder / ".python-version"
    if version.is_file():
        found.notes.append(
            f"python: {version.read_text(errors='replace').strip()[:40]} from .python-version"
        )
    _detect_project(found)
    if found.lock is not None:
        text = (found.folder / found.lock).read_text(encoding="utf-8", errors="replace")
        torch = parse_requirements(text).packages.get("torch")
        if torch:
            found.notes.append(f"torch: {torch} from {found.lock}")


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
    path = next(iter(_matching(_paths(found.runs), ENVIRONMENTS)), None)
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
            found.notes.append(f"{name}: {version} from {path} of {_share(count, found)}")


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
    tag = next(iter(_matching(_keys(found.runs, "tags"), ("sha256",))), None)
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
        others = _listed([path for _, path in matching[1:]])
        found.inputs_note = (
            f"its SHA-256 is tags.{tag} of {_share(recorded[digest], found)}; use {{input.data}} in the command"
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
    stores = [f"{place}/" for place in (found.store, found.artefacts) if place]
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
        found.notes.append("no tracker store found in this folder")
        return
    found.tracker, store = stores[0]
    found.store = store.relative_to(found.folder).as_posix()
    for name, other in stores[1:]:
        found.notes.append(f"another store: {name} {other.relative_to(found.folder).as_posix()}")
    if (found.folder / "mlartifacts").is_dir():
        found.artefacts = "mlartifacts"
    importer = importers.find(found.tracker)
    names = importer.experiments(store)
    if len(names) > 1:
        found.notes.append(f"experiments in {found.store}, most runs first: {', '.join(names)}")
    found.experiment = experiment or (names[0] if names else None)
    artefacts = found.folder / found.artefacts if found.artefacts else None
    with importer.open(store, experiment=found.experiment, artefacts=artefacts) as session:
        found.runs = list(session)


def compose(found: Detected) -> str:
    """The text of ``bundle.yaml``."""
    lines = [
        "# What goes into the evidence bundle. Written by `bundler init`; every key is in docs/bundle-yaml.md.",
        "# Values that were detected say where they came from. TODO marks what only a human can know.",
        *(f"# {_comment(note)}" for note in found.notes),
        "",
        "version: 1",
        "",
        *_system(),
        *_sources(found),
        *_facts(found),
        *_selection(found),
        *_reproducibility(),
        *_gates(found),
        *_training(found),
    ]
    return "\n".join(lines) + "\n"


def _system() -> Iterator[str]:
    yield "system:"
    yield "  name: TODO                # one log of runs belongs to one system: keep the name over releases"
    yield "  version: TODO"
    yield "  provider: TODO            # legal name (Annex IV 1(a))"
    yield "  intended_purpose: TODO    # Annex IV 1(a)"
    yield '  annex_iii: null           # such as "5(b)" for credit scoring'
    yield "  responsible: TODO         # who signs for the tests (Annex IV 2(g))"
    yield ""


def _sources(found: Detected) -> Iterator[str]:
    yield "sources:"
    if found.store is None:
        yield "  - tracker: TODO           # known: " + ", ".join(importers.names())
        yield "    store: TODO             # no store was found here"
    else:
        yield _entry("  - tracker", found.tracker, f"{found.store} is a store of this tracker")
        yield _entry("    store", found.store, "found in this folder")
        yield _entry(
            "    experiment",
            found.experiment,
            f"has {_count(len(found.runs))}, {'all are' if len(found.runs) != 1 else 'which is'} imported",
        )
        if found.artefacts:
            yield _entry(
                "    artefacts", found.artefacts, "folder of the artefact server, found here"
            )
    yield ""


def _facts(found: Detected) -> Iterator[str]:
    yield "facts:                      # where the runs keep what the record needs"
    yield _named(
        found, "  seed", "parameters", _keys(found.runs, "parameters"), ("seed",), "parameters.seed"
    )
    tags = _keys(found.runs, "tags")
    yield _named(found, "  code_dirty", "tags", tags, ("dirty",))
    yield _named(found, "  data_sha256", "tags", tags, ("sha256",))
    yield _named(found, "  data_version", "tags", tags, ("data.version", "data_version"))
    paths = _paths(found.runs)
    yield _named(found, "  environment", "artefacts", paths, ENVIRONMENTS)
    models = [path for path in paths if path.endswith((".safetensors", ".pt", ".onnx", ".pkl"))]
    if models:
        more = f"; also: {_listed(models[1:])}" if models[1:] else ""
        yield _entry(
            "  model", models[0], f"an artefact of {_share(paths[models[0]], found)}{more}"
        )
    else:
        yield "  model: null               # TODO: path of the model artefact; none was recognised"
    yield "  metrics:                  # roles by name; * and ? match; check them"
    names = sorted({point.metric for run in found.runs for point in run.points})
    for role, prefixes in ROLES.items():
        matching = [name for name in names if name.startswith(prefixes)]
        yield _entry(f"    {role}", matching, "from the names in the store")
    yield ""


def _selection(found: Detected) -> Iterator[str]:
    metric = next(iter(_selection_metrics(found)), None)
    yield "selection:"
    yield "  run: TODO                 # the tracker's id of the selected run"
    if metric is not None:
        yield _comment(f"  #   best by {metric}, highest first; look at the direction:")
        best = _best(found.runs, metric)
        for run, value in best[:SHOWN]:
            yield _comment(f"  #   {run.source.run_id}  {value:.6g}  {run.name}")
        if len(best) > SHOWN:
            yield f"  #   … and {len(best) - SHOWN} more"
    others = _listed(_selection_metrics(found))
    yield _entry(
        "  metric", metric or "TODO", f"TODO: choose; validation metrics are: {others or 'none'}"
    )
    yield "  direction: maximise       # TODO: or minimise"
    yield "  rationale: TODO           # why this model (Annex IV 2(b))"
    yield "  declared_at: null         # TODO: date on which these criteria were fixed (Art. 9(8))"
    yield '  constraints: []           # such as {metric: val_disparity, comparator: "<=", threshold: 0.2}'
    seeds = Counter(
        str(run.parameters.get("seed")) for run in found.runs if "seed" in run.parameters
    )
    if seeds:
        listed = _listed(f"{seed} in {_count(count)}" for seed, count in seeds.most_common())
        yield _comment(f"  # seeds found in the parameters: {listed}")
    yield "  eligible: {}              # such as {seed: [42]}: the competition is held at one seed"
    yield ""


def _reproducibility() -> Iterator[str]:
    yield "reproducibility:"
    yield "  level: bitwise            # TODO: or statistical"
    yield "  mechanisms: []            # TODO: seeds, deterministic algorithms, thread counts, pinned versions"
    yield "  factors_of_variation: []  # TODO: what changes the result although the specification is the same"
    yield "  tolerances: []            # TODO: absolute margins, such as {metric: holdout_auc, margin: 0.01}"
    yield "  limitations: []           # TODO"
    yield ""


def _gates(found: Detected) -> Iterator[str]:
    names = sorted({point.metric for run in found.runs for point in run.points})
    holdout = [name for name in names if name.startswith(ROLES["hold-out"])]
    yield "gates: []                   # TODO: such as the one below; see docs/statistics.md"
    usual = [name for name in holdout if "auc" in name.lower() or "acc" in name.lower()]
    metric = next(iter(usual or holdout), "holdout_auc")
    # Another kind would give a variance that is not that of the metric.
    kind = "auc, dataset_role: holdout, positives: 60"
    if "auc" not in metric.lower():
        kind = "proportion, dataset_role: holdout"
    yield _comment(f"#  hold-out metrics in the store: {_listed(holdout) or 'none'}")
    yield "#  - name: performance"
    yield "#    category: performance"
    yield f"#    metric: {_quoted(metric)}"
    yield '#    comparator: ">="'
    yield "#    threshold: 0.7"
    yield f"#    sampling: {{kind: {kind}}}"
    yield ""


def _training(found: Detected) -> Iterator[str]:
    script = next((run.code.entry_point for run in found.runs if run.code.entry_point), None)
    parameters = _keys(found.runs, "parameters")
    words = ["{python}", script or "TODO"]
    for name in sorted(parameters):
        words += [
            f"--{name.replace('_', '-')}",
            "{seed}" if name == "seed" else f"{{parameter.{name}}}",
        ]
    yield "training:                   # how a verifier repeats the training of the selected run"
    yield _entry("  code", ".", "this folder, as committed")
    yield "  # TODO: check the options: they are the names of the parameters, the script may call them otherwise"
    yield _entry("  command", words, "entry point and parameters recorded by the runs")
    note = "TODO: files that it reads, {data: data/file.csv}, used as {input.data}"
    yield _entry("  inputs", found.inputs, found.inputs_note or note)
    if found.tracker == "mlflow":
        yield "  environment:              # MLflow writes into the output folder, without a server"
        yield '    MLFLOW_TRACKING_URI: "file://{out}/mlruns"'
        yield '    MLFLOW_ALLOW_FILE_STORE: "true"'
        tensors = sorted(
            {a.path for run in found.runs for a in run.artefacts if a.path.endswith(".safetensors")}
        )
        yield "  outputs:"
        yield "    tracker: mlflow"
        yield "    location: mlruns"
        yield _entry("    tensors", tensors, "safetensors artefacts of the runs")
    else:
        yield "  outputs: {tracker: TODO, location: TODO}"
    if found.lock:
        yield _entry("  lock", found.lock, f"found: {', '.join(found.locks)}")
    else:
        yield "  lock: null                # TODO: requirements with pinned versions and hashes"


def _entry(key: str, value: Any, why: str) -> str:
    """A line of YAML; JSON is YAML, so JSON spells the value."""
    return f"{key}: {_quoted(value)}  # {_comment(why)}"


def _quoted(value: Any) -> str:
    """``value`` as JSON that YAML reads as the same: without pairs of surrogates and bare control characters."""
    return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))


def _comment(text: str) -> str:
    """``text`` on one line: names of experiments and runs may hold anything, a line of YAML included."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _keys(runs: Sequence[ImportedRun], group: str) -> Counter[str]:
    return Counter(name for run in runs for name in getattr(run, group))


def _named(  # noqa: PLR0913  # a line of the file: key, where to look, what for
    found: Detected,
    key: str,
    group: str,
    present: Counter[str],
    words: tuple[str, ...],
    default: str | None = None,
) -> str:
    """The fact whose name holds one of ``words``, most frequent first."""
    names = _matching(present, words)
    if not names:
        return f"{key}: {json.dumps(default)}  # TODO: not found among the {group}"
    more = f"; also: {_listed(names[1:])}" if names[1:] else ""
    return _entry(key, f"{group}.{names[0]}", f"in {_share(present[names[0]], found)}{more}")


def _matching(present: Counter[str], words: tuple[str, ...]) -> list[str]:
    """Names that hold one of ``words``, most frequent first."""
    return [name for name, _ in present.most_common() if any(word in name for word in words)]


def _paths(runs: Sequence[ImportedRun]) -> Counter[str]:
    return Counter(artefact.path for run in runs for artefact in run.artefacts)


def _listed(items: Iterable[str]) -> str:
    """The first of ``items``, and how many more there are."""
    known = list(items)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def _count(runs: int) -> str:
    return f"{runs} run" if runs == 1 else f"{runs} runs"


def _share(count: int, found: Detected) -> str:
    """How many of all runs: "9 of 9 runs"."""
    total = len(found.runs)
    return "the only run" if total == 1 else f"{count} of {total} runs"


def _selection_metrics(found: Detected) -> list[str]:
    names = sorted({point.metric for run in found.runs for point in run.points})
    validation = [name for name in names if name.startswith(ROLES["validation"])]
    return sorted(
        validation, key=lambda name: (not name.startswith("best"), "auc" not in name, name)
    )


def _best(runs: Sequence[ImportedRun], metric: str) -> list[tuple[ImportedRun, float]]:
    values = []
    for run in runs:
        points = [point.value for point in run.points if point.metric == metric]
        if points and run.status == "finished" and points[-1] == points[-1]:  # not NaN
            values.append((run, points[-1]))
    return sorted(values, key=lambda pair: -pair[1])
