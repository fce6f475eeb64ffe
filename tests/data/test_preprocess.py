"""Preprocessors: what they encode, how they are saved and read, and files of others that are refused.

1. encode gives raw samples, decode their inverse.
2. A saved preprocessor is read back equal, with the same hash; a changed, damaged or hostile one is refused.
3. The differences of two name each field.
"""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli import builders
from sslcli.config import instantiate
from sslcli.data import preprocess
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.errors import DataError, RequestError, SslError, TrainingError
from sslcli.nn.values import Columns, Continuous, Tokens
from sslcli.nn.values_json import values_from_json
from sslcli.runs.encoder import write_preprocessor

IMAGES = ImagePreprocessor((3, 8, 8), Continuous((0.1, 0.2, 0.3), (0.5, 0.25, 1.0)), [0.0, 4095.0])
SERIES = SeriesPreprocessor((2, 5), Continuous((1.5, -2.0), (3.0, 1e-3)))


@pytest.mark.parametrize("p", [IMAGES, SERIES], ids=["image", "series"])
def test_preprocessor_is_read_back(p, tmp_path):
    write_preprocessor(tmp_path, p.files())
    again = preprocess.load(tmp_path, p.sha256)
    assert again == p
    assert again.sha256 == p.sha256
    assert p.differences(again) == []
    before = (tmp_path / "preprocessor" / "preprocessor.json").stat().st_mtime_ns
    write_preprocessor(tmp_path, p.files())
    assert (tmp_path / "preprocessor" / "preprocessor.json").stat().st_mtime_ns == before


def test_images_of_all_layouts_are_encoded(tmp_path):
    x = torch.randint(0, 256, (2, 3, 6, 7), dtype=torch.uint8)
    for given in (x, x.permute(0, 2, 3, 1), x.permute(0, 2, 3, 1).numpy()):
        assert np.array_equal(np.stack(IMAGES.encode(given)), x.permute(0, 2, 3, 1).numpy())
    Image.fromarray(x[0].permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
    files = IMAGES.encode([tmp_path / "a.png", str(tmp_path / "a.png"), Image.open(tmp_path / "a.png")])
    assert all(np.array_equal(f, x[0].permute(1, 2, 0).numpy()) for f in files)
    assert np.array_equal(IMAGES.encode(np.stack(IMAGES.decode(x)))[1], x[1].permute(1, 2, 0).numpy())
    for wrong in (x.float(), x[:, :2], [np.zeros((4, 4), np.uint8)], np.zeros((2, 3), np.uint8)):
        with pytest.raises(DataError, match="expected uint8 images"):
            IMAGES.encode(wrong)


def test_series_are_encoded():
    x = np.arange(20.0).reshape(2, 2, 5)
    assert torch.equal(SERIES.encode(x), torch.tensor(x, dtype=torch.float32))
    assert np.array_equal(np.stack(SERIES.decode(SERIES.encode(x))), x)
    with pytest.raises(DataError, match=r"expected series \(N, 2, 5\), got \(2, 1, 5\)"):
        SERIES.encode(x[:, 0])


def test_differences_name_each_field():
    other = ImagePreprocessor((3, 8, 8), IMAGES.values, None)
    assert IMAGES.differences(other) == ["range was [0.0, 4095.0], is None"]
    assert IMAGES.differences(SERIES) == ["the kind of data was image, is series"]


HOSTILE = {
    "no JSON": "{",
    "a list": "[1]",
    "unknown kind": {"kind": "../image"},
    "kind of another type": {"kind": ["image"]},
    "no shape": {"kind": "image"},
    "text for a shape": {"kind": "image", "shape": ["a", 1, 2], "values": Continuous().to_json()},
    "another shape": {"kind": "image", "shape": [3, 8], "values": Continuous().to_json()},
    "huge": {"kind": "series", "shape": [1, 1 << 40], "values": Continuous().to_json()},
    "a zero deviation": {"kind": "series", "shape": [1, 4], "values": Continuous((0.0,), (0.0,)).to_json()},
    "an infinite mean": {"kind": "series", "shape": [1, 4], "values": {"kind": "continuous", "mean": [1e999]}},
    "too few channels": {"kind": "series", "shape": [2, 4], "values": Continuous().to_json()},
    "values of text": {"kind": "series", "shape": [1, 4], "values": Tokens(4).to_json()},
    "an unknown field": {"kind": "series", "shape": [1, 4], "values": {"kind": "continuous", "__class__": 1}},
    "a range of another type": {**{"kind": "image", **IMAGES.to_json()}, "range": {"a": 1}},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_preprocessor_is_refused(content, tmp_path):
    (tmp_path / "preprocessor").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "preprocessor" / "preprocessor.json").write_text(text)
    with pytest.raises(TrainingError, match="is not valid"):
        preprocess.load(tmp_path)


def test_links_and_pipes_are_not_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    write_preprocessor(tmp_path / "elsewhere", SERIES.files())
    for name in ("linked", "file", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "linked" / "preprocessor").symlink_to(tmp_path / "elsewhere" / "preprocessor")
    for name in ("file", "pipe"):
        (tmp_path / name / "preprocessor").mkdir()
    target = tmp_path / "elsewhere" / "preprocessor" / "preprocessor.json"
    (tmp_path / "file" / "preprocessor" / "preprocessor.json").symlink_to(target)
    os.mkfifo(tmp_path / "pipe" / "preprocessor" / "preprocessor.json")
    for name in ("linked", "file", "pipe"):
        with pytest.raises(TrainingError, match=r"has no preprocessor\.json"):
            preprocess.load(tmp_path / name)
    with pytest.raises(SslError):
        write_preprocessor(tmp_path / "linked", SERIES.files())
    assert json.loads(target.read_text())["shape"] == [2, 5]


def test_changed_preprocessor_does_not_match_its_hash(tmp_path):
    write_preprocessor(tmp_path, SERIES.files())
    (tmp_path / "preprocessor" / "more.json").write_text("{}")
    with pytest.raises(TrainingError, match="does not match the SHA-256"):
        preprocess.load(tmp_path, SERIES.sha256)


def test_many_files_are_refused(tmp_path):
    write_preprocessor(tmp_path, SERIES.files())
    for i in range(preprocess.MAX_FILES):
        (tmp_path / "preprocessor" / f"{i}.json").write_text("{}")
    with pytest.raises(TrainingError, match="has more than"):
        preprocess.load(tmp_path)


@pytest.mark.parametrize(
    ("values", "shape", "fits"),
    [
        (Continuous((0.0,), (1.0,)), (1, 9), True),
        (Continuous((0.0,), (1.0,)), (1,), False),
        (Continuous((0.0,), (1.0,), fill=float("nan")), (1, 9), False),
        (Continuous((0.0,), (1.0,), silence=(-1.0, -2.0)), (1, 2, 9), True),
        (Continuous((0.0,), (1.0,), silence=(-1.0, -2.0)), (1, 3, 9), False),
        (Continuous((0.0,), (1.0,), silence=(-1.0, -2.0)), (1, 2), False),
        (Continuous((0.0,), (1.0,), silence=(float("nan"), -2.0)), (1, 2, 9), False),
        (Tokens(9, mask=8, special=(0, 8)), (16,), True),
        (Tokens(9, mask=9), (16,), False),
        (Tokens(9), (16, 2), False),
        (Columns((0, 4, 0), (0.0, 1.0), (1.0, 2.0)), (3,), True),
        (Columns((0, 4, 0), (0.0,), (1.0,)), (3,), False),
        (Columns((0, -1), (0.0,), (1.0,)), (2,), False),
        (Columns((4, 4)), (3,), False),
    ],
)
def test_values_fit_a_shape(values, shape, fits):
    assert values.fits(shape) is fits
    assert values_from_json(json.loads(json.dumps(values.to_json()))).to_json() == values.to_json() or not fits


@pytest.mark.parametrize(
    "content", [{"kind": "tokens", "size": True}, {"kind": "tokens", "size": "9"}, {"kind": "tokens"}, {"kind": 3}]
)
def test_values_of_another_type_are_refused(content):
    with pytest.raises(ValueError, match="values"):
        values_from_json(content)


def test_encoder_of_images_is_refused_for_a_table(monkeypatch):
    from sslcli.data.sources.table import table

    monkeypatch.setattr(instantiate, "resolve", lambda group, target: table)
    with pytest.raises(RequestError, match="this encoder takes image samples; those of mine are table"):
        builders.load_dataset({"dataset": {"_target_": "sslcli.data.table", "name": "mine", "path": "x"}}, like=IMAGES)
