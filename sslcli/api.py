"""sslcli from Python: the same code as the commands, for scripts and notebooks.

    import sslcli

    run = sslcli.pretrain(method="simclr", dataset="digits", train={"epochs": 20})
    print(sslcli.evaluate(run, "knn")["top1"])
    features = sslcli.load(run).embed(images)  # (N, dim)

Options are those of the command line: groups by name (`method="byol"`), keys as dictionaries (`optimizer={"lr": 0.1}`) or as
override strings (`"optimizer.lr=0.1"`). Runs are folders like those of the commands: each reads the other's. Nothing is printed
on stdout; progress goes to stderr or a notebook's cell. Errors are exceptions derived from `SslError`, with a `message`, a `hint`
and the exit code (`code`) of the command. No signal handler is installed and the working folder does not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sslcli.backbones.base import Backbone
from sslcli.batch import Batch
from sslcli.config import compose
from sslcli.config.modalities import with_implied
from sslcli.config.overrides import allow_data_path, canonical, to_overrides
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.user_files.samples import EMPTY
from sslcli.errors import DataError, SslError
from sslcli.evals.metrics.interval import SUFFIX
from sslcli.inference.encoder import kept_classifier, open_trained
from sslcli.inference.features import ROWS, collect
from sslcli.inference.given_samples import GivenSamples, described_by
from sslcli.inference.predictions import Predictor
from sslcli.methods.base import Method
from sslcli.rng import Draw
from sslcli.runs import Record
from sslcli.runs.find import all_runs, find
from sslcli.runs.run import Run
from sslcli.runtime.folders import shorten
from sslcli.views import clean

__all__ = [
    "Backbone",
    "Batch",
    "Dataset",
    "Encoder",
    "Evaluation",
    "Method",
    "Run",
    "SslError",
    "evaluate",
    "list_runs",
    "load",
    "pretrain",
    "resume",
]


def pretrain(*overrides: str, **options: Any) -> Run:
    """Pretrain a backbone on unlabelled data; the same as `sslcli pretrain`.

    Args:
        *overrides: options as on the command line, such as `"train.epochs=20"`.
        **options: options by name: `method="simclr"`, `train={"epochs": 20}`.

    Returns:
        The finished run. Its folder is `run.path`; `run.metrics` are the lines of metrics.jsonl.

    Raises:
        RequestError: an option is invalid; no run folder has been created.
        SslError: any other error of the command, see `sslcli.errors`.
        KeyboardInterrupt: the run is marked as interrupted; `resume(run)` continues from its last checkpoint.
    """
    from omegaconf import OmegaConf

    from sslcli.training import configuration, setup
    from sslcli.training.pretrain import pretrain

    cfg = compose.compose("pretrain", with_implied(canonical([*overrides, *to_overrides(options)])))
    values = configuration.resolve(cfg)
    configuration.check_resume(cfg)
    configuration.check_learning_rate(values, cfg.hydra)
    prepared = setup.prepare(values)
    prepared.catch_signals = False
    request = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    files = compose.hydra_files(request, OmegaConf.masked_copy(cfg, ["hydra"]))
    how: dict[str, Any] = {"auto": cfg.resume == "auto", "numbered": compose.is_named_by_time(cfg.hydra)}
    return pretrain(prepared, shorten(compose.folder_of(cfg)), hydra_files=files, **how)


def resume(run: Run | str | Path, /, *overrides: str, **options: Any) -> Run:
    """Continue an interrupted run from its last valid checkpoint; the same as `sslcli resume`.

    Args:
        run: a run, the path of its folder, a unique prefix of its name, or `"latest"`.
        *overrides, **options: what may change when resuming: length (`train={"epochs": 40}`), device, loggers.
    """
    from sslcli.runs.identity import override_execution
    from sslcli.training.pretrain import resume

    opened = run if isinstance(run, Run) else Run.open(find(str(run)))
    cfg, given = opened.config, dict(o.partition("=")[::2] for o in [*overrides, *to_overrides(options)])
    extend = override_execution(cfg, given, str(opened.path), opened.path)
    data_path = str(cfg["dataset"]["path"]) if "dataset.path" in given else None
    resume(opened, cfg if given else None, extend=extend, data_path=data_path, catch_signals=False)
    return opened


def evaluate(run: Run | str | Path, name: str, /, *overrides: str, **options: Any) -> Evaluation:
    """Evaluate the frozen backbone of a run; the same as `sslcli eval NAME`. The result is saved in the run folder.

    Args:
        run: a run, the path of its folder, a unique prefix of its name, `"latest"`, or `"none"` for an untrained backbone.
        name: of an evaluator, as `sslcli list evals` prints them, such as `"probe"` or `"knn"`.
        *overrides, **options: `labels="10/class"`, `seeds=5`, `evaluator={"k": 5}`, `dataset="cifar10"`.

    Returns:
        The metrics with their protocol and intervals.
    """
    from sslcli.evals.base.request import evaluate_request
    from sslcli.training import configuration

    spec = str(run.path) if isinstance(run, Run) else str(run)
    given = [*to_overrides({"evaluator": name, "run": spec}), *overrides, *to_overrides(options)]
    cfg = compose.compose("eval", allow_data_path(canonical(given)))
    records = evaluate_request(configuration.resolve(cfg), name, list(cfg.hydra.overrides.task))
    return Evaluation(name, records[name])


def load(run: Run | str | Path) -> Encoder:
    """The trained backbone of a run, of a folder that `sslcli export` wrote, or of a pretrained encoder (`"hf:FOLDER"`).

    Raises:
        RequestError: there is no such run, or the pretrained encoder is not supported.
        TrainingError: it has no encoder yet, or its weights or its preprocessor do not match their SHA-256.
    """
    trained = open_trained(str(run.path) if isinstance(run, Run) else str(run))
    return Encoder(trained.module, trained.info, trained.preprocessor, trained.run)


def list_runs(folder: str | Path | None = None) -> list[Run]:
    """All runs, the oldest first. `folder`: only those below it."""
    opened = [Run(path) for path in all_runs()]
    return opened if folder is None else [r for r in opened if r.path.resolve().is_relative_to(Path(folder).resolve())]


runs = list_runs  # the name of earlier versions; `sslcli.runs` is a package


@dataclass(frozen=True)
class Evaluation(Mapping[str, float]):
    """The metrics of one evaluation: a mapping from the name of a metric to its value.

    Attributes:
        name: of the evaluator.
        record: what eval/NAME.json holds: `numbers`, `intervals`, `protocol` (splits, labels, notes), `details`, `artefacts`,
            `step`, `seed` and the hashes of weights, configuration and data.
    """

    name: str
    record: Record = field(repr=False)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each metric that has one, by the name of the metric."""
        return {key.removesuffix(SUFFIX): (low, high) for key, (low, high) in self.record.get("intervals", {}).items()}

    @property
    def protocol(self) -> Record:
        """How the metrics were computed: splits, numbers of samples and labels, hyper-parameters, notes."""
        return dict(self.record["protocol"])

    def __getitem__(self, key: str) -> float:
        return float(self.record["numbers"][key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.record["numbers"])

    def __len__(self) -> int:
        return len(self.record["numbers"])

    def __repr__(self) -> str:
        return f"Evaluation({self.name}: {', '.join(f'{k}={v:.4g}' for k, v in self.items())})"


class Encoder:
    """A trained backbone with the preprocessing that it was trained with.

    Attributes:
        module: the backbone, an `nn.Module` in evaluation mode, on the CPU; (B, *shape) float32 -> (B, dim).
        info: what encoder.json holds: backbone, input_shape, values, modality, data set, method, step.
        preprocessor: converts samples to the input of views, as those of the training were.
        run: the run that trained it; None for an exported folder or a pretrained encoder.
    """

    def __init__(self, module: nn.Module, info: Record, preprocessor: Preprocessor, run: Run | None = None):
        self.module, self.info, self.preprocessor, self.run = module, info, preprocessor, run
        self._clean = clean(self._as_dataset())

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.info["input_shape"]))
        return f"Encoder({type(self.module).__name__}, {shape} {self.info['modality']} -> {self.dim}, {self.info['dataset']})"

    @property
    def dim(self) -> int:
        """The length of a feature vector."""
        return int(self.info["dim"])

    def _as_dataset(self) -> Dataset:
        return described_by(self.preprocessor, self.info["dataset"])

    def transform(self, samples: Any) -> Tensor:
        """Raw samples as the backbone takes them: cropped and resized, scaled, normalized.

        Args:
            samples: images as uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), or a list of paths, PIL images or uint8 arrays
                (H, W, C), (C, H, W) or (H, W) of any sizes; series as numbers (N, C, T) or (N, T); rows of a table as
                dictionaries, or the path of a table; texts as strings; histories as lists of names of items, the latest last.

        Returns:
            (N, *input_shape) on the CPU: float32, or int64 ids of tokens.

        A PIL image is converted as its file is: more than 8 bits per value by `preprocessor.range`, transparency on black, the EXIF
        orientation applied. Two properties of a file are lost when PIL has loaded it, so that its path is the better input: the
        low bytes of 16 bits in color, and the faster decoding of a large JPEG at a fraction of its size, which differs slightly.

        Raises:
            DataError: samples of another type or shape, or a file that cannot be decoded.
        """
        return self._normalized(self.preprocessor.encode(samples))

    def _normalized(self, raw: Tensor | list[Any]) -> Tensor:
        """Clean views of raw samples."""
        draw = Draw(0, 0, torch.arange(len(raw)))
        if isinstance(raw, Tensor):
            return self._clean(raw, draw)[0]
        return self._clean.finish(self._clean.frames(raw, draw), draw)[0]

    def embed(self, samples: Any, batch_size: int = ROWS) -> Tensor:
        """Features of raw samples, see `transform`: (N, dim) float32 on the CPU, with the bits of `sslcli embed`.

        Args:
            samples: as of `transform`; or the path of a file of many samples, or of a folder. Empty texts are left out.
            batch_size: samples that are decoded at a time; it does not change the features.

        They are computed on the device of `module`, with the precision that is the default there.

        Raises:
            DataError: samples of another type or shape, or one that cannot be read.
        """
        given = GivenSamples.read(samples, self.preprocessor, self._as_dataset())
        for path, reason in given.unreadable.items():
            raise DataError(f"{path} cannot be read: {reason}")
        if not len(given.source):
            return torch.empty(0, self.dim)
        features, _, unreadable = collect(given.blocks(self.module, batch_size))
        unreadable = {index: reason for index, reason in unreadable.items() if reason != EMPTY}
        if unreadable:
            index, reason = next(iter(unreadable.items()))
            raise DataError(f"{given.source.name_of(index)} cannot be read: {reason}")
        return features

    def predict(
        self,
        samples: Any,
        classifier: Literal["probe", "finetune"] | None = None,
        threshold: float | None = None,
        batch_size: int = ROWS,
        probabilities: Literal["auto", "all", "top"] = "auto",
    ) -> list[Record]:
        """Classes of raw samples by the classifier of the run, the rows of `sslcli predict`.

        Args:
            samples: as of `embed`.
            classifier: that of the last `eval probe` or `eval finetune`; the newer one by default.
            threshold: `class` is None where its probability is lower.
            batch_size: samples that are decoded at a time; it does not change the rows.
            probabilities: all classes, or the top two alone; auto: all for up to 20 classes.

        Returns:
            For each sample a dictionary with the columns of the command: `path` (None for a sample in memory), `class`,
            `probability`, `runner_up`, `runner_up_probability`, `distance`, `error` for one that cannot be read, and
            `probability_CLASS` of each class; or `value` instead of the classes. The column of `dataset.id` comes first.

        Raises:
            RequestError: the run has no classifier: evaluate it with `sslcli.evaluate(run, "probe")`.
            TrainingError: the files of the classifier are damaged.
            DataError: samples of another type or shape.
        """
        predictor = Predictor(kept_classifier(self.run, classifier or ""), threshold, probabilities)
        tuned = predictor.classifier.backbone
        module = self.module if tuned is None else tuned.to(next(self.module.parameters()).device)
        given = GivenSamples.read(samples, self.preprocessor, self._as_dataset())
        predictor = replace(predictor, id=given.dataset.id)
        parts = predictor.predict(given.blocks(module, batch_size), given.names, given.unreadable, given.ids)
        return [dict(zip(predictor.columns, row, strict=True)) for part in parts for row in part]
