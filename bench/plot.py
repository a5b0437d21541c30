"""Bar charts as SVG, without a library: a panel for each case, a bar for each client."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 760, 190, 130
ROW_HEIGHT, BAR_HEIGHT, TITLE_HEIGHT = 22, 14, 30
MARGIN = 16

#: A bar longer than this many times the first one is cut, so that the others can be seen.
CUT_FACTOR = 6

OURS, FLOOR, PEER, INK, PAPER = "#d9480f", "#adb5bd", "#4c6ef5", "#212529", "#ffffff"


@dataclass(frozen=True)
class Bar:
    """A client and its value."""

    label: str
    value: float


@dataclass(frozen=True)
class Panel:
    """The bars of one case; those that the others are compared with come first."""

    title: str
    bars: list[Bar]


def bar_chart(title: str, unit: str, panels: list[Panel]) -> str:
    """The chart as the text of an SVG file."""
    note = f"{unit}; shorter is better; a bar with // is cut"
    parts = [text(MARGIN, MARGIN + 30, note)]
    y = MARGIN + 2 * ROW_HEIGHT
    for panel in panels:
        parts.append(text(MARGIN, y + 14, panel.title, weight="bold"))
        y += TITLE_HEIGHT
        limit = scale_limit(panel.bars)
        for bar in panel.bars:
            parts += draw_bar(bar, y, limit, unit)
            y += ROW_HEIGHT
        y += MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" '
        f'height="{y}" font-family="system-ui, sans-serif" font-size="13" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}">'
    )
    paper = f'<rect width="{WIDTH}" height="{y}" fill="{PAPER}"/>'
    heading = text(MARGIN, MARGIN + 12, title, weight="bold", size=16)
    return "\n".join((head, paper, heading, *parts, "</svg>", ""))


def scale_limit(bars: list[Bar]) -> float:
    """The value of a bar of full length."""
    longest = max(bar.value for bar in bars)
    return min(longest, CUT_FACTOR * bars[0].value) or 1.0


def draw_bar(bar: Bar, y: int, limit: float, unit: str) -> list[str]:
    room = WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH
    is_cut = bar.value > limit
    width = max(1.0, room * min(bar.value / limit, 1.0))
    x = MARGIN + LABEL_WIDTH
    top = y + (ROW_HEIGHT - BAR_HEIGHT) // 2
    baseline = y + ROW_HEIGHT - 7
    parts = [
        text(x - 8, baseline, bar.label, anchor="end"),
        f'<rect x="{x}" y="{top}" width="{width:.1f}" height="{BAR_HEIGHT}" '
        f'fill="{colour(bar.label)}"/>',
        text(x + width + 6, baseline, f"{format_value(bar.value)} {unit}"),
    ]
    if is_cut:
        cut = x + width - 14
        parts.append(
            f'<path d="M{cut:.1f} {top + BAR_HEIGHT} l5 -{BAR_HEIGHT} m5 0 l-5 {BAR_HEIGHT}" '
            f'stroke="{PAPER}" stroke-width="2" fill="none"/>'
        )
    return parts


def colour(label: str) -> str:
    if label.startswith("hftws"):
        return OURS
    return FLOOR if label.startswith("C ") else PEER


def format_value(value: float) -> str:
    """Three significant digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text(
    x: float,
    y: float,
    content: str,
    *,
    anchor: str = "start",
    weight: str = "normal",
    size: int = 0,
) -> str:
    attributes = f'x="{x:.1f}" y="{y}" fill="{INK}" text-anchor="{anchor}" font-weight="{weight}"'
    if size:
        attributes += f' font-size="{size}"'
    return f"<text {attributes}>{escape(content)}</text>"
