"""``bundler capture``: the environment written down before a training begins."""

# ruff: noqa: D301 - as in door.py

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import click

_FILE = click.Path(path_type=Path)


@click.command(
    "capture",
    short_help="Write the environment and determinism settings of a training beside it.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        # What follows the command's name is the command's.
        "allow_interspersed_args": False,
    },
)
@click.option(
    "-o",
    "--output",
    type=_FILE,
    default=Path("environment.json"),
    show_default=True,
    help="The file to write; an earlier one is replaced.",
)
@click.option(
    "--python",
    type=_FILE,
    help="Interpreter of the training. Default: COMMAND's own, else the python on PATH.",
)
@click.option(
    "--code",
    type=_FILE,
    default=Path(),
    help="Folder of the training's git repository; default: here.",
)
@click.option("--identify", is_flag=True, help="Record host and user as well.")
@click.option(
    "--record-command", is_flag=True, help="Record COMMAND as well: it may hold secrets and paths."
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def capture(  # noqa: PLR0913  # one argument an option
    output: Path,
    python: Path | None,
    code: Path,
    identify: bool,  # noqa: FBT001  # click gives it by name
    record_command: bool,  # noqa: FBT001
    command: tuple[str, ...],
) -> None:
    """Write the environment and determinism settings of a training to a file, then run COMMAND.

    The interpreter needs no package of ours. COMMAND runs as if typed alone: its input, output, signals
    and exit code are its own. Without COMMAND, only the file is written.

    Settings that a script makes itself, such as torch.use_deterministic_algorithms, are seen only from
    inside it: `from bundler.capture import capture; capture("environment.json", seed=7)`.

    \b
    Examples:
      bundler capture -o environment.json --python .venv/bin/python
      bundler capture -- python train.py --lr 0.1

    \b
    Exit codes, of COMMAND or:
      0  written
      2  the command line is wrong; no such interpreter or COMMAND
      8  the file cannot be written; COMMAND was not started
    """
    from bundler.capture import save
    from bundler.capture.interpreter import collect_from, interpreter_of
    from bundler.cli.commands import refuse_inside_a_bundle
    from bundler.errors import UsageError

    refuse_inside_a_bundle(output, "-o")
    program = shutil.which(command[0]) if command else None
    if command and program is None:
        raise UsageError(f"there is no command {command[0]!r}", remedy="Check its name and PATH.")
    # Not resolved: a virtual environment is known by the path of its interpreter.
    interpreter = (python or interpreter_of(command)).absolute()
    facts = collect_from(
        interpreter,
        folder=str(code),
        identify=identify,
        command=list(command) if command and record_command else None,
        output=str(output),
    )
    save(str(output), facts)
    packages, missing = facts.get("packages"), facts.get("not_recorded")
    counts = [len(each) if isinstance(each, dict) else 0 for each in (packages, missing)]
    # Standard output is the command's.
    click.echo(
        f"wrote {output}: {interpreter}, Python {facts.get('python')}, {counts[0]} packages;"
        f" {counts[1]} facts not recorded",
        err=True,
    )
    if command and program:
        _become(program, command)


def _become(program: str, command: tuple[str, ...]) -> None:
    """Replace this process by ``command``: signals and exit code are then its own."""
    from bundler.errors import UsageError

    sys.stdout.flush()
    sys.stderr.flush()
    for name in ("SIGPIPE", "SIGXFSZ"):
        # Python ignores these, and what is ignored stays so in the command.
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execv(program, command)  # noqa: S606  # no shell
    except OSError as error:
        raise UsageError(
            f"{command[0]!r} cannot be run: {error.strerror}", remedy="Is it a program?"
        ) from None
