"""Results of flows, and what a finished run or a decision recorded: frozen records like those of `records`."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hallmark.tasks.common.errors import printable
from hallmark.tasks.common.records import Artifact, Dataset, Evaluation, Finding, Fit, ModelVersion, Proof, Run


@dataclass(frozen=True, slots=True)
class RecentRun:
    """A row of `hallmark runs`."""

    id: str
    experiment: str
    """Name of the experiment."""
    name: str
    status: str
    started: float
    """Start time in seconds since the Unix epoch."""
    accuracy: float | None
    loss: float | None
    kind: str
    """Kind of the preset: `published`, `corrected`, `reference` or `own`; empty if the run did not record it."""
    model_version: str | None
    """Registered version; None if the run registered none."""


@dataclass(frozen=True, slots=True)
class Member:
    """Result of one experiment of a sweep."""

    label: str
    """Values that distinguish it from the other members: `training.lr=0.1 training.seed=3`."""
    values: dict[str, bool | int | float | str]
    """The same values by option."""
    run: Run
    way: str
    """Way of training: `stacked`, `stacked in the pool` or `process pool`."""
    fit: Fit | None
    failed: str
    """Reason why there is no fit; empty if there is one."""
    loss: float | None
    """Validation loss of the kept weights; None if there are none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one execution of the train flow."""

    dataset: Dataset
    run: Run
    fit: Fit
    evaluation: Evaluation
    findings: tuple[Finding, ...]
    artifact: Artifact
    proof: Proof
    model_version: ModelVersion


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a finished run with an exported file recorded about itself."""

    run: str
    """Id of the run."""
    dataset: str
    """Digest of the dataset."""
    weights_sha256: str
    """SHA-256 of the weights file."""
    onnx_sha256: str
    """SHA-256 of the exported file."""
    initial_seed: int
    """Random seed of the initial weights."""
    conditions: dict[str, str]
    """Conditions on which the exact bits depend, besides experiment and data: device, threads, versions, code."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Result of running a recorded experiment again."""

    weights: bool
    """Whether the weights are identical."""
    file: bool
    """Whether the exported file is identical."""
    differences: tuple[str, ...]
    """Conditions on which the exact bits depend and that have changed."""

    @property
    def is_identical(self) -> bool:
        """Whether weights and file are identical."""
        return self.weights and self.file


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """Results of a sweep."""

    run: Run
    """Parent of the members' runs."""
    axes: tuple[str, ...]
    members: tuple[Member, ...]
    chosen: int
    """Index of the member with the lowest validation loss."""
    outcome: Outcome
    """Results of the chosen member, the only one that is tested and exported."""

    @property
    def by_loss(self) -> list[int]:
        """Indices of the members by validation loss, lowest first; members that diverged come last."""
        losses = [math.inf if member.loss is None else member.loss for member in self.members]
        return sorted(range(len(losses)), key=losses.__getitem__)


@dataclass(frozen=True, slots=True)
class ColumnGaps:
    """Numbers of rows whose value in a column does not tell the model anything."""

    name: str
    missing: int
    unknown: int
    """Rows with a text that the model does not know."""
    unreadable: int
    """Rows with a text in place of a number; it counts as missing, as in training."""
    example: str = ""
    """The first of these texts."""

    @property
    def total(self) -> int:
        """Number of rows without a usable value."""
        return self.missing + self.unknown + self.unreadable

    def describe(self, rows: int) -> str:
        """Describe the counts in words: `b: 8 missing of 8 values`."""
        such = f", such as '{printable(self.example[:40])}'" if self.example else ""
        counts = {"missing": self.missing, "unknown": self.unknown, f"not numbers{such}": self.unreadable}
        named = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
        return f"{self.name}: {named} of {rows:,} values"


@dataclass(frozen=True, slots=True)
class Scored:
    """Summary of a model's predictions for many rows."""

    model: Path
    sha256: str
    """SHA-256 of the model's file."""
    source: str
    """Source of the rows, as the user gave it."""
    output: Path | None
    """File of the predictions; None if they went to stdout."""
    rows: int
    class_shares: dict[str, float]
    """Fraction of the rows predicted as each class."""
    training_class_shares: dict[str, float]
    """Fraction of the training rows in each class."""
    outside_training_range: int
    """Number of rows with a number outside the range of the training rows, or with a text that they do not contain."""
    left_out: tuple[str, ...] = ()
    """Columns of the source that the model does not use."""
    unreadable: tuple[str, ...] = ()
    """Images of a folder that were left out, each with the reason."""
    gaps: tuple[ColumnGaps, ...] = ()
    """Columns with missing, unknown or unreadable values, those with most of them first."""

    def describe_gaps(self, limit: int = 5) -> str:
        """Describe the columns with most gaps in words; empty if there are none."""
        described = [one.describe(self.rows) for one in self.gaps]
        more = [f"{len(described) - limit:,} more columns"] if len(described) > limit else []
        return "; ".join(described[:limit] + more)


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision on a registered model's champion, recorded before the aliases are moved."""

    number: int
    """Number of the decision, counted per model from 1."""
    name: str
    """Name of the registered model."""
    verdict: Literal["FIRST", "PROMOTE", "HOLD", "REJECT", "MANUAL", "ROLLBACK"]
    """FIRST: there was no champion to compare with; MANUAL and ROLLBACK: decided by a person."""
    reason: str
    version: int
    """Version that the decision is about."""
    run_id: str
    """MLflow run of the version; empty if it has none."""
    before: int | None
    """Version that was champion before the decision; None if there was none."""
    champion: int
    """Version that is champion after it."""
    previous: int | None
    """Version that has the alias `previous` after it; None if there is none."""
    at: str
    """Time of the decision, ISO 8601 in UTC."""
    by: str
    """Name of the user who ran the command."""
    schedule: str | None
    """Name of the schedule that started it; None if a person did."""
    digests: dict[str, str]
    """Experiment, dataset and code digests of the version; SHA-256 of its file and of the former champion's."""
    rule: dict[str, Any] | None
    judgement: dict[str, Any] | None
    """Counts, p-value, interval and gates; None if a person decided or there was no champion."""
    refused_rows: int = 0
    """Number of test rows left out because one of the two models was trained on them."""
    done: bool = False
    """Whether the aliases have been moved and read back."""
    id: str = ""
    """Random id, by which a process recognizes its own decision; empty in decisions of older versions."""

    @property
    def moves(self) -> bool:
        """Whether the champion changes."""
        return self.verdict in ("PROMOTE", "MANUAL", "ROLLBACK")


@dataclass(frozen=True, slots=True)
class UnreadableDecision:
    """An entry of the decision log that cannot be read. It is shown and otherwise skipped."""

    number: int | None
    """Its number; None if the name of its tag has none."""
    tag: str
    """Name of the tag of the registered model that holds it."""
    problem: str


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparison of a challenger with the champion, which does not move any alias."""

    verdict: Literal["PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    challenger: int
    rule: dict[str, Any]
    judgement: dict[str, Any]
    refused_rows: int
    """Number of test rows left out because one of the two models was trained on them."""


@dataclass(frozen=True, slots=True)
class Retrained:
    """Result of one retraining."""

    name: str
    verdict: Literal["UNCHANGED", "FIRST", "PROMOTE", "HOLD", "REJECT"]
    reason: str
    champion: int
    """Version that is champion after the retraining."""
    decision: Decision | None
    """Decision on the new version; None if neither code nor data had changed."""
