"""Writing experiment logs: an empty one to fill in by hand, and the log of a bundle as a spreadsheet.

Both have the titles of :mod:`bundler.importers.experiment_log.titles`, so the importer reads them without declared
columns, and gives the facts back that were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bundler import canonical
from bundler.config import BuildConfig
from bundler.errors import MalformedError, OutputError, UsageError
from bundler.evidence import Contents, intact_files, read_contents
from bundler.experiment_log_files import Column, Look, Value, csv_bytes, xlsx_bytes
from bundler.facts import roles, seed_of
from bundler.importers.experiment_log.columns import OUTCOMES, STATUSES, ValueType
from bundler.importers.experiment_log.titles import (
    DATE,
    DURATION,
    EXAMPLE,
    ID,
    TITLE_OF,
    data_title,
    from_titles,
    metric_title,
    parameter_title,
)
from bundler.records import DatasetVersion, RunRecord, Scalar, moment
from bundler.selection import compete
from bundler.spec import FactMap
from bundler.storage.model import Bag
from bundler.storage.writer import staged
from bundler.trust import Key
from bundler.verify import unsealed

_ROLES = ("hold-out", "validation", "training", "other")
_DATA = ("version", "sha256", "rows", "source", "tracker_digest")
_TEXT = {"id", "commit", "name", "hypothesis", "notes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a template is to have columns for, besides the fixed ones: parameters with their types, metrics."""

    parameters: dict[str, ValueType]
    metrics: dict[str, str | None]


def wanted_by(config: BuildConfig) -> Wanted:
    """The parameters and metrics that ``bundle.yaml`` names. A parameter whose type it does not show is text."""
    command = config.training.command if config.training else ()
    parameters: dict[str, ValueType] = {}
    for part in command:
        for piece in part.split("{parameter.")[1:]:
            parameters[piece.partition("}")[0]] = "text"
    for fact, allowed in config.selection.eligible.items():
        group, _, name = fact.partition(".")
        if group == "parameters":
            parameters[name] = type_of(allowed)
    parameters.pop(config.facts.seed.removeprefix("parameters."), None)
    names = [*config.selection.metrics]
    names += [gate.metric for gate in config.gates]
    names += [each.metric for each in config.reproducibility.tolerances]
    names += [p for patterns in config.facts.metrics.values() for p in patterns]
    plain = dict.fromkeys(name for name in names if not set("*?[") & set(name))
    found: dict[str, str | None] = dict(roles(config.facts, plain))
    return Wanted(parameters=parameters, metrics={name: found[name] for name in plain})


def write_template(target: Path, wanted: Wanted) -> None:
    """Write an empty log with one example row to ``target`` (.csv or .xlsx). Raises :class:`OutputError`."""
    rows = [*_FIRST_ROWS]
    for name, kind in wanted.parameters.items():
        rows.append((parameter_title(name, kind), f"Hyperparameter {name}.", _EXAMPLES[kind]))
    for name, role in wanted.metrics.items():
        text = f"Final value of {name}; empty if it was not computed."
        rows.append((metric_title(name, role), text, 0.5))
    rows += _LAST_ROWS
    texts = {TITLE_OF[key] for key in _TEXT} | {"Data version", "Data SHA-256"}
    texts |= {title for title, _, _ in rows if title.endswith("(text)")}
    words = {"Outcome": OUTCOMES, "Status": STATUSES}
    columns = [
        Column(
            title=title,
            values=(example,),
            look="date" if title == DATE else "text" if title in texts else "plain",
            words=words.get(title, ()),
        )
        for title, _, example in rows
    ]
    shown = [(title, text, _shown(example)) for title, text, example in rows]
    _write(target, columns, [("Column", "What to write", "Example"), *_ADVICE, *shown])


def export(bag: Bag, keys: tuple[Key, ...], target: Path) -> int:
    """Write the log of an intact bundle to ``target`` (.csv or .xlsx), one row a run. Returns the number of runs.

    Raises :class:`MalformedError` for a bundle that is not intact or, with ``keys``, not signed by one of them, and
    :class:`OutputError` if ``target`` exists or cannot be written.
    """
    _kind(target)
    files = intact_files(bag)
    if keys and unsealed(bag, keys)[0].tag_manifest_sha256 != files.tag_manifest_sha256:
        raise MalformedError("statement-subject", "its signature is about another bundle")
    contents = read_contents(files)
    _write(target, log_columns(contents), ())
    return len(contents.records)


def log_columns(contents: Contents) -> list[Column]:
    """The facts of all runs as columns; those that no run has are left out."""
    records, facts = contents.records, contents.index.facts
    standings = {
        each.run: f"{each.standing}: {each.explanation}" if each.explanation else each.standing
        for each in compete(records, contents.index.selection, facts)
    }
    seed, parameters = _seed_and_parameters(records, facts)
    models = {each.id: _model_digest(each, facts) for each in records}
    columns = [
        _column(ID, records, lambda run: run.id, text=True),
        _column(TITLE_OF["name"], records, lambda run: run.name, text=True),
        _column(DATE, records, lambda run: _naive(run.started_at), date=True),
        _column(DURATION, records, _duration),
        _column("Status", records, lambda run: run.status),
        _column("Outcome", records, lambda run: outcome(run, contents.index.selection.run)),
        _column("Reason", records, lambda run: standings[run.id]),
        _column("Deleted", records, lambda run: run.deleted or None),
        _column("Hypothesis", records, lambda run: run.tags.get("hypothesis")),
        *seed,
        *parameters,
        *_data_columns(records),
        _column("Code commit", records, lambda run: run.code.commit, text=True),
        _column("Uncommitted changes", records, lambda run: run.code.dirty),
        _column("Repository", records, lambda run: run.code.repository, text=True),
        _column("Branch", records, lambda run: run.code.branch, text=True),
        _column("Entry point", records, lambda run: run.code.entry_point, text=True),
        *_metric_columns(records),
        _column("Model SHA-256", records, lambda run: models[run.id], text=True),
        _column("Tracker run ID", records, _tracker_id, text=True),
        _column("Notes", records, _notes),
    ]
    always = {ID, DATE, DURATION, "Status", "Outcome"}
    kept = [
        each for each in columns if each.title in always or any(v is not None for v in each.values)
    ]
    if from_titles([each.title for each in kept]) is None:
        raise OutputError(
            "two facts of this bundle would get the same title in an experiment log",
            remedy="This is a matter of unusual names of metrics, parameters or data sets; please report it.",
        )
    return kept


def outcome(run: RunRecord, selected: str) -> str:
    """What became of ``run``: the bundle's own selection says it; that one was a baseline, the run's tag."""
    if run.id == selected:
        return "selected"
    return "baseline" if run.tags.get("outcome", "").strip().lower() == "baseline" else "rejected"


def type_of(values: Iterable[Scalar]) -> ValueType:
    """The narrowest type of a column that gives all ``values`` back."""
    found = list(values)
    kinds = {type(value) for value in found}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "integer"
    if kinds and kinds <= {int, float}:
        return "number"
    texts = [value for value in found if isinstance(value, str)]
    plain = all(
        text == text.strip() != "" and "\0" not in text and "\ufeff" not in text for text in texts
    )
    # What the importer would trim, or take for an empty cell, is written as JSON.
    return "text" if len(texts) == len(found) and plain else "json"


def _column(
    title: str,
    records: Sequence[RunRecord],
    value: Callable[[RunRecord], Value],
    *,
    text: bool = False,
    date: bool = False,
) -> Column:
    look: Look = "text" if text else "date" if date else "plain"
    return Column(title=title, values=[value(run) for run in records], look=look)


def _seed_and_parameters(
    records: Sequence[RunRecord], facts: FactMap
) -> tuple[list[Column], list[Column]]:
    """The column of the seed, and those of the other parameters.

    The importer gives the seed back as ``parameters.seed``; where another parameter has that name, none is made.
    """
    group, _, of_seed = facts.seed.partition(".")
    names = sorted({name for run in records for name in run.parameters})
    clash = "seed" in names and (group, of_seed) != ("parameters", "seed")
    # What spells no seed would be lost, were it taken for one.
    spelled = all(
        run.seed is not None and seed_of(run.parameters[of_seed]) == run.seed
        for run in records
        if of_seed in run.parameters
    )
    left_out = of_seed if group == "parameters" and spelled and not clash else None
    seed = (
        []
        if clash or (left_out is None and "seed" in names)
        else [_column(TITLE_OF["seed"], records, lambda run: run.seed)]
    )
    columns = []
    for name in names:
        if name != left_out:
            kind = type_of(run.parameters[name] for run in records if name in run.parameters)
            values = [_spelled(run, name, kind) for run in records]
            look: Look = "text" if kind in {"text", "json"} else "plain"
            columns.append(Column(title=parameter_title(name, kind), values=values, look=look))
    return seed, columns


def _spelled(run: RunRecord, name: str, kind: ValueType) -> Value:
    if name not in run.parameters:
        return None
    value = run.parameters[name]
    return canonical.serialise(value).decode() if kind == "json" else value


def _data_columns(records: Sequence[RunRecord]) -> list[Column]:
    """One group of columns a data set: by name and role, counted where a run has several of those."""
    held: dict[tuple[str, str | None, int], dict[str, DatasetVersion]] = {}
    for run in records:
        counts: dict[tuple[str, str | None], int] = {}
        for each in run.data:
            key = (each.name, each.role)
            counts[key] = counts.get(key, 0) + 1
            held.setdefault((*key, counts[key]), {})[run.id] = each
    columns = []
    for (name, role, number), by_run in held.items():
        told = [
            field for field in _DATA if any(getattr(e, field) is not None for e in by_run.values())
        ]
        for field in told:
            title = data_title(name, role, field.removeprefix("tracker_"), number)
            values = [getattr(by_run.get(run.id), field, None) for run in records]
            look: Look = "plain" if field == "rows" else "text"
            columns.append(Column(title=title, values=values, look=look))
        if any(all(getattr(e, field) is None for field in told) for e in by_run.values()):
            values = [True if run.id in by_run else None for run in records]
            columns.append(Column(title=data_title(name, role, "used", number), values=values))
    return columns


def _metric_columns(records: Sequence[RunRecord]) -> list[Column]:
    """The last value of each metric, hold-out first."""
    found = {each.name: each.role for run in records for each in run.metrics}
    names = sorted(found, key=lambda name: (_ROLES.index(found[name]), name))

    def last(run: RunRecord, name: str) -> Value:
        metric = run.metric(name)
        return metric.last if metric is not None else None

    return [
        Column(title=metric_title(name, found[name]), values=[last(run, name) for run in records])
        for name in names
    ]


def _naive(text: str | None) -> datetime | None:
    """The time in UTC, without saying so: the title does."""
    found = moment(text, UTC)
    return found.astimezone(UTC).replace(tzinfo=None) if found is not None else None


def _duration(run: RunRecord) -> float | None:
    return run.seconds if run.seconds is not None and run.seconds >= 0 else None


def _model_digest(run: RunRecord, facts: FactMap) -> str | None:
    return next((each.sha256 for each in run.artefacts if each.path == facts.model), None)


def _tracker_id(run: RunRecord) -> str | None:
    return run.source.run_id if run.source.run_id != run.id else None


def _notes(run: RunRecord) -> str | None:
    return run.tags.get("notes") or run.tags.get("mlflow.note.content") or None


def _kind(target: Path) -> str:
    suffix = target.suffix.lower()
    if suffix not in {".csv", ".xlsx"}:
        raise UsageError(
            f"-o {target}: an experiment log is a .csv or an .xlsx file",
            remedy="Such as -o log.csv or -o log.xlsx.",
        )
    return suffix


def _write(target: Path, columns: list[Column], notes: Sequence[Sequence[str]]) -> None:
    """Write a new file: a log that somebody has filled in is never overwritten."""
    data = csv_bytes(columns) if _kind(target) == ".csv" else xlsx_bytes(columns, notes)
    with staged(target) as path:
        path.write_bytes(data)


def _shown(example: Value) -> str:
    if isinstance(example, datetime):
        return example.isoformat(sep=" ")
    return str(example).lower() if isinstance(example, bool) else str(example or "")


_EXAMPLES: dict[ValueType, Value] = {
    "text": "adam",
    "integer": 3,
    "number": 0.01,
    "boolean": True,
    "json": '"adam"',
}
_FIRST_ROWS: tuple[tuple[str, str, Value], ...] = (
    (ID, "A name of its own for each experiment; its files lie in a folder of that name.", EXAMPLE),
    (DATE, "Start of the training, in UTC.", datetime(2026, 3, 4, 9, 30)),  # noqa: DTZ001  # the title names the zone
    (DURATION, "How long the training took, in seconds.", 5400),
    ("Status", f"One of {', '.join(STATUSES)}. Keep failed experiments.", "finished"),
    ("Outcome", f"One of {', '.join(OUTCOMES)}.", "baseline"),
    ("Hypothesis", "What the experiment was to show.", "A small network beats the linear model"),
    ("Data version", "Version of the data, as text.", "1.0"),
    ("Data SHA-256", "SHA-256 of the data (sha256sum FILE).", None),
    ("Code commit", "git rev-parse HEAD, as text.", "0123456789abcdef0123456789abcdef01234567"),
    ("Uncommitted changes", "true if git status showed changes, else false.", False),
    ("Random seed", "The seed, a whole number.", 42),
)
_LAST_ROWS: tuple[tuple[str, str, Value], ...] = (
    ("Notes", "Anything else.", "This row is an example: it is left out when the log is read"),
)
_ADVICE = (
    ("(all)", "One row an experiment, on the sheet Experiments. Delete nothing: rejected and failed ones count.", ""),
    ("(all)", "Values only, no formulas; numbers without units; leave a cell empty where there is no value.", ""),
    ("(more)", "More hyperparameters: a column param: NAME (TYPE), TYPE one of text, integer, number, boolean.",
     "param: dropout (number)"),
    ("(more)", "More metrics: a column metric: NAME.", "metric: holdout_auc"),
)  # fmt: skip
