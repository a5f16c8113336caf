"""Stacked members train like each one alone, and the plan decides which members are stacked."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hallmark.tasks.common.errors import DivergedError, InputError
from hallmark.tasks.common.records import Dataset, Fit
from hallmark.tasks.ml.config.data import Data, Digits, Iris
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model
from hallmark.tasks.ml.training import sweep_plan, trainer
from hallmark.tasks.ml.training.history import curves
from tests.conftest import fit, prepare

LINEAR, SMALL = Linear(kind="linear"), MLP(kind="mlp", hidden=(9, 5))
IRIS, DIGITS = Iris(kind="iris"), Digits(kind="digits")
CLOSE = 1e-5
"""Relative tolerance for losses."""

Options = dict[str, Any]


def experiment(model: Model = LINEAR, data: Data = IRIS, **options: Any) -> Experiment:  # noqa: ANN401 - any field of Training
    config = Training.model_validate({"device": "cpu", "epochs": 20, "batch_size": 8} | options)
    return Experiment(name="x", data=data, model=model, training=config)


@dataclass
class Folder:
    """A folder in which members are trained, alone or together."""

    dataset: Dataset
    path: Path

    def alone(self, member: Experiment) -> Fit:
        return fit(member, self.dataset, self.path / "alone" / member.digest)

    def together(self, members: Sequence[Experiment]) -> list[Fit | DivergedError]:
        first, folder = members[0], self.path / "together"
        folders = [folder / member.digest for member in members]
        logs = [lambda *_: None] * len(members)
        trainings = [member.training for member in members]
        return trainer.fit_together(self.dataset, first.data, first.model, trainings, folders, logs)


@pytest.fixture(scope="module")
def iris_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("iris")
    return Folder(prepare(IRIS, path), path)


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp("digits")
    return Folder(prepare(DIGITS, path), path)


def points(fitted: Fit | DivergedError) -> dict[str, list[float]]:
    """Return every loss that a member has logged, by epoch and by update."""
    assert isinstance(fitted, Fit)
    return {name: values for name, (_, values) in curves(fitted.history).items() if name.endswith("loss")}


def assert_as_alone(folder: Folder, members: Sequence[Experiment], epochs: int | None = None) -> None:
    """Assert that the losses of all epochs, or of the first `epochs`, are those of each member trained alone."""
    for member, found in zip(members, folder.together(members), strict=True):
        expected, seen = points(folder.alone(member)), points(found)
        assert seen.keys() == expected.keys()
        for name, values in expected.items():
            first = None if epochs is None else epochs * len(values) // member.training.epochs
            np.testing.assert_allclose(seen[name][:first], values[:first], rtol=CLOSE, err_msg=name)


VARIED: dict[str, list[Options]] = {
    "learning rates": [{"lr": lr} for lr in (0.001, 0.01, 0.1)],
    "weight decays": [{"weight_decay": decay} for decay in (0, 0.001, 0.1)],
    "momenta": [{"momentum": momentum} for momentum in (0, 0.5, 0.9)],
    "seeds, and so orders": [{"seed": seed} for seed in range(3)],
    "seeds in one order": [{"seed": seed, "shuffle_seed": 7} for seed in range(3)],
    "orders": [{"shuffle_seed": seed} for seed in range(3)],
    "several at once": [
        {"lr": 0.05, "weight_decay": 0.01, "seed": 3, "shuffle_seed": 1},
        {"lr": 0.02, "momentum": 0.9, "seed": 3},
        {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.5, "shuffle_seed": 1},
    ],
}


@pytest.mark.parametrize("varied", VARIED)
def test_softmax_regressions_agree_with_each_alone_over_the_whole_training(varied: str, iris_folder: Folder) -> None:
    assert_as_alone(iris_folder, [experiment(optimizer="sgd", **member) for member in VARIED[varied]])


FACTORS = {"kind": "cross_entropy", "weight": (1, 2, 0.5)}
MANNERS: dict[str, Options] = {
    "adam": {},
    "adamw": {"optimizer": "adamw"},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
    "cosine": {"optimizer": "sgd", "schedule": {"kind": "cosine"}},
    "step": {"schedule": {"kind": "step", "every": 3, "factor": 0.5}},
    "one cycle": {"optimizer": "adamw", "schedule": {"kind": "one_cycle"}},
    "a last batch of 10 rows": {"optimizer": "sgd", "batch_size": 40},
    "a last batch of one row": {"optimizer": "sgd", "batch_size": 89, "momentum": 0.9},
    "all rows at once": {"optimizer": "sgd", "batch_size": "full"},
    "rows as they lie": {"optimizer": "sgd", "shuffle": False, "last_batch_loss": True},
    "class weights": {"optimizer": "sgd", "loss": FACTORS},
    "class weights, summed": {"optimizer": "sgd", "loss": FACTORS | {"reduction": "sum"}},
    "label smoothing": {"optimizer": "sgd", "loss": FACTORS | {"label_smoothing": 0.1}},
    "a class ignored": {"optimizer": "sgd", "batch_size": 30, "loss": {"kind": "cross_entropy", "ignore_index": 1}},
    "sum": {"optimizer": "sgd", "loss": {"kind": "cross_entropy", "reduction": "sum"}},
    "one against the rest": {"optimizer": "sgd", "loss": {"kind": "bce_with_logits", "pos_weight": (1, 2, 3)}},
    "the test split watched": {"optimizer": "sgd", "monitor": "test"},
}
OUTPUTS: dict[str, tuple[str, Options]] = {
    "bce of sigmoids": ("sigmoid", {"kind": "bce", "weight": (1, 2, 0.5)}),
    "mse of sigmoids": ("sigmoid", {"kind": "mse"}),
    "mse of softmax": ("softmax", {"kind": "mse"}),
    "nll": ("log_softmax", {"kind": "nll"}),
    "nll with factors": ("log_softmax", {"kind": "nll", "weight": (1, 2, 0.5)}),
    "cross-entropy of sigmoids": ("sigmoid", {"kind": "cross_entropy"}),
}
SHARED = [{"lr": lr, "weight_decay": decay} for lr, decay in ((0.003, 0), (0.01, 0.1), (0.03, 0.01))]
OWN = [member | {"seed": seed} for seed, member in enumerate(SHARED)]
ORDERS = {"one order": SHARED, "orders of their own": OWN}


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("manner", MANNERS)
def test_members_agree_with_each_alone_for_every_training_option(manner: str, orders: str, iris_folder: Folder) -> None:
    members = [experiment(**{"epochs": 6} | MANNERS[manner] | member) for member in ORDERS[orders]]
    assert_as_alone(iris_folder, members)


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_members_agree_with_each_alone_for_every_output_and_loss(output: str, orders: str, iris_folder: Folder) -> None:
    ends_in, loss = OUTPUTS[output]
    model = Linear(kind="linear", output=ends_in)  # type: ignore[arg-type]
    options = {"epochs": 6, "optimizer": "sgd", "loss": loss}
    assert_as_alone(iris_folder, [experiment(model, **options | member) for member in ORDERS[orders]])


@pytest.mark.parametrize("orders", ORDERS)
def test_softmax_regressions_of_pictures_agree_over_fifty_epochs(orders: str, digits_folder: Folder) -> None:
    options = {"epochs": 50, "batch_size": 32, "optimizer": "sgd"}
    assert_as_alone(digits_folder, [experiment(LINEAR, DIGITS, **options | member) for member in ORDERS[orders]])


PERCEPTRON = {"epochs": 25, "batch_size": 32, "optimizer": "sgd", "momentum": 0.9}


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("manner", [PERCEPTRON, {"epochs": 25, "batch_size": 32}], ids=["sgd", "adam"])
def test_perceptrons_agree_over_the_first_epoch(manner: Options, orders: str, digits_folder: Folder) -> None:
    model = MLP(kind="mlp", hidden=(32,))
    members = [experiment(model, DIGITS, **manner | {"epochs": 2} | member) for member in ORDERS[orders]]
    assert_as_alone(digits_folder, members, epochs=1)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Make float64 the default dtype of torch."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("manner", [PERCEPTRON, {"epochs": 25, "batch_size": 32}], ids=["sgd", "adam"])
def test_perceptrons_agree_over_the_whole_run_in_float64(manner: Options, orders: str, digits_folder: Folder) -> None:
    model = MLP(kind="mlp", hidden=(32,))
    assert_as_alone(digits_folder, [experiment(model, DIGITS, **manner | member) for member in ORDERS[orders]])


EARLY_AND_LATE: list[Options] = [{"lr": 3, "weight_decay": 0.01}, {"lr": 1}, {"lr": 0.01}]


def test_members_stop_early_as_they_would_alone_and_keep_their_best_weights(iris_folder: Folder) -> None:
    members = [experiment(epochs=30, patience=3, optimizer="sgd", **member) for member in EARLY_AND_LATE]
    found = iris_folder.together(members)
    for member, one in zip(members, found, strict=True):
        expected = iris_folder.alone(member)
        assert isinstance(one, Fit)
        assert (one.best_epoch, one.epochs, one.stopped) == (expected.best_epoch, expected.epochs, expected.stopped)
        assert_same_weights(one, expected)
    assert len({one.best_epoch for one in found if isinstance(one, Fit)}) == len(members)


def assert_same_weights(one: Fit, other: Fit) -> None:
    weights, others = (load_file(fitted.weights) for fitted in (one, other))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, others[name], rtol=CLOSE, atol=1e-7)


GROWING = {"epochs": 150, "optimizer": "sgd", "batch_size": "full"}
"""With lr times weight_decay above 2, every step makes the weights larger: after a hundred they are infinite."""


def test_weights_that_diverge_after_an_early_stop_do_not_matter(iris_folder: Folder) -> None:
    members = [experiment(**GROWING, patience=3, **one) for one in ({"lr": 1, "weight_decay": 3}, {"lr": 0.01})]
    expected = iris_folder.alone(members[0])
    found = iris_folder.together(members)[0]
    assert isinstance(found, Fit), found
    assert (found.best_epoch, found.epochs, found.stopped) == (expected.best_epoch, expected.epochs, expected.stopped)
    assert_same_weights(found, expected)


DIVERGING: dict[str, Options] = {
    "cross-entropy": {"loss": {"kind": "cross_entropy"}},
    "factors": {"loss": FACTORS},
    "one against the rest": {"loss": {"kind": "bce_with_logits"}},
    "adam": {"optimizer": "adam"},
    "momentum": {"momentum": 0.9},
}
TOO_FAST = {"lr": 1e30, "weight_decay": 1e9}


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("manner", DIVERGING)
def test_a_diverging_member_does_not_change_the_others(manner: str, orders: str, iris_folder: Folder) -> None:
    members = [experiment(**{"epochs": 6, "optimizer": "sgd"} | DIVERGING[manner] | one) for one in ORDERS[orders]]
    assert_undisturbed(
        iris_folder, members, experiment(**{"epochs": 6, "optimizer": "sgd"} | DIVERGING[manner] | TOO_FAST)
    )


@pytest.mark.parametrize(
    ("output", "loss"),
    [
        ("sigmoid", "bce"),
        ("sigmoid", "mse"),
        ("log_softmax", "nll"),
    ],
)
def test_a_diverging_member_does_not_change_the_others_for_every_output_and_loss(
    output: str, loss: str, iris_folder: Folder
) -> None:
    model = Linear(kind="linear", output=output)  # type: ignore[arg-type]
    options = {"epochs": 6, "optimizer": "sgd", "loss": {"kind": loss}}
    members = [experiment(model, **options | one) for one in SHARED]
    assert_undisturbed(iris_folder, members, experiment(model, **options | TOO_FAST))


def assert_undisturbed(folder: Folder, members: list[Experiment], diverging: Experiment) -> None:
    """Assert that the diverging member changes no loss of the others, and fails as it does when trained alone."""
    with pytest.raises(DivergedError, match=r"training diverged: .* learning rate 1e") as alone:
        folder.alone(diverging)
    expected = folder.together(members)
    first, failed, *rest = folder.together([members[0], diverging, *members[1:]])
    assert isinstance(failed, DivergedError)
    message, expected_message = (re.sub(r"step \d+", "step", str(error)) for error in (failed, alone.value))
    assert message == expected_message
    assert not (folder.path / "together" / diverging.digest).exists()
    for one, other in zip([first, *rest], expected, strict=True):
        for name, values in points(other).items():
            np.testing.assert_allclose(points(one)[name], values, rtol=1e-6, err_msg=name)


def test_every_diverged_member_states_its_reason(iris_folder: Folder) -> None:
    members = [experiment(optimizer="sgd", **TOO_FAST | {"lr": lr}) for lr in (1e29, 1e30)]
    for lr, error in zip(("1e+29", "1e+30"), iris_folder.together(members), strict=True):
        assert isinstance(error, DivergedError)
        assert f"learning rate {lr}:" in str(error)


def test_members_that_differ_in_per_member_fields_only_are_stacked(iris_folder: Folder) -> None:
    own: list[Options] = [{"lr": 0.1}, {"momentum": 0.9}, {"weight_decay": 0.1}, {"seed": 1}, {"shuffle_seed": 1}]
    members = [experiment(optimizer="sgd", **one) for one in own]
    assert sweep_plan.plan(members, iris_folder.dataset) == sweep_plan.Plan(
        ((0, 1, 2, 3, 4),), pool_stacks=(), single=()
    )


def test_a_long_training_is_split_across_the_pool(iris_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count multiplications: rows by epochs by three products of four columns and three classes."""
    members = [experiment(seed=seed) for seed in range(5)]
    products = 5 * members[0].training.epochs * iris_folder.dataset.rows["train"] * 3 * 4 * 3
    monkeypatch.setattr(sweep_plan, "WORKERS", 2)
    monkeypatch.setattr(sweep_plan, "SPLIT_THRESHOLD", products)
    plan = sweep_plan.plan(members, iris_folder.dataset)
    assert plan == sweep_plan.Plan(stacks=(), pool_stacks=((0, 2, 4), (1, 3)), single=())
    assert sweep_plan.plan(members[:4], iris_folder.dataset).stacks == ((0, 1, 2, 3),)
    monkeypatch.setattr(sweep_plan, "SPLIT_THRESHOLD", 0)
    assert sweep_plan.plan(members[:4], iris_folder.dataset).pool_stacks == ((0, 2), (1, 3))
    assert sweep_plan.plan(members[:3], iris_folder.dataset).stacks == ((0, 1, 2),)
    monkeypatch.setattr(sweep_plan, "WORKERS", 1)
    assert sweep_plan.plan(members, iris_folder.dataset).stacks == ((0, 1, 2, 3, 4),)


DIFFERENT_SHAPES: dict[str, tuple[Experiment, Experiment]] = {
    "hidden widths": (experiment(MLP(kind="mlp", hidden=(8,))), experiment(MLP(kind="mlp", hidden=(9,)))),
    "architectures": (experiment(LINEAR), experiment(SMALL)),
    "first weights that are set": (experiment(Linear(kind="linear", weight=1)), experiment(LINEAR)),
    "batch sizes": (experiment(), experiment(batch_size=9)),
    "optimizers": (experiment(), experiment(optimizer="adamw")),
    "epochs": (experiment(), experiment(epochs=7)),
    "patience": (experiment(), experiment(patience=7)),
    "schedules": (experiment(), experiment(schedule={"kind": "cosine"})),
    "losses": (experiment(), experiment(loss={"kind": "cross_entropy", "reduction": "sum"})),
}


@pytest.mark.parametrize("what", DIFFERENT_SHAPES)
def test_members_with_another_shape_are_not_stacked(what: str, iris_folder: Folder) -> None:
    one, other = DIFFERENT_SHAPES[what]
    again, other_again = (
        e.model_copy(update={"training": e.training.model_copy(update={"seed": 1})}) for e in (one, other)
    )
    dataset = iris_folder.dataset
    assert sweep_plan.plan([one, other, again, other_again], dataset) == sweep_plan.Plan(
        ((0, 2), (1, 3)), (), single=()
    )
    assert sweep_plan.plan([one, other, again], dataset) == sweep_plan.Plan(((0, 2),), (), single=(1,))


@pytest.mark.parametrize(
    "member",
    [
        experiment(CNN(kind="cnn", channels=(4,), hidden=(8,)), DIGITS),
        experiment(optimizer="lbfgs", batch_size="full"),
    ],
    ids=["cnn", "lbfgs"],
)
def test_a_member_that_cannot_be_stacked_is_trained_on_its_own(member: Experiment, digits_folder: Folder) -> None:
    seeded = [member.training.model_copy(update={"seed": seed}) for seed in range(2)]
    members = [member.model_copy(update={"training": training}) for training in seeded]
    assert sweep_plan.plan(members, digits_folder.dataset) == sweep_plan.Plan(stacks=(), pool_stacks=(), single=(0, 1))


def huge(members: int) -> list[Experiment]:
    """Return networks so large that few fit into memory."""
    model = MLP(kind="mlp", hidden=(20_000, 20_000))
    return [experiment(model, DIGITS, seed=seed) for seed in range(members)]


def test_more_members_than_fit_are_refused_with_the_number_that_fits(digits_folder: Folder) -> None:
    with pytest.raises(
        InputError, match=r"^1000 members with the same shape do not fit into memory together: "
    ) as refused:
        sweep_plan.refuse_too_many(huge(1000), digits_folder.dataset)
    assert "\n" not in str(refused.value)
    found = re.search(r" (\d+) fit: give fewer values", str(refused.value))
    assert found
    fitting = int(found[1])
    sweep_plan.refuse_too_many(huge(fitting), digits_folder.dataset)
    with pytest.raises(InputError, match=f" {fitting} fit: "):
        sweep_plan.refuse_too_many(huge(fitting + 1), digits_folder.dataset)


def test_each_stack_needs_its_own_memory_only(digits_folder: Folder) -> None:
    """Check that memory is not summed: stacks train one after the other, and single members form no stack."""
    convolution = CNN(kind="cnn", channels=(4,), hidden=(60_000,))
    alone = [experiment(convolution, DIGITS, seed=seed) for seed in range(1000)]
    sweep_plan.refuse_too_many([*alone, *huge(1)], digits_folder.dataset)
