"""Data larger than a batch is decoded, prepared and read in parts."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import csv, parquet

from hallmark.tasks.ml.data import dataset_store, sources
from hallmark.tasks.ml.data.tables.formats import csv_file
from hallmark.tasks.ml.predict import input_rows
from tests.support import photographed
from tests.support.prediction_rows import TWO
from tests.unit.ml.data.images.test_cache import images

SOURCES: dict[str, Callable[[Path, NDArray[np.float64]], object]] = {
    ".csv": lambda path, x: csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1]}), path),
    ".npy": np.save,
    ".parquet": lambda path, x: parquet.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), path),
}


@pytest.mark.parametrize("suffix", SOURCES)
def test_memory_is_bounded_by_a_few_batches(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read 32 MB, and measure the memory of Python, which includes NumPy's, and of Arrow."""
    monkeypatch.setattr(csv_file, "_BLOCK", 2**18)
    path = tmp_path / f"x{suffix}"
    SOURCES[suffix](path, np.random.default_rng(0).uniform(size=(2_000_000, 2)))
    pool, before, rows, arrow_peak = pa.default_memory_pool(), pa.total_allocated_bytes(), 0, 0
    tracemalloc.start()
    for batch in input_rows.open_source(str(path), TWO).batches:
        rows += len(batch.rows)
        arrow_peak = max(arrow_peak, pool.bytes_allocated() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 2_000_000
    assert peak < 12e6
    assert arrow_peak < 12e6


def test_decoding_and_preparing_use_bounded_memory(tmp_path: Path) -> None:
    folder, home = photographed.folder(tmp_path / "photos", count=250), tmp_path / "home"
    source = images(folder, height=256, width=256)
    whole = 500 * 256 * 256 * 3
    small = images(folder)
    dataset_store.prepare(sources.read(small, home), small, home)  # import all first, because imports take memory
    tracemalloc.start()
    try:
        table = sources.read(source, home)
        dataset = dataset_store.prepare(table, source, home)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (home / "datasets" / dataset.digest / "train.x.npy").stat().st_size > whole / 2
    assert peak < whole / 2
