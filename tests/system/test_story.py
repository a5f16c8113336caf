"""One schedule under a station through all verdicts. The Prefect and MLflow servers report the same decisions."""

import json
import urllib.request
import uuid
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hallmark.flows.experiments import options
from hallmark.tasks.ml.data import sources, splits
from tests.pipelines.test_notification import receiver
from tests.support.processes import until
from tests.support.stations import Workspace, lines

POOR = {"training.epochs": 1, "training.lr": 1e-6}
"""Options that leave the weight at its initial value, which has the wrong sign."""
GOOD = {"training.epochs": 60, "training.lr": 0.3}
SCHEDULE = """
[[schedule]]
name = "always"
experiment = "{model}.toml"
interval = "{interval}"
options = {options}
notify = "{address}"
"""
EXPERIMENT = """
[data]
kind = "points"
x = {x}
y = {y}
split = {{ method = "content", validation = 0.2, test = 0.3 }}
[model]
kind = "linear"
weight = -5
[training]
device = "cpu"
loss = {{ kind = "bce_with_logits" }}
batch_size = 16
"""


@dataclass(frozen=True)
class Points:
    """Points with the label `x > 0`. One label in twenty is wrong."""

    x: tuple[float, ...]
    y: tuple[int, ...]

    def write(self, workspace: Workspace, model: str) -> None:
        text = EXPERIMENT.format(x=list(self.x), y=list(self.y))
        (workspace.folder / f"{model}.toml").write_text(text)


def points() -> Points:
    x = np.linspace(-3, 3, 400).round(3)
    y = (x > 0) ^ (np.arange(400) % 20 == 7)
    return Points(tuple(x.tolist()), tuple(y.astype(int).tolist()))


def with_shuffled_labels(workspace: Workspace, model: str) -> Points:
    """Return the same points with shuffled labels in the training and validation splits."""
    experiment = options.experiment(str(workspace.folder / f"{model}.toml"), [])
    table = sources.read(experiment.data, workspace.home)
    y, test = table.y.copy(), splits.divide(table, experiment.data.split)["test"]
    not_test = np.setdiff1d(np.arange(len(y)), test)
    y[not_test] = np.random.default_rng(0).permutation(y[not_test])
    return replace(points(), y=tuple(y.tolist()))


def get(url: str) -> Any:  # noqa: ANN401 - any JSON
    """Send a GET request to MLflow; return the JSON response."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own address
        return json.load(response)


def completed(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Return the completed flow runs of this station whose name matches, from Prefect's API."""
    start_time = {"after_": workspace.station.started.isoformat()}
    wanted = {"name": {"like_": name}, "state": {"name": {"any_": ["Completed"]}}, "start_time": start_time}
    return list(workspace.prefect("/flow_runs/filter", {"flow_runs": wanted}))


def decision_in_prefect(workspace: Workspace, run: dict[str, Any]) -> dict[str, str]:
    """Return the rows of a decision's table in Prefect, and its description as `reason`."""
    wanted = {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["decision"]}}
    (artifact,) = workspace.prefect("/artifacts/filter", {"artifacts": wanted})
    rows = {row["what"]: row["found"] for row in json.loads(artifact["data"])}
    return rows | {"reason": artifact["description"]}


def decision_in_mlflow(workspace: Workspace, model: str, number: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the aliases `champion` and `previous`, and a decision, from the MLflow registry."""
    server = f"{workspace.station.url('mlflow')}/api/2.0/mlflow"
    registered = get(f"{server}/registered-models/get?name={model}")["registered_model"]
    aliases = {alias["alias"]: int(alias["version"]) for alias in registered.get("aliases", [])}
    tags = {tag["key"]: tag["value"] for tag in registered["tags"]}
    decision = json.loads(tags[f"hallmark.decision.{number:04}"])
    for version in {decision["version"], decision["before"]} - {None}:
        url = f"{server}/model-versions/get?name={model}&version={version}"
        version_tags = {tag["key"]: tag["value"] for tag in get(url)["model_version"]["tags"]}
        assert version_tags[f"hallmark.decision.{number:04}"].startswith(
            f"{decision['verdict']}: version {decision['version']}"
        )
    url = f"{workspace.station.url('mlflow')}/get-artifact?path=decision.json&run_uuid={decision['run_id']}"
    assert get(url) | {"done": True} == decision
    return {alias: version for alias, version in aliases.items() if alias != "challenger"}, decision


def request_run(workspace: Workspace, model: str, changes: dict[str, float]) -> None:
    """Start a run of the schedule now, with the current experiment file and these options, as Prefect's form does."""
    tokens = [f"--{name}={value}" for name, value in changes.items()]
    experiment = options.experiment(str(workspace.folder / f"{model}.toml"), tokens)
    deployment = workspace.prefect("/deployments/name/retrain/always")["id"]
    parameters = {"experiment": experiment.model_dump(mode="json")}
    request = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    workspace.prefect(f"/deployments/{deployment}/create_flow_run", request)


def await_verdict(
    workspace: Workspace, model: str, verdict: str, version: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Wait for a verdict on a version, check that all reports of it agree; return the aliases and the decision."""
    (run,) = until(lambda: completed(workspace, f"{model} {verdict.lower()} version {version}"))
    table = decision_in_prefect(workspace, run)
    number = int(table["decision"].partition(":")[0])
    aliases, decision = decision_in_mlflow(workspace, model, number)
    assert decision["version"] == version
    assert table["decision"] == f"{number}: {verdict}" == f"{number}: {decision['verdict']}"
    fields = {"reason": "reason", "version": "version", "champion before": "before", "champion after": "champion"}
    assert {row: table[row] for row in fields} == {row: str(decision[name] or "none") for row, name in fields.items()}
    if judgement := decision["judgement"]:
        shown = table["test rows"], table["only challenger right"], table["only champion right"], float(table["p"])
        assert shown == (
            str(judgement["rows"]),
            str(judgement["wins"]),
            str(judgement["losses"]),
            float(f"{judgement['p']:.4g}"),
        )
    assert {name: table[name] for name in decision["digests"]} == decision["digests"]
    history = json.loads(lines(workspace.hallmark("history", model, "--json").stdout)[-1])["decisions"]
    assert history[number - 1] == decision
    champion = json.loads(lines(workspace.hallmark("champion", model, "--json").stdout)[-1])
    assert (champion["version"], champion["previous"]) == (aliases["champion"], aliases.get("previous"))
    return aliases, decision


def test_schedule_promotes_holds_and_rejects_and_both_servers_agree(workspace: Workspace) -> None:
    model = f"s{uuid.uuid4().hex[:12]}"
    points().write(workspace, model)

    def serve(changes: dict[str, float], interval: str) -> None:
        table = "{ " + ", ".join(f'"{name}" = {value}' for name, value in changes.items()) + " }"
        text = SCHEDULE.format(model=model, options=table, address=address, interval=interval)
        workspace.schedules.write_text(text)
        up = workspace.hallmark("up", "--detach")
        assert up.returncode == 0, up.stderr

    with receiver() as (address, notifications):
        serve(POOR, "20s")  # no second run before the station stops
        aliases, _ = await_verdict(workspace, model, "FIRST", 1)
        assert aliases == {"champion": 1}
        assert workspace.hallmark("down").returncode == 0
        serve(GOOD, "1d")
        request_run(workspace, model, GOOD)
        aliases, decision = await_verdict(workspace, model, "PROMOTE", 2)
        assert aliases == {"champion": 2, "previous": 1}
        assert decision["judgement"]["wins"] > 80
        request_run(workspace, model, GOOD)
        until(lambda: completed(workspace, f"{model} unchanged"))
        assert (aliases, decision) == await_verdict(workspace, model, "PROMOTE", 2)
        assert not notifications
        request_run(workspace, model, GOOD | {"training.seed": 1})
        aliases, decision = await_verdict(workspace, model, "HOLD", 3)
        assert aliases == {"champion": 2, "previous": 1}
        assert notifications[0]["title"] == f"always ({model}): HOLD"
        with_shuffled_labels(workspace, model).write(workspace, model)
        request_run(workspace, model, GOOD)
        aliases, decision = await_verdict(workspace, model, "REJECT", 4)
        assert aliases == {"champion": 2, "previous": 1}
        assert decision["judgement"]["losses"] > decision["judgement"]["wins"]
        assert notifications[-1]["title"] == f"always ({model}): REJECT"

        rollback = workspace.hallmark("rollback", model, "--reason", "it fails at night", "--json")
        assert rollback.returncode == 0, rollback.stderr
        points().write(workspace, model)
        request_run(workspace, model, GOOD)
        aliases, decision = await_verdict(workspace, model, "REJECT", 2)
        assert aliases == {"champion": 1}
        assert "not rolled back" in decision["reason"]
