"""Initial weights (`init=`): of a run, of an exported folder, of a file, or of a pretrained encoder of another library."""

from __future__ import annotations

import shlex

from torch import nn

from sslcli.config import Config
from sslcli.data import preprocess
from sslcli.data.dataset import Preprocessor
from sslcli.errors import RequestError, TrainingError
from sslcli.formats.registry import pretrained
from sslcli.methods.base import Method
from sslcli.runs import Record, checkpoint
from sslcli.runs.encoder import backbone_overrides, load_encoder, locate_encoder, read_info


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
    return preprocess.of_encoder(folder, read_info(folder))


def open_encoder(spec: str, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Record, Preprocessor]:
    """The backbone of a run, of an exported folder or of a pretrained encoder, with its encoder.json and its preprocessor.

    `shape`: of the samples, for pretrained encoders that support several."""
    if (encoder := pretrained(spec)) is not None:
        return encoder.open(shape)
    folder = locate_encoder(spec)
    backbone, info = load_encoder(folder)
    return backbone, info, preprocess.of_encoder(folder, info)


def load_initial_weights(backbone: nn.Module, spec: str) -> str:
    """Loads initial weights into a backbone. Returns a description of what was loaded.

    RequestError where the backbone is another one."""
    if (encoder := pretrained(spec)) is not None:
        return encoder.load(backbone)
    other, info = load_encoder(locate_encoder(spec))
    try:
        checkpoint.load_strictly(backbone, other.state_dict(), f"init={spec}")
    except TrainingError as e:
        overrides, shape = shlex.join(backbone_overrides(info["backbone"])), "x".join(map(str, info["input_shape"]))
        raise RequestError(
            e.message, f"its backbone is {overrides}, for samples of {shape} ({info['dataset']})"
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
