"""``bundler capture-wheels``: the wheels of a training's environment, for verifiers who recreate it."""

# ruff: noqa: D301 - as in door.py

from __future__ import annotations

import sys
from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command(
    "capture-wheels",
    short_help="Collect the wheels of a training's environment, and list them with their hashes.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-o",
    "--output",
    "wheelhouse",
    type=_FILE,
    required=True,
    help="Folder for the wheels (a wheelhouse); many trainings can share one.",
)
@click.option(
    "--python",
    type=_FILE,
    help="Interpreter of the training. Default: the python on PATH.",
)
@click.option("--lock", type=_FILE, help="Only the packages of this lock file, and what they need.")
@click.option(
    "--list", "list_file", type=_FILE, help="The list to write. Default: WHEELHOUSE/wheels.json."
)
@click.option(
    "--listed",
    type=_FILE,
    help="Fetch exactly the wheels of this wheels.json, a bundle's for instance, and write no list.",
)
@click.option(
    "--find-links", type=_FILE, multiple=True, help="A folder that has wheels, too; repeatable."
)
@click.option("--offline", is_flag=True, help="Ask no index: only --find-links, and pip's own.")
@click.option("--skip", multiple=True, metavar="NAME", help="Leave this package out; repeatable.")
def capture_wheels(  # noqa: PLR0913  # one argument an option
    wheelhouse: Path,
    python: Path | None,
    lock: Path | None,
    list_file: Path | None,
    listed: Path | None,
    find_links: tuple[Path, ...],
    offline: bool,  # noqa: FBT001  # click gives it by name
    skip: tuple[str, ...],
) -> None:
    """Collect the wheels of what is installed in a training's environment, at exactly those versions.

    pip fetches them from the indexes that it is configured for; nothing is built or installed. Wheels that are
    there already are not fetched again. The list, wheels.json, goes into the bundle; the wheels do not.

    \b
    Examples:
      bundler capture-wheels -o wheelhouse --python .venv/bin/python \\
        --lock requirements.txt
      bundler capture-wheels -o wheelhouse --find-links own-wheels --offline
      bundler capture-wheels -o wheelhouse \\
        --listed BUNDLE/data/environment/wheels.json

    \b
    Exit codes:
      0  every wheel is there
      2  the command line is wrong; no such interpreter; lock and environment
         do not agree
      7  a wheel could not be had
      8  the wheelhouse cannot be written
    """
    from bundler.capture.interpreter import interpreter_of
    from bundler.cli.commands import refuse_inside_a_bundle
    from bundler.cli.progress import Bars
    from bundler.environments.wheelhouse import Request, fill
    from bundler.errors import UsageError

    if listed is not None and (lock is not None or list_file is not None or skip):
        raise UsageError(
            "--listed says already which wheels to fetch",
            remedy="Leave out --lock, --list and --skip.",
        )
    refuse_inside_a_bundle(wheelhouse, "-o")
    target = list_file or wheelhouse / "wheels.json"
    refuse_inside_a_bundle(target, "--list")
    default = Path(sys.executable) if listed is not None else interpreter_of(())
    request = Request(
        # Not resolved: a virtual environment is known by the path of its interpreter.
        python=(python or default).absolute(),
        wheelhouse=wheelhouse,
        output=target,
        lock=lock,
        listed=listed,
        find_links=find_links,
        offline=offline,
        skip=skip,
    )
    filled = fill(request, Bars())
    size = sum(wheel.size for wheel in filled.listed.wheels) / 1e6
    count = len(filled.listed.wheels)
    click.echo(
        f"wheels in {wheelhouse}: {count} ({size:,.0f} MB), {filled.fetched} of them were fetched now"
    )
    if listed is not None:
        click.echo(
            f"next: verify-bundle BUNDLE --rerun --environment locked --wheelhouse {wheelhouse}"
        )
        return
    click.echo(f"wrote {target}: Python {filled.listed.python}, {filled.listed.platform}")
    click.echo(f"next: in bundle.yaml, under training, write `wheels: {target}`")
