"""Detection of representation collapse: the embeddings of all samples become one vector."""

from __future__ import annotations

from collections.abc import Callable

from sslcli.errors import TrainingError
from sslcli.runs.run import Run
from sslcli.training.state import State

LOW_SPREAD = 0.1  # of the embeddings: 1 is isotropic, 0 collapsed
DEAD_SPREAD = 1e-3  # lower than at any initialization: no grace period
GRACE_PERIOD = 0.25  # share of a run whose spread was never higher: heads without batch norm start nearly constant


def check_collapse(run: Run, state: State, spread: float | None, on_collapse: str, warn: Callable[[str], None]) -> None:
    """Warn, or with `on_collapse="stop"` raise TrainingError, when the spread is low at two checks in a row.

    `spread`: the mean since the last check; None for a method that reports none."""
    if spread is None:
        return
    state.best_spread = max(state.best_spread, spread)
    was_higher = state.best_spread > 2 * LOW_SPREAD
    past_grace_period = state.plan is None or state.plan.progress(state.step) > GRACE_PERIOD
    limit = LOW_SPREAD if was_higher or past_grace_period else DEAD_SPREAD
    state.low_spread = state.low_spread + 1 if spread < limit else 0
    if state.low_spread != 2:
        return
    message = (
        f"the embeddings are collapsing: spread {spread:.3f} at step {state.step:,} (1: isotropic, 0: one single point)"
    )
    hint = "try a lower optimizer.lr, a larger train.batch_size, or a method with negatives (method=simclr)"
    run.event("collapse", step=state.step, spread=spread)
    if on_collapse == "stop":
        raise TrainingError(message, hint)
    warn(f"warning: {message}\nhint: {hint}; train.on_collapse=stop ends such a run")
