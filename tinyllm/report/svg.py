"""Drawings as inline SVG: lines over steps, dots with intervals, a grid of cells.

A page that opens offline on any machine cannot load a plotting library, and these three kinds of drawing
need none. Coordinates are CSS pixels. Colours are CSS classes of page.html, so that one drawing serves light
mode, dark mode and print. The result is safe to put into HTML: names and titles are escaped.
"""

import math
from html import escape

import numpy as np

WIDTH, HEIGHT = 344, 190  # of a chart, which fits on a phone 390 pixels wide
LEFT, RIGHT, TOP, BOTTOM = 44, 92, 24, 30  # room for tick labels, line names, title and the x axis
GAP = 12  # smallest vertical distance between two labels


def tag(name, content, kind="", more=""):
    """An element of HTML or SVG. `content` and `more` (attributes) are markup; `kind` is a CSS class."""
    return f'<{name} class="{kind}" {more}>{content}</{name}>'


def drawing(parts, width, height, label):
    """label: the words that a screen reader speaks instead of the drawing."""
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return tag("svg", "".join(parts), more=f'{size} role="img" aria-label="{escape(label)}"')


def text(x, y, words, kind="", anchor="start"):
    return tag("text", escape(words), kind, f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"')


def line(x1, y1, x2, y2, kind):
    return f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def shown(value):
    """A number as text, with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value + 0.0:.3g}"  # + 0.0 turns -0.0 into 0.0


def ticks(low, high, log=False):
    """Tick values from low to high, in about five equal, round steps. On a logarithmic axis
    longer than a decade, the ticks are 1, 2 and 5 times the powers of ten instead."""
    if log and high > 10 * low:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        return [x * 10.0**p for p in powers for x in (1, 2, 5) if low <= x * 10.0**p <= high]
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(x * power for x in (1, 2, 5, 10) if x * power > (high - low) / 6)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def spread(ys, top, bottom):
    """Heights of labels that should be at the heights ys, moved where necessary: in the same order, at least
    GAP apart, none below `bottom`.

    The first label is above `top` only if the labels do not all fit between `top` and `bottom`.
    """
    order, placed = sorted(range(len(ys)), key=ys.__getitem__), list(ys)
    for i in order:
        placed[i] = top = max(ys[i], top)
        top += GAP
    for i in reversed(order):
        placed[i] = bottom = min(placed[i], bottom)
        bottom -= GAP
    return placed


def chart(title, lines, band=(), rules=(), log=False):
    """A chart of values over training steps, with a name at the end of every curve.

    lines [(name, class, [(step, value), ...])], none of them empty; band [(step, low, high), ...], shaded;
    rules [(name, value)], dashed horizontal lines; log: whether the vertical axis is logarithmic, with
    values <= 0 at the bottom.
    """
    points = [point for _, _, pairs in lines for point in pairs] + [(x, y) for x, *ys in band for y in ys]
    steps, values = [x for x, _ in points], [y for _, y in points] + [y for _, y in rules]
    low = min((y for y in values if y > 0 or not log), default=1.0)
    high, first, last = max(values), min(steps), max(steps)
    last, high = max(last, first + 1), high if high > low else low + abs(low) + 1
    warp, right, bottom = math.log if log else float, WIDTH - RIGHT, HEIGHT - BOTTOM
    at_x = lambda x: LEFT + (right - LEFT) * (x - first) / (last - first)
    at_y = lambda y: bottom - (bottom - TOP) * (warp(max(y, low)) - warp(low)) / (warp(high) - warp(low))
    path = lambda pairs: "M" + "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in pairs)
    outline = [(x, y) for x, y, _ in band] + [(x, y) for x, _, y in reversed(band)]
    parts = [text(0, 12, title, "title"), text((LEFT + right) / 2, HEIGHT - 3, "step", "", "middle")]
    parts += [text(at_x(x), bottom + 14, shown(x), "", "middle") for x in ticks(first, last)]
    for y in ticks(low, high, log):
        parts += [line(LEFT, at_y(y), right, at_y(y), "grid")]
        parts += [text(LEFT - 5, at_y(y) + 4, shown(y), "", "end")]
    parts += [f'<path class="band" d="{path(outline)}"/>'] if band else []
    parts += [line(LEFT, at_y(y), right, at_y(y), "rule") for _, y in rules]
    parts += [f'<path class="curve {kind}" d="{path(pairs)}"/>' for _, kind, pairs in lines]
    names = [(name, "", y) for name, y in rules] + [(name, kind, pairs[-1][1]) for name, kind, pairs in lines]
    heights = spread([at_y(y) + 4 for _, _, y in names], TOP, bottom + 4)
    parts += [text(right + 5, y, name, kind) for (name, kind, _), y in zip(names, heights)]
    return drawing(parts, WIDTH, HEIGHT, title)


def strip(label, dots, rules):
    """Measurements with their intervals, one below the other, on one axis from 0 to at least 1.

    dots [(class, address, {"value", "low", "high"})], each a link with its numbers as a tooltip;
    rules [(name, value)], dashed vertical lines.
    """
    most, height = max([1.0, *(dot["high"] for *_, dot in dots), *(x for _, x in rules)]), 11 * len(dots) + 20
    at = lambda x: 8 + (WIDTH - 16) * x / most
    parts = [line(at(x), 2, at(x), height - 16, "grid") for x in (0, most)]
    parts += [text(at(0), height - 3, "0"), text(at(most), height - 3, shown(most), "", "end")]
    parts += [line(at(x), 0, at(x), height - 15, "rule") for _, x in rules]
    for y, (kind, address, dot) in enumerate(dots):
        mark = tag("title", "{value:.3f} ({low:.3f} to {high:.3f})".format(**dot))
        mark += line(at(dot["low"]), 8 + 11 * y, at(dot["high"]), 8 + 11 * y, f"interval {kind}")
        mark += f'<circle class="{kind}" cx="{at(dot["value"]):.1f}" cy="{8 + 11 * y}" r="4"/>'
        parts.append(tag("a", mark, more=f'href="{address}"'))
    return drawing(parts, WIDTH, height, label)


def cells(label, shares, size=5, levels=5):
    """A matrix of shares from 0 to 1 as squares in `levels` shades. The square root of a share sets its
    shade.

    All squares of a shade are one path: thousands of rectangles would make the page megabytes large.
    """
    height, width = len(shares), len(shares[0])
    parts = [f'<path class="frame" d="M0 0h{size * width}v{size * height}h-{size * width}z"/>']
    shades = np.rint(levels * np.sqrt(shares))
    for level in range(1, levels + 1):
        corners = np.argwhere(shades == level) * size  # (n, 2): y, x
        squares = "".join(f"M{x} {y}h{size}v{size}h-{size}z" for y, x in corners)
        parts.append(f'<path class="cell" opacity="{level / levels}" d="{squares}"/>')
    return drawing(parts, size * width, size * height, label)
