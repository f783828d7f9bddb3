"""``VERIFY.md``: how to check a bundle with sha256sum and openssl alone. It travels inside the bundle."""

from __future__ import annotations

from bundler.manifest import INDEX, RECORDS, RELEASE_ENVELOPE

_TEXT = """\
# How to check this bundle without our software

You need a shell with `sha256sum`, `base64`, `sed` and `openssl` (3.0 or later), and the provider's public key in a
file `trust.pem` **that you got from the provider by another way** than this bundle. A key in a bundle
proves nothing.

This file is the provider's as all others here are: read a line before you run it. Run them in a POSIX shell, in the
folder of this file, in their order. Each one must succeed (`echo $?` prints 0); only the two `openssl` lines are a
choice, by the kind of the key.

    export LC_ALL=C TRUST=/path/to/trust.pem WORK="$(mktemp -d)"

## 1. Every file is the one that the manifests name

    sha256sum --quiet --strict --check tagmanifest-sha256.txt
    sha256sum --quiet --strict --check manifest-sha256.txt

Both print nothing, or name what FAILED. There are only files and folders, no links, and no file outside `signatures/`
that neither list names:

    test -z "$(find . ! -type f ! -type d)"
    find . -type f ! -path './signatures/*' ! -name tagmanifest-sha256.txt | sed 's|^\\./||' | sort > "$WORK/found"
    cut -c67- manifest-sha256.txt tagmanifest-sha256.txt | sort > "$WORK/named"
    diff "$WORK/found" "$WORK/named"

## 2. The provider signed the tag manifest

The signature is a DSSE envelope (in-toto attestation). These lines rebuild the bytes that were signed:

    sed 's/.*"payload":"\\([^"]*\\)".*/\\1/' {envelope} | base64 -d > "$WORK/payload"
    sed 's/.*"sig":"\\([^"]*\\)".*/\\1/' {envelope} | base64 -d > "$WORK/sig"
    printf 'DSSEv1 28 application/vnd.in-toto+json %d ' "$(wc -c < "$WORK/payload")" > "$WORK/pae"
    cat "$WORK/payload" >> "$WORK/pae"

With an ECDSA P-256 key (`openssl pkey -pubin -in "$TRUST" -noout -text` says which kind it is):

    openssl dgst -sha256 -verify "$TRUST" -signature "$WORK/sig" "$WORK/pae"

With an Ed25519 key:

    openssl pkeyutl -verify -pubin -inkey "$TRUST" -rawin -in "$WORK/pae" -sigfile "$WORK/sig"

And the signed statement names this tag manifest:

    SIGNED="$(sed 's/.*"subject":\\[{{"digest":{{"sha256":"\\([0-9a-f]*\\)".*/\\1/' "$WORK/payload")"
    test "$SIGNED" = "$(sha256sum < tagmanifest-sha256.txt | cut -c1-64)"

## 3. The log of the runs is whole

Line *i* of `{records}` carries `index` (from 0) and `previous`, the SHA-256 of the line before it
(64 zeros in the first). The signed statement carries `log`: the number of lines, the SHA-256 of the last
line (`head`), and the Merkle root of RFC 6962.

    SIZE="$(wc -l < {records} | tr -d ' ')"
    HEAD="$(tail -n 1 {records} | tr -d '\\n' | sha256sum | cut -c1-64)"
    grep -q '"predicate":{{[^{{}}]*"log":{{"head":"'"$HEAD"'","root":"[0-9a-f]*","size":'"$SIZE"'}}' "$WORK/payload"

## 4. What the files mean

`{index}` is the index: the system, the declared selection rule, gates, tolerances and the gaps in the evidence.
`schema/` holds the JSON Schemas of all of them. Everything is UTF-8 text but model weights and other artefacts.

This bundle is evidence. It does not say that a system conforms to any law.
"""


def verify_instructions() -> bytes:
    """Return VERIFY.md of bundle format 1. Like a schema, the text is never edited after a release."""
    return _TEXT.format(envelope=RELEASE_ENVELOPE, records=RECORDS, index=INDEX).encode()
