"""Rows to predict that differ from the training table, tables to split, and very uneven or large tables."""

import gzip

import numpy as np
import pandas as pd

from tests.cases.tables import COUNT, ROWS, Files, base, csv, rng

CODES = (np.arange(COUNT) % 4).astype(str)


def drift() -> Files:
    """A table whose column `code` decides the class, and the same eight rows in many forms."""
    table = ROWS.assign(code=CODES, y=np.where(np.isin(CODES, ["1", "2"]), "yes", "no"))
    rows = table.drop(columns="y").head(8)
    text, numbers = csv(rows), {"float": rows.code.astype(float), "int": rows.code.astype(int)}
    changed = {
        "unseen": rows.assign(c="violet"),
        "inf": rows.assign(a=[np.inf] + [1.0] * 7),
        "text": rows.assign(a=["n/k"] + ["1.0"] * 7),
        "big": rows.assign(a=["1e39"] + ["1.0"] * 7),
        "case_names": rows.rename(columns=str.upper),
        "case_values": rows.assign(c=rows.c.str.upper()),
        "truths": rows.assign(a=["True", "False"] * 4),
        "heading": rows.head(0),
        "plus": rows.assign(a=["+1.5"] * 8),
        "thousands": rows.assign(b=["1,234.5"] * 8),
        "all_empty": rows.assign(b="", c=""),
        "spaced_names": rows.rename(columns=lambda name: f" {name} "),
        "reordered": rows[["code", "c", "b", "a"]],
        "missing": rows.drop(columns="b"),
        "extra": rows.assign(zz=1),
        "with_target": table.head(8),
        "float_codes": rows.assign(code=[f"{code}.0" for code in rows.code]),
    }
    return {
        "drift/t.csv": csv(table),
        "drift/rows.csv": text,
        "drift/rows.parquet": rows,
        **{f"drift/{name}.csv": csv(one) for name, one in changed.items()},
        **{f"drift/{name}_codes.parquet": rows.assign(code=codes) for name, codes in numbers.items()},
        "drift/semicolon_missing.csv": csv(rows.drop(columns="b"), sep=";"),
        "drift/pipe.csv": csv(rows, sep="|"),
        "drift/decimal_comma.csv": csv(rows, sep=";", decimal=","),
        "drift/index.csv": str(rows.to_csv()),
        "drift/empty.csv": "",
        "drift/t.csv.gz": gzip.compress(text.encode(), mtime=0),
        "drift/crlf_bom.csv": b"\xef\xbb\xbf" + csv(rows, lineterminator="\r\n").encode(),
        "drift/blank_line.csv": text.replace("\n", "\n\n", 3),
        "drift/comment.csv": "# x\n" + text,
        "drift/utf16.csv": text.encode("utf-16"),
        "drift/latin1.csv": csv(rows.assign(c="gr\u00fcn")).encode("latin1"),
        "drift/short_row.csv": text + "1,2\n",
    }


def one_column() -> Files:
    """Tables of one input column, in which an empty line is a row whose value is missing."""
    random = rng()
    gaps = np.where(random.random(COUNT) < 0.1, np.nan, ROWS.a)
    letters = np.where(random.random(COUNT) < 0.5, "u", "v")
    text = {"k": np.where(np.arange(COUNT) % 10 == 0, "", letters), "y": np.where(letters == "u", "yes", "no")}
    return {
        "one_column/t.csv": csv(pd.DataFrame({"x": gaps, "y": ROWS.y})),
        "one_column/rows.csv": "x\n1.0\n\n-1.0\n\n2.0\n",
        "one_column/rows.parquet": pd.DataFrame({"x": [1.0, None, -1.0, None, 2.0]}),
        "one_column/quoted.csv": 'x\n1.0\n""\n-1.0\n',
        "one_column/quoted.parquet": pd.DataFrame({"x": [1.0, None, -1.0]}),
        "one_column/text.csv": csv(pd.DataFrame(text)),
        "one_column/text_rows.csv": "k\nu\n\nv\n",
        "one_column/text_rows.parquet": pd.DataFrame({"k": ["u", None, "v"]}),
    }


def splits() -> Files:
    """Tables with a column of times, groups or splits."""
    random, table = rng(), base(600, 5)
    when = pd.Timestamp("2030-01-01") + pd.to_timedelta(random.permutation(600), "D")
    iso = when.strftime("%Y-%m-%d")
    forms = {
        "iso": "%Y-%m-%d",
        "dmy": "%d/%m/%Y",
        "tz": "%Y-%m-%dT%H:%M:%S+02:00",
        "ymd": "%Y%m%d",
        "short": "%y-%m-%d",
        "month": "%Y-%m",
        "us": "%m/%d/%Y %H:%M",
    }
    late = np.where((table.y == "yes").to_numpy() & (when > "2031-03-01"), "new", table.y)
    by_fold = {"capitals": ["Train", "Validation", "Test"], "val": ["train", "val", "test"]}
    by_patient = {
        "group": random.integers(0, 40, 600),
        "two_groups": random.integers(0, 2, 600),
        "group_class": np.where(table.y == "yes", "p1", "p2"),
    }
    return {
        **{f"time/{name}.csv": csv(table.assign(when=when.strftime(form))) for name, form in forms.items()},
        "time/missing.csv": csv(table.assign(when=["" if index == 9 else day for index, day in enumerate(iso)])),
        "time/numbers.csv": csv(table.assign(when=np.arange(600) % 12 + 1)),
        "time/late_class.csv": csv(table.assign(when=iso, y=late)),
        **{f"split/{name}.csv": csv(table.assign(fold=random.choice(folds, 600))) for name, folds in by_fold.items()},
        **{f"split/{name}.csv": csv(table.assign(patient=patients)) for name, patients in by_patient.items()},
        "duplicated/t.csv": csv(pd.concat([ROWS] * 3)),
    }


def balance() -> Files:
    """Twelve frauds among 4,000 rows, and a thousand classes of six rows each."""
    random, table, classes = rng(), base(4000, 7), np.repeat(np.arange(1000), 6)
    score = table.a + (table.b - 50) / 10 + random.normal(size=4000) * 0.5
    near = {
        "a": (classes % 32 + 0.2 * random.normal(size=len(classes))).round(3),
        "b": (classes // 32 + 0.2 * random.normal(size=len(classes))).round(3),
        "y": [f"item {index:04d}" for index in classes],
    }
    return {
        "rare_positive/t.csv": csv(table.assign(y=np.where(score >= np.sort(score)[-12], "fraud", "fine"))),
        "thousand/t.csv": csv(pd.DataFrame(near)),
    }


def sizes() -> Files:
    """A table of 2,000 columns, and one of a million rows."""
    random = rng()
    wide = pd.DataFrame(random.normal(size=(1000, 2000)).round(3), columns=[f"x{index}" for index in range(2000)])
    return {
        "wide/t.csv": csv(wide.assign(y=np.where(wide.x0 + wide.x1 > 0, "yes", "no"))),
        "million/t.parquet": base(1_000_000, 9),
    }


GROUPS = (drift, one_column, splits, balance)
