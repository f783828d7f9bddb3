"""Worker functions of the tests. They live in a module, so that workers of a cluster can import them by name."""

from __future__ import annotations

import importlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from bundler.errors import SandboxUnavailableError
from bundler.trials import Trial, TrialResult


def a_result(seed: int = 7, **changes) -> TrialResult:
    fields = {
        "seed": seed,
        "ended": "exited",
        "exit_code": 0,
        "seconds": 1.0,
        "cpu_seconds": 0.5,
        "peak_memory_bytes": 1000,
        "detail": "",
        "log": ("score 0.5",),
        "isolation": {"kind": "bubblewrap"},
    }
    return TrialResult(**(fields | changes))


def notebook(trial: Trial) -> Path:
    """Where the works below note what they did: on one machine, so that the test can read it."""
    return Path(trial.environment["NOTES"])


def note(trial: Trial, text: str) -> int:
    """Write down an attempt at ``trial``; returns the attempts so far."""
    folder = notebook(trial)
    count = len(list(folder.glob(f"{trial.seed}.*"))) + 1
    (folder / f"{trial.seed}.{count}").write_text(text)
    return count


def echo(trial, staged, place, on_output):
    """What a worker sees of the package, of its place and of its trial."""
    if on_output:
        on_output(f"seed {trial.seed}\n".encode())
    files = sorted(p.relative_to(staged).as_posix() for p in staged.rglob("*") if p.is_file())
    empty = not list(place.iterdir())
    (place / "left-behind").write_text("x" * 1000)
    return a_result(trial.seed, log=(*files, f"empty: {empty}", str(place)))


def refuses(trial, staged, place, on_output):
    raise SandboxUnavailableError("nothing works here", remedy="Install bubblewrap.")


def breaks(trial, staged, place, on_output):
    raise OSError(28, "No space left on device")


class Unloadable:
    """A function that pickles here and cannot be loaded anywhere."""

    def __reduce__(self):
        return importlib.import_module, ("no_such_module",)

    def __call__(self, trial, staged, place, on_output):
        raise AssertionError


def runs_out_of_memory(trial, staged, place, on_output):
    raise MemoryError


def chatters(trial, staged, place, on_output):
    for i in range(3000):
        on_output(b"line %d\n" % i)
    on_output(b"the end\n")
    return a_result(trial.seed)


def kills_its_worker_once(trial, staged, place, on_output):
    """The first attempt of every even seed takes its worker process with it."""
    count = note(trial, str(os.getpid()))
    if trial.seed % 2 == 0 and count == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return a_result(trial.seed)


def waits_for_the_word(trial, staged, place, on_output):
    """A first attempt says where it runs and waits for a file; the test kills a node meanwhile."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    count = note(trial, node)
    for _ in range(1200):
        if count > 1 or (notebook(trial) / "go").exists():
            break
        time.sleep(0.05)
    return replace(a_result(trial.seed), log=(node,))


def sleeps(trial, staged, place, on_output):
    note(trial, str(os.getpid()))
    time.sleep(600)


def tells_its_gpus(trial, staged, place, on_output):
    on_output(f"seed {trial.seed}\n".encode())
    return a_result(trial.seed, log=(trial.environment["CUDA_VISIBLE_DEVICES"],))
