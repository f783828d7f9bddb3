"""What each source can show: every fixture is imported, and each fact of its records is looked for.

The table in docs/sources.md is made from this, so it says what the importers do and not what somebody remembers.
``tests/fixtures/*/case.json`` describes the fixtures.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bundler import codec
from bundler.config import SourceConfig
from bundler.facts import record_of
from bundler.history import write_points
from bundler.importers.experiment_log.columns import LogColumns
from bundler.importers.model import ImportedRun
from bundler.intake import importer_of
from bundler.manifest import ResourceDescriptor, is_sha256
from bundler.records import Artefact, RunRecord
from bundler.spec import FactMap
from bundler.storage.hashing import digest_bytes, digest_file
from tests.unit.importers.dvc_support import unpack

FIXTURES = Path(__file__).parent / "fixtures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fixture: what it is, how to open it, and where its runs keep their facts.

    ``live`` names the kind of server that a test fills with ``store``: its differential test proves that the same records
    come out, so the table is made from the store itself. ``unpack`` names an archive of a repository.
    """

    source: str
    tracker: str
    store: str
    made_by: str
    experiment: str | None = None
    artefacts: str | None = None
    synthetic: bool = False
    facts: FactMap = field(default_factory=FactMap)
    columns: LogColumns | None = None
    live: str | None = None
    unpack: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A column of the table: its heading, its question, and whether a record of a run shows it."""

    heading: str
    question: str
    shown: Callable[[ImportedRun, RunRecord], bool]


FACTS = (
    Fact(
        heading="commit",
        question="code version",
        shown=lambda imported, run: run.code.commit is not None,
    ),
    Fact(
        heading="clean",
        question="whether the working tree was clean",
        shown=lambda imported, run: run.code.dirty is not None,
    ),
    Fact(
        heading="patch",
        question="the uncommitted changes themselves",
        shown=lambda imported, run: run.code.patch is not None,
    ),
    Fact(
        heading="typed",
        question="hyperparameters that keep their type",
        shown=lambda imported, run: any(
            not isinstance(value, str) for value in run.parameters.values()
        ),
    ),
    Fact(
        heading="seed",
        question="seed",
        shown=lambda imported, run: run.seed is not None,
    ),
    Fact(
        heading="data",
        question="a data set by name, version or the tracker's own digest",
        shown=lambda imported, run: bool(run.data),
    ),
    Fact(
        heading="data SHA-256",
        question="an identity of the data: SHA-256 over the bytes",
        shown=lambda imported, run: any(is_sha256(each.sha256 or "") for each in run.data),
    ),
    Fact(
        heading="machine",
        question="hardware and software, as the tracker itself records them",
        shown=lambda imported, run: bool(run.environment),
    ),
    Fact(
        heading="epochs",
        question="metrics at each epoch",
        shown=lambda imported, run: any(each.points > 1 for each in run.metrics),
    ),
    Fact(
        heading="NaN",
        question="NaN and infinity as they were",
        shown=lambda imported, run: any(
            not math.isfinite(point.value) for point in imported.points
        ),
    ),
    Fact(
        heading="hold-out",
        question="final hold-out metrics",
        shown=lambda imported, run: any(each.role == "hold-out" for each in run.metrics),
    ),
    Fact(
        heading="model",
        question="model artefact, with a SHA-256 over the bytes",
        shown=lambda imported, run: any(
            each.sha256 for each in run.artefacts if "model" in each.path
        ),
    ),
    Fact(
        heading="times",
        question="start and end",
        shown=lambda imported, run: run.started_at is not None and run.ended_at is not None,
    ),
    Fact(
        heading="failed",
        question="runs that did not finish",
        shown=lambda imported, run: run.status != "finished",
    ),
)


def cases() -> tuple[Case, ...]:
    """All cases, by folder and in the order of the file."""
    found = []
    for file in sorted(FIXTURES.glob("*/case.json")):
        for value in json.loads(file.read_text(encoding="utf-8")):
            found.append((file.parent, codec.from_json(Case, value)))
    return tuple(found)


def runs(folder: Path, case: Case) -> list[tuple[ImportedRun, RunRecord]]:
    """The runs and their records of the fixture of ``case`` in ``folder``."""
    source = SourceConfig(tracker=case.tracker, store=case.store, columns=case.columns)
    with restored(folder, case) as place:
        artefacts = place / case.artefacts if case.artefacts else None
        opened = importer_of(source).open(
            place / case.store, experiment=case.experiment, artefacts=artefacts
        )
        with opened as session:
            return [(run, _record(run, case.facts)) for run in session]


def _record(run: ImportedRun, facts: FactMap) -> RunRecord:
    data = write_points(run.points)
    return record_of(
        run,
        facts,
        run_id="run",
        history=ResourceDescriptor(path="x", sha256=digest_bytes(data), size=len(data)),
        artefacts=tuple(_artefact(each.path, each.file) for each in run.artefacts),
        environment=None,
    )


def _artefact(path: str, file: Path | None) -> Artefact:
    if file is None or not file.is_file():
        return Artefact(path=path, sha256=None, size=None)
    with file.open("rb") as data:
        return Artefact(path=path, sha256=digest_file(data), size=file.stat().st_size)


@contextmanager
def restored(folder: Path, case: Case) -> Iterator[Path]:
    """The folder of the fixture, or one in which its repository was restored."""
    if case.unpack is None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as place:
        unpack(folder / case.unpack, Path(place) / case.store)
        yield Path(place)


def table() -> str:
    """The rows of the table of sources and facts."""
    lines = [
        "| source | " + " | ".join(fact.heading for fact in FACTS) + " |",
        "|---|" + ":-:|" * len(FACTS),
    ]
    for folder, case in cases():
        found = runs(folder, case)
        cells = [
            "●" if any(fact.shown(run, record) for run, record in found) else "○" for fact in FACTS
        ]
        mark = " †" if case.synthetic else ""
        lines.append(f"| {case.source}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def legend() -> str:
    """What the headings of the table ask for."""
    return "\n".join(f"- *{fact.heading}*: {fact.question}" for fact in FACTS)
