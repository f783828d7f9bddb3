"""How every figure is drawn: SVG that is the same on every machine of one software version, for light and dark pages.

Text becomes outlines, so a figure needs no font and holds no text of the bundle. matplotlib is imported when the first
figure is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bundler.site.safety import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

# Okabe and Ito (2008), in an order in which neighbours differ in lightness too; yellow is left out as too pale.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v")
ORANGE = "#e69f00"

# Colours that change between light and dark; no other element of a figure uses them.
INK, FAINT, GRID, SHADE, BAND = "#24292f", "#6b7280", "#d8dce2", "#f3d9cf", "#d5ebe1"
_DARK = {
    INK: "#e6e8ee",
    FAINT: "#a3a9b8",
    GRID: "#3d4254",
    SHADE: "#4f2f28",
    BAND: "#1d3b31",
    "#0072b2": "#5aa9e6",
    "#d55e00": "#ff8b3d",
}

MAX_MARKS = 2000
"""Marks beyond which a figure is drawn as pixels: an SVG of more of them is slow to show."""

_STYLE: Any = {
    "svg.hashsalt": "aisdp-bundler",
    "svg.fonttype": "path",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure for light and for dark pages; ``name`` is ours, ``finding`` may hold text of the bundle."""

    name: str
    light: bytes
    dark: bytes
    finding: str


def legend(canvas: Canvas, columns: int) -> None:
    """One legend below all panels, from the first of them and what the others have besides."""
    handles, labels = canvas.axes[0].get_legend_handles_labels()
    for axes in canvas.axes[1:]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    order = sorted(range(len(labels)), key=lambda each: "selected" not in labels[each])
    canvas.legend(
        [handles[each] for each in order],
        [labels[each] for each in order],
        loc="outside lower center",
        ncols=min(columns, 3 if len(labels) > 4 else 4),
    )


def render(
    name: str, size: tuple[float, float], paint: Callable[[Canvas], None], finding: str
) -> Figure:
    """The figure that ``paint`` draws on a canvas of ``size`` (inches), for light and dark pages."""
    import matplotlib as mpl  # noqa: PLC0415  # half a second; only here
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415

    with mpl.rc_context(), warnings.catch_warnings():
        # Not the user's own settings: figures are the same for everybody.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # A letter that the font lacks is drawn as a box; the table beneath has the text.
        warnings.filterwarnings("ignore", message="Glyph")
        canvas = Canvas(figsize=size)
        FigureCanvasSVG(canvas)
        canvas.patch.set_alpha(0)
        paint(canvas)
        for axes in canvas.axes:
            axes.patch.set_alpha(0)
        text = io.StringIO()
        canvas.savefig(
            text,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    light = _bare(text.getvalue())
    dark = re.sub("|".join(_DARK), lambda match: _DARK[match[0]], light)
    return Figure(name=name, light=light.encode(), dark=dark.encode(), finding=finding)


def _bare(svg: str) -> str:
    """``svg`` without its DOCTYPE, which names an address, and without comments, which repeat texts."""
    return re.sub(r"<!--.*?-->\n?", "", svg[svg.index("<svg") :], flags=re.DOTALL)


def short(text: str, length: int = 28) -> str:
    """``text`` for a label: visible, on one line, cut to ``length`` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"
