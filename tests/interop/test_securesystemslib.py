"""securesystemslib verifies our envelopes, we verify its; where it is lenient, we are not."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from bundler.attestation import (
    PAYLOAD_TYPE,
    Signature,
    envelope_bytes,
    open_envelope,
    pae,
    statement_bytes,
)
from bundler.errors import AuthenticityError, MalformedError
from bundler.signers import FileSigner, sign_payload
from bundler.trust import load_keys, unseal
from tests.conformance.harness import ENVELOPE, KEYS, VALID
from tests.unit.test_attestation import STATEMENT

PRIVATE = {
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
    "p256": ec.derive_private_key(7, ec.SECP256R1()),
}
PAYLOAD = statement_bytes(STATEMENT)


def their_key(signer: FileSigner, keyid: str | None = None) -> SSlibKey:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    return SSlibKey.from_crypto(load_pem_public_key(signer.public_pem()), keyid or signer.keyid)


@pytest.fixture(params=PRIVATE)
def signer(request) -> FileSigner:
    return FileSigner(PRIVATE[request.param])


def keys(signer: FileSigner):
    return load_keys(signer.public_pem(), name="trust.pem")


def test_they_encode_what_is_signed_as_we_do():
    assert TheirEnvelope(PAYLOAD, PAYLOAD_TYPE, {}).pae() == pae(PAYLOAD)


def test_they_verify_our_envelope(signer):
    theirs = TheirEnvelope.from_dict(json.loads(sign_payload(PAYLOAD, signer)))
    assert list(theirs.verify([their_key(signer)], 1)) == [signer.keyid]
    assert theirs.payload == PAYLOAD


def test_they_do_not_verify_our_envelope_with_another_payload(signer):
    ours = json.loads(sign_payload(PAYLOAD, signer))
    ours["payload"] = json.loads(sign_payload(PAYLOAD + b" ", signer))["payload"]
    with pytest.raises(VerificationError):
        TheirEnvelope.from_dict(ours).verify([their_key(signer)], 1)


def test_they_verify_the_envelope_of_the_valid_vector():
    trusted = load_keys((KEYS / "trust.pem").read_bytes(), name="trust.pem")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = SSlibKey.from_crypto(
        load_pem_public_key((KEYS / "trust.pem").read_bytes()), trusted[0].keyid
    )
    TheirEnvelope.from_dict(json.loads((VALID / ENVELOPE).read_bytes())).verify([key], 1)


@pytest.mark.parametrize("kind", PRIVATE)
def test_we_verify_what_they_signed(kind):
    signer = FileSigner(PRIVATE[kind])
    theirs = TheirEnvelope(PAYLOAD, PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(PRIVATE[kind], their_key(signer)))
    signatures = [
        Signature(keyid=keyid, sig=bytes.fromhex(each.signature))
        for keyid, each in theirs.signatures.items()
    ]
    statement, _ = unseal(
        open_envelope(envelope_bytes(PAYLOAD, signatures), name="e"), keys(signer), name="e"
    )
    assert statement == STATEMENT


def test_they_count_one_key_under_two_ids_twice_and_we_refuse_it(signer):
    sig = signer.sign(pae(PAYLOAD))
    twice = envelope_bytes(
        PAYLOAD, [Signature(keyid=signer.keyid, sig=sig), Signature(keyid="x", sig=sig)]
    )
    accepted = TheirEnvelope.from_dict(json.loads(twice)).verify(
        [their_key(signer), their_key(signer, "x")], 2
    )
    assert len(accepted) == 2

    with pytest.raises(AuthenticityError) as refused:
        unseal(open_envelope(twice, name="e"), keys(signer), name="e")
    assert refused.value.code == "signature-keyid"


def test_they_ignore_the_last_bits_of_base64_and_we_refuse_them(signer):
    """Another text for the same bytes: one statement, two files."""
    sealed = sign_payload(PAYLOAD, signer)
    assert b'Q==","payloadType"' in sealed
    loose = sealed.replace(b'Q==","payloadType"', b'R==","payloadType"')
    TheirEnvelope.from_dict(json.loads(loose)).verify([their_key(signer)], 1)
    with pytest.raises(MalformedError) as refused:
        open_envelope(loose, name="e")
    assert refused.value.code == "envelope-base64"


def test_they_ignore_a_bad_signature_beside_a_good_one_and_we_refuse_it(signer):
    good = Signature(keyid=signer.keyid, sig=signer.sign(pae(PAYLOAD)))
    other = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\3" * 32))
    bad = Signature(keyid=other.keyid, sig=b"\0" * 64)
    both = envelope_bytes(PAYLOAD, [bad, good])
    TheirEnvelope.from_dict(json.loads(both)).verify([their_key(signer), their_key(other)], 1)
    with pytest.raises(AuthenticityError) as refused:
        unseal(open_envelope(both, name="e"), (*keys(signer), *keys(other)), name="e")
    assert refused.value.code == "signature-invalid"
