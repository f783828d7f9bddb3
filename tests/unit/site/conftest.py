from __future__ import annotations

from pathlib import Path

import pytest

from bundler import storage
from bundler.progress import Silence
from bundler.site import render
from bundler.verify import verify
from tests import tiny


@pytest.fixture
def make_site(tmp_path: Path):
    """Render a bundle to a new folder and return it."""
    made = []

    def make(bundle: Path, *, report=None, keys=()) -> Path:
        output = tmp_path / f"site-{len(made)}"
        made.append(output)
        render(storage.open_bag(bundle), report, keys, output, Silence())
        return output

    return make


@pytest.fixture
def bundle(provider, tmp_path):
    """A bundle that declares two margins, one of them for overstatement only."""
    provider.config["reproducibility"]["tolerances"] = [
        {"metric": "holdout_auc", "margin": 0.01, "overstatement": "higher is better"},
        {"metric": "holdout_disparity", "margin": 0.01},
        {"metric": "val_disparity", "margin": 0.02, "overstatement": "lower is better"},
    ]
    provider.build(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """Bundle, report and site of the honest provider; tests only read them."""
    root = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SOURCE_DATE_EPOCH", raising=False)
        tiny.install(patch)
        tiny.make_provider(root / "provider").build(root / "bundle")
    report = report_about(root / "bundle")
    bag = storage.open_bag(root / "bundle")
    render(bag, report, tiny.TRUST, root / "site", Silence())
    return root / "bundle", report, root / "site"


def report_about(bundle: Path, keys=tiny.TRUST):
    return verify(
        lambda: storage.open_bag(bundle), "bundle", keys, clock=lambda: "2026-01-01T00:00:00.000Z"
    )
