"""The flow `retrain`, against a real Prefect server and a real MLflow store."""

import json
import uuid

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, FlowRunFilter, FlowRunFilterName

from flows import presets
from flows.retrain import retrain
from tasks import champions, tracking
from tasks.ml.config import Experiment
from tasks.ml.records import Retrained

pytestmark = pytest.mark.usefixtures("prefect_server")


def experiment(name: str, preset: str = "iris", **training: object) -> Experiment:
    """A preset under a name of its own."""
    changed = presets.get(preset)
    kept = changed.training.model_copy(update={"device": "cpu", **training})
    return changed.model_copy(update={"name": name, "training": kept})


def new_name() -> str:
    return f"r{uuid.uuid4().hex[:12]}"


def aliases(name: str) -> dict[str, int]:
    found = tracking.connect().get_registered_model(name).aliases
    return {alias: int(version) for alias, version in found.items()}


def versions(name: str) -> int:
    return len(tracking.connect().search_model_versions(f"name = '{name}'"))


def flow_run(name: str) -> tuple[str, dict[str, str]]:
    """State of the flow run of this name, and its artifacts' data by key."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = client.read_artifacts(artifact_filter=of_run)
    return run.state_name, {artifact.key: str(artifact.data) for artifact in artifacts}


@pytest.fixture(scope="module")
def thrice(prefect_server: str) -> tuple[str, list[Retrained]]:  # noqa: ARG001 - the server comes first
    """A first training, one with another seed, and the first once more."""
    name = new_name()
    return name, [retrain(experiment(name, epochs=30, seed=seed)) for seed in (0, 1, 0)]


def test_the_first_version_is_champion_and_its_record_says_so(thrice: tuple[str, list[Retrained]]) -> None:
    name, (first, *_) = thrice
    assert (first.verdict, first.champion) == ("FIRST", 1)
    assert first.decision is not None
    assert champions.history(name)[0] == first.decision
    assert first.decision.done
    state, artifacts = flow_run(f"{name} first version 1")
    assert state == "Completed"
    assert artifacts.keys() == {"retraining", "decision"}


def test_another_seed_is_held_and_the_champion_stays(thrice: tuple[str, list[Retrained]]) -> None:
    name, (_, second, _) = thrice
    assert (second.verdict, second.champion) == ("HOLD", 1)
    assert aliases(name) == {"champion": 1}
    decision = second.decision
    assert decision is not None
    said = decision.judgement
    assert said is not None
    assert said["rows"] > 20
    assert [gate["name"] for gate in said["gates"] if not gate["passed"]] == []
    assert len(said["gates"]) == 8
    client = tracking.connect()
    run = client.get_run(decision.run_id)
    stored = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/decision.json")
    assert stored == json.loads(json.dumps(champions.asdict(decision) | {"done": False}))
    for version in "12":
        assert client.get_model_version(name, version).tags["hallmark.decision.0002"].startswith("HOLD: version 2")
    state, artifacts = flow_run(f"{name} hold version 2")
    assert state == "Completed"
    assert decision.reason in artifacts["decision"]


def test_where_nothing_has_changed_nothing_is_trained(thrice: tuple[str, list[Retrained]]) -> None:
    name, (_, _, third) = thrice
    assert (third.verdict, third.decision, third.champion) == ("UNCHANGED", None, 1)
    assert versions(name) == 2
    assert len(champions.history(name)) == 2
    state, artifacts = flow_run(f"{name} unchanged")
    assert state == "Completed"
    assert "data, experiment and code are the champion's" in artifacts["retraining"]


def test_what_is_significantly_better_becomes_champion(prefect_server: str) -> None:  # noqa: ARG001
    name = new_name()
    retrain(experiment(name, "digits", epochs=1, lr=1e-6))
    result = retrain(experiment(name, "digits", epochs=5))
    assert (result.verdict, result.champion) == ("PROMOTE", 2)
    assert aliases(name) == {"champion": 2, "previous": 1}
    assert champions.standing(name).why.startswith("PROMOTE: the challenger is ")
    worse = retrain(experiment(name, "digits", epochs=1, lr=1e-6, seed=3))
    assert (worse.verdict, worse.champion) == ("REJECT", 2)
    assert aliases(name) == {"champion": 2, "previous": 1}
