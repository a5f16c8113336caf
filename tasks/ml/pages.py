"""Tables and a picture as one HTML file that opens offline: no script, no font, nothing that is fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h1 + p { margin-top: 0.25rem; }
.tables { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption, h2 { font-size: 1rem; font-weight: 600; text-align: left; margin: 0 0 0.4rem; }
caption { white-space: nowrap; padding-bottom: 0.4rem; }
th, td { padding: 0.2rem 1.25rem 0.2rem 0; text-align: left; vertical-align: top; }
.words td { max-width: 24rem; overflow-wrap: break-word; }
thead > tr > * { border-bottom: 1px solid; }
th[scope=row] { font-weight: 400; white-space: pre; }
tbody tr:not(.below) + tr:not(.below) > *, .below + tr:not(.below) > * { border-top: 1px solid #8884; }
.below { opacity: 0.75; }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; }
.remark { max-width: 20rem; margin: 0.5rem 0 0; opacity: 0.75; }
figure { margin: 1rem 0; }
.picture { background: white; border-radius: 6px; padding: 0.5rem; }
.picture svg { display: block; max-width: 100%; height: auto; }
"""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first of each row is its heading: with blanks before it where it belongs to the row above."""

    caption: str
    remark: str
    """A sentence below the table, or nothing."""
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    has_numbers: bool
    """Whether all cells but the first of a row are numbers, or stand for one."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An SVG element, and what it shows."""

    caption: str
    svg: str


def page(title: str, lead: str, tables: Sequence[Table], notes: Sequence[str], pictures: Sequence[Picture]) -> str:
    """Lay out a page. All text is escaped; an SVG element goes in as it is."""
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n"
        f'<div class="tables">\n{"".join(map(_table, tables))}</div>\n'
        + (f"<h2>Notes</h2>\n<ul>\n{items}</ul>\n" if notes else "")
        + "".join(map(_picture, pictures))
        + "</main>\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' if name else "<td></td>" for name in table.headings)
    kind = "numbers" if table.has_numbers else "words"
    remark = f'<p class="remark">{escape(table.remark)}</p>\n' if table.remark else ""
    return (
        f'<div class="scroll">\n<table class="{kind}">\n'
        f"<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{''.join(map(_row, table.rows))}</tbody>\n</table>\n{remark}</div>\n"
    )


def _row(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    values = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
    kind = ' class="below"' if first.startswith(" ") else ""
    return f'<tr{kind}><th scope="row">{escape(first)}</th>{values}</tr>\n'


def _picture(picture: Picture) -> str:
    return (
        f"<figure>\n<figcaption>{escape(picture.caption)}</figcaption>\n"
        f'<div class="picture" role="img" aria-label="{escape(picture.caption)}">\n{picture.svg}</div>\n</figure>\n'
    )
