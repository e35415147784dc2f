"""A contact sheet: rows of captioned pictures under column headings, drawn with Pillow and its own font."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from gfm_pipeline.sensors.render import Picture

INK, FAINT, EMPTY = (43, 43, 43), (128, 128, 128), (246, 245, 243)
CELL_PX = 232
_GAP, _GROUP_GAP, _MARGIN = 8, 20, 24
_TITLE, _HEADING, _KEY_LINE, _CAPTION, _ROW_GAP = 58, 44, 24, 20, 12
_STRIPE_GAP = 40
_WIDE, _NARROWEST = 1200, 560
"""Rows stand side by side as long as they fit into the first of these; the title needs the second."""
_SMOOTH_BELOW = 2.5
"""Pictures that are enlarged more keep their pixels as squares."""


@dataclass(frozen=True)
class Tile:
    """One picture and the line below it."""

    picture: Picture
    caption: str
    classes: bool = False
    """Whether colours are class numbers, which must not be mixed."""


@dataclass(frozen=True)
class Column:
    """The heading of a column and the line below it."""

    name: str
    note: str


@dataclass(frozen=True)
class Row:
    """One sample: what it is called, what is known of it, and its tiles, column by column."""

    name: str
    note: str
    cells: Sequence[Sequence[Tile]]


def draw_sheet(title: str, note: str, columns: Sequence[Column], rows: Sequence[Row]) -> bytes:
    """Return the sheet as PNG; a column is as wide as its row with most tiles, an empty cell is left blank.

    Narrow rows stand side by side, under headings of their own.
    """
    counts = [max([1, *(len(row.cells[i]) for row in rows)]) for i in range(len(columns))]
    widths = [count * (CELL_PX + _GAP) - _GAP for count in counts]
    stripe = sum(widths) + (len(widths) - 1) * _GROUP_GAP
    abreast = max(1, min(len(rows), (_WIDE + _STRIPE_GAP) // (stripe + _STRIPE_GAP)))
    width = max(2 * _MARGIN + abreast * (stripe + _STRIPE_GAP) - _STRIPE_GAP, _NARROWEST)
    pitch = _KEY_LINE + CELL_PX + _CAPTION + _ROW_GAP
    lines = -(-len(rows) // abreast)
    image = Image.new("RGB", (width, _MARGIN + _TITLE + _HEADING + pitch * lines), "white")
    pen = ImageDraw.Draw(image)
    _write(pen, (_MARGIN, _MARGIN - 4), title, 22, INK, width - 2 * _MARGIN)
    _write(pen, (_MARGIN, _MARGIN + 26), note, 13, FAINT, width - 2 * _MARGIN)
    for place in range(abreast):
        lefts = [_MARGIN + place * (stripe + _STRIPE_GAP)]
        for room in widths:
            lefts.append(lefts[-1] + room + _GROUP_GAP)
        for left, room, column in zip(lefts, widths, columns, strict=False):
            _write(pen, (left, _MARGIN + _TITLE), column.name, 16, INK, room)
            _write(pen, (left, _MARGIN + _TITLE + 21), column.note, 12, FAINT, room)
        for line, row in enumerate(rows[place::abreast]):
            top = _MARGIN + _TITLE + _HEADING + line * pitch
            _draw_row(image, pen, top, lefts, row)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _draw_row(image: Image.Image, pen: ImageDraw.ImageDraw, top: int, lefts: Sequence[int], row: Row) -> None:
    """Draw a row whose cells begin at all but the last of `lefts`, which is where the next row abreast would."""
    end = _write(pen, (lefts[0], top + 4), row.name, 13, INK, lefts[-1] - lefts[0] - _GROUP_GAP)
    _write(pen, (end + 12, top + 5), row.note, 12, FAINT, lefts[-1] - _GROUP_GAP - end - 12)
    top += _KEY_LINE
    for left, tiles in zip(lefts, row.cells, strict=False):
        if not tiles:
            pen.rectangle((left, top, left + CELL_PX - 1, top + CELL_PX - 1), fill=EMPTY)
            pen.text((left + CELL_PX / 2, top + CELL_PX / 2), "not in this sample", FAINT, _font(12), anchor="mm")
        for number, tile in enumerate(tiles):
            x = left + number * (CELL_PX + _GAP)
            shown = _fit(tile)
            image.paste(shown, (x, top))
            _write(pen, (x, top + shown.height + 4), tile.caption, 12, FAINT, CELL_PX)


def _fit(tile: Tile) -> Image.Image:
    """Return the picture with its longer side as long as a cell."""
    image = Image.fromarray(tile.picture)
    scale = CELL_PX / max(image.size)
    if tile.classes or scale > _SMOOTH_BELOW:
        method = Image.Resampling.NEAREST
    else:
        method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), method)


def _write(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: tuple[int, int, int], room: int
) -> int:
    """Write a line, cut to `room` pixels with an ellipsis; return where it ends."""
    font = _font(size)
    if pen.textlength(text, font) > room:
        while text and pen.textlength(text + "...", font) > room:
            text = text[:-1]
        text = text + "..." if text else ""
    pen.text(at, text, colour, font)
    return at[0] + round(pen.textlength(text, font))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
