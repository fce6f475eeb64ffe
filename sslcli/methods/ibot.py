"""iBOT: DINO's loss on the class token and, for masked patch tokens, on patch tokens.

Zhou et al., "iBOT: Image BERT Pre-Training with Online Tokenizer", ICLR 2022. https://arxiv.org/abs/2111.07832
B batch, N tokens, P bottleneck width, K prototypes, V views, the first G of them global. Centering and sharpening of the EMA
teacher prevent collapse. Class and patch tokens share head and prototypes (Sec. 3.3). Each view is a forward pass of its own;
only global views are masked. The teacher is evaluated, by its class token (backbone.pool=cls). Deviations from the authors' code:
those of dino.py; tokens are masked at random, not in blocks; padding of a series is no target.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcli.methods.base import Batch, Method
from sslcli.nn.centering import LinearWarmup, centered_softmax
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, gelu_head
from sslcli.nn.masking import exclude_padding, random_mask
from sslcli.nn.prototypes import Prototypes, apply_to_tokens, cross_view_loss, effective_prototypes, masked_token_loss
from sslcli.nn.running_mean import RunningMean
from sslcli.nn.stats import spread


class IBOT(Method):
    requires = frozenset({"views", "positions"})

    def __init__(
        self,
        backbone: nn.Module,
        hidden_dim: Width = "auto",
        proj_dim: Width = "auto",
        norm: bool = True,
        prototypes: int = 256,
        mask_chance: float = 0.5,
        mask_low: float = 0.1,
        mask_high: float = 0.5,
        temperature: float = 0.1,
        teacher_temperature: float = 0.02,
        teacher_temperature_end: float = 0.02,
        warmup: float = 0.3,
        centre_momentum: float = 0.9,
        frozen: float = 0.01,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        self.head = gelu_head(self.backbone.dim, hidden, hidden, width, norm=norm)
        self.prototypes = Prototypes(width, prototypes, frozen)
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.teacher = Teacher(backbone, self.head, self.prototypes)
        self.centre, self.token_centre = RunningMean(prototypes), RunningMean(prototypes)  # C and C'
        self.teacher_temperature = LinearWarmup(teacher_temperature, teacher_temperature_end, warmup)
        self.masks = {"p": mask_chance, "low": mask_low, "high": mask_high}
        self.temperature, self.centre_momentum, self.tau, self.tau_end = temperature, centre_momentum, tau, tau_end

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        prefix = self.backbone.prefix
        classes, masked, teacher_classes = [], [], []
        for i, x in enumerate(global_views):
            hidden = self.mask(batch, i)  # (B, N)
            tokens = self.backbone.tokens(x, hidden=hidden, mask_token=self.mask_token)
            classes.append(self.head(tokens[:, 0]))  # (B, P)
            student = self.prototypes(apply_to_tokens(self.head, tokens[:, prefix:])) / self.temperature  # (B, N, K)
            class_scores, token_scores = self.teacher_scores(x)
            teacher_classes.append(class_scores)
            targets = centered_softmax(token_scores, self.token_centre.value, self.teacher_temperature.value)
            masked.append(masked_token_loss(student, targets, exclude_padding(hidden, self.backbone.present(x))))
            if self.training and torch.is_grad_enabled():
                self.centre.observe(class_scores)
                self.token_centre.observe(token_scores.flatten(0, 1))
        classes += [self.head(self.backbone.tokens(x)[:, 0]) for x in local_views]
        targets = centered_softmax(
            torch.stack(teacher_classes), self.centre.value, self.teacher_temperature.value
        )  # (G, B, K)
        class_loss = cross_view_loss(
            torch.stack([self.prototypes(z) for z in classes]) / self.temperature, targets
        )  # eq. (2)
        token_loss = torch.stack(masked).mean()  # eq. (3)
        terms = {"class_token": class_loss.detach(), "tokens": token_loss.detach()}
        return {
            "loss": class_loss + token_loss,
            **terms,
            "used": effective_prototypes(targets[0]),
            "spread": spread(classes[0]),
        }

    def mask(self, batch: Batch, view: int) -> Tensor:
        """Sec. 4.1: (B, N) bool, half of the samples with 10 to 50 % of their tokens."""
        scores = batch.uniform(f"mask of view {view}", self.backbone.num_tokens)
        return random_mask(scores, batch.uniform(f"share of view {view}", 2), **self.masks)

    @torch.no_grad()
    def teacher_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's scores (B, K) of the class token and (B, N, K) of the others; it sees everything."""
        backbone, head, prototypes = self.teacher.parts
        tokens = backbone.tokens(x)  # type: ignore[operator]
        return prototypes(head(tokens[:, 0])), prototypes(apply_to_tokens(head, tokens[:, self.backbone.prefix :]))

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(self.backbone, self.head, self.prototypes, momentum=momentum)
        self.centre.update(self.centre_momentum)
        self.token_centre.update(self.centre_momentum)
        self.prototypes.after_step(progress)
        self.teacher_temperature.after_step(progress)

    @property
    def eval_backbone(self) -> nn.Module:
        return self.teacher.parts[0]

    def assign(self, x: Tensor) -> Tensor:
        """Prototype assignment of the teacher's class token, with centering and sharpening."""
        return centered_softmax(self.teacher_scores(x)[0], self.centre.value, self.teacher_temperature.value)

    def details(self) -> dict[str, str]:
        return {"prototypes": str(len(self.prototypes.weight))}
