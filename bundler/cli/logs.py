"""The commands about experiment logs: an empty one to fill in by hand, and that of a bundle."""

# ruff: noqa: D301 - click keeps the lines of a paragraph that begins with the character \b, which r""" would not make.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bundler.errors import UsageError

if TYPE_CHECKING:
    from bundler.importers.experiment_log.columns import ValueType

_FILE = click.Path(path_type=Path)
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.command(
    "log-template",
    short_help="Write an empty experiment log to fill in.",
    context_settings=_CONTEXT,
)
@click.option(
    "-o", "--output", type=_FILE, required=True, help="A .csv or .xlsx file; must not exist."
)
@click.option(
    "--config", type=_FILE, help="A bundle.yaml, whose parameters and metrics get columns."
)
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME:TYPE",
    help="A hyperparameter; TYPE is text, integer, number or boolean.",
)
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="An evaluation metric.")
def log_template(
    output: Path, config: Path | None, parameters: tuple[str, ...], metrics: tuple[str, ...]
) -> None:
    """Write an empty experiment log, for experiments that no tracker records.

    One row an experiment. The titles say of what type each column is, so bundle.yaml needs no
    more than `tracker: experiment-log` and `store: FILE`.

    \b
    Examples:
      bundler log-template -o experiments.xlsx --config bundle.yaml
      bundler log-template -o experiments.csv --parameter lr:number --metric val_auc
    """
    from bundler.config import load
    from bundler.experiment_log import Wanted, wanted_by, write_template
    from bundler.importers.experiment_log.titles import metric_title

    wanted = wanted_by(load(config)) if config else Wanted(parameters={}, metrics={})
    typed = dict(map(_typed, parameters))
    for name in metrics:
        _refuse_unreadable(f"--metric {name!r}", name, metric_title(name))
    new = {name: None for name in metrics if name not in wanted.metrics}
    whole = Wanted(parameters={**wanted.parameters, **typed}, metrics={**wanted.metrics, **new})
    write_template(output, whole)
    click.echo(f"wrote {output}; the row #example shows how, and is left out when it is read")


@click.command(
    "log-export",
    short_help="Write the experiment log of BUNDLE as a spreadsheet.",
    context_settings=_CONTEXT,
)
@click.argument("bundle", type=_FILE)
@click.option(
    "-o", "--output", type=_FILE, required=True, help="A .csv or .xlsx file; must not exist."
)
@click.option(
    "--trust", type=_FILE, multiple=True, help="Public key of the provider, to check the signature."
)
def log_export(bundle: Path, output: Path, trust: tuple[Path, ...]) -> None:
    """Write the experiment log of BUNDLE, one row a run, failed and deleted ones included.

    \b
    Example:
      bundler log-export release-1.0.0 -o log.xlsx --trust provider.pem
    """
    from bundler.cli.commands import load_trust, refuse_inside_a_bundle
    from bundler.experiment_log import export
    from bundler.storage import open_bag

    refuse_inside_a_bundle(output, "-o", bundle)
    runs = export(open_bag(bundle), load_trust(trust), output)
    signature = "its signature is good" if trust else "its signature was not checked (--trust)"
    click.echo(f"wrote {runs} runs to {output}; the bundle is intact, {signature}")


def _typed(text: str) -> tuple[str, ValueType]:
    from bundler.importers.experiment_log.columns import ValueType
    from bundler.importers.experiment_log.titles import TITLE_OF, parameter_title

    name, _, word = text.rpartition(":")
    kind = next((each for each in get_args(ValueType) if each == word and each != "json"), None)
    if not name or kind is None:
        raise UsageError(
            f"--parameter {text!r} is not NAME:TYPE",
            remedy="Such as lr:number; types are text, integer, number, boolean.",
        )
    _refuse_unreadable(f"--parameter {text!r}", name, parameter_title(name, kind))
    if name == "seed":
        raise UsageError(
            f"--parameter {text!r}: the seed has a column of its own, {TITLE_OF['seed']}",
            remedy="Leave it out.",
        )
    return name, kind


def _refuse_unreadable(option: str, name: str, title: str) -> None:
    """Refuse a ``name`` that the importer would not read from ``title`` again."""
    from bundler.importers.experiment_log.titles import ID, from_titles

    read = from_titles([ID, title])
    if (
        name.isprintable()
        and name == name.strip()
        and read is not None
        and [*read.parameters, *read.metrics] == [name]
    ):
        return
    raise UsageError(
        f"{option}: that name cannot be read from the title of a column",
        remedy="A name is not empty, has neither line breaks nor spaces around it, and does not"
        " end in a role such as [validation].",
    )
