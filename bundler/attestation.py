"""in-toto Statement v1 in a DSSE envelope v1: what is signed, and in which bytes.

Making and reading are kept apart: :func:`envelope_bytes` writes, :func:`open_envelope` reads strictly. Whether
a signature counts is decided in :mod:`bundler.trust`, which is also the only maker of a verified
:class:`Statement`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from bundler import canonical, codec
from bundler.errors import MalformedError, quoted
from bundler.manifest import TAG_MANIFEST, is_sha256
from bundler.spec import Checkpoint, Predecessor

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
RELEASE_TYPE = "urn:aisdp-bundler:release:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Predicate of a release: which system and version, the log's checkpoint, the release before it."""

    system: str
    version: str
    created: str
    log: Checkpoint
    previous: Predecessor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A release statement. ``tag_manifest_sha256`` is its one subject."""

    tag_manifest_sha256: str
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One entry of an envelope. ``keyid`` is a hint only: the trusted key decides (DSSE, protocol)."""

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A DSSE envelope as received, its payload not yet trusted."""

    payload: bytes
    signatures: tuple[Signature, ...]


def pae(payload: bytes) -> bytes:
    """Pre-authentication encoding of DSSE v1: the bytes that are signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement_bytes(statement: Statement) -> bytes:
    """Return the payload for ``statement``: canonical JSON of an in-toto Statement v1."""
    return canonical.serialise(
        in_toto_statement(
            TAG_MANIFEST,
            statement.tag_manifest_sha256,
            RELEASE_TYPE,
            codec.to_json(statement.release),
        )
    )


def in_toto_statement(name: str, sha256: str, predicate_type: str, predicate: Any) -> Any:
    """An in-toto Statement v1 over one subject, as JSON."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def envelope_bytes(payload: bytes, signatures: list[Signature]) -> bytes:
    """Return the envelope as one line of canonical JSON, so that equal inputs give equal files."""
    return canonical.serialise(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": each.keyid, "sig": base64.b64encode(each.sig).decode()}
                for each in signatures
            ],
        }
    )


def open_envelope(data: bytes, *, name: str) -> Envelope:
    """Read an envelope. Raises :class:`MalformedError` (``envelope-…``, ``json-…``) unless in our exact form."""
    value = canonical.parse_canonical(data, name=name)
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise MalformedError("envelope-syntax", f"{name}: not a DSSE envelope")
    if value["payloadType"] != PAYLOAD_TYPE:
        raise MalformedError(
            "envelope-payload-type", f"{name}: payloadType is {quoted(value['payloadType'])}"
        )
    entries = value["signatures"]
    if not isinstance(entries, list) or not entries:
        raise MalformedError("envelope-no-signature", f"{name}: holds no signature")
    signatures = []
    for entry in entries:
        if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
            raise MalformedError("envelope-syntax", f"{name}: a signature is not of keyid and sig")
        if not isinstance(entry["keyid"], str):
            raise MalformedError("envelope-syntax", f"{name}: a keyid is not text")
        signatures.append(Signature(keyid=entry["keyid"], sig=_decode(entry["sig"], name)))
    return Envelope(payload=_decode(value["payload"], name), signatures=tuple(signatures))


def read_statement(payload: bytes, *, name: str) -> Statement:
    """Read a release statement. Raises :class:`MalformedError` (``statement-…``, ``json-…``).

    The payload must equal, byte for byte, the statement that is rebuilt from what was read.
    """
    value = canonical.parse_canonical(payload, name=name)
    if not isinstance(value, dict) or value.get("_type") != STATEMENT_TYPE:
        raise MalformedError("statement-type", f"{name}: not an in-toto Statement v1")
    if value.get("predicateType") != RELEASE_TYPE:
        raise MalformedError(
            "statement-predicate-type",
            f"{name}: predicateType is {quoted(value.get('predicateType'))}",
        )
    digest = _subject_digest(value.get("subject"), name)
    release = codec.from_json(Release, value.get("predicate"), place="predicate")
    statement = Statement(tag_manifest_sha256=digest, release=release)
    if statement_bytes(statement) != payload:
        raise MalformedError("statement-syntax", f"{name}: holds more or other than a release")
    return statement


def _subject_digest(subject: Any, name: str) -> str:
    try:
        digest = subject[0]["digest"]["sha256"]
    except (LookupError, TypeError):
        digest = None
    if not isinstance(digest, str) or not is_sha256(digest):
        raise MalformedError("statement-subject", f"{name}: has no subject with a SHA-256")
    return digest


def _decode(text: Any, name: str) -> bytes:
    """Base64 in its one canonical spelling (RFC 4648, section 3.5)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise MalformedError("envelope-base64", f"{name}: not base64") from None
    if base64.b64encode(data).decode() != text:
        raise MalformedError("envelope-base64", f"{name}: base64 not in canonical form")
    return data
