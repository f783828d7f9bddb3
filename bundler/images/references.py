"""What the name of an image alone says."""

from __future__ import annotations

import re

from bundler.errors import SourceError, quoted
from bundler.spec import ImageIdentity

DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
"""The algorithms that the OCI specification registers."""

_REFERENCE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}?)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>\S+))?"
)


def of_reference(text: str) -> ImageIdentity:
    """The identity that ``repo:tag`` or ``repo@sha256:…`` gives, without the image.

    Raises :class:`SourceError` for what is no reference.
    """
    match = _REFERENCE.fullmatch(text)
    digest = match["digest"] if match is not None else None
    if match is None or (digest is not None and not DIGEST.fullmatch(digest)):
        raise SourceError(
            f"{quoted(text, 100)} is no reference to a container image",
            remedy="Write it as repo@sha256:DIGEST, as `docker images --digests` shows it.",
        )
    if digest is None:
        reason = "A tag can be moved to another image at any time: it names no certain one."
    else:
        reason = (
            "The image itself was not supplied, so its digest was compared with no bytes. The digest may be that of an"
            " index of several platforms."
        )
    return ImageIdentity(
        form="reference",
        reference=text,
        manifest_digest=digest,
        config_digest=None,
        platform=None,
        supplied=False,
        resolved=digest is not None,
        reasons=(reason,),
    )
