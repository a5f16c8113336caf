"""Cases of the meaning of values: each is read as what it is, or a finding names the column and what was seen."""

from tests.cases.case import Case
from tests.cases.words import (
    EITHER,
    READ,
    REFUSED,
    SHORT,
    TARGET,
    any_of,
    boolean,
    categorical,
    classes,
    date,
    finding,
    numeric,
    predict,
    read,
)

K = "'k'"
IDENTIFIER, CONSTANT = finding("identifier_column"), finding("constant_column")


def _numbers_or_finding(name: str) -> str:
    return any_of(numeric(name), finding(f"'{name}'"))


NUMBERS = (
    read(
        "dressed_numbers",
        "dressed_numbers/t.csv",
        "1,234, 12%, $, \u20ac and kg as numbers, or a finding each",
        *map(_numbers_or_finding, ("income", "share", "price", "change", "euro", "weight")),
        lacks=(IDENTIFIER,),
    ),
    read(
        "dressed_numbers, one numeric",
        "dressed_numbers/t.csv",
        "no word of a constant column",
        options=f"{TARGET} --data.columns.income numeric",
        lacks=(CONSTANT,),
    ),
    read(
        "nbsp_thousands",
        "nbsp_thousands/t.csv",
        "numbers, or a finding",
        _numbers_or_finding("income"),
        lacks=(IDENTIFIER,),
    ),
    read("unicode_minus", "unicode_minus/t.csv", "numbers, or a finding", _numbers_or_finding("a")),
    read("plus", "plus/t.csv", "numbers", *READ),
    read(
        "question_mark",
        "question_mark/t.csv",
        "mixed_types, with the option",
        finding("mixed_types", K, "--data"),
        lacks=(IDENTIFIER,),
    ),
    read(
        "sentinels",
        "sentinels/t.csv",
        "mixed_types, with the option",
        finding("mixed_types", K, "--data"),
        lacks=(IDENTIFIER,),
    ),
    read(
        "none_text",
        "none_text/t.csv",
        "mixed_types, with the option",
        finding("mixed_types", K, "--data"),
        lacks=(IDENTIFIER,),
    ),
    read(
        "whole_income",
        "whole_income/t.csv",
        "no finding: an amount in whole numbers",
        numeric("income"),
        lacks=(IDENTIFIER,),
    ),
    read("hex", "hex/t.csv", "categorical, or a finding", any_of(categorical("k"), finding(K))),
    read("underscore", "underscore/t.csv", "numbers, or a finding", _numbers_or_finding("k")),
    read("infinity", "infinity/t.csv", "is refused with row and column", f"row 4, column {K}", code=REFUSED),
    read(
        "few_words",
        "few_words/t.csv",
        "no finding: three numbers and one word are categories",
        categorical("k"),
        lacks=(finding("mixed_types"),),
    ),
    read("blank_number", "blank_number/t.csv", "numeric, 11 missing", r"k \(11 missing\)"),
)
_TOLD = any_of(finding("'code'"), r"^stored +code: 2$")
LARGE = (
    read("big_id flag", "big_id/flag.csv", "the two codes are told apart", _TOLD, lacks=(CONSTANT,)),
    read(
        "big_id int64",
        "big_id/int64.parquet",
        "the two codes are told apart, or too large, say categorical",
        _TOLD,
        lacks=(CONSTANT,),
    ),
    read("big_id", "big_id/t.csv", "told apart, or a finding", any_of(r"^stored +account: 240$", finding("'account'"))),
    read(
        "big_id epoch",
        "big_id/epoch.csv",
        "told apart, or a finding",
        any_of(r"^stored +epoch: 240$", finding("'epoch'")),
    ),
    read(
        "yyyymmdd",
        "yyyymmdd/t.csv",
        "days told apart, or a finding",
        any_of(r"^stored +day: 28$", date("day"), finding("'day'")),
    ),
    read(
        "offset",
        "offset/t.csv",
        "500,000,000 + small: told apart, or a finding",
        any_of(r"^stored +x: 2\d\d$", finding("'x'")),
    ),
    Case(
        "offset, learnt",
        f"train offset/t.csv {TARGET} --name offset",
        "as LogisticRegression: 1.0",
        (r"^accuracy +(1\.0|0\.9)",),
    ),
    *(
        read(f"big_id serial{digits}", f"big_id/serial{digits}.csv", "is read: a picture never fails a run", "serial")
        for digits in (15, 16, 18)
    ),
    read("big_id uint64", "big_id/uint64.parquet", "is read: a picture never fails a run", "serial"),
    Case(
        "big_id serial16, trained", f"train big_id/serial16.csv {SHORT} --name serial", "trains", ("^parity +passed",)
    ),
)
_NA = any_of(finding("country", r"--data\.missing"), r"country \(4 values", r"country \(3 values, \d+ missing")
CODES = (
    read("zip", "zip/t.csv", "leading zeros: categorical, or a finding", any_of(categorical("zip"), finding("'zip'"))),
    read("namibia", "namibia/t.csv", "NA is a value, or a finding names the option", _NA),
    read("namibia Parquet", "namibia/t.parquet", "NA is a value, or a finding names the option", _NA),
    *(
        read(f"bool_{name}", f"bool_{name}/t.csv", "boolean, or a finding", any_of(boolean("k"), finding(K)))
        for name in ("yesno", "tf", "upper", "yn", "onoff")
    ),
    read(
        "bool_upper, numeric",
        "bool_upper/t.csv",
        "no word of a constant column",
        options=f"{TARGET} --data.columns.k numeric",
        lacks=(CONSTANT,),
        code=EITHER,
    ),
    read("part_number", "part_number/t.csv", "categorical", categorical("k")),
    read("version", "version/t.csv", "categorical", categorical("k")),
    read(
        "part_number, as said",
        "part_number/t.csv",
        "categorical",
        categorical("k"),
        options=f"{TARGET} --data.columns.k categorical",
    ),
    read("free_text", "free_text/t.csv", "is read", categorical("k")),
    read("long_value", "long_value/t.csv", "is read", r"k \(3 values\)"),
    read("spaced_values", "spaced_values/t.csv", "a finding: x and X", finding(K, "X")),
    read(
        "spelled_cities",
        "spelled_cities/t.csv",
        "a finding: values that differ by case, blanks or accents",
        finding(K, "(?i:new york|caf)"),
    ),
    read("nul_cell", "nul_cell/t.csv", "is read", r"k \(1 values?, 160 missing\)"),
    read("all_missing", "all_missing/t.csv", "a finding", finding("constant_column", K)),
    read("constant", "constant/t.csv", "a finding", finding("constant_column", K)),
    read("leak", "leak/t.csv", "a finding", finding("target_given_away", K)),
    read("leak_many", "leak_many/t.csv", "a finding", finding("target_given_away", "'code'")),
    Case(
        "leak --strict",
        f"train leak/t.csv {SHORT} --strict --name leak",
        "is refused",
        ("target_given_away",),
        code=REFUSED,
    ),
)
_DATES = any_of("(?i:found dates)", date("k"), finding(K, "(?i:date)"), finding(K, "(?i:time)"))
DATES = (
    *(
        read(
            f"date_{name}",
            f"date_{name}/t.csv",
            "a date as input, refused as dates are, or a finding",
            _DATES,
            code=EITHER,
        )
        for name in ("iso", "isoz", "dmy", "mdy_text", "dmy_text", "long", "month", "time", "one_bad", "some_missing")
    ),
    read(
        "date_ymd",
        "date_ymd/t.csv",
        "days told apart, or a finding",
        any_of(_DATES, r"^stored +k: 200$", finding(K)),
        code=EITHER,
    ),
    read("late_dates", "late_dates/t.csv", "a date as input, refused as dates are, or a finding", _DATES, code=EITHER),
    read("two_dates", "two_dates/t.csv", "as above", any_of("(?i:found dates)", "(?i:date.*opened)"), code=EITHER),
    Case(
        "date_iso, as date",
        f"train date_iso/t.csv {TARGET} {SHORT} --data.columns.k date --name dated",
        "year, month, weekday, hour and seconds are inputs of the network, and the file is proven",
        (date("k"), "^parity +passed"),
    ),
    read(
        "date_iso, numeric",
        "date_iso/t.csv",
        "no word of a constant column",
        options=f"{TARGET} --data.columns.k numeric",
        lacks=(CONSTANT,),
        code=EITHER,
    ),
)
TARGETS = (
    read("target_float01", "target_float01/t.csv", "two classes", classes("'0'", "'1'")),
    read("target_minus", "target_minus/t.csv", "two classes", classes("'-1'", "'1'")),
    read("target_plusminus", "target_plusminus/t.csv", "two classes", classes("'.?1'", "'.?1'")),
    read("target_bool", "target_bool/t.csv", "two classes", classes("'false'", "'true'")),
    read(
        "target_bigint",
        "target_bigint/t.csv",
        "two classes, exact",
        classes("'1152921504606846976'", "'1152921504606846977'"),
    ),
    read("target_row_class", "target_row_class/t.csv", "two classes", classes("'class'", "'row'")),
    read("target_date", "target_date/t.csv", "two classes", classes("'2031-01-01'", "'2031-02-01'")),
    read(
        "target_leading_zero",
        "target_leading_zero/t.csv",
        "two classes, or a finding",
        any_of(classes("'01'", "'02'"), classes("'1'", "'2'")),
    ),
    read("target_label", "target_label/t.csv", "is read", *READ, options="--target label"),
    read(
        "target_mixed_10",
        "target_mixed_10/t.csv",
        "two classes, or a finding",
        any_of(classes("'0'", "'1'"), finding(r"[01]\.0")),
    ),
    read(
        "target_mixed_zero",
        "target_mixed_zero/t.csv",
        "a finding: 01 and 1 are one class",
        any_of(classes("'1'", "'2'"), finding("01")),
    ),
    read("target_case", "target_case/t.csv", "a finding: Yes and yes are one class", finding("(?i:yes|'no')")),
    read(
        "target_trailing_dot",
        "target_trailing_dot/t.csv",
        "a finding: >50K and >50K. are one class",
        finding(r"50K\."),
    ),
    read(
        "target_words",
        "target_words/t.csv",
        "NA is a class, or the option is named",
        any_of(classes("'NA'", "'None'"), r"--data\.missing"),
        code=EITHER,
    ),
    read(
        "target_na_class",
        "target_na_class/t.csv",
        "NA is a class, or a finding names the option",
        any_of(classes("'AS'", "'EU'", "'NA'"), finding(r"--data\.missing")),
    ),
    read("target_missing", "target_missing/t.csv", "a finding", finding("missing_labels: 27 rows")),
    read("target_one_of_two", "target_one_of_two/t.csv", "is refused: rare has 1 row", "'rare' has 1 ", code=REFUSED),
    read(
        "target_two_of_class",
        "target_two_of_class/t.csv",
        "is refused: rare has 2 rows, 3 are needed",
        "'rare' has 2 ",
        code=REFUSED,
        lacks=("or method 'stratified'",),
    ),
    read(
        "target_number",
        "target_number/t.csv",
        "is refused: a number is no class",
        "(?i:number)",
        code=REFUSED,
        lacks=("has 1 of 240",),
    ),
    predict(
        "target_odd rows",
        "target_odd/t.csv",
        "clash/rows.csv",
        "one line, the class name escaped",
        r"^predict +10 rows.*(x0a|\\n).*",
    ),
)
PARQUET = (
    read(
        "parquet_kinds", "parquet_kinds/t.parquet", "is read", numeric("int8"), numeric("decimal"), categorical("view")
    ),
    predict(
        "parquet_kinds rows", "parquet_kinds/t.parquet", "parquet_kinds/rows.parquet", "predicts", "^predict +5 rows"
    ),
    read("parquet_tz", "parquet_tz/t.parquet", "a date as input, or refused", _DATES, code=EITHER),
    read("parquet_date", "parquet_date/t.parquet", "a date as input, or refused", _DATES, code=EITHER),
    *(
        read(
            f"parquet_{name}, as said",
            f"parquet_{name}/t.parquet",
            "the kind given by the option is used",
            categorical("k"),
            options=f"{TARGET} --data.columns.k categorical",
        )
        for name in ("tz", "duration", "time")
    ),
    *(
        read(
            f"parquet_{name}",
            f"parquet_{name}/t.parquet",
            "is refused with the type",
            f"column {K}.*type",
            code=REFUSED,
        )
        for name in ("lists", "struct", "binary", "fixed", "map")
    ),
    read(
        "parquet_fixed target",
        "parquet_fixed/target.parquet",
        "is refused: classes are raw bytes",
        "(?i:type|binary)",
        code=REFUSED,
    ),
    read("parquet_dict_target", "parquet_dict_target/t.parquet", "two classes", classes("'no'", "'yes'")),
    read("parquet_decimal_target", "parquet_decimal_target/t.parquet", "two classes", classes("'0'", "'1'")),
    read("parquet_zero", "parquet_zero/t.parquet", "is refused", code=REFUSED),
)

CASES = (*NUMBERS, *LARGE, *CODES, *DATES, *TARGETS, *PARQUET)
