"""A request in, an answer out."""

from __future__ import annotations

import pytest

from bundler import errors
from bundler.engines import package, worker
from bundler.engines.retries import Lost
from bundler.errors import BundlerError, MalformedError, OutputError, UsageError
from tests.unit.engines import works
from tests.unit.engines.conftest import a_trial
from tests.unit.engines.works import a_result


@pytest.fixture
def ask(staged, tmp_path):
    """Send a request through all that a worker does."""
    sha256 = package.pack(staged, tmp_path / "package.tar")

    def send(trial=None, *, work=works.echo, asked=None, on_output=None, folder=None):
        asked = asked or worker.request(trial or a_trial(), sha256)
        fetch = lambda: (tmp_path / "package.tar").open("rb")  # noqa: E731
        answer = worker.serve(asked, folder or tmp_path / "node", fetch, work, on_output)
        return worker.settle(answer, "node 1")

    return send


def test_a_worker_has_the_package_and_an_empty_place_that_is_gone_afterwards(ask, tmp_path):
    heard = []
    result = ask(on_output=heard.append)
    assert result.log[:3] == ("bundle/data/code/train.py", "code/train.py", "empty: True")
    assert result.where == "node 1"
    assert heard == [b"seed 7\n"]
    assert sorted(path.name for path in (tmp_path / "node").iterdir()) == ["lock", "package"]


def test_the_trial_arrives_as_it_was_sent(ask):
    seen = []

    def work(trial, staged, place, on_output):
        seen.append(trial)
        return a_result()

    ask(a_trial(9, environment={"A": "b"}, histories=True), work=work)
    assert seen == [a_trial(9, environment={"A": "b"}, histories=True)]


def test_a_name_that_is_no_unicode_does_not_stop_an_answer(ask):
    def work(trial, staged, place, on_output):
        return a_result(problem="cannot read '\udcff'")

    assert ask(work=work).problem == "cannot read '?'"


def test_another_version_on_the_worker_is_refused(ask, monkeypatch):
    asked = worker.request(a_trial(), "00")
    monkeypatch.setattr("bundler.__version__", "9.9.9")
    with pytest.raises(UsageError, match=r"9\.9\.9 is installed there, and '0") as caught:
        ask(asked=asked)
    assert "same version" in caught.value.remedy


@pytest.mark.parametrize("field", ["interpreter", "root"])
def test_software_that_is_not_on_the_worker_is_named(ask, field):
    with pytest.raises(UsageError, match=r"there is no .*'/no/such/thing'") as caught:
        ask(a_trial(**{field: "/no/such/thing"}))
    assert "same on all machines" in caught.value.remedy


def test_an_error_of_the_worker_is_the_same_error_here(ask):
    with pytest.raises(errors.SandboxUnavailableError, match="nothing works here") as caught:
        ask(work=works.refuses)
    assert caught.value.remedy == "Install bubblewrap."


def test_trouble_while_handling_a_training_is_no_reason_to_repeat_it(ask):
    with pytest.raises(OutputError, match="No space left"):
        ask(work=works.breaks)


def test_an_error_that_nobody_thought_of_is_answered(ask):
    with pytest.raises(BundlerError, match=r"worker .*could not be handled: MemoryError") as caught:
        ask(work=works.runs_out_of_memory)
    assert "no evidence against the provider" in caught.value.remedy


def test_by_what_a_scheduler_stops_a_worker_it_is_stopped(staged, tmp_path):
    sha256 = package.pack(staged, tmp_path / "package.tar")
    fetch = lambda: (tmp_path / "package.tar").open("rb")  # noqa: E731
    asked, node = worker.request(a_trial(), sha256), tmp_path / "node"
    with pytest.raises(MemoryError):
        worker.serve(asked, node, fetch, works.runs_out_of_memory, None, stops=(MemoryError,))
    assert sorted(path.name for path in node.iterdir()) == ["lock", "package"]


def test_a_worker_without_room_is_lost(ask, tmp_path):
    (tmp_path / "file").touch()
    end = ask(folder=tmp_path / "file/below")
    assert isinstance(end, Lost)
    assert "has no room" in end.reason


def test_a_changed_package_is_refused(ask):
    with pytest.raises(MalformedError, match="arrived changed") as caught:
        ask(asked=worker.request(a_trial(), "00"))
    assert caught.value.code == "package"


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"version": 1, "version": 2}'])
def test_a_request_that_is_none_gets_an_answer(ask, text):
    if not text:
        text = b" "
    with pytest.raises(BundlerError):
        ask(asked=text)


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b'{"result": {}}', b"{}"])
def test_an_answer_that_is_none_is_an_error(text):
    with pytest.raises(BundlerError):
        worker.settle(text)


def test_a_cluster_s_gpus_are_told_only_where_the_machine_has_more(monkeypatch):
    monkeypatch.setattr("bundler.engines.machine._devices", lambda dev: 4)
    assert worker.given_gpus(a_trial(), ("2",)).environment == {"CUDA_VISIBLE_DEVICES": "2"}
    monkeypatch.setattr("bundler.engines.machine._devices", lambda dev: 1)
    assert worker.given_gpus(a_trial(), ("0",)) == a_trial()
