"""The figures: what each shows, and the sentence that states its finding for those who do not see it.

:mod:`bundler.site.drawing` makes SVG of them that is the same on every machine of one software version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bundler.records import MetricPoint, moment
from bundler.site.drawing import (
    BAND,
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    MAX_MARKS,
    ORANGE,
    SHADE,
    Figure,
    legend,
    render,
    short,
)
from bundler.site.model import GateView, Model, RunView
from bundler.site.reexecution import ComparedMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MAX_PANELS = 12
"""Most metrics in the figure of the verifier's own seeds, the most urgent first; the table has all of them."""

_URGENCY = ("INCONSISTENT", "INCONCLUSIVE", "CONSISTENT", "BITWISE")


def draw(model: Model) -> dict[str, Figure]:
    """Return the figures that ``model`` has data for, by name."""
    makers: tuple[Callable[[Model], Figure | None], ...] = (
        learning_curves,
        search_over_time,
        trade_off,
        gate_intervals,
        own_seeds,
    )
    made = (make(model) for make in makers)
    return {figure.name: figure for figure in made if figure is not None}


def learning_curves(model: Model) -> Figure | None:
    """The metric histories of the selected run and the short list, one panel a metric."""
    names, runs = model.curves, model.curve_runs
    if not names:
        return None
    histories = [_curves(model.points(run)) for run in runs]

    def paint(canvas: Canvas) -> None:
        for axes, name in zip(_panels(canvas, len(names)), names, strict=True):
            for position in reversed(range(len(runs))):
                steps, values = histories[position].get(name, ([], []))
                axes.plot(
                    steps,
                    values,
                    color=COLOURS[position % len(COLOURS)],
                    linewidth=1.1 if position else 2.2,
                    marker=MARKERS[position % len(MARKERS)],
                    markevery=max(1, len(steps) // 6),
                    markersize=3.5 if position else 5,
                    label=_label(runs[position], selected=position == 0),
                    rasterized=len(steps) > MAX_MARKS,
                )
            axes.set_title(short(name))
            axes.set_xlabel("step")
        legend(canvas, len(runs))

    summary = model.selected.record.metric(names[0])
    last = f"{summary.last} at step {summary.last_step}" if summary else "nothing"
    words = (
        f"Learning curves of {len(runs)} runs: {', '.join(names)}."
        f" The selected run {runs[0].record.id} ends with {names[0]} {last}."
    )
    height = 2.7 * math.ceil(len(names) / 2) + 0.4
    return render("learning-curves", (8.4, height), paint, words)


def search_over_time(model: Model) -> Figure | None:
    """The selection metric of every run against the time at which it began."""
    rule = model.contents.index.selection
    timed = [(run, moment(run.record.started_at)) for run in model.runs]
    points = [
        (run, when, run.candidate.value)
        for run, when in timed
        if when is not None and run.candidate.value is not None
    ]
    if len(points) < 2:
        return None
    first = min(when for _, when, _ in points)
    last = max(when for _, when, _ in points)
    unit, length = _unit_of((last - first).total_seconds())
    rows = [(run, (when - first).total_seconds() / length, value) for run, when, value in points]

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _scatter(axes, model, rows)
        axes.set_xlabel(f"{unit} since the first of these runs began")
        axes.set_ylabel(short(rule.metric))
        legend(canvas, 4)

    best = model.candidates[0] if model.candidates else model.selected
    words = (
        f"{len(rows)} of {len(model.runs)} runs have a value of {rule.metric}; the best candidate is"
        f" {best.record.id} with {_number(best.candidate.value)}."
    )
    return render("search-over-time", (8.4, 3.1), paint, words)


def _unit_of(seconds: float) -> tuple[str, int]:
    """The unit in which a span is read easily, and its length in seconds."""
    if seconds < 4 * 3600:
        return "minutes", 60
    return ("hours", 3600) if seconds < 4 * 86_400 else ("days", 86_400)


def trade_off(model: Model) -> Figure | None:
    """The selection metric against the first constraint, with its limit."""
    rule = model.contents.index.selection
    if not rule.constraints:
        return None
    limit = rule.constraints[0]
    rows = [
        (run, held, run.candidate.value)
        for run in model.runs
        if (held := run.record.value(limit.metric)) is not None and run.candidate.value is not None
    ]
    if not rows:
        return None
    broken = sum(not limit.holds(held) for _, held, _ in rows)

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        _scatter(axes, model, rows)
        axes.axvline(limit.threshold, color=FAINT, linestyle="--", linewidth=1)
        low, high = axes.get_xlim()
        edge = high if limit.comparator == "<=" else low
        axes.axvspan(limit.threshold, edge, color=SHADE, zorder=0, linewidth=0)
        axes.set_xlim(low, high)
        axes.set_xlabel(f"{short(limit.metric)} (allowed {limit.comparator} {limit.threshold:g})")
        axes.set_ylabel(f"{short(rule.metric)} ({rule.direction})")
        legend(canvas, 4)

    words = (
        f"{rule.metric} against {limit.metric} of {len(rows)} runs: {broken} break the limit"
        f" {limit.comparator} {limit.threshold:g}; the selected run {model.selected.record.id} has"
        f" {_number(model.selected.candidate.value)} at"
        f" {_number(model.selected.record.value(limit.metric))}."
    )
    return render("trade-off", (8.4, 3.8), paint, words)


def gate_intervals(model: Model) -> Figure | None:
    """Each gate on its own scale: the runs, their mean, the pessimistic bound, the threshold."""
    shown = [
        (view, view.result, view.result.estimate, view.result.bound)
        for view in model.gates
        if view.result and view.result.estimate is not None and view.result.bound is not None
    ]
    if not shown:
        return None

    def paint(canvas: Canvas) -> None:
        for position, (view, result, estimate, bound) in enumerate(shown):
            axes = canvas.add_subplot(len(shown), 1, position + 1)
            _interval(axes, view, estimate, bound)
            gate = view.gate
            words = f"{short(gate.name)}: {short(gate.metric)} {gate.comparator} {gate.threshold:g}"
            axes.set_title(f"{words} — {result.verdict}")
        legend(canvas, 4)

    verdicts = [f"{view.gate.name} {result.verdict}" for view, result, *_ in shown]
    return render(
        "gates",
        (8.4, 1.0 * len(shown) + 0.5),
        paint,
        "Pessimistic bound against threshold, one row a gate: " + ", ".join(verdicts) + ".",
    )


def _interval(axes: Axes, view: GateView, estimate: float, bound: float) -> None:
    gate = view.gate
    axes.plot([estimate, bound], [0, 0], color=COLOURS[0], linewidth=2.4, label="interval")
    axes.plot(estimate, 0, "o", color=COLOURS[0], markersize=8, label="mean of the runs")
    axes.plot(bound, 0, "|", color=COLOURS[0], markersize=14, markeredgewidth=2.4)
    axes.plot(
        view.values,
        [0.35] * len(view.values),
        "d",
        color=ORANGE,
        markersize=4,
        label="single runs",
        linestyle="none",
    )
    axes.axvline(gate.threshold, color=COLOURS[1], linestyle="--", linewidth=1.6, label="threshold")
    marks = [estimate, bound, gate.threshold, *view.values]
    room = 0.12 * (max(marks) - min(marks) or 1.0)
    low, high = min(marks) - room, max(marks) + room
    outside = low if gate.comparator == ">=" else high
    axes.axvspan(gate.threshold, outside, color=SHADE, zorder=0, linewidth=0)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.6, 0.8)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)


def own_seeds(model: Model) -> Figure | None:
    """Each judged metric on its own scale: the provider's runs, the verifier's, and the declared mean with its margin.

    The bar around the verifier's mean is what chance allows; a metric is consistent where all of it lies in the band.
    """
    judged = [each for each in model.compared if each.scale is not None]
    shown = sorted(judged, key=lambda each: _URGENCY.index(each.result.verdict))[:MAX_PANELS]
    if not shown:
        return None

    def paint(canvas: Canvas) -> None:
        canvas.set_layout_engine("constrained", h_pad=0.09)
        for position, each in enumerate(shown):
            axes = canvas.add_subplot(len(shown), 1, position + 1)
            _two_samples(axes, each)
            axes.set_title(f"{short(each.result.metric, 40)} — {each.result.verdict}")
        legend(canvas, 3)

    verdicts = [each.finding for each in shown]
    return render("own-seeds", (6.6, 1.55 * len(shown) + 0.75), paint, " ".join(verdicts))


def _two_samples(axes: Axes, compared: ComparedMetric) -> None:
    result = compared.result
    low, high = compared.scale or (0.0, 1.0)
    rows = (
        (1.0, result.declared, compared.declared_mean, MARKERS[0], COLOURS[0], "provider's runs"),
        (0.0, result.rerun, compared.rerun_mean, MARKERS[1], COLOURS[1], "verifier's runs"),
    )
    band = compared.band
    if band is not None:
        left, right = max(band[0], low), min(band[1], high)
        axes.axvspan(left, right, color=BAND, zorder=0, linewidth=0, label="within the margin")
    for height, values, mean, marker, colour, name in rows:
        axes.plot(
            values,
            [height] * len(values),
            marker,
            color=colour,
            markersize=6,
            markerfacecolor="none",
            markeredgewidth=1.4,
            label=name,
            linestyle="none",
            rasterized=len(values) > MAX_MARKS,
        )
        if mean is not None:
            label = "mean" if height else None
            axes.plot(mean, height, "|", color=INK, markersize=20, markeredgewidth=2, label=label)
    if compared.chance is not None:
        label = "what chance allows"
        axes.plot(compared.chance, [-0.5, -0.5], color=INK, linewidth=2, label=label)
    axes.set_xlim(low, high)
    axes.set_ylim(-0.85, 1.55)
    axes.set_yticks([1.0, 0.0], ["declared", "re-run"])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def _scatter(axes: Axes, model: Model, rows: Sequence[tuple[RunView, float, float]]) -> None:
    """Runs as marks: candidates, repetitions, all others, and the selected one on top."""
    chosen = model.selected.record.id
    kinds = (
        ("other runs", "x", FAINT),
        ("repetitions", MARKERS[2], COLOURS[2]),
        ("candidates", MARKERS[0], COLOURS[0]),
    )
    groups: dict[str, list[tuple[float, float]]] = {}
    for run, x, y in rows:
        standing = run.candidate.standing
        name = {"candidate": "candidates", "repetition": "repetitions"}.get(standing, "other runs")
        groups.setdefault("selected" if run.record.id == chosen else name, []).append((x, y))
    rasterized = len(rows) > MAX_MARKS
    for name, marker, colour in kinds:
        if name not in groups:
            continue
        xs, ys = _columns(groups[name])
        style: dict[str, Any] = {"linestyle": "none", "markersize": 5.5, "rasterized": rasterized}
        axes.plot(xs, ys, marker, color=colour, label=name, **style)
    xs, ys = _columns(groups.get("selected", []))
    axes.plot(xs, ys, "*", color=COLOURS[1], markersize=15, markeredgecolor=INK, label="selected")


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in pairs], [y for _, y in pairs]


def _curves(points: Sequence[MetricPoint]) -> dict[str, tuple[list[int], list[float]]]:
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for point in points:
        steps, values = curves.setdefault(point.metric, ([], []))
        steps.append(point.step)
        values.append(point.value)
    return curves


def _panels(canvas: Canvas, count: int) -> list[Axes]:
    rows = math.ceil(count / 2)
    return [canvas.add_subplot(rows, min(count, 2), position + 1) for position in range(count)]


def _label(run: RunView, *, selected: bool) -> str:
    """The name of a run for a legend, or the beginning of its id."""
    words = short(run.record.name or run.record.id, 20)
    return f"{words} (selected)" if selected else words


def _number(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4g}"
