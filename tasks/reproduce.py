"""Last step of a reproduction: compare its weights and file with those of the earlier run."""

from collections.abc import Iterator

from hallmark.tasks.common.digests import SHOWN, shortened
from hallmark.tasks.common.records import Artifact, Dataset, Fit
from hallmark.tasks.common.results import Recorded, Reproduction
from hallmark.tasks.runtime import progress, provenance
from hallmark.tasks.runtime.steps import step


@step("compare", task_run_name="reproduce {recorded.run}")
def reproduce(recorded: Recorded, dataset: Dataset, fit: Fit, artifact: Artifact) -> Reproduction:
    """Compare bit for bit, and list what else differs: dataset, code, library versions, machine."""
    now = provenance.code_and_versions() | fit.fingerprint | {"networks": str(fit.networks)}
    result = Reproduction(
        weights=fit.weights_sha256 == recorded.weights_sha256,
        file=artifact.sha256 == recorded.onnx_sha256,
        differences=tuple(_differences(recorded, dataset.digest, now)),
    )
    words = {True: "identical", False: "different"}
    progress.report(f"weights {words[result.weights]}, file {words[result.file]}")
    return result


def _differences(recorded: Recorded, dataset: str, now: dict[str, str]) -> Iterator[str]:
    """Yield a line for each condition of the result that differs from the earlier run."""
    if recorded.dataset != dataset:
        yield f"dataset: was {recorded.dataset[:SHOWN]}, is {dataset[:SHOWN]}"
    for name, before in sorted(recorded.conditions.items()):
        after = now.get(name, "none")
        if before != after:
            yield f"{name}: was {shortened(before)}, is {shortened(after)}"
