"""Features of a source in blocks of a fixed number of rows, so that their bits depend on nothing else.

The kernels of a matrix product are chosen by its shape and by the number of threads, and round differently. A block has always
ROWS rows, sample i is always row i % ROWS of block i // ROWS, rows without a readable sample are filled, and on a CPU one thread
computes a block, while others compute the next ones. So the features of a source are the same for any number of samples that are
decoded at a time, of workers, threads and processes, and when a computation is continued at a block.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sslcli.data.dataset import Dataset, Source
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.errors import TrainingError
from sslcli.evals.base.embedding import evaluating
from sslcli.nn.values import Continuous
from sslcli.nn.windows import mean_over_windows
from sslcli.runtime.device import autocast
from sslcli.runtime.thread_pool import ordered_map
from sslcli.views import clean, whole

ROWS = 64  # of a block


@dataclass(frozen=True)
class Block:
    """The features of the samples from ROWS * number on.

    ids: (m,) int64, those that could be read, ascending. features: (m, ...) float32 on the CPU. unreadable: id -> reason."""

    number: int
    ids: Tensor
    features: Tensor
    unreadable: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureExtractor:
    """Computes features with a module that is on `device`.

    precision: fp32 or bf16. channels_last: whether inputs have that memory format. workers: processes that decode samples.
    threads: blocks that a CPU computes at a time. batch_size: samples that are decoded at a time; it does not change the features.
    pool: from inputs (ROWS, *shape) to features (ROWS, ...); the module itself where it is None. windows: whether the
    features of samples that are longer than an input are the means over their windows."""

    module: nn.Module
    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False
    workers: int = 0
    threads: int = 1
    batch_size: int = ROWS
    pool: Callable[[Tensor], Tensor] | None = None
    windows: bool = True

    def blocks(self, source: Source, dataset: Dataset, first: int = 0, step: int = 1) -> Iterator[Block]:
        """The blocks `first`, `first + step`, ... of a source. `dataset`: describes its samples.

        TrainingError where features are not finite."""
        numbers = range(first, math.ceil(len(source) / ROWS), step)
        if not numbers:
            return
        ids = torch.cat([_ids(number, len(source)) for number in numbers])
        unreadable = _Unreadable(source)
        batches = iterate_batches(
            source,
            whole(dataset) if self.windows else clean(dataset),
            batch_size=self.batch_size,
            device=self.device,
            workers=self.workers,
            ids=ids,
            bad=unreadable,
        )
        with evaluating(self.module), _reproducible(self.device):
            inputs = assemble(batches, numbers, len(source))
            threads = self.threads if self.device.type == "cpu" else 1
            for number, ids, features in ordered_map(self._compute, inputs, threads, ahead=threads):
                missing = unreadable.take(_ids(number, len(source)), ids)
                if not bool(features.isfinite().all()):
                    raise TrainingError(
                        f"the features of {source.name_of(int(ids[0]))} or of a sample after it are not finite",
                        "the weights may contain NaN or Inf: train with a lower optimizer.lr",
                    )
                yield Block(number, ids, features, missing)

    @torch.no_grad()
    def _compute(self, block: tuple[int, Tensor, Tensor | None]) -> tuple[int, Tensor, Tensor]:
        number, ids, x = block
        if x is None:
            return number, ids, torch.empty(0)
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # of this thread of Python
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with autocast(self.device.type, self.precision):
            values = getattr(self.module, "values", Continuous())
            z = mean_over_windows(self.pool or self.module, x, values)
        return number, ids, z[(ids % ROWS).to(z.device)].float().cpu()


def _ids(number: int, n: int) -> Tensor:
    return torch.arange(number * ROWS, min((number + 1) * ROWS, n))


class _Unreadable(list[tuple[str, str]]):
    """Receives (name, reason) of samples that cannot be read, in the order of their ids."""

    def __init__(self, source: Source):
        super().__init__()
        self._source = source

    def take(self, wanted: Tensor, read: Tensor) -> dict[int, str]:
        """id -> reason of those of the samples `wanted` that are not among `read`, which are removed from the list."""
        missing = wanted[~torch.isin(wanted, read)].tolist()
        reasons = {i: self.pop(0) for i in missing}
        assert all(self._source.name_of(i) == name for i, (name, _) in reasons.items()), missing
        return {i: reason for i, (_, reason) in reasons.items()}


def assemble(
    batches: Iterable[tuple[Tensor, Tensor]], numbers: Iterable[int], n: int
) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    """Regroup batches of (ids (B,), inputs (B, ...)) with ascending ids: for each block its number, the ids (m,) of its samples and
    the inputs (ROWS, ...), None without any sample. Sample i is row i % ROWS; a row without one is a copy of the first sample."""
    rest: list[tuple[Tensor, Tensor]] = []
    incoming = iter(batches)
    for number in numbers:
        stop = min((number + 1) * ROWS, n)
        while not rest or int(rest[-1][0][-1]) < stop - 1:
            if (batch := next(incoming, None)) is None:
                break
            rest.append(batch)
        counts = [int((ids < stop).sum()) for ids, _ in rest]
        taken = [(ids[:k], x[:k]) for (ids, x), k in zip(rest, counts, strict=True) if k]
        rest = [(ids[k:], x[k:]) for (ids, x), k in zip(rest, counts, strict=True) if k < len(ids)]
        ids = torch.cat([part for part, _ in taken]) if taken else torch.empty(0, dtype=torch.int64)
        yield number, ids, _fill([x for _, x in taken], ids) if taken else None


def _fill(parts: list[Tensor], ids: Tensor) -> Tensor:
    if len(parts) == 1 and len(ids) == ROWS and parts[0].storage_offset() == 0:
        return parts[0]
    x = torch.cat(parts)
    out = x[:1].expand(ROWS, *x.shape[1:]).clone(memory_format=torch.contiguous_format)
    out[(ids % ROWS).to(x.device)] = x
    return out


@contextlib.contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """One thread for each kernel on a CPU; on a GPU no choice of kernels by their time."""
    before: Any = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before[1:]


def collect(blocks: Iterable[Block]) -> tuple[Tensor, Tensor, dict[int, str]]:
    """The features (m, ...) and ids (m,) of all samples that could be read, and id -> reason of the others."""
    parts = list(blocks)
    unreadable = {i: reason for block in parts for i, reason in block.unreadable.items()}
    readable = [block for block in parts if len(block.ids)]
    if not readable:
        return torch.empty(0), torch.empty(0, dtype=torch.int64), unreadable
    return torch.cat([b.features for b in readable]), torch.cat([b.ids for b in readable]), unreadable
