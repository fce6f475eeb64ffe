"""Samples that a Python program passes: arrays, lists of samples or of paths, or the path of a file or folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcli.data.dataset import ArraySource, Dataset, Preprocessor, Source
from sslcli.data.user_files.samples import expand
from sslcli.inference.features import Block, FeatureExtractor
from sslcli.runtime.device import auto_precision
from sslcli.views.modality import modality


def described_by(preprocessor: Preprocessor, name: str) -> Dataset:
    """A data set without samples, which describes those of a preprocessor."""
    own, empty = preprocessor, ArraySource(torch.empty(0))
    return Dataset(name, own.kind, own.shape, train=empty, test=None, values=own.values, preprocessor=own)


@dataclass(frozen=True)
class GivenSamples:
    """source, dataset: the samples, and what describes them. names: the path of each, None for one in memory. unreadable: path ->
    reason, of files of which no sample is in the source. ids: their identifiers, where their file has a column of them."""

    source: Source
    dataset: Dataset
    names: Sequence[str | None]
    unreadable: Mapping[str, str]
    ids: Sequence[str] | None = None

    @classmethod
    def read(cls, samples: Any, preprocessor: Preprocessor, dataset: Dataset) -> GivenSamples:
        """`dataset`: describes samples of the preprocessor. DataError for samples of another type or shape."""
        if not isinstance(samples, str | Path):
            source = preprocessor.source(samples)
            given = cls(source, dataset, source.names or [None] * len(source), {})
        else:
            notes: list[str] = []
            found = modality(preprocessor.kind).read_files(expand([str(samples)]), preprocessor, notes)
            dataset = preprocessor.adapt(found.dataset, notes)
            named = dataset.id is not None
            names, ids = (found.paths, dataset.train.names) if named else (found.ids, None)
            given = cls(dataset.train, dataset, names, found.unreadable, ids)
        given.source.max_bad_fraction = 1.0  # unreadable samples are reported, and end nothing
        return given

    def blocks(self, module: nn.Module, batch_size: int) -> Iterator[Block]:
        """Features of a module, on its device, with the precision that is the default there."""
        device, kind = next(module.parameters()).device, modality(self.dataset.modality)
        channels_last = kind.channels_last and device.type in ("cpu", "cuda")
        if channels_last:
            module.to(memory_format=torch.channels_last)
        module.eval()
        threads = torch.get_num_threads()
        extractor = FeatureExtractor(module, device, auto_precision(device.type), channels_last, 0, threads, batch_size)
        return extractor.blocks(self.source, self.dataset)
