"""Finding importers by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from bundler import importers
from bundler.errors import UsageError
from bundler.importers.mlflow import MlflowImporter


class Impostor:
    """What an installed package offers."""

    name = "mlflow"


@pytest.fixture
def installed(monkeypatch):
    offered = [
        EntryPoint(name=name, value=f"{__name__}:Impostor", group=importers.GROUP)
        for name in ("mlflow", "ledger")
    ]
    monkeypatch.setattr(importers, "entry_points", lambda *, group: offered)


def test_the_built_in_importer_is_found_by_name():
    assert isinstance(importers.find("mlflow"), MlflowImporter)
    assert importers.find("mlflow").name == "mlflow"
    assert "mlflow" in importers.names()


def test_an_installed_package_adds_an_importer(installed):
    assert importers.names() == tuple(sorted({*importers.BUILT_IN, "ledger"}))
    assert isinstance(importers.find("ledger"), Impostor)


def test_an_installed_package_cannot_replace_a_built_in_one(installed):
    assert isinstance(importers.find("mlflow"), MlflowImporter)


def test_a_verifier_takes_none_but_the_built_in_ones(installed):
    with pytest.raises(UsageError, match="ledger") as error:
        importers.find("ledger", built_in_only=True)
    assert error.value.message.endswith(f"known are: {', '.join(importers.BUILT_IN)}")


def test_an_unknown_name_is_refused_with_the_known_ones(installed):
    with pytest.raises(UsageError, match=r"known are: clearml, .*, ledger, metrics, mlflow"):
        importers.find("nope")
