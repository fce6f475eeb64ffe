"""Manifests of images and captions: dialects, several captions, and rows that are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data import pairs
from sslcli.errors import DataError, RequestError
from sslcli.rng import Draw


def picture(path: Path, level: int, size: int = 12) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(level)
    Image.fromarray(rng.integers(0, 255, (size, size, 3)).astype(np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for i in range(12):
        picture(tmp_path / "photos" / f"{i}.png", i)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(n: int = 12, split: bool = True) -> str:
    lines = ["image,text,label,split" if split else "image,text,label"]
    for i in range(n):
        part = f",{'test' if i % 4 == 3 else 'train'}" if split else ""
        lines.append(
            f'photos/{i}.png,"a photo of {"cats" if i % 2 else "dogs"}, number {i}",{"cat" if i % 2 else "dog"}{part}'
        )
    return "\n".join(lines) + "\n"


def texts(dataset, part: str = "train") -> list[list[str]]:
    source = getattr(dataset, part)
    return [dataset.preprocessor.captions.decode(source.captions.of(i)) for i in range(len(source))]


def test_reads_a_table(folder):
    data = pairs(str(write(folder / "m.csv", rows())), tokenizer="words")
    assert (data.modality, data.shape, data.classes) == ("pairs", (3, 12, 12), ("cat", "dog"))
    assert (len(data.train), len(data.test)) == (9, 3)
    assert texts(data, "test") == [[f"a photo of cats, number {i}"] for i in (3, 7, 11)] or texts(data, "test")[0][
        0
    ].startswith("a photo of cats, number")
    assert data.train.labels.tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert any("12 images, 12 captions" in note for note in data.notes)


def test_vocabulary_is_that_of_training_captions(folder):
    data = pairs(str(write(folder / "m.csv", rows().replace("number 3", "zebra"))), tokenizer="words")
    assert "zebra" not in data.preprocessor.captions.tokenizer.words
    assert "[UNK]" in texts(data, "test")[0][0]


def test_several_captions_of_an_image(folder):
    more = "photos/0.png,another view,dog,train\nphotos/0.png,another view,dog,train\nphotos/1.png,  ,cat,train\n"
    data = pairs(str(write(folder / "m.csv", rows() + more)), tokenizer="words")
    assert len(texts(data)[0]) == 2
    notes = " ".join(data.notes)
    assert "13 captions, at most 2 an image" in notes
    assert "1 empty caption left out" in notes
    assert "1 repeated caption left out" in notes
    ids = torch.zeros(400, dtype=torch.int64)
    drawn = torch.cat([data.train.captions.draw(Draw(0, epoch, ids[:1])) for epoch in range(400)])
    assert set(drawn.tolist()) == {0, 1}
    assert 140 < int(drawn.sum()) < 260
    again = data.train.captions.draw(Draw(0, 5, ids[:1]))
    assert torch.equal(again, drawn[5:6])


@pytest.mark.parametrize("kind", ["jsonl", "tsv", "folder", "lists"])
def test_other_forms(folder, kind):
    content = [{"file_name": f"photos/{i}.png", "caption": f"picture {i}"} for i in range(12)]
    if kind == "lists":
        content = [{**row, "caption": [row["caption"], "a picture"]} for row in content]
    if kind == "tsv":
        text = "path\ttext\n" + "".join(f"photos/{i}.png\tpicture {i}\n" for i in range(12))
        path = write(folder / "m.tsv", text)
    else:
        path = write(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in content))
    data = pairs(str(folder if kind == "folder" else path), tokenizer="words", holdout=0.25)
    assert (len(data.train), len(data.test)) == (9, 3)
    assert all(len(t) == (2 if kind == "lists" else 1) for t in texts(data))
    named = {row[0].split()[-1] for row in texts(data)} - {"[UNK]"}
    assert named == {Path(name).stem for name in data.train.names}


def test_order_of_captions_survives_splits_and_exclusion(folder):
    from sslcli.data.subset import Subset

    data = pairs(str(write(folder / "m.csv", rows(split=False))), tokenizer="words", holdout=0.5)
    for part in ("train", "test"):
        source = getattr(data, part)
        for i, (text,) in enumerate(texts(data, part)):
            number = Path(source.name_of(i)).stem
            assert text.endswith(f"number {number}") or "[UNK]" in text
    ids = torch.tensor([4, 1])
    part = Subset(data.train, ids)
    assert [len(c) for c in part.captions.of(0)] == [len(c) for c in data.train.captions.of(4)]
    assert torch.equal(part.captions.of(1)[0], data.train.captions.of(1)[0])


def test_unlabelled_rows_are_read_with_train(folder):
    lines = rows().replace("dog,train", ",unlabelled")
    data = pairs(str(write(folder / "m.csv", lines)), tokenizer="words")
    assert len(data.pretrain) == len(data.train) + 6
    assert len(data.pretrain.captions) == len(data.pretrain)


WRONG = {
    "no caption": ("image,label\nphotos/0.png,a\n", RequestError, "dataset.text=NAME"),
    "no image": ("text,label\nhello,a\n", RequestError, "dataset.image=NAME"),
    "two splits": (rows() + "photos/0.png,again,dog,test\n", DataError, "already in line 2"),
    "two labels": (rows() + "photos/0.png,again,cat,train\n", DataError, "another label or split"),
    "other split": (rows().replace(",train", ",sometimes", 1), DataError, "as the split"),
    "all empty": ("image,text\nphotos/0.png,\nphotos/1.png,  \n", DataError, "has a caption"),
    "all missing": ("image,text\nx/0.png,hello\n", DataError, "exists"),
    "nothing": ("image,text\n", DataError, "names no image"),
    "numbers": ("image,text\nphotos/0.png,7\nphotos/1.png, 8.5\n", DataError, "holds numbers"),
    "only test": ("image,text,split\nphotos/0.png,hello,test\n", DataError, "no row of the split train"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_manifests(folder, name):
    content, error, words = WRONG[name]
    with pytest.raises(error, match=words.replace("(", "\\(")) as caught:
        pairs(str(write(folder / "m.csv", content)))
    assert caught.value.hint


def test_missing_pictures_are_counted(folder):
    lines = rows() + "".join(f"photos/gone{i}.png,nothing,dog,train\n" for i in range(4))
    path = str(write(folder / "m.csv", lines))
    with pytest.raises(DataError, match="4 of 16"):
        pairs(path)
    data = pairs(path, max_bad_fraction=0.5, tokenizer="words")
    assert len(data.train) == 9
    assert "nothing" not in data.preprocessor.captions.tokenizer.words


def test_same_picture_in_train_and_test_is_refused(folder):
    (folder / "photos" / "3.png").write_bytes((folder / "photos" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"1 image of the test split also in train .*: photos/3.png$") as caught:
        pairs(str(write(folder / "m.csv", rows())))
    assert "remove the rows" in caught.value.hint
    unlabelled = rows().replace("dog,train", ",unlabelled")  # photos/0.png
    with pytest.raises(DataError, match="also in unlabelled"):
        pairs(str(write(folder / "m.csv", unlabelled)))


def test_spellings_of_one_path_are_one_image(folder):
    lines = [
        "image,text",
        "photos/0.png,one",
        "./photos/0.png,two",
        f"{folder}/photos/0.png,three",
        "photos/1.png,other",
    ]
    data = pairs(str(write(folder / "m.csv", "\n".join(lines))), tokenizer="words", holdout=0.0)
    assert texts(data) == [["one", "two", "three"], ["other"]]


def test_equal_captions_are_warned_of(folder):
    data = pairs(str(write(folder / "m.csv", "image,text\n" + "".join(f"photos/{i}.png,a photo\n" for i in range(12)))))
    assert "warning: all captions are the same: nothing can be learned from them" in data.notes


def test_captions_are_cleaned_as_the_encoder_cleans_texts(folder):
    path = str(write(folder / "m.csv", rows().replace("a photo of", "a photo<br />of")))
    own = replace(pairs(path, tokenizer="words").preprocessor.captions, html_breaks="space")
    data = pairs(path, like_captions=own)
    assert data.train.captions.of(0)[0].tolist() == own.encode(["a photo<br />of dogs, number 0"])[0].tolist()
    assert "<" not in texts(data)[0][0]


def test_addresses_are_not_read(folder):
    with pytest.raises(DataError) as caught:
        pairs(str(write(folder / "m.csv", "image,text\nhttps://example.org/0.png,hello\n")))
    assert "download the images" in caught.value.hint


def test_folder_without_a_manifest(folder):
    with pytest.raises(RequestError, match="no file named metadata, manifest, captions"):
        pairs(str(folder))
    for name in ("metadata.csv", "captions.csv"):
        write(folder / name, rows())
    with pytest.raises(RequestError, match="several manifests"):
        pairs(str(folder))


def test_preprocessor_round_trip(folder):
    from sslcli.data.preprocess import preprocessor_class

    data = pairs(str(write(folder / "m.csv", rows())), tokenizer="words")
    own = data.preprocessor
    files = own.files()
    content = json.loads(files["preprocessor.json"])
    assert content.pop("kind") == "pairs"
    again = preprocessor_class("pairs").from_json(content, files)
    assert again.sha256 == own.sha256
    assert own.differences(again) == []
    other = pairs(str(folder / "m.csv"), tokenizer="bytes", image_size=8).preprocessor
    changes = own.differences(other)
    assert any(change.startswith("shape was") for change in changes)
    assert any(change.startswith("captions: the tokenizer was") for change in changes)
    for wrong in ({**content, "captions": None}, {**content, "captions": {"tokenizer": {}}}):
        with pytest.raises(ValueError, match=r"captions|max_length|tokenizer"):
            preprocessor_class("pairs").from_json(wrong, files)


def test_copies_stay_in_one_split(folder):
    for copy, original in ((3, 0), (5, 2), (7, 2)):
        (folder / "photos" / f"{copy}.png").write_bytes((folder / "photos" / f"{original}.png").read_bytes())
    path = str(write(folder / "m.csv", rows(split=False)))
    for seed in range(4):
        data = pairs(path, tokenizer="words", holdout=0.3, split_seed=seed)
        parts = [{Path(n).stem for n in data.train.names}, {Path(n).stem for n in data.test.names}]
        for group in ({"0", "3"}, {"2", "5", "7"}):
            assert any(group <= part for part in parts), (seed, parts)
        assert any("3 copies of images (same bytes)" in note for note in data.notes)
