"""Pictures as SVG whose colors are CSS variables, so that one page is light or dark as its reader's screen is.

Drawn by matplotlib: the plotting library of the field, without a server or a script in the page.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mltool import extras

Array = np.ndarray[Any, Any]

_VARIABLES = {
    "#010101": "--text",
    "#010102": "--faint",
    "#010103": "--first",
    "#010104": "--second",
    "#010105": "--third",
}
"""Colors that nobody would choose, and the variables that take their place."""

TEXT, FAINT, FIRST, SECOND, THIRD = _VARIABLES

_STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be found, read aloud, and takes the page's font
    "text.parse_math": False,  # a name of a class may hold dollars
    "svg.hashsalt": "mltool",  # the same picture is the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": TEXT,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.alpha": 0.4,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    figure = extras.require("matplotlib.figure").Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns)


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Of matplotlib's own font, which is not the one that the text is shown in.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Who drew it, and addresses of vocabularies: nothing that a reader sees.
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    # As wide as there is room for; and no name of a font, of which the page has its own.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", text)
    return re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)


def _styled(draw: Any) -> str:
    with extras.require("matplotlib").rc_context(_STYLE):
        return _svg(draw())


def curves(epochs: Sequence[int], training: Sequence[float], validation: Sequence[float], kept: int | None) -> str:
    """A metric over the epochs, training and validation, with the kept epoch marked."""

    def draw() -> Any:
        figure, axes = _figure(5.2, 2.8)
        marker = "o" if len(epochs) < 3 else None
        axes.plot(epochs, training, color=FIRST, label="training", marker=marker)
        axes.plot(epochs, validation, color=SECOND, label="validation", marker=marker)
        if kept is not None:
            axes.axvline(kept, color=THIRD, linestyle=":", label=f"kept: epoch {kept}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best", fontsize=9)
        return figure

    return _styled(draw)


MOST_LABELS = 40
"""Classes whose names a matrix has room for."""


def confusion(counts: Array, labels: Sequence[str]) -> str:
    """A confusion matrix: rows the truth, columns the answers, the share of each row as the depth of the color."""

    def draw() -> Any:
        size = min(1.6 + 0.45 * len(labels), 9.0)
        figure, axes = _figure(size + 0.6, size)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for row in range(len(labels)):
            for column in range(len(labels)):
                if counts[row, column]:
                    color = FIRST if row == column else SECOND
                    axes.add_patch(_cell(column, row, color, float(shares[row, column])))
                    if len(labels) <= 20:
                        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(visible=False)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        if len(labels) <= MOST_LABELS:
            short = [label if len(label) <= 18 else f"{label[:17]}…" for label in labels]
            axes.set_xticks(range(len(labels)), short, rotation=60 if max(map(len, short)) > 3 else 0, fontsize=8)
            axes.set_yticks(range(len(labels)), short, fontsize=8)
        return figure

    return _styled(draw)


def _cell(column: int, row: int, color: str, share: float) -> Any:
    rectangle = extras.require("matplotlib.patches").Rectangle
    return rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=color, alpha=0.12 + 0.68 * share, linewidth=0)


def scatter(truth: Array, answers: Array, unit: str) -> str:
    """Answers of a regression over the truth; at most 2,000 of them, evenly taken."""

    def draw() -> Any:
        figure, axes = _figure(5.2, 4.2)
        step = max(1, len(truth) // 2000)
        axes.scatter(truth[::step], answers[::step], s=6, color=FIRST, alpha=0.35, linewidths=0)
        ends = [float(truth.min()), float(truth.max())]
        axes.plot(ends, ends, color=THIRD, linestyle=":")
        axes.set_xlabel(f"truth: {unit}")
        axes.set_ylabel("answer")
        return figure

    return _styled(draw)


def bars(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Samples of every class, by split."""

    def draw() -> Any:
        labels = list(next(iter(counts.values())))
        figure, axes = _figure(5.6, min(1.2 + 0.28 * len(labels), 12.0))
        left = np.zeros(len(labels))
        for (split, values), color in zip(counts.items(), (FIRST, SECOND, THIRD), strict=False):
            numbers = np.asarray([values[label] for label in labels], float)
            axes.barh(range(len(labels)), numbers, left=left, color=color, label=split, alpha=0.8)
            left += numbers
        short = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
        axes.set_yticks(range(len(labels)), short, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("samples")
        axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=8
        )  # above: the bars fill all of the room
        return figure

    return _styled(draw)


def line(values: Array) -> str:
    """One sample of a series or a sound, small."""

    def draw() -> Any:
        figure, axes = _figure(2.2, 1.1)
        axes.plot(values.reshape(len(values), -1)[:: max(1, len(values) // 400)], color=FIRST, linewidth=0.8)
        axes.set_axis_off()
        return figure

    return _styled(draw)
