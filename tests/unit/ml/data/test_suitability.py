from pathlib import Path

import pytest

from hallmark.flows.experiments import options
from hallmark.tasks import prepare as prepare_step
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import Data, Iris
from hallmark.tasks.ml.config.experiment import Training
from hallmark.tasks.ml.config.models import MLP, Model
from hallmark.tasks.ml.data import sources, splits, suitability

IRIS = Iris(kind="iris")


def refuse(source: Data, training: Training, model: Model = MLP(kind="mlp")) -> None:  # noqa: B008 - immutable
    table = sources.read(source, Path("nowhere"))
    suitability.refuse_impossible(table, splits.divide(table, source.split), model, training)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("--data.split.test=0.01", r"data\.split: .*class"),
        ("--training.batch_size=91", r"training\.batch_size: 91 is more than the 90 rows"),
    ],
)
def test_an_impossible_experiment_is_refused_before_anything_is_written(token: str, message: str, home: Path) -> None:
    with pytest.raises(InputError, match=message):
        prepare_step.prepare.fn(options.experiment("iris", [token]))
    assert not home.exists()


def test_a_batch_larger_than_the_training_split_is_refused() -> None:
    refuse(IRIS, Training(batch_size=90))
    with pytest.raises(InputError, match=r"training\.batch_size: 91 is more than the 90 rows"):
        refuse(IRIS, Training(batch_size=91))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("--training.loss.weight=1,2",), r"training.loss.weight: expected 3 factors.*output of the network, found 2"),
        (
            ("--training.loss.kind=bce_with_logits", "--training.loss.pos_weight=1,2,3,4"),
            r"training.loss.pos_weight: expected 3 factors.*output of the network, found 4",
        ),
        (("--training.loss.ignore_index=3",), r"training.loss.ignore_index: there is no class 3"),
    ],
)
def test_loss_factors_that_do_not_match_the_classes_are_refused(tokens: tuple[str, ...], message: str) -> None:
    experiment = options.experiment("iris", list(tokens))
    with pytest.raises(InputError, match=message):
        refuse(experiment.data, experiment.training, experiment.model)


def test_a_one_cycle_schedule_without_increasing_updates_is_refused() -> None:
    tokens = ["--training.schedule.kind=one_cycle", "--training.schedule.warmup=0.1", "--training.epochs"]
    experiment = options.experiment("iris", [*tokens, "9"])
    with pytest.raises(InputError, match=r"training\.schedule\.warmup: 0\.1 of 9 updates"):
        refuse(experiment.data, experiment.training)
    experiment = options.experiment("iris", [*tokens, "10"])
    refuse(experiment.data, experiment.training)


def test_images_too_small_for_the_poolings_are_refused() -> None:
    experiment = options.experiment("digits", ["--model.kind=cnn", "--model.channels=4,4,4"])
    refuse(experiment.data, experiment.training, experiment.model)
    experiment = options.experiment("digits", ["--model.kind=cnn", "--model.channels=4,4,4,4"])
    with pytest.raises(InputError, match=r"4 convolutions and poolings leave nothing of 8 x 8 pixels: give fewer$"):
        refuse(experiment.data, experiment.training, experiment.model)


def test_images_too_small_for_convolutions_without_padding_are_refused() -> None:
    tokens = ["--model.kind=cnn", "--model.padding=valid", "--model.kernel=5"]
    experiment = options.experiment("digits", [*tokens, "--model.channels=4"])
    refuse(experiment.data, experiment.training, experiment.model)
    experiment = options.experiment("digits", [*tokens, "--model.channels=4,4"])
    with pytest.raises(InputError, match=r"2 convolutions .* 8 x 8 pixels: give fewer, or model.padding 'same'"):
        refuse(experiment.data, experiment.training, experiment.model)
