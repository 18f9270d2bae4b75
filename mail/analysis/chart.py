"""Draws step charts, as text for a terminal of 80 columns and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

MARKS = "abcdefghij"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
ROWS = 14


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve: one value for each place on the horizontal axis."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: its title, the labels of the horizontal axis, its curves."""

    title: str
    places: Sequence[str]
    curves: Sequence[Curve]

    @property
    def top(self) -> float:
        """The highest value."""
        return max(max(curve.values) for curve in self.curves)


def as_text(panel: Panel, down: str) -> list[str]:
    """The chart in lines of at most 80 columns. `down` labels the vertical axis."""
    step = 60 // len(panel.places)
    grid = [[" "] * (step * len(panel.places)) for _ in range(ROWS)]
    for mark, curve in zip(MARKS, panel.curves, strict=False):
        for place, value in enumerate(curve.values):
            row = ROWS - 1 - round(value / panel.top * (ROWS - 1))
            at = place * step + step // 2
            while grid[row][at] != " ":  # marks of curves that meet are put side by side
                at += 1
            grid[row][at] = mark
    lines = [panel.title, f"{down:>6}"]
    for number, row_cells in enumerate(grid):
        value = panel.top * (ROWS - 1 - number) / (ROWS - 1)
        label = f"{value:6.0f}" if number % 3 == (ROWS - 1) % 3 else " " * 6
        lines.append(f"{label} |{''.join(row_cells)}".rstrip())
    lines.append(" " * 7 + "+" + "-" * (step * len(panel.places)))
    lines.append(" " * 8 + "".join(place.center(step) for place in panel.places).rstrip())
    lines.append(" " * 8 + "  ".join(f"{m} {c.name}" for m, c in zip(MARKS, panel.curves, strict=False)))
    return lines


def as_svg(panels: Sequence[Panel], title: str, across: str, down: str) -> str:
    """The charts side by side as one SVG document, with a title and a description for screen readers."""
    width, height, left, top = 300, 260, 46, 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * len(panels)} {height + 110}"'
        ' font-family="sans-serif" font-size="11" role="img" aria-labelledby="title description">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="description">{escape(_described(panels, across, down))}</desc>',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        x0, y0 = number * width + left, top + height - 60
        wide, tall = width - left - 36, height - 80
        parts.append(f'<text x="{x0}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>')
        for tick in range(5):
            y = y0 - tall * tick / 4
            parts.append(f'<line x1="{x0}" x2="{x0 + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{panel.top * tick / 4:.0f}</text>')
        step = wide / max(len(panel.places) - 1, 1)
        for place, words in enumerate(panel.places):
            x = x0 + step * place
            parts.append(f'<text x="{x:.1f}" y="{y0 + 16}" text-anchor="middle">{escape(words)}</text>')
        for colour, curve in zip(COLOURS, panel.curves, strict=False):
            heights = [y0 - tall * value / panel.top for value in curve.values]
            points = " ".join(f"{x0 + step * i:.1f},{y:.1f}" for i, y in enumerate(heights))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts.append(
                f'<text x="{x0 + wide + 3}" y="{heights[-1] + 4:.1f}" fill="{colour}">{curve.values[-1]:g}</text>'
            )
        parts.append(f'<text x="{x0 + wide / 2:.1f}" y="{y0 + 34}" text-anchor="middle">{escape(across)}</text>')
        parts.append(
            f'<text x="{x0 - 34}" y="{y0 - tall / 2:.1f}" text-anchor="middle"'
            f' transform="rotate(-90 {x0 - 34} {y0 - tall / 2:.1f})">{escape(down)}</text>'
        )
    for number, (colour, curve) in enumerate(zip(COLOURS, panels[0].curves, strict=False)):
        x, y = left + number * 110, top + height
        parts.append(f'<line x1="{x}" x2="{x + 22}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 28}" y="{y + 4}">{escape(curve.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _described(panels: Sequence[Panel], across: str, down: str) -> str:
    said = []
    for panel in panels:
        for curve in panel.curves:
            values = (f"{v:g} at {w}" for v, w in zip(curve.values, panel.places, strict=True))
            said.append(f"{panel.title}, {curve.name}: {', '.join(values)}")
    return f"{down} by {across}. " + "; ".join(said) + "."
