"""Every evaluator, files, texts, reports and exports of small runs on images with captions."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import SMOKE, Result

OPTIONS = {  # of evaluators
    "probe": "labels=2/class",
    "knn": "",
    "finetune": "labels=2/class evaluator.epochs=1 evaluator.min_steps=3",
    "labels": "evaluator.amounts=[2] evaluator.seeds=1 evaluator.supervised=false",
    "anomaly": "evaluator.scores=[knn]",
    "cluster": "evaluator.k_max=3",
    "retrieval": "",
    "quality": "evaluator.groups=8 evaluator.views=2 evaluator.samples=60",
    "explain": "evaluator.samples=4",
    "robustness": "evaluator.max_samples=10",
    "zeroshot": "",
}
DATA = "dataset=shapes dataset.samples=116 dataset.test_samples=58 dataset.size=16"
ENCODER = ["encoder.json", "encoder.safetensors"]
TOWER = "method.tower_settings={width: 16, depth: 1, dropout: 0.0}"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run of clip."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("pairs")
    words = ["pretrain", "method=clip", "backbone.width=8", TOWER, *DATA.split(), *SMOKE, "train.batch_size=29"]
    with contextlib.chdir(folder):
        assert main([*words, "train.steps=8", "train.devices=1", "hydra.run.dir=runs/clip"]) == 0
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def test_evaluators_and_report(trained, tmp_path):
    for name, options in OPTIONS.items():
        result = trained("eval", name, *shlex.split(options))
        assert result.code == 0, (name, result.err)
    record = json.loads((tmp_path / "runs" / "clip" / "eval" / "zeroshot.json").read_text())
    numbers = record["numbers"]
    assert {"top1", "top5", "text_recall@1", "image_recall@10", "chance.top1", "untrained.top1"} <= numbers.keys()
    assert numbers["chance.top1"] == pytest.approx(1 / 36)
    terms = list((tmp_path / "runs" / "clip" / "eval").glob("cluster*terms*.csv"))
    assert terms, "clusters have words"
    report = trained("runs", "report")
    assert report.code == 0, report.err
    assert "Zero-shot" in (tmp_path / report.last).read_text(encoding="utf-8")


def test_next_step_is_zero_shot(trained):
    result = trained("resume", "runs/clip")
    assert "next  sslcli eval zeroshot" in result.err


def test_search_by_text(trained, tmp_path):
    result = trained("embed", "runs/clip", "out=e.npz", "pool=shared", "split=test")
    assert result.code == 0, result.err
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        vectors, ids = file["vector"], file["id"].tolist()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    result = trained("search", "e.npz", "a red square", ids[3], "k=4", "page=near.html", "--json")
    assert result.code == 0, result.err
    found = {q["query"]: [n["id"] for n in q["neighbors"]] for q in json.loads(result.out)["queries"]}
    text, expected = expected_neighbors(tmp_path, "a red square")
    np.testing.assert_allclose(vectors @ text, expected, atol=1e-5)
    assert found["a red square"] == [ids[i] for i in np.argsort(-expected)[:4]]
    assert ids[3] not in found[ids[3]]
    assert "a red square" in (tmp_path / "near.html").read_text()
    assert "has no word" in trained("search", "e.npz", "unicorns").err
    for file in ("gone.png", "a gone photo.jpeg", "gone/photo", "gone/*.png"):
        assert f"there is no file {file}" in trained("search", "e.npz", file).err
    for text in ("red " * 99, "is it 9.5 red?"):
        assert trained("search", "e.npz", text).code == 0, text
    plain = trained("embed", "runs/clip", "out=plain.npz", "split=test")
    assert plain.code == 0, plain.err
    assert "pool=shared" in trained("search", "plain.npz", "a red square").err


def expected_neighbors(folder: Path, text: str) -> tuple[np.ndarray, np.ndarray]:
    """The vector of a text, and its similarity to each test image, from the method itself."""
    from sslcli.builders import load_dataset, load_method
    from sslcli.rng import Draw
    from sslcli.runs.run import Run
    from sslcli.views import clean
    from sslcli.views.image_text.captions import encode_texts

    run = Run(folder / "runs" / "clip")
    data = load_dataset(run.valid_config)
    method, _ = load_method(run, run.valid_config, data)
    n = len(data.test)
    with torch.no_grad():
        x = clean(data)(data.test.x, Draw(0, 0, torch.arange(n)))[0]
        vector = method.caption_vectors(encode_texts([text], data.preprocessor.captions))[0]
        return vector.numpy(), (method.sample_vectors(x) @ vector).numpy()


def test_other_data_and_templates(trained, tmp_path):
    unseen = trained("eval", "zeroshot", *DATA.split(), "dataset.combinations=unseen", "--json")
    assert unseen.code == 0, unseen.err
    assert "top1" in json.loads(unseen.out)["numbers"]
    named = trained(
        "eval", "zeroshot", "evaluator.templates=['a picture of a {}']", "evaluator.names={red star: blue ring}"
    )
    assert named.code == 0, named.err
    assert "several classes have the same name, and zero-shot accuracy cannot distinguish them: blue ring" in named.err
    record = json.loads((tmp_path / "runs" / "clip" / "eval" / "zeroshot.json").read_text())
    assert record["protocol"]["classes"] == 36
    assert "got none" in trained("eval", "zeroshot", "evaluator.templates=[]").err
    assert "expected texts with {}" in trained("eval", "zeroshot", "evaluator.templates=[hello]").err
    assert "did you mean red star" in trained("eval", "zeroshot", "evaluator.names={red stars: star}").err
    pixels = np.random.default_rng(0).integers(0, 255, (40, 3, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "plain.npz", x=pixels, y=np.arange(40) % 2)
    words = ["dataset=arrays", "dataset.path=plain.npz", "evaluator.names={0: red star, 1: gray triangle}"]
    unnamed = trained("eval", "zeroshot", *words[:2])
    assert unnamed.code == 2
    assert "evaluator.names={class: text}" in unnamed.err
    plain = trained("eval", "zeroshot", *words, "--json")
    assert plain.code == 0, plain.err
    assert set(json.loads(plain.out)["numbers"]) == {"top1", "chance.top1", "untrained.top1"}
    assert trained("eval", "probe", "dataset=arrays", "dataset.path=plain.npz").code == 0


def test_files_are_predicted_and_exported(trained, tmp_path):
    from PIL import Image

    (tmp_path / "new").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (200, 20 * i, 30)).save(tmp_path / "new" / f"{i}.png")
    assert trained("eval", "probe").code == 0
    result = trained("predict", "runs/clip", "new", "out=p.csv")
    assert result.code == 0, result.err
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4
    assert trained("export", "runs/clip", "format=torch_export", "out=exported").code == 0
    picked = trained("pick", "runs/clip", "n=5", "out=picks.csv")
    assert picked.code == 0, picked.err
    audit = trained("data", "audit", *DATA.split())
    assert audit.code in (0, 1), audit.err


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_names_of_classes_predict(trained, tmp_path):
    from PIL import Image

    assert trained("eval", "zeroshot", "evaluator.baselines=false").code == 0
    assert trained("predict", "latest", "from=zeroshot", "split=test", "probabilities=all", "out=all.csv").code == 0
    own = rows_of(tmp_path / "all.csv")
    evaluated = rows_of(tmp_path / "runs" / "clip" / "eval" / "zeroshot_predictions.csv")
    assert [row["class"] for row in own] == [row["predicted"] for row in evaluated]
    assert list(own[0])[:6] == ["path", "class", "probability", "runner_up", "runner_up_probability", "error"]
    assert "distance" not in own[0]
    shares = [{k: float(v) for k, v in row.items() if k.startswith("probability_")} for row in own]
    assert [len(row) for row in shares] == [36] * 58
    assert all(sum(row.values()) == pytest.approx(1) for row in shares)
    assert all(max(row.values()) == row[f"probability_{o['class']}"] for row, o in zip(shares, own, strict=True))

    (tmp_path / "photos").mkdir()
    for name, color in {"a": (200, 30, 30), "b": (30, 60, 200)}.items():
        Image.new("RGB", (16, 16), color).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "names.txt").write_text("red\n\ngreen circle\n")
    given = "classes={r: red, g: green circle}"
    template = 'templates=["a {}"]'
    assert trained("predict", "latest", "photos", "from=zeroshot", given, template, "out=map.csv").code == 0
    assert (
        trained("predict", "latest", "photos", "from=zeroshot", "classes=names.txt", template, "out=txt.csv").code == 0
    )
    by_map, by_file = (rows_of(tmp_path / name) for name in ("map.csv", "txt.csv"))
    assert [Path(row["path"]).name for row in by_map] == ["a.png", "b.png"]
    assert [row["probability_r"] for row in by_map] == [row["probability_red"] for row in by_file]
    other = trained("predict", "latest", "photos", "from=zeroshot", given, "templates=x {} y", "--json")
    assert json.loads(other.out.splitlines()[0])["probability_r"] != float(by_map[0]["probability_r"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["from=zeroshot", "classes=[red]"], "two or more different names"),
        (["from=zeroshot", "classes=[red,red]"], "two or more different names"),
        (["from=zeroshot", "classes=none.txt"], "cannot be read"),
        (["from=zeroshot", "classes=[red,{a: b}]"], "expected texts"),
        (["from=zeroshot", "classes=[red"], "not valid YAML"),
        (["from=zeroshot", "classes=[qqq,zzz]"], "no word of the names"),
        (["from=zeroshot", "templates=a photo"], "expected texts with {}"),
        (["classes=[red,green]"], "from=zeroshot classes="),
    ],
)
def test_bad_names_of_classes_are_refused(trained, words, message):
    result = trained("predict", "latest", *words)
    assert result.code == 2, result.err
    assert message in result.err


def test_both_towers_are_exported(trained, tmp_path):
    from sslcli.data.image_text.preprocessor import PairsPreprocessor
    from sslcli.inference.encoder import open_trained
    from sslcli.inference.vectors.shared_space import SharedSpace, shared_encoder
    from sslcli.views.image_text.captions import encode_texts

    encoder = shared_encoder(open_trained("runs/clip"))
    space, own = encoder.module, encoder.preprocessor
    assert isinstance(space, SharedSpace)
    assert isinstance(own, PairsPreprocessor)
    texts = ["a red circle", "green", "a large blue square below"]
    inputs = {"text": encode_texts(texts, own.captions), "image": torch.randn(3, *own.shape)}
    with torch.no_grad():
        vectors = {"text": space.of_texts(texts), "image": space(inputs["image"])}
    for tower, x in inputs.items():
        result = trained("export", "latest", "format=torch_export", f"tower={tower}", f"out={tower}")
        assert result.code == 0, result.err
        program = torch.export.load(tmp_path / tower / "encoder.pt2").module()
        assert float((program(x) - vectors[tower]).detach().abs().max()) < 1e-5
        about = json.loads((tmp_path / tower / "metadata.json").read_text())
        assert (about["tower"], about["output"]) == (tower, {"features": vectors[tower].shape[1]})
        assert about["scale"] == pytest.approx(space.method.similarity_scale())
    assert about["modality"] == "pairs"
    code = "import json, sys; sys.path.insert(0, '.'); from preprocess import Preprocessor; "
    code += "print(Preprocessor().encode(json.loads(sys.argv[1])).tolist())"
    words = [sys.executable, "-c", code, json.dumps(texts)]
    made = subprocess.run(words, cwd=tmp_path / "text", capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == inputs["text"].tolist()
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    assert trained("export", "latest", "format=onnx", "tower=text", "out=onnx").code == 0
    session = runtime.InferenceSession(tmp_path / "onnx" / "encoder.onnx")
    (found,) = session.run(None, {"input": inputs["text"].numpy()})
    assert np.abs(found - vectors["text"].numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tower=text"], "format=sslcli has no tower"),
        (["tower=text", "format=timm"], "format=timm has no tower"),
        (["tower=sound", "format=onnx"], "expected image or text"),
        (["tower=text", "format=torch_export", "head=probe"], "no classifier"),
    ],
)
def test_bad_towers_are_refused(trained, tmp_path, words, message):
    result = trained("export", "latest", "out=x", *words)
    assert result.code == 2, result.err
    assert message in result.err
    assert not (tmp_path / "x").exists()


def test_weights_pass_between_images_and_pairs(trained):
    """A run on pairs begins with an encoder of images, or ends as one."""
    images = ["backbone=convnet", "backbone.width=8", *SMOKE, "train.batch_size=29", "train.steps=2"]
    from_pairs = trained(
        "pretrain", "method=simclr", *DATA.split(), "init=runs/clip", *images, "hydra.run.dir=runs/simclr"
    )
    assert from_pairs.code == 0, from_pairs.err
    words = ["pretrain", "method=clip", TOWER, *DATA.split(), *images]
    locked = trained(*words, "init=runs/simclr", "train.freeze=all", "hydra.run.dir=runs/locked")
    assert locked.code == 0, locked.err
    assert (
        "trains no other network"
        in trained("pretrain", "method=simclr", *DATA.split(), *images, "train.freeze=all").err
    )
    from safetensors.torch import load_file

    before, after = (load_file(Path("runs") / name / "encoder.safetensors") for name in ("simclr", "locked"))
    assert all(torch.equal(before[key], after[key]) for key in before if not key.endswith("num_batches_tracked"))


def test_frozen_encoder_of_captions(trained, tmp_path):
    lines = "".join(
        f"a {c} {s}\n" for c in ("red", "green", "blue") for s in ("circle", "ring", "star") for _ in range(5)
    )
    (tmp_path / "lines.txt").write_text(lines)
    small = ["backbone=bert_tiny", "backbone.width=16", "backbone.depth=1", "backbone.heads=2"]
    words = ["pretrain", "method=mlm", "dataset=text_lines", "dataset.path=lines.txt", "dataset.tokenizer=words"]
    text = trained(*words, "dataset.max_length=16", *small, *SMOKE, "train.batch_size=16", "hydra.run.dir=runs/text")
    assert text.code == 0, text.err
    words = ["pretrain", "method=siglip", *DATA.split(), "backbone.width=8", *SMOKE, "train.batch_size=29"]
    lit = trained(*words, "method.tower=runs/text", "hydra.run.dir=runs/lit", "train.steps=3")
    assert lit.code == 0, lit.err
    assert "frozen" in lit.err
    assert trained("eval", "zeroshot", "run=runs/lit").code == 0
    assert sorted(p.name for p in Path("runs/lit/encoders/tower").iterdir()) == [*ENCODER, "preprocessor"]
    (tmp_path / "runs" / "text").rename(tmp_path / "moved")
    resumed = trained("resume", "runs/lit", "train.steps=5")
    assert resumed.code == 0, resumed.err
    for command in ("eval zeroshot run=runs/lit", "embed runs/lit out=E.npz pool=shared", "runs report runs/lit"):
        done = trained(*command.split())
        assert done.code == 0, done.err
    shutil.rmtree("runs/lit/encoders")  # as in a run of an earlier version
    assert "error: method.tower: there is no run" in trained("eval", "zeroshot", "run=runs/lit").err
    (tmp_path / "moved").rename(tmp_path / "runs" / "text")
    assert "is no encoder of text" in trained(*words, "method.tower=runs/clip").err
    assert "expected a backbone, a run" in trained(*words, "method.tower=null").err
    assert "expected keys of a backbone" in trained(*words, "method.tower_settings=5").err
    assert "did you mean method.tower=bert_tiny?" in trained(*words, "method.tower=bert_tinny").err
    for keys, message in (
        ("{widht: 16}", "did you mean `method.tower_settings.width`?"),
        ("{width: 17}", "_settings.width=17"),
    ):
        assert message in trained(*words, f"method.tower_settings={keys}").err
    assert "for example method.tower=b" in trained(*words, "method.tower=convnet").err
    assert "method.tower=bert_tiny, or" in trained(*words, "method.tower=bert_tinny", TOWER).err
    assert "settings of other encoders" in trained(*words, "method.tower=runs/text", TOWER).err


def test_clip_beside_another_method(cli):
    tasks = ["method=multitask", "method.tasks=[clip,simclr]", "method.settings={clip: {tower: bert_micro}}"]
    words = ["pretrain", *tasks, *DATA.split(), "backbone.width=8", *SMOKE, "train.batch_size=29"]
    assert "'+augmentation.paired={OP: {}}' adds one" in cli(*words).err
    run = cli(*words, "+augmentation.paired={random_resized_crop: {scale: [0.9, 1.0]}}")
    assert run.code == 0, run.err
    result = cli("eval", "zeroshot", "--json")
    assert result.code == 0, result.err
    assert "untrained.text_recall@1" in json.loads(result.out)["numbers"]


def test_methods_say_what_they_need(cli):
    assert "do not provide" in cli("pretrain", "method=clip", "dataset=digits", "backbone=convnet", *SMOKE).err
    run = cli("pretrain", "method=simclr", *DATA.split(), "backbone.width=8", *SMOKE, "train.batch_size=29")
    assert run.code == 0, run.err
    assert "does not read captions" in cli("eval", "zeroshot").err
    assert "does not read captions" in cli("embed", "latest", "pool=shared", "out=e.npz").err
