from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.data.tables.date_columns import date_reading
from hallmark.tasks.ml.data.tables.values import Location
from tests.unit.ml.data.tables.test_reader import NAN, column_of, read, stored

HOURS = [0.0, 3600.0, NAN, 1_709_208_000.0]
"""1970-01-01, an hour later, none, and 2024-02-29 at noon."""


@pytest.mark.parametrize(
    "column",
    [
        ["1970-01-01", "1970-01-01T01:00Z", " ", "2024-02-29 13:00:00.000+01:00"],
        ["0", "3600.0", "NA", "2024-02-29T12:00:00"],
        pa.array([0, 3_600_000, None, 1_709_208_000_000], pa.timestamp("ms", "Asia/Tokyo")),
        pa.array([0, 3600, None, 1_709_208_000]),
    ],
    ids=["iso", "numbers", "timestamp", "integers"],
)
def test_dates_are_read_as_unix_seconds(column: object, tmp_path: Path) -> None:
    table = read(stored(tmp_path, a=column), columns={"a": "date"})
    described, found = column_of(table)
    np.testing.assert_array_equal(found, HOURS)
    assert (described.kind, described.missing, table.x.dtype) == ("date", 1, np.float64)


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        ("DD.MM.YYYY", ["29.02.2024", "3.4.2024 9:05", "2024-04-03T09:05"]),
        ("MM/DD/YYYY", ["2/29/2024", "4/3/2024 9:05 AM", "04/03/2024 09:05"]),
        ("DD month YYYY", ["Thursday, 29 February 2024", "3-APR-2024, 09:05:00", "3. Apr. 2024 9:05 am"]),
        ("month DD, YYYY", ["Feb 29, 2024", "April 3 2024 09:05", "apr 03, 2024 9:05"]),
        ("", ["2024-02-29", "2024-04-03 09:05", "1712135100"]),
    ],
)
def test_the_form_of_dates_is_found_and_kept_for_prediction(form: str, texts: list[str], tmp_path: Path) -> None:
    expected = [1_709_164_800, 1_712_135_100, 1_712_135_100, NAN]
    table = read(stored(tmp_path, a=[*texts, "NA"]), columns={"a": "date"})
    described, found = column_of(table)
    np.testing.assert_array_equal(found, expected)
    assert described.date_form == form
    location = Location("new.csv", "a", range(1, 9))
    np.testing.assert_array_equal(
        date_reading.parse(pa.array(texts[1:]), location, form=described.date_form), expected[1:3]
    )
    assert date_reading.can_read(pa.array(texts), location)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["2024-02-29", "2024-02-30", "", ""], "row 2, column 'a': expected a date such as .*, found '2024-02-30'"),
        (["30.11.2026", "", "31.2.2026", ""], "row 3, .* or DD.MM.YYYY, found '31.2.2026'"),
        (["", "1/2/2026", "3/4/2026", ""], "row 2, .* expected YYYY-MM-DD, since all dates may be DD/MM/YYYY and MM"),
        (["10:30", "", "", ""], "found '10:30'"),
        (["", "20240229", "20240301", "20240302"], "row 2, .* found 20240229: write it as YYYY-MM-DD"),
        (pa.array([1999, 2004, 2011, 2023]), "found 1999: write it as YYYY-MM-DD"),
        (pa.array([1, 1_709_208_000_000, 2, 3]), "row 2, .* found 1709208000000, a date beyond the year 9999"),
        (pa.array([1, 2, 3, 4], pa.time32("s")), "found type time32"),
    ],
)
def test_what_is_no_date_is_refused(column: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(stored(tmp_path, a=column), columns={"a": "date"})
