"""Base classes of backbones: a tensor in, one feature vector per sample out; token backbones also return token features.

`input_shape` is the shape of one sample of a view: (C, H, W) for images, (C, T) for series.
"""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.errors import RequestError
from sslcli.nn.likelihood import Likelihood
from sslcli.nn.values import Continuous, Values

FITS = {3: "images (C, H, W): convnet, resnet18, vit_tiny, mlp", 2: "series (C, T): tcn, vit_tiny, mlp"}


def expect_shape(name: str, input_shape: tuple[int, ...], *axes: int) -> None:
    """RequestError unless samples have one of these numbers of axes (3: images, 2: series), none of them empty."""
    shape = tuple(input_shape)
    if len(shape) not in axes:
        expected = " or ".join(FITS[a].split(":")[0] for a in axes)
        fit = FITS.get(len(shape))
        hint = f"backbones for {fit}; for example backbone={fit.split(': ')[1].split(',')[0]}" if fit else None
        raise RequestError(f"backbone {name} requires {expected}, but samples have shape {shape}", hint)
    if min(shape) < 1:
        raise RequestError(f"backbone {name} does not support samples of shape {shape}: an axis is empty")


class Backbone(nn.Module):
    """`forward(x)` maps (B, *input_shape) to (B, dim)."""

    dim: int
    input_shape: tuple[int, ...]
    values: Values = Continuous()  # what the numbers of a sample are; set by the builder

    def __init__(self, input_shape: tuple[int, ...]):
        super().__init__()
        self.input_shape = tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")


class TokenBackbone(Backbone):
    """A backbone on N tokens, some of which a method can mask.

    `patchify(x)`: (B, *input_shape) -> (B, N, P), the raw values of each token, the targets of reconstruction.
    `unpatchify(p)`: its inverse.
    `tokens(x)`: -> (B, prefix + n, dim) after the last norm. Before the blocks, `keep` (B, n) selects tokens, or the embeddings of
    tokens where `hidden` (B, N) is true are replaced by `mask_token` (dim); positional embeddings stay. `attend`
    (prefix + N, prefix + N) bool, or (B, ...): which tokens (columns) each token (row) may attend to.
    `depths(x)`: the tokens after each block, without the last norm.
    `prefix` is the number of leading tokens that are no patches (the class token); `grid` the arrangement of the N others.
    All but `unpatchify` accept smaller samples too (local views): N then depends on the sample.
    """

    num_tokens: int  # N, for samples of input_shape
    grid: tuple[int, ...]
    patch_dim: int  # P
    prefix: int

    def patchify(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def unpatchify(self, patches: Tensor) -> Tensor:
        raise NotImplementedError

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        hidden: Tensor | None = None,
        mask_token: Tensor | None = None,
        attend: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError

    def depths(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def present(self, x: Tensor) -> Tensor | None:
        """(B, N) bool: the tokens that hold any value, not padding alone. None where all of them always do."""
        return None

    def likelihood(self) -> Likelihood:
        """How a prediction of the values of tokens is judged, against `patchify`."""
        return self.values.likelihood(self.patch_dim)

    def attention(self, x: Tensor) -> Tensor:
        """(B, heads, N): the attention that each token receives in the last block, for explanations."""
        raise NotImplementedError

    def token_positions(self, dim: int) -> Tensor:
        """Fixed sine-cosine positional embeddings (prefix + N, dim) of the grid, for decoders of any width."""
        raise NotImplementedError
