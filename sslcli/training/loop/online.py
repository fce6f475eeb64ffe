"""Online evaluation during training, inside the training split; the test split is not read."""

from __future__ import annotations

from torch import nn

from sslcli.config import instantiate
from sslcli.training.setup import TrainingSetup

MAX_EVALUATIONS = 10  # of a run, with train.eval_every=auto
MAX_TIME_SHARE = 0.05  # of a run's time, likewise
TRAINING_COST = (
    6  # training on a sample costs about six times as much as embedding it (two views, forward and backward)
)


def evaluate_online(setup: TrainingSetup, backbone: nn.Module) -> dict[str, float]:
    """Metrics of the evaluator in the run's configuration."""
    machine = setup.runtime
    metrics: dict[str, float] = instantiate.build(
        "evaluator",
        setup.cfg["evaluator"],
        backbone,
        setup.dataset,
        device=machine.device,
        workers=machine.workers,
        autocast=machine.autocast,
        channels_last=machine.channels_last,
    )
    return metrics


def evaluation_interval(setup: TrainingSetup, total_steps: int) -> int:
    """Epochs between two evaluations, `train.eval_every`; 0 for none.

    `auto` allows at most `MAX_EVALUATIONS`, and fewer where they would take more than `MAX_TIME_SHARE` of the run's time."""
    if (interval := setup.cfg["train"]["eval_every"]) != "auto":
        return int(interval)
    evaluator, n, loader = setup.cfg["evaluator"], len(setup.dataset.train), setup.loader
    embedded = min(n, evaluator.get("bank", n) + evaluator.get("queries", n))
    affordable = int(MAX_TIME_SHARE * TRAINING_COST * total_steps * loader.batch_size / embedded)
    return max(1, total_steps // loader.steps_per_epoch // min(MAX_EVALUATIONS, max(1, affordable)))
