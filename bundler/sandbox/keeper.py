"""The process between the verifier and one job. Run as a script by path: standard library only.

It is the subreaper of everything the job starts, so that a daemon which double-forks and calls
``setsid`` still ends up under it, can be killed, and is counted in its resource usage. It dies with
the verifier and takes the job along.
"""

from __future__ import annotations

# pathlib would take a third of this script's start-up time.
# ruff: noqa: PTH123
import ctypes
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

START_FD = 9  # one digit: dash knows no other file descriptors in redirections
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _descendants(root: int) -> Iterator[int]:
    """Yield the live descendants of ``root`` (host pids), zombies excluded."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b") ")[2].split()[:2]
        except (OSError, ValueError):  # it ended between the two calls
            continue
        children.setdefault(int(parent), []).append((int(name), state in b"ZX"))
    stack = [root]
    while stack:
        for pid, dead in children.get(stack.pop(), ()):
            stack.append(pid)
            if not dead:
                yield pid


def sweep(root: int, *, seconds: float = 5.0) -> bool:
    """SIGKILL the descendants of ``root`` until none is left; false if some outlive ``seconds``."""
    deadline = time.monotonic() + seconds
    while pids := list(_descendants(root)):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue  # gone, or the monitor of another uid that dies with its child
        time.sleep(0.005)
    return True


def _become_keeper(parent: int) -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _parent_died)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above could see it
        _parent_died(0, None)


def _parent_died(_signal: int, _frame: object) -> None:
    sweep(os.getpid())
    os._exit(143)


def _execute(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a command; ``marked`` commands write one byte to START_FD just before the job itself."""
    fds = list(spec["fds"])
    started, mark = (away_from_start_fd(fd) for fd in os.pipe())
    if spec["marked"]:
        os.dup2(mark, START_FD, inheritable=True)
        fds.append(START_FD)
    try:
        child = subprocess.Popen(
            spec["argv"],
            stdin=subprocess.DEVNULL,
            env={},  # the job's own variables are set last, by the command itself
            cwd=spec["cwd"],
            pass_fds=fds,
        )
    except (OSError, ValueError) as error:
        return {"started": False, "code": None, "error": str(error)}
    for fd in [mark, *fds]:
        os.close(fd)
    code = child.wait()
    os.set_blocking(started, False)
    try:
        alive = not spec["marked"] or os.read(started, 1) != b""
    except BlockingIOError:  # no byte yet, and somebody left behind holds the other end
        alive = False
    os.close(started)
    return {"started": alive, "code": 128 - code if code < 0 else code, "error": ""}


def away_from_start_fd(fd: int) -> int:
    """Return a duplicate of ``fd`` with a number above START_FD, and close ``fd``."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, START_FD + 1)
    os.close(fd)
    return moved


def _sandlock(spec: dict[str, Any]) -> dict[str, Any]:
    """Run a command under sandlock, whose supervisor lives in this process."""
    sys.path.append(spec["site"])
    from sandlock import (  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415 - an extra
        Sandbox,
        StdioMode,
    )

    try:
        process = Sandbox(**spec["options"]).popen(spec["argv"], stdin=StdioMode.NULL)
    except Exception as error:  # noqa: BLE001 - whatever the binding raises, nothing has started
        return {"started": False, "code": None, "error": f"sandlock: {error}"}
    results: list[Any] = []
    # Native code that waits would hold back the SIGTERM of a dying parent, so a thread waits.
    waiter = threading.Thread(target=lambda: results.append(process.wait()), daemon=True)
    waiter.start()
    while waiter.is_alive():
        waiter.join(0.05)
    if not results:
        return {"started": False, "code": None, "error": "sandlock lost the process"}
    code = 128 + results[0].signal if results[0].signal > 0 else results[0].exit_code
    return {"started": True, "code": 137 if code < 0 else code, "error": ""}


def keep(spec: dict[str, Any]) -> dict[str, Any]:
    """Run what ``spec`` says, kill what it left behind, and return its end and resource usage."""
    _become_keeper(spec["parent"])
    try:
        for path in spec["cgroup"]:
            with open(path, "w", encoding="ascii") as file:
                file.write(str(os.getpid()))
    except OSError as error:
        return {"started": False, "code": None, "error": f"cannot join the cgroup: {error}"}
    report = _sandlock(spec) if spec["site"] else _execute(spec)
    sweep(os.getpid())
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return report | {"cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024}


def main(arguments: list[str]) -> int:
    """Read the specification from the only argument and write the report to its ``report`` fd."""
    spec = json.loads(arguments[0])
    os.set_inheritable(spec["report"], False)  # noqa: FBT003 - positional only
    report = keep(spec)
    os.write(spec["report"], json.dumps(report).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
