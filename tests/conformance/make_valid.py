"""Builds ``valid/tiny`` and the keys anew: ``python -m tests.conformance.make_valid``. Only for a new format version."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests import tiny
from tests.conformance.harness import KEYS, VALID


def main() -> None:
    KEYS.mkdir(exist_ok=True)
    for name, first in (("key", 0), ("other", 100)):
        key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(first, first + 32)))
        (KEYS / f"{name}.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    (KEYS / "trust.pem").write_bytes(tiny.KEY.public_pem())
    shutil.rmtree(VALID, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        tiny.install(patch)
        tiny.make_provider(Path(folder) / "provider").build(VALID)


if __name__ == "__main__":
    main()
