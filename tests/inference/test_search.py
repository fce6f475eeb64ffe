"""sslcli search: exact nearest neighbors among embedded samples.

1. Neighbors and similarities are those of a slow reference.
2. Files are embedded by the encoder of the embeddings, which must have the same weights; ids need no encoder.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sslcli.evals.fit import neighbors
from sslcli.inference.embeddings.reader import Embeddings, read_embeddings
from sslcli.inference.search import Query, search
from tests.inference.encoders import encoder, export, image_encoder, text_encoder, write_images
from tests.inference.test_embed import CPU


def test_titles_of_earlier_versions_were_paths(tmp_path):
    about = {"encoder": {}, "settings": {"pool": "items"}}
    columns = {"id": np.array(["1", "2"]), "vector": np.ones((2, 3), np.float32), "meta": np.array(json.dumps(about))}
    for paths, titles in ((["Tea", "Cup"], ["Tea", "Cup"]), (["1", "2"], None)):
        np.savez(tmp_path / "e.npz", path=np.array(paths), **columns)
        found = read_embeddings(tmp_path / "e.npz")
        assert list(found.paths) == ["", ""]
        assert (None if found.titles is None else list(found.titles)) == titles


def test_neighbors_of_a_reference(monkeypatch):
    monkeypatch.setattr("sslcli.inference.search.BYTES", 4 * 6 * 100)
    g = np.random.default_rng(0)
    x = g.normal(size=(1050, 6)).astype("float32")
    x[17] = 0
    q = g.normal(size=(5, 6)).astype("float32")
    names = [f"s{i}" for i in range(len(x))]
    embeddings = Embeddings(names, [""] * len(x), None, x, {})
    queries = [Query(f"q{i}", torch.from_numpy(row)) for i, row in enumerate(q)] + [
        Query("s3", torch.from_numpy(x[3]), 3)
    ]
    found = search(embeddings, queries, 7)
    norms = np.maximum(np.linalg.norm(x.astype(float), axis=1), 1e-30)
    for query, near in zip(queries, found, strict=True):
        v = query.vector.numpy().astype(float)
        cosine = x.astype(float) @ v / norms / np.linalg.norm(v)
        if query.row is not None:
            cosine[query.row] = -2
        expected = np.argsort(-cosine)[:7]
        assert [n.id for n in near] == [names[i] for i in expected]
        np.testing.assert_allclose([n.similarity for n in near], cosine[expected], atol=1e-6)
    few = Embeddings(names[:4], [""] * 4, None, x[:4], {})
    assert [len(near) for near in search(few, queries, 7)] == [4] * 5 + [3]


def test_blocks_smaller_than_k():
    g = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(30, 4, generator=g), torch.randn(3, 4, generator=g)
    blocks = ((part, None) for part in bank.split(4))
    for ours, expected in zip(neighbors.nearest_in_blocks(blocks, queries, 9), (queries @ bank.T).topk(9), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.fixture
def embedded(cli, tmp_path) -> Path:
    export(image_encoder(), tmp_path / "enc")
    write_images(tmp_path / "photos", 12)
    assert cli("embed", "enc", "photos", "out=E.npz", *CPU).code == 0
    return tmp_path


def test_search_of_files_and_ids(cli, embedded):
    shutil.copy("photos/004.png", "query.png")
    result = cli("search", "E.npz", "query.png", "photos/002.png", "k=3", "page=near.html", "--json", *CPU)
    assert result.code == 0, result.err
    first, second = json.loads(result.out)["queries"]
    assert (first["query"], first["neighbors"][0]["id"]) == ("query.png", "photos/004.png")
    assert first["neighbors"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    assert [len(q["neighbors"]) for q in (first, second)] == [3, 3]
    assert "photos/002.png" not in [n["id"] for n in second["neighbors"]]
    text = cli("search", "E.npz", "photos/002.png", "k=2", *CPU).out.splitlines()
    assert text[0].split() == ["query", "rank", "similarity", "id"]
    assert len(text) == 3
    again = cli("search", "E.npz", "query.png", "page=near.html", *CPU)
    assert (again.code, "page=near.html exists" in again.err) == (2, True)
    page = Path("near.html").read_text()
    assert page.count("<img") == 2 + 3 + 3
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    shutil.rmtree("enc")
    assert cli("search", "E.npz", "photos/002.png", *CPU).code == 0
    result = cli("search", "E.npz", "query.png", *CPU)
    assert result.code == 2
    assert "cannot be opened" in result.err
    export(image_encoder(), embedded / "moved")
    assert cli("search", "E.npz", "query.png", "run=moved", *CPU).code == 0
    export(encoder("ViT", image_encoder().preprocessor, width=16, depth=2, heads=2), embedded / "enc")
    result = cli("search", "E.npz", "query.png", *CPU)
    assert result.code == 2
    assert "is not the encoder of these embeddings: its weights differ" in result.err


def test_search_of_texts_by_a_text(cli, tmp_path):
    """A query that is neither an id nor a file is a text for an encoder of text, with the vector of the same line of a file."""
    export(text_encoder(tmp_path), tmp_path / "enc")
    lines = ["the end of a line", "a start number 9", "the number of the end"]
    Path("some.txt").write_text("\n".join(lines) + "\n")
    assert cli("embed", "enc", "some.txt", "out=E.npz", *CPU).code == 0
    result = cli("search", "E.npz", lines[1], "of a start", "k=3", "page=near.html", "--json", *CPU)
    assert result.code == 0, result.err
    first, second = json.loads(result.out)["queries"]
    with np.load("E.npz", allow_pickle=False) as file:
        ids, vectors = file["id"].tolist(), file["vector"]
    own = vectors[1] / np.linalg.norm(vectors[1])
    cosine = vectors @ own / np.linalg.norm(vectors, axis=1)
    assert [n["id"] for n in first["neighbors"]] == [ids[i] for i in np.argsort(-cosine)]
    np.testing.assert_allclose([n["similarity"] for n in first["neighbors"]], np.sort(cosine)[::-1], atol=1e-5)
    assert (second["query"], len(second["neighbors"])) == ("of a start", 3)
    assert "of a start" in Path("near.html").read_text()
    assert "there is no file gone.txt" in cli("search", "E.npz", "gone.txt", *CPU).err


def test_bad_searches(cli, embedded):
    assert cli("embed", "enc", "photos", "out=T.npz", "pool=tokens", *CPU).code == 0
    Path("other.npz").write_bytes(Path("E.npz").read_bytes()[:3000])
    np.savez("plain.npz", vector=np.zeros((2, 2)))
    for words, code, error in (
        (["E.npz"], 2, "missing argument: QUERY"),
        ([], 2, "missing argument: E.npz"),
        (["F.npz", "x"], 2, "there is no file F.npz"),
        (["photos/000.png", "x"], 2, "expected a file .npz"),
        (["E.npz", "photos/02.png"], 2, "no embedded sample has this id"),
        (["E.npz", "photos/000.png", "k=0"], 2, "positive integer"),
        (["E.npz", "photos/000.png", "page=x.png"], 2, "a .html file is written"),
        (["T.npz", "photos/000.png"], 7, "pool=mean"),
        (["other.npz", "x"], 7, "holds no embeddings"),
        (["plain.npz", "x"], 7, "holds no embeddings"),
    ):
        result = cli("search", *words, *CPU)
        assert (result.code, error in result.err) == (code, True), (words, result.err)
