"""Runs *inside* a sandbox and tries what must fail there. Standard library only; prints JSON.

The parent sends a plan (JSON in the first argument) with the addresses of its own listeners, its
canaries and its pid; each attempt reports whether it was blocked and how.
"""

from __future__ import annotations

# It works on raw paths, and shall need to import as little as possible.
# ruff: noqa: PTH102, PTH104, PTH108, PTH112, PTH115, PTH118, PTH123
import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable
from typing import Any

_IO_URING_SETUP = 425
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_UNSHARE = {"x86_64": 272, "aarch64": 97}
_FORKS = 12

Result = tuple[bool, str]


def _connect(family: int, kind: int, address: Any) -> Result:
    try:
        with socket.socket(family, kind) as client:
            client.settimeout(2)
            client.connect(address)
    except TimeoutError:
        return False, "the packets left (no answer)"
    except OSError as error:
        return True, _reason(error)
    return False, "connected"


def _reason(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "") or str(error)


def outside(plan: dict[str, Any]) -> Result:
    """Reach an address of the documentation network (a UDP connect sends no packet)."""
    blocked, detail = _connect(socket.AF_INET, socket.SOCK_DGRAM, (plan["outside"], 443))
    if not blocked:
        return blocked, detail
    return _connect(socket.AF_INET, socket.SOCK_STREAM, (plan["outside"], 443))


def loopback(plan: dict[str, Any]) -> Result:
    """Reach a listener of the parent on 127.0.0.1."""
    return _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", plan["port"]))


def abstract_socket(plan: dict[str, Any]) -> Result:
    """Reach a listener of the parent in the abstract unix name space."""
    return _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + plan["abstract"])


def canary(plan: dict[str, Any]) -> Result:
    """Read a world-readable file of the parent."""
    return _read(plan["canary"])


def _read(path: str) -> Result:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return True, _reason(error)
    return False, f"read {path}"


def home(plan: dict[str, Any]) -> Result:
    """Open anything in the parent's home folder that the job was not given."""
    try:
        names = set(os.listdir(plan["home"])) - set(plan["given"])
    except OSError as error:
        return True, _reason(error)
    for name in sorted(names):
        path = os.path.join(plan["home"], name)
        try:
            if os.path.isdir(path):
                os.listdir(path)
            else:
                open(path, "rb").close()
        except OSError:
            continue
        return False, f"opened {path}"
    return True, f"{len(names)} names visible, none could be opened" if names else "nothing there"


def home_names(plan: dict[str, Any]) -> Result:
    """See the names of files in the parent's home folder."""
    try:
        names = set(os.listdir(plan["home"])) - set(plan["given"])
    except OSError as error:
        return True, _reason(error)
    return not names, f"{len(names)} names visible"


def environment(plan: dict[str, Any]) -> Result:
    """Find a variable that the job was not given, in its own or any visible process."""
    leaked = set(os.environ) - set(plan["variables"])
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            names = {entry.partition(b"=")[0].decode() for entry in file.read().split(b"\0")}
            leaked |= names - {""} - set(plan["variables"])
    return not leaked, ", ".join(sorted(leaked)) or "only what the job was given"


def writes(plan: dict[str, Any]) -> Result:
    """Create a file outside /out, the working folder and /tmp."""
    for folder in plan["unwritable"]:
        path = os.path.join(folder, f"aisdp-probe-{os.getpid()}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except OSError:
            continue
        os.unlink(path)
        return False, f"wrote into {folder}"
    return True, f"tried {len(plan['unwritable'])} folders"


def changes(plan: dict[str, Any]) -> Result:
    """Rename, link, truncate and remove files in the parent's temporary folder, without opening them."""
    attempts: list[tuple[str, Callable[[str], Any]]] = [
        ("chmod", lambda path: os.chmod(path, 0o600)),
        ("link", lambda path: os.link(path, path + ".link")),
        ("truncate", lambda path: os.truncate(path, 0)),
        ("rename", lambda path: os.rename(path, path + ".renamed")),
        ("unlink", os.unlink),
        ("mkdir", lambda path: os.mkdir(path + ".folder")),
        ("mkfifo", lambda path: os.mkfifo(path + ".fifo")),
    ]
    for name, attempt in attempts:
        for path in plan["temporary"]:
            try:
                attempt(path)
            except OSError:
                continue
            return False, f"{name} {path}"
    return True, f"tried {len(attempts)} ways"


def processes(plan: dict[str, Any]) -> Result:
    """See or signal the parent (its start time tells it from another process with its pid)."""
    absent = _absent(plan)
    if absent:
        return True, absent
    try:
        os.kill(plan["pid"], 0)
    except OSError as error:
        return True, _reason(error)
    return False, "could be signalled"


def limits_of_the_verifier(plan: dict[str, Any]) -> Result:
    """Ask for a limit of the parent; whoever may do that may also lower it."""
    absent = _absent(plan)
    if absent:
        return True, absent
    try:
        resource.prlimit(plan["pid"], resource.RLIMIT_CORE)
    except OSError as error:
        return True, _reason(error)
    return False, "could be lowered"


def gpu_devices(plan: dict[str, Any]) -> Result:
    """Open the devices of a GPU; who may do that can send any request to its driver in the kernel."""
    for path in plan.get("devices", []):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        except OSError:
            continue
        return False, f"opened {path}: every ioctl of the driver can be reached"
    return True, "none can be opened"


def _absent(plan: dict[str, Any]) -> str:
    """Why the parent cannot be meant by its pid here; empty if it may be."""
    try:
        with open(f"/proc/{plan['pid']}/stat", "rb") as file:
            start = int(file.read().rpartition(b") ")[2].split()[19])
    except OSError as error:
        return "" if _reason(error) in ("EACCES", "EPERM") else _reason(error)
    return "" if start == plan["start"] else "another process has that pid"


def other_memory(_plan: dict[str, Any]) -> Result:
    """Open the memory of another process for writing, to make it act for the job."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) != os.getpid():
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
                return False, f"opened that of process {pid}"
    return True, "none could be opened"


def files(_plan: dict[str, Any]) -> Result:
    """Find an open file that was inherited by mistake."""
    with os.scandir("/proc/self/fd") as entries:  # it opens one itself
        inherited = [int(e.name) for e in entries if int(e.name) > 2]
    open_now = [fd for fd in inherited if _is_open(fd)]
    return not open_now, ", ".join(map(str, open_now)) or "none"


def _is_open(fd: int) -> bool:
    """Whether it is open and gives access to more than its path does.

    Sandlock starts each program from a memory file, and leaves that and the loader open.
    """
    try:
        there = os.fstat(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return False
    if path == "/memfd:sandlock-exec (deleted)":
        return False
    try:
        anew = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return True
    here = os.fstat(anew)
    os.close(anew)
    return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino)


def _system_call(number: int, *arguments: int) -> Result:
    """Make a system call in a child, so that success changes nothing here."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        result = libc.syscall(number, *arguments)
        os.write(writing, str(ctypes.get_errno() if result < 0 else 0).encode())
        os._exit(0)
    os.close(writing)
    answer = os.read(reading, 16)
    os.close(reading)
    os.waitpid(pid, 0)
    if not answer:
        return True, "killed"
    code = int(answer)
    # EFAULT and EINVAL would mean that the kernel looked at the arguments.
    return code in (errno.EPERM, errno.ENOSYS, errno.EACCES), errno.errorcode.get(code, "succeeded")


def io_uring(_plan: dict[str, Any]) -> Result:
    """Call io_uring_setup."""
    return _system_call(_IO_URING_SETUP, 1, 0)


def keyctl(_plan: dict[str, Any]) -> Result:
    """Ask for the session key ring (KEYCTL_GET_KEYRING_ID)."""
    return _system_call(_KEYCTL[platform.machine()], 0, -3, 0)


def user_namespace(_plan: dict[str, Any]) -> Result:
    """Call unshare(CLONE_NEWUSER)."""
    return _system_call(_UNSHARE[platform.machine()], 0x10000000)


REQUIRED: dict[str, Callable[[dict[str, Any]], Result]] = {
    "network: outside address": outside,
    "network: loopback of the host": loopback,
    "abstract unix socket of the verifier": abstract_socket,
    "canary file outside the mounts": canary,
    "home folder and keys": home,
    "environment of the verifier": environment,
    "write outside /out and the working folder": writes,
    "change files of the verifier by name": changes,
    "processes of the verifier": processes,
    "memory of other processes": other_memory,
    "inherited open files": files,
    "system call io_uring_setup": io_uring,
    "system call keyctl": keyctl,
    "system call unshare(CLONE_NEWUSER)": user_namespace,
}
INFORMATIVE: dict[str, Callable[[dict[str, Any]], Result]] = {
    "names of files in the home folder": home_names,
    "resource limits of the verifier": limits_of_the_verifier,
    "driver of the GPUs": gpu_devices,
}


def process_limit_binds() -> bool:
    """Whether the kernel refuses a fork beyond RLIMIT_NPROC for this user (never for root)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    reading, writing = os.pipe()
    children = []
    refused = False
    resource.setrlimit(resource.RLIMIT_NPROC, (_FORKS // 2, hard))
    try:
        for _ in range(_FORKS):
            pid = os.fork()
            if pid == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            children.append(pid)
    except OSError:
        refused = True
    os.close(writing)
    for pid in children:
        os.waitpid(pid, 0)
    os.close(reading)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    return refused


def status() -> dict[str, str]:
    """The security fields of /proc/self/status."""
    with open("/proc/self/status", encoding="utf-8") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {name: fields.get(name, "") for name in ("Seccomp", "NoNewPrivs", "CapEff", "CapBnd")}


def main(plan: dict[str, Any]) -> dict[str, Any]:
    """Try everything and return the results with the limits that are in force here."""
    probes = []
    for name, attempt in (REQUIRED | INFORMATIVE).items():
        try:
            blocked, detail = attempt(plan)
        except Exception as error:  # noqa: BLE001 - what could not be tried is not blocked
            blocked, detail = False, f"could not be tried: {error!r}"
        probes.append({"name": name, "blocked": blocked, "detail": detail})
    limits = {
        "cpu_seconds": resource.getrlimit(resource.RLIMIT_CPU)[1],
        "file_bytes": resource.getrlimit(resource.RLIMIT_FSIZE)[1],
        "memory_bytes": resource.getrlimit(resource.RLIMIT_AS)[1],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    }
    binds = limits["processes"] != resource.RLIM_INFINITY and process_limit_binds()
    return {"probes": probes, "rlimits": limits, "processes": binds, "status": status()}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201 - the protocol
