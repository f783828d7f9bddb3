"""What `bundler capture` records on this machine, asked inside the sandbox: the facts that decide about bits.

The same modules that a provider's training writes its environment with, so that the names are the same and a difference
between the two machines (processor, threads, build of torch, GPU) has a name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bundler import capture, sandbox
from bundler.capture.collect import MARK
from bundler.environments.model import Runtime
from bundler.facts import CAPTURE_FORMAT, MAX_ENVIRONMENT_BYTES, read_environment
from bundler.records import Scalar
from bundler.sandbox.workplace import make, new_file
from bundler.trials import Trial

PROBE = PurePosixPath("/probe")
FRAMEWORKS = ("torch", "tensorflow", "jax", "numpy")
"""Only what is imported is asked; the declared facts say which of these the training had imported."""

SECONDS = 120.0


def worth_asking(declared: Mapping[str, Scalar]) -> bool:
    """Whether the declared environment was written by `bundler capture`, so that there is something to compare."""
    return declared.get("format") == CAPTURE_FORMAT


def comparable(facts: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Those of ``facts`` that the training does not set itself once it has begun."""
    return {name: value for name, value in facts.items() if not _SET_BY_CODE.match(name)}


_SET_BY_CODE = re.compile(
    r"determinism\.(torch\.(?!cpu_capability)|seed|python|random)|threads\.torch|modules|not_recorded|format|prefix"
)


def ask(
    box: sandbox.Sandbox,
    trial: Trial,
    runtime: Runtime,
    declared: Mapping[str, Scalar],
    place: Path,
) -> Mapping[str, Scalar]:
    """The facts of an interpreter in ``box`` with the software and the variables of ``trial``; empty if it fails.

    ``place`` is an empty folder of the caller.
    """
    probe = place / "probe"
    source = Path(capture.__file__).parent
    make(probe)
    for module in sorted(source.glob("*.py")):
        # Without the package's own beginning, which needs more of ours than the training's interpreter has.
        text = b"" if module.name == "__init__.py" else module.read_bytes()
        with new_file(probe, f"facts/{module.name}", program=False) as file:
            file.write(text)
    (place / "out").mkdir()
    wanted = [name for name in FRAMEWORKS if any(name in fact.split(".") for fact in declared)]
    lines = ["import sys", f"sys.path.insert(0, {str(PROBE)!r})"]
    lines += [f"try:\n    import {name}\nexcept Exception: pass" for name in wanted]
    lines += ["sys.argv[1:] = ['{}']", "from facts import collect", "collect.main()"]
    job = sandbox.Job(
        command=(runtime.python, "-c", "\n".join(lines)),
        working_directory=PROBE,
        mounts=(sandbox.Mount(source=probe, target=PROBE),),
        output=place / "out",
        environment=trial.environment,
        limits=sandbox.Limits(wall_seconds=SECONDS, memory_bytes=trial.limits.memory_bytes),
        log=place / "log.txt",
        interpreter=runtime.interpreter,
        root=runtime.root,
        gpus=trial.resources.gpus > 0,
    )
    box.run(job)
    return _read(job.log)


def _read(log: Path) -> Mapping[str, Scalar]:
    with log.open("rb") as file:
        printed = file.read(MAX_ENVIRONMENT_BYTES)
    _, mark, rest = printed.partition(b"\n" + MARK.encode())
    return read_environment(rest.splitlines()[0], []) if mark and rest else {}
