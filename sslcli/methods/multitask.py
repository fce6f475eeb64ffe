"""Multi-task learning: a weighted sum of the losses of several methods on one backbone.

The weights are fixed; or learned from each task's uncertainty: Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to
Weigh Losses for Scene Geometry and Semantics", CVPR 2018, https://arxiv.org/abs/1705.07115; or adapted so that the tasks'
gradients have balanced norms: Chen et al., "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
Networks", ICML 2018, https://arxiv.org/abs/1711.02257.

T tasks. Every task receives the views of its own plan; tasks that request the same kind share views. Each task has its own heads,
teachers and queues. Deviations: both papers assume non-negative losses, here a task's loss is measured from its `min_loss`;
GradNorm's weights take one gradient step after each optimizer step, outside the optimizer, with gradients of the backbone's last
weights (their W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, CaptionMethod, Method, Reconstruction
from sslcli.nn.dist import all_reduce_mean


class MultiTask(Method):
    requires = frozenset()  # what its tasks do
    norms: Tensor
    losses: Tensor
    count: Tensor
    first: Tensor
    balance: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        tasks: dict[str, Method],
        weights: dict[str, float] | None = None,
        weighting: str = "fixed",
        alpha: float = 0.5,
        weight_lr: float = 0.025,
    ):
        super().__init__(backbone)
        if not tasks:
            raise ValueError("tasks must name at least one method, such as tasks: [simclr, rotation]")
        weights = weights or {}
        if unknown := sorted(set(weights) - set(tasks)):
            raise ValueError(f"weights: unknown task {', '.join(unknown)}; the tasks are {', '.join(tasks)}")
        if any(not w > 0 for w in weights.values()):
            raise ValueError("weights must be above 0; leave out a task to disable it")
        if weighting not in ("fixed", "uncertainty", "gradnorm"):
            raise ValueError(f"weighting must be fixed, uncertainty or gradnorm, got {weighting!r}")
        for task in tasks.values():
            share_backbone(task, backbone)
        self.tasks = nn.ModuleDict(tasks)
        self.weighting, self.alpha, self.weight_lr = weighting, alpha, weight_lr
        self.register_buffer("balance", torch.tensor([float(weights.get(name, 1.0)) for name in tasks]))
        if weighting != "fixed":
            self._check_min_losses(tasks)
        if weighting == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(len(tasks)))  # s = log sigma^2
        for name in ("norms", "losses", "first"):
            self.register_buffer(name, torch.zeros(len(tasks)), persistent=name == "first")
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.uses_labels = any(t.uses_labels for t in tasks.values())
        self.uses_captions = any(t.uses_captions for t in tasks.values())
        self.requires = frozenset().union(*(t.requires for t in tasks.values()))
        self.adversarial = any(t.adversarial for t in tasks.values())
        self.min_batch = max(t.min_batch for t in tasks.values())
        self.fixed_lr = tuple(f"tasks.{n}.{part}" for n, t in tasks.items() for part in t.fixed_lr)
        self._evaluated_backbone()

    def _check_min_losses(self, tasks: dict[str, Method]) -> None:
        unbounded = [name for name, task in tasks.items() if math.isinf(task.min_loss)]
        if unbounded:
            raise ValueError(
                f"weighting={self.weighting} requires losses with a lower bound; that of {', '.join(unbounded)} has none: "
                "weighting=fixed"
            )
        self.min_losses = [task.min_loss for task in tasks.values()]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        batch = batch.expect_plan(self.combined_plan())
        outputs = {name: self._task(name)(select_views(batch, self._task(name))) for name in self.tasks}
        losses = torch.stack([out["loss"] for out in outputs.values()])  # (T,)
        loss = (self.balance.to(losses.dtype) * losses).sum()
        if self.weighting == "uncertainty":
            above = losses - losses.new_tensor(self.min_losses)
            loss = (self.balance * ((-self.log_variance).exp() * above + self.log_variance / 2)).sum()  # eq. (7), (10)
        if self.weighting == "gradnorm" and self.training and torch.is_grad_enabled():
            self._record_gradients(losses)
        metrics = {f"{name}.{key}": value.detach() for name, out in outputs.items() for key, value in out.items()}
        spreads = [out["spread"] for out in outputs.values() if "spread" in out]
        if spreads:
            metrics["spread"] = torch.stack(spreads).min()  # of the task closest to collapse
        if self.weighting != "fixed":
            weights = self.balance * (-self.log_variance).exp() if self.weighting == "uncertainty" else self.balance
            metrics |= {f"{name}.weight": w for name, w in zip(self.tasks, weights.detach().unbind(), strict=True)}
        return {"loss": loss, **metrics}

    # -------------------------------------------------------------------------------------------------------- GradNorm

    def _record_gradients(self, losses: Tensor) -> None:
        """Accumulate the norm of each task's gradient in the shared layer over the global batch, for `after_step`."""
        shared = [p for p in self.backbone.parameters() if p.requires_grad and p.ndim > 1][-1]
        for i, one in enumerate(losses.unbind()):
            (gradient,) = torch.autograd.grad(one, shared, retain_graph=True, allow_unused=True)
            norm = all_reduce_mean(torch.zeros_like(shared) if gradient is None else gradient).norm()
            self.norms[i] += norm.to(self.norms.dtype)
        self.losses += all_reduce_mean(losses - losses.new_tensor(self.min_losses)).to(self.losses.dtype)
        self.count += 1

    @torch.no_grad()
    def _rebalance(self) -> None:
        """Algorithm 1: a gradient step of each weight on |G_i - mean(G) r_i^alpha|; the sum of the weights is constant."""
        count = self.count.clamp(min=1)
        norms, losses = self.norms / count, self.losses / count
        self.first.copy_(torch.where(self.first == 0, losses, self.first))
        total = self.balance.sum()
        g = self.balance * norms  # G_i = |w_i grad L_i|
        progress = losses / self.first.clamp(min=1e-12)
        rate = progress / progress.mean().clamp(min=1e-12)  # r_i, above 1 for a task that learns slowly
        slope = (g - g.mean() * rate**self.alpha).sign() * norms
        slope = slope / slope.abs().max().clamp(min=1e-12)  # normalized by the largest, because losses have any scale
        moved = (self.balance - self.weight_lr * (self.count > 0) * slope).clamp(min=1e-3)
        self.balance.copy_(moved * total / moved.sum())
        for buffer in (self.norms, self.losses, self.count):
            buffer.zero_()

    # ------------------------------------------------------------------------------------------------------- the tasks

    def combined_plan(self) -> dict[str, int]:
        """For each kind of view the largest number that a task requests."""
        plan: dict[str, int] = {}
        for name in self.tasks:
            for kind, count in self._task(name).plan.items():
                plan[kind] = max(count, plan.get(kind, 0))
        return plan

    def _task(self, name: str) -> Method:
        task = self.tasks[name]
        assert isinstance(task, Method)
        return task

    def after_step(self, progress: float) -> None:
        for name in self.tasks:
            self._task(name).after_step(progress)
        if self.weighting == "gradnorm":
            self._rebalance()

    def _evaluated_backbone(self) -> nn.Module:
        """The tasks' eval_backbone: the shared one, unless one task evaluates its teacher. ValueError for several teachers."""
        backbones = {n: self._task(n).eval_backbone for n in self.tasks}
        teachers = {n: b for n, b in backbones.items() if b is not self.backbone}
        if len(teachers) > 1:
            raise ValueError(f"tasks {', '.join(teachers)} each evaluate their own teacher: at most one is allowed")
        return next(iter(teachers.values()), self.backbone)

    @property
    def eval_backbone(self) -> nn.Module:
        return self._evaluated_backbone()

    @property
    def reconstructs(self) -> bool:
        return any(self._task(n).reconstructs for n in self.tasks)

    def reconstruct(self, batch: Batch) -> Reconstruction | None:
        task = next(self._task(n) for n in self.tasks if self._task(n).reconstructs)
        return task.reconstruct(batch if "clean" in batch.kinds else select_views(batch, task))

    @torch.no_grad()
    def figures(self, batch: Batch) -> dict[str, dict[str, Tensor]]:
        sheets = {n: self._task(n).figures(select_views(batch, self._task(n))) for n in self.tasks}
        return {f"{n}_{key}": columns for n, sheet in sheets.items() for key, columns in sheet.items()}

    def assign(self, x: Tensor) -> Tensor | None:
        return next((p for n in self.tasks if (p := self._task(n).assign(x)) is not None), None)

    def anomaly_score(self, x: Tensor) -> Tensor | None:
        return next((s for n in self.tasks if (s := self._task(n).anomaly_score(x)) is not None), None)

    def token_logits(self, x: Tensor, where: Tensor) -> Tensor | None:
        logits = (self._task(n).token_logits(x, where) for n in self.tasks)
        return next((z for z in logits if z is not None), None)

    def next_scores(self, x: Tensor) -> Tensor | None:
        return next((s for n in self.tasks if (s := self._task(n).next_scores(x)) is not None), None)

    @property
    def shares_space(self) -> bool:
        return any(self._task(n).shares_space for n in self.tasks)

    def sample_vectors(self, x: Tensor) -> Tensor | None:
        return next((v for n in self.tasks if (v := self._task(n).sample_vectors(x)) is not None), None)

    def caption_vectors(self, x: Tensor) -> Tensor:
        return next(self._task(n) for n in self.tasks if self._task(n).shares_space).caption_vectors(x)

    def similarity_scale(self) -> float:
        return next(self._task(n) for n in self.tasks if self._task(n).shares_space).similarity_scale()

    def caption_method(self) -> CaptionMethod | None:
        return next((found for n in self.tasks if (found := self._task(n).caption_method()) is not None), None)

    def describe(self) -> dict[str, str]:
        details = {f"{n} {key}": value for n in self.tasks for key, value in self._task(n).describe().items()}
        weights = ", ".join(f"{n} {w:g}" for n, w in zip(self.tasks, self.balance.tolist(), strict=True))
        return {"weights": f"{weights} ({self.weighting})", **details}


def share_backbone(task: Method, backbone: nn.Module) -> None:
    """Store the backbone in the task as a plain attribute, so that a checkpoint contains it once."""
    task._modules.pop("backbone", None)
    task.__dict__["backbone"] = backbone


def select_views(batch: Batch, task: Method) -> Batch:
    """The batch restricted to the views of the task's plan, the first of each kind."""
    remaining = dict(task.plan)
    indices = []
    for i, kind in enumerate(batch.kinds):
        if remaining.get(kind, 0) > 0:
            remaining[kind] -= 1
            indices.append(i)
    labels = batch.labels if task.uses_labels else None
    captions = batch.captions if task.uses_captions else None
    return Batch([batch.views[i] for i in indices], [batch.kinds[i] for i in indices], batch.draw, labels, captions)
