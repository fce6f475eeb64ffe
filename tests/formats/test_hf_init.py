"""`init=hf:FOLDER` from the command line and from Python: pretraining, evaluation without a run, resuming, distillation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sslcli
from sslcli.errors import DataError
from sslcli.runs.encoder import load_encoder
from sslcli.runs.run import Run
from tests.conftest import killed_when_saved
from tests.formats.folders import MEAN, TEXTS, weights, write_folder

pytest.importorskip("tokenizers")
QUICK = (
    "device=cpu",
    "device.threads=1",
    "train.steps=2",
    "train.epochs=null",
    "train.batch_size=8",
    "optimizer.lr=1e-9",
)


@pytest.fixture
def text(corpus) -> list[str]:
    return ["dataset=text_lines", f"dataset.path={corpus}"]


def published(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the backbone, without the prefix."""
    tensors = load_file(folder / "model.safetensors")
    return {k.removeprefix("bert."): v for k, v in tensors.items() if k.startswith(("bert.embeddings", "bert.encoder"))}


def test_pretraining_starts_from_the_folder(text, cli, tmp_path):
    folder = write_folder(tmp_path / "bert", MEAN)
    done = cli("pretrain", "method=mlm", "init=hf:bert", *text, *QUICK)
    assert done.code == 0, done.err
    assert (
        f"init hf:{folder}: 37 tensors matched, 100.0% of the backbone's parameters; the folder has the heads of"
        in done.err
    )
    assert "head of masked tokens loaded" in done.err
    run = Run.open(Path("runs/latest"))
    assert run.config["init"] == f"hf:{folder}"
    assert run.config["backbone"]["width"] == 16
    backbone, info = load_encoder(run.path)
    assert (backbone.pool, info["input_shape"]) == ("mean", [12])
    for key, value in published(folder).items():
        assert torch.allclose(backbone.state_dict()[key], value, atol=1e-6), key
    files = {p.name for p in (run.path / "preprocessor").iterdir()}
    assert files == {"preprocessor.json", "tokenizer.json"}  # of its own: the folder is not needed to evaluate the run
    shutil.rmtree(folder)
    assert sslcli.load(run).embed(TEXTS).shape == (4, 16)


@pytest.mark.parametrize(
    ("method", "heads"), [("bert", "head of masked tokens and of the next sentence loaded"), ("simcse", "")]
)
def test_heads_load_where_the_method_has_them(method, heads, text, cli, tmp_path):
    write_folder(tmp_path / "bert")
    done = cli("pretrain", f"method={method}", "init=hf:bert", *text, *QUICK, "--dry-run")
    assert done.code == 0, done.err
    assert heads in done.err
    assert ("loaded" in done.err) == bool(heads)


def test_folder_without_heads_says_what_is_random(text, cli, tmp_path):
    folder = write_folder(tmp_path / "bert")
    from safetensors.torch import save_file

    save_file(weights(prefix="0.auto_model.", heads=False), folder / "model.safetensors")
    done = cli("pretrain", "method=bert", "init=hf:bert", *text, *QUICK, "--dry-run")
    assert done.code == 0, done.err
    assert "37 tensors matched, 100.0%" in done.err
    assert "head of masked tokens and of the next sentence randomly initialized" in done.err


def test_output_layer_that_is_not_the_embedding_is_not_loaded(text, cli, tmp_path):
    from safetensors.torch import save_file

    folder, tensors = write_folder(tmp_path / "bert"), weights()
    save_file({**tensors, "cls.predictions.decoder.weight": torch.randn(77, 16)}, folder / "model.safetensors")
    done = cli("pretrain", "method=mlm", "init=hf:bert", *text, *QUICK, "--dry-run")
    assert "cls.predictions.decoder.weight is not the embedding" in done.err
    tied = tensors["bert.embeddings.word_embeddings.weight"].clone()
    save_file({**tensors, "cls.predictions.decoder.weight": tied}, folder / "model.safetensors")
    done = cli("pretrain", "method=mlm", "init=hf:bert", *text, *QUICK, "--dry-run")
    assert "head of masked tokens loaded" in done.err


def test_names_of_tensorflow_are_read(tmp_path):
    from safetensors.torch import save_file

    folder, tensors = write_folder(tmp_path / "bert", MEAN), weights()
    expected = sslcli.load(f"hf:{folder}").embed(TEXTS)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {next((k.replace(a, b) for a, b in old.items() if k.endswith(a)), k): v for k, v in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, folder / "model.safetensors")
    assert torch.equal(sslcli.load(f"hf:{folder}").embed(TEXTS), expected)


def test_half_precision_is_read(tmp_path):
    from safetensors.torch import save_file

    folder = write_folder(tmp_path / "bert", MEAN)
    save_file({k: v.to(torch.bfloat16) for k, v in weights().items()}, folder / "model.safetensors")
    module = sslcli.load(f"hf:{folder}").module
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_truncation_in_tokenizer_json_is_ignored(tmp_path):
    """Folders of sentence-transformers have one that is shorter than their longest input."""
    tokenizers = pytest.importorskip("tokenizers")
    from sslcli.formats.huggingface.tokenizer import from_vocabulary

    folder = write_folder(tmp_path / "bert", MEAN)
    expected = sslcli.load(f"hf:{folder}").embed(TEXTS)
    tokenizer = tokenizers.Tokenizer.from_str(from_vocabulary(folder).decode())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert torch.equal(sslcli.load(f"hf:{folder}").embed(TEXTS), expected)


def test_links_of_a_cache_are_followed(tmp_path):
    """The cache of the Hub consists of symbolic links."""
    folder = write_folder(tmp_path / "blobs", MEAN)
    (tmp_path / "snapshot").mkdir()
    for path in folder.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    expected = sslcli.load(f"hf:{folder}").embed(TEXTS)
    assert torch.equal(sslcli.load(f"hf:{tmp_path / 'snapshot'}").embed(TEXTS), expected)


def test_contradictions_end_before_a_run_folder_is_made(text, cli, tmp_path):
    write_folder(tmp_path / "bert")
    for options in (
        ["backbone.width=32"],
        ["backbone=bert_base"],
        ["dataset.tokenizer=words"],
        ["dataset.max_length=99"],
    ):
        done = cli("pretrain", "method=mlm", "init=hf:bert", *text, *options)
        assert done.code == 2, done.err
        assert "contradicts init=hf:bert" in done.err
    assert not Path("runs").exists()


def test_folder_without_a_scheme_is_explained(text, cli, tmp_path):
    write_folder(tmp_path / "bert")
    done = cli("pretrain", "method=mlm", "init=bert", *text)
    assert done.code == 2
    assert "bert is a folder in the format hf:FOLDER" in done.err
    assert "write hf:bert" in done.err


def test_images_are_refused(cli, tmp_path):
    write_folder(tmp_path / "bert")
    done = cli("pretrain", "method=simclr", "init=hf:bert", "dataset=digits", "device=cpu")
    assert done.code == 2
    assert "requires sequences of tokens" in done.err


def test_interrupted_run_continues_bit_by_bit(text, cli, tmp_path):
    write_folder(tmp_path / "bert")
    argv = [
        "pretrain",
        "method=mlm",
        "init=hf:bert",
        *text,
        *QUICK,
        "optimizer.lr=1e-3",
        "train.steps=4",
        "train.save_every=2",
    ]
    assert cli(*argv).code == 0
    whole = (Path("runs/latest").resolve() / "encoder.safetensors").read_bytes()
    with killed_when_saved(2):
        cli(*argv)
    done = cli("resume", "latest")
    assert done.code == 0, done.err
    assert "bit-exact" in done.err
    assert (Path("runs/latest").resolve() / "encoder.safetensors").read_bytes() == whole


def test_distillation_from_the_folder(text, cli, tmp_path):
    """A smaller network learns the features of the folder's; both read its tokens."""
    folder = write_folder(tmp_path / "bert", MEAN)
    own = ["dataset.max_length=12", f"dataset.tokenizer={folder}"]
    small = ["backbone=bert_micro", "backbone.width=8", "backbone.depth=1", "backbone.heads=2"]
    done = cli("pretrain", "method=distill", "method.teacher=hf:bert", *small, *text, *own, *QUICK)
    assert done.code == 0, done.err


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_without_a_run(text, cli, tmp_path):
    folder = write_folder(tmp_path / "bert", MEAN)
    done = cli("eval", "quality", "run=none", "init=hf:bert", *text, "dataset.holdout=0.5", "device=cpu", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["run"] is None
    assert len(record["sha256"]) == 64
    assert any(note.startswith(f"init hf:{folder}: 37 tensors") for note in record["protocol"]["notes"])
    assert {"rankme", "untrained.rankme"} <= record["numbers"].keys()
    assert f"weights of hf:{folder}" in done.err
    assert not Path("runs").exists()


def test_masked_tokens_of_the_folder_are_filled(text, cli, tmp_path):
    """By its own head: as by a run that starts from it, at a learning rate of nothing."""
    write_folder(tmp_path / "bert", MEAN)
    options = ["run=none", "init=hf:bert", *text, "dataset.holdout=0.5", "device=cpu"]
    done = cli("eval", "fill", *options, "--json")
    assert done.code == 0, done.err
    own = json.loads(done.out)["numbers"]
    assert {"accuracy", "perplexity", "unigram.perplexity", "untrained.perplexity"} <= own.keys()
    assert cli("pretrain", "method=mlm", "init=hf:bert", *text, "dataset.holdout=0.5", *QUICK).code == 0
    again = json.loads(cli("eval", "fill", "device=cpu", "--json").out)["numbers"]
    assert again["perplexity"] == pytest.approx(own["perplexity"], rel=1e-3)
    assert again["given.perplexity"] == pytest.approx(own["perplexity"], rel=1e-6)
    explained = cli("eval", "explain", "device=cpu", "evaluator.samples=2", "--json")
    assert explained.code == 0, explained.err
    assert {"given.deletion", "given.insertion"} <= json.loads(explained.out)["numbers"].keys()
    done = cli("eval", "fill", *options, "text=The capital of [MASK] is Paris.")
    assert done.code == 0, done.err


def test_folder_without_a_head_fills_nothing(text, cli, tmp_path):
    from safetensors.torch import save_file

    folder = write_folder(tmp_path / "bert", MEAN)
    save_file(weights(heads=False), folder / "model.safetensors")
    done = cli("eval", "fill", "run=none", "init=hf:bert", *text, "dataset.holdout=0.5", "device=cpu")
    assert done.code == 2
    assert "predicts no hidden tokens" in done.err


def test_evaluation_of_a_run_takes_no_init(text, cli, tmp_path):
    write_folder(tmp_path / "bert", MEAN)
    assert cli("pretrain", "method=mlm", "init=hf:bert", *text, *QUICK).code == 0
    done = cli("eval", "quality", "init=hf:bert")
    assert done.code == 2
    assert "that comes from the run" in done.err


def test_python_interface(text, corpus, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "bert", MEAN)
    monkeypatch.chdir(tmp_path)
    run = sslcli.pretrain(
        *QUICK, method="mlm", init=f"hf:{folder}", dataset="text_lines", **{"dataset.path": str(corpus)}
    )
    assert run.config["backbone"]["width"] == 16
    result = sslcli.evaluate("none", "quality", "device=cpu", *text, init=f"hf:{folder}", **{"dataset.holdout": 0.5})
    assert result["rankme"] > 1
    encoder = sslcli.load(f"hf:{folder}")
    assert repr(encoder) == "Encoder(BERT, 12 text -> 16, bert)"
    with pytest.raises(DataError):
        encoder.embed([1, 2])


def test_padding_and_batches_change_nothing(tmp_path):
    encoder = sslcli.load(f"hf:{write_folder(tmp_path / 'bert', MEAN)}")
    one_by_one = torch.cat([encoder.embed([text]) for text in TEXTS])
    assert torch.allclose(encoder.embed(TEXTS), one_by_one, atol=1e-6)


def test_frozen_encoder_of_captions(cli, tmp_path):
    """`method.tower=hf:FOLDER` reads captions with its tokenizer, of the length of the data set, and stays as it is."""
    folder = write_folder(tmp_path / "bert", MEAN)
    words = [
        "dataset=shapes",
        "dataset.samples=72",
        "dataset.test_samples=36",
        "dataset.size=16",
        "dataset.max_length=9",
    ]
    done = cli("pretrain", "method=clip", "method.tower=hf:bert", "backbone.width=8", *words, *QUICK)
    assert done.code == 0, done.err
    assert "BERT, dim 16, frozen" in done.err
    tower = {
        key.removeprefix("tower.backbone."): value
        for key, value in load_file(next(Path("runs/latest/checkpoints").glob("step-*2/model.safetensors"))).items()
        if key.startswith("tower.backbone.")
    }
    for key, value in published(folder).items():
        assert torch.allclose(tower[key], value, atol=1e-6), key
    assert cli("eval", "zeroshot").code == 0
    assert cli("resume", "runs/latest", "train.steps=4").code == 0
