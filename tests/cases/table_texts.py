"""Tables as text: encodings, line ends, separators, quotes, headings, names of columns and files, containers."""

import bz2
import gzip
import io
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from tests.cases.tables import COUNT, INPUTS, IS_YES, ROWS, Files, csv, rng

TEXT = csv(ROWS)


def line_ends() -> Files:
    """Byte order marks, and every kind of line end."""
    return {
        "bom_crlf/t.csv": b"\xef\xbb\xbf" + csv(ROWS, lineterminator="\r\n", quoting=1).encode(),
        "lone_cr/t.csv": csv(ROWS, lineterminator="\r"),
        "lone_cr/lf.csv": TEXT,
        "lone_cr/rows.csv": csv(INPUTS.head(6), lineterminator="\r"),
        "lone_cr/rows.parquet": INPUTS.head(6),
        "lone_cr/big.csv": csv(pd.concat([INPUTS] * 400), lineterminator="\r"),
        "lone_cr/big.parquet": pd.concat([INPUTS] * 400),
        "crcrlf/t.csv": TEXT.replace("\n", "\r\r\n"),
        "crcrlf/rows.csv": csv(INPUTS.head(5)).replace("\n", "\r\r\n"),
        "crcrlf/rows.parquet": INPUTS.head(5),
        "nul_bytes/t.csv": TEXT.encode().replace(b"red", b"re\0d"),
        "ctrl_z/t.csv": TEXT.encode() + b"\x1a",
    }


def headings() -> Files:
    """Headings that begin with unusual letters, hold quotes or are missing, and lines above them."""
    full_width = ROWS.rename(columns={"a": "\uff21\uff27\uff25"})  # in UTF-8 they begin with EF, as the BOM does
    private = ROWS.rename(columns={"a": "\uf8ff size"})
    inch = 'a,pipe 5",c'
    many = pd.concat([INPUTS] * 330)  # just over 1 MiB, so that it is read in several blocks
    return {
        "fullwidth/t.csv": csv(full_width),
        "fullwidth/rows.csv": csv(full_width.drop(columns="y").head(5)),
        "fullwidth/pua.csv": csv(private),
        "fullwidth/pua_rows.csv": csv(private.drop(columns="y").head(5)),
        "inch/t.csv": f"{inch},y\n" + csv(ROWS, header=False),
        "inch/rows.csv": f"{inch}\n" + csv(many, header=False),
        "inch/rows.parquet": many.rename(columns={"b": 'pipe 5"'}),
        "comment_top/t.csv": "# exported 2031-01-02 by tool\n" + TEXT,
        "title_top/t.csv": "Report of all\n\n" + TEXT,
        "blank_first/t.csv": "\n\n" + TEXT,
        "index_column/t.csv": str(ROWS.to_csv()),
        "index_column/t.parquet": pa.Table.from_pandas(ROWS.sample(frac=1, random_state=0)),
        "trailing_comma/t.csv": "".join(f"{line},\n" for line in TEXT.splitlines()),
        "trailing_comma/rows_only.csv": "".join(
            f"{line}{',' if index else ''}\n" for index, line in enumerate(TEXT.splitlines())
        ),
        "no_heading/t.csv": csv(ROWS, header=False),
        "blank_names/t.csv": TEXT.replace("a,b,c,y", "a, a,c,y"),
        "names_only_space/t.csv": csv(ROWS.rename(columns={"a": " "})),
    }


def quotes() -> Files:
    """Quoted fields, quotes inside of fields, and quotes that are never closed."""
    lines = TEXT.splitlines()
    for colour in ("red", "green", "blue"):
        lines[100] = lines[100].replace(f",{colour},", f',"{colour},')
    noted = ROWS.assign(note=[f'line one\nline "two", row {index % 4}' for index in range(COUNT)])
    escaped = [f'{a},{b},{c},{y},"say \\"hi\\" {i % 4}"' for i, (a, b, c, y) in enumerate(ROWS.values.tolist())]
    sizes = [f"{a},{b},{c},{5 + i % 3}'{i % 12}\",{y}" for i, (a, b, c, y) in enumerate(ROWS.values.tolist())]
    return {
        "newline_quotes/t.csv": csv(noted),
        "newline_quotes/rows.csv": csv(noted.drop(columns="y").head(7)),
        "newline_quotes/rows.parquet": noted.drop(columns="y").head(7),
        "backslash/t.csv": "\n".join(["a,b,c,y,note", *escaped]) + "\n",
        "stray_quote/t.csv": "\n".join(["a,b,c,size,y", *sizes]) + "\n",
        "open_quote/t.csv": "\n".join(lines) + "\n",
        "quoted_numbers/t.csv": csv(ROWS, quoting=1),
        "space_around/t.csv": "".join(f"{', '.join(map(str, row))}\n" for row in [[*ROWS], *ROWS.values.tolist()]),
    }


def separators() -> Files:
    """Separators other than the comma, and suffixes other than `.csv`."""
    return {
        "decimal_comma/t.csv": csv(ROWS, sep=";", decimal=","),
        "decimal_comma/rows.csv": csv(INPUTS.head(6), sep=";", decimal=","),
        "delims/tab.tsv": csv(ROWS, sep="\t"),
        "delims/tab.csv": csv(ROWS, sep="\t"),
        "delims/pipe.csv": csv(ROWS, sep="|"),
        "delims/space.csv": csv(ROWS, sep=" "),
        "delims/sepline.csv": "sep=;\n" + csv(ROWS, sep=";"),
        "delims/txt.txt": TEXT,
        "delims/uci.data": TEXT,
        "semicolon_comma_head/t.csv": csv(ROWS.rename(columns={"b": "price, EUR"}), sep=";"),
    }


def column_names() -> Files:
    """Names of columns that are long, dotted, quoted, alike, or used by the exported model itself."""
    odd = {"a": 'Sepal.Length (cm), "raw"', "b": "\u53ce\u5165 \U0001f4b0", "c": "a/b\\c [x] <y> {z}: %s =--"}
    more = rng().normal(size=(4, COUNT)).round(2)
    used = dict(zip(("file", "N", "features", "c0"), more, strict=True))
    return {
        "reserved/t.csv": csv(ROWS.rename(columns={"a": "label", "b": "probabilities"})),
        "reserved2/t.csv": csv(ROWS.rename(columns={"a": "class", "b": "row", "c": "image"}).assign(**used)),
        "odd_names/t.csv": csv(ROWS.rename(columns=odd)),
        "odd_names/rows.csv": csv(INPUTS.rename(columns=odd).head(4)),
        "long_name/t.csv": csv(ROWS.rename(columns={"a": "w" * 6000})),
        "case_names/t.csv": csv(ROWS.assign(A=-ROWS.a)),
        "dotted/t.csv": csv(ROWS.rename(columns={"c": "Group.Name", "a": "kind"})),
        "sql_names/t.csv": csv(ROWS.rename(columns={"a": "x'; DROP TABLE y;--", "b": "{b}", "c": "$c"})),
    }


def containers() -> Files:
    """Tables in archives and other formats, some under a wrong suffix."""
    archive, stored, sheet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("t.csv"), TEXT)
    feather.write_feather(ROWS, stored)
    ROWS.to_excel(sheet, index=False)
    packed = gzip.compress(TEXT.encode(), mtime=0)
    return {
        "containers/t.csv.gz": packed,
        "containers/gzipped.csv": packed,
        "containers/t.csv.zip": archive.getvalue(),
        "containers/t.zip": archive.getvalue(),
        "containers/excel.xlsx": archive.getvalue(),
        "containers/excel.csv": archive.getvalue(),
        "containers/t.csv.bz2": bz2.compress(TEXT.encode()),
        "containers/cut.csv.gz": packed[:-9],
        "containers/sheet.xlsx": sheet.getvalue(),
        "containers/t.csv.zst": bytes(pa.compress(TEXT.encode(), "zstd", asbytes=True)),
        "containers/t.feather": stored.getvalue(),
        "containers/t.jsonl": str(ROWS.to_json(orient="records", lines=True)),
        "containers/t.json": str(ROWS.to_json()),
        "containers/empty.csv": "",
        "containers/empty.parquet": "",
        "containers/html.csv": "<!DOCTYPE html>\n<html><body>Not found</body></html>\n",
        **{f"partitioned/t.parquet/c={colour}/p0.parquet": ROWS[ROWS.c == colour].drop(columns="c")
           for colour in ("blue", "green", "red")},
    }  # fmt: skip


def file_names() -> Files:
    """Names of files that a shell, an option or a name of a model could misread, and equal names in two folders."""
    names = ("my data (1)", "-data", "donn\u00e9es_\u58f2\u4e0a", "a:b", "", "o'hara;$x")
    return {
        **{f"names/{name}.csv": TEXT for name in names},
        "names/T.CSV": TEXT,
        "clash/north/data.csv": TEXT,
        "clash/south/data.csv": csv(ROWS.assign(y=np.where(IS_YES, "no", "yes"))),
        "clash/rows.csv": csv(INPUTS.head(10)),
        "clash/\u5ba2\u6237.csv": TEXT,
        "clash/\u8ba2\u5355.csv": csv(ROWS.assign(y=np.where(IS_YES, "no", "yes"))),
        "clash/iris.csv": csv(ROWS.rename(columns={"a": "sepal_length", "b": "sepal_width"})),
        "iris_rows/flowers.csv": "sepal_length,sepal_width,petal_length,petal_width\n"
        "6.3,3.3,6.0,2.5\n5.1,3.5,1.4,0.2\n",
        "changed/before.csv": TEXT,
        "changed/after.csv": csv(ROWS.rename(columns={"b": "bb"})),
    }


def sizes() -> Files:
    """Tables of very few rows."""
    yes, no = ROWS[ROWS.y == "yes"], ROWS[ROWS.y == "no"]
    return {
        "one_row/t.csv": csv(ROWS.head(1)),
        "two_rows/t.csv": csv(pd.concat([yes.head(1), no.head(1)])),
        "six_rows/t.csv": csv(pd.concat([yes.head(3), no.head(3)])),
    }


GROUPS = (line_ends, headings, quotes, separators, column_names, containers, file_names, sizes)
