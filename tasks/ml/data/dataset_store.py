"""Prepared datasets: split once and stored on disk under their digest."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hallmark.tasks.common.digests import SHOWN, check, digest_of, file_digest
from hallmark.tasks.common.errors import DamagedError
from hallmark.tasks.common.file_locks import file_lock
from hallmark.tasks.common.files import read_regular, whole_folder
from hallmark.tasks.common.records import SPLITS, Column, Dataset, SplitName
from hallmark.tasks.ml.config import data as config_data
from hallmark.tasks.ml.config.data import Data
from hallmark.tasks.ml.data.source_rows import RawRows, SourceRows
from hallmark.tasks.ml.data.splits import divide, row_digests
from hallmark.tasks.ml.data.tables.wide_numbers import Numbers

logger = logging.getLogger(__name__)

FACTS = "dataset.json"
"""File with the record of a dataset and the digests of its other files."""
COLUMNS, ENCODING = "columns.json", "encoding.onnx"
"""Further files of a dataset that was read from a user's table; see `records.Dataset`."""
_LATER_FIELDS = (
    *("missing_text", "decimal", "unit", "looks", "joined", "takes_na", "distinct", "merged", "wide", "offset"),
    *("date_form", "parts"),
)
"""Fields of `Column` that are stored only if they differ from their default."""
_CHUNK_BYTES = 2**24
"""Bytes of rows read at a time while a dataset is written."""

Bounds = tuple[NDArray[np.generic], NDArray[np.generic]]
"""Smallest and largest value of each column, `(F,)`, or of each pixel, `(H, W)` or `(H, W, 3)`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one split, memory-mapped."""

    x: RawRows
    y: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Selection:
    """Selected rows of an array that may be larger than memory, read in chunks."""

    array: NDArray[Any]
    rows: NDArray[np.int64]

    def chunks(self) -> Iterator[NDArray[Any]]:
        """Return the rows in order, in chunks."""
        size = max(1, _CHUNK_BYTES // max(1, self.array[:1].nbytes))
        starts = range(0, len(self.rows), size)
        return (np.ascontiguousarray(self.array[self.rows[start : start + size]]) for start in starts)

    def digest(self) -> str:
        """Return the SHA-256 (64 hex digits) of the rows' bytes."""
        sha256 = hashlib.sha256()
        for chunk in self.chunks():
            sha256.update(chunk.data)
        return sha256.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file that `np.save` would write."""
        header = {"descr": np.lib.format.dtype_to_descr(self.array.dtype), "fortran_order": False}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (len(self.rows), *self.array.shape[1:])})
            for chunk in self.chunks():
                file.write(chunk.data)


def prepare(source: SourceRows, data: Data, home: Path) -> Dataset:
    """Write the splits of `source` to `home/datasets/<digest>`, or reuse an existing undamaged dataset.

    A kernel lock lets one process write while others wait and reuse its dataset. The digest of every file is checked
    before reuse; a damaged dataset is written again, with a warning in the log.

    Args:
        source: all rows, as returned by `sources.read`.
        data: the data part of the experiment, with its split.
        home: Hallmark's home folder.
    """
    divided = divide(source, data.split)
    digests = row_digests(source.x, source.table_columns)
    arrays = {
        f"{split}.{suffix}.npy": Selection(array, rows)
        for split, rows in divided.items()
        for suffix, array in (("x", source.x), ("y", source.y), ("rows", digests))
    }
    columns, encoded = _encode(source, data, divided["train"])
    dataset = _outline(source, data, divided, columns)
    texts = {COLUMNS: _dump(columns, source), ENCODING: encoded} if columns else {}
    file_digests = {name: array.digest() for name, array in arrays.items()}
    file_digests |= {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
    digest = digest_of([_describe(dataset), file_digests])
    dataset = replace(dataset, digest=digest, folder=home / "datasets" / digest)
    with file_lock(home, f"dataset-{digest}"):
        if _is_intact(dataset.folder):
            os.utime(dataset.folder)  # `hallmark prune` keeps what was used recently
        else:
            _write(dataset, arrays, texts)
    return dataset


def load(folder: Path, used: Iterable[str] = ()) -> Dataset:
    """Return the record of a dataset that was prepared earlier.

    Args:
        folder: folder of the dataset.
        used: names of the files that the caller reads. Their digests are checked, and that of `columns.json`.

    Raises:
        DamagedError: one of these files does not have its recorded digest, or the record cannot be read.
    """
    facts, digests = _facts(folder), file_digests(folder)
    for name in (*used, *({COLUMNS} & digests.keys())):
        check(folder / name, digests[name])
    known = {field.name for field in fields(Dataset)} & facts.keys()
    values: dict[str, Any] = {
        name: tuple(facts[name]) if isinstance(facts[name], list) else facts[name] for name in known
    }
    try:
        return Dataset(**values, folder=folder, digest=folder.name)
    except TypeError as error:
        raise _unreadable(folder, error) from error


def file_digests(folder: Path) -> dict[str, str]:
    """Return the recorded SHA-256 (64 hex digits) of each file of a dataset, by name.

    Raises:
        DamagedError: the record cannot be read.
    """
    files = _facts(folder).get("files")
    expected = {f"{split}.{part}.npy" for split in SPLITS for part in ("x", "y", "rows")}
    if isinstance(files, dict) and expected <= files.keys() and all(isinstance(one, str) for one in files.values()):
        return files
    raise _unreadable(folder, "it has no digests of files")


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads(read_regular(folder / FACTS))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(folder, error) from error
    if not isinstance(facts, dict):
        raise _unreadable(folder, f"expected an object, found {type(facts).__name__}")
    return facts


def _unreadable(folder: Path, reason: object) -> DamagedError:
    return DamagedError(f"{folder / FACTS}: cannot be read ({reason}): train on the same data to write it again")


def outline(source: SourceRows, data: Data) -> Dataset:
    """Return the record that `prepare` would return, without folder and digest; nothing is written."""
    divided = divide(source, data.split)
    return _outline(source, data, divided, _encode(source, data, divided["train"])[0])


def columns_of(dataset: Dataset) -> tuple[Column, ...]:
    """Return the columns of a user's table; empty for any other dataset."""
    return _read_columns(dataset.folder, dataset.digest)[0] if dataset.is_table else ()


def unlabelled(dataset: Dataset) -> int:
    """Return the number of rows of a user's table that were left out because they have no label."""
    return _read_columns(dataset.folder, dataset.digest)[1] if dataset.is_table else 0


def unlabelled_as(dataset: Dataset) -> str:
    """Return a text of a user's table that marks a missing label, such as NA; empty if there is none."""
    return _read_columns(dataset.folder, dataset.digest)[2] if dataset.is_table else ""


def category_values(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """Return all values of each categorical column by name; raw rows hold indices into them."""
    return {one.name: one.values for one in columns_of(dataset) if one.kind == "categorical"}


def training_range(dataset: Dataset) -> Bounds:
    """Return the smallest and largest value of each column or pixel in the training rows; read-only arrays.

    Missing values of a user's table are ignored; both are 0 for a column without values. For text, they are
    the smallest and largest index of its values. The rows are read once per process.
    """
    return _training_range(dataset.folder, dataset.digest, dataset.is_table)


def as_stored(x: NDArray[np.generic], dataset: Dataset) -> RawRows:
    """Round rows of columns, `(N, F)`, to the types of the columns: float32, or float64 for wide ones."""
    rounded = x.astype(np.float32)
    return np.where(np.isin(dataset.columns, dataset.wide), x, rounded) if dataset.wide else rounded


def open_split(dataset: Dataset, split: SplitName) -> Rows:
    """Memory-map one split; its rows are read from disk when they are used."""
    x, y = (np.load(dataset.folder / f"{split}.{part}.npy", mmap_mode="r") for part in ("x", "y"))
    return Rows(x=x, y=y)


def split_digests(dataset: Dataset, split: str) -> set[bytes]:
    """Return the digests of the rows of one split."""
    return {row.tobytes() for row in np.load(dataset.folder / f"{split}.rows.npy", mmap_mode="r")}


def _encode(source: SourceRows, data: Data, train: NDArray[np.int64]) -> tuple[tuple[Column, ...], bytes]:
    """Fit the encoding of a user's table: its columns, and the ONNX graph as bytes. Both are empty for other data."""
    if not isinstance(data, config_data.Table):
        return (), b""
    from hallmark.tasks.ml.data.tables import encoding

    scaling: Literal["standard", "none"] = "standard" if data.scaling == "standard" else "none"
    return encoding.fit(source.table_columns, cast("Numbers", source.x[train]), scaling, data.categories)


def _outline(
    source: SourceRows, data: Data, divided: Mapping[SplitName, NDArray[np.int64]], columns: tuple[Column, ...]
) -> Dataset:
    shape = source.x.shape[1:]
    if columns:
        from hallmark.tasks.ml.data.tables import encoding

        shape = (encoding.feature_count(columns),)
    return Dataset(
        name=data.name,
        folder=Path(),
        digest="",
        columns=source.columns,
        shape=shape,
        dtype=str(source.x.dtype),
        largest=source.largest,
        classes=source.classes,
        rows={split: len(divided[split]) for split in SPLITS},
        kinds=tuple(column.kind for column in columns),
        resized=source.resized,
        bits=source.bits,
        on_black=source.on_black,
        wide=tuple(column.name for column in columns if column.wide),
    )


def _dump(columns: tuple[Column, ...], source: SourceRows) -> bytes:
    # Later fields are omitted when they have their default, so that they change no existing digest.
    later = {one.name: one.default for one in fields(Column) if one.name in _LATER_FIELDS}

    def describe(column: dict[str, Any]) -> dict[str, Any]:
        parts = {"parts": [describe(part) for part in column["parts"]]} if column["parts"] else {}
        return {key: value for key, value in column.items() if key not in later or value != later[key]} | parts

    described = [describe(asdict(column)) for column in columns]
    marked = {"unlabelled_as": source.unlabelled_as} if source.unlabelled_as else {}
    content = {"unlabelled": source.unlabelled} | marked | {"columns": described}
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


@lru_cache(maxsize=8)
def _read_columns(folder: Path, digest: str) -> tuple[tuple[Column, ...], int, str]:  # noqa: ARG001 - part of the cache's key
    """Read `columns.json` once per process: its columns, the number of unlabelled rows, and a text that marks them."""
    content = json.loads((folder / COLUMNS).read_bytes())
    columns = tuple(map(_read_column, content["columns"]))
    return columns, int(content["unlabelled"]), str(content.get("unlabelled_as", ""))


def _read_column(stored: dict[str, Any]) -> Column:
    content = stored | {name: tuple(stored[name]) for name in ("values", "kept", "missing_text") if name in stored}
    return Column(**content | {"parts": tuple(map(_read_column, stored.get("parts", ())))})


@lru_cache(maxsize=8)
def _training_range(folder: Path, digest: str, is_table: bool) -> Bounds:  # noqa: FBT001 - a cache's key is positional
    x = np.load(folder / "train.x.npy", mmap_mode="r")
    if is_table:
        lowest, highest = (np.nan_to_num(reduce(x, axis=0)) for reduce in (np.fmin.reduce, np.fmax.reduce))
        for index, column in enumerate(_read_columns(folder, digest)[0]):
            if column.kind == "categorical":
                lowest[index], highest[index] = 0, max(len(column.values) - 1, 0)
    else:
        lowest, highest = x.min(axis=0), x.max(axis=0)
    for bound in (lowest, highest):
        bound.flags.writeable = False
    return lowest, highest


def _is_intact(folder: Path) -> bool:
    if not folder.exists():
        return False
    try:
        for name, digest in file_digests(folder).items():
            check(folder / name, digest)
    except (DamagedError, OSError) as error:
        logger.warning("dataset %s is damaged and is written again: %s", folder.name[:SHOWN], error)
        return False
    return True


def _write(dataset: Dataset, arrays: Mapping[str, Selection], texts: Mapping[str, bytes]) -> None:
    with whole_folder(dataset.folder) as temporary:
        for name, array in arrays.items():
            array.save(temporary / name)
        for name, content in texts.items():
            (temporary / name).write_bytes(content)
        files = {name: file_digest(temporary / name) for name in (*arrays, *texts)}
        text = json.dumps(_describe(dataset) | {"files": files}, indent=2)
        (temporary / FACTS).write_text(text + "\n")


def _describe(dataset: Dataset) -> dict[str, object]:
    """Return the dataset as JSON values, without its location and digest."""
    content = {key: value for key, value in asdict(dataset).items() if key not in ("folder", "digest")}
    # Later fields are omitted when they are empty, so that they change no existing digest.
    new = {field.name for field in fields(dataset) if field.default in ((), False, 0)}
    return {key: value for key, value in content.items() if value or key not in new}
