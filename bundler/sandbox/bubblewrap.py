"""Bubblewrap with a seccomp filter: namespaces throughout, an unprivileged uid even for root."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from bundler.errors import SandboxUnavailableError, UsageError
from bundler.sandbox import (
    cgroups,
    gpus,
    helpers,
    interpreter,
    keeper,
    process,
    roots,
    seccomp,
    selftest,
)
from bundler.sandbox.diagnosis import why_bubblewrap_fails
from bundler.sandbox.model import OUT, Isolation, Job, Limits, OnOutput, Outcome
from bundler.sandbox.output import give

NOBODY = 65534
_ROOT_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC = ("/etc/ld.so.cache", "/etc/alternatives")
_FILES = {
    "/etc/passwd": f"sandbox:x:{NOBODY}:{NOBODY}:sandbox:/tmp:/bin/sh\n",
    "/etc/group": f"sandbox:x:{NOBODY}:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_RESERVED = (
    *("/usr", "/proc", "/sys", "/dev", "/tmp", "/out", "/etc", helpers.PLACE),  # noqa: S108
    *(f"/{name}" for name in _ROOT_FOLDERS),
)
_DRIVER = f"{helpers.PLACE}/driver"
# One byte tells the keeper that bubblewrap did its work and the limits are in force; what fails
# later is the job's own failure.
_MARK = 'printf s >&9; exec 9>&-; exec "$@"'
# Where root's outer mount namespace shows the sources to the unprivileged user.
_STAGES = ("/mnt", "/media", "/srv", "/opt")


class Bubblewrap:
    """Runs jobs with ``bwrap``; raises :class:`SandboxUnavailableError` where it does not work.

    As root, an outer ``bwrap`` rearranges a mount namespace so that every source can be reached by
    uid 65534 (whatever folders lie above it), ``setpriv`` drops to that uid, and the inner
    ``bwrap`` makes the sandbox: so RLIMIT_NPROC binds, and files owned by root are out of reach twice.
    """

    kind = "bubblewrap"

    def __init__(self) -> None:
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise SandboxUnavailableError(
                "bubblewrap: bwrap is not on PATH",
                remedy="Install it: apt-get install bubblewrap, or dnf install bubblewrap.",
            )
        if not seccomp.supported():
            raise SandboxUnavailableError(
                "bubblewrap: there is no seccomp filter for this processor architecture",
                remedy="Verify on x86_64 or aarch64.",
            )
        self._bwrap = bwrap
        self.version = _ask(bwrap, "--version").strip().removeprefix("bubblewrap ")
        self._options = frozenset(re.findall(r"--[a-z][a-z0-9-]+", _ask(bwrap, "--help")))
        self._setpriv = shutil.which("setpriv") if os.geteuid() == 0 else None
        failure = self._try()
        if failure and self._setpriv:
            self._setpriv = None  # root without CAP_SYS_ADMIN or CAP_SETUID: as any other user
            failure = self._try()
        if failure:
            message, remedy = why_bubblewrap_fails(failure)
            raise SandboxUnavailableError(f"bubblewrap: {message}", remedy=remedy)
        group = cgroups.create(1 << 30, 64)
        self._cgroup_version = group.version
        self._controllers = frozenset(group.folders)
        group.remove()

    @property
    def user(self) -> str:
        """Who the job really is, seen from the host."""
        if self._setpriv:
            return f"uid {NOBODY} (dropped from root)"
        uid = os.geteuid()
        return f"uid {uid}" if uid else "uid 0 (root, without capabilities, in a user namespace)"

    def isolation(self, limits: Limits, *, gpus: bool = False) -> Isolation:
        """See :class:`bundler.sandbox.model.Sandbox`."""
        names = {"memory": "memory_bytes", "pids": "processes"}
        mechanism = f"cgroup v{self._cgroup_version}"
        elsewhere = {names[c]: mechanism for c in names if c in self._controllers}
        found = selftest.measure(self.kind, self.run, limits, elsewhere=elsewhere, gpus=gpus)
        return Isolation(
            kind=self.kind,
            version=self.version,
            user=self.user,
            network=True,  # required probes: measure() raises otherwise
            seccomp=found.seccomp,
            landlock=False,
            limits_applied=found.applied,
            limits_missing=found.missing,
            probes=found.probes,
        )

    def run(self, job: Job, *, on_output: OnOutput | None = None) -> Outcome:
        """See :class:`bundler.sandbox.model.Sandbox`."""
        sources = _sources(job)
        job.output.mkdir(parents=True, exist_ok=True)
        if problem := self._problem(job, sources):
            return process.could_not_start(problem)
        group = cgroups.create(job.limits.memory_bytes, job.limits.processes)
        owner = job.output.stat()
        lent = (job.output,) if job.workspace is None else (job.output, job.workspace)
        try:
            if not self._controllers <= set(group.folders):
                return process.could_not_start("the cgroup for the job could not be made")
            if self._setpriv:
                for folder in lent:
                    give(folder, NOBODY, NOBODY)
            with _memory_files() as (filter_fd, files):
                launch = process.Launch(
                    argv=self._command(job, sources, filter_fd, files, group),
                    fds=(filter_fd, *files.values()),
                    marked=True,
                )
                return process.supervise(launch, job, group, on_output)
        finally:
            group.remove()
            if self._setpriv:
                for folder in lent:
                    with suppress(OSError):  # root can read it as it is
                        give(folder, owner.st_uid, owner.st_gid)

    def _problem(self, job: Job, sources: dict[PurePosixPath, Path]) -> str:
        """Why the job cannot start; empty if nothing is known."""
        shown = [*sources.values(), *([job.root] if job.root is not None else [])]
        if self._setpriv and (unreadable := _unreadable(shown)):
            return (
                f"{unreadable} cannot be read by uid {NOBODY}, which runs the job;"
                f" chmod -R a+rX {unreadable}"
            )
        if job.gpus:
            return gpus.problem(gpus.devices(), another_user=bool(self._setpriv))
        return ""

    def _try(self) -> str:
        """Start /bin/sh in an empty sandbox; return what bubblewrap says if that fails."""
        inner = [*self._namespaces(), *_system(), "--proc", "/proc", "--dev", "/dev"]
        argv = [*self._outer([]), self._bwrap, *inner, "--", "/bin/sh", "-c", "exit 0"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={}, timeout=30)
        return "" if done.returncode == 0 else done.stderr.strip() or "no message"

    def _outer(self, staged: list[tuple[Path, str, bool]]) -> list[str]:
        if not self._setpriv:
            return []
        stage = _stage()
        binds = ["--dev-bind", "/", "/", "--tmpfs", stage]
        for source, place, writable in staged:
            binds += ["--bind" if writable else "--ro-bind", str(source), place]
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
        caps = ["--inh-caps=-all", "--bounding-set=-all"]
        die = "--die-with-parent"
        return [self._bwrap, die, *binds, "--chdir", "/", "--", self._setpriv, *ids, *caps]

    def _namespaces(self) -> list[str]:
        wanted = (
            "--unshare-user --unshare-pid --unshare-net --unshare-ipc --unshare-uts"
            f" --unshare-cgroup-try --uid {NOBODY} --gid {NOBODY} --hostname sandbox"
            " --die-with-parent --new-session --cap-drop ALL"
        ).split()
        # Seccomp refuses new user namespaces anyway, and the environment is empty already: these
        # two (bubblewrap 0.8 and 0.5) only say it again.
        return wanted + [o for o in ("--disable-userns", "--clearenv") if o in self._options]

    def _command(
        self,
        job: Job,
        sources: dict[PurePosixPath, Path],
        filter_fd: int,
        files: dict[str, int],
        group: cgroups.Cgroup,
    ) -> tuple[str, ...]:
        stage = _stage()
        shown = [(source, target, False) for target, source in sources.items()]
        shown.append((job.output.absolute(), OUT, True))
        if job.workspace is not None:  # after the mount that it lies in
            shown.append((job.workspace.absolute(), check_target(job.working_directory), True))
        staged = [(source, f"{stage}/{i}", rw) for i, (source, _, rw) in enumerate(shown)]
        inner = [*self._namespaces()]
        if job.root is None:
            inner += _system()
        else:
            staged.append((job.root.absolute(), f"{stage}/root", False))
            origin = f"{stage}/root" if self._setpriv else str(job.root.absolute())
            targets = [str(target) for _, target, _ in shown]
            etc = [Path(name).name for name in files]
            inner += [*roots.view(job.root, origin, mounts=targets, etc=etc), *_helpers()]
        inner += [*self._own_mounts(job.limits), *(_gpus(job) if job.gpus else [])]
        for (source, target, writable), (_, place, _) in zip(shown, staged, strict=False):
            origin = place if self._setpriv else str(source)
            inner += ["--bind" if writable else "--ro-bind", origin, str(target)]
        for path, fd in files.items():
            inner += ["--ro-bind-data", str(fd), path]
        inner += ["--chdir", str(job.working_directory), "--remount-ro", "/dev"]
        inner += ["--remount-ro", "/", "--seccomp", str(filter_fd)]
        # Bubblewrap's own pid 1 shares the job's uid, so it gets the limits too; only the number of
        # processes is counted from inside the user namespace. CUDA does not survive RLIMIT_AS.
        memory = "memory" not in group.folders and not job.gpus
        limits = process.rlimits(job.limits, memory=memory)
        return (*self._outer(staged), *limits, self._bwrap, *inner, "--", *_payload(job))

    def _own_mounts(self, limits: Limits) -> list[str]:
        def tmpfs(size: int, target: str) -> list[str]:  # --size: bubblewrap 0.6
            sized = ["--size", str(size)] if "--size" in self._options else []
            return [*sized, "--tmpfs", target]

        # The job could write to the memory of pid 1, bubblewrap, which has its uid: it is not shown.
        own = ["--proc", "/proc", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1", "--dev", "/dev"]
        own += tmpfs(limits.memory_bytes // 2, "/dev/shm")  # noqa: S108
        return [*own, *tmpfs(limits.output_bytes, "/tmp")]  # noqa: S108


def _payload(job: Job) -> tuple[str, ...]:
    """What bubblewrap starts: the last limit, the mark, the job's variables and its command."""
    helper = process.of_this_machine if job.root is None else helpers.find().words
    shell = ("/bin/sh",) if job.root is None else helper("sh")
    last = (*process.prlimit({"nproc": job.limits.processes}, helper), *shell, "-c", _MARK, "sh")
    variables = process.environment(job)
    if job.gpus and job.root is not None:
        paths = [_DRIVER, *filter(None, [variables.get("LD_LIBRARY_PATH")])]
        variables["LD_LIBRARY_PATH"] = ":".join(paths)
    return (*last, *process.payload(job.command, variables, helper))


def _helpers() -> list[str]:
    """Show the verifier's own programs in an image."""
    return [
        w
        for target, source in helpers.find().shown.items()
        for w in ("--ro-bind", str(source), target)
    ]


def _gpus(job: Job) -> list[str]:
    """Show the devices, what the kernel says of them and, in an image, the libraries of this machine's driver."""
    shown = [word for path in gpus.devices() for word in ("--dev-bind", str(path), str(path))]
    shown += ["--ro-bind", "/sys", "/sys"]
    if job.root is not None:
        for name, path in gpus.libraries().items():
            shown += ["--ro-bind", str(path), f"{_DRIVER}/{name}"]
    return shown


def _ask(bwrap: str, option: str) -> str:
    argv = [bwrap, option]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={}).stdout


def _stage() -> str:
    return next((place for place in _STAGES if Path(place).is_dir()), "/tmp")  # noqa: S108


def _system() -> list[str]:
    """Show the programs and libraries of this machine, merged /usr or not."""
    shown = ["--ro-bind", "/usr", "/usr"]
    for path in (Path("/", name) for name in _ROOT_FOLDERS):
        if path.is_symlink():
            shown += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            shown += ["--ro-bind", str(path), str(path)]
    for name in _ETC:
        shown += ["--ro-bind-try", name, name]
    return shown


def _sources(job: Job) -> dict[PurePosixPath, Path]:
    """Map what must appear inside, besides the system and /out, to where it is on the host."""
    sources: dict[PurePosixPath, Path] = {}
    if job.interpreter is not None and job.root is not None:
        raise UsageError("a job in an image has the image's interpreter, and no other")
    if job.interpreter is not None:
        for path, source in interpreter.prefixes(job.interpreter).items():
            sources[PurePosixPath(path)] = source
    for mount in job.mounts:
        sources[check_target(mount.target)] = mount.source.resolve()
    return sources


def check_target(target: PurePosixPath) -> PurePosixPath:
    """Return ``target`` if a job may have something mounted there; raises UsageError otherwise."""
    reserved = any(target.is_relative_to(name) for name in _RESERVED)
    odd = ".." in target.parts or "\0" in str(target) or target == PurePosixPath("/")
    if reserved or odd or not target.is_absolute():
        raise UsageError(f"nothing can be mounted at {str(target)!r} inside the sandbox")
    return target


def _unreadable(sources: list[Path]) -> Path | None:
    for source in sources:
        mode = source.stat().st_mode if source.exists() else 0o777
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & needed != needed:
            return source
    return None


@contextmanager
def _memory_files() -> Iterator[tuple[int, dict[str, int]]]:
    """Open the filter and the files of /etc as memory files; bubblewrap reads and closes them."""
    contents = {"": seccomp.program()} | {name: text.encode() for name, text in _FILES.items()}
    fds: dict[str, int] = {}
    try:
        for name, content in contents.items():
            fds[name] = keeper.away_from_start_fd(os.memfd_create("aisdp", os.MFD_CLOEXEC))
            os.write(fds[name], content)
            os.lseek(fds[name], 0, os.SEEK_SET)
        yield fds[""], {name: fd for name, fd in fds.items() if name}
    finally:
        for fd in fds.values():
            os.close(fd)
