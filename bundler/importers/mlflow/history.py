"""The metric histories of many runs over REST, complete.

MLflow has two endpoints for them. ``get-history-bulk`` takes one metric of up to 100 runs and answers with up to 25,000
points, in order of run; what is beyond that it leaves out **without a word**. ``get-history`` takes one run and has
pages. So: the runs asked at once are so few that their points should fit; an answer that is full is asked for again in
halves, and a single run that fills one, page by page. At last every metric's history must hold the point that the run
itself names as its latest.

That limit is MLflow's own. Where the server does not say that it is MLflow (``/version``), another one may hold, and
all histories are read page by page. **What a server, or a proxy before it, leaves out of the pages themselves, no
client can notice**, unless it is the latest point: nothing else says how many there are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from bundler.errors import SourceError, quoted
from bundler.importers.mlflow.answers import Described, Point, parts, point, word
from bundler.importers.mlflow.http import NotThereError, Server
from bundler.importers.mlflow.pages import pages

MAX_POINTS = 5_000_000
"""Most metric points of one run: about 1 GB of memory."""

FULL = 25_000
"""So many points fit into an answer of the bulk endpoint; one that has them may have been cut."""

MAX_RUNS = 100
"""So many runs it takes at once."""

MANY = 200_000
"""About so many points are held at a time, unless one run alone has more."""

_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_SINGLE = "/api/2.0/mlflow/metrics/get-history"

_PAGE = 10_000
"""Points of a page."""

Histories = dict[tuple[str, str], list[Point]]
"""Points by run id and metric."""


class TooManyError(Exception):
    """Several runs have more points than shall be in memory at a time."""


class _Question(NamedTuple):
    metric: str
    runs: tuple[str, ...]


class HistoryReader:
    """Reads histories from one server, with the threads of ``pool``."""

    def __init__(self, server: Server, pool: ThreadPoolExecutor) -> None:
        self._server = server
        self._pool = pool
        # Older servers do not say their version, and other ones that speak MLflow's protocol may cut elsewhere.
        self._has_bulk = server.version() is not None
        self._lock = threading.Lock()
        self._left = 0
        # The most points of a metric in the runs before: how many runs to ask for at once.
        self._longest = FULL // 10

    def read(self, runs: Sequence[Described]) -> Histories:
        """The histories of all metrics of ``runs``.

        Raises :class:`TooManyError` where several runs together have too many points, :class:`SourceError` where one
        has, and where a run has changed so that what was read cannot be whole.
        """
        self._left = MAX_POINTS if len(runs) == 1 else 2 * MANY
        wanted: dict[str, list[str]] = {}
        for run in runs:
            for metric in run.latest:
                wanted.setdefault(metric, []).append(run.run_id)
        width = max(1, min(MAX_RUNS, (FULL * 4 // 5) // self._longest))
        questions = [
            _Question(metric, tuple(ids[at : at + width]))
            for metric, ids in wanted.items()
            for at in range(0, len(ids), width)
        ]
        found: Histories = {}
        try:
            for some in self._pool.map(self._ask, questions):
                for each, run_id in some:
                    found.setdefault((run_id, each[0]), []).append(each)
            for run in runs:
                self._complete(run, found)
        except TooManyError:
            if len(runs) == 1:
                raise SourceError(
                    f"run {quoted(runs[0].run_id)} of {self._server.shown} has more than {MAX_POINTS:,} metric points",
                    remedy="No training logs so many; look at what has written it.",
                ) from None
            raise
        self._longest = max(map(len, found.values()), default=1)
        return found

    def _ask(self, question: _Question) -> list[tuple[Point, str]]:
        if self._has_bulk:
            try:
                answer = self._bulk(question)
            except NotThereError:
                # Other servers that speak MLflow's protocol do not have it.
                self._has_bulk = False
            else:
                if len(answer) < FULL:
                    self._count(len(answer))
                    return answer
        if len(question.runs) == 1:
            return self._single(question.metric, question.runs[0])
        half = len(question.runs) // 2
        return [
            pair
            for runs in (question.runs[:half], question.runs[half:])
            for pair in self._ask(_Question(question.metric, runs))
        ]

    def _bulk(self, question: _Question) -> list[tuple[Point, str]]:
        query = [("metric_key", question.metric), ("max_results", str(FULL))]
        query += [("run_id", run) for run in question.runs]
        answer = self._server.get(_BULK, query)
        asked = set(question.runs)
        found = []
        for each in parts(answer, "metrics"):
            run_id = word(each.get("run_id"))
            if run_id not in asked:
                raise TypeError(f"a point of run {quoted(run_id)}, which was not asked for")
            found.append((self._point(each, question.metric), run_id))
        return found

    def _single(self, metric: str, run_id: str) -> list[tuple[Point, str]]:
        query = [("run_id", run_id), ("metric_key", metric), ("max_results", str(_PAGE))]

        def page(token: str) -> dict[str, Any]:
            return self._server.get(_SINGLE, [*query, *([("page_token", token)] if token else [])])

        found = []
        for answer in pages(page, self._server.shown):
            points = [(self._point(each, metric), run_id) for each in parts(answer, "metrics")]
            self._count(len(points))
            found += points
        return found

    @staticmethod
    def _point(each: dict[str, Any], metric: str) -> Point:
        key, step, timestamp, value, is_nan = point(each)
        if key != metric:
            raise TypeError(f"a point of metric {quoted(key)}, which was not asked for")
        # One text for all points of a metric, not one a point.
        return metric, step, timestamp, value, is_nan

    def _count(self, points: int) -> None:
        with self._lock:
            self._left -= points
            if self._left < 0:
                raise TooManyError

    def _complete(self, run: Described, found: Histories) -> None:
        """Make sure that each metric's history holds the point that the run names as its latest."""
        for metric, latest in run.latest.items():
            if _holds(found.get((run.run_id, metric), ()), latest):
                continue
            # A server that leaves out more than MLflow's own: page by page is the documented way.
            again = [each for each, _ in self._single(metric, run.run_id)]
            if not _holds(again, latest):
                raise SourceError(
                    f"the history of metric {quoted(metric)} of run {quoted(run.run_id)} of {self._server.shown}"
                    " lacks the latest value that the run has",
                    remedy="If the run is still training, wait for its end; else look at the server's log.",
                )
            found[run.run_id, metric] = again


def _holds(points: Sequence[Point], latest: Point) -> bool:
    _, step, timestamp, value, is_nan = latest
    # It is one of the last; and NaN is not equal to itself.
    return any(
        each[1] == step and each[2] == timestamp and (each[4] if is_nan else each[3] == value)
        for each in reversed(points)
    )


def points_of(run: Described, found: Histories) -> Iterator[Point]:
    """The points of one run, which are let go: they are not needed again."""
    for metric in sorted(run.latest):
        yield from found.pop((run.run_id, metric), ())
