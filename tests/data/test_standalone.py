"""The programs of exports, `data/standalone/`, give the inputs that sslcli makes of the same samples, without sslcli."""

from __future__ import annotations

import ast
import csv
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sslcli.config.modalities import modalities
from sslcli.data import standalone
from sslcli.data.audio.mel import MelSettings
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.files.label_text import MISSING
from sslcli.data.histories.preprocessor import InteractionsPreprocessor
from sslcli.data.images.preprocessor import ImagePreprocessor
from sslcli.data.loading.evaluation import iterate_batches
from sslcli.data.sources.series_preprocessor import SeriesPreprocessor
from sslcli.data.standalone.guides import GUIDES, guide
from sslcli.data.standalone.table import MISSING as MISSING_CELLS
from sslcli.data.tables.cells import CellFormat
from sslcli.data.tables.encoding import ColumnEncoding
from sslcli.data.tables.preprocessor import TablePreprocessor
from sslcli.data.text.library import LibraryTokenizer
from sslcli.data.text.preprocessor import TextPreprocessor
from sslcli.data.text.tokenizer import BytesTokenizer, Tokenizer
from sslcli.data.text.training import train_bpe, train_wordpiece
from sslcli.data.text.words import WordsTokenizer
from sslcli.data.video.preprocessor import FramesPreprocessor
from sslcli.nn.values import Continuous
from sslcli.views import whole
from tests.data.audio.sounds import sine, write

PROGRAMS = sorted(path for path in Path(standalone.__path__[0]).glob("*.py") if path.stem not in ("__init__", "guides"))
COLOR = Continuous((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def program(preprocessor: Preprocessor, folder: Path) -> Any:
    """The `Preprocessor` of the program, which reads the files of `preprocessor`."""
    folder.mkdir(exist_ok=True)
    for name, content in preprocessor.files().items():
        (folder / name).write_bytes(content)
    names = {"pairs": "image"}
    module = importlib.import_module(f"{standalone.__name__}.{names.get(preprocessor.kind, preprocessor.kind)}")
    return module.Preprocessor(folder)


def views(preprocessor: Preprocessor, samples: Any) -> np.ndarray:
    """The inputs of an encoder as sslcli makes them: clean views, or windows (n, W, L)."""
    source = preprocessor.source(samples)
    dataset = Dataset(
        "own",
        preprocessor.kind,
        preprocessor.shape,
        source,
        None,
        values=preprocessor.values,
        preprocessor=preprocessor,
    )
    return np.concatenate([x.numpy() for _, x in iterate_batches(source, whole(dataset), batch_size=64)])


def test_every_kind_of_data_has_a_program():
    assert set(GUIDES) == set(modalities())


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_need_neither_sslcli_nor_torch(path):
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names |= {str(node.module) for node in tree if isinstance(node, ast.ImportFrom)}
    used = {name.partition(".")[0] for name in names}
    allowed = {"numpy", "PIL", "tokenizers", "__future__", "collections", "json", "math", "pathlib", "re", "typing"}
    assert used <= allowed | {"unicodedata", "wave"}


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 24, 24), (4, 24, 24), (3, 16, 24)])
def test_images(shape, tmp_path):
    rng = np.random.default_rng(0)
    channels = shape[0]
    values = Continuous((0.5,) * channels, (0.25,) * channels)
    preprocessor = ImagePreprocessor(shape, values, [0, 4000])
    gradient = np.add.outer(np.arange(90), np.arange(130))[..., None] * np.array([1, 0.5, 1.2]) % 256
    photo = Image.fromarray(gradient.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    photo.resize((1300, 900)).save(tmp_path / "large.jpg", quality=95)
    photo.convert("L").save(tmp_path / "gray.png")
    alpha = np.dstack([gradient, rng.integers(0, 256, gradient.shape[:2])]).astype(np.uint8)
    Image.fromarray(alpha).save(tmp_path / "transparent.png")
    photo.quantize(16).save(tmp_path / "palette.gif")
    Image.fromarray((gradient[..., 0] * 20).astype(np.uint16)).save(tmp_path / "deep.png")
    paths = [str(path) for path in sorted(tmp_path.iterdir()) if path.is_file()]
    expected, found = views(preprocessor, paths), program(preprocessor, tmp_path / "preprocessor").encode(paths)
    assert (found.shape, found.dtype) == (expected.shape, np.float32) == ((6, *shape), np.float32)
    level = 1 / 255 / 0.25
    assert np.abs(found - expected).max() < 1.01 * level  # the filters of torch and of Pillow
    assert (np.abs(found - expected) > level / 2).mean() < 0.05
    arrays = list(rng.integers(0, 256, (2, *shape[1:], channels), dtype=np.uint8))
    found = program(preprocessor, tmp_path / "preprocessor").encode(arrays)
    np.testing.assert_allclose(found, views(preprocessor, arrays), atol=1e-5)


def test_images_of_other_types_are_refused(tmp_path):
    found = program(ImagePreprocessor((3, 8, 8), COLOR), tmp_path / "preprocessor")
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        found.encode([np.zeros((8, 8, 3))])
    with pytest.raises(ValueError, match="scale the image to uint8"):
        found.encode([Image.fromarray(np.full((8, 8), -1.0, np.float32))])


def test_frames(tmp_path):
    preprocessor = FramesPreprocessor((3, 4, 12, 12), COLOR, 5.0)
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 12, 12, 3), dtype=np.uint8)
    found = program(preprocessor, tmp_path / "preprocessor")
    expected = views(preprocessor, np.moveaxis(clips, 4, 1))
    np.testing.assert_allclose(found.encode(list(clips)), expected, atol=1e-5)
    large = np.kron(clips, np.ones((1, 1, 2, 3, 1), np.uint8))  # 24 x 36 pixels
    for i, frame in enumerate(large[0]):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    np.testing.assert_allclose(found.encode([paths]), found.encode(large[:1]))
    with pytest.raises(ValueError, match="expected clips of 4 frames, got 3"):
        found.encode([paths[:3]])


@pytest.mark.parametrize("scale", ["train", "sample"])
def test_series(scale, tmp_path):
    rng = np.random.default_rng(0)
    values = (
        Continuous((0.0,) * 3, (1.0,) * 3) if scale == "sample" else Continuous((1.0, -50.0, 0.1), (0.5, 20.0, 3.0))
    )
    preprocessor = SeriesPreprocessor((3, 20), values, scale)
    series = rng.normal(30, 5, (5, 3, 20)).astype(np.float32)
    series[0, 1, 3:6] = np.nan
    series[1, 0] = 7
    found = program(preprocessor, tmp_path / "preprocessor")
    np.testing.assert_allclose(found.encode(series), views(preprocessor, series), atol=1e-5, equal_nan=True)
    padded = np.concatenate([series[2, :, :12], np.full((3, 8), np.nan, np.float32)], axis=1)
    short = found.encode([series[2, :, :12]])
    np.testing.assert_allclose(short, views(preprocessor, padded[None]), atol=1e-5, equal_nan=True)
    assert [part.shape[1] for part in found.windows(np.zeros((3, 52)))] == [20, 20, 12]
    assert [part.shape[1] for part in found.windows(np.zeros((3, 45)))] == [20, 20]
    assert [part.shape[1] for part in found.windows(np.zeros((3, 5)))] == [5]
    with pytest.raises(ValueError, match="at most 20 steps"):
        found.encode([np.zeros((3, 21))])


def test_histories(tmp_path):
    preprocessor = InteractionsPreprocessor(("tea", "7", "é"), 4)
    histories = [["tea", "é"], ["7", 7, "unknown", "tea", "tea", "é"], []]
    found = program(preprocessor, tmp_path / "preprocessor").encode(histories)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, views(preprocessor, histories))


CELLS = {
    "point": CellFormat(".", ",", frozenset({"-999", "none given"})),
    "comma": CellFormat(",", "."),
}
ROWS = {
    "point": [
        {"n": "1,234.5", "c": "1.0", "d": "true"},
        {"n": " -2e3 ", "c": "a b", "d": "NA"},
        {"n": "-999.0", "c": "none given", "d": "new"},
        {"n": "", "c": "+07", "d": " false "},
        {"n": "1e38", "c": "2.50", "d": "?"},
        {"n": "NaN", "c": "nan", "d": ""},
    ],
    "comma": [{"n": "1.234,5", "c": "1", "d": "true"}, {"n": "-,5", "c": "x", "d": "?"}],
}
TYPED = [
    {"n": 3, "c": 1.0, "d": True},
    {"n": np.float64(-2.5), "c": 1, "d": np.bool_(False)},
    {"n": None, "c": 2.5, "d": None, "other": 1},
    {"n": float("nan"), "c": float("nan"), "d": "true"},
]


@pytest.mark.parametrize("form", CELLS)
def test_rows(form, tmp_path):
    columns = (
        ColumnEncoding("c", categories=("1", "2.5", "a b")),
        ColumnEncoding("n", 10.25, 3.5),
        ColumnEncoding("d", categories=("false", "true")),
    )
    preprocessor = TablePreprocessor(columns, cells=CELLS[form])
    found = program(preprocessor, tmp_path / "preprocessor")
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["n", "c", "d"], delimiter=";")
        writer.writeheader()
        writer.writerows(ROWS[form])
    expected = preprocessor.encode(str(tmp_path / "rows.csv")).numpy()
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        x = found.encode(csv.DictReader(file, delimiter=";"))
    np.testing.assert_array_equal(x, expected)
    assert x.dtype == np.float32
    assert np.isnan(x[:, 1]).sum() == {"point": 3, "comma": 0}[form]
    if form == "point":
        np.testing.assert_array_equal(found.encode(TYPED), preprocessor.encode(TYPED).numpy())
    messages = {
        "word": "expected numbers, got 'word'",
        "007": "expected numbers, got '007'",
        "inf": "that 32-bit floats can hold, got 'inf'",
        "1e40": "that 32-bit floats can hold, got '1e40'",
    }
    for bad, message in messages.items():
        with pytest.raises(ValueError, match=message):
            found.encode([{"n": bad, "c": "1", "d": "true"}])
    with pytest.raises(ValueError, match=r"no row has the columns \['d'\]"):
        found.encode([{"n": "1", "c": "1"}])


def test_missing_cells_are_those_of_sslcli():
    assert set(MISSING_CELLS) == MISSING | {"", "?"}


TEXTS = [
    "The capital of France is Paris.",
    "  Tabs\tand\nlines, CAPITALS; nai\u0308ve café -- don't (2,000)!<br />next",
    "ΑΒΓ Привет мир 你好 かな 🙂 שלום हिन्दी",
    "",
    "[CLS] [PAD] are no tokens",
    "a long text " * 40,
]
TOKENIZERS = {
    "bytes": BytesTokenizer,
    "words": lambda: WordsTokenizer.fit([TEXTS], 60),
    "words with capitals": lambda: WordsTokenizer.fit([TEXTS], 60, lowercase=False),
    "wordpiece": lambda: LibraryTokenizer(train_wordpiece(lambda: iter([TEXTS]), 200, True)),
    "bpe": lambda: LibraryTokenizer(train_bpe(lambda: iter([TEXTS]), 400, False)),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_texts(name, tmp_path):
    tokenizer: Tokenizer = TOKENIZERS[name]()
    preprocessor = TextPreprocessor(tokenizer, 16, "space" if name == "words" else "keep", windows=3)
    found = program(preprocessor, tmp_path / "preprocessor")
    expected, (x, counts) = views(preprocessor, TEXTS), found.encode_windows(TEXTS)
    assert (x.dtype, expected.shape) == (np.int64, (len(TEXTS), 3, 16))
    present = (expected != tokenizer.values.pad).any(axis=2)
    np.testing.assert_array_equal(counts, present.sum(axis=1))
    np.testing.assert_array_equal(x, expected[present])
    np.testing.assert_array_equal(found.encode(TEXTS), expected[:, 0])
    assert found.encode([]).shape == (0, 16)


@pytest.mark.parametrize(
    ("scale", "norm", "channels", "loudness"),
    [("htk", "slaney", "mean", "equal"), ("slaney", "none", "first", "keep"), ("slaney", "slaney", "mean", "keep")],
)
def test_clips(scale, norm, channels, loudness, tmp_path):
    mel = MelSettings(8000, 256, 80, 24, 30.0, 3900.0, scale, norm, loudness=loudness)
    bands = np.linspace(-3, 2, 24)
    preprocessor = AudioPreprocessor(mel, 50, channels, tuple(bands), tuple(2 + bands / 10))
    found = program(preprocessor, tmp_path / "preprocessor")
    noise = np.random.default_rng(0).normal(0, 0.1, (12_345, 2)).astype(np.float32)
    arrays = [noise, noise[:999, 0], (noise[:5000] * 20_000).astype(np.int16)]
    np.testing.assert_allclose(found.encode(arrays), views(preprocessor, arrays), atol=2e-3)
    tone = np.stack([sine(0.7, 44_100, 500), sine(0.7, 44_100, 700)], axis=1)
    write(tmp_path / "same.wav", sine(0.3, 8000, 300))
    write(tmp_path / "stereo.wav", tone, 44_100)
    write(tmp_path / "low.wav", sine(0.4, 6000, 300), 6000)
    paths = [str(tmp_path / f"{name}.wav") for name in ("same", "stereo", "low")]
    expected = views(preprocessor, paths)
    assert found.encode(paths).dtype == np.float32
    loud = expected > np.median(expected)  # at rates that are converted, silent bands hold rounding alone
    assert np.abs(found.encode(paths) - expected)[loud].max() < 0.02
    given = found.encode([tone], 44_100)
    assert np.abs(given - expected[1:2])[loud[1:2]].max() < 0.02


def test_guide_of_a_wide_table_shows_no_row():
    columns = tuple(ColumnEncoding(f"c{i}", i, 1.0) for i in range(30))
    narrow, wide = (guide(TablePreprocessor(columns[:n])) for n in (2, 30))
    assert narrow is not None
    assert wide is not None
    assert narrow.samples == "[{'c0': 0.0, 'c1': 1.0}]"
    assert wide.samples == '[{column["name"]: None for column in preprocessor.columns}]'
