"""MiniROCKET: 84 fixed kernels at many dilations, and the share of positions at which each exceeds a bias.

Dempster, Schmidt & Webb, "MiniRocket: A very fast (almost) deterministic transform for time series classification", KDD 2021
(arXiv:2012.08791). Several channels are those of the authors' multivariate code: each kernel and dilation sums a random subset. Two
deviations, for series of several lengths: each is convolved as if zeros followed it, and the dilations are those of the longest
one; a kernel without padding that is longer than a series gives 0.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LENGTH = 9  # taps of a kernel: three have the weight 2, six have -1
TRIPLES = tuple(itertools.combinations(range(LENGTH), 3))  # the taps with the weight 2 of the 84 kernels
PER_KERNEL = 119  # features: 84 x 119 = 9,996, the paper's "10,000"
DIM = len(TRIPLES) * PER_KERNEL
MAX_DILATIONS = 32
BLOCK = 1 << 16  # values that are convolved at a time


def dilations(steps: int) -> dict[int, int]:
    """The number of features of each dilation for series of `steps` steps: 2^0, ..., 2^log2((steps - 1) / 8) (Sec. 3.2)."""
    longest = max(0.0, float(np.log2(max(1, steps - 1) / (LENGTH - 1))))
    exact = np.logspace(0, longest, MAX_DILATIONS, base=2).astype(np.int32)
    values, counts = np.unique(exact, return_counts=True)
    number = (counts * (PER_KERNEL / MAX_DILATIONS)).astype(np.int64)
    for i in range(PER_KERNEL - int(number.sum())):
        number[i % len(number)] += 1
    return dict(zip(values.tolist(), number.tolist(), strict=True))


def quantiles(n: int) -> Tensor:
    """A low-discrepancy sequence in (0, 1): multiples of the golden ratio, modulo 1."""
    return torch.from_numpy(np.arange(1, n + 1) * ((np.sqrt(5) + 1) / 2) % 1)


@dataclass(frozen=True)
class Kernels:
    """The kernels of one dilation: their biases (84, q), and the channels that each sums."""

    dilation: int
    padded: list[bool]
    channels: list[list[int]]
    biases: Tensor = field(default_factory=lambda: torch.empty(0))


class MiniRocket:
    """The transform of series (n, C, T) without missing values, of `steps` (n,) steps each, to (n, 9996) float32."""

    def __init__(self, x: Tensor, steps: Tensor, seed: int = 0):
        """Fit the biases to quantiles of the convolutions of training series, a random one for each kernel and dilation."""
        generator = np.random.default_rng(seed)
        self.layers: list[Kernels] = []
        sequence = quantiles(DIM)
        for index, (dilation, number) in enumerate(dilations(int(steps.max())).items()):
            kernels = Kernels(
                dilation,
                [(index + k) % 2 == 0 for k in range(len(TRIPLES))],
                [_channels(x.shape[1], generator) for _ in TRIPLES],
            )
            biases = torch.empty(len(TRIPLES), number)
            for k, row in enumerate(generator.integers(len(x), size=len(TRIPLES)).tolist()):
                end = int(steps[row])
                taps = _Taps(x[row : row + 1, :, :end], dilation)
                levels, sequence = sequence[:number], sequence[number:]
                convolved = taps.convolve(k, kernels.channels[k])[0].double()
                biases[k] = torch.quantile(convolved, levels).float()
            self.layers.append(Kernels(dilation, kernels.padded, kernels.channels, biases))

    def transform(self, x: Tensor, steps: Tensor) -> Tensor:
        out = torch.empty(len(x), DIM)
        order = steps.argsort(stable=True)
        for rows in order.split(max(1, BLOCK // x.shape[2])):
            longest = int(steps[rows].max())
            ends = steps[rows]
            parts = []
            masked = _end_with_zeros(x[rows, :, :longest], ends)
            for layer in self.layers:
                taps = _Taps(masked, layer.dilation)
                parts += [_proportions(taps, k, layer, ends) for k in range(len(TRIPLES))]
            out[rows] = torch.cat(parts, dim=1)
        return out


def _channels(count: int, generator: np.random.Generator) -> list[int]:
    """A random subset of the channels, of 1 to 9: sizes are uniform in their logarithm."""
    if count == 1:
        return [0]
    size = int(2 ** generator.uniform(0, np.log2(min(count, 9) + 1)))
    return sorted(generator.choice(count, size, replace=False).tolist())


def _end_with_zeros(x: Tensor, ends: Tensor) -> Tensor:
    beyond = torch.arange(x.shape[2]) >= ends[:, None]
    return x.masked_fill(beyond[:, None], 0.0) if bool(beyond.any()) else x


class _Taps:
    """Series (n, C, T) shifted by the nine taps of a dilation, with zeros around."""

    def __init__(self, x: Tensor, dilation: int):
        reach = dilation * (LENGTH // 2)
        wide = F.pad(x, (reach, reach))
        self.shifted = [wide[..., j * dilation : j * dilation + x.shape[2]] for j in range(LENGTH)]
        self.minus = -torch.stack(self.shifted).sum(dim=0)

    def convolve(self, kernel: int, channels: list[int]) -> Tensor:
        """(n, T): weights -1 and 2 are -1 everywhere, and 3 more at three taps."""
        a, b, c = (self.shifted[j] for j in TRIPLES[kernel])
        if len(channels) == 1:
            of = channels[0]
            return (a[:, of] + b[:, of]).add_(c[:, of]).mul_(3).add_(self.minus[:, of])
        return (a[:, channels] + b[:, channels] + c[:, channels]).mul_(3).add_(self.minus[:, channels]).sum(dim=1)


def _proportions(taps: _Taps, kernel: int, layer: Kernels, ends: Tensor) -> Tensor:
    """(n, q): the share of positions above each bias; without padding, of positions where the whole kernel is inside."""
    convolved = taps.convolve(kernel, layer.channels[kernel])
    margin = 0 if layer.padded[kernel] else layer.dilation * (LENGTH // 2)
    if int(ends.min()) == convolved.shape[1]:
        inside = convolved[:, margin : convolved.shape[1] - margin]
        count = torch.full((len(ends),), float(inside.shape[1]))
    else:
        steps = torch.arange(convolved.shape[1])
        outside = (steps < margin) | (steps >= ends[:, None] - margin)
        inside = convolved.masked_fill_(outside, -torch.inf)
        count = (ends - 2 * margin).float()
    above = [(inside > bias).sum(dim=1) for bias in layer.biases[kernel]]
    return torch.stack(above, dim=1) / count.clamp(min=1)[:, None]
