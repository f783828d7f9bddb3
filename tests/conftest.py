from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests import tiny

# A release must not fail by chance: CI tries the same examples each time, a developer's machine new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tiny.Provider:
    """An honest provider with a fake tracker."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    tiny.install(monkeypatch)
    return tiny.make_provider(tmp_path / "provider")
