"""Encoders that a configuration names beside the backbone that is trained: a frozen teacher, and the encoder of captions.

A run has copies of them in encoders/, so that it needs neither the other run nor the folder of another library."""

from __future__ import annotations

import inspect
from pathlib import Path

from torch import nn

from sslcli.backbones.base import Backbone
from sslcli.config import Config, instantiate
from sslcli.config.registry import choices
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.errors import RequestError, listing, nearest
from sslcli.formats.initial import open_encoder, spec_preprocessor
from sslcli.methods.base import Encoder, Tower
from sslcli.runs.encoder import build_backbone, values_of, write_encoder
from sslcli.runs.run import Run

COPIES = "encoders"  # the folder of a run with the encoders that its method names


def load_frozen_encoder(spec: str, dataset: Dataset, key: str) -> Encoder:
    """The frozen encoder of a run, which takes samples normalized as those of `dataset`. RequestError for another shape.

    `key`: of the configuration, for messages."""
    shape = tuple(dataset.shape)
    backbone, info, own = open_encoder(spec, shape)
    if own.shape != shape:
        raise RequestError(
            f"{key}={spec} was trained on samples of shape {own.shape}; those of {dataset.name} have {shape}",
            own.size_hint(shape),
        )
    if dataset.preprocessor is not None and (changes := own.differences(dataset.preprocessor)):
        raise RequestError(f"{key}={spec} was trained with another preprocessor: {listing(changes, 5)}")
    try:
        return Encoder(backbone, dataset.values.conversion(values_of(info)))
    except ValueError as e:
        raise RequestError(f"{key}={spec} was trained on other values than those of {dataset.name}: {e}") from None


def new_tower(spec: str | Config, dataset: Dataset, key: str) -> Tower:
    """The encoder of the captions of a data set: a backbone with random weights, or that of a run or a pretrained encoder, frozen.

    `key`: of the configuration, for messages. RequestError where it does not take these captions."""
    preprocessor = captions_of(dataset)
    if not isinstance(spec, str):
        try:
            return Tower(_new_backbone(spec, preprocessor))
        except RequestError as error:  # its keys are not those of the backbone of the images
            message, hint = (
                text and text.replace("backbone.", f"{key}_settings.").replace("backbone=", f"{key}=")
                for text in (error.message, error.hint)
            )
            raise RequestError(f"{key}: {message}", hint) from None
    try:
        backbone, _, own = open_encoder(spec, preprocessor.shape)
    except RequestError as error:
        raise RequestError(f"{key}: {error.message}", f"the encoder of captions must stay at {spec}") from None
    if changes := own.differences(preprocessor):
        raise RequestError(f"{key}={spec} was trained with another preprocessor: {listing(changes, 5)}")
    return Tower(backbone, frozen=True)


def _new_backbone(spec: Config, preprocessor: TextPreprocessor) -> nn.Module:
    instantiate.check("backbone", spec, given=["input_shape", "values"])
    target = instantiate.resolve("backbone", spec["_target_"])
    if isinstance(target, type) and issubclass(target, Backbone):
        target.check_samples(preprocessor.shape, preprocessor.values)
    return build_backbone(spec, preprocessor.shape, preprocessor.values)


def captions_of(dataset: Dataset) -> TextPreprocessor:
    """The preprocessor of the captions of a data set. RequestError where it has none."""
    own = dataset.preprocessor
    if not isinstance(own, PairsPreprocessor):
        raise RequestError(f"{dataset.name} has no captions", "dataset=pairs dataset.path=MANIFEST, or dataset=shapes")
    return own.captions


def captions_like(cfg: Config) -> Preprocessor | None:
    """The preprocessor of the encoder of captions that a configuration names; None where it names a backbone or none."""
    tower = cfg.get("method", {}).get("tower")
    if not isinstance(tower, str):
        return None
    try:
        own = spec_preprocessor(tower, cfg["dataset"])
    except RequestError as error:
        close = nearest(tower, choices("backbone"))
        hint = f"did you mean method.tower={close}?" if close else f"{error.hint}; or the name of a backbone for text"
        raise RequestError(f"method.tower={tower}: no backbone, and {error.message}", hint) from None
    if not isinstance(own, TextPreprocessor):
        raise RequestError(
            f"method.tower={tower} is no encoder of text{'' if own is None else f', but of {own.kind} samples'}",
            "method.tower=bert_tiny trains one",
        )
    return own


def save_named_encoders(node: Config, dataset: Dataset, run: Run, folder: str = COPIES) -> None:
    """Writes the encoders that a method's YAML names, and those of its tasks, into the folder of its run, each as `sslcli export`
    does; those that are there are left. StorageError."""
    for key, kind in _encoder_keys(node).items():
        place = f"{folder}/{key}"
        if not (run.path / place / "encoder.json").is_file():
            shape = tuple(dataset.shape) if kind is Encoder else captions_of(dataset).shape
            backbone, info, own = open_encoder(node[key], shape)
            write_encoder(run.make_folder(place), backbone.state_dict(), info, own.files())
    for name, task in tasks_of(node).items():
        save_named_encoders(task, dataset, run, f"{folder}/{name}")


def with_saved_encoders(cfg: Config, run: Path) -> Config:
    """The configuration of a run, whose method names the copies in its folder in place of the encoders themselves. Runs of earlier
    versions have no copies."""
    return {**cfg, "method": _with_copies(cfg["method"], run.resolve() / COPIES)}


def _with_copies(node: Config, folder: Path) -> Config:
    saved = {key: str(folder / key) for key in _encoder_keys(node) if (folder / key / "encoder.json").is_file()}
    tasks = {name: _with_copies(task, folder / name) for name, task in tasks_of(node).items()}
    return {**node, **saved, **({"tasks": {**node["tasks"], **tasks}} if tasks else {})}


def _encoder_keys(node: Config) -> dict[str, type]:
    """The keys of a method's YAML that name an encoder, with the class that its constructor takes."""
    parameters = inspect.signature(instantiate.resolve("method", node["_target_"]), eval_str=True).parameters
    return {
        key: parameter.annotation
        for key, parameter in parameters.items()
        if parameter.annotation in (Encoder, Tower) and isinstance(node.get(key), str)
    }


def tasks_of(node: Config) -> dict[str, Config]:
    """The methods that a multi-task method combines: name -> YAML."""
    nodes = node.get("tasks")
    if not isinstance(nodes, dict):
        return {}
    return {str(name): part for name, part in nodes.items() if isinstance(part, dict) and "_target_" in part}
