"""Where trainings run: this machine, a Ray cluster, a SLURM cluster.

:func:`open_engine` gives an :class:`Engine`; what it is given to run are :class:`bundler.trials.Trial` objects, what
comes back are their results, which :class:`bundler.engines.store.Results` keeps. See docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundler.engines.local import LocalEngine
from bundler.engines.model import Engine, EngineOptions, Kind, OnLog, SlurmOptions, Work
from bundler.errors import EnvironmentNotRecreatableError, UsageError
from bundler.spec import Resources
from bundler.trials import run_trial

__all__ = ["Engine", "EngineOptions", "Kind", "OnLog", "SlurmOptions", "Work", "open_engine"]


@contextmanager
def open_engine(
    options: EngineOptions,
    staged: Path,
    resources: Resources,
    *,
    on_log: OnLog | None = None,
    work: Work = run_trial,
) -> Iterator[Engine]:
    """An engine for trials of the staged package ``staged`` that each need ``resources``; stopped afterwards.

    Raises :class:`bundler.errors.UsageError` where it cannot be had (its extra is missing, nothing answers at the
    address), and :class:`bundler.errors.EnvironmentNotRecreatableError` where no machine of it has what the bundle
    declares that a training needs.
    """
    engine = _engine(options, staged, resources, on_log, work)
    try:
        yield engine
    finally:
        engine.close()


def _engine(
    options: EngineOptions, staged: Path, resources: Resources, on_log: OnLog | None, work: Work
) -> Engine:
    if options.parallel is not None and options.parallel < 1:
        raise UsageError("at least one training has to run at a time", remedy="--parallel 1")
    _refuse_impossible(resources)
    if options.kind == "local":
        return LocalEngine(options, staged, resources, on_log, work)
    if options.keep is not None:
        raise UsageError(
            f"the folders of trainings cannot be kept with the engine {options.kind}: they are on other machines",
            remedy="Leave out --keep, or use --engine local.",
        )
    if options.kind == "ray":
        from bundler.engines.ray_engine import RayEngine  # noqa: PLC0415  # an extra, and heavy

        return RayEngine(options, staged, resources, on_log, work)
    from bundler.engines.slurm import SlurmEngine  # noqa: PLC0415  # an extra

    return SlurmEngine(options, staged, resources, on_log, work)


def _refuse_impossible(resources: Resources) -> None:
    """Refuse amounts that no scheduler understands: they come from a bundle."""
    memory = resources.memory_bytes
    if resources.cpus < 1 or resources.gpus < 0 or (memory is not None and memory < 1):
        raise EnvironmentNotRecreatableError(
            f"the bundle declares that a training needs {resources.cpus} CPUs, {resources.gpus} GPUs"
            + ("" if memory is None else f" and {memory} bytes of memory"),
            remedy="No machine can give that; ask the provider for a bundle with real amounts.",
        )
