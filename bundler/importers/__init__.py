"""Reading trackers: one leaf module each, found by name.

The built-in ones cannot be replaced by an installed package, and a verifier uses no others. More can be added for
building through the entry-point group ``bundler.importers``.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from bundler.errors import UsageError
from bundler.importers.model import Importer, Store

GROUP = "bundler.importers"
BUILT_IN = {
    "clearml": "bundler.importers.clearml:ClearmlImporter",
    "comet": "bundler.importers.comet:CometImporter",
    "dvc": "bundler.importers.dvc:DvcImporter",
    "dvclive": "bundler.importers.dvc.dvclive:DvcliveImporter",
    "experiment-log": "bundler.importers.experiment_log:ExperimentLogImporter",
    "metrics": "bundler.importers.metrics_file:MetricsFileImporter",
    "mlflow": "bundler.importers.mlflow:MlflowImporter",
    "neptune": "bundler.importers.neptune:NeptuneImporter",
    "tensorboard": "bundler.importers.tensorboard:TensorboardImporter",
    "trainer-state": "bundler.importers.trainer_state:TrainerStateImporter",
    "wandb": "bundler.importers.wandb:WandbImporter",
}

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def located(base: Path, text: str) -> Store:
    """The store that ``text`` names: an address stays one, a path is relative to ``base``."""
    return text if _ADDRESS.match(text) else base / text


def names() -> tuple[str, ...]:
    """Names of all trackers that can be read."""
    return tuple(sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))}))


def find(name: str, *, built_in_only: bool = False) -> Importer:
    """Return the importer called ``name``. Raises :class:`UsageError` that lists the known ones."""
    if name in BUILT_IN:
        module, attribute = BUILT_IN[name].split(":")
        importer: Importer = getattr(import_module(module), attribute)()
        return importer
    added = {} if built_in_only else {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in added:
        loaded: Importer = added[name].load()()
        return loaded
    known = BUILT_IN if built_in_only else names()
    raise UsageError(f"no importer for {name!r}; known are: {', '.join(known)}")
