"""The backbone under evaluation, trained, pretrained elsewhere or with random weights, and the data that it is evaluated on."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from sslcli import console
from sslcli.builders import load_dataset, load_method, new_backbone
from sslcli.builders import untrained_method as untrained_method_of
from sslcli.config import Config
from sslcli.data import preprocess
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.fingerprint import fingerprint
from sslcli.data.label_warnings import held_out_notes
from sslcli.data.record import DataRecord, is_same_dataset, read_record
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.inputs import label_file
from sslcli.formats.initial import load_initial_weights, pretrained_method, with_initial_architecture
from sslcli.methods.base import Method
from sslcli.rng import derive
from sslcli.runs import Record
from sslcli.runs.encoder import load_encoder
from sslcli.runs.run import Run
from sslcli.runs.safetensors_file import hash_tensors
from sslcli.runtime import device, processes
from sslcli.runtime.device import Runtime
from sslcli.views import Views
from sslcli.views.images import compiled
from sslcli.views.modality import modality


@dataclass
class EvaluatedModel:
    """A backbone on its device and the data that it is evaluated on, in this process."""

    runtime: Runtime
    dataset: Dataset
    backbone: nn.Module
    data: EvalData
    step: int
    seed: int
    sha256: str = ""  # of the weights; empty for random weights
    other_data: bool = False  # evaluated on another data set than it was trained on
    init: str = ""  # where the weights come from, without a run

    @property
    def labels_file(self) -> str:
        """The file of `labels=FILE.csv`; "" for labels of the data set."""
        return str(self.dataset.details.get("labels", {}).get("file", ""))


def load_model(values: Config, run_cfg: Config, path: Path | None, record: DataRecord | None = None) -> EvaluatedModel:
    """The backbone of the run in `path` (None: one with the weights that `init` names, or random ones) with its data.

    `values` is the configuration of the evaluation: `seed`, `device`, `train.devices`, and optionally `labels`,
    `data_given`, `data_keys`, `data_path` and `allow_data_change`; `run_cfg` is that of the run. `record` describes the
    expected data where no run is given. Raises DataError where the data differ from the run's, unless `values` allow it.
    """
    info: Record = {"step": 0, "sha256": ""}
    init = str(run_cfg.get("init") or "") if path is None else ""
    backbone = None
    if path is not None:
        backbone, info = load_encoder(path)
    dataset, other_data, notes = _load_data(values, run_cfg, path, record, info)
    for note in notes:
        console.say(note)
    process = processes.process_info(values["train"]["devices"], device.kind_of(values["device"]))
    kind = modality(dataset.modality)
    runtime = device.start(values["device"], channels_last=kind.channels_last, process=process)
    runtime.native = compiled.configure(values["device"].get("native", "auto"), runtime.device, kind.native)
    seed = run_cfg["seed"] if path else values["seed"]
    given: Method | None = None  # of a pretrained encoder, with its heads
    if backbone is None:
        run_cfg = with_initial_architecture(run_cfg, dataset.shape)
        backbone = new_backbone(run_cfg, dataset, seed)
        if init:
            notes.append(load_initial_weights(backbone, init))
            console.say(notes[-1])
            info["sha256"] = hash_tensors(backbone.state_dict())
            given = pretrained_method(backbone, init)
    runtime.place(backbone if given is None else given)

    def untrained(draw: int = 0) -> nn.Module:
        return runtime.place(new_backbone(run_cfg, dataset, derive(seed, "draw", draw) if draw else seed))

    def given_backbone() -> nn.Module:
        start = new_backbone(run_cfg, dataset, seed)
        load_initial_weights(start, run_cfg["init"])
        if hash_tensors(start.state_dict()) != info["given"]:
            raise RequestError(f"init={run_cfg['init']} has other weights than those that the run started from")
        return runtime.place(start)

    def given_method() -> Method | None:
        return pretrained_method(given_backbone(), run_cfg["init"])

    @functools.cache
    def pretraining() -> tuple[Method, Views]:
        if given is not None:
            return given, Views({"weak": 1}, run_cfg["augmentation"], dataset)
        assert path is not None
        method, views = load_method(Run(path), run_cfg, dataset)
        runtime.place(method)
        return method, views

    def untrained_method() -> Method:
        if given is not None:
            method = type(given)(new_backbone(run_cfg, dataset, seed)).eval()
        else:
            assert path is not None
            method = untrained_method_of(Run(path), run_cfg, dataset, seed)
        runtime.place(method)
        return method

    trained = path is not None and info["step"] > 0
    if info.get("given") and not trained:
        notes.append("no baseline of given weights: they are those of the run, which was not trained")
    started = bool(run_cfg.get("init") and info.get("given") and trained)
    data = EvalData(
        dataset,
        runtime.device,
        workers=runtime.workers,
        cache=path / "cache" if path is not None else None,
        key=info["sha256"],
        seed=values["seed"],
        untrained=untrained if path is not None or init else None,
        given=given_backbone if started else None,
        autocast=runtime.autocast,
        training_autocast=runtime.training_autocast,
        channels_last=runtime.channels_last,
        recipes=run_cfg["augmentation"],
        pretraining=pretraining if path is not None or given is not None else None,
        untrained_method=untrained_method if path is not None or given is not None else None,
        given_method=given_method if started else None,
        trained_on=info["dataset"] if other_data else "",
    )
    for note in data.notes:
        if note not in held_out_notes(dataset):  # `say_held_out`: not true for each evaluator
            console.say(note)
    data.notes += notes
    known = label_file.with_label_fingerprint(dataset)
    return EvaluatedModel(runtime, known, backbone, data, info["step"], seed, info["sha256"], other_data, init)


def load_other_dataset(cfg: Config, own: Preprocessor, keys: Iterable[str], notes: list[str]) -> Dataset:
    """The data set of a configuration as an encoder with the preprocessor `own` takes it. `keys`: of the data set, which the
    command line has: files may be written in another way than those of training. RequestError, DataError."""
    node = cfg["dataset"]
    written = own.with_file_options({key: node.get(key) for key in keys})
    dataset = own.adapt(load_dataset(cfg, like=written), notes)
    if written.sha256 == own.sha256:
        return dataset
    identity = [dataset.fingerprint.encode(), written.sha256.encode()]  # the same files have other values
    return replace(dataset, fingerprint=fingerprint(len(dataset.train), identity))


def _load_data(
    values: Config, run_cfg: Config, path: Path | None, record: DataRecord | None, info: Record
) -> tuple[Dataset, bool, list[str]]:
    """The data set, whether it is another one than the backbone was trained on, and notes about both. `info` describes
    the encoder."""
    given, other_data = bool(values.get("data_given")), False
    notes: list[str] = []
    if path is not None:
        run = Run(path)
        record = read_record(run, values.get("data_path"), given or bool(values.get("allow_data_change")))
        node, trained_node = run_cfg["dataset"], run.valid_config["dataset"]
        other_data = not is_same_dataset(node, trained_node, record) if given else node != trained_node
    if path is not None and other_data:
        preprocessor = preprocess.of_encoder(path, info)
        node = preprocessor.configure(run_cfg["dataset"])
        dataset = load_other_dataset({**run_cfg, "dataset": node}, preprocessor, values.get("data_keys", ()), notes)
    else:
        dataset = load_dataset(run_cfg, record, download=path is None or given)
        if changed := dataset.details.get("changed"):
            other_data = given  # a result on other data has a name of its own, unless the change was allowed
            notes += [f"the data changed since the run was trained: {change}" for change in changed]
    if label_file.is_file(values.get("labels")):
        dataset, more = label_file.apply_label_file(dataset, values["labels"])
        notes += more
    return dataset, other_data, notes
