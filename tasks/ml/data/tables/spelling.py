"""How the texts of a table are spelt: numbers with signs and separators, and values that differ by spelling only.

Every function that takes an Arrow array works on whole columns.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

Array: TypeAlias = pa.Array | pa.ChunkedArray

SPACES = " \t\u00a0\u2007\u2009\u202f"
"""Characters that separate groups of digits, or a number from its unit, besides punctuation."""
MINUS = "\u2212"
"""The minus sign of typography, which programs write in place of a hyphen."""
_LONGEST_UNIT = 8
_NUMERIC = re.compile(rf"[\d.,+'\u2019{MINUS}\s-]+|(?<=\d)_(?=\d)")
_UNDERSCORES = re.compile(r"[+-]?\d{1,3}(_\d{3})+(\.\d*)?")
_PLAIN = re.compile(r"(?P<sign>[+-]?)(?P<whole>0|[1-9]\d*)(?:\.(?P<fraction>\d*?)0*)?")
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([T ].*)?")
_MONTH = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_WRITTEN_DATE = re.compile(
    rf"(\w+,? )?(\d{{1,2}}\.?[ -]({_MONTH})\w*\.?,?[ -]\d{{2,4}}|({_MONTH})\w*\.? \d{{1,2}},? \d{{4}})( .*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[ap]\.?m\.?)?|\d{4}-\d{2}",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How numbers are written in a text column. Training determines it, and prediction reads by it."""

    decimal: Literal[".", ","] = "."
    """Character before the fraction."""
    unit: str = ""
    """Sign of a currency, `%`, or unit that stands beside each number; it is dropped. Letters stand behind it only."""
    underscores: bool = True
    """Whether `_` may separate groups of digits, too. No column is taken for numbers because of it."""

    def plain(self, texts: Array) -> Array:
        """Rewrite numbers without groups of digits, unit and typographic minus; null where a text is no number."""
        after = f"({re.escape(self.unit)})?" if self.unit else ""
        before = "" if any(map(str.isalpha, self.unit)) else after  # id7 is a name
        group = (
            (",." if self.decimal == "," else ",").replace(self.decimal, "")
            + "'\u2019"
            + SPACES
            + "_" * self.underscores
        )
        start, end = (rf"[{SPACES}]*{unit}[{SPACES}]*" for unit in (before, after))
        decimal = re.escape(self.decimal)
        number = rf"(\d{{1,3}}([{group}]\d{{3}})+|\d+)({decimal}\d*)?|{decimal}\d+"
        pattern = rf"^[+-]?{start}[+-]?({number})([eE][+-]?\d+)?{end}$"
        hyphened = compute.replace_substring(texts, MINUS, "-")
        bare = compute.replace_substring_regex(
            hyphened, rf"[{group}]" + (f"|{re.escape(self.unit)}" * bool(self.unit)), ""
        )
        written = compute.replace_substring(bare, self.decimal, ".")
        return compute.if_else(compute.match_substring_regex(hyphened, pattern), written, None)


def number_format(decimal: str, unit: str) -> NumberFormat | None:
    """Return the format of a column's numbers; None, if `decimal` is empty, for those of programming languages."""
    return NumberFormat("," if decimal == "," else ".", unit) if decimal else None


def unit_of(texts: Iterable[str]) -> str:
    """Return what stands beside most of the numbers in these texts, such as `%` or `kg`; empty if nothing does."""
    units = Counter(_NUMERIC.sub("", text) for text in texts if any(map(str.isdigit, text)) and not text[0].isalpha())
    ((unit, count),) = units.most_common(1) or (("", 0),)
    return unit if len(unit) <= _LONGEST_UNIT and 2 * count > units.total() else ""


def plain_number(text: str) -> str:
    """Return a number without sign `+`, final zeros and decimal point, or an empty text if it is not a plain number.

    `1`, `1.0` and `+1.` give `1`. A text with leading zeros is a code, not a number.
    """
    if not (found := _PLAIN.fullmatch(text)):
        return ""
    number = found["whole"] + (f".{found['fraction']}" if found["fraction"] else "")
    return f"-{number}" if found["sign"] == "-" and number != "0" else number


def composed(text: str) -> str:
    """Return a plain number as `plain_number` does, and any other text with composed accents (Unicode form NFC)."""
    return plain_number(text) or unicodedata.normalize("NFC", text)


def folded(text: str) -> str:
    """Return what texts have in common that differ only by case, blanks, Unicode form, final dot or decimal zeros."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".") or text
    return plain_number(plain) or plain


def alike(values: Sequence[str], *, zeros: bool = False) -> list[list[str]]:
    """Return groups of values that differ by their spelling only.

    Args:
        values: distinct values.
        zeros: whether leading zeros are a matter of spelling, too.
    """
    groups: dict[str, list[str]] = {}
    for value in values:
        key = folded(value)
        groups.setdefault(re.sub(r"^0+(?=\d+$)", "", key) if zeros else key, []).append(value)
    return [group for group in groups.values() if len(group) > 1]


def is_date(text: str) -> bool:
    """Return whether a text is a date in numbers, such as 2026-11-30 or 30.11.2026; 45-2-10 is a part number."""
    if not _DATE.fullmatch(text):
        return False
    first, second, third = (int(part) for part in re.findall(r"\d+", text)[:3])
    month, day = sorted((second, third) if first > 999 else (first, second))
    return 1 <= month <= 12 and day <= 31


def are_written_dates(numbers: NDArray[np.float64]) -> bool:
    """Return whether all numbers are dates without separators, such as 20261130, 202611 or 2026."""
    if not len(numbers) or (numbers != np.floor(numbers)).any():
        return False
    texts = np.unique(numbers).astype(np.int64).astype(str).tolist()
    month, day = "(0[1-9]|1[0-2])", "(0[1-9]|[12][0-9]|3[01])"
    return any(all(re.fullmatch(rf"[12]\d{{3}}{rest}", text) for text in texts) for rest in ("", month, month + day))


def is_written_date(text: str) -> bool:
    """Return whether a text is a date with the name of a month, a time of day, or a month."""
    return bool(_WRITTEN_DATE.fullmatch(text))


def has_underscores(text: str) -> bool:
    """Return whether a text is a number whose digits are grouped by underscores, such as 1_000."""
    return bool(_UNDERSCORES.fullmatch(text))


def is_padded(text: str) -> bool:
    """Return whether a text is a whole number with a leading zero, such as a postal code."""
    return len(text) > 1 and text[0] == "0" and text.isdecimal()
