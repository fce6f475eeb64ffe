from __future__ import annotations

import io
import os
import zipfile

import numpy as np
import pytest
import torch

from sslcli.data.files import array_file as module
from sslcli.data.sources.arrays import arrays
from sslcli.data.sources.series import series
from sslcli.errors import DataError, MachineError, RequestError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 12, 10), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
Y = np.arange(20) % 4


def say(d) -> str:
    return "\n".join(d.notes)


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [
        ((20, 12, 10), "(N, H, W)", 1),
        ((20, 12, 10, 3), "(N, H, W, C)", 3),
        ((20, 3, 12, 10), "(N, C, H, W)", 3),
        ((20, 12, 10, 1), "(N, H, W, C)", 1),
        ((20, 7, 12, 10), "(N, C, H, W)", 7),
        ((20, 12, 10, 5), "(N, H, W, C)", 5),
    ],
)
def test_axes_are_detected_and_noted(shape, layout, channels, tmp_path):
    v = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "x.npy", v)
    d = arrays(str(tmp_path / "x.npy"), holdout=0)
    assert layout in say(d)
    assert d.train.resident.tensor.shape == (20, channels, 12, 10)
    expected = v if v.ndim == 3 else v if layout == "(N, C, H, W)" else v.transpose(0, 3, 1, 2)
    assert np.array_equal(
        d.train.resident.tensor.numpy().reshape(20, channels, 12, 10), expected.reshape(20, channels, 12, 10)
    )
    assert d.shape == (channels, 10, 10)
    assert len(d.values.mean) == channels


def test_layout_option(tmp_path):
    v = RNG.integers(0, 256, (9, 4, 8, 4), dtype=np.uint8)
    np.save(tmp_path / "x.npy", v)
    with pytest.raises(DataError, match="is ambiguous") as error:
        arrays(str(tmp_path / "x.npy"))
    assert "dataset.layout" in error.value.hint
    assert arrays(str(tmp_path / "x.npy"), layout="nchw").shape == (4, 4, 4)
    assert arrays(str(tmp_path / "x.npy"), layout="nhwc", holdout=0).train.resident.tensor.shape == (9, 4, 4, 8)
    with pytest.raises(RequestError, match="requires 3 axes"):
        arrays(str(tmp_path / "x.npy"), layout="nhw")
    with pytest.raises(RequestError, match="layout"):
        arrays(str(tmp_path / "x.npy"), layout="chw")


@pytest.mark.parametrize(
    ("keys", "sizes", "labelled"),
    [
        (("x", "y"), (16, 4), True),
        (("data", "labels"), (16, 4), True),
        (("images",), (20, 0), False),
        (("X_train", "Y_train", "X_test", "Y_test"), (20, 20), True),
        (("train_images", "train_labels", "val_images", "val_labels"), (20, 20), True),
        (("train", "test"), (20, 20), False),
        (("x", "y", "x_test", "y_test"), (20, 20), True),
        (("anything",), (20, 0), False),
    ],
)
def test_names(keys, sizes, labelled, tmp_path):
    content = {k: Y if k.lower().startswith("y") or "label" in k else X for k in keys}
    np.savez(tmp_path / "d.npz", **content)
    torch.save({k: torch.from_numpy(v) for k, v in content.items()}, tmp_path / "d.pt")
    (tmp_path / "folder").mkdir()
    for k, v in content.items():
        np.save(tmp_path / "folder" / f"{k}.npy", v)
    prints = set()
    for path in ("d.npz", "d.pt", "folder"):
        d = arrays(str(tmp_path / path))
        assert (len(d.train), len(d.test or ())) == sizes, path
        assert d.classes == (("0", "1", "2", "3") if labelled else ())
        prints.add(d.fingerprint)
    assert len(prints) == 1
    assert arrays(str(tmp_path / "d.npz"), label="none").classes == ()


def test_pair_in_pt_and_parts_in_a_folder(tmp_path):
    torch.save((torch.from_numpy(X), torch.from_numpy(Y)), tmp_path / "pair.pt")
    assert len(arrays(str(tmp_path / "pair.pt")).classes) == 4
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f" / "train.npz", x=X, y=Y)
    np.savez(tmp_path / "f" / "test.npz", x=X[:5] ^ 255, y=Y[:5])
    d = arrays(str(tmp_path / "f"))
    assert (len(d.train), len(d.test), len(d.classes)) == (20, 5, 4)


def test_labels_of_every_kind(tmp_path):
    def build(y):
        np.savez(tmp_path / "d.npz", x=X, y=y)
        return arrays(str(tmp_path / "d.npz"), holdout=0)

    assert build(np.array([f"c{i % 12}" for i in range(20)])).classes[:3] == ("c0", "c1", "c10")
    assert build(np.array([str(i % 12) for i in range(20)])).classes[:3] == ("0", "1", "2")
    assert build(Y[:, None]).train.labels.tolist() == Y.tolist()
    assert build(np.eye(4)[Y]).train.labels.tolist() == Y.tolist()
    some = Y.astype(float)
    some[:3] = np.nan
    assert build(some).train.labels[:4].tolist() == [-1, -1, -1, 3]
    assert build(np.where(Y == 0, -1, Y * 10)).classes == ("10", "20", "30")
    assert "5 labels below 0" in say(build(np.where(Y == 0, -1, Y)))
    signs = build(np.where(Y < 2, -1, 1))  # as many binary sets have them
    assert signs.classes == ("-1", "1")
    assert signs.train.labels[:4].tolist() == [0, 0, 1, 1]
    words = build(np.array(["a", "b", "nan", "None"] * 5))
    assert words.classes == ("a", "b")
    assert words.train.labels[:4].tolist() == [0, 1, -1, -1]
    assert "10 labels read as missing" in say(words)
    assert "several labels" in say(build(np.array(["a", "b", "a|b", "b"] * 5)))
    for y, reason in [
        (Y[:-1], "20 samples but 19 labels"),
        (np.where(Y == 0, np.inf, 1.0), "not integers"),
        (np.zeros((20, 2)), "have the shape"),
    ]:
        with pytest.raises(DataError, match=reason):
            build(y)


def test_label_entry_by_name(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y, sex=Y % 2)
    assert len(arrays(str(tmp_path / "d.npz"), label="sex").classes) == 2
    with pytest.raises(RequestError, match="is not an entry") as error:
        arrays(str(tmp_path / "d.npz"), label="sx")
    assert "dataset.label=sex" in error.value.hint


@pytest.mark.parametrize(
    ("values", "messages"),
    [
        (X.astype(np.float32) / 255, "0..1 scaled to"),
        (X.astype(np.float64), "0..255 scaled to"),
        (X.astype(np.int64), "0..255 scaled to"),
        (X > 127, "0..1 scaled to"),
    ],
)
def test_nominal_ranges_are_scaled_to_bytes(values, messages, tmp_path):
    np.save(tmp_path / "x.npy", values)
    d = arrays(str(tmp_path / "x.npy"), holdout=0)
    assert messages in say(d)
    expected = X if values.dtype != bool else np.where(X > 127, 255, 0)
    assert np.array_equal(d.train.resident.tensor[:, 0].numpy(), expected)


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        (X.astype(np.uint16) * 257, "[0,65535]"),
        (X.astype(np.int32) * 8, "[0,4095]"),
        (X.astype(np.float32) / 127.5 - 1, "[-1,1]"),
        (X.astype(np.float32) * (16 / 255), "[0,16]"),
    ],
)
def test_unknown_value_range_has_hint(values, hint, tmp_path):
    values.reshape(-1)[:2] = values.min(), values.max()
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match="from black to white") as error:
        arrays(str(tmp_path / "x.npy"))
    assert f"dataset.range={hint}" in error.value.hint
    low, high = (float(v) for v in hint[1:-1].split(","))
    d = arrays(str(tmp_path / "x.npy"), range=[low, high], holdout=0)
    expected = np.rint((values.astype(float) - low) * 255 / (high - low))
    assert np.abs(d.train.resident.tensor[:, 0].numpy() - expected).max() == 0
    assert arrays(str(tmp_path / "x.npy"), range="minmax", holdout=0).train.resident.tensor.max() == 255
    for wrong in ("wide", [1], [2, 1], 5):
        with pytest.raises(RequestError, match="range"):
            arrays(str(tmp_path / "x.npy"), range=wrong)


def test_duplicates_between_train_and_test_warn(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=X, x_test=np.concatenate([X[:2], X[2:4] ^ 1]))
    assert "2 test samples also in train" in say(arrays(str(tmp_path / "d.npz")))


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("o.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez("o.npz", x=np.array([Evil()], dtype=object), allow_pickle=True)
    torch.save({"x": Evil()}, "o.pt")
    for file in ("o.npy", "o.npz", "o.pt"):
        with pytest.raises(DataError, match=r"execute code") as error:
            arrays(str(tmp_path / file))
        assert error.value.hint
    assert not (tmp_path / "owned").exists()


def test_corrupt_array_files(tmp_path):
    np.save(tmp_path / "whole.npy", X)
    np.savez(tmp_path / "whole.npz", x=X)
    for ext in ("npy", "npz"):
        data = (tmp_path / f"whole.{ext}").read_bytes()
        (tmp_path / f"cut.{ext}").write_bytes(data[: len(data) // 2])
    for name in ("text.npy", "text.npz", "text.pt"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "empty.npy").write_bytes(b"")
    for file in ("cut.npy", "cut.npz", "text.npy", "text.npz", "text.pt", "empty.npy"):
        with pytest.raises(DataError):
            arrays(str(tmp_path / file))


def test_npz_larger_than_memory_is_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as z:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((100, 100, 100), np.uint8))
        z.writestr("x.npy", buffer.getvalue())
    monkeypatch.setattr(module, "free_memory", lambda: 500_000)
    with pytest.raises(MachineError, match=r"unpacks to 1\.0 MB"):
        arrays(str(tmp_path / "bomb.npz"))


@pytest.mark.parametrize(
    ("values", "reason", "hint"),
    [
        (np.zeros((5, 64), np.uint8), "has the shape", "reshape(-1, 8, 8)"),
        (np.zeros((5, 63), np.float32), "has the shape", "dataset=series"),
        (np.zeros((0, 8, 8), np.uint8), "is empty", None),
        (np.full((5, 8, 8), np.nan), "NaN or infinite", None),
        (np.zeros((5, 8, 8)) + 7.0, "from black to white", None),
        (np.array([["a"]]), "expected numbers", None),
    ],
)
def test_useless_arrays(values, reason, hint, tmp_path):
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=reason) as error:
        arrays(str(tmp_path / "x.npy"))
    if hint:
        assert hint in error.value.hint


def test_arrays_without_samples(tmp_path):
    np.savez(tmp_path / "d.npz", foo=X, bar=Y)
    with pytest.raises(DataError, match="foo, bar") as error:
        arrays(str(tmp_path / "d.npz"))
    assert "x_train" in error.value.hint
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.png").write_bytes(b"1")
    with pytest.raises(DataError, match=r"it holds a\.png") as error:
        arrays(str(tmp_path / "f"))
    assert "image_folder" in error.value.hint
    with pytest.raises(RequestError, match="not an array file"):
        arrays(str(tmp_path / "f" / "a.png"))


def test_npy_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "x.npy", RGB)
    x = arrays(str(tmp_path / "x.npy"), holdout=0).train.resident.tensor
    before = x.clone()
    x[0] = 0  # private pages: the file stays as it is
    assert np.array_equal(np.load(tmp_path / "x.npy"), RGB)
    assert not torch.equal(x, before)


def test_labeled_split_is_held_out_and_both_are_pretrained_on(tmp_path):
    x, y = np.arange(24, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8), np.arange(24) % 2
    parts = {"x_training": x[:8], "y_training": y[:8], "x_dev": x[8:12], "y_dev": y[8:12], "x_eval": x[12:14]}
    np.savez(tmp_path / "a.npz", **parts, x_unsup=x[14:])
    for read in (arrays, series):
        keys = {} if read is arrays else {"layout": "nct"}
        both = read(str(tmp_path / "a.npz"), pretrain_on="all", **keys)
        assert (len(both.train), len(both.pretrain), both.test.labels.tolist()) == (8, 18, [0, 1, 0, 1])
        assert "warning: test: 2 samples not used, because it has no labels; val is the held-out split" in both.notes
        alone = read(str(tmp_path / "a.npz"), **keys)
        assert (len(alone.pretrain), both.fingerprint) == (10, alone.fingerprint)
        with pytest.raises(RequestError, match="all or unlabelled"):
            read(str(tmp_path / "a.npz"), pretrain_on="train", **keys)


def test_savez_without_names_is_x_and_y(tmp_path):
    np.savez(tmp_path / "d.npz", X, Y)
    assert len(arrays(str(tmp_path / "d.npz")).classes) == 4


def test_images_along_the_last_axis_warn(tmp_path):
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (16, 16, 40), dtype=np.uint8))
    assert any("moveaxis" in n for n in arrays(str(tmp_path / "x.npy")).notes)
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (16, 16, 16), dtype=np.uint8))
    assert not any("moveaxis" in n for n in arrays(str(tmp_path / "x.npy")).notes)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_nearly_black_arrays_warn(kind, tmp_path):
    np.save(tmp_path / "x.npy", RNG.integers(0, 2, (30, 8, 8)).astype(kind))
    assert any("nearly black" in n and "dataset.range" in n for n in arrays(str(tmp_path / "x.npy")).notes)
