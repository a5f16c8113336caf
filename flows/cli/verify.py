"""`hallmark verify`: check a shipped file. For a file on disk, torch, Prefect and MLflow are not imported."""

from dataclasses import asdict, replace
from math import nan
from typing import Any

from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row, print_rows
from hallmark.tasks.common.errors import HallmarkError
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.artifact.certificate import Certificate, Check, FileChecks


def verify(
    model: str,
    /,
    *,
    registered: Flag = False,
    json: Flag = False,
) -> None:
    """Check a shipped file: its seal, its graph, and its predictions for its golden vectors.

    Exit code 0: all checks passed. 1: a check failed. 2: not a file that Hallmark has shipped. The seal detects damage
    and careless edits. A forged file can be sealed again: --registered detects that.

    Example: hallmark verify --registered iris.onnx

    Parameters
    ----------
    model
        A file, or models:/NAME@ALIAS or models:/NAME/VERSION, which is fetched from the registry first.
    registered
        Also look up the file's SHA-256 among all registered versions.
    json
        Print one line of JSON instead of a table.
    """
    with report_errors(as_json=json):
        from hallmark.tasks.tracking.registry import model_reference

        path = model_reference.find(model)
        checked = certificate.check(path, apart=model_reference.is_file(model))
        if registered:
            checked = replace(checked, checks=(*checked.checks, _look_up(checked.sha256)))
    if json:
        print_json(_result(checked))
    else:
        _print(checked)
    if not checked.holds:
        raise HallmarkError(f"{path}: verification failed: {certificate.failures(checked)}")


def _look_up(sha256: str) -> Check:
    from hallmark.tasks.tracking.registry import model_registry

    versions = model_registry.describe_versions(sha256)
    if not versions:
        return Check("registry", passed=False, found="no registered version has this sha256")
    return Check("registry", passed=True, found=", ".join(versions))


def _result(checked: FileChecks) -> dict[str, Any]:
    return {
        "status": "holds" if checked.holds else "failed",
        "sha256": checked.sha256,
        "checks": [asdict(check) for check in checked.checks],
        "certificate": asdict(checked.certificate) if checked.certificate else None,
    }


def _print(checked: FileChecks) -> None:
    for check in checked.checks:
        style = "green" if check.passed else "bold red"
        mark = "passed  " if check.passed else "failed  "
        print_row(check.name, (mark, style), check.found, width=16)
    rows = (_describe(checked.certificate) if checked.certificate else {}) | {"sha256": checked.sha256}
    print_rows(rows, width=16)
    print_row("verdict", "holds" if checked.holds else "does not hold", width=16)


def _describe(shipped: Certificate) -> dict[str, str]:
    label = _form("label", "int64", ("N",))
    probabilities = _form("probabilities", "float32", ("N", len(shipped.classes)))
    accuracy, loss = shipped.metrics["test/accuracy"], shipped.metrics.get("test/loss", nan)
    return {
        "proof": certificate.proof_sentence(shipped.proof),
        "test split": f"accuracy {accuracy:.4f}, loss {loss:.4f}",
        "inputs": ", ".join(_form(one.name, one.dtype, ("N", *one.shape)) for one in shipped.inputs),
        "outputs": f"{label}, {probabilities}",
        "classes": ", ".join(shipped.classes),
        "experiment": shipped.experiment,
        "dataset": shipped.dataset,
    }


def _form(name: str, dtype: str, shape: tuple[int | str, ...]) -> str:
    return f"{name} {dtype} ({', '.join(map(str, shape))})"
