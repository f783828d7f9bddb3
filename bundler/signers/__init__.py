"""Private keys: making them, loading them, signing with them. Never imported by a verifier's checks."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bundler.attestation import Signature, envelope_bytes, pae
from bundler.errors import OutputError, UsageError
from bundler.trust import keyid_of

Algorithm = Literal["p256", "ed25519"]

_IGNORED = b"# A private key lies here: git must not take it.\n*\n"


class Signer(Protocol):
    """Something that holds a private key."""

    keyid: str

    def sign(self, message: bytes) -> bytes:
        """Return the signature over ``message``."""


class FileSigner:
    """A private key from an unencrypted PEM file. Both algorithms sign deterministically (RFC 6979, RFC 8032)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.keyid = keyid_of(key.public_key())

    def sign(self, message: bytes) -> bytes:
        """Return the signature over ``message``: DER for P-256, 64 bytes for Ed25519."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(message)
        return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def public_pem(self) -> bytes:
        """The public half, as PEM SubjectPublicKeyInfo."""
        return self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def load_signer(path: Path) -> FileSigner:
    """Load a PEM private key (P-256 or Ed25519). Raises :class:`UsageError` with what to do."""
    remedy = "Make a pair with `bundler keygen -o keys` and pass keys/key.pem."
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key {path}: {error.strerror}", remedy=remedy) from None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise UsageError(
            f"{path} is encrypted", remedy="Decrypt it first: `openssl pkey -in KEY -out PLAIN`."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        what = "a public key and no" if b"BEGIN PUBLIC KEY" in pem else "no"
        raise UsageError(f"{path} holds {what} private key in PEM form", remedy=remedy) from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path}: curve {key.curve.name} is not supported", remedy=remedy)
    if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
        raise UsageError(f"{path}: this kind of key is not supported", remedy=remedy)
    return FileSigner(key)


def sign_payload(payload: bytes, signer: Signer) -> bytes:
    """Return a DSSE envelope over ``payload`` with one signature."""
    signature = Signature(keyid=signer.keyid, sig=signer.sign(pae(payload)))
    return envelope_bytes(payload, [signature])


def generate(folder: Path, algorithm: Algorithm) -> FileSigner:
    """Write ``key.pem`` (private, mode 0600) and ``trust.pem`` (public) into ``folder``; never overwrite.

    A folder that is made for them is hidden from git: it may lie in the training repository.
    """
    key = (
        ec.generate_private_key(ec.SECP256R1())
        if algorithm == "p256"
        else ed25519.Ed25519PrivateKey.generate()
    )
    signer = FileSigner(key)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        with ExitStack() as undo:
            made = [each for each in (folder, *folder.parents) if not each.exists()]
            undo.callback(_remove_empty, made)
            folder.mkdir(parents=True, exist_ok=True)
            files = [("key.pem", pem, 0o600), ("trust.pem", signer.public_pem(), 0o644)]
            if made:
                files.insert(0, (".gitignore", _IGNORED, 0o644))
            for name, data, mode in files:
                _write_new(folder / name, data, mode)
                undo.callback((folder / name).unlink)
            undo.pop_all()
    except FileExistsError as error:
        raise OutputError(
            f"{error.filename} exists; a key is never overwritten",
            remedy="Choose another folder with -o.",
        ) from None
    except OSError as error:
        raise OutputError(
            f"cannot write keys into {folder}: {error.strerror}",
            remedy="Nothing was left behind. Check free space and permissions.",
        ) from None
    return signer


def _remove_empty(folders: list[Path]) -> None:
    """Remove those of ``folders``, the deepest first, that hold nothing."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink()
        raise
