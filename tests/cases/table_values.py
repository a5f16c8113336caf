"""Tables whose values can be misread: dressed and large numbers, codes, booleans, dates, targets, types of Parquet."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.cases.tables import COUNT, IS_YES, ROWS, Files, Values, base, columns_of_pieces, csv, rng, with_column

DAYS = pd.Timestamp("2031-01-01") + pd.to_timedelta(np.arange(COUNT) % 200, "D")
INDEX = range(COUNT)


def dressed_numbers() -> Files:
    """Numbers with thousands separators, signs, units and words between them."""
    random = rng()
    incomes = 30_000 + ROWS.a * 9000 + 200 * random.normal(size=COUNT)
    dressed = {
        "income": [f"{int(value):,}" for value in incomes],
        "share": [f"{value:.1f}%" for value in ROWS.b],
        "price": [f"${value * 100:,.2f}" for value in ROWS.b],
        "change": [f"{value:+.1f}" for value in ROWS.a],
        "euro": [f"\u20ac{value:.0f}" for value in ROWS.b],
        "weight": [f"{value:.1f} kg" for value in ROWS.b],
    }
    thousands = [f"{int(30_000 + value * 9000):,}".replace(",", "\u00a0") for value in ROWS.a]
    whole = (40_000 + ROWS.a * 12_000 + 300 * random.normal(size=COUNT)).astype(int)
    return {
        "dressed_numbers/t.csv": csv(ROWS.assign(**dressed)),
        "plus/t.csv": csv(ROWS.assign(a=[f"{value:+.1f}" for value in ROWS.a])),
        "unicode_minus/t.csv": csv(ROWS.assign(a=[f"{value:.1f}".replace("-", "\u2212") for value in ROWS.a])),
        "nbsp_thousands/t.csv": csv(ROWS.assign(income=thousands)),
        "question_mark/t.csv": with_column(np.where(random.random(COUNT) < 0.03, "?", ROWS.b.astype(int).astype(str))),
        "sentinels/t.csv": with_column(np.where(random.random(COUNT) < 0.05, "-", ROWS.b.astype(str))),
        "none_text/t.csv": with_column(np.where(random.random(COUNT) < 0.05, "None", ROWS.b.astype(str))),
        "whole_income/t.csv": csv(ROWS.assign(income=whole)),
        "hex/t.csv": with_column([hex(index % 7) for index in INDEX]),
        "underscore/t.csv": with_column([f"{index % 9 + 1}_000" for index in INDEX]),
        "infinity/t.csv": with_column(["Infinity" if index == 3 else str(index * 0.5) for index in INDEX]),
    }


def large_numbers() -> Files:
    """Numbers that float32 cannot tell apart."""
    random = rng()
    serials = np.full(COUNT, 2**63, "uint64") + np.arange(COUNT).astype("uint64")
    flag = 3_000_000_000 + random.integers(0, 2, COUNT)
    days = pd.Timestamp("2031-03-01") + pd.to_timedelta(random.integers(0, 28, COUNT), "D")
    far = {"x": (500_000_000 + ROWS.a * 20).round(2), "y": np.where(ROWS.a > 0, "yes", "no")}
    flagged = {"code": flag, "y": np.where(flag % 2, "p", "q")}
    return {
        "big_id/t.csv": csv(ROWS.assign(account=10**12 + np.arange(COUNT))),
        "big_id/epoch.csv": csv(ROWS.assign(epoch=1_700_000_000 + np.arange(COUNT) * 3)),
        "big_id/flag.csv": csv(pd.DataFrame(flagged)),
        "big_id/int64.parquet": pa.table(flagged | {"code": pa.array(2**60 + flag)}),
        **{
            f"big_id/serial{digits}.csv": csv(ROWS.assign(serial=10 ** (digits - 1) * 4 + np.arange(COUNT)))
            for digits in (15, 16, 18)
        },
        "big_id/uint64.parquet": pa.table({"a": ROWS.a, "b": ROWS.b, "serial": pa.array(serials), "y": ROWS.y}),
        "yyyymmdd/t.csv": csv(
            pd.DataFrame({"day": days.strftime("%Y%m%d"), "y": np.where(days.day % 2, "odd", "even")})
        ),
        "offset/t.csv": csv(pd.DataFrame(far)),
    }


def codes() -> Files:
    """Codes with leading zeros, `NA` as a value, booleans in words, text that differs by case and blanks."""
    random = rng()
    zips, countries = (
        random.choice(["00501", "01001", "0501", "501", "94107"], COUNT),
        random.choice(["NA", "DE", "FR", ""], COUNT),
    )
    is_east, is_namibia = np.isin(zips, ["00501", "01001"]), countries == "NA"
    pairs = {
        "yesno": ("Yes", "No"),
        "tf": ("t", "f"),
        "upper": ("TRUE", "FALSE"),
        "yn": ("Y", "N"),
        "onoff": ("on", "off"),
    }
    words = ("the", "cat", "sat", "on", "a", "mat", "with", "hat")
    cities = (("New York", "new york", "NEW YORK "), ("Caf\u00e9", "Cafe\u0301", "CAF\u00c9"))
    return {
        "zip/t.csv": csv(ROWS.assign(zip=zips, y=np.where(is_east, "yes", "no"))),
        "namibia/t.csv": csv(ROWS.assign(country=countries, y=np.where(is_namibia, "yes", "no"))),
        "namibia/t.parquet": ROWS.assign(
            country=np.where(countries == "", None, countries), y=np.where(is_namibia, "yes", "no")
        ),
        **{
            f"bool_{name}/t.csv": with_column(np.where(random.random(COUNT) < 0.5, *pair))
            for name, pair in pairs.items()
        },
        "part_number/t.csv": with_column([f"{index % 30 + 10}-{index % 12 + 1}-{index % 70 + 10}" for index in INDEX]),
        "version/t.csv": with_column([f"{index % 4 + 1}.{index % 10}.{index % 50 + 10}" for index in INDEX]),
        "free_text/t.csv": with_column([" ".join(random.choice(words, 8)) for _ in INDEX]),
        "long_value/t.csv": with_column([f"v{index % 3}" * 3000 for index in INDEX]),
        "spaced_values/t.csv": with_column([(" x", "x ", "x", "X")[index % 4] for index in INDEX]),
        "spelled_cities/t.csv": with_column([cities[index % 2][index // 2 % 3] for index in INDEX]),
        "few_words/t.csv": with_column([("2", "3", "4", "5more")[index % 4] for index in INDEX]),
        "blank_number/t.csv": with_column([" " if index % 22 == 0 else value for index, value in enumerate(ROWS.b)]),
        "nul_cell/t.csv": with_column([None if index % 3 else "x" for index in INDEX]),
        "all_missing/t.csv": with_column([""] * COUNT),
        "constant/t.csv": with_column(["z"] * COUNT),
        "leak/t.csv": with_column(IS_YES.astype(int)),
        "leak_many/t.csv": csv(
            ROWS.assign(
                code=np.where(IS_YES, random.choice(["A1", "A2", "A3"], COUNT), random.choice(["B1", "B2"], COUNT))
            )
        ),
    }


def dates() -> Files:
    """Dates and times in the forms that people write."""
    forms = {
        "iso": "%Y-%m-%d",
        "ymd": "%Y%m%d",
        "month": "%Y-%m",
        "mdy_text": "%b %d, %Y",
        "dmy_text": "%d-%b-%Y",
        "dmy": "%d.%m.%Y",
        "isoz": "%Y-%m-%dT%H:%M:%SZ",
        "long": "%A, %d %B %Y",
    }
    iso = DAYS.strftime("%Y-%m-%d")
    late = ["" if index < 1100 else f"2031-01-{index % 28 + 1:02d}" for index in range(1600)]
    several = {
        "opened": iso,
        "closed": DAYS.strftime("%d/%m/%Y"),
        "seen": DAYS.strftime("%Y-%m-%dT%H:%M"),
    }
    return {
        **{f"date_{name}/t.csv": with_column(DAYS.strftime(form)) for name, form in forms.items()},
        "date_time/t.csv": with_column([f"{index % 24:02d}:{index % 60:02d}" for index in INDEX]),
        "date_one_bad/t.csv": with_column(["unknown" if index == 5 else day for index, day in enumerate(iso)]),
        "date_some_missing/t.csv": with_column(["" if index % 5 == 0 else day for index, day in enumerate(iso)]),
        "two_dates/t.csv": csv(ROWS.assign(**several)),
        "late_dates/t.csv": csv(base(1600, 3).assign(k=late)),
    }


def targets() -> Files:
    """Class names that are one written in two ways, missing, odd, or no class at all."""
    colours = {"red": "NA", "green": "EU", "blue": "AS"}
    by_name: dict[str, Values] = {
        "float01": np.where(IS_YES, 1.0, 0.0),
        "minus": np.where(IS_YES, 1, -1),
        "plusminus": np.where(IS_YES, "+1", "-1"),
        "bool": IS_YES,
        "mixed_10": [f"{int(value)}{'.0' if index >= 120 else ''}" for index, value in enumerate(IS_YES)],
        "case": [("Yes" if value else "No") if i % 2 else ("yes" if value else "no") for i, value in enumerate(IS_YES)],
        "odd": [
            'a "quoted", line\nbroken' if value else " \u00fcn\u00ef\u2009c\u00f6d\u00e9 \U0001f4a5 "
            for value in IS_YES
        ],
        "words": ["None" if value else "NA" for value in IS_YES],
        "na_class": ROWS.c.map(colours),
        "trailing_dot": [f"{'>50K' if v else '<=50K'}{'.' if index >= 160 else ''}" for index, v in enumerate(IS_YES)],
        "missing": ["" if index % 9 == 0 else value for index, value in enumerate(ROWS.y)],
        "one_of_two": ["rare" if index == 7 else value for index, value in enumerate(ROWS.y)],
        "two_of_class": ["rare" if index in (7, 9) else value for index, value in enumerate(ROWS.y)],
        "number": (ROWS.b * 3).round(1),
        "leading_zero": [f"{1 + int(value):02d}" for value in IS_YES],
        "mixed_zero": [("01" if index % 2 else "1") if value else "2" for index, value in enumerate(IS_YES)],
        "date": np.where(IS_YES, "2031-01-01", "2031-02-01"),
        "bigint": np.where(IS_YES, 2**60 + 1, 2**60),
        "row_class": np.where(IS_YES, "row", "class"),
    }
    files: Files = {f"target_{name}/t.csv": csv(ROWS.assign(y=values)) for name, values in by_name.items()}
    files["target_label/t.csv"] = csv(ROWS.rename(columns={"y": "label"}))
    return files


def parquet_types() -> Files:
    """Columns and targets of every type that Parquet has."""
    counted, cents = np.arange(COUNT), [decimal.Decimal(f"{value:.2f}") for value in ROWS.b]
    kinds = {
        "int8": pa.array((ROWS.b / 2).astype("int8")),
        "uint64": pa.array(np.full(COUNT, 2**63, "uint64") + counted.astype("uint64")),
        "float16": pa.array(ROWS.a.astype("float16").to_numpy()),
        "decimal": pa.array(cents),
        "dict_text": pa.array(ROWS.c).dictionary_encode(),
        "dict_int": pa.array((ROWS.b // 10).astype(int)).dictionary_encode(),
        "nullbool": pa.array([None if index % 7 == 0 else bool(index % 2) for index in INDEX]),
        "large": pa.array(ROWS.c, pa.large_string()),
        "view": pa.array(ROWS.c.tolist(), pa.string_view()),
        "nulls": pa.nulls(COUNT),
    }
    others = {
        "tz": pa.array(DAYS.to_numpy(), pa.timestamp("us", "Europe/Berlin")),
        "time": pa.array([datetime.time(index % 24, index % 60) for index in INDEX]),
        "duration": pa.array(counted.astype("timedelta64[s]")),
        "date": pa.array(DAYS.date),
        "lists": pa.array([[1, 2]] * COUNT),
        "struct": pa.array([{"u": 1, "v": "w"}] * COUNT),
        "binary": pa.array([b"x\xff"] * COUNT),
        "fixed": pa.array([bytes([index % 5]) * 16 for index in INDEX], pa.binary(16)),
        "map": pa.array([[("k", 1)]] * COUNT, pa.map_(pa.string(), pa.int64())),
    }
    targets = {
        "fixed/target": pa.array([bytes([int(value)]) * 16 for value in IS_YES], pa.binary(16)),
        "dict_target/t": pa.array(ROWS.y).dictionary_encode(),
        "decimal_target/t": pa.array([decimal.Decimal(f"{int(value)}.00") for value in IS_YES]),
    }
    return {
        "parquet_kinds/t.parquet": pa.table({**kinds, "y": ROWS.y}),
        "parquet_kinds/rows.parquet": pa.table({name: values.slice(0, 5) for name, values in kinds.items()}),
        **{f"parquet_{name}/t.parquet": columns_of_pieces({"k": values}) for name, values in others.items()},
        **{
            f"parquet_{name}.parquet": pa.table({"a": ROWS.a, "b": ROWS.b, "y": values})
            for name, values in targets.items()
        },
        "parquet_zero/t.parquet": ROWS.head(0),
        "parquet_zero/rows.parquet": ROWS.head(0).drop(columns="y"),
    }


GROUPS = (dressed_numbers, large_numbers, codes, dates, targets, parquet_types)
