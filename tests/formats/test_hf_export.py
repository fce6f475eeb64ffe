"""`export format=hf` against transformers: equal outputs of the network and its heads, equal ids of the tokenizer."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import sslcli
from sslcli.builders import load_checkpoint_method
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from tests.formats.conftest import RUNS
from tests.formats.folders import TEXTS

pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
TOLERANCE = 1e-5
ARCHITECTURES = {
    "mlm": "BertForMaskedLM",
    "bert": "BertForPreTraining",
    "nsp": "BertForNextSentencePrediction",
    "simcse": "BertModel",
    "electra": "BertModel",
    "multitask": "BertForPreTraining",
}
MORE = [
    *TEXTS,
    "",
    "ΟΔΟΣ Привет 你好 🙂",
    "Tabs\tand\nlines; don't (2,000)  --  end",
    "word " * 60,
    "CamelCase snake_case",
]


@pytest.fixture
def exported(request, runs, tmp_path, monkeypatch, capfd) -> tuple[Run, Path]:
    """The run of this name, and its export."""
    from sslcli.cli import main

    run = Run.open(runs(request.param))
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), "format=hf", "out=bert"]) == 0
    assert capfd.readouterr().out.endswith("bert\n")
    return run, tmp_path / "bert"


def method_of(run: Run):
    return load_checkpoint_method(run, checkpoint.existing(run.path / "checkpoints")[0])[0].eval()


def encoded(folder: Path, texts: list[str] = MORE):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")


def pairs(folder: Path):
    """Two texts each, of two segments."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer(TEXTS, TEXTS[::-1], padding="max_length", truncation=True, return_tensors="pt")


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.shape == b.shape
    assert float((a - b).detach().abs().max()) <= TOLERANCE


@pytest.mark.parametrize("exported", RUNS, indirect=True)
def test_auto_tokenizer_gives_the_same_ids(exported):
    run, folder = exported
    encoder = sslcli.load(run)
    views = encoder.transform(MORE)
    inputs = encoded(folder)
    assert inputs["input_ids"].tolist() == views.tolist()
    assert torch.equal(inputs["attention_mask"].bool(), encoder.module.present(views))
    two = pairs(folder)
    assert torch.equal(two["token_type_ids"], encoder.module.segments(two["input_ids"]))
    assert two["token_type_ids"].any()


@pytest.mark.parametrize("exported", RUNS, indirect=True)
def test_bert_model_gives_the_same_tokens(exported):
    run, folder = exported
    module = sslcli.load(run).module
    model = transformers.BertModel.from_pretrained(folder).eval()
    for inputs in (encoded(folder), pairs(folder)):
        mask = inputs["attention_mask"][..., None]
        assert_close(model(**inputs).last_hidden_state * mask, module.tokens(inputs["input_ids"]))


@pytest.mark.parametrize("exported", RUNS, indirect=True)
def test_config_names_the_class(exported):
    run, folder = exported
    content = json.loads((folder / "config.json").read_text())
    assert content["architectures"] == [ARCHITECTURES[run.config["method"]["_target_"].split(".")[-2]]]
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def load(name: str, folder: Path):
    """The class with all of its weights from the folder."""
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], info
    assert not info["unexpected_keys"], info
    return model.eval()


@pytest.mark.parametrize("exported", ["mlm"], indirect=True)
def test_masked_language_model_gives_the_same_logits(exported):
    run, folder = exported
    method, inputs = method_of(run), encoded(folder)
    logits = load("BertForMaskedLM", folder)(**inputs).logits
    where = inputs["attention_mask"].bool()
    assert_close(logits[where], method.token_logits(inputs["input_ids"], where))


@pytest.mark.parametrize("exported", ["bert"], indirect=True)
def test_pretraining_model_gives_the_same_logits(exported):
    run, folder = exported
    method, inputs = method_of(run), pairs(folder)
    out = load("BertForPreTraining", folder)(**inputs)
    where = inputs["attention_mask"].bool()
    assert_close(out.prediction_logits[where], method.token_logits(inputs["input_ids"], where))
    tokens = method.backbone.tokens(inputs["input_ids"])
    assert_close(out.seq_relationship_logits, method.nsp_head(tokens[:, 0]))


@pytest.mark.parametrize("exported", ["multitask"], indirect=True)
def test_heads_of_tasks_are_exported(exported):
    run, folder = exported
    method, inputs = method_of(run), pairs(folder)
    out = load("BertForPreTraining", folder)(**inputs)
    where = inputs["attention_mask"].bool()
    assert_close(out.prediction_logits[where], method.tasks["mlm"].token_logits(inputs["input_ids"], where))
    tokens = method.backbone.tokens(inputs["input_ids"])
    assert_close(out.seq_relationship_logits, method.tasks["nsp"].head(tokens[:, 0]))


@pytest.mark.parametrize("exported", ["nsp"], indirect=True)
def test_next_sentence_model_gives_the_same_logits(exported):
    run, folder = exported
    method, inputs = method_of(run), pairs(folder)
    logits = load("BertForNextSentencePrediction", folder)(**inputs).logits
    assert_close(logits, method.head(method.backbone.tokens(inputs["input_ids"])[:, 0]))


@pytest.mark.parametrize("exported", ["bert"], indirect=True)
def test_export_is_read_by_init(exported, corpus, cli):
    """The heads too: the losses of a run without a learning rate are those of the exported run."""
    run, folder = exported
    options = ["dataset=text_lines", f"dataset.path={corpus}", "train.steps=1", "train.epochs=null", "device=cpu"]
    done = cli("pretrain", "method=bert", f"init=hf:{folder}", *options, "optimizer.lr=1e-9")
    assert done.code == 0, done.err
    assert "head of masked tokens and of the next sentence loaded" in done.err
    assert "100.0% of the backbone's parameters" in done.err
    first, second = Run.open(run.path), Run.open(Path("runs/latest"))
    before, after = method_of(first).state_dict(), method_of(second).state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert_close(value.float(), after[key].float())
    assert first.status["data"]["values"] == second.status["data"]["values"]


@pytest.mark.parametrize("exported", ["mlm"], indirect=True)
def test_exported_weights_of_transformers_are_read(exported, tmp_path):
    """What transformers writes again: the same features, also from shards and from a pickle of tensors."""
    run, folder = exported
    model = transformers.BertForMaskedLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoder = sslcli.load(run)
    encoder.preprocessor = replace(encoder.preprocessor, windows=1)  # transformers reads the start of a text
    expected = encoder.embed(MORE)
    for name, options in (("whole", {}), ("shards", {"max_shard_size": "5KB"})):
        model.save_pretrained(tmp_path / name, **options)
        tokenizer.save_pretrained(tmp_path / name)
        assert_close(sslcli.load(f"hf:{tmp_path / name}").embed(MORE), expected)
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    (tmp_path / "whole" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "whole" / "pytorch_model.bin")
    assert_close(sslcli.load(f"hf:{tmp_path / 'whole'}").embed(MORE), expected)


# ------------------------------------------------------------------------------------------------------- the command


def test_difference_is_said_and_printed_as_json(runs, cli):
    done = cli("export", str(runs("mlm")), "format=hf", "out=bert", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["format"] == "hf"
    assert record["difference"] <= TOLERANCE
    assert "check read back: the largest difference is 0.0e+00" in done.err
    assert "next  transformers.BertForMaskedLM.from_pretrained('bert')" in done.err


def test_same_export_is_kept_and_another_refused(runs, cli):
    assert cli("export", str(runs("mlm")), "format=hf", "out=bert").code == 0
    before = {p.name: p.stat().st_mtime_ns for p in Path("bert").iterdir()}
    assert cli("export", str(runs("mlm")), "format=hf", "out=bert").code == 0
    assert {p.name: p.stat().st_mtime_ns for p in Path("bert").iterdir()} == before
    refused = cli("export", str(runs("bert")), "format=hf", "out=bert")
    assert refused.code == 2
    assert "holds another encoder" in refused.err


@pytest.mark.parametrize("broken", ["weights", "tokenizer"])
def test_export_that_differs_writes_nothing(broken, runs, cli, monkeypatch):
    """Nothing is left of a folder that does not read back as the run's encoder."""
    from sslcli.formats.huggingface import writer

    if broken == "weights":
        monkeypatch.setattr(writer, "safetensors", spoilt(writer.safetensors))
    else:
        files = writer.write_tokenizer
        monkeypatch.setattr(writer, "write_tokenizer", lambda p: swap_tokens(files(p)))
    done = cli("export", str(runs("mlm")), "format=hf", "out=bert")
    assert done.code == 4, done.err
    assert "differs from that of the run by" in done.err
    assert os.listdir() == []


def spoilt(write):
    """A writer that changes one weight by 1e-2."""

    def changed(group, metadata=None):
        name = "bert.encoder.layer.0.output.dense.bias"
        return write({**group, name: group[name] + 1e-2 * torch.eye(16)[0]}, metadata)

    return changed


def swap_tokens(files: dict[str, str]) -> dict[str, str]:
    content = json.loads(files["tokenizer.json"])
    vocabulary = content["model"]["vocab"]
    vocabulary["the"], vocabulary["film"] = vocabulary["film"], vocabulary["the"]
    return {**files, "tokenizer.json": json.dumps(content)}


def test_run_without_checkpoints_is_exported_without_heads(runs, cli, tmp_path):
    import shutil

    shutil.copytree(runs("mlm"), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    done = cli("export", "run", "format=hf", "out=bert")
    assert done.code == 0, done.err
    assert "note  the run keeps no checkpoint of these weights: the backbone is exported without heads" in done.err
    assert json.loads(Path("bert/config.json").read_text())["architectures"] == ["BertModel"]


def test_electra_says_which_network_is_exported(runs, cli):
    done = cli("export", str(runs("electra")), "format=hf", "out=bert")
    assert done.code == 0, done.err
    assert "note  the discriminator is exported; the generator is not" in done.err


def test_other_backbones_are_refused(cli):
    assert cli("pretrain", "experiment=smoke", "device=cpu", "backbone.width=8").code == 0
    done = cli("export", "latest", "format=hf", "out=bert")
    assert done.code == 2
    assert "format=hf writes encoders of text with a BERT backbone" in done.err
    assert not Path("bert").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["format=hf"], "out is not given"),
        (["format=onnxx", "out=bert"], "format=onnxx: expected one of sslcli, hf, sentence_transformers"),
        (["format=hf", "out=none/bert"], "there is no folder"),
    ],
)
def test_wrong_requests(options, sentence, runs, cli):
    done = cli("export", str(runs("mlm")), *options)
    assert done.code == 2
    assert sentence in done.err


def test_command_table_names_the_formats():
    from sslcli.cli.entries.results import EXPORT_FORMATS
    from sslcli.formats.registry import FORMATS

    assert tuple(FORMATS) == EXPORT_FORMATS


# ------------------------------------------------------------------------------------------------------------- README.md


def test_card_has_results_with_their_protocol(runs, cli, tmp_path):
    import shutil

    shutil.copytree(runs("mlm"), tmp_path / "a_run|*bold*<b>")
    assert cli("eval", "fill", "run=a_run|*bold*<b>", "device=cpu").code == 0
    done = cli("export", "a_run|*bold*<b>", "format=hf", "out=bert")
    assert done.code == 0, done.err
    text = Path("bert/README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")
    assert "# a\\_run\\|\\*bold\\*\\<b\\>" in text
    assert "| method | mlm |" in text
    reads = "evaluations of sslcli average the features of up to 8 such windows of a longer text"
    assert f"| longest input | 24 tokens; {reads} |" in text
    numbers = json.loads((tmp_path / "a_run|*bold*<b>" / "eval" / "fill.json").read_text())["numbers"]
    assert f"| fill | perplexity | {numbers['perplexity']:.4g} |" in text
    assert "| fill | unigram.perplexity |" in text
    assert text.index("## Use") < text.index("## Evaluation")  # which may be hundreds of rows


def test_card_leaves_out_results_of_other_weights(runs, cli, tmp_path):
    import shutil

    shutil.copytree(runs("mlm"), tmp_path / "run")
    assert cli("eval", "fill", "run=run", "device=cpu").code == 0
    result = tmp_path / "run" / "eval" / "fill.json"
    result.write_text(json.dumps({**json.loads(result.read_text()), "step": 1}))
    assert cli("export", "run", "format=hf", "out=bert").code == 0
    assert "The run has no results for these weights." in Path("bert/README.md").read_text()
