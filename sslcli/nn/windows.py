"""Features of samples that are longer than the input of a backbone: the mean over their windows."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sslcli.nn.values import Tokens, Values


def mean_over_windows(network: Callable[[Tensor], Tensor], x: Tensor, values: Values) -> Tensor:
    """The features (B, d) of samples, from inputs as `views.whole` makes them.

    Args:
        network: from inputs (B, *shape) to features (B, d).
        x: (B, *shape), whose features are those of the network; or sequences of tokens in W windows, (B, W, L), whose features
            are the mean over the windows, weighted by the number of their tokens. Windows without tokens are not computed, except
            for the first of a sample.
        values: what the numbers of `x` are."""
    if not isinstance(values, Tokens) or x.ndim != 3:
        return network(x)
    count = values.present(x).sum(dim=2)  # (B, W)
    if int(count[:, 1:].sum()) == 0:
        return network(x[:, 0])
    count[:, 0].clamp_(min=1)
    used = count.flatten().nonzero()[:, 0]
    z = network(x.flatten(0, 1)[used])
    weights = (count / count.sum(dim=1, keepdim=True)).flatten()[used].to(z.dtype)
    sample = used // x.shape[1]
    return z.new_zeros(len(x), *z.shape[1:]).index_add_(0, sample, z * weights[:, None])
