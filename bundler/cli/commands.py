"""What the sub-commands do, once their arguments are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler import canonical, codec
from bundler.errors import MalformedError, UsageError
from bundler.manifest import INDEX
from bundler.report import Report
from bundler.signers import generate, load_signer
from bundler.trust import Key, load_keys

if TYPE_CHECKING:
    pass


def run_init(
    folder: Path, output: Path | None, experiment: str | None, sources: tuple[str, ...]
) -> None:
    """``bundler init``."""
    from bundler.config import source_of
    from bundler.starter import write_starter

    target = output or folder / "bundle.yaml"
    todo = write_starter(folder, target, experiment, tuple(map(source_of, sources)))
    click.echo(f"wrote {target}; {todo} places are marked TODO: only a human can fill them")
    click.echo(
        "next: edit it; keep it from git's eyes (echo /bundle.yaml >> .git/info/exclude), or"
    )
    click.echo("commit it before you train; then")
    click.echo(f"  bundler rerun {target} -o REPETITIONS")
    click.echo(f"  build-bundle {target} -o BUNDLE --key KEY.pem")


def run_keygen(output: Path, algorithm: str) -> None:
    """``bundler keygen``."""
    refuse_inside_a_bundle(output, "-o")
    signer = generate(output, algorithm)  # type: ignore[arg-type]  # click checked the choice
    click.echo(f"wrote {output / 'key.pem'} (secret) and {output / 'trust.pem'} (hand it out)")
    click.echo(f"key id {signer.keyid}: publish it where assessors can compare it")


def run_build(  # noqa: PLR0913  # one argument an option
    config: Path,
    output: Path,
    key: Path,
    *,
    as_tar: bool,
    strict: bool,
    previous: Path | None,
    sources: tuple[str, ...],
) -> None:
    """``build-bundle``."""
    from bundler.build import Request, build
    from bundler.cli.console import show_built
    from bundler.cli.progress import Bars
    from bundler.config import load, with_sources

    refuse_inside_a_bundle(output, "-o")
    request = Request(
        config=with_sources(load(config), sources),
        base=config.resolve().parent,
        target=output,
        signer=load_signer(key),
        as_tar=as_tar,
        strict=strict,
        previous=previous,
    )
    with _told_if_whole(output, "the bundle"):
        show_built(build(request, Bars()))


def run_site(bundle: Path, report: Path | None, trust: tuple[Path, ...], output: Path) -> None:
    """``bundler site``."""
    from bundler.cli.progress import Bars
    from bundler.site import render
    from bundler.storage import open_bag

    refuse_inside_a_bundle(output, "-o", bundle)
    seen, keys = _load_report(report), load_trust(trust)
    with _told_if_whole(output, "the site"):
        pages = render(open_bag(bundle), seen, keys, output, Bars())
        click.echo(f"wrote {pages} pages; open {output / 'index.html'}")


@contextmanager
def _told_if_whole(target: Path, what: str) -> Iterator[None]:
    """Whoever stops a command just after ``target`` got its name is told that it is there: a retry would refuse it."""
    before = os.path.lexists(target)
    try:
        yield
    except KeyboardInterrupt:
        if not before and os.path.lexists(target):
            click.echo(f"{what} {target} is complete", err=True)
        raise


def load_trust(paths: tuple[Path, ...]) -> tuple[Key, ...]:
    """The public keys in the files that were given with ``--trust``."""
    keys: list[Key] = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                remedy="--trust takes the provider's public key in PEM form, from outside the bundle.",
            ) from None
        keys += load_keys(data, name=str(path))
    return tuple(keys)


def _load_report(path: Path | None) -> Report | None:
    if path is None:
        return None
    try:
        value = canonical.parse(path.read_bytes(), name=str(path))
        return codec.from_json(Report, value)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except MalformedError as error:
        raise UsageError(
            f"{path} is no report: {error.message}", remedy="Write one with verify-bundle --report."
        ) from None


def refuse_inside_a_bundle(path: Path, option: str, bundle: Path | None = None) -> None:
    """A bundle is the provider's, and one file more breaks it: nothing is written into ``bundle`` or any other."""
    target = Path(os.path.realpath(path))
    named = Path(os.path.realpath(bundle)) if bundle is not None else None
    for place in (target, *target.parents):
        other = place != target and os.path.isfile(place / INDEX)  # noqa: PTH113  # Path's raises where it may not look
        if place == named or other:
            raise UsageError(
                f"{option} {path} would change the bundle {place}",
                remedy="Choose a place beside it, not in it.",
            )
