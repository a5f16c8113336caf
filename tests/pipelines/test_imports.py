"""Modules that must start fast import no heavy library. One fresh process imports each group, in this order."""

import json
from collections.abc import Callable

import pytest

TELEMETRY = {"DO_NOT_TRACK": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
PROTECTION = {
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "https://hallmark.invalid",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
}
HEAVY = ("torch", "prefect", "mlflow", "sklearn", "matplotlib", "pandas", "onnxruntime")
NEITHER_TORCH_NOR_SERVERS = ("torch", "prefect", "mlflow", "sklearn", "matplotlib")


def test_flow_called_from_python_sends_no_telemetry_and_its_server_answers_no_foreign_page(
    python: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = TELEMETRY | PROTECTION
    for name in expected:
        monkeypatch.delenv(name, raising=False)
    # Prefect and MLflow read the variables when they are imported, after `hallmark.flows`.
    code = "import json, os, sys, hallmark.flows; print(json.dumps({name: os.environ[name] for name in sys.argv[1:]}))"
    assert json.loads(python(code, *expected)) == expected


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(
            [
                ("hallmark.flows.__main__", (*HEAVY, "numpy")),
                ("hallmark.flows.experiments.options", (*HEAVY, "numpy")),
                ("hallmark.flows.experiments.sweep_grids", (*HEAVY, "numpy")),
                ("hallmark.flows.cli.train", HEAVY),
                ("hallmark.flows.cli.presets", HEAVY),
                ("hallmark.flows.cli.runs", HEAVY),
                ("hallmark.flows.cli.compare", HEAVY),
                ("hallmark.flows.cli.card", HEAVY),
                ("hallmark.tasks.ml.evaluation.findings.after_training", HEAVY),
            ],
            id="commands",
        ),
        pytest.param(
            [
                ("hallmark.tasks.ml.artifact.certificate", (*NEITHER_TORCH_NOR_SERVERS, "pydantic")),
                ("hallmark.tasks.ml.artifact.runtimes", NEITHER_TORCH_NOR_SERVERS),
                ("hallmark.tasks.ml.predict.predictor", NEITHER_TORCH_NOR_SERVERS),
                ("hallmark.tasks.ml.reports.run_comparison.comparison", ("torch", "prefect", "mlflow")),
            ],
            id="prediction",
        ),
        pytest.param(
            [
                ("hallmark.tasks.ml.training.trainer", ("prefect", "mlflow", "jinja2")),
                ("hallmark.tasks.ml.reports.model_card", ("prefect", "mlflow", "jinja2")),
                ("hallmark.tasks.ml.artifact.proof.verifier", ("prefect", "mlflow")),
            ],
            id="training",
        ),
        pytest.param(
            [
                ("hallmark.tasks.tracking.client", ("torch", "prefect")),
                ("hallmark.tasks.tracking.run_logger", ("torch", "prefect")),
            ],
            id="tracking",
        ),
    ],
)
def test_modules_import_no_heavy_library(group: list[tuple[str, tuple[str, ...]]], python: Callable[..., str]) -> None:
    code = (
        "import importlib, sys\n"
        f"for module, forbidden in {group!r}:\n"
        "    importlib.import_module(module)\n"
        "    for name in forbidden:\n"
        "        if name in sys.modules: print(f'{module} imports {name}')\n"
    )
    assert python(code) == ""
