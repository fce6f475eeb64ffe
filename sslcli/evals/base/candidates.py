"""Candidates of `sslcli select`: runs, or the checkpoints of one, with the evaluations of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.config import Config, instantiate
from sslcli.errors import DataError, RequestError, StorageError, listing
from sslcli.runs import Record, records, results
from sslcli.runs.files import read_json
from sslcli.runs.find import RESERVED, all_runs, find, short_name
from sslcli.runs.run import Run, require_done
from sslcli.runtime import folders

if TYPE_CHECKING:
    from sslcli.data.dataset import Dataset
    from sslcli.evals.base.evaluated_model import EvaluatedModel

Fingerprints = Mapping[str, str]  # of the data: by file of labels that replace theirs, and `all` for every other choice


@dataclass
class Candidate:
    """A run's encoder, or one of its checkpoints."""

    run: Run
    cfg: Config
    checkpoint: Path | None = None
    quality: Record = field(default_factory=dict)  # records as in eval/NAME.json
    probe: Record = field(default_factory=dict)
    probe_name: str = "probe"  # name of the result
    save_error: Exception | None = None  # why a result could not be written

    @property
    def step(self) -> int:
        if self.checkpoint is not None:
            return int(self.checkpoint.name.partition("-")[2])
        return int(records.encoder(self.run.path).get("step", 0))

    @property
    def label(self) -> str:
        return self.checkpoint.name if self.checkpoint is not None else short_name(self.run.path)

    @property
    def sha256(self) -> str:
        """Hash of the weights; of a checkpoint, of its manifest."""
        if self.checkpoint is not None:
            return str(read_json(self.checkpoint, "manifest.json").get("sha256", ""))
        return str(records.encoder(self.run.path).get("sha256", ""))

    @property
    def prefix(self) -> str:
        """Prefix of the file names of a checkpoint's results."""
        return "" if self.checkpoint is None else f"checkpoints/{self.checkpoint.name}_"

    def known(self, fingerprints: Fingerprints) -> dict[str, results.SavedResult]:
        """Saved results of these weights on these data, by name."""
        by_name = results.saved_results(self.run.path, self.prefix)
        return {
            name: result
            for name, result in by_name.items()
            if result.record.get("sha256") == self.sha256
            and result.record.get("fingerprint") == fingerprints.get(result.labels, fingerprints["all"])
        }


def find_candidates(words: list[str]) -> list[Candidate]:
    """Runs given by path, name, pattern or folder of a sweep; for a single run, its checkpoints."""
    if not words:
        raise RequestError("missing argument: RUN", "sslcli select RUN RUN ..., the folder of a sweep, or one RUN")
    paths: list[Path] = []
    for word in words:
        several = _find_several(word)
        if several is None:
            run = Run.open(find(word))
            if len(words) > 1:
                require_done(run)
            several = [run.path]
        paths += several
    paths = list({p.resolve(): p for p in paths}.values())
    runs = [Run.open(p) for p in paths]
    if len(runs) == 1:
        return list_checkpoints(runs[0])
    return [Candidate(run, run.valid_config) for run in runs]


def _find_several(word: str) -> list[Path] | None:
    """The runs with an encoder that match a pattern or are in a folder; None where `word` is neither."""
    root = folders.runs_root()
    if any(c in word for c in "*?["):
        runs = [p for base in (Path(), root) for p in _glob(base, word) if (p / "status.json").is_file()]
    else:
        places = (Path(word), root / word, root / "sweep" / word)
        if any((f / "status.json").is_file() for f in places) or word in RESERVED:
            return None
        folder = next((f for f in places if f.is_dir() and not (f / "encoder.json").is_file()), None)
        if folder is None:
            return None
        runs = [p.parent for p in folder.glob("*/status.json")] or all_runs(folder)
    runs = sorted(p for p in set(runs) if not p.is_symlink())
    done = [p for p in runs if (p / "encoder.safetensors").exists()]
    if left := [p.name for p in runs if p not in done]:
        console.warn(f"{len(left)} runs of {word} have no encoder yet and are left out: {listing(left, 5)}")
    if not done:
        raise RequestError(f"there is no run with an encoder in {word}", "`sslcli runs` lists them")
    return done


def _glob(base: Path, pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_absolute():
        base, pattern = Path(path.anchor), str(path.relative_to(path.anchor))
    return list(base.glob(pattern))


def list_checkpoints(run: Run) -> list[Candidate]:
    """The valid checkpoints of a run, oldest first. RequestError for fewer than two."""
    from sslcli.runs import checkpoint

    checkpoints = []
    for path in reversed(checkpoint.existing(run.path / "checkpoints")):
        if (reason := checkpoint.verify(path)) is None:
            checkpoints.append(Candidate(run, run.valid_config, path))
        else:
            console.warn(f"{path.name} is left out: {reason}")
    if len(checkpoints) < 2:
        count = "one checkpoint" if checkpoints else "no checkpoint"
        raise RequestError(
            f"{run.path} has {count}: two or more are needed",
            "train.keep=10 train.save_every=100 keeps more during training; or give several runs",
        )
    return checkpoints


def require_same_data(candidates: list[Candidate], labels: object = "all", allow_change: bool = False) -> Fingerprints:
    """The fingerprints of the data that all candidates share, also with the files of labels that `labels` and their results name.

    RequestError where they differ: metrics on different samples do not compare. DataError where the data are not what a run
    was trained on, unless `allow_change`."""
    from sslcli.builders import load_dataset
    from sslcli.data.record import read_record

    prints: dict[str, tuple[str, Candidate]] = {}
    shared: Fingerprints = {}
    for c in candidates:
        record = read_record(c.run, allow_change=allow_change)
        key = json.dumps([c.cfg["dataset"], record.known], sort_keys=True, default=str)
        if key not in prints:
            dataset = load_dataset(c.cfg, record, download=False)
            prints[key] = f"{dataset.fingerprint} {dataset.shape}", c
            shared = shared or _fingerprints(dataset, candidates, labels)
    (first, a), *others = prints.values()
    for other, b in others:
        if other != first:
            raise RequestError(
                f"{short_name(a.run.path)} and {short_name(b.run.path)} differ in their data: their metrics do not compare",
                "select among runs of one data set and size",
            )
    return shared


def _fingerprints(dataset: Dataset, candidates: list[Candidate], labels: object) -> Fingerprints:
    from sslcli.evals.inputs.label_file import apply_label_file, is_file, with_label_fingerprint

    named = {r.labels for c in candidates for r in results.saved_results(c.run.path, c.prefix).values()}
    prints = {"all": dataset.fingerprint}
    for file in sorted(name for name in {*named, str(labels)} if is_file(name)):
        try:
            prints[file] = with_label_fingerprint(apply_label_file(dataset, file)[0]).fingerprint
        except (DataError, RequestError) as e:
            if file == str(labels):
                raise
            console.warn(f"results with labels={file} are left out: {e.message}")
    return prints


def evaluate_candidate(c: Candidate, name: str, values: Config, fingerprints: Fingerprints) -> Record:
    """The record of evaluator `name`: the saved one where weights, data, draws and settings are equal, else a new one."""
    from sslcli.evals.artefacts.predictions import FILE
    from sslcli.evals.base import evaluation

    node = values["evaluator"]
    name = results.result_name(name, node.get("labels", "all"))
    if (known := find_record(c, name, fingerprints)) and known.get("draws") == values["seed"]:
        theirs = known.get("evaluator") or {}
        if _settings(theirs) == _settings(instantiate.without_facts("evaluator", node)):
            return known
    subject = load_candidate(c, values)
    evaluation.say_held_out(subject, [node])
    about = evaluation.provenance(subject, node, values, c.cfg)
    result = evaluation.run_evaluator(node, subject)
    record = json.loads(json.dumps(evaluation.make_record(result, about), default=str))
    try:
        if c.checkpoint is None:
            with evaluation.attach_loggers(c.run, values, c.cfg, c.step):
                evaluation.save(name, result, record, c.run)
        else:
            folder = c.run.make_folder("eval/checkpoints")
            results.make_room(c.run.path, name, c.prefix)
            if (predictions := result.artefacts.get(FILE)) is not None:
                predictions.save(folder / f"{c.checkpoint.name}_{name}_{FILE}")
            c.run.save_eval(c.prefix + name, record)
    except (OSError, StorageError) as e:  # raised when the ranking has been printed
        c.save_error = e
    return record


def _settings(evaluator: Record) -> Record:
    """What decides the metrics of the candidates; results of earlier versions may lack a setting that is null."""
    return {k: v for k, v in evaluator.items() if k not in ("baselines", "summary") and v is not None}


def find_record(c: Candidate, name: str, fingerprints: Fingerprints) -> Record:
    """The saved result `name` of these weights on these data, or {}."""
    result = c.known(fingerprints).get(name)
    return result.record if result is not None else {}


def load_candidate(c: Candidate, values: Config) -> EvaluatedModel:
    """Loads the backbone of a candidate, and its data, into this process."""
    from sslcli.evals.base.evaluated_model import load_model

    if c.checkpoint is None:
        return load_model(values, c.cfg, c.run.path)
    from sslcli.builders import method_from_checkpoint
    from sslcli.data.record import read_record
    from sslcli.formats.named_encoders import with_saved_encoders
    from sslcli.runs import checkpoint

    record = read_record(c.run, allow_change=bool(values.get("allow_data_change")))
    subject = load_model(values, c.cfg, None, record)
    tensors, _ = checkpoint.load(c.checkpoint)
    own = with_saved_encoders(c.cfg, c.run.path)
    method = method_from_checkpoint(own, subject.dataset, tensors, c.checkpoint.name)
    subject.backbone = subject.runtime.place(method.eval_backbone)
    subject.step, subject.sha256, subject.data.key = c.step, c.sha256, c.checkpoint.name
    subject.seed = c.cfg["seed"]
    return subject
