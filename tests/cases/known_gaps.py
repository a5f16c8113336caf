"""Cases that do not hold yet, and why. `make cases` lists them apart, and says when one holds."""

REASONS: dict[str, tuple[str, ...]] = {
    "compressed tables, JSON lines and folders of Parquet are refused, with what to do": (
        *("container t.csv.gz", "container t.csv.zip", "container t.csv.zst", "container t.jsonl"),
        "container folder of Parquet",
    ),
    "a path that begins with a hyphen is taken for an option": ("file -data.csv",),
    "digits in groups of underscores are text": ("underscore",),
    "only true and false are recognized as booleans": ("bool_yesno", "bool_tf", "bool_yn", "bool_onoff"),
    "rows cannot be split by a time of this form": (
        *("time/dmy, time when", "time/us, time when", "time/short, time when", "time/month, time when"),
    ),
}
"""Names of cases by the reason why they do not hold."""

KNOWN = {name: reason for reason, names in REASONS.items() for name in names}
"""The reason by the name of the case."""
