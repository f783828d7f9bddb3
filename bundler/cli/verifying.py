"""``verify-bundle``: what an assessor can ask for. Only arguments are read here; :mod:`.verification` does the work."""

# ruff: noqa: D301 - click keeps the lines of a paragraph that begins with the character \\b, which r""" would not make.

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bundler import __version__

_FILE = click.Path(path_type=Path)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Size(click.ParamType[Any]):
    """A number of bytes, such as ``8G`` (2³⁰) or ``500M`` (2²⁰)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read ``value``."""
        if isinstance(value, int):
            return value
        digits, unit = value[:-1], value[-1:].upper()
        if unit.isdigit():
            digits, unit = value, "B"
        powers = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
        if not digits.isdigit() or unit not in powers or not int(digits):
            self.fail(f"{value!r} is not a size such as 8G or 500M", param, ctx)
        return int(digits) << powers[unit]


MOST = 2**32 - 1
"""The largest seed that numpy takes; torch and random take larger ones."""


class Seeds(click.ParamType[Any]):
    """Seeds with commas between."""

    name = "seeds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Read ``value``."""
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if not all(word.strip().isascii() and word.strip().isdigit() for word in words):
            self.fail(f"{value!r} is not a list of seeds such as 11,12,13", param, ctx)
        seeds = tuple(int(word) for word in words)
        if max(seeds) > MOST:
            self.fail(f"a seed is larger than {MOST}, which no framework takes", param, ctx)
        if len({*seeds}) != len(seeds):
            self.fail("a seed stands twice; the same seed again shows nothing new", param, ctx)
        return seeds


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_WHAT = _options(
    click.option("--rerun", is_flag=True, help="Re-run the training in a sandbox and judge."),
    click.option("--plan", is_flag=True, help="Show what --rerun would do, and stop there."),
    click.option(
        "--evaluate/--no-evaluate",
        default=None,
        help="Score the shipped model on the shipped hold-out; on with --rerun.",
    ),
    click.option(
        "--blind", is_flag=True, help="Commit to own results before declared values are opened."
    ),
    click.option(
        "--runs",
        type=click.IntRange(min=0, max=1000),
        help="Most trainings with random own seeds; default: the policy's last look, 8.",
    ),
    click.option(
        "--seeds", type=Seeds(), default=(), help="Own seeds, such as 11,12,13, instead of --runs."
    ),
    click.option("--policy", type=_FILE, help="What you accept: margins, error rates, isolation."),
)
_SOFTWARE = _options(
    click.option(
        "--environment",
        type=click.Choice(["current", "locked", "image"]),
        default="current",
        show_default=True,
        help="Software: --python's as it is, recreated from the lock, or a container image.",
    ),
    click.option(
        "--python", type=_FILE, default=Path(sys.executable), help="Interpreter for the re-run."
    ),
    click.option(
        "--wheelhouse", type=_FILE, help="Folder with the wheels for --environment locked."
    ),
    click.option("--image", type=_FILE, help="OCI layout or archive for --environment image."),
    click.option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        show_default=True,
        help="'cuda' opens the GPU driver to the code.",
    ),
)
_WHERE = _options(
    click.option(
        "--sandbox",
        type=click.Choice(["auto", "bubblewrap", "sandlock", "none"]),
        default="auto",
        show_default=True,
        help="'none' needs --i-trust-this-code and is written into the verdict.",
    ),
    click.option("--i-trust-this-code", is_flag=True, help="Allow --sandbox none."),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray", "slurm"]),
        default="local",
        show_default=True,
        help="Where trainings run.",
    ),
    click.option("--ray-address", help="HOST:PORT of the Ray cluster."),
    click.option("--slurm-folder", type=_FILE, help="Folder that the nodes of the cluster share."),
    click.option("--slurm-partition", help="Partition of the SLURM cluster."),
    click.option(
        "--parallel", type=click.IntRange(min=1), help="Most at once; default: as many as fit."
    ),
    click.option(
        "--time-limit", type=click.FloatRange(min=1), help="Seconds for one training; default 6 h."
    ),
    click.option("--memory-limit", type=Size(), help="Memory of one training; default 8G."),
    click.option("--disk-limit", type=Size(), help="Output of one training; default 4G."),
    click.option(
        "--state", type=_FILE, help="Folder for results until all is done, to go on after a stop."
    ),
)


@click.command(
    "verify",
    short_help="Verify BUNDLE, trusting nobody but the keys given.",
    context_settings=_CONTEXT,
)
@click.version_option(__version__, prog_name="aisdp-bundler")
@click.argument("bundle", type=_FILE)
@click.option(
    "--trust",
    type=_FILE,
    multiple=True,
    help="Public key of the provider, from outside the bundle.",
)
@click.option("--report", type=_FILE, help="Write the whole report as JSON.")
@click.option(
    "--key", type=_FILE, help="Your own private key: signs the verdict (SLSA VSA beside BUNDLE)."
)
@click.option(
    "--previous", type=_FILE, help="The release before: its log must be the beginning of this one."
)
@_WHAT
@_SOFTWARE
@_WHERE
@click.option(
    "--keep", type=_FILE, help="Keep inputs, outputs and logs of all runs in this new folder."
)
def verify(**options: Any) -> int:
    """Verify BUNDLE (a folder or a tar file), trusting nobody but the keys given.

    \b
    Examples:
      verify-bundle release-1.0.0 --trust provider.pem
      verify-bundle release-1.0.0 --trust provider.pem --plan
      verify-bundle release-1.0.0 --trust provider.pem --rerun \\
        --policy policy.yaml --report report.json --key my-key.pem
      verify-bundle release-1.0.0 --trust provider.pem --rerun \\
        --environment locked --wheelhouse wheels
      verify-bundle release-1.0.0 --trust provider.pem --rerun \\
        --engine ray --ray-address 10.0.0.5:6379 --runs 20

    --rerun repeats the declared seed (same bits?) and seeds of your own (same results within
    the declared margins?): see docs/verdict.md for the rule and its error rates.

    \b
    Exit codes:
      0  verified
      1  a claim is not met
      2  the command line or a key file is wrong
      3  bad signature or malformed bundle
      4  environment not recreatable
      5  nothing can be executed here: no sandbox, or no GPU
      6  inconclusive
      8  the report cannot be written
    """
    from bundler.cli.verification import VerifyOptions, run_verify

    return run_verify(VerifyOptions(**options))
