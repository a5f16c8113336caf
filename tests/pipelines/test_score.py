"""The flow `score`, against a real Prefect server."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from pyarrow import parquet

from hallmark.flows.score import score
from hallmark.tasks.common.digests import file_digest
from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.reports import flow_pages
from hallmark.tasks.tracking.client import connect
from tests.support import certified

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Write 40 rows, the first one outside the training range."""
    x = np.random.default_rng(0).uniform(0, 8, (40, 4)).astype(np.float32)
    x[0, 0] = 9
    np.save(tmp_path / "rows.npy", x)
    return tmp_path / "rows.npy"


@pytest.fixture
def name(tmp_path: Path) -> str:
    """Register a model with a champion, and return its name."""
    client, name = connect(), f"s{uuid.uuid4().hex[:12]}"
    (tmp_path / "stored").mkdir()
    path = certified.columns(tmp_path / "stored" / "model.onnx")
    client.create_registered_model(name)
    client.create_model_version(name, path.parent.as_uri(), tags={"hallmark.onnx_sha256": file_digest(path)})
    client.set_registered_model_alias(name, "champion", "1")
    return name


def flow_run(name: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return run


def test_a_registered_model_scores_a_file_with_a_summary(name: str, rows: Path, tmp_path: Path) -> None:
    scored = score(name, str(rows), tmp_path / "said.parquet")
    assert (scored.rows, scored.outside_training_range) == (40, 1)
    table = parquet.read_table(tmp_path / "said.parquet")
    label = certified.expected(np.load(rows), 3).argmax(axis=1)
    assert table["class"].to_pylist() == [certified.CLASSES[index] for index in label]
    run = flow_run(f"{name} on {rows}")
    assert run.state is not None
    assert run.state.is_completed()
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["scoring"])))
    (artifact,) = [artifact for artifact in artifacts if artifact.flow_run_id == run.id]
    assert artifact.data == flow_pages.scoring(scored)
    assert "| outside the training range | 1 rows, 2.5% |" in artifact.data
    share = (label == 0).mean()
    assert f"| setosa | {share:.1%} | 33.3% |" in artifact.data
    assert scored.sha256 in artifact.data


def test_invalid_input_fails_the_run_and_writes_nothing(name: str, rows: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "three.npy", np.zeros((2, 3)))
    before = set(tmp_path.rglob("*"))
    for source, output, message in [
        (tmp_path / "three.npy", "said.csv", r"expected shape \(N, 4\)"),
        (rows, "rows.npy", "expected a name that ends in"),
        ("-", "said.csv", "a flow run cannot read stdin"),
    ]:
        with pytest.raises(InputError, match=message):
            score(name, str(source), tmp_path / output)
    assert set(tmp_path.rglob("*")) == before
    state = flow_run(f"{name} on {tmp_path / 'three.npy'}").state
    assert state is not None
    assert state.is_failed()


def test_an_existing_output_is_replaced_only_on_request(name: str, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "said.csv").write_text("before")
    with pytest.raises(InputError, match="exists: choose another name"):
        score(name, str(rows), tmp_path / "said.csv")
    assert (tmp_path / "said.csv").read_text() == "before"
    assert score(name, str(rows), tmp_path / "said.csv", overwrite=True).rows == 40
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 41
