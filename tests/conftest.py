from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tiny.Provider:
    """An honest provider with a fake tracker."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    tiny.install(monkeypatch)
    return tiny.make_provider(tmp_path / "provider")
