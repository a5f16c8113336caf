"""Forms in which people write dates, besides ISO 8601. Imports no pyarrow, so that a certificate can be checked."""

_DAY, _MONTH, _YEAR = r"(?P<d>0?[1-9]|[12]\d|3[01])", r"(?P<m>0?[1-9]|1[0-2])", r"(?P<y>\d{4})"
_NAME = (
    r"(?P<b>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,? )?"
_TIME = r"(?:,?[T ]+(?P<h>\d{1,2}):(?P<i>\d{2})(?::(?P<s>\d{2}(?:\.\d{1,6})?))?(?: ?(?P<p>[ap])\.?m\.?)?)?"

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
"""The first letters of the names of months, in English."""
FORMATS = {
    "DD.MM.YYYY": rf"{_DAY}\.{_MONTH}\.{_YEAR}",
    "DD/MM/YYYY": rf"{_DAY}/{_MONTH}/{_YEAR}",
    "MM/DD/YYYY": rf"{_MONTH}/{_DAY}/{_YEAR}",
    "DD-MM-YYYY": rf"{_DAY}-{_MONTH}-{_YEAR}",
    "MM-DD-YYYY": rf"{_MONTH}-{_DAY}-{_YEAR}",
    "YYYY/MM/DD": rf"{_YEAR}[/.]{_MONTH}[/.]{_DAY}",
    "YYYY-MM": rf"{_YEAR}-{_MONTH}",
    "DD month YYYY": rf"{_WEEKDAY}{_DAY}\.?[ -]{_NAME},?[ -]{_YEAR}",
    "month DD, YYYY": rf"{_WEEKDAY}{_NAME} {_DAY},? {_YEAR}",
}
"""Pattern of the date by the name of its form, which certificates and messages state."""


def pattern(name: str) -> str:
    """Return the pattern of a whole text in a form of `FORMATS`, with the time of day that may follow the date.

    Its groups are `d`, `m` or `b` (name), `y`, `h`, `i` (minute), `s` and `p` (`a` or `p`, of am and pm).
    """
    return rf"(?i)^{FORMATS[name]}{_TIME}$"
