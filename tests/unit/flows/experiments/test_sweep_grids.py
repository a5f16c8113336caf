import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from hallmark.flows.experiments import options, sweep_grids
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.config.models import MLP

LR = "--training.lr"


def labels(found: sweep_grids.Grid) -> list[str]:
    return [sweep_grids.label(found.axes, member) for member in found.members]


def test_grid_has_all_combinations_and_its_last_axis_varies_fastest() -> None:
    tokens = [LR, "0.001, 0.01,1e-1", "--training.epochs=7", "--training.seed", "0..4"]
    found = sweep_grids.grid("iris", tokens)
    assert found.axes == ("training.lr", "training.seed")
    assert [(member.training.lr, member.training.seed) for member in found.members] == [
        (lr, seed) for lr in (0.001, 0.01, 0.1) for seed in range(5)
    ]
    assert {member.training.epochs for member in found.members} == {7}


def test_member_equals_the_experiment_of_train() -> None:
    found = sweep_grids.grid("digits", ["--model.kind", "linear,mlp", "--training.batch_size", "64,full"])
    typed = [["linear", "64"], ["linear", "full"], ["mlp", "64"], ["mlp", "full"]]
    alone = [options.experiment("digits", ["--model.kind", a, "--training.batch_size", b]) for a, b in typed]
    assert list(found.members) == alone
    assert labels(found)[1] == "model.kind=linear training.batch_size=full"


def test_toml_file_can_be_swept(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[data]\nkind = "iris"\n[model]\nkind = "mlp"\n')
    found = sweep_grids.grid(str(path), [LR, "0.1,0.2"])
    assert [(member.name, member.training.lr) for member in found.members] == [("mine", 0.1), ("mine", 0.2)]


def test_lists_are_separated_by_slashes() -> None:
    found = sweep_grids.grid("iris", ["--model.hidden", "32/64/64,32", "--training.shuffle", "true,false"])
    assert [member.model for member in found.members[::2]] == [
        MLP(kind="mlp", hidden=hidden) for hidden in ((32,), (64,), (64, 32))
    ]
    assert labels(found)[-1] == "model.hidden=64,32 training.shuffle=false"
    assert sweep_grids.axis_values(found.axes, found.members[-1]) == {
        "model.hidden": "64,32",
        "training.shuffle": False,
    }
    plain = sweep_grids.grid("iris", ["--model.hidden", "64,32", LR, "0.1,0.2"])
    assert plain.axes == ("training.lr",)
    assert {member.model for member in plain.members} == {MLP(kind="mlp", hidden=(64, 32))}


def test_option_with_one_value_is_not_an_axis() -> None:
    found = sweep_grids.grid(
        "iris", [LR, "0.1,", "--training.epochs", "3..3", "--training.seed", "1..2", "--name", "a..b"]
    )
    assert found.axes == ("training.seed",)
    first = found.members[0]
    assert (first.training.lr, first.training.epochs, first.name) == (0.1, 3, "a..b")


def test_label_keeps_listed_values_exactly() -> None:
    found = sweep_grids.grid("iris", [LR, "1,0.00012345", "--training.seed", "123456789,4294967295"])
    assert labels(found) == [
        f"training.lr={lr} training.seed={seed}" for lr in ("1", "0.00012345") for seed in (123456789, 4294967295)
    ]


def test_options_of_a_label_give_the_drawn_member() -> None:
    tokens = [
        LR,
        "loguniform:1e-6:1",
        "--training.weight_decay",
        "uniform:0.1:1000000",
        "--training.seed",
        "uniform:0:4294967295",
    ]
    drawn = sweep_grids.random("iris", tokens, members=50, seed=0)
    for member, label in zip(drawn.members, labels(drawn), strict=True):
        assert options.experiment("iris", [f"--{option}" for option in label.split()]) == member
    assert max(member.training.seed for member in drawn.members) > 10**9


def test_draws_are_repeatable_and_independent_of_order_and_number() -> None:
    tokens = [LR, "loguniform:1e-4:1", "--training.weight_decay", "uniform:0:0.1", "--training.seed", "0..9"]
    few = sweep_grids.random("iris", tokens, members=8, seed=3)
    assert sweep_grids.random("iris", tokens, members=8, seed=3) == few
    assert sweep_grids.random("iris", tokens, members=16, seed=3).members[:8] == few.members
    reordered = sweep_grids.random("iris", [*tokens[2:], *tokens[:2]], members=8, seed=3)
    assert (reordered.members, reordered.axes) == (few.members, (*few.axes[1:], few.axes[0]))
    assert sweep_grids.random("iris", tokens, members=8, seed=4).members != few.members


def test_draws_equal_recorded_values() -> None:
    """Compare with recorded numbers: draws do not depend on the machine or the Python version."""
    tokens = [LR, "loguniform:1e-4:1", "--training.epochs", "uniform:1:9", "--training.optimizer", "sgd,adam,adamw"]
    found = sweep_grids.random("iris", tokens, members=2, seed=0)
    assert labels(found) == [
        "training.lr=0.294649 training.epochs=2 training.optimizer=sgd",
        "training.lr=0.000194717 training.epochs=5 training.optimizer=adamw",
    ]


@pytest.fixture
def thousand_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow 1,000 members, because a distribution shows only in many draws."""
    monkeypatch.setattr(sweep_grids, "MAX_MEMBERS", 1000)


@pytest.mark.usefixtures("thousand_members")
@pytest.mark.parametrize(
    ("distribution", "share_below"),
    [("uniform:0:0.1", lambda x: x / 0.1), ("loguniform:1e-4:1", lambda x: 1 + math.log10(x) / 4)],
)
def test_drawn_numbers_follow_the_distribution(distribution: str, share_below: Callable[[float], float]) -> None:
    found = sweep_grids.random("iris", [LR, distribution], members=1000, seed=0)
    shares = sorted(share_below(member.training.lr) for member in found.members)
    # The Kolmogorov-Smirnov statistic exceeds 1.95 / sqrt(n) with probability 0.001.
    assert max(abs(share - (index + 0.5) / 1000) for index, share in enumerate(shares)) < 1.95 / math.sqrt(1000)
    assert 0 <= shares[0] < shares[-1] <= 1


@pytest.mark.usefixtures("thousand_members")
@pytest.mark.parametrize("values", ["uniform:3:6", "3..6", "3,4,5,6"])
def test_integers_are_drawn_uniformly_with_both_ends(values: str) -> None:
    tokens = ["--training.epochs", values, "--training.seed", "0..4294967295"]
    drawn = Counter(
        member.training.epochs for member in sweep_grids.random("iris", tokens, members=1000, seed=0).members
    )
    assert sorted(drawn) == [3, 4, 5, 6]
    assert sum((count - 250) ** 2 / 250 for count in drawn.values()) < 16.3  # chi-squared, 3 df, p = 0.001


def test_rounding_to_six_digits_stays_within_the_distribution() -> None:
    found = sweep_grids.random("iris", [LR, "uniform:0.1234567:0.1234568"], members=1, seed=0)
    assert 0.1234567 <= found.members[0].training.lr <= 0.1234568


@pytest.mark.usefixtures("thousand_members")
def test_integers_can_be_drawn_log_uniformly() -> None:
    tokens = ["--training.batch_size", "loguniform:1:64", "--training.seed", "0..4294967295"]
    found = sweep_grids.random("iris", tokens, members=1000, seed=0)
    sizes = [member.training.batch_size for member in found.members]
    assert (min(sizes), max(sizes)) == (1, 64)
    # Half of the range from log(0.5) to log(64.5) lies below log(5.7), which rounds to 6.
    assert 0.45 < sum(size < 6 for size in sizes) / 1000 < 0.55


def test_no_member_is_drawn_twice() -> None:
    tokens = ["--training.seed", "0..4", "--training.optimizer", "sgd,adam"]
    drawn = sweep_grids.random("iris", tokens, members=10, seed=0)
    assert drawn.members != sweep_grids.grid("iris", tokens).members
    assert set(drawn.members) == set(sweep_grids.grid("iris", tokens).members)


def test_every_documented_form_of_a_value_is_accepted() -> None:
    option_by_value = {"0.001,0.01,0.1": LR, "0..4": "--training.seed", "32/64/64,32": "--model.hidden"}
    option_by_value |= {"uniform:0:0.1": "--training.weight_decay", "loguniform:1e-4:1": LR}
    documented = re.findall(r"^(\S+)\n {4}", sweep_grids.GRAMMAR, flags=re.MULTILINE)
    assert documented == list(option_by_value)
    for value, option in option_by_value.items():
        assert len(sweep_grids.random("iris", [option, value], members=3, seed=0).members) == 3


def test_number_of_members_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_grids, "MAX_MEMBERS", 5)
    assert len(sweep_grids.grid("iris", ["--training.seed", "0..4"]).members) == 5
    assert len(sweep_grids.random("iris", ["--training.seed", "0..4"], members=5, seed=0).members) == 5
    with pytest.raises(InputError, match="iris: the grid has 6 members: expected at most 5"):
        sweep_grids.grid("iris", ["--training.seed", "0..5"])


def test_reduction_of_the_loss_can_vary() -> None:
    found = sweep_grids.grid("iris", ["--training.loss.reduction", "mean,sum"])
    assert labels(found) == ["training.loss.reduction=mean", "training.loss.reduction=sum"]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no option varies: give at least one option several values, as --training.seed 0..4$"),
        ([LR, "0.1"], "no option varies: give at least one option several values"),
        (
            ["--model.hidden", "32,64"],
            "no option varies: .*; separate the lists of --model.hidden by slashes, as 32/64/64,32$",
        ),
        ([LR, ","], "--training.lr: expected values separated by ',', found ','"),
        ([LR, "4..0"], "--training.lr: the range is reversed, found '4..0': write 0..4"),
        ([LR, "0.1..0.5"], "--training.lr: expected whole numbers as 0..4 .* found '0.1..0.5'"),
        ([LR, "0..2,8"], "--training.lr: expected whole numbers as 0..4 .* found '0..2,8'"),
        ([LR, "0..9999999999999999"], "--training.lr: expected whole numbers .*15 digits at most.* found '0..9{16}'"),
        ([LR, "a..b"], "--training.lr: expected whole numbers as 0..4 .* found 'a..b'"),
        ([LR, "0.1,x"], "--training.lr: input should be a valid number, .*found 'x'"),
        ([LR, "0.1,-1"], "--training.lr: input should be greater than 0, found '-1'$"),
        ([LR, "0.1,0.1"], "--training.lr: 0.1 is in the list twice: remove one of them"),
        ([LR, "0.1,0.10"], "--training.lr: 0.1 and 0.10 give the same experiment: remove one of them"),
        ([LR, "0.1", LR, "0.2"], "--training.lr: given twice: put all values into one list"),
        (
            [LR, "uniform:0:1"],
            "--training.lr: a distribution needs --random, such as --random 32: add it, or list values",
        ),
        (["--training.device", "cpu,cuda"], "--training.device: cpu and cuda give the same experiment"),
        (["--training.seed", "0..500"], "iris: the grid has 501 members: expected at most 500: .*--random 32"),
        (["--training.seed", "0..999", LR, "1..1000"], "iris: the grid has 1,000,000 members: "),
        (["--model.hidden", "0..4"], "--model.hidden: expected no range or distribution, found '0..4': .*'/'"),
        (["--training.optimizer", "uniform:0:1"], "--training.optimizer: expected no range .*'uniform:0:1': .*','"),
        (["--training.optimizer", "sgd,adm"], "--training.optimizer: input should be 'sgd', .*found 'adm'"),
        (["--name", "a,b"], "--name: cannot vary within a sweep, because all members share one name"),
        (
            ["--data.split.seed", "0..4"],
            "--data.split.seed: cannot vary within a sweep, because .* requires the same rows for all",
        ),
        (["--data.kind", "iris,digits"], "--data.kind: cannot vary within a sweep"),
        (
            ["--export.opset", "18,19"],
            "--export.opset: cannot vary within a sweep, because .* does not depend on the export",
        ),
        (["--training.loss.kind", "mse,bce"], "--training.loss.kind: cannot vary .* if all members use the same loss"),
        (["--training.loss.weight", "1,1,2/1,1,3"], "--training.loss.weight: cannot vary within a sweep"),
        (["--training.loss.reduce", "true,false"], "--training.loss.reduce: cannot vary within a sweep"),
        (["--training.epoch", "1,2"], "--training.epoch: there is no such option: did you mean 'training.epochs'"),
        (["--training.epochs"], "--training.epochs: expected a value after it"),
        ([LR, "1,2", "--training.monitor", "test"], "--training.monitor: a sweep .* found 'test': use --training.mon"),
        (["--training.monitor", "validation,train"], "--training.monitor: a sweep chooses .* found 'train'"),
        ([LR, "1,2", "--data.split.validation", "0"], "--data.split.validation: a sweep chooses .* found '0'"),
        (
            ["--training.optimizer", "sgd,adam", "--training.momentum", "0,0.9"],
            r"iris: training: momentum 0.9 and optimizer 'adam' contradict each other: only sgd has momentum "
            r"\(member training.optimizer=adam training.momentum=0.9\)",
        ),
        (
            ["--model.kind", "linear,mlp", "--model.hidden", "8/9"],
            "--model.hidden: kind 'linear' has no such option",
        ),
    ],
)
def test_invalid_grid_is_refused_in_one_line(tokens: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as refused:
        sweep_grids.grid("iris", tokens)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("members", "tokens", "message"),
    [
        (0, [LR, "uniform:0:1"], "--random: expected 1 to 500 members, found 0"),
        (501, [LR, "uniform:0:1"], "--random: expected 1 to 500 members, found 501"),
        (3, [LR, "0.1"], "no option varies: "),
        (6, ["--training.seed", "0..4"], "--random: expected 6 different members, found 5: request fewer"),
        (3, [LR, "uniform:1:0"], "--training.lr: expected LOW below HIGH, found 'uniform:1:0': swap them"),
        (3, [LR, "uniform:1:1"], "--training.lr: expected LOW below HIGH, found 'uniform:1:1'"),
        (3, [LR, "loguniform:1:0.1"], "--training.lr: expected LOW below HIGH, found 'loguniform:1:0.1'"),
        (3, [LR, "loguniform:0:1"], "--training.lr: expected LOW above 0 for loguniform, found 'loguniform:0:1'"),
        (3, [LR, "loguniform:-1:1"], "--training.lr: expected LOW above 0 for loguniform, found 'loguniform:-1:1'"),
        (3, [LR, "normal:0:1"], "--training.lr: expected uniform:LOW:HIGH or loguniform:LOW:HIGH, found 'normal:0:1'"),
        (3, [LR, "uniform:1"], "--training.lr: expected uniform:LOW:HIGH or loguniform:LOW:HIGH, found 'uniform:1'"),
        (3, [LR, "uniform:a:1"], "--training.lr: expected a number at each end, found 'a' in 'uniform:a:1'"),
        (3, [LR, "uniform:0:inf"], "--training.lr: expected a number at each end, found 'inf' in 'uniform:0:inf'"),
        (3, ["--training.epochs", "uniform:0.5:3"], "--training.epochs: expected a whole number .* found '0.5'"),
        (3, ["--training.epochs", "loguniform:1:1e308"], "--training.epochs: expected a whole number .* found '1e308'"),
        (3, ["--training.epochs", "uniform:-9:0"], "--training.epochs: .*greater than or equal to 1, found '-"),
        (3, ["--training.shuffle", "uniform:0:1"], "--training.shuffle: expected no range or distribution"),
        (3, ["--data.split.seed", "0..9"], "--data.split.seed: cannot vary within a sweep"),
    ],
)
def test_invalid_distribution_is_refused_in_one_line(members: int, tokens: list[str], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as refused:
        sweep_grids.random("iris", tokens, members, seed=0)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("preset", ["threshold", "iris_softmax", "mnist_as_published", "blobs_as_published"])
def test_sweep_without_validation_split_is_refused_with_a_working_remedy(preset: str) -> None:
    tokens = [LR, "0.1,0.2", "--training.monitor", "validation"]
    with pytest.raises(InputError, match=f"^{preset}: data.split.validation: .* found '0': use --data") as refused:
        sweep_grids.grid(preset, tokens)
    remedy = str(refused.value).rpartition("use ")[2].split()
    assert len(sweep_grids.grid(preset, tokens + remedy).members) == 2
