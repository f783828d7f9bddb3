"""``bundler rerun``: the provider's own repetitions of the selected training."""

# ruff: noqa: D301 - click keeps the lines of a paragraph that begins with the character \b, which r""" would not make.

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bundler.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bundler.repeat import Conclusion, Plan
    from bundler.repeat_runs import Attempt

_FILE = click.Path(path_type=Path)


@click.command(
    "rerun",
    short_help="Repeat the selected training with other seeds.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("config", type=_FILE, default="bundle.yaml")
@click.option(
    "-o", "--output", type=_FILE, required=True, help="Folder for the runs; finished ones are kept."
)
@click.option("--seeds", metavar="N,N,…", help="The seeds to run, instead of the next free ones.")
@click.option(
    "--runs",
    type=click.IntRange(2, 1000),
    help="Independent runs there shall be, those of the log included.  [default: 5]",
)
@click.option(
    "--python", type=_FILE, default=Path(sys.executable), help="Interpreter of the training."
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Runs at once. More than the machine has cores or memory for makes all of them slower.",
)
def rerun(  # noqa: PLR0913  # one argument an option
    config: Path, output: Path, seeds: str | None, runs: int | None, python: Path, parallel: int
) -> int:
    """Repeat the training of the selected run with other seeds, in your own environment.

    The command is that of bundle.yaml, run in the code folder; {out} is a folder of OUTPUT. A run
    that fails is kept and does not stop the others. Called again, it runs what is not finished.

    \b
    Examples:
      bundler rerun -o repetitions
      bundler rerun -o repetitions --seeds 1,2,3 --python .venv/bin/python

    \b
    Exit codes:
      0  every run finished and counts as a repetition
      1  a run failed, or does not count
      2  the command line or bundle.yaml is wrong
      7  a source cannot be read
      8  the output folder cannot be written
    """
    from bundler.cli.commands import refuse_inside_a_bundle
    from bundler.cli.progress import Bars
    from bundler.config import load, with_sources
    from bundler.repeat import RECOMMENDED, Request, conclude, plan, repeated

    if seeds is not None and runs is not None:
        raise UsageError("--seeds and --runs say two things", remedy="Give one of them.")
    refuse_inside_a_bundle(output, "-o")
    request = Request(
        config=with_sources(load(config), ()),
        base=config.resolve().parent,
        name=config.resolve().name,
        output=output,
        # Not resolved: a virtual environment is known by the path of its interpreter.
        python=python.absolute(),
        seeds=_numbers(seeds),
        runs=runs or RECOMMENDED,
    )
    bars = Bars()
    planned = plan(request, bars)
    for words in planned.warnings:
        click.secho("warning: ", fg="yellow", err=True, nl=False)
        click.echo(words, err=True)
    if not planned.trainings:
        click.echo(
            f"the log has {planned.before} independent runs of this configuration already;"
            " --runs or --seeds asks for more"
        )
        return 0
    begun = repeated(planned)
    _announce(planned, len(begun.finished))
    with _watching() as watch:
        attempts = begun.run(watch, parallel)
    conclusion = conclude(planned, attempts, bars)
    _show(planned, conclusion)
    return 1 if conclusion.problems else 0


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        found = tuple(int(each) for each in text.split(",")) if text is not None else ()
    except ValueError:
        found = (-1,)
    if any(not 0 <= each < 1 << 32 for each in found) or len({*found}) != len(found):
        raise UsageError(
            f"--seeds {text!r} is no list of seeds",
            remedy="Different numbers from 0 to 4294967295, such as 1,2,3.",
        )
    return found


def _announce(planned: Plan, finished: int) -> None:
    seeds = ", ".join(str(each.seed) for each in planned.trainings)
    done = f", {finished} of them finished already" if finished else ""
    seconds = planned.selected.seconds
    long = f"; run {planned.selected.id} took {seconds:.0f} s" if seconds is not None else ""
    click.echo(f"repeating run {planned.selected.id} with seed {seeds}{done}{long}", err=True)


def _show(planned: Plan, conclusion: Conclusion) -> None:
    import yaml

    from bundler import codec
    from bundler.cli.console import SIGNS
    from bundler.cli.layout import shown_text
    from bundler.repeat import LEAST

    for words in conclusion.problems:
        click.secho("failed: ", fg="red", nl=False)
        click.echo(shown_text(words))
    click.echo(f"independent runs: {conclusion.runs} ({planned.before} before)")
    if conclusion.runs < LEAST:
        click.echo(f"fewer than {LEAST} give no interval that says anything")
    for each in conclusion.intervals:
        half = "" if each.half is None else f" ± {each.half:.4g} (95 % interval)"
        click.echo(f"  {shown_text(each.metric)}: {each.mean:.6g}{half}, {each.runs} runs")
    for result in conclusion.gates:
        words = (
            f"gate {SIGNS[result.verdict]} {result.verdict}  {result.gate}: {result.explanation}"
        )
        click.echo(f"  {shown_text(words)}")
    if not conclusion.sources:
        return
    click.echo("\nAdd to the section sources of bundle.yaml, and build:\n")
    entries = [
        {key: value for key, value in codec.to_json(each).items() if value}
        for each in conclusion.sources
    ]
    text = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    click.echo("".join(f"  {line}\n" for line in text.splitlines()), nl=False)


@contextmanager
def _watching() -> Iterator[_Lines | _Live]:
    """One line a run with what it printed last; without a terminal, a line when it begins and when it ends."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Live(progress)


class _Lines:
    """Plain lines."""

    def begun(self, seed: int) -> None:
        click.echo(f"seed {seed} …", err=True)

    def said(self, seed: int, line: str) -> None:
        pass

    def ended(self, attempt: Attempt) -> None:
        click.echo(f"seed {attempt.seed}: {_how(attempt)}", err=True)


class _Live:
    """A line of a terminal for each run."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}

    def begun(self, seed: int) -> None:
        self._tasks[seed] = self._progress.add_task(f"seed {seed}", total=None)

    def said(self, seed: int, line: str) -> None:
        from rich.markup import escape

        words = escape(f"seed {seed}  {line[:100]}")
        self._progress.update(self._tasks[seed], description=words)

    def ended(self, attempt: Attempt) -> None:
        from rich.markup import escape

        self._progress.remove_task(self._tasks[attempt.seed])
        self._progress.console.print(escape(f"seed {attempt.seed}: {_how(attempt)}"))


def _how(attempt: Attempt) -> str:
    return attempt.problem or f"finished in {attempt.seconds:.1f} s"
