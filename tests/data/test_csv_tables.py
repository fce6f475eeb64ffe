"""Lists and label files in the dialects of other programs: cells, line ends, encodings, names of columns and files."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslcli.data.files.csv_table import decode_text, parse_table
from sslcli.data.files.label_text import (
    MISSING,
    LabelParser,
    class_warnings,
    multi_label_warnings,
    non_integer_warnings,
    normalize_numbers,
    similar_name_warnings,
)
from sslcli.data.sources.image_folder import image_folder
from sslcli.errors import DataError, RequestError

from .conftest import make_image

N = 6


@pytest.fixture
def listed(tmp_path: Path):
    """listed(content, "list.csv") -> the data set of a list beside img/0.png ... img/5.png."""
    (tmp_path / "img").mkdir()
    for i in range(N):
        make_image(i).save(tmp_path / "img" / f"{i}.png")

    def read(content: bytes | str, name: str = "list.csv", **kw):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return image_folder(str(tmp_path / name), holdout=0, **kw)

    return read


def rows(line: str = "img/{i}.png,{c}", end: str = "\n", head: str = "path,label", kinds: str = "ab") -> str:
    return end.join([head, *(line.format(i=i, c=kinds[i % len(kinds)]) for i in range(N))]) + end


TABLES = {
    "windows": rows("img\\{i}.png,{c}", "\r\n"),
    "old mac": rows(end="\r"),
    "byte order mark": "\ufeff" + rows(),
    "utf-16": rows("img/{i}.png\t{c}", "\r\n", "path\tlabel").encode("utf-16"),
    "utf-16 without a mark": rows(head="path,label").encode("utf-16-le"),
    "utf-16 big end": b"\xfe\xff" + rows().encode("utf-16-be"),
    "semicolons": rows("img/{i}.png;{c}", head="path;label"),
    "tabs": rows("img/{i}.png\t{c}", head="path\tlabel"),
    "sep": "sep=;\r\n" + rows("img/{i}.png;{c}", "\r\n", "path;label"),
    "quoted": rows('"img/{i}.png","{c}"', head='"path","label"'),
    "empty columns and rows": rows("img/{i}.png,{c},,", head="path,label,,") + ",,,\n\n,,,\n",
    "empty rows first": "\n,\n" + rows(),
    "pandas' index": rows("{i},img/{i}.png,{c}", head=",path,label"),
    "other names": rows(head="File_Name,Class"),
    "more names": rows("x,{c},img/{i}.png", head="Patient,Category,Image Path"),
    "spaces": rows(" img/{i}.png , {c} ", head=" Path , Label "),
    "letter case": rows("IMG/{i}.PNG,{c}"),
    "no extension": rows("img/{i},{c}"),
    "dot": rows("./img/{i}.png,{c}"),
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_list_of_another_program_is_read(content, listed):
    d = listed(content)
    assert d.classes == ("a", "b")
    assert d.train.labels.tolist() == [0, 1] * (N // 2)
    assert np.array_equal(np.asarray(d.train.resident.tensor[1]).transpose(1, 2, 0), np.asarray(make_image(1)))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (rows("img/{i}.png\t{c}", "\r\n", "Path\tLabel").encode("utf-16"), "list.txt"),  # Excel: "Unicode text"
        ("".join(f"img/{i}.png {'ab'[i % 2]}\n" for i in range(N)), "list.txt"),  # mmpretrain
        ("".join(f"img/{i}.png\t{'ab'[i % 2]}\n" for i in range(N)), "list.txt"),
        ("".join(f"img/{i}.png, {'ab'[i % 2]}\n" for i in range(N)), "list.txt"),
        (rows("img/{i}.png\t{c}", head="path\tlabel"), "list.tsv"),
    ],
)
def test_list_of_another_ending_is_read(content, name, listed):
    assert listed(content, name).train.labels.tolist() == [0, 1] * (N // 2)


def test_renamed_columns_are_noted(listed):
    assert any("File_Name as path, Class as label" in n for n in listed(TABLES["other names"]).notes)
    assert any("spelled differently" in n for n in listed(TABLES["windows"]).notes)
    assert listed(rows("img/{i}.png,{c},x", head="path,Kind,label"), label="kind").classes == ("a", "b")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_one_letter_or_two(form, tmp_path):
    other = "NFD" if form == "NFC" else "NFC"
    for name in ("Zoë", "über"):
        make_image(1).save(tmp_path / (unicodedata.normalize(form, name) + ".png"))
    text = "path,label\n" + "".join(unicodedata.normalize(other, n) + ".png,x\n" for n in ("Zoë", "über"))
    (tmp_path / "l.csv").write_text(text)
    assert len(image_folder(str(tmp_path / "l.csv"), holdout=0).train) == 2


def test_western_code_page_of_excel(tmp_path):
    make_image(1).save(tmp_path / "grün.png")
    (tmp_path / "l.csv").write_bytes("path;label\r\ngrün.png;Bäume\r\n".encode("cp1252"))
    d = image_folder(str(tmp_path / "l.csv"), holdout=0)
    assert d.classes == ("Bäume",)


def test_ambiguous_file_name_is_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        make_image(1).save(tmp_path / name)
    (tmp_path / "l.csv").write_text("path,label\na,x\n")
    with pytest.raises(DataError, match=r"line 2: a matches a\.jpg, a\.png"):
        image_folder(str(tmp_path / "l.csv"))


def test_windows_paths_have_hint(listed):
    with pytest.raises(DataError, match="none of the 6") as error:
        listed(rows("C:\\data\\img\\{i}.png,{c}"))
    assert "Windows drive" in error.value.hint


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "N/A", "None", "null", "NULL", "<NA>"])
def test_missing_label_words_are_not_classes(word, listed):
    d = listed("path,label\n" + "".join(f"img/{i}.png,{('a', 'b', word)[i % 3]}\n" for i in range(N)))
    assert d.classes == ("a", "b")
    assert d.train.labels.tolist() == [0, 1, -1] * 2
    assert any("warning: 2 labels read as missing" in n and word in n for n in d.notes)


def test_missing_words_are_those_of_pandas():
    words = pytest.importorskip("pandas._libs.parsers").STR_NA_VALUES
    assert words - {""} == MISSING


def test_a_class_may_be_called_none(listed):
    assert listed(rows(kinds=["none", "some"])).classes == ("none", "some")
    assert LabelParser(["None"]).label("None") == "None"


def test_integers_written_as_decimals_are_classes(listed):
    """What a table program makes of a column of numbers with gaps."""
    assert normalize_numbers(["1.0", "2,00", "3", None]) == ["1", "2", "3", None]
    assert normalize_numbers(["1.0", "2.5", "x"]) == ["1.0", "2.5", "x"]
    assert listed(rows(kinds=["1.0", ""])).classes == ("1",)
    assert non_integer_warnings(["0.5", "1.25", "3"])
    assert not non_integer_warnings(["1", "2", "3"])
    assert not non_integer_warnings(["v1.2", "v1.3", "v1.4"])


@pytest.mark.parametrize(
    ("classes", "messages"),
    [
        (["cat", "dog", "cat,dog"], True),
        (["cat", "dog", "cat dog"], True),
        (["edema|mass", "edema|nodule"], True),  # neither alone, but both share one
        (["polar bear", "brown bear"], False),
        (["cat", "dog", "fish, dead"], False),
        (["a/b", "c/d"], False),
    ],
)
def test_several_labels_in_one_cell_warn(classes, messages):
    assert bool(multi_label_warnings(classes)) == messages


def test_line_numbers_count_all_lines():
    with pytest.raises(DataError, match="line 5"):
        parse_table('sep=;\npath;label\n"a\nb";x\nc\n', "t")
    assert [line for line, _ in parse_table("path,label\na,x\n\nb,y\n", "t").rows] == [2, 4]
    assert decode_text(b"\xef\xbb\xbfpath") == "path"


@pytest.mark.parametrize(
    ("classes", "messages"),
    [
        (["Cat", "cat"], True),
        (["cat", "cat ", "dog"], True),
        (["01", "1"], True),
        (["Zo\u00eb", "Zoe\u0308"], True),
        (["sea_lion", "Sea lion"], True),
        (["cat", "dog", "0", "10"], False),
    ],
)
def test_similar_class_names_warn(classes, messages):
    assert bool(similar_name_warnings(classes)) == messages


def test_labels_that_occur_once_warn(listed):
    assert class_warnings([str(i) for i in range(11)], 11)
    assert not class_warnings([str(i) for i in range(11)], 12)
    assert not class_warnings(["a", "b"], 2)


def test_list_of_urls_or_without_extension_has_hint(listed, tmp_path):
    with pytest.raises(DataError) as error:
        listed("https://example.org/a.png\n", "list.txt")
    assert "download the files first" in error.value.hint
    (tmp_path / "bare").mkdir()
    make_image(1).save(tmp_path / "bare" / "0001", "PNG")
    with pytest.raises(DataError) as error:
        image_folder(str(tmp_path / "bare"))
    assert "list.txt" in error.value.hint
    assert len(listed("bare/0001\n", "list.txt").train) == 1


def test_constant_or_nearly_black_images_warn(tmp_path):
    for i in range(8):
        Image.fromarray(np.random.default_rng(i).integers(0, 5, (16, 16), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    assert any("nearly black" in n for n in image_folder(str(tmp_path)).notes)
    for i in range(8):
        Image.new("L", (16, 16)).save(tmp_path / f"{i}.png")
    assert any("same value" in n for n in image_folder(str(tmp_path)).notes)


def test_space_after_extension_is_ignored(tmp_path):
    make_image(1).save(tmp_path / "a.png ", "PNG")
    make_image(2).save(tmp_path / "b.PNG", "PNG")
    assert len(image_folder(str(tmp_path), holdout=0).train) == 2


def test_unread_columns_are_noted(listed):
    d = listed(rows("img/{i}.png,0,1", head="path,cat,dog"))
    assert any("no label column; columns not read: cat, dog" in n for n in d.notes)


@pytest.mark.parametrize("name", ["l.xlsx", "l.json", "l.parquet"])
def test_invalid_csv_has_hint(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(RequestError) as error:
        image_folder(str(tmp_path / name))
    assert "save it as a .csv" in error.value.hint
