"""Cases of predicting rows that differ from the training table, of splits, and of what a table has too much of."""

from tests.cases.case import Case
from tests.cases.words import (
    EITHER,
    READ,
    REFUSED,
    SHORT,
    TARGET,
    any_of,
    categorical,
    finding,
    predict,
    read,
    training,
)

_TRAINED = f"drift/t.csv {SHORT} --data.columns.code categorical"


def _same(name: str, suffix: str = "csv") -> Case:
    """Return a case of the same eight rows in another form."""
    file = f"drift/{name}.{suffix}"
    return predict(f"drift {name}.{suffix}", _TRAINED, file, "as from Parquet", equals="drift/rows.parquet")


def _refused(
    name: str, *has: str, expected: str = "is refused with row and column", lacks: tuple[str, ...] = ()
) -> Case:
    """Return a case of rows that do not fit the model."""
    return predict(f"drift {name}.csv", _TRAINED, f"drift/{name}.csv", expected, *has, code=REFUSED, lacks=lacks)


DRIFT = (
    *map(_same, ("rows", "reordered", "extra", "with_target", "spaced_names", "index", "crlf_bom", "blank_line")),
    _same("int_codes", "parquet"),
    _same("float_codes", "parquet"),
    predict(
        "drift float_codes.csv",
        _TRAINED,
        "drift/float_codes.csv",
        "as the same file in Parquet: 1.0 is 1",
        equals="drift/float_codes.parquet",
    ),
    Case(
        "drift stdin",
        "predict drift-t - < drift/crlf_bom.csv",
        "as from Parquet",
        equals="drift/rows.parquet",
        after=(training(_TRAINED)[1],),
    ),
    predict(
        "drift all_empty.csv",
        _TRAINED,
        "drift/all_empty.csv",
        "says that two columns have no value",
        r"\bb\b.*\bc\b",
        any_of("(?i:missing)", "(?i:no value)", "(?i:empty)"),
        code=EITHER,
    ),
    predict("drift unseen.csv", _TRAINED, "drift/unseen.csv", "8 unknown values", "^predict +8 rows, 8 "),
    predict(
        "drift case_values.csv",
        _TRAINED,
        "drift/case_values.csv",
        "8 unknown values",
        "^predict +8 rows, 8 ",
    ),
    predict("drift plus.csv", _TRAINED, "drift/plus.csv", "predicts", "^predict +8 rows"),
    _refused("missing", "missing: 'b'"),
    _refused("inf", "row 1, column 'a'"),
    _refused("big", "row 1, column 'a'"),
    _refused("text", "row 1, column 'a'"),
    _refused("truths", "row 1, column 'a'"),
    _refused("decimal_comma", "row 1, column '[ab]'"),
    _refused("thousands", "row 1, column 'b'"),
    _refused("short_row", "row 9"),
    _refused("empty", "no heading|empty"),
    _refused("heading", "no rows"),
    _refused("comment"),
    _refused("semicolon_missing", "missing: 'b'", expected="is refused: b alone is missing", lacks=("missing: 'a'",)),
    _refused("case_names", "'A'", expected="is refused: did you mean A"),
    _refused("latin1", any_of("line 2", "row 1"), "iconv|latin", expected="is refused as training does: line, iconv"),
    _refused("utf16", "iconv|utf-16", expected="is refused as training does: line, iconv"),
    predict(
        "drift pipe.csv",
        _TRAINED,
        "drift/pipe.csv",
        "is read, or the separator is named",
        any_of("^predict +8 rows", r"separat"),
        code=EITHER,
    ),
    _same("t.csv", "gz"),
    predict("drift parquet_zero", _TRAINED, "parquet_zero/rows.parquet", "is refused", code=REFUSED),
)
ONE_COLUMN = (
    predict(
        "one_column",
        "one_column/t.csv",
        "one_column/rows.csv",
        "5 rows, 2 of them missing",
        equals="one_column/rows.parquet",
    ),
    predict(
        "one_column, quoted",
        "one_column/t.csv",
        "one_column/quoted.csv",
        "3 rows, 1 of them missing",
        equals="one_column/quoted.parquet",
    ),
    predict(
        "one_column of text",
        "one_column/text.csv",
        "one_column/text_rows.csv",
        "3 rows, 1 of them missing",
        equals="one_column/text_rows.parquet",
    ),
)


def _split(name: str, option: str, expected: str, *has: str, **more: object) -> Case:
    return read(f"{name}, {option}", f"{name}.csv", expected, *has, options=f"{TARGET} --data.split.{option}", **more)


SPLITS = (
    *(
        _split(f"time/{name}", "time when", "is split by time", "^split .*time when")
        for name in ("iso", "tz", "ymd", "numbers", "dmy", "us", "short", "month")
    ),
    _split("time/missing", "time when", "is refused with the row", "row 10, column 'when'", code=REFUSED),
    _split(
        "time/late_class",
        "time when",
        "is refused: new is seen only from a day on",
        "'new'",
        code=REFUSED,
        lacks=("choose a larger share",),
    ),
    _split("split/group", "group patient", "is split by group", "^split .*group patient"),
    _split("split/two_groups", "group patient", "is refused, with the reason", code=REFUSED),
    _split("split/group_class", "group patient", "is refused, with the reason", code=REFUSED),
    _split(
        "split/capitals",
        "column fold",
        "is split by column, or refused with the value",
        any_of("^split .*column fold", "found '[TV]"),
        code=EITHER,
    ),
    _split(
        "split/val",
        "column fold",
        "is split by column, or refused with the value",
        any_of("^split .*column fold", "found 'val'"),
        code=EITHER,
    ),
    read(
        "duplicated",
        "duplicated/t.csv",
        "a finding",
        finding("duplicates_across_splits"),
        options=f"{TARGET} --data.split.method stratified",
    ),
)
_REMEDY = "--training.loss.weight 0.502,150"
BALANCE = (
    read("rare_positive", "rare_positive/t.csv", "a finding", finding("imbalanced_classes")),
    Case(
        "rare_positive, with its remedy",
        f"train rare_positive/t.csv {TARGET} --name rare {_REMEDY}",
        "no word of no_better_than_prior",
        ("^parity +passed",),
        ("no_better_than_prior",),
    ),
    read("thousand", "thousand/t.csv", "is read, and said to be hard", finding("rare_classes")),
    read("wide", "wide/t.csv", "is read", "x1999|numeric: x0"),
    read("million", "million/t.parquet", "is read", *READ[:2], categorical("c")),
)

CASES = (*DRIFT, *ONE_COLUMN, *SPLITS, *BALANCE)
