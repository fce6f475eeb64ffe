"""Features of files and data sets.

1. Their bits do not depend on the batch size, the workers, the threads or where a computation begins.
2. Unreadable samples are reported, and change the bits of no other one.
3. Files of every kind of data become samples with ids, paths and labels; files of another kind are refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli import api
from sslcli.data.dataset import ArraySource
from sslcli.errors import DataError, RequestError
from sslcli.inference.features import ROWS, FeatureExtractor, assemble, collect
from sslcli.inference.inputs import InputRequest, Inputs, read_inputs
from sslcli.inference.vectors.pooling import pooling
from tests.inference.encoders import SERIES, encoder, image_encoder, table_encoder, text_encoder, write_images

CPU = torch.device("cpu")


def read(trained, *files: Path | str) -> Inputs:
    return read_inputs(trained, InputRequest.parse([str(f) for f in files], {}, []))


def features(trained, inputs, **options):
    return collect(FeatureExtractor(trained.module, CPU, **options).blocks(inputs.source, inputs.dataset))


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder, 2 * ROWS + 9)
    for i, content in ((3, b"no image"), (ROWS + 1, b"")):
        (folder / f"{i:03}.png").write_bytes(content)
    return folder


def test_bits_do_not_depend_on_execution(photos):
    trained = image_encoder()
    inputs = read(trained, photos)
    x, ids, unreadable = features(trained, inputs)
    assert [Path(inputs.ids[i]).name for i in unreadable] == ["003.png"]
    assert {Path(p).name: reason for p, reason in inputs.unreadable.items()} == {
        f"{ROWS + 1:03}.png": "the file is empty"
    }
    assert len(x) == len(ids) == 2 * ROWS + 7
    for options in ({"batch_size": 1}, {"batch_size": 7}, {"batch_size": 200}, {"workers": 2}, {"threads": 3}):
        again, same, _ = features(trained, inputs, **options)
        assert torch.equal(again, x), options
        assert torch.equal(same, ids)
    extractor = FeatureExtractor(trained.module, CPU)
    later, place, _ = collect(extractor.blocks(inputs.source, inputs.dataset, 1, 2))
    assert torch.equal(later, x[torch.isin(ids, place)])


def test_python_has_the_same_bits(photos):
    trained = image_encoder()
    inputs = read(trained, photos)
    x, ids, _ = features(trained, inputs, channels_last=True)
    info = {**trained.info, "dataset": "photos", "input_shape": [3, 16, 16], "modality": "image"}
    opened = api.Encoder(trained.module, info, trained.preprocessor)
    paths = [inputs.paths[i] for i in ids[: ROWS // 2]]
    assert opened.embed([]).shape == (0, trained.dim)
    assert torch.equal(opened.embed(paths, batch_size=5), opened.embed([Image.open(p) for p in paths]))
    with pytest.raises(DataError, match="cannot be read"):
        opened.embed(str(photos))
    (photos / "003.png").rename(photos / "003.txt")
    (photos / f"{ROWS + 1:03}.png").unlink()
    try:
        inputs = read(trained, photos)
        x, _, _ = features(trained, inputs, channels_last=True)
        assert torch.equal(opened.embed(photos), x)
        assert torch.equal(opened.embed(list(inputs.paths)), x)
    finally:
        (photos / "003.txt").rename(photos / "003.png")
        (photos / f"{ROWS + 1:03}.png").touch()


def test_blocks_are_filled_by_position():
    """Against a slow reference: every row by itself."""
    x = torch.arange(150.0)[:, None]
    readable = torch.tensor([i for i in range(150) if i % 7 and not 64 <= i < 128])
    batches = [(part, x[part]) for part in readable.split(11)]
    blocks = list(assemble(batches, range(3), 150))
    assert [number for number, _, _ in blocks] == [0, 1, 2]
    assert torch.cat([ids for _, ids, _ in blocks]).tolist() == readable.tolist()
    assert blocks[1][2] is None
    for number, ids, block in (blocks[0], blocks[2]):
        assert block.shape == (ROWS, 1)
        for row in range(ROWS):
            i = ROWS * number + row
            assert float(block[row]) == (i if i in ids.tolist() else int(ids[0]))


def test_files_of_every_kind(tmp_path):
    g = np.random.default_rng(0)
    text, rows = text_encoder(tmp_path), table_encoder(tmp_path)
    signals = encoder("MLP", SERIES, width=8)
    (tmp_path / "a.txt").write_text("one line\n\nanother line\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "a row", "label": "x"}) + "\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "c.txt").write_text("a file\nof two lines\n")
    inputs = read(text, tmp_path / "a.txt", tmp_path / "b.jsonl", tmp_path / "texts")
    names = [*(f"{tmp_path}/a.txt:line {i}" for i in (1, 2, 3)), f"{tmp_path}/b.jsonl", f"{tmp_path}/texts/c.txt"]
    assert list(inputs.ids) == names
    assert [inputs.label(i) for i in range(5)] == [None, None, None, "x", None]
    assert inputs.paths[1] == str(tmp_path / "a.txt")
    x, ids, unreadable = features(text, inputs)
    assert (ids.tolist(), unreadable) == ([0, 2, 3, 4], {1: "the document is empty"})
    assert torch.equal(features(text, inputs, batch_size=1)[0], x)

    (tmp_path / "new.csv").write_text("kind,size,count\nb,1.5,2\na,,3\n")
    (tmp_path / "bad.csv").write_text("kind,size\nb,1.5\n")
    inputs = read(rows, tmp_path / "new.csv", tmp_path / "bad.csv", tmp_path / "train.csv")
    assert len(inputs) == 62
    assert "no column count" in inputs.unreadable[str(tmp_path / "bad.csv")]
    assert inputs.label(0) is None
    assert inputs.label(3) == "1"
    assert features(rows, inputs)[0].shape == (62, 16)

    np.savez(tmp_path / "s.npz", x=g.normal(size=(3, 2, 60)), y=[4, 5, 4])
    np.save(tmp_path / "t.npy", g.normal(size=(2, 2, 24)))
    inputs = read(signals, tmp_path / "s.npz", tmp_path / "t.npy")
    assert inputs.source.resident.sample_shape == (2, 24)
    assert inputs.label(0) == "4"
    assert features(signals, inputs)[0].shape == (len(inputs), 8)

    images = image_encoder()
    np.savez(tmp_path / "i.npz", x=g.integers(0, 255, (5, 20, 20), dtype=np.uint8))
    inputs = read(images, tmp_path / "i.npz")
    assert features(images, inputs)[0].shape == (5, 16)
    write_images(tmp_path / "p", 3)
    (tmp_path / "list.csv").write_text("path,label\np/001.png,cat\np/000.png,dog\np/absent.png,dog\n")
    inputs = read(images, tmp_path / "list.csv", tmp_path / "p" / "0*.png")
    assert [Path(p).name for p in inputs.paths] == ["001.png", "000.png", "002.png"]
    assert [inputs.label(i) for i in range(3)] == ["cat", "dog", None]
    assert list(inputs.unreadable) == ["p/absent.png"]


def test_files_of_another_kind_are_refused(tmp_path):
    write_images(tmp_path / "p", 1)
    (tmp_path / "a.txt").write_text("some words of a document\n")
    np.save(tmp_path / "t.npy", np.zeros((2, 3, 24)))
    text, rows = text_encoder(tmp_path), table_encoder(tmp_path)
    signals, images = encoder("MLP", SERIES, width=8), image_encoder()
    for trained, file, words in (
        (text, "p/000.png", "is no text"),
        (rows, "p/000.png", "is no table"),
        (signals, "a.txt", "holds no series"),
        (signals, "t.npy", r"shape \(2, 24\)"),
        (images, "train.jsonl", "there is no file"),
        (images, "tests", "there is no file"),
    ):
        with pytest.raises(RequestError, match=words):
            read(trained, tmp_path / file)
    for trained, file, words in (
        (images, "a.txt", "none of the 1 file"),
        (text, "p", "no table"),
        (rows, "p", "no table"),
    ):
        with pytest.raises(DataError, match=words):
            read(trained, tmp_path / file)
    with pytest.raises(RequestError, match="files have no split"):
        InputRequest.parse([str(tmp_path)], {}, [], "test")
    with pytest.raises(RequestError, match="both given"):
        InputRequest.parse([str(tmp_path)], {"dataset": {}}, ["dataset=digits"])


def test_pools(tmp_path):
    trained = image_encoder()
    module, x = trained.module, torch.randn(ROWS, 3, 16, 16)
    tokens = module.tokens(x)
    torch.testing.assert_close(pooling(module, "mean")(x), tokens[:, 1:].mean(dim=1))
    torch.testing.assert_close(pooling(module, "cls")(x), tokens[:, 0])
    torch.testing.assert_close(pooling(module, "tokens")(x), tokens[:, 1:])
    flat = encoder("MLP", SERIES, width=8).module
    assert pooling(flat, "mean") is None
    for pool in ("cls", "tokens", "sum"):
        with pytest.raises(RequestError, match=f"pool={pool}"):
            pooling(flat if pool != "sum" else module, pool)
    text = text_encoder(tmp_path)
    inputs = read(text, tmp_path / "train.txt")
    source = ArraySource(inputs.source.resident.select(torch.arange(3)))
    extractor = FeatureExtractor(text.module, CPU, pool=pooling(text.module, "mean"))
    own, _, _ = collect(FeatureExtractor(text.module, CPU).blocks(source, inputs.dataset))
    torch.testing.assert_close(collect(extractor.blocks(source, inputs.dataset))[0], own)
