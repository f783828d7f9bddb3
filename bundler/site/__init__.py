"""The Module 5 site: the evidence of one bundle as pages that open from a folder, without network or server.

Evidence flows through four rooms: :mod:`~bundler.site.model` works out what is shown, :mod:`~bundler.site.figures` and
:mod:`~bundler.site.pages` say how, :mod:`~bundler.site.plugin` has MkDocs make pages of it, and
:mod:`~bundler.site.safety` keeps the bundle's text from becoming anything but text. See docs/adr/0007-site.md.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from bundler.attestation import Statement, open_envelope
from bundler.errors import MalformedError
from bundler.evidence import Files, examine_files, read_contents
from bundler.manifest import RELEASE_ENVELOPE, format_manifest
from bundler.progress import Progress
from bundler.report import Report
from bundler.storage.hashing import digest_bytes
from bundler.storage.model import Bag
from bundler.storage.writer import staged
from bundler.trust import Key, unseal

MANIFEST = "site-manifest-sha256.txt"
"""In the site: the digest of each of its files, for ``sha256sum -c``."""


def render(
    bag: Bag, report: Report | None, keys: tuple[Key, ...], output: Path, progress: Progress
) -> int:
    """Write the site of ``bag`` to the new folder ``output``. Returns the number of pages.

    The same bundle, report and keys give the same bytes. Raises :class:`MalformedError` for a bundle that is not intact
    or, with ``keys``, not signed by one of them; :class:`bundler.errors.UsageError` for a report about another bundle;
    :class:`bundler.errors.OutputError` if ``output`` exists or cannot be written.
    """
    # MkDocs, Jinja2 and their plugins take a third of a second to import.
    from bundler.site.figures import draw  # noqa: PLC0415
    from bundler.site.model import make_model  # noqa: PLC0415
    from bundler.site.pages import NAVIGATION, Pages  # noqa: PLC0415
    from bundler.site.plugin import write_site  # noqa: PLC0415
    from bundler.site.safety import examine  # noqa: PLC0415

    with staged(output) as folder:
        files = _intact(bag, progress)
        signed = _unsealed(bag, files, keys) if keys else None
        model = make_model(files, read_contents(files), report, signed)
        with progress.step("Drawing figures", None):
            figures = draw(model)
        pages = Pages(model, figures)
        total = len(NAVIGATION) + len(model.paged)
        documents = tempfile.TemporaryDirectory()
        with documents, progress.step("Writing pages", total) as step:
            allowed = write_site(pages, Path(documents.name), folder, step.advance)
        _tidy(folder)
        with progress.step("Examining pages", None):
            examine(folder, allowed)
        _write_manifest(folder)
    return total


def _intact(bag: Bag, progress: Progress) -> Files:
    files, results = examine_files(bag, progress)
    if files is None:
        finding = next(finding for result in results for finding in result.findings)
        raise MalformedError(
            finding.code,
            f"{finding.subject}: {finding.message}",
            remedy="A site is made from an intact bundle only; verify-bundle tells everything that is wrong.",
        )
    return files


def _unsealed(bag: Bag, files: Files, keys: tuple[Key, ...]) -> tuple[Statement, Key]:
    if RELEASE_ENVELOPE not in files.sizes:
        raise MalformedError("signature-missing", f"{RELEASE_ENVELOPE} is not in the bundle")
    with bag.open(RELEASE_ENVELOPE) as file:
        envelope = open_envelope(file.read(), name=RELEASE_ENVELOPE)
    return unseal(envelope, keys, name=RELEASE_ENVELOPE)


def _tidy(folder: Path) -> None:
    """Remove what nobody reads in a folder: source maps, a sitemap, the stemmers of other languages."""
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder).parts
        unused = file.suffix == ".map" or file.name == "sitemap.xml" or "lunr" in inside
        if file.is_file() and unused:
            file.unlink()
    for place in sorted(folder.rglob("*"), reverse=True):
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


def _write_manifest(folder: Path) -> None:
    digests = {
        file.relative_to(folder).as_posix(): digest_bytes(file.read_bytes())
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    (folder / MANIFEST).write_bytes(format_manifest(digests))
