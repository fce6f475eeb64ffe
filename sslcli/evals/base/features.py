"""The data of an evaluation: features and raw inputs of the labeled splits, computed once.

An evaluator is a function of a backbone and an `EvalData` that returns a `Result`; it does not depend on the trainer.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcli.data.dataset import Dataset, Source
from sslcli.data.label_warnings import HOW_TO_LABEL, data_warnings, held_out_notes
from sslcli.data.loading import evaluation
from sslcli.errors import DataError, RequestError, TrainingError
from sslcli.evals.base.embedding import (
    Context,
    clean_batches,
    concatenate,
    embed,
    embed_views,
    gather_features,
    local_ids,
    sample_batches,
)
from sslcli.evals.base.result import Baselines, has_baseline
from sslcli.evals.inputs.baseline_backbones import BaselineBackbones
from sslcli.evals.inputs.feature_cache import FeatureCache, cache_key
from sslcli.methods.base import Method
from sslcli.nn.dist import broadcast_from_rank0, world_size
from sslcli.rng import derive
from sslcli.runtime.device import autocast_dtype
from sslcli.views import Views
from sslcli.views.modality import Baseline, RawFeatures, Samples, modality

Split = Literal["train", "test"]
Labelled = tuple[Tensor, Tensor]  # features (n, d) float32, labels (n,) int64 with -1 for none


class EvalData:
    """A data set as evaluators see it: features and raw inputs of its splits, with labels.

    - `cache`: a folder for features, or None. A file is used only if weights, data, precision and its signature match.
    - `key`: a name for the weights, in the file name. The weights are hashed too, so a wrong key does no harm.
    - `seed`: of the labeled subsets that evaluators draw.
    - `untrained`: makes a backbone of the same architecture with random weights, different ones for each
      `untrained(draw)`. None leaves that baseline out, as when the evaluated backbone is itself untrained.
    - `given`: makes the backbone with the weights that the pretraining started from (`init`); None where they were random.
    - `autocast`: entered around each forward pass; `training_autocast`: around those of networks in training (default: the same).
    - `recipes`: the augmentation of the pretraining, for evaluators that use views; see `augmented`.
    - `pretraining`: makes the whole method with its heads, in eval mode on `device`, and the views of its plan; None without one.
      `untrained_method`: the same method with random weights. `given_method`: that of `init` with its heads; returns None if none.
    - `trained_on`: the data set of the pretraining where it is another one than this, else empty.
    - `notes`: facts about the data, for each protocol.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: str | torch.device = "cpu",
        workers: int = 0,
        cache: Path | None = None,
        key: str = "",
        seed: int = 0,
        *,
        untrained: Callable[..., nn.Module] | None = None,
        given: Callable[[], nn.Module] | None = None,
        autocast: Context = nullcontext,
        training_autocast: Context | None = None,
        channels_last: bool = False,
        batch_size: int = 512,
        recipes: Mapping[str, Any] | None = None,
        pretraining: Callable[[], tuple[Method, Views]] | None = None,
        untrained_method: Callable[[], Method] | None = None,
        given_method: Callable[[], Method | None] | None = None,
        trained_on: str = "",
    ):
        self.dataset, self.device, self.workers, self.seed = dataset, torch.device(device), workers, seed
        self.notes: list[str] = [*data_warnings(dataset), *held_out_notes(dataset)]
        self.cache = FeatureCache(Path(cache), self.notes) if cache is not None else None
        self.key, self.untrained, self.autocast, self.channels_last = key, untrained, autocast, channels_last
        self.training_autocast = training_autocast or autocast
        self.windowed = modality(dataset.modality).windows(dataset) is not None
        self.batch_size, self.recipes, self.trained_on = batch_size, recipes, trained_on
        self.pretraining, self.untrained_method, self.given_method = pretraining, untrained_method, given_method
        self._features: dict[str, tuple[Tensor, Tensor]] = {}
        self._raw: dict[str, tuple[Tensor, Tensor]] = {}
        self._raw_features: RawFeatures | None = None
        self._samples: dict[str, tuple[Samples, Tensor]] = {}
        self._ids: dict[str, Tensor] = {}
        self.field_baselines: dict[str, Baseline] | None = None  # of the modality: see `inputs/baselines.py`
        self.backbones = BaselineBackbones({"untrained": untrained, "given": given}, self.device, self.notes)

    @property
    def untrained_backbone(self) -> nn.Module | None:
        """The backbone with random weights that is the baseline, made once; None where there is none."""
        return self.backbones.get("untrained")

    def source(self, split: Split) -> Source:
        """The samples of a split. Raises DataError where the data set has no such split."""
        if split == "train":
            return self.dataset.train
        if self.dataset.test is None:
            if self.unlabeled:
                raise DataError(
                    f"{self.dataset.name} has no labels, which this evaluator requires",
                    f"{HOW_TO_LABEL}; quality, cluster and anomaly need no labels: sslcli eval quality",
                )
            if len(self.dataset.classes) == 1 and self.dataset.task == "classes":  # a held-out split would not help
                raise DataError(
                    f"{self.dataset.name} has 1 class: at least 2 are required",
                    f"{HOW_TO_LABEL}; quality, cluster and anomaly need no classes: sslcli eval quality",
                )
            raise DataError(
                f"{self.dataset.name} has no test split to evaluate on",
                "set dataset.holdout=0.2 to hold out a fifth of it",
            )
        return self.dataset.test

    def features(self, backbone: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        """Features (n, d) float32 and labels (n,) int64 (-1 for none), on the CPU, in the order of the source.

        The backbone must be on `device`. Samples that cannot be read are left out. TrainingError where features are not finite.
        """
        source = self.source(split)
        key = self.cache_key(backbone, split)
        if key not in self._features:
            cached = self.cache.load(key) if self.cache else None
            if cached is None:
                if world_size() > 1:
                    broadcast_from_rank0((self.backbones.name_of(backbone), split, self.windowed))
                cached = self.compute_features(backbone, split)
                if self.cache:
                    self.cache.save(key, *cached)
            x, ids = cached
            bad = int((~torch.isfinite(x)).any(dim=1).sum())
            if bad:
                raise TrainingError(
                    f"the features of {bad} of {len(x)} {split} samples are not finite",
                    "the weights may contain NaN or Inf: train with a lower optimizer.lr",
                )
            if missing := len(source) - len(x):
                self.notes.append(f"{missing} of {len(source)} {split} samples could not be read and were left out")
            self._ids[split] = ids
            self._features[key] = x, _labels(source, ids)
        return self._features[key]

    def compute_features(self, backbone: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        """Features (n, d) and ids (n,) of a split, without the cache. Each process computes its share and gets all."""
        ids = torch.arange(len(self.source(split)))
        batches = self.batches(split, local_ids(ids), windows=True)
        return gather_features(embed(backbone, batches, self.autocast, self.channels_last), ids)

    def serve_features(self, backbone: nn.Module) -> None:
        """Run on ranks above 0: computes this rank's share of every split that rank 0 needs, until `stop_serving`."""
        while (request := broadcast_from_rank0(None)) is not None:
            role, split, windowed = request
            model = self.backbones.get(role) if role else backbone
            assert model is not None
            (self if windowed else self.without_windows()).compute_features(model, split)

    def stop_serving(self) -> None:
        """Run on rank 0: ends `serve_features` on the other ranks."""
        broadcast_from_rank0(None)

    def raw(self, split: Split) -> tuple[Tensor, Tensor]:
        """The modality's raw features (n, p), with labels (n,): what a linear model has without any backbone."""
        if split not in self._raw:
            source = self.source(split)
            features = self.raw_features
            batches = sample_batches(source, self.dataset, self.workers, self.batch_size)
            x, ids = concatenate(((ids, features.transform(x)) for ids, x in batches), len(source))
            self._ids[split] = ids
            self._raw[split] = x, _labels(source, ids)
        return self._raw[split]

    @property
    def raw_features(self) -> RawFeatures:
        """The modality's raw features, fitted to the training split."""
        if self._raw_features is None:
            self._raw_features = modality(self.dataset.modality).raw_features(self.dataset)
            batches = sample_batches(self.dataset.train, self.dataset, self.workers, self.batch_size)
            self._raw_features.fit(x for _, x in batches)
        return self._raw_features

    def batches(
        self, split: Split, ids: Tensor | None = None, windows: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids (B,), inputs (B, *shape) normalized, on `device`) of a split, or of its samples `ids` in their order. With
        `windows`, all windows of samples that are longer, (B, W, *shape), as `embed` takes them."""
        source, windows = self.source(split), windows and self.windowed
        return clean_batches(source, self.dataset, self.device, self.workers, self.batch_size, ids, windows)

    def without_windows(self) -> EvalData:
        """The same data, with features of clean views alone, for evaluators that change or explain these."""
        (data := copy.copy(self)).windowed, data._features = False, {}
        return data

    def inputs(self, split: Split, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Normalized inputs (m, *shape) of a few samples, on the CPU, and the ids (m,) of those that could be read."""
        batches = [(part, x.cpu()) for part, x in self.batches(split, ids)]
        if not batches:
            raise DataError(f"none of the {len(ids)} {split} samples to show can be read", "sslcli data inspect")
        return torch.cat([x for _, x in batches]), torch.cat([part for part, _ in batches])

    def augmented(
        self, backbone: nn.Module, ids: Tensor, views: int, split: Split = "train", kind: str = "global"
    ) -> tuple[Tensor, Tensor]:
        """Features (m, views, d) of `views` augmented views of the samples `ids`, and their ids (m,). A function of `seed`."""
        if not self.recipes:
            raise RequestError("there is no augmentation to make views with", "evaluate a run trained on views")
        batches = evaluation.iterate_views(
            self.source(split),
            Views({kind: views}, self.recipes, self.dataset),
            batch_size=max(1, self.batch_size // views),
            device=self.device,
            workers=self.workers,
            ids=ids,
            seed=derive(self.seed, "views"),
        )
        return embed_views(backbone, batches, self.autocast, self.channels_last)

    def labels(self, split: Split) -> Tensor:
        """Labels (n,) int64 of all samples of a split, -1 for none."""
        source = self.source(split)
        return _labels(source, torch.arange(len(source)))

    def samples(self, split: Split) -> tuple[Samples, Tensor]:
        """All samples of a split for baselines of the modality, on the CPU, and their ids (n,): whole ones, or clean views."""
        if split not in self._samples:
            source = self.source(split)
            ids = torch.arange(len(source))
            whole = modality(self.dataset.modality).whole(source, ids, self.dataset)
            self._samples[split] = self.inputs(split, ids) if whole is None else (whole, ids)
        return self._samples[split]

    def ids(self, split: Split) -> Tensor:
        """Ids (n,) int64 of the rows of `features` and `raw`, after one of these has been computed."""
        return self._ids[split]

    def groups(self, split: Split) -> Tensor | None:
        """Group (n,) int64 (recording, patient) of each row of `features` and `raw`, or None where samples have no groups."""
        groups = self.source(split).groups
        return None if groups is None else groups[self.ids(split)]

    @property
    def eval_split(self) -> Split:
        """The split that evaluators without labels use: test, or train where there is no test split."""
        return "test" if self.dataset.test is not None else "train"

    @property
    def unlabeled(self) -> bool:
        """Whether no sample of any split has a label, or a value to predict."""
        parts = (self.dataset.train, self.dataset.test)
        if self.dataset.task == "value":
            return not any(p is not None and bool(p.targets["value"].isfinite().any()) for p in parts)
        return not any(p is not None and p.labels is not None and bool((p.labels >= 0).any()) for p in parts)

    def feature_sets(self, backbone: nn.Module, baselines: Baselines) -> dict[str, Callable[[Split], Labelled]]:
        """By name, features and labels of a split: "" are those of the backbone, the others of baselines."""
        kinds: dict[str, Callable[[Split], Labelled]] = {"": lambda split: self.features(backbone, split)}
        if has_baseline(baselines, "raw"):
            kinds["raw"] = self.raw
        for name, module in self.backbones.wanted(baselines).items():
            kinds[name] = functools.partial(self.features, module)
        return kinds

    def protocol_notes(self, baselines: Baselines, notes: list[str]) -> list[str]:
        """The `notes` of a protocol: facts about the data, an evaluator's own `notes`, and which baseline is missing."""
        notes = [*self.notes, *notes]
        if not baselines:
            notes.append("baselines were not evaluated (evaluator.baselines=false)")
        elif isinstance(baselines, str):
            notes.append(f"the only baseline is {baselines} (evaluator.baselines={baselines})")
        if has_baseline(baselines, "untrained") and self.untrained is None:
            notes.append("no untrained baseline: the evaluated backbone is itself untrained")
        return list(dict.fromkeys(notes))

    def cache_key(self, backbone: nn.Module, split: Split) -> str:
        """A name for the features of a split, with a hash of everything that determines them."""
        kind = self.device.type
        execution = (
            autocast_dtype(self.autocast, kind),
            self.channels_last,
            kind,
            *(["windows"] if self.windowed else []),
        )
        return cache_key(self.key, backbone, self.dataset, split, len(self.source(split)), execution)


def _labels(source: Source, ids: Tensor) -> Tensor:
    return torch.full_like(ids, -1) if source.labels is None else source.labels[ids].to(torch.int64)
