"""sslcli embed: files of embeddings.

1. Every format holds id, path, label and vector, and what identifies the encoder.
2. The bytes are those of an uninterrupted command after a kill, and of one process with several.
3. A file of another encoder or of other settings is never replaced; bad requests and full disks are errors with a hint.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sslcli.inference.embeddings import staging
from sslcli.inference.embeddings.reader import read_embeddings
from sslcli.inference.features import ROWS
from tests.conftest import Killed
from tests.inference.encoders import export, image_encoder, table_encoder, write_images

CPU = ("device=cpu", "device.threads=1", "device.workers=0")


@pytest.fixture
def here(tmp_path) -> Path:
    export(image_encoder(), tmp_path / "enc")
    write_images(tmp_path / "photos", 2 * ROWS + 5)
    (tmp_path / "photos" / "007.png").write_bytes(b"no image")
    rows = "".join(f"photos/{i:03}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(9))
    (tmp_path / "list.csv").write_text("path,label\n" + rows)
    return tmp_path


def test_formats(cli, here):
    pytest.importorskip("pyarrow")
    result = cli("embed", "enc", "list.csv", "out=E.npz", *CPU)
    assert (result.code, result.out) == (0, "E.npz\n"), result.err
    assert "1 file left out" in result.err
    content = np.load("E.npz")
    assert sorted(content) == ["id", "label", "meta", "path", "vector"]
    meta = json.loads(str(content["meta"]))
    assert meta["encoder"]["sha256"] == json.loads(Path("enc/encoder.json").read_text())["sha256"]
    assert [Path(name).name for name in meta["unreadable"]] == ["007.png"]
    vectors = content["vector"]
    assert vectors.shape == (8, 16)
    assert vectors.std() > 0
    for ending in ("npy", "safetensors", "parquet"):
        result = cli("embed", "enc", "list.csv", f"out=E.{ending}", "--json", *CPU)
        printed = json.loads(result.out)
        assert (printed["samples"], printed["shape"], len(printed["unreadable"])) == (8, [16], 1)
        found = read_embeddings(Path(f"E.{ending}"))
        assert np.array_equal(found.vectors, vectors), ending
        assert list(found.ids) == content["id"].tolist()
        assert list(found.paths) == content["path"].tolist()
        assert list(found.labels) == content["label"].tolist()
        assert found.meta == meta
    assert np.array_equal(np.load("E.npy"), vectors)
    assert np.array_equal(load_file("E.safetensors")["vector"], vectors)
    rows = list(csv.reader(Path("E.npy.csv").read_text().splitlines()))
    assert rows[0] == ["id", "path", "label"]
    assert rows[1][2] == "dog"
    assert sorted(p.name for p in here.iterdir() if p.name.startswith(".")) == []


def test_pool_of_tokens(cli, here):
    assert cli("embed", "enc", "list.csv", "out=T.npz", "pool=tokens", *CPU).code == 0
    assert cli("embed", "enc", "list.csv", "out=T.parquet", "pool=tokens", *CPU).code == 0
    tokens = np.load("T.npz")["vector"]
    assert tokens.shape[0] == 8
    assert tokens.shape[2] == 16
    assert np.array_equal(read_embeddings(Path("T.parquet")).vectors, tokens)
    assert cli("embed", "enc", "list.csv", "out=M.npz", "pool=mean", *CPU).code == 0
    np.testing.assert_allclose(np.load("M.npz")["vector"], tokens.mean(axis=1), rtol=1e-4, atol=1e-5)


def test_killed_command_continues_with_the_same_bytes(cli, here, monkeypatch):
    monkeypatch.setattr(staging, "COMMIT_SECONDS", 0.0)
    assert cli("embed", "enc", "photos", "out=whole.npz", *CPU).code == 0
    add = staging.Staging.add

    def killed(self, block):
        add(self, block)
        if block.number == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(staging.Staging, "add", killed)
        with pytest.raises(Killed):
            cli("embed", "enc", "photos", "out=E.npz", *CPU)
    with open(".E.npz.partial/vectors.bin", "ab") as file:
        file.write(b"half a row")
    assert not Path("E.npz").exists()
    other = cli("embed", "enc", "list.csv", "out=E.npz", *CPU)
    assert other.code == 2
    assert "of another encoder, other samples or settings" in other.err
    result = cli("embed", "enc", "photos", "out=E.npz", "--json", *CPU)
    assert json.loads(result.out)["resumed"] == 2 * ROWS
    assert Path("E.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert "complete already" in cli("embed", "enc", "photos", "out=E.npz", *CPU).err


def test_two_processes_write_the_same_bytes(cli, here):
    assert cli("embed", "enc", "photos", "out=one.npz", *CPU).code == 0
    result = cli("embed", "enc", "photos", "out=two.npz", "batch_size=7", "train.devices=2", *CPU)
    assert result.code == 0, result.err
    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()


def test_existing_file_is_not_replaced(cli, here):
    assert cli("embed", "enc", "list.csv", "out=E.npz", *CPU).code == 0
    before = Path("E.npz").read_bytes()
    export(table_encoder(here), here / "rows")
    Path("other.npz").write_bytes(b"something")
    for words, error in (
        (("enc", "list.csv", "out=E.npz", "pool=cls"), "other embeddings: settings differ"),
        (("enc", "photos", "out=E.npz"), "other embeddings: samples differ"),
        (("rows", "train.csv", "out=E.npz"), "other embeddings: encoder, preprocessor, samples"),
        (("enc", "list.csv", "out=other.npz"), "holds no embeddings"),
    ):
        result = cli("embed", *words, *CPU)
        assert result.code == 2, words
        assert error in result.err
    assert Path("E.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["enc", "photos"], 2, "out is not given"),
        (["enc", "photos", "out=E.csv"], 2, "expected a file .npz"),
        (["enc", "photos", "out=no/E.npz"], 2, "there is no folder"),
        (["enc", "out=E.npz"], 2, "is no run"),
        (["photos/000.png", "out=E.npz"], 2, "the first argument is the encoder"),
        (["out=E.npz"], 2, "missing argument: RUN"),
        (["enc", "absent.png", "out=E.npz"], 2, "there is no file absent.png"),
        (["enc", "photos", "out=E.npz", "method=simclr"], 2, "unexpected argument"),
        (["enc", "photos", "out=E.npz", "pool=max"], 2, "pool=max"),
        (["enc", "photos", "out=E.npz", "split=test"], 2, "files have no split"),
        (["enc", "photos", "dataset=digits", "out=E.npz"], 2, "both given"),
        (["enc", "dataset=breast_cancer", "out=E.npz"], 2, "takes image samples"),
        (["enc", "photos", "out=E.npz", "batch_size=0"], 2, "positive integer"),
        (["rows", "photos/000.png", "out=E.npz"], 2, "is no table"),
        (["enc", "photos/007.png", "out=E.npz"], 7, "no sample can be read"),
    ],
)
def test_bad_requests(cli, here, words, code, error):
    if words[0] == "rows":
        export(table_encoder(here), here / "rows")
    result = cli("embed", *words, *CPU)
    assert result.code == code, result.err
    assert error in result.err
    assert not [p for p in here.iterdir() if "E.npz" in p.name]


def test_full_disk_loses_nothing(cli, here, monkeypatch):
    monkeypatch.setattr(staging, "COMMIT_SECONDS", 0.0)
    write = os.write

    def full(fd, data):
        if len(data) > 2000 and os.fstat(fd).st_size > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        result = cli("embed", "enc", "photos", "out=E.npz", *CPU)
    assert result.code == 5, result.err
    assert "No space left" in result.err
    result = cli("embed", "enc", "photos", "out=E.npz", "--json", *CPU)
    assert json.loads(result.out)["resumed"] == ROWS
