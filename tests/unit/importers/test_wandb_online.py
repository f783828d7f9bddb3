"""W&B's server, with a fake in the place of its SDK: there is no server to ask here, so this shows our side only."""

from __future__ import annotations

import builtins
import importlib
import math
from types import SimpleNamespace

import pytest

from bundler.errors import SourceError
from bundler.importers.wandb import WandbImporter
from bundler.importers.wandb import online as wandb_online
from tests.unit.importers.wandb_records import flags, read, refused

ADDRESS = "wandb://team/credit"


class FakeError(Exception):
    """What the SDK raises."""


class FakeRun(SimpleNamespace):
    """A run as ``wandb.Api().run`` gives it."""

    def scan_history(self):
        """Every row, without keys."""
        return iter(self.rows)

    def history(self, **_):
        raise AssertionError("500 rows of a sample")

    def files(self):
        return [
            SimpleNamespace(name="model.bin", md5="1B2M2Y8AsgTpgAmY7PhCfg=="),
            SimpleNamespace(name="a.log", md5=None),
        ]


def fake_run(**more) -> FakeRun:
    values = {
        "id": "abc", "name": "baseline", "state": "finished", "created_at": "2026-01-01T00:00:00Z", "commit": "c0ffee",
        "group": "search", "job_type": None, "notes": "", "tags": ["a", "b"], "lastHistoryStep": 2,
        "config": {"lr": 0.1, "optimizer": {"name": "adam"}, "_wandb": {}},
        "summary": SimpleNamespace(_json_dict={"loss": 0.25, "best": {"max": 1}, "_step": 2, "image": {"_type": "x"}}),
        "metadata": {"os": "Linux", "python": "3.11.7", "host": "h", "git": {"remote": "https://x.example/r"}, "codePath": "train.py"},
        "rows": [
            {"_step": 0, "_timestamp": 1767225601.5, "_runtime": 1, "loss": 1.0, "deep": {"a": 1}, "word": "x"},
            {"_step": 2, "_timestamp": 1767225603, "loss": "NaN", "image": {"_type": "image-file"}},
        ],
    }  # fmt: skip
    return FakeRun(**(values | more))


class FakeApi:
    """``wandb.Api()``."""

    def __init__(self, *runs: FakeRun) -> None:
        self._runs = {run.id: run for run in runs}

    def runs(self, path):
        assert path == "team/credit"
        return list(self._runs.values())

    def run(self, path):
        return self._runs[path.removeprefix("team/credit/")]


@pytest.fixture
def server(monkeypatch):
    def serve(*runs: FakeRun) -> None:
        monkeypatch.setattr(
            wandb_online, "connect", lambda: (FakeApi(*runs), (FakeError, KeyError))
        )

    return serve


def test_a_run_of_the_server_has_its_complete_history(server):
    server(fake_run())
    (run,) = read(ADDRESS)
    assert (run.source.store, run.source.experiment, run.source.experiment_id) == (
        "server",
        "credit",
        "team/credit",
    )
    assert (run.name, run.status, run.started, run.ended) == (
        "baseline",
        "finished",
        1767225600000,
        1767225603000,
    )
    points = [(p.metric, p.step, p.timestamp, p.value) for p in run.points]
    assert repr(points) == repr([
        ("best.max", 2, 1767225603000, 1.0),
        ("deep.a", 0, 1767225601500, 1.0),
        ("loss", 0, 1767225601500, 1.0),
        ("loss", 2, 1767225603000, math.nan),
    ])  # fmt: skip
    assert run.parameters == {"lr": 0.1, "optimizer.name": "adam"}
    assert run.tags == {"group": "search", "tags": "a, b"}
    assert (run.code.repository, run.code.commit, run.code.entry_point) == (
        "https://x.example/r",
        "c0ffee",
        "train.py",
    )
    assert run.environment == {"platform": "Linux", "python": "3.11.7", "host": "h"}
    assert [(each.path, each.file) for each in run.artefacts] == [
        ("a.log", None),
        ("model.bin", None),
    ]
    assert [each.detail for each in run.fidelity if each.flag == "md5_only"] == [
        "a.log: md5 None", "model.bin: md5 d41d8cd98f00b204e9800998ecf8427e",
    ]  # fmt: skip
    assert flags(run)["metrics.loss", "summary_differs"] == "the summary says 0.25"


def test_runs_come_in_order_of_their_start(server):
    server(
        fake_run(id="b"),
        fake_run(id="a"),
        fake_run(id="c", created_at="2025-01-01T00:00:00", rows=[], lastHistoryStep=-1),
    )
    runs = read(ADDRESS)
    assert [run.source.run_id for run in runs] == ["c", "a", "b"]
    assert (runs[0].started, runs[0].ended) == (1735689600000, None)
    assert WandbImporter().experiments(ADDRESS) == ("credit",)
    assert [run.source.run_id for run in read(ADDRESS, "credit")] == ["c", "a", "b"]
    with pytest.raises(SourceError, match="no experiment"):
        read(ADDRESS, "other")


@pytest.mark.parametrize(("state", "status"), [
    ("crashed", "failed"), ("killed", "killed"), ("running", "running"), ("pending", "scheduled"), ("odd", "unknown"),
])  # fmt: skip
def test_states_of_the_server(server, state, status):
    server(fake_run(state=state, created_at=None, summary=None, metadata=None, tags=None))
    (run,) = read(ADDRESS)
    assert (run.status, run.started) == (status, None)


def test_rows_that_are_missing_in_a_history_are_flagged(server):
    server(fake_run())
    (run,) = read(ADDRESS)
    assert flags(run)["metrics", "history_incomplete"].startswith("no rows for 1 steps")
    server(fake_run(historyLineCount=3))
    (run,) = read(ADDRESS)
    assert flags(run)["metrics", "history_incomplete"] == "2 of 3 rows that W&B counts"
    server(fake_run(historyLineCount=2))  # steps may be left out
    (run,) = read(ADDRESS)
    assert ("metrics", "history_incomplete") not in flags(run)


MD5 = "1B2M2Y8AsgTpgAmY7PhCfg=="


def artefact(name: str, kind: str, digest: str | None, **entries: tuple[str, str | None]):
    made = {
        path: SimpleNamespace(digest=each, ref=ref, size=1) for path, (each, ref) in entries.items()
    }
    manifest = SimpleNamespace(entries=made) if entries else None
    return SimpleNamespace(name=name, type=kind, digest=digest, manifest=manifest)


def test_artefacts_of_the_server_are_data_and_files_by_name(server):
    logged = [
        artefact("model:v0", "model", "d1", weights=(MD5, None)),
        artefact("rows:v1", "dataset", "d2", table=(MD5, None), far=("etag", "s3://b/far")),
        artefact("bare:v2", "model", "d3"),
    ]
    used = [artefact("train:v3", "dataset", "d4"), "valid:v1", artefact("plain", "dataset", None)]
    server(fake_run(files=list, logged_artifacts=lambda: logged, used_artifacts=lambda: iter(used)))
    (run,) = read(ADDRESS)
    assert [(each.name, each.role, each.version, each.tracker_digest) for each in run.data] == [
        ("rows/table", "output", None, "md5:d41d8cd98f00b204e9800998ecf8427e"),
        ("rows/far", "output", None, "etag:etag"),
        ("train", "input", "v3", "manifest-md5:d4"),
        ("valid", "input", "v1", None),
        ("plain", "input", None, None),
    ]
    assert [each.path for each in run.artefacts] == [
        "artifacts/model/weights",
        "artifacts/rows/table",
    ]
    detail = "bare:v2: md5 of the manifest d3; its files are not listed"
    assert flags(run)["artefacts", "not_imported"] == detail


def test_an_sdk_that_tells_no_artefacts_is_flagged(server):
    server(fake_run())
    (run,) = read(ADDRESS)
    told = [each.detail for each in run.fidelity if each.flag == "not_imported"]
    assert told == [
        "this SDK does not tell logged_artifacts", "this SDK does not tell used_artifacts"
    ]  # fmt: skip


def test_more_artefacts_than_a_run_has_are_refused(server, monkeypatch):
    monkeypatch.setattr(wandb_online, "MAX_ENTRIES", 1)
    server(fake_run(logged_artifacts=lambda: ["a:v0", "b:v0"]))
    refused(ADDRESS, "more than 1 artefacts")


def test_names_that_become_one_and_null_are_flagged(server):
    server(
        fake_run(config={"a.b": 1, "a": {"b": 2}, "lr": None}, summary={"s.x": 1, "s": {"x": 2}})
    )
    (run,) = read(ADDRESS)
    assert run.parameters == {"a.b": 1, "lr": None}
    told = {(each.field, each.flag) for each in run.fidelity}
    assert {
        ("parameters.a.b", "names_merged"),
        ("parameters.lr", "null_ambiguous"),
        ("metrics.s.x", "names_merged"),
    } <= told


def test_an_sdk_of_another_form_is_a_message(server):
    server(fake_run(lastHistoryStep=None))
    assert "another version" in refused(ADDRESS, "TypeError").remedy
    run = fake_run()
    del run.created_at
    server(run)
    refused(ADDRESS, "AttributeError")


def test_a_history_that_ends_too_early_is_refused(server):
    server(fake_run(lastHistoryStep=7))
    refused(ADDRESS, "ends at step 2, not at 7")


def test_a_row_without_a_step_is_refused(server):
    server(fake_run(rows=[{"loss": 1}]))
    refused(ADDRESS, "row of step None")


def test_what_the_sdk_raises_becomes_a_message(server, monkeypatch):
    def fails(self, path):
        raise FakeError("no permission\x1b[2J")

    server(fake_run())
    monkeypatch.setattr(FakeApi, "run", fails)
    refused(ADDRESS, "no permission")
    monkeypatch.setattr(FakeApi, "runs", fails)
    assert "WANDB_API_KEY" in refused(ADDRESS, "no permission").remedy


@pytest.mark.parametrize(
    "address", ["wandb://", "wandb://team", "wandb://team/", "wandb://a/b/c", "wandb://a/b?c"]
)
def test_an_address_that_names_no_project_is_refused(address):
    refused(address, "no address of a W&B project")


def test_without_the_sdk_the_extra_is_named(monkeypatch):
    def missing(name, *more):
        raise ImportError(name)

    monkeypatch.setattr(wandb_online, "import_module", missing)
    assert "aisdp-bundler[wandb]" in refused(ADDRESS, "needs its SDK").remedy


def test_without_a_key_the_variable_is_named(monkeypatch):
    def api():
        raise FakeError("No API key configured. Use `wandb login` to log in.")

    sdk = SimpleNamespace(Api=api, errors=SimpleNamespace(Error=FakeError))
    monkeypatch.setattr(wandb_online, "import_module", lambda name: sdk)
    assert "WANDB_API_KEY" in refused(ADDRESS, "No API key configured").remedy
    sdk.Api = lambda: "api"
    assert wandb_online.connect() == ("api", (FakeError, OSError, ValueError))


def test_the_sdk_is_not_imported_for_files(monkeypatch):
    real = builtins.__import__

    def watched(name, *more):
        assert name.split(".")[0] != "wandb"
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", watched)
    importlib.reload(wandb_online)
