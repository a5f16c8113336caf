"""Images a second that a folder of one's own is decoded at: 20,000 small PNGs in colour, and 100 photos as JPEG.

`decoding.read` is timed as a run calls it, in a home where nothing is yet: listing, looking at every header, decoding,
resizing, writing and syncing one file of pixels. Then again, where nothing has changed. Of three rounds the median.
Ends in one JSON line. `python -m tests.bench.bench_images`
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
"""Small PNGs a second."""
CLASSES = 10
SMALL, PHOTOS = 20_000, 100


def draw(folder: Path, count: int, height: int, width: int, suffix: str) -> Images:
    """Blocks of colour under noise: neither as small as a plain image when compressed nor as large as noise alone."""
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
