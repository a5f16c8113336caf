"""The story of one schedule under a station, as both servers tell it."""

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
"""Leaves the weight where it starts, on the wrong side."""
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
    """Is x above 0? Of one in twenty the label is wrong."""

    x: tuple[float, ...]
    y: tuple[int, ...]

    def write(self, workspace: Workspace, model: str) -> None:
        text = EXPERIMENT.format(x=list(self.x), y=list(self.y))
        (workspace.folder / f"{model}.toml").write_text(text)


def points() -> Points:
    x = np.linspace(-3, 3, 400).round(3)
    y = (x > 0) ^ (np.arange(400) % 20 == 7)
    return Points(tuple(x.tolist()), tuple(y.astype(int).tolist()))


def shuffled(workspace: Workspace, model: str) -> Points:
    """The same points; the labels of those that are trained on or chosen by are mixed."""
    experiment = options.experiment(str(workspace.folder / f"{model}.toml"), [])
    table = sources.read(experiment.data, workspace.home)
    y, test = table.y.copy(), splits.divide(table, experiment.data.split)["test"]
    seen = np.setdiff1d(np.arange(len(y)), test)
    y[seen] = np.random.default_rng(0).permutation(y[seen])
    return replace(points(), y=tuple(y.tolist()))


def call(url: str, given: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 - what the server says
    body = None if given is None else json.dumps(given).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def completed(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """The completed flow runs of this station whose name begins so, as Prefect tells them."""
    begun = {"after_": workspace.station.started.isoformat()}
    wanted = {"name": {"like_": name}, "state": {"name": {"any_": ["Completed"]}}, "start_time": begun}
    return list(call(f"{workspace.station.url('prefect')}/api/flow_runs/filter", {"flow_runs": wanted}))


def in_prefect(workspace: Workspace, run: dict[str, Any]) -> dict[str, str]:
    """The table of a decision, by row, and what stands above it as its reason."""
    url = f"{workspace.station.url('prefect')}/api/artifacts/filter"
    wanted = {"flow_run_id": {"any_": [run["id"]]}, "key": {"any_": ["decision"]}}
    (artifact,) = call(url, {"artifacts": wanted})
    rows = {row["what"]: row["found"] for row in json.loads(artifact["data"])}
    return rows | {"reason": artifact["description"]}


def in_mlflow(workspace: Workspace, model: str, number: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Champion and previous, and a decision, as the registry tells them."""
    server = f"{workspace.station.url('mlflow')}/api/2.0/mlflow"
    found = call(f"{server}/registered-models/get?name={model}")["registered_model"]
    aliases = {one["alias"]: int(one["version"]) for one in found.get("aliases", [])}
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    decision = json.loads(tags[f"hallmark.decision.{number:04}"])
    for version in {decision["version"], decision["before"]} - {None}:
        url = f"{server}/model-versions/get?name={model}&version={version}"
        told = {tag["key"]: tag["value"] for tag in call(url)["model_version"]["tags"]}
        assert told[f"hallmark.decision.{number:04}"].startswith(
            f"{decision['verdict']}: version {decision['version']}"
        )
    url = f"{workspace.station.url('mlflow')}/get-artifact?path=decision.json&run_uuid={decision['run_id']}"
    assert call(url) | {"done": True} == decision
    return {alias: version for alias, version in aliases.items() if alias != "challenger"}, decision


def request_run(workspace: Workspace, model: str, given: dict[str, float]) -> None:
    """Start a run of the schedule now, with the model's file as it is and these options, as from Prefect's form."""
    tokens = [f"--{name}={value}" for name, value in given.items()]
    experiment = options.experiment(str(workspace.folder / f"{model}.toml"), tokens)
    api = f"{workspace.station.url('prefect')}/api/deployments"
    deployment = call(f"{api}/name/retrain/always")["id"]
    parameters = {"experiment": experiment.model_dump(mode="json")}
    call(f"{api}/{deployment}/create_flow_run", {"parameters": parameters, "state": {"type": "SCHEDULED"}})


def tell(workspace: Workspace, model: str, verdict: str, version: int) -> tuple[dict[str, int], dict[str, Any]]:
    """Wait for a verdict on a version; return the aliases and the decision, on which all who tell of it agree."""
    (run,) = until(lambda: completed(workspace, f"{model} {verdict.lower()} version {version}"))
    table = in_prefect(workspace, run)
    number = int(table["decision"].partition(":")[0])
    aliases, decision = in_mlflow(workspace, model, number)
    assert decision["version"] == version
    assert table["decision"] == f"{number}: {verdict}" == f"{number}: {decision['verdict']}"
    told = {"reason": "reason", "version": "version", "champion before": "before", "champion after": "champion"}
    assert {row: table[row] for row in told} == {row: str(decision[name] or "none") for row, name in told.items()}
    if said := decision["judgement"]:
        shown = table["test rows"], table["only challenger right"], table["only champion right"], float(table["p"])
        assert shown == (str(said["rows"]), str(said["wins"]), str(said["losses"]), float(f"{said['p']:.4g}"))
    assert {name: table[name] for name in decision["digests"]} == decision["digests"]
    history = json.loads(lines(workspace.hallmark("history", model, "--json").stdout)[-1])["decisions"]
    assert history[number - 1] == decision
    champion = json.loads(lines(workspace.hallmark("champion", model, "--json").stdout)[-1])
    assert (champion["version"], champion["previous"]) == (aliases["champion"], aliases.get("previous"))
    return aliases, decision


def test_schedule_promotes_holds_and_rejects_and_both_servers_agree(workspace: Workspace) -> None:
    model = f"s{uuid.uuid4().hex[:12]}"
    points().write(workspace, model)

    def serve(given: dict[str, float], interval: str) -> None:
        options = "{ " + ", ".join(f'"{name}" = {value}' for name, value in given.items()) + " }"
        text = SCHEDULE.format(model=model, options=options, address=address, interval=interval)
        workspace.schedules.write_text(text)
        up = workspace.hallmark("up", "--detach")
        assert up.returncode == 0, up.stderr

    with receiver() as (address, told):
        serve(POOR, "5s")
        aliases, _ = tell(workspace, model, "FIRST", 1)
        assert aliases == {"champion": 1}
        assert workspace.hallmark("down").returncode == 0
        serve(GOOD, "1d")
        request_run(workspace, model, GOOD)
        aliases, decision = tell(workspace, model, "PROMOTE", 2)
        assert aliases == {"champion": 2, "previous": 1}
        assert decision["judgement"]["wins"] > 80
        request_run(workspace, model, GOOD)
        until(lambda: completed(workspace, f"{model} unchanged"))
        assert (aliases, decision) == tell(workspace, model, "PROMOTE", 2)
        assert not told
        request_run(workspace, model, GOOD | {"training.seed": 1})
        aliases, decision = tell(workspace, model, "HOLD", 3)
        assert aliases == {"champion": 2, "previous": 1}
        assert told[0]["title"] == f"always ({model}): HOLD"
        shuffled(workspace, model).write(workspace, model)
        request_run(workspace, model, GOOD)
        aliases, decision = tell(workspace, model, "REJECT", 4)
        assert aliases == {"champion": 2, "previous": 1}
        assert decision["judgement"]["losses"] > decision["judgement"]["wins"]
        assert told[-1]["title"] == f"always ({model}): REJECT"

        back = workspace.hallmark("rollback", model, "--reason", "it fails at night", "--json")
        assert back.returncode == 0, back.stderr
        points().write(workspace, model)
        request_run(workspace, model, GOOD)
        aliases, decision = tell(workspace, model, "REJECT", 5)
        assert aliases == {"champion": 1}
        assert "not rolled back" in decision["reason"]
