"""Which signatures count. Trust comes from outside, the algorithm from the trusted key."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from bundler.attestation import Envelope, Signature, pae, statement_bytes
from bundler.errors import AuthenticityError, MalformedError, UsageError
from bundler.signers import FileSigner
from bundler.trust import EcdsaP256Key, Ed25519Key, load_keys, unseal
from tests.unit.test_attestation import STATEMENT

ED = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32))
EC = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
STRANGER = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"\2" * 32))
KEYS = load_keys(ED.public_pem() + EC.public_pem(), name="trust.pem")
PAYLOAD = statement_bytes(STATEMENT)


def signature(
    signer: FileSigner, *, keyid: str | None = None, payload: bytes = PAYLOAD
) -> Signature:
    return Signature(keyid=keyid or signer.keyid, sig=signer.sign(pae(payload)))


def sealed(*signatures: Signature, payload: bytes = PAYLOAD) -> Envelope:
    return Envelope(payload=payload, signatures=signatures)


@pytest.mark.parametrize("signer", [ED, EC])
def test_a_statement_that_a_trusted_key_signed_is_unsealed(signer):
    statement, key = unseal(sealed(signature(signer)), KEYS, name="e")
    assert statement == STATEMENT
    assert key.keyid == signer.keyid


def test_a_stranger_beside_a_trusted_key_does_no_harm():
    statement, key = unseal(sealed(signature(STRANGER), signature(EC)), KEYS, name="e")
    assert (statement, key.keyid) == (STATEMENT, EC.keyid)


def test_two_trusted_keys_may_sign():
    _, key = unseal(sealed(signature(EC), signature(ED)), KEYS, name="e")
    assert key.keyid == EC.keyid


NOTHING = Signature(keyid=ED.keyid, sig=b"")
REFUSED = {
    "a stranger": (sealed(signature(STRANGER)), "signature-untrusted"),
    "a stranger under a trusted id": (
        sealed(signature(STRANGER, keyid=ED.keyid)),
        "signature-invalid",
    ),
    "a stranger under a trusted id beside a good one": (
        sealed(signature(STRANGER, keyid=EC.keyid), signature(ED)),
        "signature-invalid",
    ),
    "a trusted key under an unknown id": (sealed(signature(ED, keyid="0" * 64)), "signature-keyid"),
    "a trusted key under another trusted id": (
        sealed(signature(ED, keyid=EC.keyid)),
        "signature-invalid",
    ),
    "one key under two ids": (sealed(signature(ED), signature(ED, keyid="x")), "signature-keyid"),
    "one key twice": (sealed(signature(ED), signature(ED)), "signature-duplicate"),
    "a key id in upper case": (sealed(signature(ED, keyid=ED.keyid.upper())), "signature-keyid"),
    "an empty signature": (sealed(NOTHING), "signature-invalid"),
    "an empty P-256 signature": (sealed(Signature(keyid=EC.keyid, sig=b"")), "signature-invalid"),
    "a P-256 signature of zeros": (
        sealed(Signature(keyid=EC.keyid, sig=bytes.fromhex("3006020100020100"))),
        "signature-invalid",
    ),
    "a P-256 signature with bytes behind": (
        sealed(Signature(keyid=EC.keyid, sig=EC.sign(pae(PAYLOAD)) + b"\0")),
        "signature-invalid",
    ),
    "a signature over the bare payload": (
        sealed(Signature(keyid=ED.keyid, sig=ED.sign(PAYLOAD))),
        "signature-invalid",
    ),
    "a signature over another payload": (
        sealed(signature(ED, payload=PAYLOAD + b" ")),
        "signature-invalid",
    ),
    "no signature": (sealed(), "signature-untrusted"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_any_other_envelope_is_not_unsealed(what):
    envelope, code = REFUSED[what]
    with pytest.raises(AuthenticityError) as refused:
        unseal(envelope, KEYS, name="e")
    assert refused.value.code == code


def test_nothing_is_unsealed_without_trusted_keys():
    with pytest.raises(AuthenticityError) as refused:
        unseal(sealed(signature(ED)), (), name="e")
    assert refused.value.code == "signature-untrusted"
    assert "--trust" in refused.value.remedy


def test_every_bit_of_a_signature_counts():
    for signer in (ED, EC):
        good = signer.sign(pae(PAYLOAD))
        for position in range(len(good) * 8):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            with pytest.raises(AuthenticityError) as refused:
                unseal(sealed(Signature(keyid=signer.keyid, sig=bytes(bad))), KEYS, name="e")
            assert refused.value.code == "signature-invalid"


def test_what_a_trusted_key_signed_is_read_strictly_all_the_same():
    with pytest.raises(MalformedError) as refused:
        unseal(sealed(signature(ED, payload=b"{}"), payload=b"{}"), KEYS, name="e")
    assert refused.value.code == "statement-type"


def test_a_hundred_strangers_do_not_flood_a_message():
    many = [Signature(keyid="\x1b" * 1000, sig=b"x")] * 100
    with pytest.raises(AuthenticityError) as refused:
        unseal(sealed(*many), KEYS, name="e")
    assert len(refused.value.message) < 500
    assert refused.value.message.isprintable()


def pem_of(key) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_a_file_may_hold_several_keys_and_words_between_them():
    keys = load_keys(
        b"provider\n" + ED.public_pem() + b"\r\nnew key:\n" + EC.public_pem(), name="t"
    )
    assert [type(key) for key in keys] == [Ed25519Key, EcdsaP256Key]
    assert [key.algorithm for key in keys] == ["ed25519", "ecdsa-p256-sha256"]


def test_a_key_id_is_the_digest_of_the_der_key():
    der = serialization.load_pem_public_key(ED.public_pem()).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert KEYS[0].keyid == ED.keyid == hashlib.sha256(der).hexdigest()


PRIVATE = ed25519.Ed25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
GARBAGE_KEY = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
NOT_TRUSTED = {
    "a private key": (PRIVATE, "private key"),
    "a private key after a public one": (ED.public_pem() + PRIVATE, "private key"),
    "nothing": (b"", "no public keys"),
    "words": (b"trust me", "no public keys"),
    "a certificate": (CERTIFICATE, "no public keys"),
    "a certificate after a key": (ED.public_pem() + CERTIFICATE, "something other"),
    "a key without an end": (ED.public_pem() + ED.public_pem()[:60], "something other"),
    "a key that is none": (GARBAGE_KEY, "cannot be read"),
    "a key that is none after a good one": (ED.public_pem() + GARBAGE_KEY, "cannot be read"),
    "an RSA key": (pem_of(rsa.generate_private_key(65537, 2048)), "unsupported"),
    "a P-384 key": (pem_of(ec.generate_private_key(ec.SECP384R1())), "unsupported"),
    "a key of Bitcoin's curve": (pem_of(ec.generate_private_key(ec.SECP256K1())), "unsupported"),
    "an Ed448 key": (pem_of(ed448.Ed448PrivateKey.generate()), "unsupported"),
}


@pytest.mark.parametrize("what", NOT_TRUSTED)
def test_any_other_trust_file_is_refused_with_what_to_do(what):
    pem, words = NOT_TRUSTED[what]
    with pytest.raises(UsageError) as refused:
        load_keys(pem, name="trust.pem")
    assert refused.value.message.startswith("trust.pem")
    assert words in refused.value.message
    assert refused.value.remedy
