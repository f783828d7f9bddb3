"""Public keys and what they vouch for. Verification only: nothing here can sign.

Trust comes from outside the bundle. The algorithm comes from the trusted key, never from the envelope, and a
``keyid`` is only a hint: it must be the one of the key that verified.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from bundler.attestation import Envelope, Statement, pae, read_statement
from bundler.errors import AuthenticityError, UsageError

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----")


class Key(Protocol):
    """A public key that somebody outside the bundle trusts."""

    @property
    def keyid(self) -> str:
        """SHA-256 of the DER SubjectPublicKeyInfo, in hex."""

    @property
    def algorithm(self) -> str:
        """Name of the signature algorithm."""

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` was made with the private half."""


@dataclass(frozen=True, slots=True)
class EcdsaP256Key:
    """ECDSA over NIST P-256 with SHA-256 (FIPS 186-5); signatures are DER."""

    key: ec.EllipticCurvePublicKey
    keyid: str
    algorithm: str = "ecdsa-p256-sha256"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` was made with the private half."""
        try:
            self.key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Ed25519Key:
    """Ed25519 (RFC 8032)."""

    key: ed25519.Ed25519PublicKey
    keyid: str
    algorithm: str = "ed25519"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` over ``message`` was made with the private half."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def keyid_of(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> str:
    """SHA-256 of the key's DER SubjectPublicKeyInfo, in hex: ``openssl pkey -pubin -outform DER | sha256sum``."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def load_keys(pem: bytes, *, name: str) -> tuple[Key, ...]:
    """Return the public keys in ``pem``. Raises :class:`UsageError` if there is none or one is not supported."""
    if b"PRIVATE KEY" in pem:
        raise UsageError(
            f"{name} holds a private key",
            remedy="Trust files hold public keys: `openssl pkey -in KEY.pem -pubout`.",
        )
    blocks = _PEM.findall(pem)
    # Something that is left out in silence, a certificate for one, would be trusted in the reader's mind only.
    if not blocks or len(blocks) != pem.count(b"-----BEGIN "):
        raise UsageError(
            f"{name} holds {'something other than' if blocks else 'no'} public keys in PEM form",
            remedy="Ask the provider for the file that `bundler keygen` wrote as trust.pem.",
        )
    return tuple(_load_key(block, name) for block in blocks)


def _load_key(block: bytes, name: str) -> Key:
    try:
        key = serialization.load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(
            f"{name}: a public key in it cannot be read",
            remedy="Supported are ECDSA P-256 and Ed25519, in PEM form.",
        ) from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return Ed25519Key(key, keyid_of(key))
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return EcdsaP256Key(key, keyid_of(key))
    raise UsageError(
        f"{name}: unsupported kind of key", remedy="Supported are ECDSA P-256 and Ed25519."
    )


def unseal(envelope: Envelope, trusted: Iterable[Key], *, name: str) -> tuple[Statement, Key]:
    """Return the statement in ``envelope`` and the trusted key that signed it. The only maker of trusted statements.

    Every signature that claims a trusted key must verify, and at least one must. Raises
    :class:`AuthenticityError` (``signature-…``) otherwise, and :class:`bundler.errors.MalformedError` for a payload
    that is no release statement although a trusted key signed it.
    """
    message = pae(envelope.payload)
    by_id = {key.keyid: key for key in trusted}
    signers: list[Key] = []
    for signature in envelope.signatures:
        key = by_id.get(signature.keyid)
        if key is None:
            _refuse_borrowed_id(signature.sig, message, by_id.values(), name)
            continue
        if not key.verifies(signature.sig, message):
            raise AuthenticityError(
                "signature-invalid",
                f"{name}: the signature of trusted key {key.keyid[:16]} does not match the payload",
                remedy="The bundle was changed after signing. Ask the provider for the original.",
            )
        if key in signers:
            raise AuthenticityError(
                "signature-duplicate", f"{name}: key {key.keyid[:16]} signed twice"
            )
        signers.append(key)
    if not signers:
        raise AuthenticityError(
            "signature-untrusted",
            f"{name}: signed by none of the trusted keys, but by "
            + ", ".join(repr(each.keyid[:16]) for each in envelope.signatures[:5]),
            remedy="Compare the key ids with the ones the provider published, and use --trust.",
        )
    return read_statement(envelope.payload, name=name), signers[0]


def _refuse_borrowed_id(sig: bytes, message: bytes, keys: Iterable[Key], name: str) -> None:
    """A signature of a trusted key under another key's id would let one key count as two."""
    for key in keys:
        if key.verifies(sig, message):
            raise AuthenticityError(
                "signature-keyid", f"{name}: key {key.keyid[:16]} signed under another key's id"
            )
