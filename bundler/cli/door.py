"""The door: what can be asked for, and every way a command can end.

Only argument parsing happens here before a command runs; everything heavy is imported inside it, so that ``--help``
is instant.
"""

# ruff: noqa: D301 - click keeps the lines of a paragraph that begins with the character \b, which r""" would not make.

from __future__ import annotations

import codecs
import io
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click

from bundler import __version__
from bundler.cli.capture import capture
from bundler.cli.logs import log_export, log_template
from bundler.cli.repeat import rerun
from bundler.cli.verifying import verify
from bundler.cli.wheels import capture_wheels
from bundler.errors import BundlerError

_FILE = click.Path(path_type=Path)
_FROM = click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="TRACKER:STORE[#EXPERIMENT]",
    help="Where the runs are; several can be given.",
)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="aisdp-bundler")
def cli() -> None:
    """Signed, re-executable evidence of how an AI model was developed and selected.

    \b
    Training:   bundler capture, bundler log-template
    Provider:   bundler init, bundler rerun, bundler capture-wheels,
                bundler keygen, bundler build (= build-bundle)
    Assessor:   bundler verify (= verify-bundle), bundler site, bundler log-export
    """


@cli.command()
@click.argument("folder", type=_FILE, default=".")
@click.option("-o", "--output", type=_FILE, help="Where to write; default FOLDER/bundle.yaml.")
@click.option("--experiment", help="The tracker's experiment, where there are several.")
@_FROM
def init(
    folder: Path, output: Path | None, experiment: str | None, sources: tuple[str, ...]
) -> None:
    """Write a commented bundle.yaml for the training repository FOLDER.

    Everything that can be detected is filled in, and says where it came from. What only a
    human can know is marked TODO.

    \b
    Example:
      cd my-training-repository && bundler init
      bundler init --from wandb:wandb --from experiment-log:baselines.csv
    """
    from bundler.cli.commands import run_init

    run_init(folder, output, experiment, sources)


@cli.command(short_help="Make a key pair to sign bundles with.")
@click.option("-o", "--output", type=_FILE, required=True, help="Folder for key.pem and trust.pem.")
@click.option(
    "--algorithm",
    type=click.Choice(["p256", "ed25519"]),
    default="p256",
    show_default=True,
    help="ECDSA P-256 works with HSMs and KMS; Ed25519 is simpler.",
)
def keygen(output: Path, algorithm: Any) -> None:
    """Make a key pair: key.pem to sign with (keep it secret), trust.pem to hand out.

    \b
    Example:
      bundler keygen -o keys
    """
    from bundler.cli.commands import run_keygen

    run_keygen(output, algorithm)


@cli.command("build", context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="aisdp-bundler")
@click.argument("config", type=_FILE, default="bundle.yaml")
@click.option(
    "-o", "--output", type=_FILE, required=True, help="The bundle to write; must not exist."
)
@click.option("--key", type=_FILE, required=True, help="Private key in PEM form (bundler keygen).")
@click.option(
    "--tar", "as_tar", is_flag=True, help="Write one uncompressed tar file, not a folder."
)
@click.option("--strict", is_flag=True, help="Fail (exit 1) if required evidence is missing.")
@click.option(
    "--previous", type=_FILE, help="The bundle of the release before: its log is continued."
)
@_FROM
def build(config: Path, output: Path, key: Path, **options: Any) -> None:
    """Package the runs that CONFIG names into a signed evidence bundle.

    \b
    Examples:
      build-bundle -o release-1.0.0 --key keys/key.pem
      build-bundle bundle.yaml -o release-1.1.0.tar --tar --strict \\
        --key keys/key.pem --previous release-1.0.0
      build-bundle -o release-1.0.0 --key keys/key.pem \\
        --from mlflow:http://127.0.0.1:5000#scoring --from experiment-log:old.xlsx

    --from stands instead of the section sources of CONFIG.

    \b
    Exit codes:
      0  built
      1  required evidence is missing (--strict)
      2  the command line or bundle.yaml is wrong
      3  the --previous bundle is malformed
      7  a source cannot be read
      8  the bundle cannot be written
    """
    from bundler.cli.commands import run_build

    run_build(config, output, key, **options)


@cli.command("site", short_help="Render BUNDLE as an offline Module 5 site.")
@click.argument("bundle", type=_FILE)
@click.option(
    "--report", type=_FILE, help="Report of verify-bundle, to be shown beside the evidence."
)
@click.option(
    "--trust", type=_FILE, multiple=True, help="Public key of the provider, to check the signature."
)
@click.option(
    "-o", "--output", type=_FILE, required=True, help="Folder for the site; must not exist."
)
def site(bundle: Path, report: Path | None, trust: tuple[Path, ...], output: Path) -> None:
    """Render BUNDLE as an offline Module 5 site; open index.html in any browser.

    \b
    Example:
      bundler site release-1.0.0 --report report.json -o site
    """
    from bundler.cli.commands import run_site

    run_site(bundle, report, trust, output)


for _command in (capture, capture_wheels, log_template, log_export, rerun, verify):
    cli.add_command(_command)

COMMANDS: dict[str, click.Command] = {
    "bundler": cli,
    "build-bundle": build,
    "verify-bundle": verify,
}
ASCII = {"✓": "+", "✗": "x", "→": ">", "…": "...", "—": "-"}
"""Our signs for a terminal or log that cannot show them."""


def run(name: str) -> int:
    """Run the command ``name``; every way it can end is an exit code and, at most, a message. Never a traceback.

    Only ``KeyboardInterrupt`` leaves it, whatever a library made of it.
    """
    stop = _Stop()
    _speak_any_encoding()
    try:
        return _code_of(name, stop)
    except BaseException:
        # A library in the middle of its import may make anything of Ctrl-C.
        if stop.asked:
            raise KeyboardInterrupt from None
        raise


class _Stop:
    """Ctrl-C, and the SIGTERM with which a pipeline stops a job: both clean up and end with 130."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            # A job in the background of a shell ignores Ctrl-C, and goes on doing so.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._ask)
        signal.signal(signal.SIGALRM, self._ask)
        sys.unraisablehook = self._again

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt

    def _again(self, lost: Any) -> None:
        """Python drops what is raised in some call-backs, such as those of an import: ask again a moment later."""
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(lost)


def _speak_any_encoding() -> None:
    """What an output cannot encode is replaced: a verdict must not depend on the locale."""
    codecs.register_error("aisdp-ascii", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="aisdp-ascii")


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    words = (ASCII.get(each) or ascii(each)[1:-1] for each in text)
    return "".join(words), error.end


def _code_of(name: str, stop: _Stop) -> int:
    try:
        code = COMMANDS[name].main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        # What click makes of Ctrl-C.
        raise KeyboardInterrupt from None
    except BundlerError as error:
        _say(error.message, error.remedy)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; there is nobody left to tell.
        sys.stderr.close()
        return 0
    except Exception as error:  # noqa: BLE001  # the door: see ARCHITECTURE.md
        if stop.asked:
            raise KeyboardInterrupt from None
        _say(
            f"internal error: {type(error).__name__}: {error}",
            "This is a fault of this program. Run again with BUNDLER_DEBUG=1 and report what it prints.",
        )
        _raise_in_debug(error)
        return 70
    return code if isinstance(code, int) else 0


def _say(message: str, remedy: str = "") -> None:
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(message, err=True)
    if remedy:
        click.echo(f"  → {remedy}", err=True)


def _raise_in_debug(error: Exception) -> None:
    import os

    if os.environ.get("BUNDLER_DEBUG"):
        raise error
