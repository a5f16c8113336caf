"""A sweep through the real flow: its runs, the chosen member, the artifact, and failures."""

import re
import uuid
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName

from hallmark.flows.experiments import sweep_grids
from hallmark.flows.sweep import sweep
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import DivergedError, InputError
from hallmark.tasks.common.results import Member, SweepOutcome
from hallmark.tasks.ml.config import toml
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.tracking.client import connect
from tests.support.swept import EPOCHS, LR, SEED, curve, get_run, grid, runs, versions

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def six(prefect_server: str) -> tuple[sweep_grids.Grid, SweepOutcome]:  # noqa: ARG001 - the server comes first
    """Run a sweep over two learning rates and three seeds."""
    found = grid(f"--{LR}=0.1,0.01", f"--{SEED}=0..2")
    return found, sweep(found.members, found.axes)


def members_of(parent: str) -> dict[str, Run]:
    """Return the child runs of a sweep's run, by name."""
    experiment = get_run(parent).info.experiment_id
    found = connect().search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.info.run_name: run for run in found}


def test_each_member_is_a_finished_run_below_that_of_the_sweep(six: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    found, outcome = six
    children = members_of(outcome.run.id)
    assert sorted(children) == sorted(sweep_grids.label(found.axes, member) for member in found.members)
    assert {run.info.status for run in [get_run(outcome.run.id), *children.values()]} == {"FINISHED"}
    assert [member.run.id for member in outcome.members] == [
        children[sweep_grids.label(found.axes, member)].info.run_id for member in found.members
    ]
    assert len(runs(found.members[0].name)) == 7


def test_each_member_has_its_own_parameters_and_full_curves(
    six: tuple[sweep_grids.Grid, SweepOutcome], tmp_path: Path
) -> None:
    found, outcome = six
    for experiment, member in zip(found.members, outcome.members, strict=True):
        run = get_run(member.run.id)
        assert run.data.params == {path: str(value) for path, value in experiment.flat().items()}
        logged = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/experiment.toml", dst_path=str(tmp_path))
        assert Experiment.model_validate(toml.load(Path(logged))) == experiment
        assert run.data.tags["hallmark.experiment_digest"] == experiment.digest
        for metric in ("train/loss", "train/accuracy", "val/loss", "val/accuracy", "time/epoch_seconds"):
            assert [step for step, _ in curve(member.run.id, metric)] == list(range(1, EPOCHS + 1))
        assert [step for step, _ in curve(member.run.id, "train/step_loss")] == list(range(1, EPOCHS + 1))
        assert "history.parquet" in {file.path for file in connect().list_artifacts(member.run.id)}


def test_the_member_with_the_lowest_validation_loss_is_chosen(six: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    outcome = six[1]
    last = [curve(member.run.id, "val/loss")[-1][1] for member in outcome.members]
    assert [member.loss for member in outcome.members] == last
    assert outcome.chosen == last.index(min(last))
    assert outcome.by_loss == sorted(range(6), key=last.__getitem__)
    assert outcome.outcome.run == outcome.members[outcome.chosen].run


def test_only_the_chosen_member_is_tested_and_registered(six: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    found, outcome = six
    for index, member in enumerate(outcome.members):
        run = get_run(member.run.id)
        tested = {name for name in run.data.metrics if name.startswith("test/")}
        assert bool(tested) == (index == outcome.chosen)
        assert ("hallmark.onnx_sha256" in run.data.tags) == (index == outcome.chosen)
        assert ("hallmark.model_version" in run.data.tags) == (index == outcome.chosen)
    (version,) = versions(found.members[0].name)
    assert version.run_id == outcome.outcome.run.id


def test_the_shipped_file_is_the_registered_one(six: tuple[sweep_grids.Grid, SweepOutcome], tmp_path: Path) -> None:
    found, outcome = six
    artifact = outcome.outcome.artifact
    assert file_digest(artifact.path) == artifact.sha256
    (version,) = versions(found.members[0].name)
    assert version.tags["hallmark.onnx_sha256"] == artifact.sha256
    uri = f"models:/{found.members[0].name}@champion"
    folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))
    assert file_digest(Path(folder) / "model.onnx") == artifact.sha256


def test_the_sweeps_run_has_table_picture_and_choice(
    six: tuple[sweep_grids.Grid, SweepOutcome], tmp_path: Path
) -> None:
    outcome = six[1]
    run = get_run(outcome.run.id)
    chosen = outcome.members[outcome.chosen]
    expected = {"chosen": chosen.label, "chosen_run": chosen.run.id, "members": "6", "sweep": f"{LR}, {SEED}"}
    assert {name: run.data.tags[f"hallmark.{name}"] for name in expected} == expected
    assert curve(run.info.run_id, "val/loss") == [(0, chosen.loss)]
    picture = mlflow.artifacts.download_artifacts(f"{run.info.artifact_uri}/sweep.png", dst_path=str(tmp_path))
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    table = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/members.json")
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert rows == [
        {
            **member.values,
            "val/loss": member.loss,
            "chosen": index == outcome.chosen,
            "way": "stacked",
            "failed": "",
            "run": member.run.id,
        }
        for index, member in enumerate(outcome.members)
    ]


def test_mlflow_shows_the_table(six: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    run = get_run(six[1].run.id)
    table = connect().load_table(run.info.experiment_id, "members.json", [run.info.run_id])
    assert list(table["val/loss"]) == pytest.approx([member.loss for member in six[1].members])  # pandas rounds


def test_prefect_has_the_sweep_and_its_summary(six: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    found, outcome = six
    flow_run = uuid.UUID(get_run(outcome.run.id).data.tags["hallmark.prefect_flow_run"])
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(flow_run).name == f"{found.members[0].name} sweep of {LR}, {SEED}"
        run_filter = ArtifactFilterFlowRunId(any_=[flow_run])
        (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=run_filter))
    rows = [line for line in artifact.data.splitlines() if "stacked" in line]
    assert [row.startswith("| **chosen** |") for row in rows] == [True] + [False] * 5
    for member in outcome.members:
        assert f"[{member.label}]({member.run.url})" in artifact.data


@pytest.fixture(scope="module")
def mixed(prefect_server: str) -> tuple[sweep_grids.Grid, SweepOutcome]:  # noqa: ARG001 - the server comes first
    """Run a sweep of three members of one shape, one of which diverges, and two of another shape."""
    base = grid(f"--{LR}=0.1,1").members[0]
    trained = [(0.1, 3), (1e30, 3), (0.01, 3), (0.1, 4), (0.01, 4)]
    members = tuple(changed(base, lr=lr, epochs=epochs, weight_decay=1e9 * (lr > 1)) for lr, epochs in trained)
    found = sweep_grids.Grid((LR, "training.epochs"), members)
    return found, sweep(found.members, found.axes)


def changed(experiment: Experiment, **options: Any) -> Experiment:  # noqa: ANN401 - any field of training
    config = Training.model_validate(dict(experiment.training) | options)
    return experiment.model_copy(update={"training": config})


def test_a_diverging_member_is_marked_and_does_not_affect_the_others(
    mixed: tuple[sweep_grids.Grid, SweepOutcome],
) -> None:
    outcome = mixed[1]
    found = [get_run(member.run.id) for member in outcome.members]
    assert [run.info.status for run in found] == ["FINISHED", "FAILED", *["FINISHED"] * 3]
    assert ["hallmark.error" in run.data.tags for run in found] == [False, True, False, False, False]
    assert found[1].data.tags["hallmark.error"] == outcome.members[1].failed
    assert re.match("training diverged: .* learning rate 1e\\+30", outcome.members[1].failed)
    assert (outcome.members[1].fit, outcome.members[1].loss) == (None, None)
    table = mlflow.artifacts.load_dict(f"{get_run(outcome.run.id).info.artifact_uri}/members.json")
    failed = [row[table["columns"].index("failed")] for row in table["data"]]
    assert failed == [member.failed for member in outcome.members]


def test_members_of_different_shapes_are_compared(mixed: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    outcome = mixed[1]
    losses = {index: curve(member.run.id, "val/loss")[-1][1] for index, member in finished(outcome).items()}
    assert {index: outcome.members[index].loss for index in losses} == losses
    assert outcome.chosen == min(losses, key=losses.__getitem__)
    for index, member in finished(outcome).items():
        epochs = mixed[0].members[index].training.epochs
        assert [step for step, _ in curve(member.run.id, "val/loss")] == list(range(1, epochs + 1))


def finished(outcome: SweepOutcome) -> dict[int, Member]:
    return {index: member for index, member in enumerate(outcome.members) if not member.failed}


def test_every_member_keeps_its_own_weights(mixed: tuple[sweep_grids.Grid, SweepOutcome]) -> None:
    fits = [member.fit for member in finished(mixed[1]).values() if member.fit]
    assert [file_digest(fit.weights) for fit in fits] == [fit.weights_sha256 for fit in fits]
    assert len({fit.weights for fit in fits}) == len({fit.weights_sha256 for fit in fits}) == 4


def test_if_all_members_diverge_every_run_fails_with_its_reason() -> None:
    found = grid(f"--{LR}=1e30,1e29", "--training.weight_decay=1e9")
    name = found.members[0].name
    with pytest.raises(DivergedError, match="all 2 members diverged, the first one: training diverged: "):
        sweep(found.members, found.axes)
    assert [run.info.status for run in runs(name)] == ["FAILED"] * 3
    errors = {run.info.run_name: run.data.tags["hallmark.error"] for run in runs(name)}
    assert errors[f"{name} sweep of {LR}"].startswith("all 2 members diverged, ")
    for lr in ("1e+30", "1e+29"):
        assert re.match(f"training diverged: .* learning rate {re.escape(lr)}:", errors[f"{LR}={lr}"])
    assert versions(name) == []


STEPS = {
    "fit_stack": "hallmark.tasks.ml.training.trainer.fit_together",
    "choose": "hallmark.tasks.ml.reports.plots.sweep.picture",
    "export": "hallmark.tasks.ml.artifact.exporter.export",
}
BEFORE_THE_CHOICE = {"fit_stack", "choose"}


@pytest.mark.parametrize("step", STEPS)
def test_a_failed_step_leaves_no_run_running_and_registers_nothing(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"{step} is broken")

    monkeypatch.setattr(STEPS[step], fail)
    found = grid(f"--{LR}=0.1,0.01")
    with pytest.raises(RuntimeError, match=f"{step} is broken"):
        sweep(found.members, found.axes)
    by_name = {run.info.run_name: run for run in runs(found.members[0].name)}
    expected = {
        f"{found.members[0].name} sweep of {LR}": "FAILED",
        f"{LR}=0.1": "FAILED",
        f"{LR}=0.01": "FAILED" if step in BEFORE_THE_CHOICE else "FINISHED",
    }
    assert {name: run.info.status for name, run in by_name.items()} == expected
    for name, status in expected.items():
        assert (by_name[name].data.tags.get("hallmark.error") == f"{step} is broken") == (status == "FAILED")
    assert versions(found.members[0].name) == []


def test_more_members_than_fit_open_no_run() -> None:
    found = grid("--model.kind=mlp", "--model.hidden=65536,65536", f"--{SEED}=0..99")
    with pytest.raises(InputError, match=r"100 members with the same shape do not fit into memory together: \d+ fit: "):
        sweep(found.members, found.axes)
    assert runs(found.members[0].name) == []


def test_a_sweep_with_one_impossible_member_opens_no_run() -> None:
    found = grid("--training.batch_size=30,91")
    with pytest.raises(InputError, match=r"91 is more than the 90 rows"):
        sweep(found.members, found.axes)
    assert runs(found.members[0].name) == []


def test_prefect_accepts_the_maximum_number_of_members() -> None:
    """Use members that the first step refuses: Prefect has stored their options by then, and none is trained."""
    seeds = list(range(1_000_000, 1_000_000 + sweep_grids.MAX_MEMBERS))
    found = grid(f"--{SEED}={seeds[0]}..{seeds[-1]}", "--training.batch_size=91")
    with pytest.raises(InputError, match=r"91 is more than the 90 rows"):
        sweep(found.members, found.axes)
    name = FlowRunFilterName(any_=[f"{found.members[0].name} sweep of {SEED}"])
    with get_client(sync_client=True) as client:
        (flow_run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=name))
    assert [member["training"]["seed"] for member in flow_run.parameters["members"]] == seeds
    assert runs(found.members[0].name) == []
