import pyarrow as pa
import pytest

from hallmark.tasks.ml.data.tables import spelling
from hallmark.tasks.ml.data.tables.spelling import NumberFormat


@pytest.mark.parametrize(
    ("decimal", "unit", "texts", "numbers"),
    [
        (".", "", ["1,234", "12,345,678.5", "-3", "+4e0", ".5", "5."], [1234, 12345678.5, -3, 4, 0.5, 5]),
        (".", "", ["1\u00a0234", "1\u202f234.5", "1'234", "1\u2019234", "\u22121.5"], [1234, 1234.5, 1234, 1234, -1.5]),
        (".", "", ["1_234", "12_345_678.5"], [1234, 12345678.5]),
        (".", "%", ["12%", "13.5 %", "-4%", "7"], [12, 13.5, -4, 7]),
        (".", "$", ["$1,234.50", "-$5", "$-5", "$ 6"], [1234.5, -5, -5, 6]),
        (".", "kg", ["12.5 kg", "3kg"], [12.5, 3]),
        (",", "", ["1,5", "1.234,5", "-0,5", "3", "1.234"], [1.5, 1234.5, -0.5, 3, 1234]),
        (",", "\u20ac", ["1,50 \u20ac", "\u20ac3"], [1.5, 3]),
        (".", "", ["1,23", "1_23", "12%", "x", "", "-", "1-2", "1.2.3"], [None] * 8),
        (",", "", ["1.5", "1,5,5", "1.23"], [None] * 3),
        (".", "kg", ["5 lb", "kg"], [None] * 2),
    ],
)
def test_numbers_are_read_as_they_are_written(
    decimal: str, unit: str, texts: list[str], numbers: list[float | None]
) -> None:
    form = spelling.number_format(decimal, unit)
    assert form
    assert form.plain(pa.array(texts)).cast(pa.float64()).to_pylist() == numbers


def test_the_unit_is_what_stands_beside_most_numbers() -> None:
    assert spelling.unit_of(["12%", "1,5 %", "?"]) == "%"
    assert spelling.unit_of(["$5", "$6", "7 kg"]) == "$"
    assert spelling.unit_of(["$5", "7 kg", "8%"]) == ""
    assert spelling.unit_of(["1,234", "-", "unknown", "x"]) == ""
    assert spelling.unit_of(["id1", "id2", "id3"]) == ""
    assert spelling.unit_of([]) == ""
    assert spelling.unit_of(["1_000", "2_000 kg", "3_000 kg"]) == "kg"
    # Recognizing them would change the digests of datasets whose columns are categories.
    assert NumberFormat(underscores=False).plain(pa.array(["1_000", "1,000"])).to_pylist() == [None, "1000"]
    assert spelling.number_format("", "") is None
    assert NumberFormat().plain(pa.chunked_array([["1"], [None]])).to_pylist() == ["1", None]


def test_values_that_differ_by_spelling_are_alike() -> None:
    values = [
        "1",
        "1.0",
        "2",
        "Yes",
        "yes ",
        "YES.",
        ">50K",
        ">50K.",
        "01",
        "\u00e9",
        "e\u0301",
        "New  York",
        "new york",
    ]
    assert spelling.alike(values) == [
        ["1", "1.0"],
        ["Yes", "yes ", "YES."],
        [">50K", ">50K."],
        ["\u00e9", "e\u0301"],
        ["New  York", "new york"],
    ]
    assert spelling.alike(["01", "1", "2"]) == []
    assert spelling.alike(["01", "1", "2"], zeros=True) == [["01", "1"]]
    assert [spelling.plain_number(text) for text in ("1.0", "+1.", "-0.0", "1.50", "007", "1e3", "x")] == [
        "1", "1", "0", "1.5", "", "", "",
    ]  # fmt: skip


def test_dates_are_told_from_part_numbers() -> None:
    for text in ("2026-11-30", "2026/1/2 10:30", "30.11.2026", "11/30/26", "1-2-2026"):
        assert spelling.is_date(text), text
    for text in ("45-2-10", "1.0.10", "2026-13-40", "1-2", "10-11-123"):
        assert not spelling.is_date(text), text
    for text in ("1 May 2024", "May 01, 2031", "01-Jan-2031", "10:30", "10:30:05 pm", "Friday, 02 May 2031", "2031-05"):
        assert spelling.is_written_date(text), text
    for text in ("May", "12-34", "10:3", "the 1 May"):
        assert not spelling.is_written_date(text), text
