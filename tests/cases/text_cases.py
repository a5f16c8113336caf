"""Cases of tables as text: line ends, headings, quotes, separators, names, containers."""

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
    numeric,
    predict,
    read,
)

LINE_ENDS = (
    read("bom_crlf", "bom_crlf/t.csv", "is read", *READ),
    read("crcrlf", "crcrlf/t.csv", "is read", *READ),
    predict("crcrlf rows", "crcrlf/t.csv", "crcrlf/rows.csv", "as from Parquet", equals="crcrlf/rows.parquet"),
    read("lone_cr", "lone_cr/t.csv", "the same model as with LF", *READ, r"^model .*hidden 32$"),
    predict("lone_cr rows", "lone_cr/t.csv", "lone_cr/rows.csv", "as from Parquet", equals="lone_cr/rows.parquet"),
    predict("lone_cr 1 MiB", "lone_cr/t.csv", "lone_cr/big.csv", "as from Parquet", equals="lone_cr/big.parquet"),
    read("nul_bytes", "nul_bytes/t.csv", "is read", *READ),
    read("ctrl_z", "ctrl_z/t.csv", "is refused with the row", r"row 241", code=REFUSED),
)
HEADINGS = (
    predict(
        "inch",
        "inch/t.csv",
        "inch/rows.csv",
        "79,200 rows, each beside its own answer",
        r"79,200 rows",
        equals="inch/rows.parquet",
    ),
    read("fullwidth", "fullwidth/t.csv", "is read", numeric("\uff21\uff27\uff25")),
    predict("fullwidth rows", "fullwidth/t.csv", "fullwidth/rows.csv", "predicts", "^predict +5 rows"),
    predict("private use rows", "fullwidth/pua.csv", "fullwidth/pua_rows.csv", "predicts", "^predict +5 rows"),
    read("comment_top", "comment_top/t.csv", "is refused, with the reason", code=REFUSED),
    read("title_top", "title_top/t.csv", "is refused, with the reason", code=REFUSED),
    read("blank_first", "blank_first/t.csv", "is read: prediction skips blank lines too", *READ),
    read(
        "index_column",
        "index_column/t.csv",
        "the column without a name is left out with a word",
        *READ,
        any_of("(?i:no name)", "(?i:without a name)", "(?i:index)"),
    ),
    predict(
        "index_column rows",
        "index_column/t.csv",
        "drift/index.csv",
        "as training: without the index column",
        "^predict +8 rows",
    ),
    read("index_column Parquet", "index_column/t.parquet", "is read", *READ),
    read(
        "trailing_comma",
        "trailing_comma/t.csv",
        "the empty column without a name is left out with a word",
        *READ,
        any_of("(?i:no name)", "(?i:without a name)"),
    ),
    read(
        "trailing_comma, rows only",
        "trailing_comma/rows_only.csv",
        "is read, or refused with the row",
        any_of(*READ[:1], r"row 1\b.*expected 4 fields"),
        code=EITHER,
    ),
    read("no_heading", "no_heading/t.csv", "is refused", "there is no column 'y'", code=REFUSED),
    read("blank_names", "blank_names/t.csv", "is refused", "two columns are named 'a'", code=REFUSED),
    read(
        "names_only_space",
        "names_only_space/t.csv",
        "is read without the column, or refused with the remedy",
        "(?i:no name|without a name)",
        code=EITHER,
    ),
)
QUOTES = (
    read("newline_quotes", "newline_quotes/t.csv", "is read", *READ, r"note \(4 values\)"),
    predict(
        "newline_quotes rows",
        "newline_quotes/t.csv",
        "newline_quotes/rows.csv",
        "as from Parquet",
        equals="newline_quotes/rows.parquet",
    ),
    read("backslash", "backslash/t.csv", "is read", *READ, r"note \(4 values\)"),
    read("stray_quote", "stray_quote/t.csv", "is read", *READ, categorical("size")),
    read("open_quote", "open_quote/t.csv", "is refused with the line", any_of("row 100", "line 101"), code=REFUSED),
    read("quoted_numbers", "quoted_numbers/t.csv", "is read", *READ),
    read("space_around", "space_around/t.csv", "is read", *READ),
)
_PIPE = r"--data\.separator '?\|"
SEPARATORS = (
    read(
        "decimal_comma",
        "decimal_comma/t.csv",
        "numbers, or a finding that names the decimal comma",
        any_of(numeric("a"), finding("'a'", r"--data\.decimal")),
        any_of(numeric("b"), finding("'b'", r"--data\.decimal")),
        options=f"{TARGET} --data.separator ';'",
        lacks=(finding("identifier_column"),),
    ),
    read(
        "decimal_comma, as said",
        "decimal_comma/t.csv",
        "numbers",
        *READ,
        options=f"{TARGET} --data.separator ';' --data.decimal ,",
    ),
    predict(
        "decimal_comma rows",
        f"decimal_comma/t.csv {SHORT} --data.separator ';' --data.decimal ,",
        "decimal_comma/rows.csv",
        "as from Parquet",
        equals="lone_cr/rows.parquet",
    ),
    read(
        "tab.tsv",
        "delims/tab.tsv",
        "is read, or the separator is offered",
        any_of(READ[0], r"--data\.separator"),
        code=EITHER,
    ),
    read("tab.tsv, as told", "delims/tab.tsv", "is read", *READ, options=f"{TARGET} --data.separator tab"),
    read(
        "tab.csv",
        "delims/tab.csv",
        "is read, or the separator is offered",
        any_of(READ[0], r"--data\.separator '?tab"),
        code=EITHER,
    ),
    read("tab.csv, as told", "delims/tab.csv", "is read", *READ, options=f"{TARGET} --data.separator tab"),
    read("pipe.csv", "delims/pipe.csv", "is read, or the separator is offered", any_of(READ[0], _PIPE), code=EITHER),
    read("pipe.csv, as told", "delims/pipe.csv", "is read", *READ, options=f"{TARGET} --data.separator '|'"),
    read("space.csv", "delims/space.csv", "is refused", "'a b c y'|a b c y", code=REFUSED),
    read(
        "sep=; line",
        "delims/sepline.csv",
        "is read, or refused with the reason",
        code=EITHER,
        options=f"{TARGET} --data.separator ';'",
    ),
    read("t.txt", "delims/txt.txt", "is read, or the suffixes are named", any_of(READ[0], r"\.csv"), code=EITHER),
    read("uci.data", "delims/uci.data", "is read, or the suffixes are named", any_of(READ[0], r"\.csv"), code=EITHER),
    read(
        "comma in a heading",
        "semicolon_comma_head/t.csv",
        "is read",
        numeric("price, EUR"),
        options=f"{TARGET} --data.separator ';'",
    ),
)
NAMES = (
    read(
        "reserved",
        "reserved/t.csv",
        "a column label is read, or refused with the remedy",
        any_of(numeric("label"), "'label'.*--data.ignore"),
        code=EITHER,
    ),
    read("reserved2", "reserved2/t.csv", "is read", numeric("class"), numeric("row"), numeric("features")),
    read("odd_names", "odd_names/t.csv", "is read", "Sepal.Length"),
    predict("odd_names rows", "odd_names/t.csv", "odd_names/rows.csv", "predicts", "^predict +4 rows"),
    read("long_name", "long_name/t.csv", "is read", "www"),
    read("case_names", "case_names/t.csv", "is read", *READ, numeric("A")),
    read("dotted", "dotted/t.csv", "is read", numeric("kind"), categorical("Group.Name")),
    read("sql_names", "sql_names/t.csv", "is read", "DROP TABLE y"),
)
_SAID = "(?i:save it as|is no CSV|not CSV|not a CSV|expected a table|an archive|compressed|unpack|decompress)"
_OTHERS = ("gzipped.csv", "t.zip", "excel.xlsx", "excel.csv", "t.feather", "t.json")
CONTAINERS = (
    *(
        read(f"container {file}", f"containers/{file}", "is read", *READ)
        for file in ("t.csv.gz", "t.csv.zip", "t.csv.zst", "t.csv.bz2", "t.jsonl", "sheet.xlsx")
    ),
    read("container cut.csv.gz", "containers/cut.csv.gz", "is refused", "incomplete", code=REFUSED),
    predict(
        "container rows", "containers/sheet.xlsx", "containers/t.jsonl", "as from CSV", equals="containers/t.csv.gz"
    ),
    *(
        read(
            f"container {file}",
            f"containers/{file}",
            "is read, or refused as what it is",
            any_of(READ[0], _SAID),
            code=EITHER,
            lacks=("iconv",),
        )
        for file in _OTHERS
    ),
    read("empty.csv", "containers/empty.csv", "is refused", "no heading|empty", code=REFUSED),
    read("empty.parquet", "containers/empty.parquet", "is refused", code=REFUSED),
    read("html.csv", "containers/html.csv", "is refused", code=REFUSED),
    read("container folder of Parquet", "partitioned/t.parquet", "is read", *READ),
)
_PRETRAINED = f"train clash/north/data.csv {SHORT}"
FILES = (
    *(
        read(f"file '{name}.csv'", f"'names/{name}.csv'", "is read", *READ)
        for name in ("my data (1)", "donn\u00e9es_\u58f2\u4e0a", "a:b")
    ),
    read("file o'hara;$x.csv", '"names/o\'hara;$x.csv"', "is read", *READ),
    read("file T.CSV", "names/T.CSV", "is read", *READ),
    read("file .csv", "names/.csv", "is read, or refused in one line", code=EITHER),
    Case(
        "file -data.csv",
        f"cd names && train -data.csv {SHORT}",
        "trains, or offers ./-data.csv",
        (any_of("^parity +passed", r"\./-data\.csv"),),
        code=EITHER,
    ),
    Case(
        "clash",
        f"train clash/south/data.csv {SHORT}",
        "another table of the same name is refused, or named otherwise",
        (any_of("^hallmark: .*--name", r"^model +(?!data )\S+ version"),),
        code=EITHER,
        after=(_PRETRAINED,),
    ),
    Case(
        "clash of names without Latin letters",
        f"train clash/\u8ba2\u5355.csv {SHORT}",
        "as above",
        (any_of("^hallmark: .*--name", r"^model +(?!own )\S+ version"),),
        code=EITHER,
        after=(f"train clash/\u5ba2\u6237.csv {SHORT}",),
    ),
    Case(
        "clash with a preset",
        "predict iris iris_rows/flowers.csv",
        "the README's own example works",
        ("^predict +2 rows",),
        after=(f"train clash/iris.csv {SHORT}", "train iris --training.epochs 3 --training.patience 0"),
    ),
    Case(
        "later version does not answer",
        f"train drift/t.csv {SHORT} --name later --training.seed 1",
        "says which version answers and how to promote",
        ("^champion +is still version 1.*promote later 2",),
        after=(f"train drift/t.csv {SHORT} --name later",),
    ),
    Case(
        "retrain with a renamed column",
        f"retrain changed/t.csv {SHORT} --name changed",
        "is refused before training, with what was renamed",
        (r"\bbb\b",),
        ("judge failed",),
        REFUSED,
        after=(
            "cp changed/before.csv changed/t.csv",
            f"retrain changed/t.csv {SHORT} --name changed",
            "cp changed/after.csv changed/t.csv",
        ),
    ),
)
SIZES = (
    read("one_row", "one_row/t.csv", "is refused", "at least two classes", code=REFUSED),
    read("two_rows", "two_rows/t.csv", "is refused", code=REFUSED),
    read("six_rows", "six_rows/t.csv", "is read, or refused with the reason", code=EITHER),
)

CASES = (*LINE_ENDS, *HEADINGS, *QUOTES, *SEPARATORS, *NAMES, *CONTAINERS, *FILES, *SIZES)
