"""The presets: functions that return an experiment. `hallmark presets` prints the first line of each docstring."""

import difflib
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.data import MNIST, Blobs, Digits, Iris, Own, Points, Split, Threshold
from hallmark.tasks.ml.config.experiment import Experiment, OneCycle, Training
from hallmark.tasks.ml.config.fields import Part
from hallmark.tasks.ml.config.losses import BCE, MSE, BCEWithLogits, CrossEntropy
from hallmark.tasks.ml.config.models import CNN, MLP, Linear

P = TypeVar("P", bound=Part)
Kind = Literal["published", "corrected", "reference", "own"]


RESUBSTITUTION = Split(method="resubstitution", validation=0, test=0)


def threshold_as_published() -> Experiment:
    """Threshold x > 0.2: one sigmoid unit with BCE, unshuffled batches of 2, tested on the training points."""
    return Experiment(
        name="threshold_as_published",
        data=Threshold(kind="threshold", split=RESUBSTITUTION, scaling="none"),
        model=Linear(kind="linear", output="sigmoid"),
        training=Training(epochs=50, batch_size=2, shuffle=False, loss=BCE(kind="bce"), optimizer="sgd", lr=2),
    )


def threshold_bce_as_published() -> Experiment:
    """threshold_as_published from weight -5 and bias -10: BCE recovers from this start."""
    return _derive(
        threshold_as_published(),
        name="threshold_bce_as_published",
        model=Linear(kind="linear", output="sigmoid", weight=-5, bias=-10),
    )


def threshold_mse_as_published() -> Experiment:
    """threshold_as_published from weight -5 and bias -10 with MSE, whose gradient almost vanishes at this start."""
    bce = threshold_bce_as_published()
    return _derive(bce, name="threshold_mse_as_published", training=_derive(bce.training, loss=MSE(kind="mse")))


def threshold() -> Experiment:
    """Threshold x > 0.2 with BCE on logits, tested on held-out points between the training points."""
    published = threshold_as_published()
    return _derive(
        published,
        name="threshold",
        data=Threshold(kind="threshold", scaling="none"),
        model=Linear(kind="linear"),
        training=_derive(published.training, loss=BCEWithLogits(kind="bce_with_logits"), shuffle=True),
    )


def points3_as_published() -> Experiment:
    """Three points, one unit, 100 steps, then a prediction for x = 4."""
    return Experiment(
        name="points3_as_published",
        data=Points(kind="points", x=(1, 2, 3), y=(0, 0, 1), asked=(4,), scaling="none"),
        model=Linear(kind="linear", output="sigmoid"),
        training=Training(epochs=100, loss=BCE(kind="bce"), optimizer="sgd", lr=0.01),
    )


def points4_as_published() -> Experiment:
    """Four points that a single unit cannot fit, 1,000 steps, then a prediction for x = 5."""
    points3 = points3_as_published()
    return _derive(
        points3,
        name="points4_as_published",
        data=_derive(points3.data, x=(1, 2, 3, 4), y=(0, 1, 1, 0), asked=(5,)),
        training=_derive(points3.training, epochs=1000),
    )


def mnist_as_published() -> Experiment:
    """MNIST softmax regression with a sigmoid before the cross-entropy, evaluated on the test split every epoch."""
    return Experiment(
        name="mnist_as_published",
        data=MNIST(kind="mnist", split=Split(method="given", validation=0, test=0)),
        model=Linear(kind="linear", output="sigmoid"),
        training=Training(epochs=50, batch_size=32, optimizer="sgd", lr=0.001, monitor="test", last_batch_loss=True),
    )


def mnist() -> Experiment:
    """MNIST softmax regression on logits, with a validation split."""
    return Experiment(
        name="mnist",
        data=MNIST(kind="mnist"),
        model=Linear(kind="linear"),
        training=Training(epochs=50, batch_size=32, optimizer="sgd", lr=0.001),
    )


def mnist_one_vs_rest() -> Experiment:
    """MNIST one-vs-rest: ten sigmoid units, one for each digit, with BCE on logits."""
    training = _derive(mnist().training, loss=BCEWithLogits(kind="bce_with_logits"), lr=0.01)
    return _derive(mnist(), name="mnist_one_vs_rest", training=training)


def mnist_cnn() -> Experiment:
    """MNIST with a small convolutional network similar to LeNet-5, two epochs with a one-cycle learning rate."""
    return _derive(
        mnist(),
        name="mnist_cnn",
        model=CNN(kind="cnn", channels=(8, 24), kernel=5, padding="valid", hidden=(96,)),
        training=Training(epochs=2, batch_size=128, lr=0.01, schedule=OneCycle(kind="one_cycle")),
    )


def iris() -> Experiment:
    """Iris with an MLP: scaling fitted on the training rows, with a validation split."""
    return Experiment(
        name="iris",
        data=Iris(kind="iris"),
        model=MLP(kind="mlp", hidden=(50, 50)),
        training=Training(epochs=100),
    )


def iris_as_published() -> Experiment:
    """Iris as in the tutorial: scaling fitted on all rows, training loss used as validation loss."""
    return _derive(
        iris(),
        name="iris_as_published",
        data=Iris(
            kind="iris",
            split=Split(method="shuffled", validation=0, test=0.2, seed=2),
            scaling_fitted_on="all",
        ),
        training=Training(epochs=100, lr=0.001, monitor="train"),
    )


def iris_softmax() -> Experiment:
    """Iris softmax regression on all 150 rows to convergence, as scikit-learn's LogisticRegression(C=inf)."""
    return Experiment(
        name="iris_softmax",
        data=Iris(kind="iris", split=RESUBSTITUTION),
        model=Linear(kind="linear"),
        training=Training(
            epochs=2000, loss=CrossEntropy(kind="cross_entropy", reduction="sum"), optimizer="lbfgs", lr=1
        ),
    )


def iris_softmax_l2() -> Experiment:
    """iris_softmax with an L2 penalty, as scikit-learn's LogisticRegression(C=1)."""
    return _derive(iris_softmax(), name="iris_softmax_l2", training=_derive(iris_softmax().training, l2=1))


def iris_softmax_sigmoid() -> Experiment:
    """iris_softmax_l2 with a sigmoid before the loss: shows the smallest cost of this mistake."""
    return _derive(iris_softmax_l2(), name="iris_softmax_sigmoid", model=Linear(kind="linear", output="sigmoid"))


def blobs_as_published() -> Experiment:
    """Four blobs with an MLP, seeded only after the model is created."""
    return Experiment(
        name="blobs_as_published",
        data=Blobs(kind="blobs", split=Split(method="shuffled", validation=0, seed=888), scaling="none"),
        model=MLP(kind="mlp", hidden=(8,)),
        training=Training(epochs=500, optimizer="sgd", lr=0.1, initial_weights="unseeded"),
    )


def blobs() -> Experiment:
    """Four blobs with seeded weights and early stopping on the validation split."""
    published = blobs_as_published()
    return _derive(
        published,
        name="blobs",
        data=Blobs(kind="blobs"),
        training=_derive(published.training, epochs=2000, initial_weights="seeded", patience=50),
    )


def digits() -> Experiment:
    """8 x 8 handwritten digits with an MLP, batches of 32."""
    return Experiment(
        name="digits",
        data=Digits(kind="digits"),
        model=MLP(kind="mlp", hidden=(128,)),
        training=Training(epochs=60, batch_size=32, lr=0.002),
    )


PRESETS: dict[str, tuple[Kind, Callable[[], Experiment]]] = {
    build.__name__: (kind, build)
    for kind, build in (
        ("published", threshold_as_published),
        ("published", threshold_mse_as_published),
        ("published", threshold_bce_as_published),
        ("corrected", threshold),
        ("published", points3_as_published),
        ("published", points4_as_published),
        ("published", mnist_as_published),
        ("corrected", mnist),
        ("corrected", mnist_one_vs_rest),
        ("corrected", mnist_cnn),
        ("published", iris_as_published),
        ("corrected", iris),
        ("reference", iris_softmax),
        ("reference", iris_softmax_l2),
        ("reference", iris_softmax_sigmoid),
        ("published", blobs_as_published),
        ("corrected", blobs),
        ("corrected", digits),
    )
}


def get(name: str) -> Experiment:
    """Build the preset of this name.

    Raises:
        InputError: there is no such preset; the message names the closest one.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "run `hallmark presets` to list them"
        raise InputError(f"there is no preset '{name}': {hint}")
    return PRESETS[name][1]()


def kind_of(experiment: Experiment) -> Kind:
    """Return the kind of the preset with the same digest, whatever its name; `own` if there is none.

    A published preset with a changed option is `own`.
    """
    return next((kind for kind, build in PRESETS.values() if build().digest == experiment.digest), "own")


def default_split(experiment: Experiment) -> Split:
    """Return the split that an experiment has if none is asked for: that of the preset of its name, or of its data."""
    data = experiment.data
    if experiment.name in PRESETS and (preset := get(experiment.name)).data.kind == data.kind:
        return preset.data.split
    default: Split = type(data).model_fields["split"].default
    return default


def run_name(experiment: Experiment) -> str:
    """Return the experiment's name and its changes to the preset of that name: `iris training.epochs=20`."""
    if experiment.name not in PRESETS or isinstance(experiment.data, Own):
        return experiment.name
    preset = get(experiment.name).flat()
    changed = [f"{path}={value}" for path, value in experiment.flat().items() if preset.get(path) != value]
    return " ".join([experiment.name, *changed])


def _derive(part: P, **changes: Any) -> P:  # noqa: ANN401 - any field of the part
    """Return a validated copy of a part with some fields changed."""
    return type(part).model_validate(dict(part) | changes)
