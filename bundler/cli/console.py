"""What a person sees: bars on a terminal, plain lines elsewhere, and a verdict that fits one screen."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bundler.build import Built
from bundler.report import ClaimName, Finding, Plan, PlannedMetric, Report
from bundler.storage.model import shown

STYLES = {"met": "green", "not met": "red", "inconclusive": "yellow", "not run": "dim"}
SIGNS = {"met": "✓", "not met": "✗", "inconclusive": "?", "not run": "-"}
VERDICTS = {
    "BITWISE": "bold green",
    "CONSISTENT": "bold green",
    "INCONSISTENT": "bold red",
    "INCONCLUSIVE": "bold yellow",
}
SCREEN = 24
"""Lines that a verdict takes at most."""
LONGEST = 8
"""Lines of a message or remedy at most, and fewer where there are several; the report has all of it."""
MOST_TAILS = 8
"""Most lines of logs that are shown at once."""
TRUST = "use --trust FILE.pem with the provider's public key, from outside the bundle"


class Bars:
    """Progress on standard error, with the last line of each training's log below it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._tails = Tails()

    def tell(self, words: str) -> None:
        """Say something that is known before the end."""
        self._console.print(Text(shown_text(words), style="yellow"))

    def log(self, seed: int, chunk: bytes) -> None:
        """The training with ``seed`` printed ``chunk``. May be called from any thread."""
        line = self._tails.heard(seed, chunk)
        if line and not self._console.is_terminal:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

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
        with _Watched(self._tails, *columns, console=self._console, transient=True) as progress:
            yield _Bar(progress, progress.add_task(escape(title), total=total))
        self._tails.clear()


class _Watched(Progress):
    """Progress bars, and below them what trainings print."""

    def __init__(self, tails: Tails, *columns: ProgressColumn, **options: Any) -> None:
        self._below = tails
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars, then a line a training."""
        yield from super().get_renderables()
        for line in self._below.lines():
            yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


class Tails:
    """The last line that each training printed; where nobody watches, one line a training now and then."""

    EVERY = 30.0
    """Seconds between two lines of one training in a log."""

    def __init__(self) -> None:
        self._last: dict[int, str] = {}
        self._next: dict[int, float] = {}
        self._lock = threading.Lock()

    def heard(self, seed: int, chunk: bytes) -> str:
        """Note ``chunk``; returns a line that is due in a log, or an empty text."""
        # What untrusted code prints is shown as the characters that it is, never as commands to the terminal.
        lines = chunk.decode("utf-8", "replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not said:
            return ""
        line = f"seed {seed}: {shown_text(said)[:200]}"
        now = time.monotonic()
        with self._lock:
            self._last[seed] = line
            if now < self._next.get(seed, 0.0):
                return ""
            self._next[seed] = now + self.EVERY
        return line

    def lines(self) -> list[str]:
        """The last line of each training, the one that began last at the end; at most a handful."""
        with self._lock:
            return list(self._last.values())[-MOST_TAILS:]

    def clear(self) -> None:
        """A step is over."""
        with self._lock:
            self._last.clear()


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


@dataclass(frozen=True, slots=True)
class _Block:
    """Some words after a coloured lead, wrapped: the first line begins at ``start``, the others at ``hang``."""

    lead: str
    words: str
    style: str
    start: int = 0
    hang: int = 2

    def lines(self, console: Console, longest: int | None = None) -> list[Text]:
        """The lines, ``longest`` at most; what is cut ends with an ellipsis."""
        words = Text(shown_text(self.words), style=self.style if self.style == "dim" else "")
        lead = Text(self.lead, style=self.style)
        beside = self.start + lead.cell_len == self.hang
        text = words if beside else lead + words
        room = max(console.width - self.hang, 10)
        lines = list(text.wrap(console, room, overflow="fold"))
        for line in lines:
            line.rstrip()
        if longest is not None and len(lines) > longest:
            del lines[longest:]
            lines[-1].truncate(room - 2)
            lines[-1].append(" …")
        margin, first = Text(" " * self.hang), Text(" " * self.start)
        return [
            (margin if number else first + lead if beside else first) + line
            for number, line in enumerate(lines)
        ]


_Group = list[_Block]
"""What is wrong, and what to do about it."""


def _say(console: Console, *blocks: _Block, longest: int | None = None) -> None:
    for block in blocks:
        _print(console, block.lines(console, longest))


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _remedy(words: str, start: int = 2) -> _Block:
    return _Block("→ ", words, "dim", start, start + 2)


def show_built(built: Built) -> None:
    """Say what was built, and what is missing in it."""
    console = Console(highlight=False)
    index = built.index
    lines = "" if index.log.size == built.runs else f" ({_count(index.log.size, 'line')})"
    words = (
        f"{built.path}: {_count(built.runs, 'run')}{lines} in the log,"
        f" {_count(built.files, 'file')}, {built.size / 1e6:.1f} MB"
    )
    _say(console, _Block("✓ ", words, "green"))
    _print(console, [Text(f"bundle sha256:{built.tag_manifest_sha256}")])
    for result in index.gate_results:
        lead = f"gate {SIGNS[result.verdict]} {result.verdict}  "
        words = f"{result.gate}: {result.explanation}"
        _say(console, _Block(lead, words, STYLES[result.verdict], 2, 4))
    if built.findings:
        _say(console, _Block("", "A verifier will find:", "", 2, 4))
    for finding in built.findings:
        _say(console, *_finding([finding]))
    if not index.gaps:
        _say(console, _Block("", "no evidence gaps", "", 2, 4))
        return
    where = "it is" if len(index.gaps) == 1 else "they are"
    lead = _count(len(index.gaps), "evidence gap")
    _say(console, _Block(lead, f" ({where} in the bundle and on the site):", "yellow", 2, 4))
    for gap in index.gaps:
        style = "red" if gap.level == "required" else "yellow"
        words = f"{gap.subject}: {gap.message} ({gap.point})"
        _say(console, _Block(f"{gap.level} ", words, style, 2, 4), _remedy(gap.remedy, 4))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def show_plan(plan: Plan) -> None:
    """Say what will be executed, before it is; on standard error, for the report is the output."""
    console = Console(stderr=True, highlight=False)
    seeds = ", ".join(map(str, plan.own_seeds[:8])) + (" …" if len(plan.own_seeds) > 8 else "")
    *first, last = map(str, plan.looks or (0,))
    looks = f"{', '.join(first)} and {last}" if first else last
    own = f"; own seeds {seeds}, judged after {looks}" if plan.own_seeds else "; no own seeds"
    rows = [
        ("will run", " ".join(plan.command)),
        ("seeds", f"declared {plan.declared_seed}{own}"),
        (
            "where",
            f"{plan.engine}, {plan.parallel} at once, on {plan.device}, isolation {plan.isolation}",
        ),
        ("software", plan.environment),
        ("time", _time(plan)),
    ]
    rows += [("metric", _planned(each)) for each in plan.metrics]
    _print(console, [Text("Plan of the re-run", style="bold")])
    for name, words in rows:
        _say(console, _Block(f"  {name.ljust(9)} ", words, "", 0, 12), longest=4)


def _time(plan: Plan) -> str:
    if plan.run_seconds is None or plan.least_seconds is None or plan.most_seconds is None:
        return "unknown: the records do not say how long the training took"
    least, most = _duration(plan.least_seconds), _duration(plan.most_seconds)
    span = least if least == most else f"{least} to {most}"
    return f"about {span}, as recorded: {_duration(plan.run_seconds)} for one run"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _planned(each: PlannedMetric) -> str:
    runs = _count(each.runs, "declared run")
    if each.margin is None:
        return f"{each.metric}: {runs}; no tolerance is declared, so it cannot be settled"
    margin = f"margin {each.margin:g}"
    if each.declared_margin is not None and each.declared_margin > each.margin:
        margin += f" (declared {each.declared_margin:g}, capped by the policy)"
    if each.deviation is None:
        return f"{each.metric}: {runs}; {margin}; too few to say how much seeds vary"
    needed = "more than 40" if each.needed is None else str(each.needed)
    words = f"{needed} own {'seed' if needed == '1' else 'seeds'} for a chance of 90 % to settle it"
    return f"{each.metric}: {runs}, deviation up to {each.deviation:.3g}; {margin}; {words}"


def show_report(report: Report) -> None:
    """Print the verdict, in one screen: what failed, the ladder with a line a claim, and why rungs were not tried."""
    console = Console(highlight=False)
    subject = report.subject
    title = " ".join(filter(None, (subject.system, subject.version))) or subject.name
    head = [Text(shown(title), style="bold")]
    if subject.tag_manifest_sha256:
        head.append(Text(f"bundle sha256:{subject.tag_manifest_sha256}"))
    signer = f"signed by {subject.signed_by}" if subject.signed_by else "signer not established"
    head.append(Text(signer))
    ladder, cut = _ladder(console, report)
    foot = [line for block in _foot(report) for line in block.lines(console)]
    findings = _findings(report)
    reasons = _reasons(report, cut)
    room = SCREEN - len(head) - len(ladder) - len(foot)
    longest, fitting = _fit(console, findings, reasons, room)

    _print(console, head)
    for group in findings[:fitting]:
        _say(console, *group, longest=longest)
    if fitting < len(findings):
        more = _count(len(findings) - fitting, "more kind")
        _say(console, _Block("", f"… and {more} of findings; --report FILE writes them all", ""))
    _print(console, ladder)
    for group in reasons:
        _say(console, *group, longest=longest)
    _print(console, foot)


def _fit(
    console: Console, findings: list[_Group], reasons: list[_Group], room: int
) -> tuple[int, int]:
    """How many lines each block may take, and how many findings are then shown, to fill ``room`` lines at most."""

    def height(groups: list[_Group], longest: int) -> int:
        return sum(len(block.lines(console, longest)) for group in groups for block in group)

    for longest in range(LONGEST, 1, -1):
        if height(findings + reasons, longest) <= room:
            return longest, len(findings)
    for fitting in range(len(findings) - 1, 1, -1):
        if height(findings[:fitting] + reasons, 2) + 1 <= room:
            return 2, fitting
    return 2, min(len(findings), 1)


def _ladder(console: Console, report: Report) -> tuple[list[Text], set[ClaimName]]:
    """A line a claim, and the names of the claims whose summary is cut there."""
    signs = [f"{SIGNS[claim.status]} {claim.status}" for claim in report.claims]
    wide = max(map(len, signs))
    name = max(len(claim.name) for claim in report.claims)
    lines = []
    cut: set[ClaimName] = set()
    for claim, sign in zip(report.claims, signs, strict=True):
        words, _, more = claim.summary.partition("\n")
        summary = Text(shown_text(words))
        room = max(console.width - wide - name - 4, 10)
        if more or summary.cell_len > room:
            cut.add(claim.name)
        summary.truncate(room, overflow="ellipsis")
        lead = Text(sign.ljust(wide), style=STYLES[claim.status])
        lines.append(lead.append(f"  {claim.name.ljust(name)}  ", style="default").append(summary))
    return lines, cut


def _findings(report: Report) -> list[_Group]:
    """Errors before warnings; of each code the first finding, and how many more there are."""
    groups: dict[str, list[Finding]] = {}
    claims: dict[str, str] = {}
    for result in report.checks:
        for finding in result.findings:
            if finding.severity != "note":
                groups.setdefault(finding.code, []).append(finding)
                claims[finding.code] = result.claim
    ordered = sorted(groups.values(), key=lambda group: group[0].severity == "warning")
    return [_finding(group, claims[group[0].code]) for group in ordered]


def _finding(group: list[Finding], claim: str = "") -> _Group:
    first = group[0]
    style, sign = ("red", "✗") if first.severity == "error" else ("yellow", "?")
    times = f", {len(group)} times" if len(group) > 1 else ""
    lead = f"{sign} {first.code}{times}{f' ({claim})' if claim else ''}  "
    blocks = [_Block(lead, f"{first.subject}: {first.message}", style)]
    return [*blocks, _remedy(first.remedy)] if first.remedy else blocks


def _reasons(report: Report, cut: set[ClaimName]) -> list[_Group]:
    """Why checks that were asked for did not run, where the ladder does not say all of it."""
    claims: dict[str, dict[ClaimName, None]] = {}
    for result in report.checks:
        if result.outcome == "skipped" and not result.detail.startswith("not asked for"):
            claims.setdefault(result.detail, {})[result.claim] = None
    groups = []
    for detail, names in claims.items():
        words, _, remedy = detail.partition("\n")
        if not report.trusted_keys and report.claim("integrity").status != "not met":
            words, remedy = words.removesuffix("; use --trust"), TRUST
        if remedy or any(words in report.claim(name).summary for name in cut & names.keys()):
            lead = f"{' and '.join(names)}: " if len(names) < 3 else ""
            blocks = [_Block("- ", lead + words, "yellow")]
            groups.append([*blocks, _remedy(remedy)] if remedy else blocks)
    return groups


def _foot(report: Report) -> list[_Block]:
    blocks = []
    for rerun in report.reruns:
        equal = sum(tensor.equal for tensor in rerun.tensors)
        same = sum(metric.points_differing == 0 for metric in rerun.metrics)
        words = (
            f"re-run: {rerun.verdict}, seed {rerun.seed}, {rerun.seconds:.1f} s, isolation"
            f" {rerun.isolation.get('kind')}; {equal}/{len(rerun.tensors)} tensors and"
            f" {same}/{len(rerun.metrics)} metric histories equal"
        )
        blocks.append(_Block("", words, ""))
    if report.evaluation is not None:
        scored = report.evaluation.metrics
        words = f"shipped model scored on the shipped hold-out: {_count(len(scored), 'metric')}"
        blocks.append(_Block("", words, ""))
    if report.judgement is not None:
        verdict, words = report.judgement.verdict, report.judgement.explanation
        blocks.append(_Block(verdict, f": {words}", VERDICTS[verdict]))
    style, word, words = {
        0: ("bold green", "verified", "every claim examined is met"),
        1: ("bold red", "not verified", "a claim is not met"),
        3: (
            "bold red",
            "not verified",
            "the bundle is malformed, changed, or not signed by a trusted key",
        ),
        4: (
            "bold yellow",
            "not settled",
            "the environment of the training cannot be recreated here",
        ),
        5: ("bold yellow", "not settled", "no sandbox works here, so nothing was executed"),
        6: ("bold yellow", "inconclusive", "not all could be settled"),
    }[report.exit_code]
    end = f" (exit {report.exit_code}): {words}. Evidence, not conformity."
    return [*blocks, _Block(word, end, style)]


def shown_text(text: str) -> str:
    """Text from a bundle for a terminal: printable characters only, so that it cannot steer it."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
