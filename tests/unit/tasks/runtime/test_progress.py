import os
import sys

import pytest

from hallmark.tasks.runtime import progress, steps
from tests.support import terminals

METRICS = {"train/loss": 0.5, "train/accuracy": 0.75}


def test_progress_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with steps.running("fit"), progress.epochs(1000) as show:
        for epoch in range(1, 1001):
            show(epoch, METRICS)
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == "fit      epoch 1000/1000  train loss 0.5000  accuracy 0.750"
    assert len(error.splitlines()) <= 3
    assert "\x1b" not in error


def test_progress_lines_show_the_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with steps.running("fit"), progress.epochs(2) as show:
        show(1, METRICS | {"val/loss": 0.25, "val/accuracy": 0.875})
    assert capsys.readouterr().err.startswith("fit      epoch 1/2  val loss 0.2500  accuracy 0.875  0:00:00 left")


@pytest.mark.parametrize("colour", [True, False])
def test_progress_on_a_terminal_is_a_bar(colour: bool) -> None:  # noqa: FBT001
    code = (
        "from hallmark.tasks.runtime import progress\n"
        "progress.current_step.set('fit')\n"
        "with progress.epochs(3) as show:\n"
        "    for epoch in (1, 2, 3): show(epoch, {'train/loss': 0.5, 'train/accuracy': 0.75})\n"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = inherited | {"TERM": "xterm-256color", "COLUMNS": "60"} | ({} if colour else {"NO_COLOR": "1"})
    exit_code, text = terminals.run([sys.executable, "-c", code], environment)
    assert exit_code == 0
    assert "3/3" in text
    assert "accuracy 0.750" in text
    assert ("\x1b[36m" in text or "\x1b[32m" in text) is colour
