"""A batch as a method receives it: the views of its samples and their random numbers."""

from __future__ import annotations

from torch import Tensor

from sslcli.errors import RequestError
from sslcli.rng import Draw


class Batch:
    """B samples as views, and the random numbers a method may ask for.

    `views` are tensors (B, ...), in the order of the method's plan; `kinds` names each. The numbers from `uniform`,
    `normal` and `permutation` are functions of the sample, not of the device, the process or the batch size.
    """

    def __init__(self, views: list[Tensor], kinds: list[str], draw: Draw, labels: Tensor | None = None):
        assert len(views) == len(kinds), (len(views), kinds)
        self.views = views
        self.kinds = kinds
        self.draw = draw
        self.labels = labels  # None unless the method uses_labels

    def __len__(self) -> int:
        return len(self.draw.ids)

    @property
    def ids(self) -> Tensor:
        """(B,) int64: which samples these are."""
        return self.draw.ids

    def of(self, kind: str) -> list[Tensor]:
        """The views of one kind."""
        return [v for v, k in zip(self.views, self.kinds, strict=True) if k == kind]

    def expect_views(self, count: int, *kinds: str) -> list[Tensor]:
        """The `count` views of these kinds, if the plan holds exactly them; else a RequestError with what to type."""
        if len(self.kinds) != count or not set(self.kinds) <= set(kinds):
            views = "1 view" if count == 1 else f"{count} views"
            raise RequestError(
                f"this method takes exactly {views} of kind {' or '.join(kinds)}; the plan is {self._plan()}",
                "leave method.plan as it was" + (f": {{{kinds[0]}: {count}}}" if len(kinds) == 1 else ""),
            )
        return self.views

    def exactly(self, plan: dict[str, int]) -> Batch:
        """This batch, if it holds just so many views of each kind; else a RequestError."""
        if {k: self.kinds.count(k) for k in self.kinds} != plan:
            raise RequestError(
                f"the tasks take exactly {plan}; the plan is {self._plan()}", "leave method.plan as it was"
            )
        return self

    def _plan(self) -> str:
        return "{" + (", ".join(f"{k}: {self.kinds.count(k)}" for k in dict.fromkeys(self.kinds)) or "nothing") + "}"

    def crops(self) -> tuple[list[Tensor], list[Tensor]]:
        """The global views and the smaller local ones of a multi-crop plan: two global ones or more, any number of local
        ones; else a RequestError with what to type."""
        seen, small = self.of("global"), self.of("local")
        if len(seen) < 2 or len(seen) + len(small) < len(self.kinds):
            raise RequestError(
                f"this method takes at least 2 views of kind global, and local ones; the plan is {self._plan()}",
                "method.plan.local=6, or 0",
            )
        return seen, small

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape) in [0, 1)."""
        return self.draw.uniform(purpose, *shape)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """(B, *shape), standard normal."""
        return self.draw.normal(purpose, *shape)

    def permutation(self, purpose: str, n: int) -> Tensor:
        """(B, n) int64, an order of 0..n-1 for each sample."""
        return self.draw.permutation(purpose, n)
