import pytest

from hallmark.flows.experiments import options, presets
from hallmark.tasks.ml.evaluation.findings import before_training

EXPECTED = {
    "threshold_as_published": {"loss_on_probabilities", "accuracy_on_training_rows"},
    "threshold_mse_as_published": {"mse_for_classification", "accuracy_on_training_rows"},
    "threshold_bce_as_published": {"loss_on_probabilities", "accuracy_on_training_rows"},
    "points3_as_published": {"loss_on_probabilities", "accuracy_on_training_rows"},
    "points4_as_published": {"loss_on_probabilities", "accuracy_on_training_rows"},
    "mnist_as_published": {"activation_before_cross_entropy", "test_split_watched"},
    "iris_as_published": {"scaling_fitted_beyond_training", "training_loss_as_validation"},
    "blobs_as_published": {"seeded_after_model"},
    "iris_softmax": {"accuracy_on_training_rows"},
    "iris_softmax_l2": {"accuracy_on_training_rows"},
    "iris_softmax_sigmoid": {"activation_before_cross_entropy", "accuracy_on_training_rows"},
}


@pytest.mark.parametrize("name", presets.PRESETS)
def test_presets_as_published_have_their_mistakes_and_corrected_ones_have_none(name: str) -> None:
    found = {finding.code for finding in before_training.find(presets.get(name))}
    assert found == EXPECTED.get(name, set())
    assert bool(found) == (presets.PRESETS[name][0] != "corrected")


@pytest.mark.parametrize(
    ("code", "tokens"),
    [
        ("activation_before_cross_entropy", ["--model.output", "sigmoid"]),
        ("activation_before_cross_entropy", ["--model.output", "softmax"]),
        ("loss_on_probabilities", ["--model.output", "sigmoid", "--training.loss.kind", "bce"]),
        ("mse_for_classification", ["--model.output", "softmax", "--training.loss.kind", "mse"]),
        ("scaling_fitted_beyond_training", ["--data.scaling_fitted_on", "all"]),
        (
            "accuracy_on_training_rows",
            ["--data.split.method", "resubstitution", "--data.split.test", "0", "--data.split.validation", "0"],
        ),
        ("test_split_watched", ["--training.monitor", "test"]),
        ("training_loss_as_validation", ["--training.monitor", "train"]),
        ("seeded_after_model", ["--training.initial_weights", "unseeded"]),
    ],
)
def test_one_mistake_gives_one_finding_and_its_remedy_fixes_it(code: str, tokens: list[str]) -> None:
    (finding,) = before_training.find(options.experiment("iris", tokens))
    assert finding.code == code
    assert before_training.find(options.experiment("iris", tokens + finding.remedy.split())) == ()


def test_given_weights_need_no_seed() -> None:
    experiment = options.experiment("threshold_bce_as_published", ["--training.initial_weights=unseeded"])
    assert "seeded_after_model" not in {finding.code for finding in before_training.find(experiment)}
