import pytest
import torch

from hallmark.tasks.common.errors import InputError
from hallmark.tasks.ml.training import devices


def test_cpu_is_always_available_and_auto_takes_the_best_device() -> None:
    assert devices.choose("cpu").type == "cpu"
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert devices.choose("auto").type == best


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA, so requesting it is not an error")
def test_a_missing_device_is_refused() -> None:
    with pytest.raises(InputError, match=r"training\.device: torch .* finds no 'cuda' device .* use 'auto' or 'cpu'"):
        devices.choose("cuda")
