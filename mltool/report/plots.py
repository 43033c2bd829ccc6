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
from mltool.data.scan import DRIFT
from mltool.report.label_places import label_places

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

_THOUSANDS = "{x:,g}"
"""How ticks are written."""

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


WIDTH = 4.2
"""Inches of a picture: at 96 pixels each and four fifths of its size, a telephone's width."""


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
    # As wide as there is room for, while letters are neither too small to read nor larger than those of the page; and
    # no name of a font, of which the page has its own.
    width = figure.get_figwidth() * 96
    room = f"min-width: {0.8 * width:.0f}px; max-width: {1.25 * width:.0f}px"
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 role="img" style="{room}"', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", text)
    return re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", text)


def _styled(draw: Any) -> str:
    with extras.require("matplotlib").rc_context(_STYLE):
        return _svg(draw())


def _legend(axes: Any) -> None:
    """Above the picture, where it covers nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=9, borderaxespad=0.2)


def curves(epochs: Sequence[int], training: Sequence[float], validation: Sequence[float], kept: int | None) -> str:
    """A metric over the epochs, training and validation, with the kept epoch marked."""

    def draw() -> Any:
        figure, axes = _figure(WIDTH, 2.5)
        marker = "o" if len(epochs) < 3 else None
        axes.plot(epochs, training, color=FIRST, label="training", marker=marker)
        axes.plot(epochs, validation, color=SECOND, label="validation", marker=marker)
        if kept is not None:
            axes.axvline(kept, color=THIRD, linestyle=":", label=f"kept: epoch {kept}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        _legend(axes)
        return figure

    return _styled(draw)


def rates(learning_rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], chosen: float) -> str:
    """The loss over rising learning rates, with the one that follows marked."""

    def draw() -> Any:
        figure, axes = _figure(WIDTH, 2.5)
        axes.plot(learning_rates, losses, color=FAINT, alpha=0.5, linewidth=0.8, label="a step")
        axes.plot(learning_rates, smoothed, color=FIRST, label="smoothed")
        axes.axvline(chosen, color=THIRD, linestyle=":", label=f"suggested: {chosen:.2g}")
        axes.set_xscale("log")
        # What diverges would leave nothing to see of what fell.
        low, high = np.nanmin(losses), max(losses[: max(len(losses) // 2, 1)])
        axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter(_THOUSANDS)
        _legend(axes)
        return figure

    return _styled(draw)


MOST_CLASSES = 100
"""Classes of which a picture still says something."""

MOST_LABELS = 40
"""Classes whose names a matrix has room for."""

MOST_NUMBERS = 20
"""Classes whose counts a matrix has room for."""


def confusion(counts: Array, labels: Sequence[str]) -> str:
    """A confusion matrix: rows the truth, columns the answers, the share of each row as the depth of the color."""

    def draw() -> Any:
        short = [_short(label, 18) for label in labels]
        names = 0.07 * max(map(len, short)) if len(labels) <= MOST_LABELS else 0.0
        side = _side_of_cells(counts)
        is_narrow = names > side
        room = len(labels) * side + 0.7
        figure, axes = _figure(room + names, room + (names if is_narrow else 0.0))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        for row in range(len(labels)):
            for column in range(len(labels)):
                if counts[row, column]:
                    color = FIRST if row == column else SECOND
                    axes.add_patch(_cell(column, row, color, float(shares[row, column])))
                    if len(labels) <= MOST_NUMBERS:
                        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=9)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.grid(visible=False)
        axes.set_xlabel("answer")
        axes.set_ylabel("truth")
        if len(labels) <= MOST_LABELS:
            axes.set_xticks(range(len(labels)), short, rotation=60 if is_narrow else 0, fontsize=9)
            axes.set_yticks(range(len(labels)), short, fontsize=9)
        return figure

    return _styled(draw)


def _side_of_cells(counts: Array) -> float:
    """Inches of a cell: room for its number, or for a row's name; all of the picture's width where they are few."""
    if len(counts) > MOST_NUMBERS:
        return max(0.18, 0.18 * MOST_LABELS / len(counts)) if len(counts) <= MOST_LABELS else 7.2 / len(counts)
    return max(0.12 + 0.065 * len(f"{counts.max():,}"), min(0.9, 2.9 / len(counts)))


def _cell(column: int, row: int, color: str, share: float) -> Any:
    rectangle = extras.require("matplotlib.patches").Rectangle
    return rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=color, alpha=0.12 + 0.43 * share, linewidth=0)


def scatter(truth: Array, answers: Array, unit: str) -> str:
    """Answers of a regression over the truth; at most 2,000 of them, evenly taken."""

    def draw() -> Any:
        figure, axes = _figure(WIDTH, 3.6)
        step = max(1, len(truth) // 2000)
        axes.scatter(truth[::step], answers[::step], s=6, color=FIRST, alpha=0.35, linewidths=0)
        ends = [float(truth.min()), float(truth.max())]
        axes.plot(ends, ends, color=THIRD, linestyle=":")
        axes.set_xlabel(f"truth: {unit}")
        axes.set_ylabel("answer")
        axes.xaxis.set_major_locator(extras.require("matplotlib.ticker").MaxNLocator(5))  # long numbers do not meet
        axes.xaxis.set_major_formatter(_THOUSANDS)
        axes.yaxis.set_major_formatter(_THOUSANDS)
        return figure

    return _styled(draw)


def scores(normal: Array, anomalies: Array, threshold: float) -> str:
    """Scores of normal samples and of anomalies, and the threshold between them, on a scale of powers of ten."""

    def draw() -> Any:
        figure, axes = _figure(WIDTH, 2.6)
        both = np.concatenate([normal, anomalies])
        least = max(float(both[both > 0].min(initial=1.0)), 1e-12)
        edges = np.geomspace(least, max(float(both.max()), 2 * least), 40)
        for values, color, label in ((normal, FIRST, "normal"), (anomalies, SECOND, "anomalies")):
            axes.hist(np.maximum(values, least), bins=edges, color=color, alpha=0.6, label=label)
        axes.axvline(threshold, color=THIRD, linestyle=":", label="threshold")
        axes.set_xscale("log")
        ticker = extras.require("matplotlib.ticker")
        axes.xaxis.set_major_locator(ticker.LogLocator(numticks=6))
        axes.xaxis.set_major_formatter("{x:g}")  # its own are formulas, which are text here
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
        axes.set_xlabel("score: mean square of what does not come back")
        axes.set_ylabel("samples")
        _legend(axes)
        return figure

    return _styled(draw)


def bars(counts: Mapping[str, Mapping[str, int]], what: str = "samples") -> str:
    """Samples (or pixels) of every class, by split."""

    def draw() -> Any:
        labels = list(next(iter(counts.values())))
        figure, axes = _figure(WIDTH, min(1.1 + 0.24 * len(labels), 12.0))
        left = np.zeros(len(labels))
        for (split, values), color in zip(counts.items(), (FIRST, SECOND, THIRD), strict=False):
            numbers = np.asarray([values[label] for label in labels], float)
            axes.barh(range(len(labels)), numbers, left=left, color=color, label=split, alpha=0.8)
            left += numbers
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel(what)
        axes.xaxis.set_major_locator(extras.require("matplotlib.ticker").MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(_THOUSANDS)
        _legend(axes)
        return figure

    return _styled(draw)


def drift(distances: Mapping[str, float]) -> str:
    """How far the values of every input are distributed otherwise in test than in training; the 30 farthest."""

    def draw() -> Any:
        shown = sorted(distances.items(), key=lambda item: -item[1])[:30]
        figure, axes = _figure(WIDTH, 1.0 + 0.24 * len(shown))
        values = [value for _, value in shown]
        colors = [SECOND if value > DRIFT else FIRST for value in values]
        axes.barh(range(len(shown)), values, color=colors, alpha=0.8)
        axes.axvline(DRIFT, color=THIRD, linestyle=":", label=f"a warning from {DRIFT:g} on")
        axes.set_xlim(0, min(1.0, max(2 * DRIFT, *(1.1 * value for value in values))))
        axes.set_yticks(range(len(shown)), [_short(name) for name, _ in shown], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel("0: alike, 1: nothing in common")
        _legend(axes)
        return figure

    return _styled(draw)


MOST_SIZES = 12
"""Layers that a picture of the largest shows."""


def sizes(values: Mapping[str, int], unit: str) -> str:
    """The largest of some sizes, each as a bar.

    Args:
        values: by name, the largest first; at most `MOST_SIZES` of them are drawn.
        unit: under the bars.
    """

    def draw() -> Any:
        shown = list(values.items())[:MOST_SIZES]
        figure, axes = _figure(WIDTH, 0.8 + 0.24 * len(shown))
        axes.barh(range(len(shown)), [value for _, value in shown], color=FIRST, alpha=0.8)
        axes.set_yticks(range(len(shown)), [_short(name) for name, _ in shown], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        ticker = extras.require("matplotlib.ticker")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(ticker.EngFormatter())  # 4.5 M: long numbers would meet
        return figure

    return _styled(draw)


MOST_RATIOS = 24
"""Layers that a picture of their error shows."""


def ratios(values: Mapping[str, tuple[float, str]], lost: float) -> str:
    """Signal to noise ratios of layers, each as a bar, in the color of what is the matter with it.

    Args:
        values: ratio in dB and cause by name, the worst first; at most `MOST_RATIOS` of them are drawn. Causes are
            `none`, `inherited`, or a word that is written beside the bar.
        lost: ratio in dB below which a layer is lost.
    """

    def draw() -> Any:
        shown = [(name, *value) for name, value in list(values.items())[:MOST_RATIOS]]
        figure, axes = _figure(WIDTH, 1.1 + 0.24 * len(shown))
        # What is exact would leave nothing to see of the others; what is lost keeps an end of its bar.
        most = max([2 * lost, *(ratio for _, ratio, _ in shown if ratio < EXACT_DB)])
        for row, (_, ratio, cause) in enumerate(shown):
            color, width = _CAUSE_COLORS.get(cause, SECOND), min(max(ratio, 0.02 * most), most)
            axes.barh(row, width, color=color, alpha=0.8)
            if color != FIRST:
                words = f"{round(ratio)} dB{f', {cause}' if color == SECOND else ''}"
                axes.text(width + 0.02 * most, row, words, va="center", fontsize=8)
        for color, label in ((SECOND, "to blame"), (FAINT, "inherited"), (FIRST, "holds")):
            axes.barh(0, 0, color=color, alpha=0.8, label=label)
        axes.axvline(lost, color=THIRD, linestyle=":")
        axes.set_xlim(0, 1.02 * most)
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.set_yticks(range(len(shown)), [_short(name) for name, _, _ in shown], fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel(f"dB; lost below {lost:g}")
        axes.xaxis.set_major_locator(extras.require("matplotlib.ticker").MaxNLocator(5, integer=True))
        # From the right: names of layers leave little room for it from the left.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=9, borderaxespad=0.2)
        return figure

    return _styled(draw)


EXACT_DB = 100.0
"""A ratio from here on is what float32 itself rounds, and is drawn as wide as there is room for."""

_CAUSE_COLORS = {"none": FIRST, "inherited": FAINT}


def _short(label: str, most: int = 24) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


def line(values: Array) -> str:
    """One sample of a series or a sound, small."""

    def draw() -> Any:
        figure, axes = _figure(2.2, 1.1)
        _draw_line(axes, values)
        axes.set_axis_off()
        return figure

    return _styled(draw)


def lines(samples: Sequence[tuple[str, Array]]) -> str:
    """Samples of series or sounds below one another, with their names."""

    def draw() -> Any:
        figure, rows = _figure(WIDTH, 0.4 + 0.7 * len(samples), rows=len(samples))
        for axes, (name, values) in zip(np.atleast_1d(rows), samples, strict=True):
            _draw_line(axes, values)
            axes.set_title(_short(name), loc="left", fontsize=9, pad=2)
            axes.tick_params(labelsize=7)
            axes.tick_params(axis="x", labelbottom=axes is np.atleast_1d(rows)[-1])
        np.atleast_1d(rows)[-1].set_xlabel("sample in time", fontsize=9)
        return figure

    return _styled(draw)


def _draw_line(axes: Any, values: Array) -> None:
    """At most about 400 points: the least and the greatest value of every stretch, so that no peak is lost."""
    flat = values.reshape(len(values), -1)
    size = max(1, len(flat) // 200)
    if size == 1:
        axes.plot(flat, color=FIRST, linewidth=0.8)
        return
    stretches = flat[: len(flat) // size * size].reshape(-1, size, flat.shape[1])
    ends = np.stack([stretches.min(axis=1), stretches.max(axis=1)], axis=1).reshape(-1, flat.shape[1])
    axes.plot(np.arange(len(ends)) * size / 2, ends, color=FIRST, linewidth=0.8)


def front(points: Sequence[tuple[str, float, float, str]], cost: str, loss: str, most_lost: float | None) -> str:
    """Files by what they cost and what they lose; a line through those that no other beats.

    Args:
        points: name, cost, loss, and `winner`, `front`, `kept`, `unsure` or `broken` of every file.
        cost: under the axis.
        loss: beside the axis.
        most_lost: loss from which on a limit is broken; None without.
    """

    def draw() -> Any:
        figure, axes = _figure(2 * WIDTH, 4.2)
        on_front = sorted((x, y) for _, x, y, state in points if state in ("winner", "front"))
        axes.plot([x for x, _ in on_front], [y for _, y in on_front], color=FIRST, alpha=0.6, drawstyle="steps-post")
        for state, color, marker, label in _STATES:
            drawn = [(x, y) for _, x, y, found in points if found == state]
            axes.scatter(
                [x for x, _ in drawn], [y for _, y in drawn], color=color, marker=marker, s=36, label=label, zorder=3
            )
        if most_lost is not None:
            axes.axhline(most_lost, color=SECOND, linestyle=":", label="limit")
        axes.set_xlabel(cost)
        axes.set_ylabel(loss)
        axes.margins(x=0.14, y=0.12)
        axes.xaxis.set_major_formatter(extras.require("matplotlib.ticker").EngFormatter())
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, fontsize=9, borderaxespad=0.2)
        _name_points(figure, axes, points)  # where they lie once all else has its place
        return figure

    return _styled(draw)


def _name_points(figure: Any, axes: Any, points: Sequence[tuple[str, float, float, str]]) -> None:
    """Writes the names, the winner's first; the width of one is that of its letters, three fifths of their height."""
    size, inch = 8, 72.0
    ranked = sorted(points, key=lambda point: [state for state, *_ in _STATES].index(point[3]))
    axes.autoscale_view()
    figure.canvas.draw()
    placed = axes.transData.transform([(x, y) for _, x, y, _ in ranked]) * inch / figure.dpi
    box = axes.get_window_extent()
    within = tuple(float(value) * inch / figure.dpi for value in (box.x0, box.y0, box.x1, box.y1))
    names = [_short(name) for name, *_ in ranked]
    offsets = label_places([(x, y) for x, y in placed], [0.6 * size * len(name) for name in names], size + 2, within)
    for name, (_, x, y, _), offset in zip(names, ranked, offsets, strict=True):
        axes.annotate(name, (x, y), textcoords="offset points", xytext=offset, fontsize=size)


_STATES = (
    ("winner", THIRD, "*", "winner"),
    ("front", FIRST, "o", "no other beats it"),
    ("kept", FAINT, "o", "keeps the limits"),
    ("unsure", FAINT, "x", "may keep them by chance"),
    ("broken", SECOND, "x", "breaks a limit"),
)
