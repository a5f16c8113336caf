"""Measure how many images of a user's folder are decoded per second: 20,000 small colour PNGs, and 100 JPEG photos.

`cache.read` is timed as a run calls it, in an empty home: it lists the files, reads every header, decodes, resizes, and
writes and syncs one file of pixels. Then it is timed again on the unchanged folder. The median of three rounds counts.
The last line is JSON. `python -m tests.bench.bench_images`
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hallmark.tasks.ml.config.data import Images
from hallmark.tasks.ml.data.images import cache

ROUNDS = 3
TARGET = 4_000
"""Small PNGs per second."""
CLASSES = 10
SMALL, PHOTOS = 20_000, 100


def draw(folder: Path, count: int, height: int, width: int, suffix: str) -> Images:
    """Draw blocks of colour with noise, which compress neither as well as plain images nor as badly as noise."""
    random = np.random.default_rng(0)
    for label in range(CLASSES):
        (folder / f"{label}").mkdir(parents=True)
        blocks = random.integers(0, 200, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        for number in range(count // CLASSES):
            pixels = blocks + random.integers(0, 50, blocks.shape, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}" / f"{number}{suffix}")
    return Images(kind="images", path=str(folder))


def seconds(source: Images, home: Path) -> float:
    started = time.perf_counter()
    cache.read(source, home)
    return time.perf_counter() - started


def main() -> None:
    taken: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = {
            "small PNGs": (draw(Path(folder) / "small", SMALL, 32, 32, ".png"), SMALL),
            "photos, JPEG of 12 megapixels": (draw(Path(folder) / "photos", PHOTOS, 3000, 4000, ".jpg"), PHOTOS),
        }
        for number in range(ROUNDS):
            for name, (source, count) in sources.items():
                home = Path(folder) / f"home {number}"
                for way in (name, f"{name}, again"):
                    taken.setdefault(way, []).append(count / seconds(source, home))
                    print(f"{way:36}{taken[way][-1]:12,.0f} a second", flush=True)
    speeds = {name: round(statistics.median(found)) for name, found in taken.items()}
    result = {
        "benchmark": "a folder of images is decoded",
        "images": {"small PNGs": SMALL, "photos": PHOTOS},
        "images_per_second": speeds,
        "target": TARGET,
        "reached": speeds["small PNGs"] >= TARGET,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
