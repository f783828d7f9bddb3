"""The pages: their order, the words of our templates, and the rows of the table of all runs.

Markdown in ``site_templates/pages`` holds our text and markers; ``site_templates/slots`` holds one template a marker.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from bundler import resources
from bundler.errors import BundlerError
from bundler.manifest import RELEASE_ENVELOPE
from bundler.report import ScoredMetric, Verdict
from bundler.site.drawing import Figure
from bundler.site.figures import MAX_PANELS
from bundler.site.model import Model, RunView
from bundler.site.reexecution import difference, scored_difference, scored_word
from bundler.site.safety import environment, script_data

NAVIGATION: tuple[tuple[str, str], ...] = (
    ("Overview", "index.md"),
    ("How to read", "how-to-read.md"),
    ("5.1 Development", "development.md"),
    ("5.2 Experiments", "experiments.md"),
    ("5.3 Selection", "selection.md"),
    ("5.4 Reproducibility", "reproducibility.md"),
    ("5.5 Validation gates", "gates.md"),
    ("5.6 Limits and gaps", "limits.md"),
    ("Evidence register", "evidence.md"),
    ("Legal map", "legal-map.md"),
)
"""Title and file of every page in the navigation."""

TOP = 50
"""Runs in the table that needs no JavaScript."""

MAX_REGISTER = 2000
"""Most files in the evidence register; the manifests in the bundle list all of them."""

MAX_PARAMETERS = 8
"""Most parameters in the table of all runs; a page of a run has all of them."""

VERDICTS: Mapping[str, tuple[str, str]] = {
    "BITWISE": ("good", "✓"),
    "CONSISTENT": ("good", "✓"),
    "INCONSISTENT": ("bad", "✗"),
    "INCONCLUSIVE": ("open", "?"),
    "trained": ("good", "✓"),
    "infrastructure": ("open", "!"),
    "met": ("good", "✓"),
    "passed": ("good", "✓"),
    "bitwise": ("good", "✓"),
    "equal": ("good", "✓"),
    "blocked": ("good", "✓"),
    "within margin": ("open", "?"),
    "not equal": ("bad", "✗"),
    "no value": ("open", "?"),
    "did not finish": ("open", "!"),
    "possible": ("good", "✓"),
    "not on this machine": ("open", "!"),
    "not met": ("bad", "✗"),
    "failed": ("bad", "✗"),
    "error": ("bad", "✗"),
    "required": ("bad", "✗"),
    "open": ("bad", "✗"),
    "inconclusive": ("open", "?"),
    "not bitwise": ("open", "?"),
    "differs": ("open", "?"),
    "warning": ("open", "?"),
    "recommended": ("open", "!"),
    "not run": ("none", "-"),
    "skipped": ("none", "-"),
    "no report": ("none", "-"),
    "note": ("none", "i"),
}
"""Verdict word → class of its colour, and its sign. The word is always written out."""

MEANINGS: Mapping[Verdict, str] = {
    "BITWISE": "The declared seed gave the same bits again, and other seeds contradict nothing.",
    "CONSISTENT": "Even with all that chance allows, each judged metric lies within its margin.",
    "INCONSISTENT": "A metric differs by more than its margin, and by more than chance explains.",
    "INCONCLUSIVE": "Neither agreement nor contradiction was shown. It is no accusation and no acquittal.",
}
"""The verdict of a re-run → what it means, for a reader who is no statistician."""

_SLOT = re.compile(r"<!-- slot: ([a-z][a-z-]*) -->")

_KINDS: tuple[tuple[str, str, str | None], ...] = (
    ("data/bundle.json", "index: system, rule, gates, gaps", "index.md"),
    ("data/records.jsonl", "log of all runs, hash-chained", "experiments.md"),
    ("data/spec/", "training specification", "reproducibility.md"),
    ("data/environment/", "list of software versions", "development.md"),
    ("data/datasets/", "data that the training reads", "development.md"),
    ("data/code/", "training code", "development.md"),
    ("data/artefacts/", "artefact of a run", "experiments.md"),
    ("data/runs/", "metric history of a run", "experiments.md"),
    ("signatures/", "signed statement about the tag manifest", "index.md"),
    ("schema/", "JSON Schema of our formats", "how-to-read.md"),
    ("tagmanifest-sha256.txt", "digests of the tag files; its own digest is signed", "index.md"),
    ("manifest-sha256.txt", "digests of all payload files", "how-to-read.md"),
    ("VERIFY.md", "how to check the bundle without our software", "how-to-read.md"),
    ("", "tag file of the bag", None),
)
"""Beginning of a path → what such a file is, and the page that uses it. The first that fits counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRow:
    """A file of the bundle. ``sha256`` is ``None`` for the signature, which no manifest names."""

    path: str
    size: int
    sha256: str | None
    kind: str
    page: str | None
    page_title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the table of all runs. ``kind`` is ``run``, ``text`` or ``number``."""

    label: str
    kind: str


class Pages:
    """Renders the slots of the pages of one site."""

    def __init__(self, model: Model, figures: Mapping[str, Figure]) -> None:
        self.model = model
        self.figures = figures
        self._folder = resources.folder("site_templates")
        filters: dict[str, Callable[..., object]] = {
            "num": num,
            "size": size,
            "duration": duration,
            "verdict": verdict,
            "tone": tone,
            "sentence": sentence,
            "root": root,
        }
        self._environment = environment(
            self._folder / "slots",
            filters,
            {
                "model": model,
                "index": model.contents.index,
                "report": model.report,
                "training": model.contents.training,
                "figures": figures,
                "columns": columns(model),
                "top_rows": rows(model)[:TOP],
                "register": register(model)[:MAX_REGISTER],
                "files_total": len(model.files.sizes),
                "titles": {_html(page): title for title, page in NAVIGATION},
                "legal": legal_map(self._folder / "legal_map.yaml"),
                "gaps_by_point": gaps_by_point(model),
                "meanings": MEANINGS,
                "difference": difference,
                "scored_difference": scored_difference,
                "scored_words": scored_words(model),
                "max_panels": MAX_PANELS,
            },
        )

    def markdown(self, page: str) -> str:
        """Our text of ``page``."""
        return (self._folder / "pages" / page).read_text(encoding="utf-8")

    def run_markdown(self, run: RunView) -> str:
        """Our text of the page of ``run``; the id is a plain name (:data:`bundler.records.RUN_ID`)."""
        title = f'---\ntitle: "Run {run.record.id}"\n---\n\n# Run `{run.record.id}`\n\n'
        return title + self.markdown("run.md")

    def assets(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of every other file that the site needs: styles, scripts, figures, the data of all runs."""
        for file in sorted((self._folder / "assets").iterdir()):
            yield f"assets/site/{file.name}", file.read_bytes()
        for figure in self.figures.values():
            yield f"assets/site/{figure.name}-light.svg", figure.light
            yield f"assets/site/{figure.name}-dark.svg", figure.dark
        table = {
            "columns": [[each.label, each.kind] for each in columns(self.model)],
            "rows": rows(self.model),
        }
        yield "assets/site/runs.js", script_data("aisdpRuns", table).encode()

    def fill(self, html: str, page: str, run: RunView | None = None) -> str:
        """``html`` with every marker replaced by its rendered template; what comes in is not looked at again."""
        up = "../" if "/" in page else ""

        def slot(match: re.Match[str]) -> str:
            try:
                template = self._environment.get_template(f"{match[1]}.html.j2")
            except jinja2.TemplateNotFound:
                raise BundlerError(f"{page}: there is no template for slot {match[1]}") from None
            return template.render(root=up, run=run)

        return _SLOT.sub(slot, html)


def columns(model: Model) -> tuple[Column, ...]:
    """The columns of the table of all runs: what was asked for in the selection and the gates, then what varied."""
    fixed = [("Run", "run"), ("Name", "text"), ("Outcome", "text"), ("Standing", "text")]
    fixed += [("Began", "text"), ("Seconds", "number"), ("Seed", "number")]
    fixed += [(name, "number") for name in model.metrics]
    fixed += [(name, "text") for name in model.parameters[:MAX_PARAMETERS]]
    return tuple(Column(label=label, kind=kind) for label, kind in fixed)


def rows(model: Model) -> list[list[object]]:
    """One row a run, in order of the competition. A cell of kind ``run`` is the id and the file of its page."""
    metrics, parameters = model.metrics, model.parameters[:MAX_PARAMETERS]
    return [
        [
            [run.record.id, run.page],
            run.record.name or "",
            run.outcome,
            run.candidate.standing,
            (run.record.started_at or "").replace("T", " ")[:19],
            None if run.seconds is None else round(run.seconds, 1),
            run.record.seed,
            *(run.record.value(name) for name in metrics),
            *(_text(run.record.parameters.get(name)) for name in parameters),
        ]
        for run in model.runs
    ]


def _html(page: str) -> str:
    return page.replace(".md", ".html")


def _text(value: object) -> str:
    return "" if value is None else str(value)


def register(model: Model) -> list[RegisterRow]:
    """Every file of the bundle; those of single runs last, so that a cut takes none of the others."""
    titles = {page: title for title, page in NAVIGATION}
    found = []
    for path in model.files.sizes:
        kind, page = next((kind, page) for start, kind, page in _KINDS if path.startswith(start))
        found.append(
            RegisterRow(
                path=path,
                size=model.files.sizes[path],
                sha256=None if path == RELEASE_ENVELOPE else model.files.digests[path],
                kind=kind,
                page=page and _html(page),
                page_title=titles.get(page or "", ""),
            )
        )
    found.sort(key=lambda row: (row.path.startswith(("data/runs/", "data/artefacts/")), row.path))
    return found


@cache
def legal_map(file: Path) -> tuple[dict[str, str], ...]:
    """The rows of the legal map: ``point``, ``asks``, ``filled``, ``by``, and ``page`` where there is one."""
    return tuple(yaml.safe_load(file.read_text(encoding="utf-8")))


def gaps_by_point(model: Model) -> dict[str, int]:
    """Number of admitted gaps by point of Annex IV, such as ``2(g)``."""
    points: Counter[str] = Counter()
    for gap in model.contents.index.gaps:
        if gap.point.startswith("Annex IV"):
            points.update(set(re.findall(r"\d(?:\([a-z]\))?", gap.point)))
    return dict(points)


def scored_words(model: Model) -> list[tuple[ScoredMetric, str]]:
    """Each metric of the shipped model with the word for how it came out."""
    scored = model.report.evaluation if model.report else None
    return [
        (each, scored_word(each, model.margins.get(each.metric)))
        for each in (scored.metrics if scored else ())
    ]


def num(value: float | str | None, digits: int = 6) -> str:
    """A number for reading; the bundle's words for the non-finite ones stay as they are."""
    if value is None:
        return "—"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def root(variance: float | None) -> float | None:
    """The standard error that belongs to ``variance``."""
    return None if variance is None else math.sqrt(max(variance, 0.0))


def size(value: int | None) -> str:
    """A number of bytes for reading."""
    if value is None:
        return "—"
    if value < 1000:
        return f"{value} B"
    amount = float(value)
    units = ["GB", "MB", "kB"]
    while (amount := amount / 1000) >= 1000 and len(units) > 1:
        units.pop()
    return f"{amount:.1f} {units[-1]}"


def duration(seconds: float | None) -> str:
    """A length of time for reading."""
    if seconds is None:
        return "—"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def sentence(words: str) -> str:
    """``words`` as a sentence: with a capital letter and a full stop."""
    whole = words[:1].upper() + words[1:]
    return whole if whole[-1:] in {"", ".", "!", "?"} else f"{whole}."


def tone(word: str) -> str:
    """The class of the colour of a verdict."""
    return VERDICTS.get(word, ("none", "-"))[0]


def verdict(word: str) -> Markup:
    """``word`` with its sign; the sign is for the eye only, the word is for everybody."""
    colour, sign = VERDICTS.get(word, ("none", "-"))
    return Markup(
        '<span class="verdict verdict--{}"><span class="verdict__sign" aria-hidden="true">{}</span>'
        "{}</span>"
    ).format(colour, sign, word)
