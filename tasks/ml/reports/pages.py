"""Tables, pictures and lines to copy as one HTML file that opens offline: no script, no font, nothing is fetched."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root {
  color-scheme: light dark;
  --line: #8884; --soft: #8881; --accent: #0072b2; --warm: #c04a00; --green: #00795a; --link: #005a9c;
}
@media (prefers-color-scheme: dark) {
  :root { --accent: #56b4e9; --warm: #ff9f5a; --green: #3ddba6; --link: #8ecbff; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h1 + p { margin-top: 0.25rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.tables { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 0 2rem; }
.scroll { overflow-x: auto; margin: 1rem 0; max-width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption, figcaption, h2, h3 { font-size: 1rem; font-weight: 600; text-align: left; margin: 0 0 0.4rem; }
caption { white-space: nowrap; padding-bottom: 0.4rem; }
th, td { padding: 0.2rem 1.25rem 0.2rem 0; text-align: left; vertical-align: top; }
.words td { max-width: 24rem; overflow-wrap: break-word; }
thead > tr > * { border-bottom: 1px solid; }
th[scope=row] { font-weight: 400; white-space: pre; }
tbody tr:not(.below) + tr:not(.below) > *, .below + tr:not(.below) > * { border-top: 1px solid var(--line); }
.below { opacity: 0.75; }
.numbers td, .numbers thead th { text-align: right; white-space: nowrap; }
.remark { max-width: 20rem; margin: 0.5rem 0 0; opacity: 0.75; }
figure { margin: 1rem 0; }
.picture { background: white; border-radius: 6px; padding: 0.5rem; }
.picture svg { display: block; max-width: 100%; height: auto; }
"""

SECTIONS = """
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin: 1rem 0; padding: 0; }
h1 { font-size: 2rem; line-height: 1.2; }
section { border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 1.25rem; }
h2 { font-size: 1.35rem; margin: 0 0 0.5rem; }
.figures { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 1.25rem 0; padding: 0; }
.figures > div { background: var(--soft); border-radius: 8px; padding: 0.6rem 1rem; min-width: 8rem; }
.figures > div { box-sizing: border-box; }
.figures dt { font-size: 0.875rem; }
.figures dd { margin: 0; font-size: 1.5rem; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
.figures dd + dd { font-size: 0.875rem; font-weight: 400; }
.remark { max-width: 44rem; opacity: 0.8; }
.words :is(td, thead th) { white-space: nowrap; }
.words td.long { max-width: 30rem; min-width: 14rem; white-space: normal; }
.facts { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0 1.5rem; margin: 1rem 0; }
.facts dt, .facts dd { padding: 0.2rem 0; }
.facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.facts dt { opacity: 0.8; }
.matrix caption { padding-bottom: 0.6rem; white-space: normal; }
.matrix th { font-weight: 400; padding: 0.25rem 0.6rem; white-space: nowrap; }
.matrix thead th { border: 0; text-align: center; }
.matrix tbody th { text-align: right; }
.matrix td { border: 1px solid var(--line); min-width: 2.2rem; padding: 0.25rem 0.5rem; text-align: center; }
.matrix td { background: color-mix(in srgb, var(--shade) calc(var(--share) * 40%), transparent); }
.matrix td { --shade: var(--warm); }
.matrix td.right { --shade: var(--accent); font-weight: 600; }
.matrix td.none { opacity: 0.55; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.charts figure { flex: 1 1 20rem; max-width: 33rem; min-width: 0; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font: 12px system-ui, sans-serif; fill: currentColor; }
.chart .axis { stroke: currentColor; stroke-opacity: 0.6; }
.chart .grid { stroke: currentColor; stroke-opacity: 0.15; }
.chart .kept { stroke: currentColor; stroke-opacity: 0.6; stroke-dasharray: 2 3; }
.chart .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.chart .dot { stroke: none; }
.chart .c0 { stroke: var(--accent); } .chart .dot.c0 { fill: var(--accent); }
.chart .c1 { stroke: var(--warm); stroke-dasharray: 7 4; } .chart .dot.c1 { fill: var(--warm); }
.chart .c2 { stroke: var(--green); stroke-dasharray: 2 3; } .chart .dot.c2 { fill: var(--green); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: 1rem; padding: 0; }
.gallery li { list-style: none; font-size: 0.875rem; line-height: 1.35; overflow-wrap: anywhere; }
.gallery img { display: block; width: 100%; max-width: 8rem; margin-bottom: 0.3rem; }
.pixels { image-rendering: pixelated; border: 1px solid var(--line); }
.file { display: flex; align-items: center; gap: 1rem; }
.file img { width: 6rem; }
pre { background: var(--soft); border-radius: 8px; padding: 0.75rem 1rem; margin: 0; }
pre { overflow: auto; max-height: 28rem; }
pre, code { font: 0.875rem/1.5 ui-monospace, monospace; }
pre { tab-size: 4; }
.copied { margin: 1rem 0; }
.copied h3 { font-size: 1rem; }
.findings > li { margin-bottom: 0.75rem; }
details { margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
@media print { nav { display: none; } pre { max-height: none; white-space: pre-wrap; } }
@media (max-width: 40rem) { body { margin: 1rem auto; } h1 { font-size: 1.6rem; } .figures > div { flex: 1 1 40%; } }
"""


LONG = 32
"""Characters of a cell from which on it may be broken into lines."""


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


@dataclass(frozen=True, slots=True)
class Facts:
    """Names, each with what is to be known of it."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Charts:
    """Pictures beside each other, drawn in the page's own colours."""

    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Counts, true class by predicted class; what is wrong is shaded beside the largest that is."""

    caption: str
    remark: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Image:
    """A PNG file, with what it shows in words and what stands below it."""

    png: bytes
    alt: str
    caption: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images beside each other."""

    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class File:
    """An image that can be saved under a name."""

    name: str
    image: Image


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to copy."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences, each below a word of its own and above lines that help, if there are any."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A table that is opened by those who want to see it."""

    table: Table


Part = Table | Facts | Charts | Matrix | Gallery | File | Code | Words | Points | Folded


@dataclass(frozen=True, slots=True)
class Section:
    """What stands below a heading."""

    name: str
    """By which it is linked to: one word."""
    heading: str
    parts: tuple[Part, ...]


Figure = tuple[str, str, str]
"""What it is, its value, and a remark."""


def page(title: str, lead: str, tables: Sequence[Table], notes: Sequence[str], pictures: Sequence[Picture]) -> str:
    """Lay out a page. All text is escaped; an SVG element goes in as it is."""
    items = "".join(f"<li>{escape(note)}</li>\n" for note in notes)
    return _document(
        title,
        STYLE,
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n"
        f'<div class="tables">\n{"".join(map(_table, tables))}</div>\n'
        + (f"<h2>Notes</h2>\n<ul>\n{items}</ul>\n" if notes else "")
        + "".join(map(_picture, pictures)),
    )


def sections(title: str, lead: str, figures: Sequence[Figure], parts: Sequence[Section]) -> str:
    """Lay out a longer page, whose sections are linked to from its top. All text is escaped, as in `page`."""
    links = "".join(f'<li><a href="#{escape(one.name)}">{escape(one.heading)}</a></li>\n' for one in parts)
    return _document(
        title,
        STYLE + SECTIONS,
        f"<h1>{escape(title)}</h1>\n<p>{escape(lead)}</p>\n"
        f'<dl class="figures">\n{"".join(map(_figure, figures))}</dl>\n'
        f'<nav aria-label="Sections">\n<ul>\n{links}</ul>\n</nav>\n' + "".join(map(_section, parts)),
    )


def _document(title: str, style: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )


def _figure(figure: Figure) -> str:
    name, value, remark = map(escape, figure)
    return f"<div><dt>{name}</dt><dd>{value}</dd>" + (f"<dd>{remark}</dd>" if remark else "") + "</div>\n"


def _section(section: Section) -> str:
    body = "".join(map(_part, section.parts))
    return f'<section id="{escape(section.name)}">\n<h2>{escape(section.heading)}</h2>\n{body}</section>\n'


def _part(part: Part) -> str:
    match part:
        case Table():
            return _table(part)
        case Folded():
            return f"<details>\n<summary>{escape(part.table.caption)}</summary>\n{_table(part.table)}</details>\n"
        case Charts():
            return f'<div class="charts">\n{"".join(map(_chart, part.pictures))}</div>\n'
        case Matrix():
            return _matrix(part)
        case Gallery():
            return f'<ul class="gallery">\n{"".join(map(_image, part.images))}</ul>\n'
        case File():
            return _file(part)
        case _:
            return _text(part)


def _text(part: Facts | Code | Words | Points) -> str:
    match part:
        case Facts():
            rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>\n" for name, value in part.rows)
            return f'<dl class="facts">\n{rows}</dl>\n'
        case Code():
            # It can be scrolled by the keyboard alone.
            block = f'<pre tabindex="0"><code>{escape(part.text)}</code></pre>'
            return f'<div class="copied">\n<h3>{escape(part.caption)}</h3>\n{block}\n</div>\n'
        case Words():
            return f"<p>{escape(part.text)}</p>\n"
        case Points():
            return f'<ul class="findings">\n{"".join(map(_point, part.items))}</ul>\n'


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
    values = "".join(map(_cell, rest))
    kind = ' class="below"' if first.startswith(" ") else ""
    return f'<tr{kind}><th scope="row">{escape(first)}</th>{values}</tr>\n'


def _cell(text: str) -> str:
    return f'<td class="long">{escape(text)}</td>' if len(text) > LONG else f"<td>{escape(text)}</td>"


def _matrix(matrix: Matrix) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in matrix.classes)
    wrong = (count for row, each in enumerate(matrix.counts) for at, count in enumerate(each) if at != row)
    worst = max(wrong, default=0)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{_shaded(counts, index, worst)}</tr>\n'
        for index, (name, counts) in enumerate(zip(matrix.classes, matrix.counts, strict=True))
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(matrix.caption)}">\n'
        f'<table class="matrix">\n<caption>{escape(matrix.caption)}</caption>\n'
        f"<thead><tr><td></td>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
        f'<p class="remark">{escape(matrix.remark)}</p>\n</div>\n'
    )


def _shaded(counts: tuple[int, ...], index: int, worst: int) -> str:
    cells = ""
    for column, count in enumerate(counts):
        kind, of = ("right", sum(counts)) if column == index else ("wrong" if count else "none", worst)
        cells += f'<td class="{kind}" style="--share:{count / max(of, 1):.3f}">{count:,}</td>'
    return cells


def _picture(picture: Picture) -> str:
    return (
        f"<figure>\n<figcaption>{escape(picture.caption)}</figcaption>\n"
        f'<div class="picture" role="img" aria-label="{escape(picture.caption)}">\n{picture.svg}</div>\n</figure>\n'
    )


def _chart(picture: Picture) -> str:
    return f"<figure>\n<figcaption>{escape(picture.caption)}</figcaption>\n{picture.svg}</figure>\n"


def _image(image: Image) -> str:
    return f"<li>{_element(image)}{escape(image.caption)}</li>\n"


def _file(file: File) -> str:
    link = f'<a download="{escape(file.name)}" href="{_address(file.image)}">Save {escape(file.name)}</a>'
    return f'<p class="file">{_element(file.image)}<span>{escape(file.image.caption)} {link}</span></p>\n'


def _element(image: Image) -> str:
    return f'<img class="pixels" alt="{escape(image.alt)}" src="{_address(image)}">'


def _address(image: Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(image.png).decode()}"


def _point(item: tuple[str, str, str]) -> str:
    name, sentence, help_ = map(escape, item)
    return f"<li><strong>{name}</strong><br>{sentence}{f'<br><code>{help_}</code>' if help_ else ''}</li>\n"
