"""What every evaluator measures on: frozen features of the labelled splits, computed once.

An evaluator is a function of a backbone and an `EvalData`; it returns a `Result` and knows nothing of the trainer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.dataset import Dataset, Source
from sslcli.data.label_warnings import HOW_TO_LABEL, data_warnings
from sslcli.data.loading import evaluation
from sslcli.errors import DataError, RequestError, TrainingError
from sslcli.evals.base.result import Baselines, has_baseline
from sslcli.evals.inputs.feature_cache import Store, raw_bytes
from sslcli.methods.base import Method
from sslcli.nn.dist import broadcast_from_rank0, gather_rows, rank, world_size
from sslcli.rng import derive
from sslcli.runtime.progress import track
from sslcli.views import Views, clean

Split = Literal["train", "test"]
Context = Callable[[], AbstractContextManager[Any]]
Labelled = tuple[Tensor, Tensor]  # (n, d) float32, (n,) int64 with -1 where there is no label

RAW_SIDE = 32  # pictures as baseline inputs are area-averaged to at most 32 x 32
RAW_NUMBERS = 3072  # signals to at most this many numbers
_FORMAT = 1  # of the cache files; raise it when features would change


class EvalData:
    """A data set as evaluators see it: features and raw inputs of its splits, with labels.

    - `cache`: a folder for features, or None. A file is used only if weights, data, precision and its checksum agree.
    - `key`: a name for the weights, part of the file's name; the weights are hashed too, so a wrong key does no harm.
    - `seed`: of the labelled subsets that evaluators draw.
    - `untrained`: makes a backbone of the same kind with random weights, others for each `untrained(draw)`; None leaves that
      baseline out (as when it is what is measured).
    - `autocast`: entered around each forward pass.
    - `recipes`: the augmentation of the pretraining, for what is measured on views; see `augmented`.
    - `pretraining`: makes the whole method with its heads, in eval mode on `device`, and the views of its plan; None where
      nothing was trained.
    - `trained_on`: the name of the data set that the backbone learned from, where it is another one than this; else "".
    - `notes`: what had to be decided about the data; each evaluator puts it into its protocol.
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
        autocast: Context = nullcontext,
        channels_last: bool = False,
        batch_size: int = 512,
        recipes: Mapping[str, Any] | None = None,
        pretraining: Callable[[], tuple[Method, Views]] | None = None,
        trained_on: str = "",
    ):
        self.dataset, self.device, self.workers, self.seed = dataset, torch.device(device), workers, seed
        self.notes: list[str] = data_warnings(dataset)
        if dataset.test is None:
            n = f"{len(dataset.train):,}"
            self.notes.append(
                f"nothing is held out: what is measured are all {n} samples, which pretraining may have read"
            )
        self.store = Store(Path(cache), self.notes) if cache is not None else None
        self.key, self.untrained, self.autocast, self.channels_last = key, untrained, autocast, channels_last
        self.batch_size, self.recipes, self.pretraining, self.trained_on = batch_size, recipes, pretraining, trained_on
        self._features: dict[str, tuple[Tensor, Tensor]] = {}
        self._raw: dict[str, tuple[Tensor, Tensor]] = {}
        self._ids: dict[str, Tensor] = {}
        self._random: nn.Module | None = None

    @property
    def random(self) -> nn.Module | None:
        """The untrained backbone, made once."""
        if self._random is None and self.untrained is not None:
            self._random = self.untrained().to(self.device)
        return self._random

    def source(self, split: Split) -> Source:
        """A split; DataError where there is none."""
        if split == "train":
            return self.dataset.train
        if self.dataset.test is None:
            if self.unlabelled:
                raise DataError(
                    f"{self.dataset.name} has no labels to measure with",
                    f"{HOW_TO_LABEL}; quality, cluster and anomaly need no labels: sslcli eval quality",
                )
            if len(self.dataset.classes) == 1:  # with a split held out there would still be nothing to tell apart
                raise DataError(
                    f"{self.dataset.name} holds 1 class: 2 at least are needed to tell apart",
                    f"{HOW_TO_LABEL}; quality, cluster and anomaly need no classes: sslcli eval quality",
                )
            raise DataError(
                f"{self.dataset.name} has no test split to measure on",
                "set dataset.holdout=0.2 to hold out a fifth of it",
            )
        return self.dataset.test

    def features(self, backbone: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        """Features (n, d) float32 and labels (n,) int64 (-1 where there is none), on the CPU, in the source's order.

        The backbone must lie on `device`; its training flags are as before afterwards. Samples that cannot be read are
        left out. Raises TrainingError where features are not finite.
        """
        source = self.source(split)
        mark = self._mark(backbone, split)
        if mark not in self._features:
            found = self.store.load(mark) if self.store else None
            if found is None:
                if world_size() > 1:
                    broadcast_from_rank0((backbone is self._random, split))
                found = self.compute(backbone, split)
                if self.store:
                    self.store.save(mark, *found)
            x, ids = found
            bad = int((~torch.isfinite(x)).any(dim=1).sum())
            if bad:
                raise TrainingError(
                    f"the features of {bad} of {len(x)} {split} samples are not finite",
                    "the weights have gone bad: evaluate an earlier checkpoint, or train with a lower optimizer.lr",
                )
            self._note_missing(split, len(x), len(source))
            self._ids[split] = ids
            self._features[mark] = x, _labels(source, ids)
        return self._features[mark]

    def compute(self, backbone: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
        """Features and ids of a split, nothing cached; each process computes its share, and has all."""
        source = self.source(split)
        wanted = torch.arange(len(source))
        batches = _clean_batches(source, self.dataset, self.device, self.workers, self.batch_size, share(wanted))
        return _collect(embed(backbone, batches, self.autocast, self.channels_last), wanted)

    def serve(self, backbone: nn.Module) -> None:
        """What the other processes do while rank 0 evaluates: their share of all features, until `dismiss`."""
        while (asked := broadcast_from_rank0(None)) is not None:
            of_untrained, split = asked
            subject = self.random if of_untrained else backbone
            assert subject is not None
            self.compute(subject, split)

    def dismiss(self) -> None:
        """Rank 0 needs no more features."""
        broadcast_from_rank0(None)

    def raw(self, split: Split) -> tuple[Tensor, Tensor]:
        """Inputs as the backbone sees them, flattened, with labels: what a linear model has without any backbone.

        Pictures are area-averaged down to at most 32 x 32, signals to at most 3,072 numbers in all.
        """
        if split not in self._raw:
            source = self.source(split)
            batches = _clean_batches(source, self.dataset, torch.device("cpu"), self.workers, self.batch_size)
            x, ids = _fill(((ids, flat(x)) for ids, x in batches), len(source))
            self._ids[split] = ids
            self._raw[split] = x, _labels(source, ids)
        return self._raw[split]

    def batches(self, split: Split, ids: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """(ids (B,), inputs (B, *shape) normalised, on `device`) of a split, or of some of its samples in their order."""
        return _clean_batches(self.source(split), self.dataset, self.device, self.workers, self.batch_size, ids)

    def inputs(self, split: Split, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (m, *shape) of some samples, as the backbone sees them but on the CPU, and their ids (m,): for few."""
        found = [(part, x.cpu()) for part, x in self.batches(split, ids)]
        if not found:
            raise DataError(
                f"none of the {len(ids)} {split} samples that were to be shown can be read", "sslcli data inspect"
            )
        return torch.cat([x for _, x in found]), torch.cat([part for part, _ in found])

    def pictures(self, split: Split, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The same for people: images in 0..1, series in their own units."""
        x, ids = self.inputs(split, ids)
        return clean(self.dataset).restore([x])[0], ids

    def augmented(
        self, backbone: nn.Module, ids: Tensor, views: int, split: Split = "train", kind: str = "global"
    ) -> tuple[Tensor, Tensor]:
        """Features (m, views, d) of `views` augmented views of some samples, and their ids (m,). A function of `seed`."""
        if not self.recipes:
            raise RequestError("there is no augmentation to make views with", "measure a run that was trained on views")
        maker = Views({kind: views}, self.recipes, self.dataset)
        source = self.source(split)
        batches = evaluation.iterate_views(
            source,
            maker,
            batch_size=max(1, self.batch_size // views),
            device=self.device,
            workers=self.workers,
            ids=ids,
            seed=derive(self.seed, "views"),
        )
        found = []
        for part, several in batches:
            z = embed(backbone, ((part, x) for x in several), self.autocast, self.channels_last)
            found.append((part, torch.stack([vectors.cpu() for _, vectors in z], dim=1)))
        return torch.cat([z for _, z in found]), torch.cat([part for part, _ in found])

    def labels(self, split: Split) -> Tensor:
        """(n,) int64 of all samples of a split, -1 where there is none."""
        source = self.source(split)
        return _labels(source, torch.arange(len(source)))

    def ids(self, split: Split) -> Tensor:
        """(n,) int64: which samples the rows of `features` and `raw` are, once one of them was asked for."""
        return self._ids[split]

    def groups(self, split: Split) -> Tensor | None:
        """(n,) int64: the group (recording, patient) of each row of `features` and `raw`; None where samples have none."""
        groups = self.source(split).groups
        return None if groups is None else groups[self.ids(split)]

    @property
    def shown(self) -> Split:
        """Of what needs no label: the test split, or where nothing is held out the training split."""
        return "test" if self.dataset.test is not None else "train"

    @property
    def unlabelled(self) -> bool:
        """Whether no sample has a label."""
        parts = (self.dataset.train, self.dataset.test)
        return not any(p is not None and p.labels is not None and bool((p.labels >= 0).any()) for p in parts)

    def _note_missing(self, split: str, n: int, of: int) -> None:
        if n < of:
            self.notes.append(f"{of - n} of {of} {split} samples could not be read and were left out")

    def measured(self, backbone: nn.Module, baselines: Baselines) -> dict[str, Callable[[Split], Labelled]]:
        """What is measured, by split: "" is the backbone, "raw" and "untrained" are the baselines beside it."""
        kinds: dict[str, Callable[[Split], Labelled]] = {"": lambda split: self.features(backbone, split)}
        if has_baseline(baselines, "raw"):
            kinds["raw"] = self.raw
        if has_baseline(baselines, "untrained") and (random := self.random) is not None:
            kinds["untrained"] = lambda split: self.features(random, split)
        return kinds

    def remarks(self, baselines: Baselines, own: list[str]) -> list[str]:
        """The `notes` of a protocol: what was found in the data, which baseline is missing, and an evaluator's own."""
        notes = [*self.notes, *own]
        if not baselines:
            notes.append("baselines were not measured (evaluator.baselines=false)")
        elif isinstance(baselines, str):
            notes.append(f"the only baseline measured is {baselines} (evaluator.baselines={baselines})")
        if has_baseline(baselines, "untrained") and self.untrained is None:
            notes.append("no untrained baseline: what is measured is itself an untrained backbone")
        return list(dict.fromkeys(notes))

    # cache ---------------------------------------------------------------------------------------------------------

    def _mark(self, backbone: nn.Module, split: Split) -> str:
        """A name for these features: the caller's key, and a hash of all that decides them."""
        d = self.dataset
        h = hashlib.sha256()
        about: tuple[Any, ...] = (
            _FORMAT,
            d.name,
            d.fingerprint,
            d.shape,
            d.mean,
            d.std,
            split,
            len(self.source(split)),
        )
        if d.split:  # other samples may be held out of the same files
            about = (*about, d.split)
        if d.details.get("range") is not None:  # the same files scaled otherwise
            about = (*about, d.details["range"])
        kind = self.device.type
        with self.autocast():
            precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        h.update(repr((*about, precision, self.channels_last, kind, repr(backbone))).encode())
        for name, tensor in backbone.state_dict().items():
            h.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            h.update(raw_bytes(tensor))
        key = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.key)[:40]
        return f"{key or 'features'}-{split}-{len(self.source(split))}-{h.hexdigest()[:20]}"


def embed(
    backbone: nn.Module,
    batches: Iterator[tuple[Tensor, Tensor]],
    autocast: Context = nullcontext,
    channels_last: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, inputs) to (ids, features float32), in eval mode and without gradients, one batch at a time."""
    with evaluating(backbone):
        for ids, x in batches:
            if channels_last and x.ndim == 4:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.no_grad(), autocast():
                z = backbone(x)
            assert z.shape[:-1] == (len(ids),), (tuple(z.shape), len(ids))
            yield ids, z.float()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every sub-module has the training flag it had (some may be frozen on purpose)."""
    flags = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, training in flags.items():
            m.training = training


def flat(x: Tensor) -> Tensor:
    """(B, C, H, W) or (B, C, T) to (B, numbers), averaged down as `RAW_SIDE` and `RAW_NUMBERS` say.

    NaN (padding) does not enter an average; where there is nothing else the number is 0, the mean of normalised data.
    """
    known = ~torch.isnan(x)
    channels = x.shape[1] if x.ndim > 2 else 1
    limit = RAW_SIDE if x.ndim == 4 else max(1, RAW_NUMBERS // channels)
    sizes = tuple(min(side, limit) for side in x.shape[2:])
    if sizes != tuple(x.shape[2:]):
        pool = F.adaptive_avg_pool2d if x.ndim == 4 else F.adaptive_avg_pool1d
        share = pool(known.float(), sizes)  # type: ignore[arg-type]
        x = pool(x.nan_to_num(0.0), sizes) / share.clamp(min=1e-6)  # type: ignore[arg-type]
    return x.nan_to_num(0.0).flatten(1)


def sample(
    backbone: nn.Module,
    dataset: Dataset,
    ids: Tensor,
    *,
    device: str | torch.device,
    workers: int = 0,
    autocast: Context = nullcontext,
    channels_last: bool = False,
    batch_size: int = 512,
) -> tuple[Tensor, Tensor]:
    """Features (m, d) of some *training* samples, and their ids (m,); nothing is cached."""
    batches = _clean_batches(dataset.train, dataset, torch.device(device), workers, batch_size, share(ids))
    return _collect(embed(backbone, batches, autocast, channels_last), ids)


def share(ids: Tensor) -> Tensor:
    """This process's part of a piece of work."""
    return ids[rank() :: world_size()]


def _clean_batches(
    source: Source, dataset: Dataset, device: torch.device, workers: int, batch_size: int, ids: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    batches = evaluation.iterate_batches(
        source, clean(dataset), batch_size=batch_size, device=device, workers=workers, ids=ids
    )
    return track(batches, "samples", len(source if ids is None else ids), size=lambda batch: len(batch[0]))


def _collect(batches: Iterator[tuple[Tensor, Tensor]], wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors and ids of all processes' batches, in the order of `wanted`; what could not be read is missing."""
    rows, ids = _fill(batches, len(share(wanted)))
    if world_size() == 1:
        return rows, ids
    rows, ids = gather_rows(rows), gather_rows(ids)
    position = torch.empty(int(wanted.max()) + 1, dtype=torch.int64)
    position[wanted] = torch.arange(len(wanted))
    order = position[ids].argsort()
    return rows[order], ids[order]


def _fill(batches: Iterator[tuple[Tensor, Tensor]], at_most: int) -> tuple[Tensor, Tensor]:
    """Vectors (n, d) float32 and ids (n,) of all batches, written into place so that memory never doubles."""
    rows: Tensor | None = None
    ids = torch.empty(at_most, dtype=torch.int64)
    n = 0
    for batch, z in batches:
        if rows is None:
            rows = torch.empty(at_most, z.shape[1])
        rows[n : n + len(z)] = z
        ids[n : n + len(z)] = batch
        n += len(z)
    if rows is None:
        raise DataError("there is nothing to measure: no sample could be read", "sslcli data inspect")
    return (rows, ids) if n == at_most else (rows[:n].clone(), ids[:n].clone())


def _labels(source: Source, ids: Tensor) -> Tensor:
    return torch.full_like(ids, -1) if source.labels is None else source.labels[ids].to(torch.int64)
