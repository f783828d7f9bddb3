"""``VERIFY.md``: how to check a bundle with sha256sum and openssl alone. It travels inside the bundle."""

from __future__ import annotations

_TEXT = """\
# How to check this bundle without our software

You need `sha256sum`, `base64`, `sed` and `openssl` (3.0 or later), and the provider's public key in a
file `trust.pem` **that you got from the provider by another way** than this bundle. A key in a bundle
proves nothing.

Run everything in the folder of this file.

## 1. Every file is the one that the manifests name

    sha256sum --strict --check tagmanifest-sha256.txt
    sha256sum --strict --check manifest-sha256.txt

Both must end without a line that says FAILED. A file outside `signatures/` that neither list names does
not belong here:

    export LC_ALL=C
    find . -type f ! -path './signatures/*' ! -name tagmanifest-sha256.txt | sed 's|^\\./||' | sort > /tmp/found
    cat manifest-sha256.txt tagmanifest-sha256.txt | cut -c67- | sort > /tmp/named
    diff /tmp/found /tmp/named && echo "exactly the named files"

## 2. The provider signed the tag manifest

The signature is a DSSE envelope (in-toto attestation). These lines rebuild the bytes that were signed:

    sed 's/.*"payload":"\\([^"]*\\)".*/\\1/' {envelope} | base64 -d > /tmp/payload
    sed 's/.*"sig":"\\([^"]*\\)".*/\\1/' {envelope} | base64 -d > /tmp/sig
    length=$(wc -c < /tmp/payload | tr -d ' ')
    (printf 'DSSEv1 28 application/vnd.in-toto+json %s ' "$length"; cat /tmp/payload) > /tmp/pae

With an ECDSA P-256 key:

    openssl dgst -sha256 -verify trust.pem -signature /tmp/sig /tmp/pae

With an Ed25519 key:

    openssl pkeyutl -verify -pubin -inkey trust.pem -rawin -in /tmp/pae -sigfile /tmp/sig

And the signed statement must name this tag manifest; both lines print the same 64 digits:

    sha256sum < tagmanifest-sha256.txt | cut -c1-64
    sed 's/.*"subject":\\[{{"digest":{{"sha256":"\\([0-9a-f]*\\)".*/\\1/' /tmp/payload

## 3. The log of the runs is whole

Line *i* of `{records}` carries `index` (from 0) and `previous`, the SHA-256 of the line before it
(64 zeros in the first). The signed statement carries `log`: the number of lines, the SHA-256 of the last
line (`head`), and the Merkle root of RFC 6962.

    wc -l < {records}
    tail -n 1 {records} | tr -d '\\n' | sha256sum
    sed 's/.*"log":\\({{[^}}]*}}\\).*/\\1/' /tmp/payload

## 4. What the files mean

`{index}` is the index: the system, the declared selection rule, gates, tolerances and the gaps in the evidence.
`schema/` holds the JSON Schemas of all of them. Everything is UTF-8 text but model weights and other artefacts.

This bundle is evidence. It does not say that a system conforms to any law.
"""


def verify_instructions(*, envelope: str, records: str, index: str) -> bytes:
    """Return the text of VERIFY.md with the real file names in it."""
    return _TEXT.format(envelope=envelope, records=records, index=index).encode()
