"""Personal data and credentials are taken out of records, and it is said where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.records import CodeVersion, DatasetVersion, FidelityFlag, RunRecord, Source
from bundler.redaction import PERSONAL_DATA, personal_data_in, redact, summary
from bundler.spec import Redaction

EMPTY = RunRecord(
    id="r",
    name=None,
    source=Source(tracker="t", store="s", experiment_id="1", experiment="e", run_id="r"),
    status="finished",
    deleted=False,
    started_at=None,
    ended_at=None,
    code=CodeVersion(),
    data=(),
    parameters={},
    seed=None,
    environment={},
    metrics=(),
    history=None,
    artefacts=(),
    tags={},
)


def tagged(name: str, value: str, kept=()) -> tuple[str, frozenset]:
    record, found = redact(replace(EMPTY, tags={name: value}), kept)
    return record.tags[name], found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mlflow.user", "user-name"),
        ("sys/owner", "user-name"),
        ("Username", "user-name"),
        ("host", "host-name"),
        ("system.hostname", "host-name"),
        ("ip address", "host-name"),
        ("git.author_email", "e-mail"),
        ("aws.secret_access_key", "credential"),
        ("API_KEY", "credential"),
    ],
)
def test_a_value_goes_by_its_name(name, kind):
    assert tagged(name, "anna") == (f"[redacted {kind}]", {(kind, f"tags.{name}")})


@pytest.mark.parametrize(
    "name", ["max_tokens", "token", "node", "users", "n_hosts", "lr", "secretary", "user.count"]
)
def test_other_names_are_left(name):
    assert tagged(name, "12") == ("12", frozenset())


@pytest.mark.parametrize(
    ("text", "clean", "kind"),
    [
        ("by anna.b+c@lab.example.org, ok", "by [redacted e-mail], ok", "e-mail"),
        ("/home/anna/data/x.csv", "~/data/x.csv", "home-path"),
        ("file:///Users/anna/x", "file://~/x", "home-path"),
        (r"C:\Users\Anna\x", r"~\x", "home-path"),
        ("/root/x and /root", "~/x and ~", "home-path"),
        ("https://me:pw@host/x", "https://host/x", "credential"),
        ("AKIA" + "A" * 16, "[redacted credential]", "credential"),
        ("hf_" + "a" * 34, "[redacted credential]", "credential"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nAAA\n-----END RSA PRIVATE KEY----- b",
            "[redacted credential] b",
            "credential",
        ),
    ],
)
def test_a_shape_goes_wherever_it_is(text, clean, kind):
    assert tagged("note", text) == (clean, {(kind, "tags.note")})
    assert kind in personal_data_in(text)
    if kind in PERSONAL_DATA:
        assert tagged("note", text, kept=(kind,)) == (text, frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "git@github.com:org/repository.git",
        "/data/home/x",
        "/rooted",
        "numpy==2.0@build",
        "f1@0.5",
        "sk-learn",
        "0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_names_nobody_is_left(text):
    assert tagged("note", text) == (text, frozenset())
    assert personal_data_in(text) == ()


def test_a_credential_is_never_kept():
    assert tagged("password", "x", kept=PERSONAL_DATA)[0] == "[redacted credential]"


def test_every_text_of_a_record_is_searched():
    path = "/home/anna/p"
    record = replace(
        EMPTY,
        name=path,
        source=replace(EMPTY.source, experiment=path),
        code=CodeVersion(repository=path, branch=path, entry_point=path),
        data=(DatasetVersion(name=path, source=path, version=path),),
        parameters={"p": path, "n": 3, "user": "anna", "flag": True, "nothing": None},
        environment={"host": "anna-pc", "prefix": path},
        tags={"t": path},
        fidelity=(FidelityFlag(field="artefacts", flag="missing", detail=path),),
    )
    clean, found = redact(record)
    assert "anna" not in repr(clean)
    assert clean.parameters == {
        "p": "~/p",
        "n": 3,
        "user": "[redacted user-name]",
        "flag": True,
        "nothing": None,
    }
    assert {field for _, field in found} >= {
        *("name", "source.experiment", "code.repository", "code.branch", "code.entry_point"),
        *("data.name", "data.source", "data.version", "parameters.p", "environment.prefix"),
        *("tags.t", "fidelity", "environment.host"),
    }
    assert redact(clean) == (clean, frozenset())


def test_redactions_are_counted_by_run():
    found = [frozenset({("e-mail", "tags.x")}), frozenset({("e-mail", "tags.x")}), frozenset()]
    assert summary(found) == (Redaction(kind="e-mail", field="tags.x", runs=2),)


@given(st.text(max_size=200))
def test_any_text_comes_through(text):
    clean, _ = redact(replace(EMPTY, tags={"note": text}))
    assert redact(clean) == (clean, frozenset())
