"""Parsing of dates, shared by training and prediction: Arrow types, numbers, ISO 8601, and one other form a column."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables import values
from hallmark.tasks.ml.data.tables.date_columns import date_formats, date_parts
from hallmark.tasks.ml.data.tables.date_columns.date_formats import FORMATS, MONTHS
from hallmark.tasks.ml.data.tables.values import Array, Location

DATE = "a date such as 2026-11-30 or 2026-11-30T10:30:00+01:00, or Unix seconds"
"""Name of an acceptable date in error messages."""
_ZONE = r":\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)$"
"""Offset from UTC at the end of a time."""
_USUAL = r"^\d{4}-\d\d-\d\d|^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""Beginning of a date in ISO 8601, or a number."""
_HALF_DAY = 12 * 3600


def parse(
    column: Array, location: Location, missing: Sequence[str] | None = None, form: str = ""
) -> NDArray[np.float64]:
    """Convert dates to Unix seconds.

    Args:
        column: a decoded input column: Arrow's dates and timestamps, numbers, which are Unix seconds, or text: ISO
            8601, a number, or `form`. Dates without an offset from UTC count as UTC.
        location: where the values come from.
        missing: texts that mark a missing value; see `values.text`.
        form: a key of `FORMATS`; empty for none.

    Returns:
        `(N,)`, NaN where a value is missing.

    Raises:
        InputError: a value is no date of the years 1 to 9999.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = _as_seconds(
            column.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False)
        )
    elif pa.types.is_temporal(kind) or pa.types.is_boolean(kind):
        raise location.error(0, DATE, f"type {kind}")
    elif values.is_text(kind):
        seconds = _parse(values.text(column, location, missing), location, form)
    else:
        seconds = column
    found = values.as_numbers(values.to_numpy(seconds), location, may_be_missing=True, wide=True)
    is_good = np.isnan(found) | ((found >= date_parts.EARLIEST) & (found <= date_parts.LATEST))
    if not is_good.all():
        index = int(is_good.argmin())
        raise location.error(index, DATE, f"{found[index]:.17g}, a date beyond the year 9999")
    return found.astype(np.float64, copy=False)


def find_form(column: Array, location: Location, missing: Sequence[str] | None = None) -> str:
    """Return the form of `FORMATS` in which the dates of a text column are written; empty for ISO 8601 and numbers.

    Raises:
        InputError: days and months cannot be told apart.
    """
    if not values.is_text(column.type):
        return ""
    texts = values.text(column, location, missing)
    others = texts.filter(compute.invert(compute.fill_null(compute.match_substring_regex(texts, _USUAL), True)))  # noqa: FBT003
    read = {form: _count(others, form) for form in FORMATS}
    best = [form for form, count in read.items() if count and count == max(read.values())]
    if len(best) > 1 and read[best[0]] == len(others):
        index = compute.index(texts, value=others[0]).as_py()
        raise location.error(index, f"YYYY-MM-DD, since all dates may be {' and '.join(best)}", f"'{others[0]}'")
    return best[0] if best else ""


def can_read(texts: Array, location: Location) -> bool:
    """Return whether all texts are missing or dates, and one is."""
    with suppress(InputError):
        return not np.isnan(parse(texts, location, form=find_form(texts, location))).all()
    return False


def _count(texts: Array, form: str) -> int:
    """Return how many texts are written in a form."""
    return int(compute.sum(compute.match_substring_regex(texts, date_formats.pattern(form))).as_py() or 0)


def _parse(texts: Array, location: Location, form: str) -> Array:
    """Parse text as Unix seconds."""
    iso, half_days = _rewritten(texts, form) if form else (texts, None)
    is_number, is_zoned = values.matches_number(iso), compute.match_substring_regex(iso, _ZONE)
    is_plain = compute.invert(compute.or_(is_number, is_zoned))
    found = [compute.if_else(is_number, iso, None).cast(pa.float64())]
    for zone, those in ((None, is_plain), ("UTC", is_zoned)):
        chosen = compute.if_else(those, iso, None)
        if (micros := _micros(chosen, zone)) is None:
            index = values.bisect(chosen, partial(_fails, zone=zone))
            raise location.error(index, f"{DATE}, or {form}" if form else DATE, f"'{texts[index]}'")
        found.append(_as_seconds(micros))
    seconds = compute.coalesce(*found)
    return seconds if half_days is None else compute.add(seconds, half_days)


def _rewritten(texts: Array, form: str) -> tuple[Array, Array]:
    """Write dates of a form in ISO 8601, and return the seconds by which `am` or `pm` moves each.

    Other texts stay as they are.
    """
    parts = compute.extract_regex(texts, date_formats.pattern(form))
    named = {field.name for field in (parts.type[index] for index in range(parts.type.num_fields))}
    field = {name: compute.struct_field(parts, name) for name in named}
    zeros = partial(compute.utf8_lpad, width=2, padding="0")
    if "b" in field:
        letters = compute.utf8_slice_codeunits(compute.utf8_lower(field["b"]), 0, 3)
        month = compute.add(compute.index_in(letters, pa.array(MONTHS, letters.type)), 1).cast(pa.string())
    else:
        month = field["m"]
    day = zeros(field["d"]) if "d" in field else "01"
    date = compute.binary_join_element_wise(field["y"], zeros(month), day, "-")
    time = compute.binary_join_element_wise(*(zeros(field[name]) for name in ("h", "i", "s")), ":")
    half = compute.utf8_lower(field["p"])
    is_noon = compute.equal(field["h"], "12")
    later = compute.and_(compute.equal(half, "p"), compute.invert(is_noon))
    earlier = compute.and_(compute.equal(half, "a"), is_noon)
    moved = compute.if_else(later, _HALF_DAY, compute.if_else(earlier, -_HALF_DAY, 0))
    return compute.coalesce(compute.binary_join_element_wise(date, time, "T"), texts), compute.fill_null(moved, 0)


def _fails(texts: Array, zone: str | None) -> bool:
    return _micros(texts, zone) is None


def _micros(texts: Array, zone: str | None) -> Array | None:
    """Parse ISO 8601 as a timestamp, or return None if any value cannot be parsed."""
    try:
        return texts.cast(pa.timestamp("us", zone))
    except pa.ArrowInvalid:
        return None


def _as_seconds(micros: Array) -> Array:
    return compute.divide(micros.cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
