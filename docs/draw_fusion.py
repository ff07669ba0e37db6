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
WIDTH, HEIGHT = 1220, 500


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
        box(20, 96, 196, ["stream 0 (RGB)", "x⁰: C numbers"], OWN),
        box(20, 362, 196, ["stream 1 (the others)", "x¹: C numbers"], OTHER),
        box(266, 222, 272, ["relation discriminator", "r = softmax(W₂ GELU(W₁[x⁰; x¹]))"], BOTH),
        box(602, 70, 230, ["query", "q = W_q x⁰"], OWN),
        box(602, 172, 230, ["difference of the keys", "Δ = W_k (x⁰ + ε_k − x⁰ ⊙ r)"], BOTH),
        box(602, 286, 230, ["value of itself", "v₁ = W_v (x⁰ + ε_v)"], OWN),
        box(602, 388, 230, ["value of the other", "v₂ = W_v x¹"], OTHER),
        box(902, 121, 276, ["own share, for each of 8 heads", "a = sigmoid(q · Δ / √(C/8))"], PLAIN),
        box(902, 300, 276, ["fused stream 0", "y⁰ = x⁰ + W_o (a v₁ + (1 − a) v₂)"], OWN),
        arrow((118, 96), (118, 56), (1200, 56), (1200, 330), (1178, 330), color=OWN_LINE),
        arrow((216, 116), (233, 116), (233, 100), (602, 100), color=OWN_LINE),
        arrow((216, 136), (233, 136), (233, 200), (602, 200), color=OWN_LINE),
        arrow((233, 190), (233, 244), (266, 244), color=OWN_LINE),
        arrow((233, 234), (233, 316), (602, 316), color=OWN_LINE),
        arrow((216, 384), (249, 384), (249, 268), (266, 268), color=OTHER_LINE),
        arrow((216, 408), (249, 408), (249, 418), (602, 418), color=OTHER_LINE),
        arrow((538, 244), (570, 244), (570, 216), (602, 216)),
        arrow((832, 100), (867, 100), (867, 143), (902, 143)),
        arrow((832, 202), (867, 202), (867, 161), (902, 161)),
        arrow((832, 316), (902, 316)),
        arrow((832, 418), (867, 418), (867, 340), (902, 340)),
        arrow((1040, 181), (1040, 300)),
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
