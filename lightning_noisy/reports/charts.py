"""Small drawings of the page, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 220, 44, 28


def sparkline(curve: NDArray[np.floating], width: int = 96, height: int = 24) -> Markup:
    """A curve of shares (E,) in [0, 1]; NaN is left out. Empty where fewer than two are known.

    Args:
        curve: The shares.
        width: In pixels.
        height: In pixels.
    """
    seen = np.flatnonzero(~np.isnan(curve))
    if len(seen) < 2:
        return Markup("")
    first, last = curve[seen[0]], curve[seen[-1]]
    if len(seen) > width:  # a point for each pixel, the mean of its epochs
        parts = np.array_split(seen, width)
        seen, values = np.array([part[0] for part in parts]), np.array([curve[part].mean() for part in parts])
    else:
        values = curve[seen]
    across = 1 + seen / (len(curve) - 1) * (width - 2)
    down = 1 + (1 - values.clip(0, 1)) * (height - 2)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    title = f"confidence in the given label: {first:.0%} in the first epoch, {last:.0%} in the last"
    return Markup(
        '<svg class="spark" width="{}" height="{}" role="img"><title>{}</title>'
        '<polyline points="{}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    ).format(width, height, title, points)


def histogram(
    counts: NDArray[np.int64], cut: float, components: Sequence[NDArray[np.float64]], names: Sequence[str]
) -> Markup:
    """Scores in [0, 1] in equal bins, curves over them, and the cut.

    Args:
        counts: Samples in each bin (B,).
        cut: Where labels begin to count as wrong.
        components: Expected samples in each bin, (B,) each.
        names: What the components are.
    """
    highest = max(1.0, float(counts.max(initial=0)), *(float(curve.max(initial=0)) for curve in components))
    wide, tall = _WIDTH - _LEFT - 8, _HEIGHT - _BOTTOM - 12
    step = wide / len(counts)
    # A square root, so that few wrong labels beside many right ones are seen.
    up = np.sqrt(counts / highest) * tall
    parts = [
        f'<rect class="{"bad" if (bin_ + 0.5) / len(counts) >= cut else "good"}" x="{_LEFT + bin_ * step:.1f}" '
        f'y="{12 + tall - bar:.1f}" width="{max(step - 1, 0.5):.1f}" height="{bar:.1f}">'
        f"<title>{counts[bin_]} labels</title></rect>"
        for bin_, bar in enumerate(up)
    ]
    for number, curve in enumerate(components):
        middles = _LEFT + (np.arange(len(counts)) + 0.5) * step
        heights = 12 + tall - np.sqrt(curve.clip(0) / highest) * tall
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(middles, heights, strict=True))
        parts.append(f'<polyline class="component c{number}" points="{points}"/>')
    where = _LEFT + cut * wide
    parts.append(f'<line class="cut" x1="{where:.1f}" x2="{where:.1f}" y1="14" y2="{12 + tall}"/>')
    parts.append(f'<text x="{where:.1f}" y="10" text-anchor="middle">cut {cut:.2f}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{_LEFT + share * wide:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{share:g}</text>')
    for share in (0.0625, 0.25, 1):
        line = 12 + tall - share**0.5 * tall
        parts.append(f'<text x="{_LEFT - 6}" y="{line + 4:.1f}" text-anchor="end">{round(share * highest)}</text>')
    legend = ", ".join(names)
    title = Markup("<title>{}</title>").format(f"Histogram of the scores; curves: {legend}" if legend else "Scores")
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img">').format(_WIDTH, _HEIGHT)
    return head + title + Markup("".join(parts)) + Markup("</svg>")
