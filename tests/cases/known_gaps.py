"""Cases that do not hold yet, and why. `make cases` lists them apart, and says when one holds."""

REASONS: dict[str, tuple[str, ...]] = {
    "rows are counted and blocks are cut at \\n alone": ("lone_cr", "lone_cr 1 MiB"),
    "the heading of every block is guessed by counting quotes": ("inch",),
    "a column without a name is refused": ("index_column", "index_column rows", "trailing_comma"),
    "there is no --data.decimal, and no finding names it": (
        *("decimal_comma", "decimal_comma, as said", "decimal_comma rows"),
        *("dressed_numbers", "dressed_numbers, one numeric", "nbsp_thousands", "unicode_minus", "underscore"),
    ),
    "no --data.separator '|', and .tsv is no suffix of a table": (
        *(
            "tab.tsv",
            "tab.tsv, as told",
            "pipe.csv",
            "pipe.csv, as told",
            "drift pipe.csv",
            "drift semicolon_missing.csv",
        ),
    ),
    "compressed tables, JSON lines and folders of Parquet are not read": (
        *("container t.csv.gz", "container t.csv.zip", "container t.csv.zst", "container t.jsonl"),
        *("container gzipped.csv", "container excel.csv", "container folder of Parquet"),
    ),
    "a path that begins with a hyphen is taken for an option": ("file -data.csv",),
    "a name is taken from the last part of the path alone": (
        *("clash", "clash of names without Latin letters", "clash with a preset"),
    ),
    "columns of a retraining are compared after it": ("retrain with a renamed column",),
    "identifier_column is found first, and hides other findings": ("sentinels", "none_text", "whole_income"),
    "a word among few categories that are numbers is taken for an error": ("few_words",),
    "numbers are rounded to float32 before anything looks at them": (
        *("big_id flag", "big_id int64", "big_id epoch", "yyyymmdd", "offset", "offset, learnt", "date_ymd"),
    ),
    "histograms fail for numbers that are close together and far from zero": (
        *("big_id serial15", "big_id serial16", "big_id serial18", "big_id uint64", "big_id serial16, trained"),
        *("parquet_kinds", "parquet_kinds rows"),
    ),
    "codes with leading zeros are read as numbers": ("zip",),
    "there is no --data.missing, and no finding names it": (
        "namibia",
        "namibia Parquet",
        "target_words",
        "target_na_class",
    ),
    "only true and false are recognized as booleans": ("bool_yesno", "bool_tf", "bool_yn", "bool_onoff"),
    "constant_column hides that no value is a number": ("bool_upper, numeric", "date_iso, numeric"),
    "numbers with two points or hyphens are taken for dates": ("part_number", "version"),
    "there is no finding about values that differ by case, blanks or accents": ("spaced_values", "spelled_cities"),
    "--strict looks at the options alone": ("leak --strict",),
    "only dates that begin with a year, or are written with digits alone, are recognized": (
        *("date_mdy_text", "date_dmy_text", "date_long", "date_month", "date_time", "date_one_bad", "late_dates"),
        *("time/dmy, time when", "time/us, time when", "time/short, time when", "time/month, time when"),
    ),
    "what is said of a column with dates counts in CSV alone": (
        *("parquet_tz, as said", "parquet_duration, as said", "parquet_time, as said"),
    ),
    "there is no finding about classes that are one": (
        *("target_mixed_10", "target_mixed_zero", "target_case", "target_trailing_dot"),
    ),
    "bytes are accepted as classes": ("parquet_fixed target",),
    "the reason why a class is too rare is not given": ("target_two_of_class",),
    "a number as target is told by its first value": ("target_number",),
    "numbers in CSV are not spelled as in training": ("drift float_codes.csv",),
    "missing values are not counted": ("drift all_empty.csv",),
    "a column that differs by case is not offered": ("drift case_names.csv",),
    "empty lines are not read as rows": ("one_column", "one_column of text"),
    "no_better_than_prior compares with the unweighted prior": ("rare_positive, with its remedy",),
    "files that are not regular are opened": (
        "hostile fifo",
        "hostile link_dev_zero",
    ),
    "a line break in a class name breaks a line of the terminal": ("hostile classes_newline",),
    "a graph runs without a limit of time": ("hostile endless",),
    "onnxruntime prints its own log": ("hostile op_range",),
    "the certificate is not compared with the graph": (
        "hostile label_out_of_range",
        "hostile label_negative",
        "hostile label_float",
        "hostile input_renamed",
        "hostile classes_three",
        "hostile inputs_name",
        "hostile inputs_grey",
        "hostile inputs_shape_huge",
        "hostile inputs_shape_negative",
        "hostile shares_short",
    ),
    "the certificate has no schema": (
        "hostile classes_numbers",
        "hostile classes_null",
        "hostile golden_none",
        "hostile proof_empty",
        "hostile proof_strings",
        "hostile metrics_empty",
        "hostile inputs_empty",
        "hostile inputs_shape_text",
        "hostile shares_text",
        "hostile shares_infinite",
        "hostile json_deep",
    ),
    "any stated tolerance is allowed": ("hostile golden_tolerance",),
}
"""Names of cases by the reason why they do not hold."""

KNOWN = {name: reason for reason, names in REASONS.items() for name in names}
"""The reason by the name of the case."""
