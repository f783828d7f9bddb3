"""What a person sees of a bundle, a plan and a report: a verdict that fits one screen."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from bundler.build import Built
from bundler.cli.layout import Block, Group, print_lines, remedy, say, shown_text
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
FIRST = ("rerun-inconsistent", "rerun-inconclusive")
"""What decides about a re-run, and says what would settle it: before others as grave."""
TRUST = "use --trust FILE.pem with the provider's public key, from outside the bundle"


def show_built(built: Built) -> None:
    """Say what was built, and what is missing in it."""
    console = Console(highlight=False)
    index = built.index
    lines = "" if index.log.size == built.runs else f" ({_count(index.log.size, 'line')})"
    words = (
        f"{built.path}: {_count(built.runs, 'run')}{lines} in the log,"
        f" {_count(built.files, 'file')}, {built.size / 1e6:.1f} MB"
    )
    say(console, Block("✓ ", words, "green"))
    print_lines(console, [Text(f"bundle sha256:{built.tag_manifest_sha256}")])
    for result in index.gate_results:
        lead = f"gate {SIGNS[result.verdict]} {result.verdict}  "
        words = f"{result.gate}: {result.explanation}"
        say(console, Block(lead, words, STYLES[result.verdict], 2, 4))
    if built.findings:
        say(console, Block("", "A verifier will find:", "", 2, 4))
    for finding in built.findings:
        say(console, *_finding([finding]))
    if not index.gaps:
        say(console, Block("", "no evidence gaps", "", 2, 4))
        return
    where = "it is" if len(index.gaps) == 1 else "they are"
    lead = _count(len(index.gaps), "evidence gap")
    say(console, Block(lead, f" ({where} in the bundle and on the site):", "yellow", 2, 4))
    for gap in index.gaps:
        style = "red" if gap.level == "required" else "yellow"
        words = f"{gap.subject}: {gap.message} ({gap.point})"
        say(console, Block(f"{gap.level} ", words, style, 2, 4), remedy(gap.remedy, 4))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def show_plan(plan: Plan, *, alone: bool = False, policy: bool = False) -> None:
    """Say what will be executed, before it is; on standard error, unless the plan ``alone`` is the output.

    ``policy``: the verifier gave one.
    """
    console = Console(stderr=not alone, highlight=False)
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
    rows += [("metric", _planned(each, policy=policy)) for each in plan.metrics]
    print_lines(console, [Text("Plan of the re-run", style="bold")])
    for name, words in rows:
        say(console, Block(f"  {name.ljust(9)} ", words, "", 0, 12), longest=4)


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


def _planned(each: PlannedMetric, *, policy: bool) -> str:
    runs = _count(each.runs, "declared run")
    if each.margin is None:
        return f"{each.metric}: {runs}; no tolerance is declared, so it cannot be settled"
    margin = f"margin {each.margin:g}"
    if each.declared_margin is not None and each.declared_margin > each.margin:
        by = "capped by the policy" if policy else "default cap; --policy can grant more"
        margin += f" (declared {each.declared_margin:g}; {by})"
    if each.deviation is None:
        return f"{each.metric}: {runs}; {margin}; too few to say how much seeds vary"
    needed = "more than 40" if each.needed is None else str(each.needed)
    words = f"{needed} own {'seed' if needed == '1' else 'seeds'} for a chance of 90 % to settle it"
    return f"{each.metric}: {runs}, deviation up to {each.deviation:.3g}; {margin}; {words}"


def show_report(report: Report, written: str = "") -> None:
    """Print the verdict, in one screen: what failed, the ladder with a line a claim, and why rungs were not tried.

    ``written`` is where the whole report will be.
    """
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
    if findings and _decides(findings[0]):
        # Whole, if it leaves others their place.
        whole = _height(console, findings[:1], LONGEST) - _height(console, findings[:1], 2)
        longest, fitting = _fit(console, findings, reasons, room - min(whole, room // 3))
    else:
        longest, fitting = _fit(console, findings, reasons, room)
    dropped = len(findings) - fitting
    room -= bool(dropped) + _height(console, reasons, longest)

    print_lines(console, head)
    for group, most in _widened(console, findings[:fitting], longest, room):
        say(console, *group, longest=most)
    if dropped:
        where = f"{written} has them all" if written else "--report FILE writes them all"
        more = _count(dropped, "more kind")
        say(console, Block("", f"… and {more} of findings; {where}", ""))
    print_lines(console, ladder)
    for group in reasons:
        say(console, *group, longest=longest)
    print_lines(console, foot)


def _fit(
    console: Console, findings: list[Group], reasons: list[Group], room: int
) -> tuple[int, int]:
    """How many lines each block may take, and how many findings are then shown, to fill ``room`` lines at most."""
    for longest in range(LONGEST, 1, -1):
        if _height(console, findings + reasons, longest) <= room:
            return longest, len(findings)
    for fitting in range(len(findings) - 1, 1, -1):
        if _height(console, findings[:fitting] + reasons, 2) + 1 <= room:
            return 2, fitting
    return 2, min(len(findings), 1)


def _height(console: Console, groups: list[Group], longest: int) -> int:
    return sum(len(block.lines(console, longest)) for group in groups for block in group)


def _widened(
    console: Console, findings: list[Group], longest: int, room: int
) -> Iterator[tuple[Group, int]]:
    """Each finding with the lines that its blocks may take: the first ones get what is left of ``room``."""
    left = room - _height(console, findings, longest)
    for group in findings:
        least = _height(console, [group], longest)
        wider = range(LONGEST, longest, -1)
        most = next((n for n in wider if _height(console, [group], n) - least <= left), longest)
        left -= _height(console, [group], most) - least
        yield group, most


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


def _findings(report: Report) -> list[Group]:
    """Errors before warnings, what decides first; of each code the first finding, and how many more there are."""
    groups: dict[str, list[Finding]] = {}
    claims: dict[str, str] = {}
    for result in report.checks:
        for finding in result.findings:
            if finding.severity != "note":
                groups.setdefault(finding.code, []).append(finding)
                claims[finding.code] = result.claim

    def rank(group: list[Finding]) -> tuple[bool, bool]:
        return group[0].severity == "warning", group[0].code not in FIRST

    ordered = sorted(groups.values(), key=rank)
    return [_finding(group, claims[group[0].code]) for group in ordered]


def _decides(group: Group) -> bool:
    return any(f" {code}" in group[0].lead for code in FIRST)


def _finding(group: list[Finding], claim: str = "") -> Group:
    first = group[0]
    style, sign = ("red", "✗") if first.severity == "error" else ("yellow", "?")
    times = f", {len(group)} times" if len(group) > 1 else ""
    lead = f"{sign} {first.code}{times}{f' ({claim})' if claim else ''}  "
    blocks = [Block(lead, f"{first.subject}: {first.message}", style)]
    return [*blocks, remedy(first.remedy)] if first.remedy else blocks


def _reasons(report: Report, cut: set[ClaimName]) -> list[Group]:
    """Why checks that were asked for did not run, where the ladder does not say all of it."""
    claims: dict[str, dict[ClaimName, None]] = {}
    for result in report.checks:
        if result.outcome == "skipped" and not result.detail.startswith("not asked for"):
            claims.setdefault(result.detail, {})[result.claim] = None
    groups = []
    for detail, names in claims.items():
        words, _, advice = detail.partition("\n")
        if not report.trusted_keys and report.claim("integrity").status != "not met":
            words, advice = words.removesuffix("; use --trust"), TRUST
        if advice or any(words in report.claim(name).summary for name in cut & names.keys()):
            lead = f"{' and '.join(names)}: " if len(names) < 3 else ""
            blocks = [Block("- ", lead + words, "yellow")]
            groups.append([*blocks, remedy(advice)] if advice else blocks)
    return groups


def _foot(report: Report) -> list[Block]:
    blocks = []
    for rerun in report.reruns:
        equal = sum(tensor.equal for tensor in rerun.tensors)
        same = sum(metric.points_differing == 0 for metric in rerun.metrics)
        words = (
            f"re-run: {rerun.verdict}, seed {rerun.seed}, {rerun.seconds:.1f} s, isolation"
            f" {rerun.isolation.get('kind')}; {equal}/{len(rerun.tensors)} tensors and"
            f" {same}/{len(rerun.metrics)} metric histories equal"
        )
        blocks.append(Block("", words, ""))
    if report.evaluation is not None:
        scored = report.evaluation.metrics
        words = f"shipped model scored on the shipped hold-out: {_count(len(scored), 'metric')}"
        blocks.append(Block("", words, ""))
    if report.judgement is not None:
        verdict, words = report.judgement.verdict, report.judgement.explanation
        blocks.append(Block(verdict, f": {words}", VERDICTS[verdict]))
    return [*blocks, _ending(report)]


def _ending(report: Report) -> Block:
    """The exit code in words."""
    missing = any(finding.code == "bundle-missing" for finding in report.findings())
    style, word, words = {
        0: ("bold green", "verified", "every claim examined is met"),
        1: ("bold red", "not verified", "a claim is not met"),
        3: (
            "bold red",
            "not verified",
            "there is no such file or folder"
            if missing
            else "the bundle is malformed, changed, or not signed by a trusted key",
        ),
        4: (
            "bold yellow",
            "not settled",
            "the environment of the training cannot be recreated here",
        ),
        5: ("bold yellow", "not settled", "nothing was executed; why is said above"),
        6: ("bold yellow", "inconclusive", "not all could be settled"),
    }[report.exit_code]
    end = f" (exit {report.exit_code}): {words}. Evidence, not conformity."
    return Block(word, end, style)
