"""An MLflow tracking server, over its REST interface.

What it does not show, beside what MLflow's stores change: in which order equal points were logged, deleted logged
models, and the logged models of a deleted experiment.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from bundler.errors import SourceError
from bundler.importers.experiments import Experiment, ordered
from bundler.importers.files import walk
from bundler.importers.mlflow import history
from bundler.importers.mlflow import values as mlflow_values
from bundler.importers.mlflow.answers import (
    Described,
    check_experiment,
    described,
    part,
    parts,
    run_id,
    start,
    word,
)
from bundler.importers.mlflow.artefacts import Places
from bundler.importers.mlflow.history import HistoryReader, TooManyError
from bundler.importers.mlflow.http import (
    MAX_ANSWER,
    NotThereError,
    Server,
    TooLargeError,
    unkept,
)
from bundler.importers.mlflow.pages import pages
from bundler.importers.mlflow.served import ServedArtefacts
from bundler.importers.model import ArtefactFile, ImportedRun
from bundler.importers.values import Flags, flag_steps
from bundler.records import Source

THREADS = 4
"""Questions asked at once."""

MAX_RUNS = 1_000_000
"""Most runs, experiments and logged models."""

MAX_SPOOL = 1 << 34
"""Most bytes of descriptions of runs that are kept on disk."""

_API = "/api/2.0/mlflow/"
_PAGE = 200
_BYTES_OF_A_PAGE = 1 << 24
_BYTES_AT_ONCE = 1 << 23
_FIRST = 8
"""Runs read at once before it is known how many points runs have."""


class _Entry(NamedTuple):
    """Where a run's description is kept; sorted, entries are in the order of runs."""

    is_started: bool
    start: int
    run_id: str
    offset: int
    size: int


@contextmanager
def opened(address: str, environment: Mapping[str, str]) -> Iterator[RestStore]:
    """Open the server at ``address`` with the credentials of ``environment``. Raises :class:`SourceError`."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(Server(address, environment)))
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aisdp-mlflow-"))
        except OSError as error:
            raise unkept(error) from None
        pool = stack.enter_context(ThreadPoolExecutor(THREADS))
        with (Path(folder) / "runs").open("w+b") as spool:
            yield RestStore(server, pool, ServedArtefacts(server, Path(folder)), spool)


class RestStore:
    """One server. The runs of an experiment are what they were when they were first asked for."""

    def __init__(
        self, server: Server, pool: ThreadPoolExecutor, served: ServedArtefacts, spool: IO[bytes]
    ) -> None:
        self._server = server
        self._pool = pool
        self._served = served
        # Descriptions of runs as JSON: parameters and tags of all runs would be too much for memory.
        self._spool = spool
        self._entries: dict[str, list[_Entry]] = {}

    def check(self) -> None:
        """Nothing: each history was held against its run's latest values."""

    def experiments(self) -> list[Experiment]:
        """All experiments, deleted ones included, those with most runs first."""
        return ordered(map(self._counted, self._listed()))

    def candidates(self, wanted: str | None) -> list[Experiment]:
        """The experiment that is ``wanted`` (``None``: that has runs); all where it is not the only one.

        Counting the runs of all experiments can take long, so it is left out where nobody asks.
        """
        known = self._listed()
        if wanted is None:
            matching = [each for each in known if self._has_runs(each)]
        else:
            matching = [each for each in known if each.name == wanted]
            matching = matching or [each for each in known if each.id == wanted]
        return ordered(map(self._counted, matching if len(matching) == 1 else known))

    def runs(self, experiment: Experiment, places: Places) -> Iterator[ImportedRun]:
        """All runs of ``experiment``; few are in memory at a time."""
        entries = self._runs_of(experiment.id)
        models = self._models(experiment)
        reader = HistoryReader(self._server, self._pool)
        at, size = 0, _FIRST
        while at < len(entries):
            with self._checked():
                chosen = self._read(entries[at : at + size])
                try:
                    found = reader.read(chosen)
                except TooManyError:
                    size = len(chosen) // 2
                    continue
                points = sum(map(len, found.values()))

                def files(run: Described) -> tuple[list[ArtefactFile], Flags]:
                    return self._files(run, models, places, experiment)

                artefacts = list(self._pool.map(files, chosen))
            for run, (kept, flags) in zip(chosen, artefacts, strict=True):
                yield _imported(run, experiment, found, kept, flags)
            at += len(chosen)
            size = max(1, min(history.MAX_RUNS, history.MANY * len(chosen) // max(points, 1)))

    def _listed(self) -> list[Experiment]:
        """All experiments, without the numbers of their runs."""
        with self._checked():
            found = [
                Experiment(
                    id=word(each.get("experiment_id")),
                    name=word(each.get("name")),
                    runs=0,
                    deleted=each.get("lifecycle_stage") == "deleted",
                )
                for each in self._all("experiments", {"view_type": "ALL"})
            ]
        if len({each.id for each in found}) != len(found):
            raise self._wrong("an experiment is listed twice")
        return found

    def _counted(self, experiment: Experiment) -> Experiment:
        return replace(experiment, runs=len(self._runs_of(experiment.id)))

    def _has_runs(self, experiment: Experiment) -> bool:
        question = _runs_in(experiment.id) | {"max_results": 1}
        with self._checked():
            return any(parts(self._server.post(f"{_API}runs/search", question), "runs"))

    def _runs_of(self, experiment: str) -> list[_Entry]:
        """The runs of an experiment in their order, with what the server says of each kept on disk."""
        if experiment not in self._entries:
            with self._checked():
                found = [
                    self._kept(each, experiment) for each in self._all("runs", _runs_in(experiment))
                ]
            if len({each.run_id for each in found}) != len(found):
                raise self._wrong("a run is listed twice")
            self._entries[experiment] = sorted(found)
        return self._entries[experiment]

    def _kept(self, run: dict[str, Any], experiment: str) -> _Entry:
        check_experiment(run, experiment)
        data = json.dumps(run).encode()
        started = mlflow_values.in_range(start(run))
        try:
            offset = self._spool.seek(0, os.SEEK_END)
            self._spool.write(data)
        except OSError as error:
            raise unkept(error) from None
        if offset > MAX_SPOOL:
            raise self._exhausting(f"{MAX_SPOOL:,} bytes of runs")
        return _Entry(started is not None, started or 0, run_id(run), offset, len(data))

    def _read(self, entries: Sequence[_Entry]) -> list[Described]:
        """The first of ``entries``, as many as are not too long together."""
        found: list[Described] = []
        left = _BYTES_AT_ONCE
        for entry in entries:
            left -= entry.size
            if found and left < 0:
                break
            self._spool.seek(entry.offset)
            found.append(described(json.loads(self._spool.read(entry.size))))
        return found

    def _all(self, kind: str, question: dict[str, object]) -> Iterator[dict[str, Any]]:
        """All experiments, runs or logged models that answer ``question``, page by page."""
        path, size = f"{_API}{kind}/search", _PAGE
        key = "models" if kind == "logged-models" else kind

        def page(token: str) -> dict[str, Any]:
            nonlocal size
            following = {"page_token": token} if token else {}
            while True:
                asked = {**question, "max_results": size, **following}
                try:
                    return self._server.post(
                        path, asked, most=_BYTES_OF_A_PAGE if size > 1 else MAX_ANSWER
                    )
                except TooLargeError:
                    if size == 1:
                        raise
                    # MLflow's tokens count runs, not pages.
                    size = max(1, size // 8)

        count = 0
        for answer in pages(page, self._server.shown):
            for each in parts(answer, key):
                count += 1
                if count > MAX_RUNS:
                    raise self._exhausting(f"{MAX_RUNS:,} {key}")
                yield each

    def _models(self, experiment: Experiment) -> dict[str, list[tuple[str, str]]]:
        """Ids and places of logged models by the run that made them. Servers before MLflow 3 have none."""
        found: dict[str, list[tuple[str, str]]] = {}
        try:
            with self._checked():
                for each in self._all("logged-models", {"experiment_ids": [experiment.id]}):
                    info = part(each, "info")
                    model = word(info.get("model_id")), word(info.get("artifact_uri", ""))
                    found.setdefault(word(info.get("source_run_id", "")), []).append(model)
        except NotThereError:
            return {}
        return found

    def _files(
        self,
        run: Described,
        models: Mapping[str, list[tuple[str, str]]],
        places: Places,
        experiment: Experiment,
    ) -> tuple[list[ArtefactFile], Flags]:
        """The files of a run and its logged models, and what there is to say about them."""
        flags = Flags()
        if self._server.unverified:
            flags("run", "tls_not_verified", "MLFLOW_TRACKING_INSECURE_TLS")
        files: list[ArtefactFile] = []
        own = sorted(models.get(run.run_id, []))
        locations = [("", run.uri or ""), *((f"models/{name}/", uri) for name, uri in own)]
        for prefix, uri in locations:
            root = self._served.root(uri) if places.given is None else None
            if root is not None:
                files += self._served.files(root, prefix, flags)
                continue
            folder, problem = places.find(uri) if uri else (None, "")
            if folder is not None:
                files += walk(folder, prefix, flags)
            elif problem:
                flags("artefacts", "artefacts_unreachable", f"{prefix}{problem}")
        for model in sorted(set(run.models) - {name for name, _ in own}):
            flags("artefacts", "model_not_listed", f"models/{model}")
        if experiment.deleted:
            flags("artefacts", "models_not_listed", "MLflow lists none of a deleted experiment")
        return files, flags

    @contextmanager
    def _checked(self) -> Iterator[None]:
        """What is not as MLflow writes it is refused, and said whose answer it was."""
        try:
            yield
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._wrong(str(error)) from None

    def _wrong(self, problem: str) -> SourceError:
        return SourceError(
            f"{self._server.shown} answers with what MLflow would not: {problem}",
            remedy="Is this an MLflow tracking server, and is nothing in between that changes its answers?",
        )

    def _exhausting(self, limit: str) -> SourceError:
        return SourceError(
            f"{self._server.shown} has more than {limit}",
            remedy="No training makes so many; look at what has written them.",
        )


def _runs_in(experiment: str) -> dict[str, object]:
    return {
        "experiment_ids": [experiment],
        "run_view_type": "ALL",
        # New runs come last: they do not move those on later pages.
        "order_by": ["attributes.start_time ASC"],
    }


def _imported(
    run: Described,
    experiment: Experiment,
    found: history.Histories,
    files: Sequence[ArtefactFile],
    flags: Flags,
) -> ImportedRun:
    code, others = mlflow_values.split_tags(run.tags)
    points = mlflow_values.stored_points(history.points_of(run, found), flags)
    mlflow_values.by_value(points, flags)
    flag_steps(points, flags)
    mlflow_values.flag_texts(run.parameters, others, flags)
    return ImportedRun(
        source=Source(
            tracker="mlflow",
            store="rest",
            experiment_id=experiment.id,
            experiment=experiment.name,
            run_id=run.run_id,
        ),
        name=run.tags.get("mlflow.runName") or run.name,
        status=mlflow_values.status_of(run.status),
        deleted=experiment.deleted or run.stage == "deleted",
        started=mlflow_values.moment("start_time", run.started, flags),
        ended=mlflow_values.moment("end_time", run.ended, flags),
        code=code,
        data=mlflow_values.sorted_datasets(run.data),
        parameters=run.parameters,
        tags=others,
        points=tuple(points),
        artefacts=tuple(files),
        fidelity=flags.all(),
    )
