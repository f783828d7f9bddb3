"""Envelopes and statements are read in exactly the form in which they are written."""

from __future__ import annotations

import base64
import dataclasses

import pytest
import rfc8785

from bundler.attestation import (
    PAYLOAD_TYPE,
    Release,
    Signature,
    Statement,
    envelope_bytes,
    open_envelope,
    pae,
    read_statement,
    statement_bytes,
)
from bundler.errors import MalformedError
from bundler.spec import Checkpoint, Predecessor

LOG = Checkpoint(size=2, head="a" * 64, root="b" * 64)
STATEMENT = Statement(
    tag_manifest_sha256="c" * 64,
    release=Release(
        system="s", version="1", created="2026-01-01T00:00:00.000Z", log=LOG, previous=None
    ),
)


def document(**changes) -> dict:
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "tagmanifest-sha256.txt", "digest": {"sha256": "c" * 64}}],
        "predicateType": "urn:aisdp-bundler:release:1",
        "predicate": {
            "system": "s",
            "version": "1",
            "created": "2026-01-01T00:00:00.000Z",
            "log": {"size": 2, "head": "a" * 64, "root": "b" * 64},
            "previous": None,
        },
    } | changes


def envelope(**changes) -> bytes:
    return rfc8785.dumps(
        {
            "payload": "YWI=",
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": "k", "sig": "eHk="}],
        }
        | changes
    )


def test_the_pre_authentication_encoding_is_that_of_the_dsse_specification():
    assert pae(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"
    assert pae(b"") == b"DSSEv1 28 application/vnd.in-toto+json 0 "


def test_lengths_in_the_encoding_are_of_bytes():
    assert pae("é".encode()) == b"DSSEv1 28 application/vnd.in-toto+json 2 \xc3\xa9"


def test_an_envelope_survives_the_way_there_and_back():
    signatures = [Signature(keyid="k", sig=b"xy"), Signature(keyid="l", sig=b"\0" * 64)]
    opened = open_envelope(envelope_bytes(b"ab", signatures), name="e")
    assert opened.payload == b"ab"
    assert opened.signatures == tuple(signatures)


ENVELOPES = {
    "another payload type": (envelope(payloadType="application/json"), "envelope-payload-type"),
    "a payload type with a space": (
        envelope(payloadType=PAYLOAD_TYPE + " "),
        "envelope-payload-type",
    ),
    "a payload type that is a list": (
        envelope(payloadType=[PAYLOAD_TYPE]),
        "envelope-payload-type",
    ),
    "one member more": (envelope(alg="none"), "envelope-syntax"),
    "one member less": (b'{"payload":"","signatures":[]}', "envelope-syntax"),
    "a list": (b"[]", "envelope-syntax"),
    "no signature": (envelope(signatures=[]), "envelope-no-signature"),
    "signatures that are no list": (envelope(signatures={}), "envelope-no-signature"),
    "a signature that is text": (envelope(signatures=["eHk="]), "envelope-syntax"),
    "a signature with a certificate": (
        envelope(signatures=[{"keyid": "k", "sig": "eHk=", "cert": "x"}]),
        "envelope-syntax",
    ),
    "a signature without a keyid": (envelope(signatures=[{"sig": "eHk="}]), "envelope-syntax"),
    "a keyid that is no text": (
        envelope(signatures=[{"keyid": 1, "sig": "eHk="}]),
        "envelope-syntax",
    ),
    "a payload that is no text": (envelope(payload=1), "envelope-base64"),
    "a payload that is null": (envelope(payload=None), "envelope-base64"),
    "a payload that is a list": (envelope(payload=["YWI="]), "envelope-base64"),
    "a payload beyond ASCII": (envelope(payload="YWIé"), "envelope-base64"),
    "a payload without padding": (envelope(payload="YWI"), "envelope-base64"),
    "a payload with a line break": (envelope(payload="YWI=\n"), "envelope-base64"),
    "a payload with junk": (envelope(payload="Y!WI="), "envelope-base64"),
    "a payload with trailing bits": (envelope(payload="YWJ="), "envelope-base64"),
    "a payload in the URL alphabet": (envelope(payload="_-8="), "envelope-base64"),
    "a signature with trailing bits": (
        envelope(signatures=[{"keyid": "k", "sig": "eHl="}]),
        "envelope-base64",
    ),
    "a signature with excess padding": (
        envelope(signatures=[{"keyid": "k", "sig": "eHk=="}]),
        "envelope-base64",
    ),
    "another form": (envelope() + b"\n", "json-not-canonical"),
    "two documents": (envelope() * 2, "json-syntax"),
    "two payloads": (envelope().replace(b"{", b'{"payload":"",', 1), "json-duplicate-key"),
}


@pytest.mark.parametrize("what", ENVELOPES)
def test_any_other_envelope_is_refused_by_name(what):
    data, code = ENVELOPES[what]
    with pytest.raises(MalformedError) as refused:
        open_envelope(data, name="e.json")
    assert refused.value.code == code
    assert refused.value.message.startswith("e.json: ")


def test_a_hostile_payload_type_does_not_flood_a_message():
    with pytest.raises(MalformedError) as refused:
        open_envelope(envelope(payloadType="\x1b[2J" * 10_000), name="e")
    assert len(refused.value.message) < 150


def test_a_statement_survives_the_way_there_and_back():
    assert read_statement(statement_bytes(STATEMENT), name="p") == STATEMENT


def test_a_statement_with_a_predecessor_survives_as_well():
    previous = Predecessor(version="0", tag_manifest_sha256="d" * 64, log=LOG)
    release = dataclasses.replace(STATEMENT.release, previous=previous)
    statement = dataclasses.replace(STATEMENT, release=release)
    assert read_statement(statement_bytes(statement), name="p") == statement


def test_a_statement_is_an_in_toto_statement_with_one_subject():
    assert statement_bytes(STATEMENT) == rfc8785.dumps(document())


SUBJECT = {"name": "tagmanifest-sha256.txt", "digest": {"sha256": "c" * 64}}
STATEMENTS = {
    "an older type": ({"_type": "https://in-toto.io/Statement/v0.1"}, "statement-type"),
    "no type": ({"_type": None}, "statement-type"),
    "another predicate": (
        {"predicateType": "https://slsa.dev/provenance/v1"},
        "statement-predicate-type",
    ),
    "a newer predicate": (
        {"predicateType": "urn:aisdp-bundler:release:2"},
        "statement-predicate-type",
    ),
    "no subject": ({"subject": []}, "statement-subject"),
    "null for a subject": ({"subject": None}, "statement-subject"),
    "an object for subjects": ({"subject": {"0": SUBJECT}}, "statement-subject"),
    "text for subjects": ({"subject": "tagmanifest"}, "statement-subject"),
    "no digest": ({"subject": [{"name": "x"}]}, "statement-subject"),
    "an MD5": ({"subject": [SUBJECT | {"digest": {"md5": "c" * 32}}]}, "statement-subject"),
    "a short digest": (
        {"subject": [SUBJECT | {"digest": {"sha256": "c" * 63}}]},
        "statement-subject",
    ),
    "an upper-case digest": (
        {"subject": [SUBJECT | {"digest": {"sha256": "C" * 64}}]},
        "statement-subject",
    ),
    "a digest that is a number": (
        {"subject": [SUBJECT | {"digest": {"sha256": 1}}]},
        "statement-subject",
    ),
    "two digests": (
        {"subject": [SUBJECT | {"digest": {"sha256": "c" * 64, "md5": "c" * 32}}]},
        "statement-syntax",
    ),
    "two subjects": ({"subject": [SUBJECT, SUBJECT]}, "statement-syntax"),
    "another name": ({"subject": [SUBJECT | {"name": "manifest-sha256.txt"}]}, "statement-syntax"),
    "a member more": ({"extra": 1}, "statement-syntax"),
    "an empty predicate": ({"predicate": {}}, "structure"),
    "no predicate": ({"predicate": None}, "structure"),
    "a predicate with more": ({"predicate": document()["predicate"] | {"x": 1}}, "structure"),
}


@pytest.mark.parametrize("what", STATEMENTS)
def test_any_other_statement_is_refused_by_name(what):
    changes, code = STATEMENTS[what]
    with pytest.raises(MalformedError) as refused:
        read_statement(rfc8785.dumps(document(**changes)), name="p")
    assert refused.value.code == code


def test_a_payload_that_is_no_object_is_no_statement():
    with pytest.raises(MalformedError) as refused:
        read_statement(b"[]", name="p")
    assert refused.value.code == "statement-type"


def test_a_payload_in_another_form_is_refused_although_it_says_the_same():
    with pytest.raises(MalformedError) as refused:
        read_statement(statement_bytes(STATEMENT) + b" ", name="p")
    assert refused.value.code == "json-not-canonical"


def test_an_envelope_is_in_plain_base64():
    sealed = envelope_bytes(b"\xff\xfe\xfd", [Signature(keyid="k", sig=b"\xff")])
    assert base64.b64encode(b"\xff\xfe\xfd") in sealed
