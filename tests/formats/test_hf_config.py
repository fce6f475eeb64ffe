"""config.json and the files of sentence-transformers: read, written, and what of a request contradicts them."""

from __future__ import annotations

import json

import pytest

from sslcli.backbones.bert import BERT
from sslcli.errors import RequestError
from sslcli.formats.huggingface.config import mlp_ratio, read_config, write_config
from sslcli.formats.huggingface.encoder import HuggingFaceFolder
from sslcli.formats.huggingface.pooling import read_sentences, sentence_files
from sslcli.nn.values import Tokens
from tests.formats.folders import CLS, CONFIG, MEAN, write_folder, write_json

VALUES = {
    "backbone": {
        "_target_": "sslcli.backbones.bert.BERT",
        "width": 256,
        "depth": 4,
        "heads": 4,
        "dropout": 0.0,
        "pool": "cls",
    },
    "dataset": {"tokenizer": "auto", "max_length": 128},
    "seed": 3,
}


def test_config_is_read(tmp_path):
    sizes = read_config(write_folder(tmp_path))
    assert (sizes.width, sizes.depth, sizes.heads, sizes.hidden) == (16, 2, 2, 40)
    assert (sizes.positions, sizes.vocabulary, sizes.dropout, sizes.pad) == (24, CONFIG["vocab_size"], 0.1, 0)


def test_missing_keys_have_the_defaults_of_bert(tmp_path):
    write_json(tmp_path / "config.json", {"model_type": "bert"})
    sizes = read_config(tmp_path)
    assert (sizes.width, sizes.depth, sizes.heads, sizes.hidden) == (768, 12, 12, 3072)
    assert (sizes.positions, sizes.vocabulary) == (512, 30522)


@pytest.mark.parametrize("width", [1, 3, 128, 312, 384, 768, 1000])
def test_mlp_ratio_gives_the_hidden_units(width):
    assert all(int(width * mlp_ratio(width, hidden)) == hidden for hidden in range(1, 5 * width))


def test_written_config_is_read_again(tmp_path):
    values = Tokens(50, pad=0, mask=4, start=2, separator=3, special=(0, 1, 2, 3, 4))
    backbone = BERT((9,), width=12, depth=3, heads=2, mlp_ratio=3.5, max_positions=20, vocabulary=60, values=values)
    write_json(tmp_path / "config.json", write_config(backbone, "BertModel"))
    sizes = read_config(tmp_path)
    assert (sizes.width, sizes.depth, sizes.heads, sizes.hidden) == (12, 3, 2, 42)
    assert (sizes.positions, sizes.vocabulary, sizes.dropout, sizes.pad) == (20, 60, 0.1, 0)
    again = BERT((9,), values=values, **{k: v for k, v in sizes.backbone("mean").items() if k != "_target_"})
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in backbone.state_dict().items()}


@pytest.mark.parametrize(("content", "pool"), [(MEAN, "mean"), (CLS, "cls")])
def test_sentences_are_read(content, pool, tmp_path):
    sentences = read_sentences(write_folder(tmp_path, content))
    assert sentences is not None
    assert (sentences.pool, sentences.length, sentences.normalized) == (pool, 12, True)


def test_folder_without_modules_has_no_sentences(tmp_path):
    assert read_sentences(write_folder(tmp_path)) is None


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_written_sentences_are_read_again(pool, tmp_path):
    for name, text in sentence_files(pool, 16, 99).items():
        write_json(tmp_path / name, json.loads(text))
    sentences = read_sentences(tmp_path)
    assert sentences is not None
    assert (sentences.pool, sentences.length, sentences.normalized) == (pool, 99, False)


# ------------------------------------------------------------------------------------------------------ configuration


def configured(folder, *overrides: str, **changes):
    values = {**VALUES, **changes}
    return HuggingFaceFolder(str(folder)).configure(values, list(overrides))


def test_backbone_follows_the_folder(tmp_path):
    values = configured(write_folder(tmp_path))
    assert values["seed"] == 3
    assert values["backbone"] == read_config(tmp_path).backbone(
        "cls"
    )  # where the folder has no pooling, that of the request
    assert values["dataset"] == {"tokenizer": "auto", "max_length": 24}  # no longer than its positions


def test_pooling_and_length_follow_sentence_transformers(tmp_path):
    values = configured(write_folder(tmp_path, MEAN))
    assert values["backbone"]["pool"] == "mean"
    assert values["dataset"]["max_length"] == 12


def test_what_weights_do_not_determine_may_be_chosen(tmp_path):
    given = ("backbone.pool=cls", "backbone.dropout=0.0", "dataset.max_length=8")
    values = configured(write_folder(tmp_path, MEAN), *given, dataset={"tokenizer": "auto", "max_length": 8})
    assert (values["backbone"]["pool"], values["backbone"]["dropout"]) == ("cls", 0.0)
    assert values["dataset"]["max_length"] == 8


def test_data_set_without_a_length_keeps_its_node(tmp_path):
    assert configured(write_folder(tmp_path), dataset={"name": "mine"})["dataset"] == {"name": "mine"}


@pytest.mark.parametrize(
    ("overrides", "changes", "sentence"),
    [
        (("backbone.width=256",), {}, "backbone.width=256 contradicts init=hf:"),
        (("backbone.depth=4",), {}, "whose encoder has 2"),
        (("backbone=bert_micro",), {}, "backbone.width=256 contradicts"),
        (("backbone=resnet18",), {"backbone": {"_target_": "a.ResNet"}}, "backbone=a.ResNet contradicts"),
        (("dataset.tokenizer=auto",), {}, "dataset.tokenizer=auto contradicts"),
        (("dataset.lowercase=false",), {}, "contradicts init=hf:"),
        (("dataset.max_length=128",), {}, "dataset.max_length=128 contradicts init=hf:"),
    ],
)
def test_contradictions_are_refused(overrides, changes, sentence, tmp_path):
    folder = write_folder(tmp_path)
    with pytest.raises(RequestError, match="contradicts") as caught:
        configured(folder, *overrides, **changes)
    assert sentence in caught.value.message
    assert caught.value.hint


def test_equal_overrides_are_no_contradiction(tmp_path):
    node = read_config(write_folder(tmp_path)).backbone("mean") | {"max_positions": "auto"}
    overrides = ("backbone=mine", "backbone.width=16", "backbone.max_positions=auto")
    assert configured(tmp_path, *overrides, backbone=node)["backbone"]["max_positions"] == 24


def test_spec_is_absolute(tmp_path, monkeypatch):
    write_folder(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    assert HuggingFaceFolder("bert").resolved() == f"hf:{tmp_path / 'bert'}"


def test_weights_are_not_read_to_configure(tmp_path):
    folder = write_folder(tmp_path)
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert configured(folder)["backbone"]["width"] == 16
