"""Rules that update the weights, and the course of the learning rate: torch's own."""

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from tasks.ml.config import Constant, Cosine, OneCycle, Step, Training

_HISTORY = 100
"""Updates that lbfgs remembers: scikit-learn's models this small are fitted in fewer."""


def build(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    """Build the optimizer. One step of lbfgs is one of its iterations, with a strong Wolfe line search."""
    # The first step would import this, in two seconds that are no training.
    import torch._dynamo

    weights, lr, decay = network.parameters(), training.lr, training.weight_decay
    match training.optimizer:
        case "sgd":
            return torch.optim.SGD(
                weights, lr, momentum=training.momentum, nesterov=training.nesterov, weight_decay=decay
            )
        case "adam":
            return torch.optim.Adam(weights, lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(weights, lr, weight_decay=decay)
        case "lbfgs":
            return torch.optim.LBFGS(
                weights,
                lr,
                max_iter=1,
                tolerance_grad=0,
                tolerance_change=0,
                history_size=_HISTORY,
                line_search_fn="strong_wolfe",
            )


def schedule(
    optimizer: torch.optim.Optimizer, training: Training, updates_an_epoch: int
) -> lr_scheduler.LRScheduler | None:
    """Build what sets the learning rate: one_cycle steps after every update, the others after every epoch."""
    match training.schedule:
        case Constant():
            return None
        case Cosine():
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=training.epochs)
        case Step() as steps:
            return lr_scheduler.StepLR(optimizer, step_size=steps.every, gamma=steps.factor)
        case OneCycle() as cycle:
            return lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=training.lr,
                # One more than is taken: torch refuses to look past the end.
                total_steps=training.epochs * updates_an_epoch + 1,
                pct_start=cycle.warmup,
                cycle_momentum=False,
            )


def penalty(network: nn.Module, l2: float) -> Tensor | float:
    """`l2 / 2 * (sum of squared weights)`, biases apart, as scikit-learn's LogisticRegression has it."""
    if not l2:
        return 0.0
    squares = [parameter.square().sum() for name, parameter in network.named_parameters() if name.endswith("weight")]
    return torch.stack(squares).sum() * (l2 / 2)
