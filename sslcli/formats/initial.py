"""Initial weights (`init=`): of a run, of an exported folder, of a file, or of a pretrained encoder of another library."""

from __future__ import annotations

import shlex

from torch import nn

from sslcli import console
from sslcli.backbones.weights import families, matching
from sslcli.config import Config
from sslcli.config.registry import backbone_overrides
from sslcli.data import preprocess
from sslcli.data.dataset import Preprocessor
from sslcli.errors import RequestError, TrainingError
from sslcli.formats.registry import pretrained
from sslcli.methods.base import Method
from sslcli.runs import Record, checkpoint
from sslcli.runs.encoder import load_encoder, locate_encoder, read_info


def initial_preprocessor(cfg: Config) -> Preprocessor | None:
    """The preprocessor of the encoder that `init` of a configuration names; None where there is none."""
    spec = cfg.get("init")
    return spec_preprocessor(spec, cfg["dataset"]) if spec else None


def spec_preprocessor(spec: str, dataset: Config) -> Preprocessor | None:
    """The preprocessor of a run, of an exported folder or of a pretrained encoder, for the data of a configuration `dataset`; None
    where a pretrained encoder takes the data set as it is."""
    if (encoder := pretrained(spec)) is not None:
        return encoder.preprocessor(dataset)
    folder = locate_encoder(spec)
    notes: list[str] = []
    found = preprocess.of_encoder(folder, read_info(folder)).for_new_data(dataset, notes)
    for note in notes:
        console.warn(note)
    return found


def open_encoder(spec: str, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Record, Preprocessor]:
    """The backbone of a run, of an exported folder or of a pretrained encoder, with its encoder.json and its preprocessor.

    `shape`: of the samples, for pretrained encoders that support several."""
    if (encoder := pretrained(spec)) is not None:
        return encoder.open(shape)
    folder = locate_encoder(spec)
    backbone, info = load_encoder(folder)
    return backbone, info, preprocess.of_encoder(folder, info)


def with_initial_architecture(cfg: Config, shape: tuple[int, ...]) -> Config:
    """A configuration whose stem and patches (`auto`) are those of the encoder of a run or an exported folder that `init` names,
    where the samples have another shape, for which `auto` may mean others."""
    spec, node = cfg.get("init"), cfg["backbone"]
    if not spec or "auto" not in (node.get("stem"), node.get("patch")) or pretrained(spec) is not None:
        return cfg
    folder = locate_encoder(spec)
    if tuple(read_info(folder)["input_shape"]) == tuple(shape):
        return cfg
    return {**cfg, "backbone": families.with_architecture(node, load_encoder(folder)[0].state_dict())}


def load_initial_weights(backbone: nn.Module, spec: str) -> str:
    """Loads initial weights into a backbone. Returns a description of what was loaded.

    Those of a run or an exported folder must be of the same network; tensors for another size of samples are converted.
    RequestError where the backbone is another one."""
    if (encoder := pretrained(spec)) is not None:
        return encoder.load(backbone)
    folder = locate_encoder(spec)
    other, info = load_encoder(folder)
    weights, own = other.state_dict(), backbone.state_dict()
    if weights.keys() == own.keys() and any(weights[key].shape != own[key].shape for key in own):
        found = matching.match(backbone, weights)
        if found.tensors.keys() == own.keys():
            matching.copy_into(backbone, found.tensors, spec)
            return matching.describe(found, spec)
    try:
        checkpoint.load_strictly(backbone, weights, f"init={spec}")
    except TrainingError as e:
        there: list[int] = info["input_shape"]
        here = tuple(getattr(backbone, "input_shape", there))
        size = preprocess.of_encoder(folder, info).size_hint(here) if here != tuple(there) else None
        options = shlex.join([*backbone_overrides(info["backbone"]), *([size] if size else [])])
        shape = "x".join(map(str, there))
        raise RequestError(
            f"{e.message}; its backbone was trained on samples of {shape} ({info['dataset']})", f"add {options}"
        ) from None
    return f"init {spec}: all weights of the backbone"


def pretrained_method(backbone: nn.Module, spec: str) -> Method | None:
    """The method of a pretrained encoder with its heads, on a backbone that has its weights; None where `init` names none."""
    encoder = pretrained(spec)
    return None if encoder is None else encoder.method(backbone)


def load_initial_heads(method: Method, spec: str) -> str:
    """Loads the heads of a method that a pretrained encoder has as well. Returns the rest of a sentence, "" where there are
    none."""
    encoder = pretrained(spec)
    return "" if encoder is None else encoder.load_heads(method)
