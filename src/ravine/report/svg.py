"""Parts of a drawing as SVG text: words, lines, marks, scales.

The colours are those of ``page.css``, by its names, so that a drawing follows the theme and the print
style without a script. Every text that comes from a record is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["WIDTH", "Canvas", "Scale", "linear", "logarithmic", "short", "signed"]

WIDTH = 560
"""Of every drawing, in its own units; the page scales it."""

LETTER = 6.7
"""About the width of a letter of the drawings' 12 units."""


@dataclass
class Canvas:
    """A drawing that is being made.

    Attributes:
        name: a word without spaces, unique in the page; the title's and the description's ids.
        title, description: what it is and what it shows, for those who cannot see it.
        height: in the drawing's units.
    """

    name: str
    title: str
    description: str
    height: float = 0.0
    parts: list[str] = field(default_factory=list)

    def text(
        self, x: float, y: float, words: str, *, anchor: str = "start", tone: str = "soft",
        room: float = math.inf, bold: bool = False,
    ) -> None:  # fmt: skip
        """Write words; those that are longer than the room are cut, and whole on a pointer's touch."""
        letters = max(3, int(room / LETTER)) if math.isfinite(room) else len(words)
        cut = len(words) > letters
        # The end of a module's name tells it from its neighbours.
        shown = "…" + words[len(words) - letters + 1 :] if cut else words
        whole = f"<title>{html.escape(words)}</title>" if cut else ""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--{tone})"{weight}>'
            f"{html.escape(shown)}{whole}</text>"
        )

    def line(
        self, points: Sequence[tuple[float, float]], tone: str, *, width: float = 1.0,
        dash: str = "",
    ) -> None:  # fmt: skip
        """Draw a line through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="var(--{tone})" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, tone: str, opacity: float = 1.0
    ) -> None:
        """Fill a box."""
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}" '
            f'fill="var(--{tone})" fill-opacity="{opacity:.3f}"/>'
        )

    def mark(self, x: float, y: float, shape: str, tone: str, words: str) -> None:
        """Draw a mark, filled ("dot", "diamond") or hollow ("ring"), that says its value."""
        told = f"<title>{html.escape(words)}</title>"
        colour = f"var(--{tone})"
        if shape == "diamond":
            self.parts.append(
                f'<path d="M{x:.1f},{y - 5:.1f} l5,5 l-5,5 l-5,-5 z" fill="{colour}">{told}</path>'
            )
            return
        fill = "var(--card)" if shape == "ring" else colour
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{fill}" stroke="{colour}" '
            f'stroke-width="1.5">{told}</circle>'
        )

    def axis(self, scale: Scale, top: float, bottom: float, words: str) -> None:
        """Draw a horizontal axis with its grid, the numbers and what it measures, with the unit."""
        for value, label in scale.ticks:
            x = scale(value)
            self.line([(x, top), (x, bottom)], "line" if value == 0 else "grid")
            self.text(x, bottom + 16, label, anchor="middle")
        self.text((scale.left + scale.right) / 2, bottom + 34, words, anchor="middle")

    def svg(self) -> str:
        """Return the drawing."""
        name = html.escape(self.name)
        return (
            f'<svg class="drawing" viewBox="0 0 {WIDTH} {self.height:.0f}" role="img" '
            f'aria-labelledby="{name}-title {name}-desc" font-size="12">'
            f'<title id="{name}-title">{html.escape(self.title)}</title>'
            f'<desc id="{name}-desc">{html.escape(self.description)}</desc>'
            + "".join(self.parts)
            + "</svg>"
        )


@dataclass(frozen=True)
class Scale:
    """From values to places.

    Attributes:
        left, right: the places of its ends.
        position: a value as a share of the way, 0 to 1.
        ticks: values and their labels.
    """

    left: float
    right: float
    position: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]

    def __call__(self, value: float) -> float:
        return self.left + self.position(value) * (self.right - self.left)


def logarithmic(values: Sequence[float], left: float, right: float) -> Scale:
    """Return a logarithmic scale over positive values, from decade to decade."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = max(math.ceil(math.log10(max(values)) - 1e-9), low + 1)
    every = max(1, math.ceil((high - low) / 6))
    # From the highest downwards: both ends have a number where the decades are even.
    ticks = tuple((10.0**k, short(10.0**k)) for k in range(high, low - 1, -every))
    return Scale(left, right, lambda value: (math.log10(value) - low) / (high - low), ticks)


def linear(high: float, left: float, right: float) -> Scale:
    """Return a scale from 0."""
    high = high if high > 0 else 1.0
    size = 10.0 ** math.floor(math.log10(high))
    step = next(size * part for part in (0.2, 0.5, 1.0, 2.0) if high / (size * part) <= 5)
    count = math.ceil(high / step - 1e-9)
    ticks = tuple((k * step, short(k * step)) for k in range(count + 1))
    return Scale(left, right, lambda value: value / (count * step), ticks)


def signed(values: Sequence[float], left: float, right: float) -> Scale:
    """Return a scale that is logarithmic on both sides of 0, and linear around it.

    Linear below a ten thousandth of the largest value.
    """
    largest = max((abs(value) for value in values), default=0.0) or 1.0
    top = math.ceil(math.log10(largest) - 1e-9)
    around = 10.0 ** (top - 4)

    def bent(value: float) -> float:
        return math.copysign(math.log10(1 + abs(value) / around), value)

    low, high = bent(min(*values, 0.0, key=float)), bent(10.0**top)
    decades = [10.0**k for k in range(top - 3, top + 1)]
    marks = [-value for value in reversed(decades)] + [0.0] + decades
    ticks = tuple((value, short(value)) for value in marks if low - 1e-9 <= bent(value))
    return Scale(left, right, lambda value: (bent(value) - low) / ((high - low) or 1.0), ticks)


def short(value: float) -> str:
    """Write a number of an axis.

    >>> short(0.001), short(25.0), short(-1e-7), short(0.0)
    ('0.001', '25', '-1e-7', '0')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = (
        f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.3g}", "")
    )
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
