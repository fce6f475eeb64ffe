"""Hugging Face folders that are broken, hostile or of another network: each is refused with a sentence, and an exit code."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sslcli.errors import SslError
from sslcli.formats.registry import pretrained
from tests.formats.folders import MEAN, VOCABULARY, weights, write_folder, write_json

pytest.importorskip("tokenizers")
Spoil = Callable[[Path], object]
REQUEST, DATA = 2, 7


def config(**changes) -> Spoil:
    """Changes of config.json; None removes a key."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changes
        write_json(folder / "config.json", {k: v for k, v in content.items() if v is not None})

    return spoil


def write(name: str, content: bytes | str) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def remove(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names]


def with_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file)

    return spoil


def pickle_with_code(folder: Path) -> None:
    class Code:
        def __reduce__(self):
            return os.mkdir, (str(folder / "ran"),)

    (folder / "model.safetensors").unlink()
    torch.save({"weights": Code()}, folder / "pytorch_model.bin")


def shards(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        keys = list(weights())
        index = {key: names[i % len(names)] for i, key in enumerate(keys)}
        write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})

    return spoil


def modules(*kinds: str) -> Spoil:
    listed = [
        {"path": "1_Pooling" if i == 1 else "", "type": f"sentence_transformers.models.{k}"}
        for i, k in enumerate(kinds)
    ]
    return write("modules.json", json.dumps(listed))


def tokenizer_with_more_tokens(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join([*VOCABULARY, "extra"]))


def nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    tensors["bert.encoder.layer.0.output.dense.bias"][3] = float("nan")
    return tensors


def int8(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.mul(100).to(torch.int8) if ".query.weight" in k else v for k, v in tensors.items()}


def fifo(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def transposed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k: v.T.contiguous() if v.ndim == 2 else v for k, v in tensors.items()}


FOLDERS: dict[str, tuple[Spoil, int, str]] = {
    "no config": (remove("config.json"), REQUEST, "has no config.json"),
    "an adapter": (lambda f: (remove("config.json")(f), write("adapter_config.json", "{}")(f)), REQUEST, "an adapter"),
    "config is no json": (write("config.json", "{'a': 1}"), DATA, "does not hold a JSON object"),
    "config is deep": (write("config.json", '{"a":' * 5000), DATA, "does not hold a JSON object"),
    "config is large": (write("config.json", b" " * (2 << 20)), DATA, "at most 1.0 MB are read"),
    "config is a fifo": (fifo, DATA, "is not a regular file"),
    "no kind": (config(model_type=None), REQUEST, "model_type None is not supported"),
    "roberta": (config(model_type="roberta"), REQUEST, "model_type roberta is not supported"),
    "relative positions": (
        config(position_embedding_type="relative_key"),
        REQUEST,
        "position_embedding_type relative_key",
    ),
    "another activation": (config(hidden_act="gelu_new"), REQUEST, "hidden_act gelu_new is not supported"),
    "one segment": (config(type_vocab_size=1), REQUEST, "type_vocab_size 1 is not supported"),
    "another epsilon": (config(layer_norm_eps=1e-5), REQUEST, "layer_norm_eps 1e-05 is not supported"),
    "a decoder": (config(is_decoder=True), REQUEST, "is_decoder True is not supported"),
    "heads do not divide": (config(num_attention_heads=3), DATA, "hidden_size 16 is not a multiple"),
    "a negative size": (config(intermediate_size=-1), DATA, "intermediate_size is -1"),
    "a huge depth": (config(num_hidden_layers=10**12), DATA, "num_hidden_layers is 1000000000000"),
    "a size that is text": (config(hidden_size="16"), DATA, "hidden_size is 16: expected an integer"),
    "a dropout of 2": (config(hidden_dropout_prob=2), DATA, "hidden_dropout_prob is 2"),
    "another padding": (config(pad_token_id=3), DATA, "pads with the id 0, and pad_token_id of config.json is 3"),
    "no weights": (remove("model.safetensors"), REQUEST, "has no weights of PyTorch"),
    "weights of TensorFlow": (
        lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"),
        REQUEST,
        "tf_model.h5 is not read",
    ),
    "weights that are cut": (
        lambda f: write("model.safetensors", (f / "model.safetensors").read_bytes()[:-7])(f),
        4,
        "is a corrupt safetensors file",
    ),
    "a lying header": (
        write("model.safetensors", struct.pack("<Q", 1 << 62) + b"{}"),
        4,
        "is a corrupt safetensors file",
    ),
    "a pickle with code": (pickle_with_code, DATA, "reading it could run code"),
    "weights of another size": (config(hidden_size=32), REQUEST, "matches 0% of the parameters of BERT"),
    "weights of more layers": (config(num_hidden_layers=8), REQUEST, "not in the file: encoder.layer.2"),
    "weights of another network": (
        with_tensors(lambda t: {k.replace("bert.", "roberta.x"): v for k, v in t.items()}),
        REQUEST,
        "matches 0%",
    ),
    "transposed weights": (with_tensors(transposed), REQUEST, "in the file, "),
    "weights that are not finite": (with_tensors(nan), DATA, "weights contain NaN or Inf"),
    "quantized weights": (with_tensors(int8), DATA, "quantized weights are not supported"),
    "a shard is missing": (shards("model-1.safetensors"), REQUEST, "has no model-1.safetensors"),
    "a shard elsewhere": (shards("../model.safetensors"), DATA, "which is no file of its folder"),
    "a shard of another kind": (shards("model.gguf"), DATA, "expected a .safetensors or .bin file"),
    "an index without files": (
        lambda f: (remove("model.safetensors")(f), write("model.safetensors.index.json", '{"weight_map": []}')(f)),
        DATA,
        "has no weight_map",
    ),
    "no tokenizer": (remove("vocab.txt"), REQUEST, "has no tokenizer.json and no vocab.txt"),
    "a tokenizer of sentencepiece": (
        lambda f: (f / "vocab.txt").rename(f / "spiece.model"),
        REQUEST,
        "spiece.model is not read",
    ),
    "a vocabulary that is not utf-8": (write("vocab.txt", b"[PAD]\n\xff\xfe\n"), DATA, "is not UTF-8: byte 6"),
    "a vocabulary without a mask": (
        write("vocab.txt", "\n".join(t for t in VOCABULARY if t != "[MASK]")),
        DATA,
        "has no token [MASK]",
    ),
    "a token twice": (write("vocab.txt", "\n".join([*VOCABULARY, "the"])), DATA, "has the token 'the' twice"),
    "a vocabulary larger than the embedding": (
        tokenizer_with_more_tokens,
        DATA,
        f"{len(VOCABULARY) + 1} tokens, and the embedding of config.json",
    ),
    "a tokenizer that is no json": (write("tokenizer.json", "nonsense"), DATA, "tokenizer.json"),
    "a tokenizer without a model": (write("tokenizer.json", "{}"), DATA, "tokenizer.json"),
    "modules that are no list": (write("modules.json", "{}"), DATA, "is not a list of modules"),
    "a dense layer": (
        modules("Transformer", "Pooling", "Dense"),
        REQUEST,
        "Transformer, Pooling, Dense are not supported",
    ),
    "no pooling": (modules("Transformer"), REQUEST, "modules Transformer are not supported"),
    "maximum pooling": (
        write("1_Pooling/config.json", '{"pooling_mode_max_tokens": true}'),
        REQUEST,
        "pooling pooling_mode_max_tokens is not supported",
    ),
    "two poolings": (
        write("1_Pooling/config.json", '{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}'),
        REQUEST,
        "is not supported",
    ),
    "a length that is none": (write("sentence_bert_config.json", '{"max_seq_length": -5}'), DATA, "max_seq_length -5"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_refused(name, tmp_path):
    spoil, code, sentence = FOLDERS[name]
    folder = write_folder(tmp_path / "bert", MEAN)
    spoil(folder)
    with pytest.raises(SslError) as caught:
        pretrained(f"hf:{folder}").open()
    assert sentence in caught.value.message
    assert caught.value.code == code
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "sentence", "hint"),
    [
        ("hf:", "names no folder", "init=hf:FOLDER"),
        ("hf:bert-base-uncased", "there is no such folder", "hf download bert-base-uncased"),
        ("hf:a.txt", "is a file", "the folder with config.json"),
        ("hff:folder", "unknown format 'hff:'", "did you mean hf:folder?"),
        ("folder", "is a folder in the format hf:FOLDER", "write hf:folder"),
    ],
)
def test_spec_is_refused(spec, sentence, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "folder")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SslError) as caught:
        pretrained(spec)
    assert sentence in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("spec", ["runs/some", "latest", "name:with/colon", None])
def test_other_specs_are_left_to_others(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "name:with").mkdir()
    (tmp_path / "name:with" / "colon").mkdir()
    assert pretrained(spec) is None
