"""Run records: one to edit (:func:`record`), and arbitrary ones (:func:`records`)."""

from __future__ import annotations

import hashlib
import string
from dataclasses import replace
from typing import Any, get_args

from hypothesis import strategies as st

from bundler.canonical import MAX_INTEGER
from bundler.manifest import ResourceDescriptor
from bundler.records import (
    Artefact,
    CodeVersion,
    DatasetVersion,
    FidelityFlag,
    MetricPoint,
    MetricRole,
    MetricSummary,
    RunRecord,
    Source,
    Status,
    number,
)

DIGEST = hashlib.sha256(b"data").hexdigest()


def record(run_id: str = "run-a", seed: int | None = 42, **changes: Any) -> RunRecord:
    """A finished, honest run. ``metrics`` may be a mapping of last values; ``parameters`` are added to the usual."""
    values = changes.pop("metrics", {"val_auc": 0.8, "val_disparity": 0.1, "holdout_auc": 0.79})
    parameters = {"rate": "0.01", "seed": str(seed), **changes.pop("parameters", {})}
    made = RunRecord(
        id=run_id,
        name=f"name of {run_id}",
        source=Source(
            tracker="tiny", store="fake", experiment_id="1", experiment="tiny", run_id=run_id
        ),
        status="finished",
        deleted=False,
        started_at="2025-10-09T08:53:20.000Z",
        ended_at="2025-10-09T08:53:21.000Z",
        code=CodeVersion(commit="a" * 40, dirty=False),
        data=(
            DatasetVersion(name="d", role="training", sha256=DIGEST, rows=600),
            DatasetVersion(name="d", role="holdout", sha256=DIGEST, rows=400),
        ),
        parameters=parameters,
        seed=seed,
        environment={"python": "3.11.7"},
        metrics=tuple(summary(name, value) for name, value in sorted(values.items())),
        history=None,
        artefacts=(),
        tags={},
    )
    return replace(made, **changes)


def summary(name: str, value: float, role: MetricRole = "other") -> MetricSummary:
    """A metric with the one value ``value``."""
    return MetricSummary(
        name=name, role=role, points=1, last=number(value), last_step=0, minimum=None, maximum=None
    )


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | integers | floats | text
digests = st.binary(max_size=8).map(lambda data: hashlib.sha256(data).hexdigest())
names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=20).filter(
    lambda name: name[0].isalnum()
)
times = (
    st.datetimes()
    .map(lambda t: f"{t:%m-%dT%H:%M:%S}.{t.microsecond // 1000:03d}Z")
    .map(lambda tail: "2026-" + tail)
)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


points = st.builds(
    MetricPoint,
    metric=text,
    step=integers,
    timestamp=st.integers(-(2**63), 2**63 - 1),
    value=st.floats(),
)

summaries = st.builds(
    MetricSummary,
    name=text,
    role=st.sampled_from(get_args(MetricRole)),
    points=st.integers(1, 1000),
    last=st.floats().map(number),
    last_step=integers,
    minimum=maybe(floats),
    maximum=maybe(floats),
)

records = st.builds(
    RunRecord,
    id=names,
    name=maybe(text),
    source=st.builds(
        Source, tracker=text, store=text, experiment_id=text, experiment=text, run_id=text
    ),
    status=st.sampled_from(get_args(Status)),
    deleted=st.booleans(),
    started_at=maybe(times),
    ended_at=maybe(times),
    code=st.builds(
        CodeVersion,
        repository=maybe(text),
        commit=maybe(text),
        branch=maybe(text),
        dirty=maybe(st.booleans()),
        entry_point=maybe(text),
    ),
    data=st.lists(
        st.builds(
            DatasetVersion,
            name=text,
            role=maybe(text),
            source=maybe(text),
            version=maybe(text),
            sha256=maybe(digests),
            tracker_digest=maybe(text),
            rows=maybe(st.integers(0, 10**9)),
        ),
        max_size=2,
    ).map(tuple),
    parameters=st.dictionaries(text, scalars, max_size=3),
    seed=maybe(integers),
    environment=st.dictionaries(text, scalars, max_size=3),
    metrics=st.lists(summaries, max_size=2).map(tuple),
    history=maybe(
        st.builds(
            ResourceDescriptor,
            path=names.map(lambda name: f"data/runs/{name}/metrics.csv"),
            sha256=digests,
            size=st.integers(0, MAX_INTEGER),
        )
    ),
    artefacts=st.lists(
        st.builds(
            Artefact,
            path=text.filter(bool),
            sha256=maybe(digests),
            size=maybe(st.integers(0, MAX_INTEGER)),
        ),
        max_size=2,
    ).map(tuple),
    tags=st.dictionaries(text, text, max_size=3),
    fidelity=st.lists(st.builds(FidelityFlag, field=text, flag=text, detail=text), max_size=2).map(
        tuple
    ),
)
