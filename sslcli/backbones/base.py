"""Base classes of backbones: a tensor in, one feature vector per sample out; token backbones also return token features.

`input_shape` is the shape of one sample of a view: (C, H, W) for images, (C, T) for series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from torch import Tensor, nn

from sslcli.config import instantiate, registry
from sslcli.errors import RequestError
from sslcli.nn.likelihood import Likelihood
from sslcli.nn.unpadding import select_rows
from sslcli.nn.values import Continuous, Values

SAMPLES = {  # kind of values, number of axes -> what samples look like
    ("continuous", 2): "series (C, T)",
    ("continuous", 3): "images or spectrograms (C, H, W)",
    ("continuous", 4): "clips (C, T, H, W)",
    ("tokens", 1): "sequences of tokens (L)",
    ("columns", 1): "rows of a table (F)",
}


class Backbone(nn.Module):
    """`forward(x)` maps (B, *input_shape) to (B, dim).

    `accepts`: kind of values -> numbers of axes of a sample, such as {"continuous": (3,)} for images; empty for anything. The
    constructor of a backbone of other than continuous values names `values` and passes them on.
    Some backbones have more: `channel_features(x)`, (B, C, d) of each channel of a series, from which `eval forecast` predicts it;
    `maps(x)`, (B, T, D, h, w) of each frame of a clip, which `next_frame` takes; `token_embedding`, the embeddings of ids.
    RequestError from the constructor for other samples, or an empty axis."""

    accepts: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    dim: int
    input_shape: tuple[int, ...]
    frozen: tuple[str, ...] = ()  # modules that stay in evaluation mode; see `layers.freeze`
    values: Values = Continuous()  # what the numbers of a sample are; set by the builder

    def __init__(self, input_shape: tuple[int, ...], values: Values | None = None):
        super().__init__()
        self.input_shape = tuple(input_shape)
        if values is not None:
            self.values = values
        self.check_samples(self.input_shape, self.values)

    def set_values(self, values: Values) -> None:
        """What the numbers of a sample are, from the builder, after the constructor."""
        self.values = values

    @classmethod
    def check_samples(cls, shape: tuple[int, ...], values: Values) -> None:
        """RequestError, with the backbones that fit, unless the class accepts samples of `shape`, none of whose axes is empty."""
        kind, axes = values.kind, len(shape)
        if cls.accepts and axes not in cls.accepts.get(kind, ()):
            accepted = [SAMPLES.get((k, n), f"{k} of {n} axes") for k, many in cls.accepts.items() for n in many]
            samples = SAMPLES.get((kind, axes), kind)
            message = f"backbone {cls.__name__} requires {' or '.join(accepted)}, but samples have shape {tuple(shape)}"
            others = matching(kind, shape)
            hint = f"backbones for {samples}: {', '.join(others)}; for example backbone={others[0]}" if others else None
            raise RequestError(message, hint)
        if min(shape) < 1:
            raise RequestError(
                f"backbone {cls.__name__} does not support samples of shape {tuple(shape)}: an axis is empty"
            )

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).train(False)
        return self

    def position_tables(self) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Tables of positional embeddings (1, extra + N, D) that can be interpolated, by the name of the parameter: their `extra`
        first rows, which belong to no patch, and the grid of the N others."""
        return {}


def matching(kind: str, shape: tuple[int, ...], base: type[Backbone] = Backbone) -> list[str]:
    """The backbones (YAML files) of a class derived from `base` that take samples of this kind of values and shape."""
    files = {name: registry.describe(path, "backbone") for name, path in registry.choices("backbone").items()}
    classes = {name: instantiate.resolve("backbone", node["_target_"]) for name, node in files.items()}
    return [
        name
        for name, kind_of_net in classes.items()
        if isinstance(kind_of_net, type)
        and issubclass(kind_of_net, base)
        and len(shape) in kind_of_net.accepts.get(kind, ())
    ]


class TokenBackbone(Backbone):
    """A backbone on N tokens, some of which a method can mask.

    `patchify(x)`: (B, *input_shape) -> (B, N, P), the raw values of each token, the targets of reconstruction.
    `unpatchify(p)`: its inverse.
    `tokens(x)`: -> (B, prefix + n, dim) after the last norm. Before the blocks, `keep` (B, n) selects tokens, or the embeddings of
    tokens where `hidden` (B, N) is true are replaced by `mask_token` (dim); positional embeddings stay. `attend`
    (prefix + N, prefix + N) bool, or (B, ...): which tokens (columns) each token (row) may attend to.
    `tokens_at(x, where)`: of the N tokens those where (B, N) is true, (n, dim), in the order of a mask.
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

    def tokens_at(self, x: Tensor, where: Tensor) -> Tensor:
        return select_rows(self.tokens(x)[:, self.prefix :], where)

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
