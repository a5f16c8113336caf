from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from hallmark.flows.experiments import options
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Digits, Images, Iris
from hallmark.tasks.ml.config.experiment import Augmentation, Experiment, Training
from hallmark.tasks.ml.config.models import CNN, Linear
from hallmark.tasks.ml.data import dataset_store, sources, splits, suitability
from hallmark.tasks.ml.data.images import augmentation
from hallmark.tasks.ml.training import sweep_plan
from tests.conftest import fit, prepare
from tests.support import photographed

DIGITS = Digits(kind="digits")


@pytest.fixture
def photos(tmp_path: Path) -> Images:
    return Images(kind="images", path=str(photographed.folder(tmp_path / "photos")))


def original_and_augmented(
    source: Images | Digits,
    home: Path,
    epoch: int = 1,
    batch: int = 0,
    seed: int = 0,
    **given: Any,  # noqa: ANN401 - any field
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the first training images, original and augmented."""
    dataset = prepare(source, home)
    x = np.array(dataset_store.open_split(dataset, "train").x[:16], np.uint8)
    augment = augmentation.build(Training(augmentation=Augmentation(**given), seed=seed), dataset)
    assert augment
    found = augment(torch.from_numpy(x).flatten(1), epoch, batch)
    assert found.dtype == torch.uint8
    return x, found.numpy().reshape(x.shape)


def test_augmentation_is_off_by_default(tmp_path: Path) -> None:
    assert augmentation.build(Training(), prepare(DIGITS, tmp_path)) is None


def test_images_are_flipped_with_the_given_probability(photos: Images, tmp_path: Path) -> None:
    x, found = original_and_augmented(photos, tmp_path, horizontal_flip=1)
    np.testing.assert_array_equal(found, x[:, :, ::-1])
    x, found = original_and_augmented(photos, tmp_path, vertical_flip=1)
    np.testing.assert_array_equal(found, x[:, ::-1])
    x, found = original_and_augmented(DIGITS, tmp_path, horizontal_flip=0.5)
    is_flipped = [(after == before[:, ::-1]).all() for before, after in zip(x, found, strict=True)]
    is_same = [(after == before).all() for before, after in zip(x, found, strict=True)]
    assert 2 < sum(is_flipped) < 14
    assert np.logical_or(is_flipped, is_same).all()


def test_a_shifted_image_is_padded_with_its_edge(photos: Images, tmp_path: Path) -> None:
    x, found = original_and_augmented(photos, tmp_path, shift=2)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    height, width = x.shape[1:3]
    places = [(top, left) for top in range(5) for left in range(5)]
    seen = set()
    for before, after in zip(padded, found, strict=True):
        (place,) = [at for at in places if (before[at[0] : at[0] + height, at[1] : at[1] + width] == after).all()]
        seen.add(place)
    assert len(seen) > 5


def test_brightness_scales_all_pixels_of_an_image_by_one_factor(photos: Images, tmp_path: Path) -> None:
    x, found = original_and_augmented(photos, tmp_path, brightness=0.3)
    factors = []
    for before, after in zip(x.astype(float), found.astype(float), strict=True):
        bright = (before > 50) & (after < 255)
        factor = float(np.median(after[bright] / before[bright]))
        assert np.abs(after - np.minimum(before * factor, 255)).max() <= 3
        factors.append(factor)
    assert 0.69 < min(factors) < 0.9 < 1.1 < max(factors) < 1.31


@pytest.mark.parametrize("name", ["rotation", "contrast", "saturation", "hue"])
def test_other_augmentations_change_each_image_differently(photos: Images, tmp_path: Path, name: str) -> None:
    x, found = original_and_augmented(photos, tmp_path, **{name: 10 if name == "rotation" else 0.4})
    distances = np.abs(x.astype(int) - found).reshape(len(x), -1).mean(axis=1)
    assert (distances > 0).all()
    assert len(set(distances)) == len(x)


def test_pixels_stay_in_the_range_of_the_source(tmp_path: Path) -> None:
    x, found = original_and_augmented(DIGITS, tmp_path, brightness=1, contrast=1)
    assert x.max() == found.max() == 16


def test_augmentation_depends_only_on_seed_epoch_and_batch(tmp_path: Path) -> None:
    given = {"horizontal_flip": 0.5, "shift": 2, "rotation": 20, "brightness": 0.2}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    _, first = original_and_augmented(DIGITS, tmp_path, **given)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(original_and_augmented(DIGITS, tmp_path, **given)[1], first)
    for other in ({"epoch": 2}, {"batch": 1}, {"seed": 1}):
        assert (original_and_augmented(DIGITS, tmp_path, **given, **other)[1] != first).any()


def experiment(**given: Any) -> Experiment:  # noqa: ANN401 - any field of Training
    training = {"device": "cpu", "epochs": 2, "batch_size": 64} | given
    return Experiment(name="x", data=DIGITS, model=Linear(kind="linear"), training=Training.model_validate(training))


@pytest.mark.parametrize("scaling", ["range", "standard"])
@pytest.mark.parametrize("batch_size", [64, "full"])
def test_only_training_sees_augmented_images(tmp_path: Path, scaling: str, batch_size: int | str) -> None:
    source = Digits.model_validate({"kind": "digits", "scaling": scaling})
    dataset = prepare(source, tmp_path)
    flipped = experiment(batch_size=batch_size, augmentation={"horizontal_flip": 1}).model_copy(update={"data": source})
    plain = experiment(batch_size=batch_size).model_copy(update={"data": source})
    first, second, unaugmented = (
        fit(one, dataset, tmp_path / name) for one, name in ((flipped, "a"), (flipped, "b"), (plain, "c"))
    )
    assert first.weights_sha256 == second.weights_sha256 != unaugmented.weights_sha256
    assert first.metrics["val/loss"] != unaugmented.metrics["val/loss"]


def test_only_active_augmentations_change_the_digest() -> None:
    assert experiment(augmentation={}).digest == experiment().digest
    assert experiment(augmentation={"shift": 0}).digest == experiment().digest
    assert experiment(augmentation={"shift": 1}).digest != experiment().digest


def test_augmented_members_of_a_sweep_are_not_stacked(tmp_path: Path) -> None:
    members = [experiment(seed=seed, augmentation={"shift": 1}) for seed in (0, 1)]
    plan = sweep_plan.plan(members, prepare(DIGITS, tmp_path))
    assert (plan.stacks, plan.pool_stacks, plan.single) == ((), (), (0, 1))


@pytest.mark.parametrize(
    ("name", "value"),
    [("horizontal_flip", 1.1), ("vertical_flip", -0.1), ("shift", 65), ("shift", 1.5), ("rotation", 181), ("hue", 0.6)],
)
def test_values_out_of_bounds_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        Augmentation.model_validate({name: value})


def test_a_contradiction_names_both_fields() -> None:
    with pytest.raises(ValidationError, match=r"training\.augmentation\.shift .* data\.kind 'iris' has columns"):
        Experiment(
            name="x",
            data=Iris(kind="iris"),
            model=Linear(kind="linear"),
            training=Training(augmentation=Augmentation(shift=1)),
        )
    with pytest.raises(ValidationError, match=r"optimizer 'lbfgs' and augmentation\.rotation 5\.0 contradict"):
        Training(optimizer="lbfgs", augmentation=Augmentation(rotation=5))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("saturation=0.1", r"training\.augmentation\.saturation: 0\.1 needs colour images, found grey"),
        ("hue=0.1", r"training\.augmentation\.hue: 0\.1 needs colour images, found grey"),
        (
            "shift=8",
            r"training\.augmentation\.shift: 8 can move images of 8 x 8 pixels completely out of view: use less",
        ),
    ],
)
def test_augmentations_that_do_not_suit_the_images_are_refused(tmp_path: Path, option: str, message: str) -> None:
    requested = options.experiment("digits", [f"--training.augmentation.{option}"])
    table = sources.read(requested.data, tmp_path)
    divided = splits.divide(table, requested.data.split)
    with pytest.raises(InputError, match=message):
        suitability.refuse_impossible(table, divided, requested.model, requested.training)


def test_a_cnn_trains_on_augmented_colour_images(photos: Images, tmp_path: Path) -> None:
    training = Training(
        device="cpu", epochs=8, batch_size=8, augmentation=Augmentation(vertical_flip=0.5, shift=1, saturation=0.1)
    )
    one = Experiment(name="x", data=photos, model=CNN(kind="cnn", channels=(4,), hidden=(8,)), training=training)
    dataset = prepare(photos, tmp_path)
    found = fit(one, dataset, tmp_path / "a")
    assert found.metrics["val/accuracy"] == 1
    assert fit(one, dataset, tmp_path / "b").weights_sha256 == found.weights_sha256
