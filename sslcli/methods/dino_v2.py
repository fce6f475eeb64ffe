"""DINOv2: iBOT with Sinkhorn-Knopp centering, separate heads for class and patch tokens, and KoLeo regularization.

Oquab et al., "DINOv2: Learning Robust Visual Features without Supervision", TMLR 2024. https://arxiv.org/abs/2304.07193
B batch of this process, N tokens, P bottleneck width, K prototypes, V views, the first G of them global. Sinkhorn-Knopp and the
nearest neighbors use the global batch. The EMA teacher is evaluated, by its class token (backbone.pool=cls). Deviations from the
authors' code: those of ibot.py (schedules by progress, random masks, batch norm in the heads); KoLeo searches neighbors in the
global batch, theirs in that of one GPU; the techniques of Sec. 4 for scale (layer scale, stochastic depth, high resolution at the
end) are left to backbone and user.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.methods.base import Batch, Method
from sslcli.nn.centering import LinearWarmup
from sslcli.nn.dist import gather, rank
from sslcli.nn.ema import Teacher, cosine_momentum
from sslcli.nn.heads import Width, gelu_head
from sslcli.nn.masking import exclude_padding, random_mask
from sslcli.nn.precision import full_precision
from sslcli.nn.prototypes import Prototypes, apply_to_tokens, cross_view_loss, effective_prototypes, masked_token_loss
from sslcli.nn.sinkhorn import sinkhorn
from sslcli.nn.stats import spread


class DINOv2(Method):
    min_loss = -math.inf  # KoLeo's logarithm
    requires = frozenset({"views", "positions"})
    compares = True

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
        iterations: int = 3,
        koleo: float = 0.1,
        frozen: float = 0.01,
        tau: float = 0.99,
        tau_end: float = 1.0,
    ):
        super().__init__(backbone)
        hidden = self.head_width(hidden_dim, 2048)
        width = self.head_width(proj_dim, 256)
        widths = (self.backbone.dim, hidden, hidden, width)
        self.head, self.token_head = (
            gelu_head(*widths, norm=norm),
            gelu_head(*widths, norm=norm),
        )  # "untying head weights"
        self.prototypes = Prototypes(width, prototypes, frozen)
        self.token_prototypes = Prototypes(width, prototypes, frozen)
        self.mask_token = nn.Parameter(torch.zeros(self.backbone.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.teacher = Teacher(*self.students())
        self.teacher_temperature = LinearWarmup(teacher_temperature, teacher_temperature_end, warmup)
        self.masks = {"p": mask_chance, "low": mask_low, "high": mask_high}
        self.temperature, self.iterations, self.koleo = temperature, iterations, koleo
        self.tau, self.tau_end = tau, tau_end

    def students(self) -> list[nn.Module]:
        return [self.backbone, self.head, self.prototypes, self.token_head, self.token_prototypes]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        global_views, local_views = batch.crops()
        features, student, teacher_class, teacher_tokens, masks = [], [], [], [], []
        for i, x in enumerate(global_views):
            masks.append(self.mask(batch, i, x))  # (B, N)
            tokens = self.backbone.tokens(x, hidden=masks[i], mask_token=self.mask_token)
            features.append(tokens[:, 0])  # (B, dim)
            tokens = apply_to_tokens(self.token_head, tokens[:, self.backbone.prefix :])
            student.append(self.token_prototypes(tokens) / self.temperature)  # (B, N, K)
            class_scores, token_scores = self.teacher_scores(x)
            teacher_class.append(class_scores)
            teacher_tokens.append(token_scores)
        z = [self.head(h) for h in features] + [
            self.head(self.backbone.tokens(x)[:, 0]) for x in local_views
        ]  # V x (B, P)
        targets = self.assignments(torch.stack(teacher_class))  # (G, B, K)
        class_loss = cross_view_loss(torch.stack([self.prototypes(one) for one in z]) / self.temperature, targets)
        mask = torch.stack(masks)  # (G, B, N)
        labels = self.assignments(torch.stack(teacher_tokens), mask)  # (G, B, N, K)
        token_loss = masked_token_loss(torch.cat(student), labels.flatten(0, 1), mask.flatten(0, 1))
        koleo = torch.stack([koleo_loss(h) for h in features]).sum()  # of each crop, as in the code
        terms = {"class_token": class_loss.detach(), "tokens": token_loss.detach(), "koleo": koleo.detach()}
        loss = class_loss + token_loss + self.koleo * koleo
        return {"loss": loss, **terms, "used": effective_prototypes(targets[0]), "spread": spread(z[0])}

    def mask(self, batch: Batch, view: int, x: Tensor) -> Tensor:
        """(B, N) bool: with the defaults, 10 to 50 % of the tokens of half of the samples; padding is never masked."""
        scores = batch.uniform(f"mask of view {view}", self.backbone.num_tokens)
        hidden = random_mask(scores, batch.uniform(f"share of view {view}", 2), **self.masks)
        return exclude_padding(hidden, self.backbone.present(x))

    @torch.no_grad()
    def teacher_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's prototype scores (B, K) of the class token and (B, N, K) of the patch tokens, without masking."""
        backbone, head, prototypes, token_head, token_prototypes = self.teacher.parts
        tokens = backbone.tokens(x)  # type: ignore[operator]
        others = token_prototypes(apply_to_tokens(token_head, tokens[:, self.backbone.prefix :]))
        return prototypes(head(tokens[:, 0])), others

    def assignments(self, scores: Tensor, where: Tensor | None = None) -> Tensor:
        """Sec. 4, "Sinkhorn-Knopp centering": (..., K) scores -> (..., K), jointly over all views, restricted to rows where
        `where` (...) is true."""
        weights = None if where is None else where.flatten().to(scores.dtype)
        out = sinkhorn(scores.flatten(0, -2), self.teacher_temperature.value, self.iterations, weights)
        return out.view(scores.shape)

    def after_step(self, progress: float) -> None:
        momentum = cosine_momentum(progress, self.tau, self.tau_end)
        self.teacher.update(*self.students(), momentum=momentum)
        self.prototypes.after_step(progress)
        self.token_prototypes.after_step(progress)
        self.teacher_temperature.after_step(progress)

    @property
    def eval_backbone(self) -> nn.Module:
        return self.teacher.parts[0]

    def assign(self, x: Tensor) -> Tensor:
        """Sharpened prototype assignment of the teacher's class token."""
        return (self.teacher_scores(x)[0] / self.teacher_temperature.value).softmax(dim=1)

    def details(self) -> dict[str, str]:
        return {"prototypes": f"{len(self.prototypes.weight)} in each"}


@full_precision
def koleo_loss(x: Tensor) -> Tensor:
    """Sec. 4, "KoLeo regularizer" (Sablayrolles et al., ICLR 2019, eq. (4)): - log of the distance of each (B, D) direction
    to its nearest neighbor in the global batch, averaged, which spreads features uniformly."""
    x = F.normalize(x, dim=1, eps=1e-8)
    all_x = gather(x)  # (N, D)
    index = rank() * len(x) + torch.arange(len(x), device=x.device)
    with torch.no_grad():
        nearest = (x @ all_x.T).scatter(1, index[:, None], -2.0).argmax(dim=1)
    return -(F.pairwise_distance(x, all_x[nearest], eps=1e-8) + 1e-8).log().mean()
