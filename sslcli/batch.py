"""A batch of samples as a method receives it: their views, and random numbers that are functions of the sample."""

from __future__ import annotations

from torch import Tensor

from sslcli.errors import RequestError
from sslcli.rng import Draw


class Batch:
    """Views of B samples, with a random number generator per sample.

    `views` are tensors (B, ...), in the order of the method's plan; `kinds` names the kind of each. `uniform`, `normal` and
    `permutation` are functions of the sample, independent of device, process and batch size.
    """

    def __init__(
        self,
        views: list[Tensor],
        kinds: list[str],
        draw: Draw,
        labels: Tensor | None = None,
        captions: Tensor | None = None,
    ):
        assert len(views) == len(kinds), (len(views), kinds)
        self.views = views
        self.kinds = kinds
        self.draw = draw
        self.labels = labels  # None unless the method uses_labels
        self.captions = captions  # (B, L) int64 ids of tokens; None unless the method uses_captions

    def __len__(self) -> int:
        return len(self.draw.ids)

    @property
    def ids(self) -> Tensor:
        """(B,) int64: indices of the samples in the pretraining data."""
        return self.draw.ids

    def of_kind(self, kind: str) -> list[Tensor]:
        """The views of one kind."""
        return [v for v, k in zip(self.views, self.kinds, strict=True) if k == kind]

    def expect_views(self, count: int, *kinds: str) -> list[Tensor]:
        """All views, which must be exactly `count` of these kinds. RequestError where the plan differs."""
        if len(self.kinds) != count or not set(self.kinds) <= set(kinds):
            views = "1 view" if count == 1 else f"{count} views"
            raise RequestError(
                f"this method takes exactly {views} of kind {' or '.join(kinds)}; the plan is {self._plan()}",
                "remove the override of method.plan" + (f": {{{kinds[0]}: {count}}}" if len(kinds) == 1 else ""),
            )
        return self.views

    def many_views(self, kind: str) -> list[Tensor]:
        """All views, which must be at least two, all of this kind. RequestError where the plan differs."""
        if len(self.kinds) < 2 or set(self.kinds) != {kind}:
            raise RequestError(
                f"this method takes at least 2 views, all of kind {kind}; the plan is {self._plan()}",
                f"method.plan={{{kind}: 4}}",
            )
        return self.views

    def expect_plan(self, plan: dict[str, int]) -> Batch:
        """This batch, which must have exactly these numbers of views. RequestError where the plan differs."""
        if {k: self.kinds.count(k) for k in self.kinds} != plan:
            raise RequestError(
                f"the tasks take exactly {plan}; the plan is {self._plan()}", "remove the override of method.plan"
            )
        return self

    def _plan(self) -> str:
        return "{" + (", ".join(f"{k}: {self.kinds.count(k)}" for k in dict.fromkeys(self.kinds)) or "nothing") + "}"

    def crops(self) -> tuple[list[Tensor], list[Tensor]]:
        """Global and local views of a multi-crop plan: at least two global ones, any number of local ones. RequestError where the
        plan differs."""
        global_views, local_views = self.of_kind("global"), self.of_kind("local")
        if len(global_views) < 2 or len(global_views) + len(local_views) < len(self.kinds):
            raise RequestError(
                f"this method takes at least 2 views of kind global, and local ones; the plan is {self._plan()}",
                "method.plan.local=6, or 0",
            )
        return global_views, local_views

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform random numbers (B, *shape) in [0, 1), named by `purpose`."""
        return self.draw.uniform(purpose, *shape)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal random numbers (B, *shape)."""
        return self.draw.normal(purpose, *shape)

    def permutation(self, purpose: str, n: int) -> Tensor:
        """Random permutations (B, n) int64 of 0..n-1, one per sample."""
        return self.draw.permutation(purpose, n)
