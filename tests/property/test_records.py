"""A record is the same after a way through JSON, whatever is in it, and satisfies its schema."""

from __future__ import annotations

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bundler import canonical, chain, codec, resources
from bundler.manifest import path_problem
from bundler.records import (
    Artefact,
    RunRecord,
    artefact_location,
    history_location,
    number,
    without_credentials,
)
from tests.property import strategies_records as strategies

SCHEMA = Draft202012Validator(
    canonical.parse(resources.schemas()["run-record-1.schema.json"], name="schema")
)
QUICK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(strategies.records)
def test_records_round_trip_exactly(record):
    data = canonical.serialise(codec.to_json(record))
    again = codec.from_json(RunRecord, canonical.parse_canonical(data))
    assert again == record
    assert canonical.serialise(codec.to_json(again)) == data


@QUICK
@given(strategies.records)
def test_records_satisfy_their_schema(record):
    assert not list(SCHEMA.iter_errors(codec.to_json(record)))


@QUICK
@given(st.lists(strategies.records, max_size=4))
def test_records_come_back_from_the_log(records):
    lines = chain.append([], map(codec.to_json, records))
    back = chain.split(chain.join(lines))
    assert [codec.from_json(RunRecord, run) for run in chain.walk(back)] == records


@QUICK
@given(st.floats())
def test_every_double_has_a_spelling(value):
    spelled = number(value)
    if math.isfinite(value):
        assert spelled == value
    else:
        assert spelled in {"NaN", "Infinity", "-Infinity"}


@QUICK
@given(strategies.names, st.text(max_size=300), strategies.digests)
def test_an_artefact_always_has_a_place_in_the_bag(run_id, path, sha256):
    location = artefact_location(run_id, Artefact(path=path, sha256=sha256, size=1))
    assert path_problem(location) is None
    assert location.startswith(f"data/artefacts/{run_id}/")
    assert path_problem(history_location(run_id)) is None


@QUICK
@given(st.text(max_size=40))
def test_credentials_never_survive(text):
    shown = without_credentials(f"https://user:s3cret{text.replace('/', '')}@host.example/x")
    assert "s3cret" not in shown
