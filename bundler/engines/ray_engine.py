"""A Ray cluster as an engine: the package travels through its object store, results and log tails come back.

No shared file system is needed. Ray itself repeats nothing; what is repeated, :mod:`bundler.engines.retries` says.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundler.engines import package, worker
from bundler.engines.model import EngineOptions, OnLog, Work
from bundler.engines.pool import Pool
from bundler.engines.retries import Lost
from bundler.engines.tails import Tail, Tails
from bundler.errors import BundlerError, EnvironmentNotRecreatableError, UsageError, quoted
from bundler.sandbox.removal import remove
from bundler.spec import Resources
from bundler.trials import Trial, TrialResult

try:
    import ray
    from ray import exceptions
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise UsageError(
        "the engine ray needs the package ray, which is not installed",
        remedy="pip install 'aisdp-bundler[ray]'",
    ) from None

_LOOK = 1.0  # seconds between looks at a running trial and at the logs
_CONNECT = 10.0
_LOSSES = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.ActorDiedError,
    exceptions.ActorUnavailableError,
    exceptions.ObjectLostError,
    exceptions.ObjectReconstructionFailedError,
    exceptions.OutOfMemoryError,  # of the node; a trial has its own limit
    exceptions.OutOfDiskError,
    exceptions.RpcError,
    exceptions.TaskUnschedulableError,
)


class RayEngine(Pool):
    """Runs trials on the nodes of a Ray cluster that is there.

    It starts none of its own: Ray's processes listen on all interfaces, whatever address they are given, and without a
    token run what anybody sends them. Raises :class:`UsageError` without an address, if nothing answers there or
    if Ray is in use already in this process, and :class:`EnvironmentNotRecreatableError` if no node can hold one trial:
    Ray would wait for it forever.
    """

    def __init__(
        self,
        options: EngineOptions,
        staged: Path,
        resources: Resources,
        on_log: OnLog | None,
        work: Work,
    ) -> None:
        self._work, self._on_log = work, on_log
        self._ending = threading.Event()
        self._session = f"aisdp-engine-{secrets.token_hex(16)}"
        if ray.is_initialized():
            raise UsageError("Ray is in use in this process already", remedy="Call ray.shutdown().")
        try:
            _connect(options.ray_address)
            self._need = _counted(resources, options.limits.memory_bytes)
            room = _room(self._need)
            _refuse_too_small(room, self._need)
            self._task = ray.remote(_task)
            self._logs: Any = _log_actor() if on_log else None
            with tempfile.TemporaryDirectory() as folder:
                archive = Path(folder) / "package.tar"
                self._sha256 = package.pack(staged, archive)
                self._package = ray.put(archive.read_bytes())
            super().__init__("ray", min(room, options.parallel or room), self._run, self._ending)
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
        except BaseException as error:
            ray.shutdown()
            if not isinstance(error, exceptions.RayError):
                raise
            raise _unusable(error) from None

    def close(self) -> None:
        """Cancel what still runs, remove what lies on the nodes, and leave the cluster."""
        if self._ending.is_set():
            return
        try:
            super().close()
            self._listener.join()
            self._tell_logs()
            self._clean_nodes()
        finally:
            ray.shutdown()

    def _run(self, trial: Trial) -> TrialResult | Lost:
        asked = worker.request(trial, self._sha256)
        task = self._task.options(
            **_request(self._need), max_retries=0, scheduling_strategy="SPREAD"
        )
        answer = task.remote(
            asked, self._package, self._session, self._work, trial.seed, self._logs
        )
        try:
            while not ray.wait([answer], timeout=_LOOK)[0]:
                if self._ending.is_set():
                    ray.cancel(answer, force=True)
                    return Lost(reason="stopped")
                if _room(self._need) < 1:  # it would wait forever
                    ray.cancel(answer, force=True)
                    return Lost(
                        reason="no node with room for the training is left in the Ray cluster"
                    )
            where, said = ray.get(answer)
        except _LOSSES as error:
            return Lost(
                reason=f"{type(error).__name__} of Ray: {str(error).strip().splitlines()[0]}"
            )
        except exceptions.RayError as error:
            raise _failed(error) from None
        return worker.settle(said, where)

    def _listen(self) -> None:
        while not self._ending.wait(_LOOK):
            self._tell_logs()

    def _tell_logs(self) -> None:
        """Hand on what the workers sent. The log is for people who wait: whatever happens to it, all goes on."""
        if self._on_log is None:
            return
        with suppress(Exception):
            for seed, chunk in ray.get(self._logs.take.remote(), timeout=_CONNECT):
                self._on_log(seed, chunk)

    def _clean_nodes(self) -> None:
        cleaner = ray.remote(_clean)
        with suppress(exceptions.RayError):
            cleaned = [
                cleaner.options(
                    num_cpus=0,
                    max_retries=0,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                ).remote(self._session)
                for node in _nodes()
            ]
            ray.wait(cleaned, num_returns=len(cleaned), timeout=_CONNECT)


def _connect(address: str | None) -> None:
    if address is None:
        raise UsageError(
            "--engine ray needs a Ray cluster that is running",
            remedy="Give --ray-address HOST:PORT. On one machine use --engine local: Ray gains nothing there.",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (RuntimeError, ConnectionError, TimeoutError, ValueError, OSError) as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> UsageError:
    return UsageError(
        f"no Ray cluster can be used: {error}",
        remedy="Check --ray-address, the cluster's token (docs/engines.md), and that all machines have the same"
        " versions of Ray and Python.",
    )


def _task(  # noqa: PLR0913  # the fixed remote function: everything it needs comes with the call
    asked: bytes, archive: bytes, session: str, work: Work, seed: int, logs: Any
) -> tuple[str, bytes]:
    """Run one trial on a worker; says where that was."""
    node = ray.get_runtime_context().get_node_id()[:8]
    ids = tuple(str(i) for i in ray.get_gpu_ids())

    def with_gpus(trial: Trial, staged: Path, place: Path, on_output: Any) -> TrialResult:
        return work(worker.given_gpus(trial, ids), staged, place, on_output)

    def fetch() -> package.Source:
        return io.BytesIO(archive)

    folder = Path(tempfile.gettempdir()) / session

    def send(text: bytes) -> None:
        with suppress(exceptions.RayError):  # one call at a time, so that no queue grows
            ray.get(logs.add.remote(seed, text), timeout=_CONNECT)

    tail = Tail(send) if logs is not None else None
    try:
        said = worker.serve(asked, folder, fetch, with_gpus, tail.add if tail else None)
    finally:
        if tail:
            tail.close()
    return f"node {node} ({socket.gethostname()})", said


def _log_actor() -> Any:
    here = ray.get_runtime_context().get_node_id()
    return (
        ray.remote(Tails)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True))
        .remote()
    )


def _clean(session: str) -> None:
    """Remove the session's folder on this node; a job that is just being killed may still write to it."""
    folder = Path(tempfile.gettempdir()) / session
    for _ in range(50):
        remove(folder)
        if not os.path.lexists(folder):
            return
        time.sleep(0.1)


def _request(resources: Resources) -> dict[str, Any]:
    """The options of a Ray task."""
    asked: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    return asked | ({"memory": resources.memory_bytes} if resources.memory_bytes else {})


def _counted(resources: Resources, limit: int) -> Resources:
    """What Ray keeps free for one trial: the memory that it may use, not only what the provider says that it needs.

    Where no node has that much, one trial at a time gets a whole node, unless more is declared.
    """
    largest = max((int(node["Resources"].get("memory", 0)) for node in _nodes()), default=0)
    declared = min(resources.memory_bytes or 0, limit)
    return replace(resources, memory_bytes=max(declared, min(limit, largest)) or None)


def _room(resources: Resources) -> int:
    """How many trials the nodes that live can hold at once, whatever else runs there."""
    need = {
        {"num_cpus": "CPU", "num_gpus": "GPU"}.get(name, name): amount
        for name, amount in _request(resources).items()
        if amount
    }
    return sum(
        min(int(node["Resources"].get(name, 0) // amount) for name, amount in need.items())
        for node in _nodes()
    )


def _refuse_too_small(room: int, resources: Resources) -> None:
    if room < 1:
        raise EnvironmentNotRecreatableError(
            f"no node of the Ray cluster has room for one training ({_words(_request(resources))});"
            f" it has {_nodes_in_words()}",
            remedy="Add a node that is large enough, let a training use less (--memory-limit), or use --engine local.",
        )


def _nodes() -> list[Mapping[str, Any]]:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _nodes_in_words() -> str:
    nodes = [_words(node["Resources"]) for node in _nodes()]
    kinds = [f"{nodes.count(kind)} of ({kind})" for kind in dict.fromkeys(nodes)]
    return ", ".join(kinds[:10]) or "no nodes"


def _words(amounts: Mapping[str, Any]) -> str:
    cpus = amounts.get("CPU", amounts.get("num_cpus", 0))
    gpus = amounts.get("GPU", amounts.get("num_gpus", 0))
    memory = amounts.get("memory")
    room = f", {memory / (1 << 30):.1f} GiB of memory" if memory else ""
    return f"{cpus:g} CPUs, {gpus:g} GPUs{room}"


def _reach(address: str) -> None:
    """Ask for a connection first: Ray itself tries an address where nobody is for many minutes."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not host or not port.isdecimal():
        raise UsageError(
            f"{quoted(address)} is not the HOST:PORT of a Ray cluster",
            remedy="Run on a machine of the cluster, for example its head node, with --ray-address HOST:6379.",
        )
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT):
        pass


def _failed(error: Exception) -> BundlerError:
    """What a worker could not even answer, such as that the package bundler is not there."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return BundlerError(
        f"a worker of the Ray cluster failed: {type(error).__name__}: {quoted(lines[-1] if lines else '', 300)}",
        remedy="Install the same version of aisdp-bundler on all machines of the cluster.",
    )
