"""What a model said of each test sample: kept beside the numbers, so that two runs can be compared sample by sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sslcli.checkpoint import safetensors
from sslcli.disk import checked, replace_file
from sslcli.errors import DataError

FILE = "predictions.safetensors"  # the artefact's name: eval/NAME_predictions.safetensors


@dataclass
class Predictions:
    """Of m test samples in `draws` draws of labelled samples: ids (m,), truth (m,), predicted (draws, m), int64 each."""

    ids: Tensor
    truth: Tensor
    predicted: Tensor
    caption: str = field(default="what was predicted for each test sample", repr=False)

    def __post_init__(self) -> None:
        assert self.ids.shape == self.truth.shape == self.predicted.shape[1:], (self.ids.shape, self.predicted.shape)

    def save(self, path: Path) -> None:
        tensors = {"ids": self.ids, "truth": self.truth, "predicted": self.predicted}
        replace_file(path.parent, path.name, safetensors({k: v.to(torch.int64) for k, v in tensors.items()}))


def read(run: Path, name: str) -> Predictions:
    """What `save` wrote into a file of a run (`eval/probe_predictions.safetensors`). DataError where it is absent or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(checked(run, name))
        kept = {key: found[key] for key in ("ids", "truth", "predicted")}
        assert all(v.dtype == torch.int64 for v in kept.values()), "not whole numbers"
        assert kept["predicted"].ndim == 2, "not draws of samples"
        assert len(kept["predicted"]) > 0, "no draw"
        return Predictions(**kept)
    except (OSError, SafetensorError, KeyError, AssertionError) as e:
        raise DataError(
            f"{run / name} cannot be read: {e}", "measure the run again: sslcli eval NAME run=RUN"
        ) from None
