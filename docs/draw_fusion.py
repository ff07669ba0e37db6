"""Draw docs/fusion.svg, the picture of docs/model.md: what GeminiFusion computes at one pixel, for one of its directions.

Run ``python docs/draw_fusion.py`` after a change; a test holds the file to what this draws.
"""

from __future__ import annotations

import re
from pathlib import Path

PICTURE = Path(__file__).with_name("fusion.svg")
OWN, OTHER, BOTH, PLAIN = "#d9e8fb", "#fde3c8", "#e4e0f3", "#eef1f4"
OWN_LINE, OTHER_LINE = "#2f6db5", "#c0731c"
ABOVE = "Direction 0 ← 1 at one pixel: x⁰ asks two keys, itself with noise and the other. 1 ← 0 is the same, roles swapped."
BELOW = (
    "ε: learnt noise, a vector per layer and direction. Nothing is larger than the tokens: the cost is O(N C²) for N pixels."
)
WIDTH, HEIGHT = 1120, 500


def box(x: int, y: int, width: int, lines: list[str], fill: str) -> str:
    """Draw a box with its top left corner at (x, y): a title, and formulas under it."""
    height = 26 + 22 * len(lines[1:]) + 12
    title, *formulas = lines
    formulas = [
        re.sub(r"_(\w)", r'<tspan dy="4" font-size="11">\1</tspan><tspan dy="-4">&#8203;</tspan>', line) for line in formulas
    ]
    parts = [f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="7" fill="{fill}" stroke="#53606e"/>']
    parts.append(f'<text x="{x + width // 2}" y="{y + 23}" class="title">{title}</text>')
    parts += [
        f'<text x="{x + width // 2}" y="{y + 46 + 22 * row}" class="formula">{formula}</text>'
        for row, formula in enumerate(formulas)
    ]
    return "\n".join(parts)


def arrow(*points: tuple[int, int], color: str = "#53606e") -> str:
    """Draw a line through points that ends in an arrow."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8" marker-end="url(#head)"/>'


def note(x: int, y: int, text: str) -> str:
    """Write one line that starts at (x, y)."""
    return f'<text x="{x}" y="{y}" class="note">{text}</text>'


def draw() -> str:
    """Give the whole picture as SVG."""
    content = [
        note(20, 34, ABOVE),
        box(20, 96, 160, ["stream 0 (RGB)", "x⁰: C numbers"], OWN),
        box(20, 362, 160, ["stream 1 (the others)", "x¹: C numbers"], OTHER),
        box(230, 222, 246, ["relation discriminator", "r = softmax(W₂ GELU(W₁[x⁰; x¹]))"], BOTH),
        box(540, 70, 230, ["query", "q = W_q x⁰"], OWN),
        box(540, 172, 230, ["difference of the keys", "Δ = W_k (x⁰ + ε_k − x⁰ ⊙ r)"], BOTH),
        box(540, 286, 230, ["value of itself", "v₁ = W_v (x⁰ + ε_v)"], OWN),
        box(540, 388, 230, ["value of the other", "v₂ = W_v x¹"], OTHER),
        box(840, 121, 250, ["own share, for each of 8 heads", "a = sigmoid(q · Δ / √(C/8))"], PLAIN),
        box(840, 300, 250, ["fused stream 0", "y⁰ = x⁰ + W_o (a v₁ + (1 − a) v₂)"], OWN),
        arrow((180, 116), (197, 116), (197, 100), (540, 100), color=OWN_LINE),
        arrow((180, 136), (197, 136), (197, 200), (540, 200), color=OWN_LINE),
        arrow((197, 190), (197, 244), (230, 244), color=OWN_LINE),
        arrow((197, 234), (197, 316), (540, 316), color=OWN_LINE),
        arrow((180, 384), (213, 384), (213, 268), (230, 268), color=OTHER_LINE),
        arrow((180, 408), (213, 408), (213, 418), (540, 418), color=OTHER_LINE),
        arrow((476, 244), (508, 244), (508, 216), (540, 216)),
        arrow((770, 100), (805, 100), (805, 143), (840, 143)),
        arrow((770, 202), (805, 202), (805, 161), (840, 161)),
        arrow((770, 316), (840, 316)),
        arrow((770, 418), (805, 418), (805, 340), (840, 340)),
        arrow((965, 181), (965, 300)),
        note(20, 482, BELOW),
    ]
    style = (
        "text{font-family:Helvetica,Arial,sans-serif;fill:#1d2733}.title{font-size:15px;font-weight:bold;text-anchor:middle}"
        ".formula{font-size:15px;text-anchor:middle}.note{font-size:16px}"
    )
    head = (
        '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0L10,5L0,10z" fill="#53606e"/></marker>'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">',
            f"<defs>{head}<style>{style}</style></defs>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *content,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
