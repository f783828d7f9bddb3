"""VERIFY.md of a bundle, executed line by line with sha256sum, sed, base64 and openssl: nothing of ours takes part."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bundler.signers import FileSigner
from tests.conformance.harness import ENVELOPE, Bundle

ED25519 = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
P256 = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
OTHER = FileSigner(ec.derive_private_key(8, ec.SECP256R1()))
BRANCH = {"ed25519": "openssl dgst", "p256": "openssl pkeyutl"}
"""The line that is for the other kind of key."""

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def lines(bundle: Path, kind: str) -> list[str]:
    """The indented lines of VERIFY.md, without the one for the other kind of key."""
    text = (bundle / "VERIFY.md").read_text()
    shell = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    assert len(shell) == 18
    assert sum(line.startswith("openssl") for line in shell) == 2
    return [line for line in shell if not line.startswith(BRANCH[kind])]


def run(bundle: Path, kind: str, trust: bytes, work: Path) -> tuple[str | None, str]:
    """Run the lines in one shell. Returns the first line that does not succeed, and what was printed."""
    work.mkdir(exist_ok=True)
    (work / "trust.pem").write_bytes(trust)
    commands = lines(bundle, kind)
    assert "TRUST=/path/to/trust.pem" in commands[0]
    commands[0] = commands[0].replace("/path/to/trust.pem", str(work / "trust.pem"))
    script = "".join(
        f"{line}\n[ $? -eq 0 ] || exit {number}\n" for number, line in enumerate(commands, 1)
    )
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(work)}
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=bundle,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    failed = commands[result.returncode - 1] if result.returncode else None
    return failed, result.stdout + result.stderr


@pytest.fixture(params=["ed25519", "p256"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def signed(kind, provider, tmp_path) -> tuple[Path, bytes]:
    """A bundle and the public key of its signer."""
    signer = {"ed25519": ED25519, "p256": P256}[kind]
    provider.build(tmp_path / "bundle", signer=signer)
    return tmp_path / "bundle", signer.public_pem()


def test_the_lines_of_verify_md_accept_a_good_bundle(kind, signed, tmp_path):
    bundle, trust = signed
    said = {"p256": "Verified OK\n", "ed25519": "Signature Verified Successfully\n"}[kind]
    assert run(bundle, kind, trust, tmp_path / "work") == (None, said)


def test_they_do_not_accept_the_key_of_somebody_else(kind, signed, tmp_path):
    bundle, _ = signed
    other = {"ed25519": FileSigner(ed25519.Ed25519PrivateKey.generate()), "p256": OTHER}[kind]
    failed, _ = run(bundle, kind, other.public_pem(), tmp_path / "work")
    assert failed.startswith("openssl")


def test_they_do_not_accept_the_key_of_the_other_kind(kind, signed, tmp_path):
    bundle, _ = signed
    other = {"ed25519": P256, "p256": ED25519}[kind]
    failed, _ = run(bundle, kind, other.public_pem(), tmp_path / "work")
    assert failed.startswith("openssl")


TAMPERED: dict[str, tuple[str, list[dict]]] = {
    "a payload file changed": (
        "sha256sum",
        [{"do": "flip", "path": "data/code/train.py", "offset": 0}],
    ),
    "a payload file removed": ("sha256sum", [{"do": "delete", "path": "data/code/train.py"}]),
    "a payload file added": ("diff", [{"do": "write", "path": "data/extra", "text": "x"}]),
    "a payload file renamed": (
        "sha256sum",
        [{"do": "rename", "path": "data/code/train.py", "to": "data/code/x.py"}],
    ),
    "a tag file changed": ("sha256sum", [{"do": "flip", "path": "bag-info.txt", "offset": 0}]),
    "a tag file added": ("diff", [{"do": "write", "path": "fetch.txt", "text": ""}]),
    "a folder swapped for a link": ("test -z", [{"do": "symlink", "path": "data/code", "to": "x"}]),
    "a schema changed": (
        "sha256sum",
        [{"do": "flip", "path": "schema/bundle-1.schema.json", "offset": 3}],
    ),
    "the payload manifest changed": (
        "sha256sum",
        [{"do": "flip", "path": "manifest-sha256.txt", "offset": 0}],
    ),
    "the tag manifest changed": (
        "sha256sum",
        [{"do": "flip", "path": "tagmanifest-sha256.txt", "offset": 0}],
    ),
    "the payload of the envelope changed": (
        "openssl",
        [{"do": "replace", "path": ENVELOPE, "old": '"payload":"eyJf', "new": '"payload":"eyJg'}],
    ),
    "the signature changed": (
        "openssl",
        [{"do": "replace", "path": ENVELOPE, "old": '"sig":"', "new": '"sig":"AAAA'}],
    ),
    "no signature": ("sed", [{"do": "set", "path": ENVELOPE, "at": "/signatures", "value": []}]),
    "no envelope": ("openssl", [{"do": "delete", "path": ENVELOPE}]),
    "files listed anew, the old signature": (
        "test ",
        [
            {"do": "flip", "path": "data/code/train.py", "offset": 0},
            {"do": "seal"},
            {"do": "sign", "payload": "@original"},
        ],
    ),
    "files listed anew, signed by somebody else": (
        "openssl",
        [
            {"do": "flip", "path": "data/code/train.py", "offset": 0},
            {"do": "seal"},
            {"do": "sign", "with": ["other"]},
        ],
    ),
    "the tail of the log cut": (
        "grep",
        [{"do": "lines", "keep": list(range(8))}, {"do": "seal", "release": False}],
    ),
    "the last record edited": (
        "grep",
        [{"do": "record", "line": 8, "at": "/name", "value": "x"}, {"do": "seal"}],
    ),
    "the log rebuilt, the old checkpoint": (
        "grep",
        [
            {"do": "lines", "keep": [1, 0, *range(2, 9)]},
            {"do": "chain"},
            {"do": "seal", "release": False},
        ],
    ),
}


"""What was done, and the line that sees it."""


@pytest.mark.parametrize("what", TAMPERED)
def test_they_do_not_accept_a_tampered_bundle(what, tmp_path):
    command, edits = TAMPERED[what]
    bundle = Bundle(tmp_path)
    bundle.apply(edits)
    failed, _ = run(bundle.path, "ed25519", ED25519.public_pem(), tmp_path / "work")
    assert failed is not None
    assert failed.startswith(command)


def test_openssl_prints_our_key_id(tmp_path):
    """The docstring of ``keyid_of`` promises it."""
    (tmp_path / "trust.pem").write_bytes(P256.public_pem())
    command = "openssl pkey -pubin -in trust.pem -outform DER | sha256sum"
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.split()[0] == P256.keyid


@pytest.mark.parametrize("algorithm", ["EC -pkeyopt ec_paramgen_curve:P-256", "ED25519"])
def test_a_key_that_openssl_made_can_be_used(algorithm, tmp_path):
    from bundler.signers import load_signer
    from bundler.trust import load_keys

    command = f"openssl genpkey -algorithm {algorithm} -out key.pem && openssl pkey -in key.pem -pubout -out trust.pem"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    (key,) = load_keys((tmp_path / "trust.pem").read_bytes(), name="trust.pem")
    signer = load_signer(tmp_path / "key.pem")
    assert key.keyid == signer.keyid
    assert key.verifies(signer.sign(b"message"), b"message")
