"""Small encoders with random weights, and files of samples for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sslcli import api
from sslcli.backbones.bert import BERT
from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.mlp import MLP
from sslcli.backbones.vit import ViT
from sslcli.data.dataset import Preprocessor
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.sources.table import table
from sslcli.data.sources.text_lines import text_lines
from sslcli.inference.encoder import TrainedEncoder
from sslcli.nn.values import Continuous
from sslcli.runs.encoder import build_backbone, write_encoder

IMAGES = ImagePreprocessor((3, 16, 16), Continuous((0.5,) * 3, (0.25,) * 3))
SERIES = SeriesPreprocessor((2, 24), Continuous((0.0, 1.0), (1.0, 2.0)))
CPU = {"device": {"type": "cpu", "threads": 1}}


def short_run(folder: Path, *data: str) -> Path:
    """The folder of a run on a table, below `folder`, with the classifier of a probe."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        steps = ["train.steps=3", "train.epochs=null", "train.eval_every=0", "train.batch_size=16"]
        path = api.pretrain("method=scarf", *data, *steps, **CPU).path.resolve()
        api.evaluate(path, "probe", "evaluator.baselines=false", **CPU)
    return path


def encoder(backbone: str, preprocessor: Preprocessor, **options: object) -> TrainedEncoder:
    targets = {cls.__name__: f"{cls.__module__}.{cls.__qualname__}" for cls in (BERT, ConvNet, MLP, ViT)}
    torch.manual_seed(0)
    node = {"_target_": targets[backbone], **options}
    module: nn.Module = build_backbone(node, preprocessor.shape, preprocessor.values).eval()
    return TrainedEncoder("random", module, {"dim": module.dim, "backbone": node}, preprocessor, "0" * 64, None)


def image_encoder() -> TrainedEncoder:
    return encoder("ViT", IMAGES, width=16, depth=1, heads=2)


def write_images(folder: Path, n: int, seed: int = 0) -> None:
    """Images of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(seed)
    for i in range(n):
        size = (*g.integers(16, 40, 2), 3)
        Image.fromarray(g.integers(0, 255, size, dtype=np.uint8)).save(folder / f"{i:03}.png")


def text_encoder(folder: Path) -> TrainedEncoder:
    file = folder / "train.txt"
    file.write_text("".join(f"the {word} of a line number {i}\n" for i in range(40) for word in ("end", "start")))
    dataset = text_lines(str(file), tokenizer="words", max_length=16, holdout=0)
    assert dataset.preprocessor is not None
    return encoder("BERT", dataset.preprocessor, width=16, depth=1, heads=2)


def table_encoder(folder: Path) -> TrainedEncoder:
    file = folder / "train.csv"
    rows = (f"{i / 7},{i % 5},{'ab'[i % 2]},{i % 3}\n" for i in range(60))
    file.write_text("size,count,kind,label\n" + "".join(rows))
    dataset = table(str(file), holdout=0)
    assert dataset.preprocessor is not None
    return encoder("MLP", dataset.preprocessor, width=16)


def export(trained: TrainedEncoder, folder: Path) -> Path:
    """A folder with an encoder, as `sslcli export` writes one."""
    own = trained.preprocessor
    info = {
        "backbone": trained.info["backbone"],
        "input_shape": list(own.shape),
        "values": own.values.to_json(),
        "modality": own.kind,
        "dataset": "made",
        "method": "none",
        "step": 0,
        "dim": trained.dim,
    }
    folder.mkdir()
    write_encoder(folder, trained.module.state_dict(), info, own.files())
    return folder
