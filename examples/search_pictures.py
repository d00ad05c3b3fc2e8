"""Search a folder of pictures with words, and plot what was found.

usage: search_pictures.py MODEL FOLDER QUERY [QUERY ...] [--out RESULT.png] [--top N]

MODEL is a CLIP or SigLIP folder. The result is a table of thumbnails, a row a query, best first, with a
bar for each cosine; it needs nothing but Pillow.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from PIL import Image, ImageDraw

import alloyforge as af

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"}
TILE, BAR, TEXT = 128, 10, 24


def plot(queries: list[str], paths: list[pathlib.Path], scores: np.ndarray, order: np.ndarray) -> Image.Image:
    """A row a query: its text, then thumbnails with bars."""
    rows, columns = order.shape
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + BAR + TEXT)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, query in enumerate(queries):
        top = row * (TILE + BAR + TEXT)
        draw.text((4, top + 4), query, fill="black")
        for column, index in enumerate(order[row]):
            with Image.open(paths[index]) as picture:
                thumbnail = picture.convert("RGB")
            thumbnail.thumbnail((TILE - 4, TILE - 4))
            sheet.paste(thumbnail, (column * TILE + 2, top + TEXT + 2))
            width = int((TILE - 4) * max(0.0, float(scores[row, index])))
            left, bottom = column * TILE + 2, top + TEXT + TILE
            draw.rectangle((left, bottom, left + width, bottom + BAR - 4), fill="steelblue")
    return sheet


def main() -> None:
    """Embeds pictures and queries, ranks by cosine, plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("queries", nargs="+")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search.png"))
    parser.add_argument("--top", type=int, default=5)
    arguments = parser.parse_args()

    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        parser.error(f"no pictures in {arguments.folder}")
    with af.Session(arguments.model) as session:
        pictures = session.embed_images(paths)
        queries = session.embed(arguments.queries)
    scores = queries @ pictures.T
    order = np.argsort(-scores, axis=1)[:, : arguments.top]
    for row, query in enumerate(arguments.queries):
        print(query)
        for index in order[row]:
            print(f"  {scores[row, index]:.3f} {paths[index].name}")
    plot(arguments.queries, paths, scores, order).save(arguments.out)


if __name__ == "__main__":
    main()
