"""Private keys: made once, kept private, never overwritten."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from bundler.attestation import open_envelope, statement_bytes
from bundler.errors import OutputError, UsageError
from bundler.signers import FileSigner, generate, load_signer, sign_payload
from bundler.trust import load_keys, unseal
from tests.unit.test_attestation import STATEMENT


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def private_pem(key, encryption=None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_a_new_pair_signs_and_verifies(algorithm, tmp_path):
    made = generate(tmp_path / "keys", algorithm)
    signer = load_signer(tmp_path / "keys" / "key.pem")
    keys = load_keys((tmp_path / "keys" / "trust.pem").read_bytes(), name="trust.pem")
    sealed = sign_payload(statement_bytes(STATEMENT), signer)
    statement, key = unseal(open_envelope(sealed, name="e"), keys, name="e")
    assert statement == STATEMENT
    assert key.keyid == signer.keyid == made.keyid


def test_only_the_owner_can_read_the_private_key(tmp_path):
    generate(tmp_path / "deep" / "keys", "ed25519")
    assert mode(tmp_path / "deep" / "keys" / "key.pem") == 0o600
    assert mode(tmp_path / "deep" / "keys" / "trust.pem") == 0o644


def test_a_private_key_is_private_from_its_first_byte_whatever_the_umask(tmp_path):
    os.umask(0)
    generate(tmp_path, "p256")
    assert mode(tmp_path / "key.pem") == 0o600


@pytest.mark.parametrize("name", ["key.pem", "trust.pem"])
def test_a_key_is_never_overwritten_and_no_half_pair_is_left(name, tmp_path):
    (tmp_path / name).write_text("precious")
    with pytest.raises(OutputError) as refused:
        generate(tmp_path, "ed25519")
    assert name in refused.value.message
    assert refused.value.remedy
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "precious"}


def test_a_link_in_the_place_of_a_key_is_not_followed(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "key.pem").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError):
        generate(tmp_path / "keys", "ed25519")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write keys"):
        generate(tmp_path / "file" / "keys", "ed25519")


def test_a_new_folder_of_keys_is_hidden_from_git(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    generate(tmp_path / "keys", "p256")
    state = ["git", "-C", str(tmp_path), "status", "--porcelain", "-uall"]
    assert subprocess.run(state, check=True, capture_output=True, text=True).stdout == ""


def test_a_folder_that_was_there_keeps_its_rules_for_git(tmp_path):
    generate(tmp_path, "p256")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key.pem", "trust.pem"]


# Longer than the file for git, shorter than a key; and too short for any file.
@pytest.mark.parametrize("limit", [80, 10])
@pytest.mark.parametrize("place", [".", "new", "new/deep/keys"])
def test_a_full_disk_leaves_no_half_key(limit, place, tmp_path):
    """A limit on the size of files stands in for the full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(OutputError) as refused:
            generate(tmp_path / place, "ed25519")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Nothing was left behind" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(7, ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32),
    ],
)
def test_signatures_are_deterministic(key):
    assert FileSigner(key).sign(b"message") == FileSigner(key).sign(b"message")


def test_the_p256_signature_is_that_of_rfc_6979():
    """Appendix A.2.5, P-256 with SHA-256, message "sample"."""
    private = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    signature = FileSigner(ec.derive_private_key(private, ec.SECP256R1())).sign(b"sample")
    assert decode_dss_signature(signature) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


def test_the_ed25519_signature_is_that_of_rfc_8032():
    """Section 7.1, test 1."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    signature = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(secret)).sign(b"")
    assert signature.hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


ED = ed25519.Ed25519PrivateKey.generate()
SECRET = serialization.BestAvailableEncryption(b"secret")
UNUSABLE = {
    "an encrypted key": (private_pem(ED, SECRET), "is encrypted"),
    "an encrypted key in the old form": (
        ec.derive_private_key(7, ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, SECRET
        ),
        "is encrypted",
    ),
    "another curve": (private_pem(ec.generate_private_key(ec.SECP384R1())), "curve secp384r1"),
    "Bitcoin's curve": (private_pem(ec.generate_private_key(ec.SECP256K1())), "curve secp256k1"),
    "an RSA key": (private_pem(rsa.generate_private_key(65537, 2048)), "this kind of key"),
    "a DSA key": (private_pem(dsa.generate_private_key(1024)), "this kind of key"),
    "an Ed448 key": (private_pem(ed448.Ed448PrivateKey.generate()), "this kind of key"),
    "a public key": (FileSigner(ED).public_pem(), "a public key and no private key"),
    "garbage": (b"\0garbage\xff", "no private key"),
    "a key that is none": (
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "no private key",
    ),
    "an OpenSSH key": (
        ED.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
        "no private key",
    ),
    "nothing": (b"", "no private key"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_any_other_key_is_refused_with_what_to_do(what, tmp_path):
    pem, words = UNUSABLE[what]
    (tmp_path / "key.pem").write_bytes(pem)
    with pytest.raises(UsageError) as refused:
        load_signer(tmp_path / "key.pem")
    assert words in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("name", ["absent.pem", "."])
def test_a_key_that_cannot_be_read_is_refused_with_what_to_do(name, tmp_path):
    with pytest.raises(UsageError) as refused:
        load_signer(tmp_path / name)
    assert "cannot read the key" in refused.value.message
    assert "keygen" in refused.value.remedy
