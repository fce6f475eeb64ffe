"""Features of samples that are longer than the input of a backbone: the mean over their windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcli.nn.values import Tokens, Values


def mean_over_windows(network: Callable[[Tensor], Tensor], x: Tensor, values: Values) -> Tensor:
    """The features (B, d) of samples, from inputs as `views.whole` makes them.

    Args:
        network: from inputs (B, *shape) to features (B, d).
        x: (B, *shape), whose features are those of the network; or sequences of tokens in W windows, (B, W, L), whose features
            are the mean over the windows, weighted by the number of their tokens. Windows without tokens are not computed, except
            for the first of a sample. At most B windows are computed at a time, so that long samples take no more memory.
        values: what the numbers of `x` are."""
    if not isinstance(values, Tokens) or x.ndim != 3:
        return network(x)
    count = values.present(x).sum(dim=2)  # (B, W)
    if int(count[:, 1:].sum()) == 0:
        return network(x[:, 0])
    count[:, 0].clamp_(min=1)
    used = count.flatten().nonzero()[:, 0]
    z = torch.cat([network(part) for part in x.flatten(0, 1)[used].split(len(x))])
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    each = z.new_zeros(count.numel(), z.shape[1]).index_copy_(0, used, z).unflatten(0, count.shape)  # (B, W, d)
    weights = (count / count.sum(dim=1, keepdim=True)).to(z.dtype)
    return (each * weights[:, :, None]).sum(dim=1)
