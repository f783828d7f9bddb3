"""A real Ray cluster of three nodes on this machine, one of which is killed while it works."""

from __future__ import annotations

import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bundler.engines import EngineOptions, open_engine
from bundler.engines import pool as pool_module
from bundler.errors import (
    BundlerError,
    EnvironmentNotRecreatableError,
    SandboxUnavailableError,
    UsageError,
)
from bundler.spec import Resources
from tests.unit.engines import works
from tests.unit.engines.conftest import LIMITS, a_trial

# Read when Ray is imported: a cluster that runs what anybody sends it is none to test on either.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_pause")]

STORE = 80 << 20


@pytest.fixture
def no_pause(monkeypatch):
    monkeypatch.setattr(pool_module, "PAUSE", 0.1)
    monkeypatch.setattr("bundler.engines.ray_engine._LOOK", 0.1)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {
        "num_cpus": 1,
        "memory": 2 << 30,
        "object_store_memory": STORE,
        "include_dashboard": False,
        # So that the death of a node is noticed soon; one that is only slow has ten seconds to answer.
        "_system_config": {
            "health_check_initial_delay_ms": 500,
            "health_check_period_ms": 500,
            "health_check_timeout_ms": 10_000,
            "health_check_failure_threshold": 3,
        },
    }
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1, memory=2 << 30, object_store_memory=STORE)
    yield made
    made.shutdown()


def on(cluster, **options):
    return EngineOptions(kind="ray", limits=LIMITS, ray_address=cluster.address, **options)


def left_behind():
    return list(Path(tempfile.gettempdir()).glob("aisdp-engine-*"))


def test_trainings_run_in_the_sandbox_of_each_node_and_their_logs_come_back(
    cluster, staged, confined
):
    heard: queue.SimpleQueue = queue.SimpleQueue()
    before = left_behind()
    with open_engine(
        on(cluster), staged, Resources(), on_log=lambda *said: heard.put(said)
    ) as engine:
        assert (engine.name, engine.parallel) == ("ray", 3)
        futures = [engine.submit(a_trial(seed)) for seed in range(6)]
        results = [future.result() for future in futures]
    for seed, result in enumerate(results):
        assert (result.seed, result.exit_code, result.problem) == (seed, 0, "")
        assert result.record.parameters["seed"] == seed
        assert result.isolation["kind"] in ("bubblewrap", "sandlock")
        assert result.where.startswith("node ")
    said = [heard.get() for _ in range(heard.qsize())]
    assert {seed for seed, chunk in said if b"score" in chunk} == set(range(6))
    assert left_behind() == before


def test_what_a_worker_finds_is_what_was_sent(cluster, staged):
    with open_engine(on(cluster, parallel=2), staged, Resources(), work=works.echo) as engine:
        assert engine.parallel == 2
        log = engine.submit(a_trial()).result().log
    assert log[:3] == ("bundle/data/code/train.py", "code/train.py", "empty: True")


def test_of_a_long_log_the_end_comes_back(cluster, staged):
    heard = []
    with open_engine(
        on(cluster),
        staged,
        Resources(),
        on_log=lambda *said: heard.append(said),
        work=works.chatters,
    ) as engine:
        engine.submit(a_trial(4)).result()
    assert heard[-1][0] == 4
    assert heard[-1][1].endswith(b"the end\n")


def test_errors_of_a_worker_are_the_same_errors_here(cluster, staged):
    with open_engine(on(cluster), staged, Resources(), work=works.refuses) as engine:
        with pytest.raises(SandboxUnavailableError, match="nothing works here"):
            engine.submit(a_trial()).result()
        with pytest.raises(UsageError, match="there is no interpreter"):
            engine.submit(a_trial(interpreter="/no/such/python")).result()


def test_a_worker_that_cannot_even_answer_is_a_clear_error(cluster, staged):
    """As where the package is not installed: the function that a task is to run cannot be loaded there."""
    with open_engine(on(cluster), staged, Resources(), work=works.Unloadable()) as engine:
        future = engine.submit(a_trial())
        with pytest.raises(BundlerError, match="a worker of the Ray cluster failed") as caught:
            future.result()
    assert "same version" in caught.value.remedy


@pytest.mark.parametrize(
    "resources", [Resources(cpus=64), Resources(cpus=10**9, memory_bytes=1), Resources(gpus=1)]
)
def test_what_no_node_can_hold_is_refused_at_once(cluster, staged, resources):
    words = rf"{resources.cpus:g} CPUs, {resources.gpus} GPUs".replace("+", r"\+")
    with (
        pytest.raises(
            EnvironmentNotRecreatableError,
            match=words + r".*3 of \(1 CPUs, 0 GPUs, 2.0 GiB of memory",
        ),
        open_engine(on(cluster), staged, resources),
    ):
        pass
    assert not ray.is_initialized()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, OSError])
def test_an_engine_that_cannot_be_opened_leaves_the_cluster(cluster, staged, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(pool_module, "ThreadPoolExecutor", fails)
    with pytest.raises(error), open_engine(on(cluster), staged, Resources()):
        pass
    assert not ray.is_initialized()


def test_an_error_of_ray_while_the_engine_opens_is_a_clear_error(cluster, staged, monkeypatch):
    def fails(*_):
        raise ray.exceptions.ObjectStoreFullError("no room for the package")

    monkeypatch.setattr(ray, "put", fails)
    with (
        pytest.raises(UsageError, match="no room for the package"),
        open_engine(on(cluster), staged, Resources()),
    ):
        pass
    assert not ray.is_initialized()


GIB = 1 << 30


@pytest.mark.parametrize(
    ("declared", "limit", "counted"),
    [
        (1, GIB, GIB),  # what it may use, whatever the bundle says
        (None, GIB, GIB),
        (None, 8 * GIB, 2 * GIB),  # a node that is too small may still manage, with one at a time
        (1, 8 * GIB, 2 * GIB),
        (4 * GIB, 8 * GIB, 4 * GIB),  # and is refused where more is declared
        (4 * GIB, GIB, GIB),
    ],
)
def test_ray_keeps_free_what_a_training_may_use(monkeypatch, declared, limit, counted):
    from bundler.engines import ray_engine

    node = {"Resources": {"CPU": 64.0, "memory": float(2 * GIB)}}
    monkeypatch.setattr(ray_engine, "_nodes", lambda: [node, {"Resources": {}}])
    need = ray_engine._counted(Resources(memory_bytes=declared), limit)
    assert need.memory_bytes == counted
    assert ray_engine._room(need) == 2 * GIB // counted


def test_a_log_that_nobody_can_take_stops_nothing(cluster, staged, capfd):
    def breaks(seed, chunk):
        raise MemoryError

    with open_engine(on(cluster), staged, Resources(), on_log=breaks, work=works.echo) as engine:
        assert engine.submit(a_trial()).result().exit_code == 0
    assert "Traceback" not in capfd.readouterr().err


def test_without_an_address_no_cluster_is_started(staged):
    with (
        pytest.raises(UsageError, match="needs a Ray cluster that is running") as caught,
        open_engine(EngineOptions(kind="ray", limits=LIMITS), staged, Resources()),
    ):
        pass
    assert "--engine local" in caught.value.remedy
    assert not ray.is_initialized()


def test_a_worker_process_that_is_killed_is_replaced(cluster, staged, tmp_path):
    (tmp_path / "notes").mkdir()
    environment = {"NOTES": str(tmp_path / "notes")}
    with open_engine(on(cluster), staged, Resources(), work=works.kills_its_worker_once) as engine:
        futures = [engine.submit(a_trial(seed, environment=environment)) for seed in range(4)]
        assert [future.result().attempts for future in futures] == [2, 1, 2, 1]


def test_close_ends_what_runs(cluster, staged, tmp_path):
    (tmp_path / "notes").mkdir()
    trial = a_trial(environment={"NOTES": str(tmp_path / "notes")})
    with open_engine(on(cluster), staged, Resources(), work=works.sleeps) as engine:
        engine.submit(trial)
        while not (noted := list((tmp_path / "notes").iterdir())) or not noted[0].read_text():
            time.sleep(0.05)
        worker = int(noted[0].read_text())
    for _ in range(600):
        if not alive(worker):
            return
        time.sleep(0.05)
    pytest.fail("the worker still runs")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def test_two_engines_in_one_process_are_refused(cluster, staged):
    with open_engine(on(cluster), staged, Resources()):
        with (
            pytest.raises(UsageError, match="in use in this process"),
            open_engine(on(cluster), staged, Resources()),
        ):
            pass
        assert ray.is_initialized()


def test_what_runs_on_a_node(cluster, staged, tmp_path, monkeypatch):
    """The remote function in this process, connected to the cluster: what it gives, and what it leaves to be removed."""
    from bundler.engines import package, ray_engine, worker

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    sha256 = package.pack(staged, tmp_path / "package.tar")
    archive = (tmp_path / "package.tar").read_bytes()
    with open_engine(
        on(cluster), staged, Resources(), on_log=lambda *said: None, work=works.echo
    ) as engine:
        logs = ray_engine._log_actor()
        asked = worker.request(a_trial(), sha256)
        where, said = ray_engine._task(asked, archive, "session", works.echo, 7, logs)
        assert ray.get(logs.take.remote()) == [(7, b"seed 7\n")]
        _, quiet = ray_engine._task(asked, archive, "session", works.echo, 7, None)
        assert engine.parallel == 3
    assert where.startswith("node ")
    assert worker.settle(said).log[:3] == worker.settle(quiet).log[:3]
    assert sorted(p.name for p in (tmp_path / "session").iterdir()) == ["lock", "package"]
    ray_engine._clean("session")
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "somewhere", "host:port"])
def test_an_address_of_another_form_is_refused(staged, address):
    options = EngineOptions(kind="ray", ray_address=address)
    with (
        pytest.raises(UsageError, match="not the HOST:PORT") as caught,
        open_engine(options, staged, Resources()),
    ):
        pass
    assert "head node" in caught.value.remedy


def test_an_address_where_nobody_listens_is_refused_at_once(staged):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        options = EngineOptions(kind="ray", ray_address=address)
        with (
            pytest.raises(UsageError, match="no Ray cluster can be used"),
            open_engine(options, staged, Resources()),
        ):
            pass


def test_without_the_extra_the_remedy_is_named():
    hidden = "import sys; sys.modules['ray'] = None; import bundler.engines.ray_engine"
    ended = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert "the engine ray needs the package ray" in ended.stderr


def test_where_no_node_with_room_is_left_nothing_waits_forever(cluster, staged, monkeypatch):
    """After the start, Ray says that no node lives; the nodes are cleaned all the same."""
    from bundler.engines import ray_engine

    nodes, before = ray_engine._nodes, left_behind()
    with open_engine(on(cluster), staged, Resources(), work=works.sleeps) as engine:
        monkeypatch.setattr(ray_engine, "_nodes", list)
        result = engine.submit(a_trial(environment={"NOTES": str(staged)})).result()
        monkeypatch.setattr(ray_engine, "_nodes", nodes)
    assert result.attempts == 3
    assert "no node with room for the training is left" in result.problem
    assert left_behind() == before


def test_all_trainings_end_although_a_node_is_killed_while_it_works(cluster, staged, tmp_path):
    """The last test of this cluster: SIGKILL to the raylet of a node on which a trial runs."""
    notes = tmp_path / "notes"
    notes.mkdir()
    environment = {"NOTES": str(notes)}
    with open_engine(on(cluster), staged, Resources(), work=works.waits_for_the_word) as engine:
        futures = [engine.submit(a_trial(seed, environment=environment)) for seed in range(8)]
        victim = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
        while not (lost := [p for p in notes.iterdir() if p.read_text() == victim.node_id]):
            time.sleep(0.05)
        for process in victim.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)
        (notes / "go").touch()
        results = [future.result() for future in futures]
    assert [result.seed for result in results] == list(range(8))
    assert all(result.exit_code == 0 and not result.problem for result in results)
    lost_seeds = {int(path.name.split(".")[0]) for path in lost}
    assert lost_seeds <= {result.seed for result in results if result.attempts > 1}
    assert [result.attempts for result in results].count(1) >= 4
    cluster.remove_node(victim, allow_graceful=False)
    assert all(victim.node_id not in result.log for result in results if result.attempts > 1)
