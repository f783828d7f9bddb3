"""What a person sees: bars on a terminal, plain lines elsewhere, and a verdict that fits one screen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bundler.build import Built
from bundler.report import Finding, Report
from bundler.storage.model import shown

STYLES = {"met": "green", "not met": "red", "inconclusive": "yellow", "not run": "dim"}
SIGNS = {"met": "✓", "not met": "✗", "inconclusive": "?", "not run": "-"}
MAX_FINDINGS = 4
"""Kinds of findings shown, three lines each; the report has all of them. With the ladder, they fit 24 lines."""


class Bars:
    """Progress on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def step(self, title: str, total: int | None, *, unit: str = "") -> Iterator[_Bar]:
        """Show a bar (a spinner if ``total`` is unknown); without a terminal, one line when it begins."""
        if not self._console.is_terminal:
            sys.stderr.write(f"{title} …\n")
            sys.stderr.flush()
            yield _Bar(None, 0)
            return
        amount = DownloadColumn() if unit == "B" else MofNCompleteColumn()
        columns = (
            (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            if total is None
            else (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            yield _Bar(progress, progress.add_task(escape(title), total=total))


class _Bar:
    def __init__(self, progress: Progress | None, task: int) -> None:
        self._progress = progress
        self._task = task
        self._lock = threading.Lock()

    def advance(self, amount: int = 1) -> None:
        """Some of it is done."""
        if self._progress is not None:
            with self._lock:
                self._progress.advance(self._task, amount)  # type: ignore[arg-type]  # TaskID is an int


def show_built(built: Built) -> None:
    """Say what was built, and what is missing in it."""
    console = Console(highlight=False)
    index = built.index
    console.print(
        f"[green]✓[/] [bold]{escape(str(built.path))}[/]: {index.log.size} runs in the log,"
        f" {built.files} files, {built.size / 1e6:.1f} MB"
    )
    console.print(f"  sha256:{built.tag_manifest_sha256} (tag manifest)", soft_wrap=True)
    for result in index.gate_results:
        style = STYLES[result.verdict]
        words = escape(f"{result.gate}: {result.explanation}")
        console.print(f"  gate [{style}]{SIGNS[result.verdict]} {result.verdict}[/]  {words}")
    if not index.gaps:
        console.print("  no evidence gaps")
        return
    console.print(
        f"  [yellow]{len(index.gaps)} evidence gaps[/] (they are in the bundle and on the site):"
    )
    for gap in index.gaps:
        style = "red" if gap.level == "required" else "yellow"
        console.print(
            f"  [{style}]{gap.level}[/] {escape(f'{gap.subject}: {gap.message} ({gap.point})')}"
        )
        console.print(f"    → {escape(gap.remedy)}", style="dim")


def show_report(report: Report) -> None:
    """Print the verdict: what failed first, then the ladder, in at most one screen."""
    console = Console(highlight=False)
    subject = report.subject
    title = " ".join(filter(None, (subject.system, subject.version))) or subject.name
    signer = (
        f"signed by {subject.signed_by[:16]}…" if subject.signed_by else "signer not established"
    )
    console.print(f"[bold]{escape(shown(title))}[/]  {signer}")
    _show_findings(console, report)
    table = Table.grid(padding=(0, 2))
    for claim in report.claims:
        style = STYLES[claim.status]
        words = escape(_one_line(shown_text(claim.summary), console.width - 32))
        table.add_row(f"[{style}]{SIGNS[claim.status]} {claim.status}[/]", claim.name, words)
    console.print(table)
    for rerun in report.reruns:
        equal = sum(tensor.equal for tensor in rerun.tensors)
        same = sum(metric.points_differing == 0 for metric in rerun.metrics)
        console.print(
            f"  re-run: {rerun.verdict}, seed {rerun.seed}, {rerun.seconds:.1f} s, isolation"
            f" {rerun.isolation.get('kind')}; {equal}/{len(rerun.tensors)} tensors and"
            f" {same}/{len(rerun.metrics)} metric histories equal"
        )
    console.print(_verdict(report))


def _show_findings(console: Console, report: Report) -> None:
    """Errors before warnings; of each code the first finding, and how many more there are."""
    groups: dict[str, list[Finding]] = {}
    claims: dict[str, str] = {}
    for result in report.checks:
        for finding in result.findings:
            if finding.severity != "note":
                groups.setdefault(finding.code, []).append(finding)
                claims[finding.code] = result.claim
    ordered = sorted(groups.values(), key=lambda group: group[0].severity == "warning")
    for group in ordered[:MAX_FINDINGS]:
        _show_finding(console, group, claims[group[0].code])
    if len(ordered) > MAX_FINDINGS:
        more = len(ordered) - MAX_FINDINGS
        console.print(f"  … and findings with {more} more codes; --report FILE writes them all")


def _show_finding(console: Console, group: list[Finding], claim: str) -> None:
    first = group[0]
    style, sign = ("red", "✗") if first.severity == "error" else ("yellow", "?")
    times = f", {len(group)} times" if len(group) > 1 else ""
    words = shown_text(f"{first.subject}: {first.message}")
    head = f"{sign} {first.code}{times} ({claim})  "
    line = _one_line(words, 2 * console.width - len(head) - 8)
    console.print(f"[{style}]{escape(head)}[/]{escape(line)}")
    if first.remedy:
        console.print(
            f"    → {escape(_one_line(shown_text(first.remedy), console.width - 8))}", style="dim"
        )


def _verdict(report: Report) -> str:
    words = {
        0: "[bold green]verified[/]: every claim that was examined is met",
        1: "[bold red]not verified[/]: a claim is not met",
        3: "[bold red]not verified[/]: the bundle is malformed, changed, or not signed by a trusted key",
        4: "[bold yellow]not settled[/]: the environment of the training cannot be recreated here",
        5: "[bold yellow]not settled[/]: no sandbox works here, so nothing was executed",
        6: "[bold yellow]inconclusive[/]: not everything could be settled",
    }
    return f"{words[report.exit_code]} (exit {report.exit_code}). Evidence, not conformity."


def shown_text(text: str) -> str:
    """Text from a bundle for a terminal: printable characters only, so that it cannot steer it."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _one_line(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
