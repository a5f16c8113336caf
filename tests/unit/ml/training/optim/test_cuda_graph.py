"""Tests that need a GPU: steps captured as CUDA graphs are exact, repeatable, and do not wait for the device."""

from pathlib import Path

import pytest
import torch

from hallmark.flows.experiments import options
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.training.history import curves
from hallmark.tasks.ml.training.optim import update_step
from tests.conftest import fit, prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"),
]

WAYS = {
    "sgd": ["--training.optimizer=sgd", "--training.lr=0.1"],
    "momentum": ["--training.optimizer=sgd", "--training.momentum=0.9", "--training.weight_decay=0.01"],
    "adam": ["--training.schedule.kind=one_cycle"],
    "sigmoid": ["--model.output=sigmoid"],
    "cnn": ["--model.kind=cnn", "--model.channels=8,16", "--model.hidden=32"],
}


def on(device: str, way: str) -> Experiment:
    tokens = [f"--training.device={device}", "--training.epochs=3", "--training.batch_size=64"]
    return options.experiment("digits", [*tokens, *WAYS[way]])


@pytest.mark.parametrize("way", WAYS)
def test_a_captured_step_learns_what_the_cpu_learns(way: str, tmp_path: Path) -> None:
    dataset = prepare(on("cpu", way).data, tmp_path)
    found = {device: curves(fit(on(device, way), dataset, tmp_path / device).history) for device in ("cpu", "cuda")}
    for metric in ("train/step_loss", "val/loss"):
        assert found["cuda"][metric][0] == found["cpu"][metric][0]
        assert found["cuda"][metric][1] == pytest.approx(found["cpu"][metric][1], rel=2e-2)


@pytest.mark.parametrize("way", WAYS)
def test_training_on_a_gpu_is_repeatable_bit_by_bit(way: str, tmp_path: Path) -> None:
    dataset = prepare(on("cuda", way).data, tmp_path)
    first, second = (fit(on("cuda", way), dataset, tmp_path / name) for name in ("one", "two"))
    assert first.weights_sha256 == second.weights_sha256
    assert first.fingerprint["device"] == "cuda"


def test_nothing_waits_for_the_device_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = on("cuda", "adam")
    dataset = prepare(experiment.data, tmp_path)
    fit(experiment, dataset, tmp_path / "warm")
    step = update_step.GradientStep.step

    def watched(self: update_step.GradientStep, *batch: object) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return step(self, *batch)  # type: ignore[arg-type]
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(update_step.GradientStep, "step", watched)
    fit(experiment, dataset, tmp_path / "watched")
