#!/usr/bin/env python3
"""Draw the table of engines in README.md beside this file as benches/engines.svg.

usage: chart.py [--table "Engines"] [--out engines.svg]

A cell of that table is `ours / theirs = ratio`; a bar is a ratio, and the line at 1 is llama.cpp.
"""

from __future__ import annotations

import argparse
import re
from html import escape
from pathlib import Path

HERE = Path(__file__).parent
CELL = re.compile(r"([\d.]+) / ([\d.]+) = ([\d.]+)")
COLOURS = ["#2b5c8a", "#4a90c2", "#7fb8d8", "#b9d9ea"]
LEFT, TOP, BAR, GAP, WIDTH = 190, 64, 13, 14, 520


def table(text: str, title: str) -> tuple[list[str], list[tuple[str, list[float]]]]:
    """Names of the columns, and of each row its name and ratios."""
    section = text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    ratios = []
    for row in rows[2:]:
        found = [CELL.search(cell) for cell in row[1:]]
        ratios.append((row[0], [float(cell[3]) if cell else 0.0 for cell in found]))
    return rows[0][1:], ratios


def draw(title: str, columns: list[str], rows: list[tuple[str, list[float]]]) -> str:
    """The chart."""
    most = max(max(ratios) for _, ratios in rows)
    scale = (WIDTH - 40) / most
    height = TOP + len(rows) * (len(columns) * BAR + GAP) + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{LEFT + WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for i, column in enumerate(columns):
        x = 12 + i * 150
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 17}" y="43">{escape(column)}</text>')
    y = TOP
    for name, ratios in rows:
        middle = y + len(ratios) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for i, ratio in enumerate(ratios):
            width, colour = ratio * scale, COLOURS[i % len(COLOURS)]
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + width + 4:.1f}" y="{y + 10}" font-size="10">{ratio:g}</text>')
            y += BAR
        y += GAP
    at = LEFT + scale
    parts.append(
        f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{y}" stroke="#b03030" stroke-dasharray="4 3"/>'
    )
    parts.append(f'<text x="{at + 4:.1f}" y="{height - 10}" fill="#b03030">llama.cpp = 1</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Reads the table and writes the chart."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", default="Engines")
    parser.add_argument("--out", default=str(HERE / "engines.svg"))
    args = parser.parse_args()
    columns, rows = table((HERE / "README.md").read_text(encoding="utf-8"), args.table)
    title = "Tokens a second, as multiples of llama.cpp's"
    Path(args.out).write_text(draw(title, columns, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
