"""`pool=`: which vector, or vectors, of a backbone with tokens are the features of a sample."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sslcli.backbones.base import TokenBackbone
from sslcli.errors import RequestError

POOLS = ("mean", "cls", "tokens", "items", "shared")


def pooling(module: nn.Module, pool: str | None) -> Callable[[Tensor], Tensor] | None:
    """A function from inputs (B, *shape) to features; None for those of the backbone itself.

    - mean: the mean (B, dim) of the tokens that are not padding; of a backbone without tokens, what it pools itself.
    - cls: the class token (B, dim). RequestError for a backbone without one.
    - tokens: all tokens (B, N, dim) but the class token; 0 at padding. RequestError for a backbone without tokens.
    - shared: that of the module, which maps samples to the space that they share with captions (`shared_space.py`).
    - items: of samples of one token, its embedding (B, dim), without position or context."""
    if pool in (None, "shared") or (pool == "mean" and not isinstance(module, TokenBackbone)):
        return None
    if pool not in POOLS:
        raise RequestError(f"pool={pool}: expected {', '.join(POOLS)}", "pool=mean")
    name = type(module).__name__
    if not isinstance(module, TokenBackbone):
        raise RequestError(f"pool={pool}: the backbone {name} has no tokens", "leave pool= out")
    if pool == "cls" and not hasattr(module, "pool"):
        raise RequestError(f"pool=cls: the backbone {name} has no class token", "pool=mean")

    if pool == "items":
        embedding = getattr(module, "token_embedding", None)
        if embedding is None:
            raise RequestError(f"pool=items: the backbone {name} has no embeddings of items", "leave pool= out")
        return lambda x: embedding(x[:, 0])

    def pooled(x: Tensor) -> Tensor:
        tokens = module.tokens(x)
        if pool == "cls":
            return tokens[:, 0]
        tokens, present = tokens[:, module.prefix :], module.present(x)
        if present is None:
            return tokens.mean(dim=1) if pool == "mean" else tokens
        tokens = tokens * present[:, :, None].to(tokens.dtype)
        return tokens.sum(dim=1) / present.sum(dim=1, keepdim=True).clamp(min=1) if pool == "mean" else tokens

    return pooled
