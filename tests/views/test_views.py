"""Views of a plan: bits that depend on the sample only, equality of both pipelines, and errors of invalid requests."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views import Views, clean, previews
from sslcli.views.images.resample import Region, crop_resize

CONFIGS = Path(__file__).parents[2] / "configs" / "augmentation"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
KINDS = ("global", "local", "weak")
CROP = {"random_resized_crop": {"scale": [0.2, 1.0]}}


def recipe(name: str) -> dict[str, dict]:
    made = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert isinstance(made.pop("summary"), str)
    return made


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def images(n: int, c: int, h: int, w: int | None = None, **more) -> tuple[Tensor, Dataset]:
    x = noise(n, c, h, w or h)
    more = {"values": Continuous(tuple([0.4] * c), tuple([0.25] * c))} | more
    return x, Dataset("d", "image", (c, h, w or h), ArraySource(x), None, **more)


def walks(n: int, c: int, t: int) -> tuple[Tensor, Dataset]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, c, t, generator=g).cumsum(2)
    for i in range(0, n, 3):
        x[i, :, t - i % (t // 2) :] = float("nan")
    return x, Dataset("d", "series", (c, t), ArraySource(x), None, values=Continuous((0.5,) * c, (3.0,) * c))


def digest(views: list[Tensor]) -> str:
    sha = hashlib.sha256()
    for view in views:
        sha.update(np.ascontiguousarray(view.numpy()).tobytes())
    return sha.hexdigest()


def in_batches(views: Views, x: Tensor, size: int, ids: Tensor) -> list[Tensor]:
    made = [views(x[i : i + size], Draw(1, 2, ids[i : i + size])) for i in range(0, len(x), size)]
    return [torch.cat(parts) for parts in zip(*made, strict=True)]


# What is made


@pytest.mark.parametrize(
    "name",
    [n for n in NAMES if n not in ("audio", "audio_speech", "frames", "interactions", "series", "table", "text")],
)
@pytest.mark.parametrize(("c", "side"), [(3, 32), (1, 8), (1, 28), (5, 20), (3, 72)])
def test_image_recipes_on_all_image_kinds(name, c, side):
    x, data = images(6, c, side)
    views = Views({"global": 2, "local": 2, "weak": 1, "clean": 1}, recipe(name), data)
    out = views(x, Draw(0, 0, torch.arange(6)))
    assert views.kinds == ["global", "global", "local", "local", "weak", "clean"]
    assert [tuple(v.shape[1:]) for v in out] == views.shapes
    assert all(v.dtype == torch.float32 and v.is_contiguous() and v.isfinite().all() for v in out)
    assert views.shapes[0] == views.shapes[4] == (c, side, side)
    assert views.shapes[2][1] < side
    torch.testing.assert_close(out[5], (x.float() / 255 - 0.4) / 0.25)
    if name != "none":
        assert not torch.equal(out[0], out[1])
    assert bool(views.notes) == (c != 3 and name in ("simclr", "symmetric", "asymmetric"))


def test_recipes_define_three_kinds():
    assert {"simclr", "symmetric", "asymmetric", "weak", "mae", "gray_small", "none", "series"} <= set(NAMES)
    for name in NAMES:
        assert set(recipe(name)) == set(KINDS), name


def test_series_recipe():
    x, data = walks(9, 3, 50)
    views = Views({"global": 2, "local": 1, "weak": 1, "clean": 1}, recipe("series"), data)
    out = views(x, Draw(0, 0, torch.arange(9)))
    assert [tuple(v.shape[1:]) for v in out] == views.shapes == [(3, 50), (3, 50), (3, 24), (3, 50), (3, 50)]
    torch.testing.assert_close(out[4], (x - 0.5) / 3, equal_nan=True)
    for view in (out[0], out[1], out[3]):
        assert torch.equal(view.isnan(), x.isnan())
    assert views.notes == []


def test_clean_view_is_deterministic():
    x, data = images(5, 3, 16)
    views = clean(data)
    assert views.kinds == ["clean"]
    a = views(x, Draw(0, 0, torch.arange(5)))[0]
    assert torch.equal(a, views(x, Draw(5, 9, torch.arange(5) + 100))[0])
    torch.testing.assert_close(a, (x.float() / 255 - 0.4) / 0.25)
    shown = torch.stack([p.pixels for p in previews(data, a)])
    torch.testing.assert_close(shown, x.float() / 255)


def test_images_larger_than_view_are_resized():
    x, _ = images(4, 3, 48)
    data = Dataset("d", "image", (3, 16, 16), ArraySource(x), None, values=Continuous((0.0,), (1.0,)))
    zero = torch.zeros(4, dtype=torch.float64)
    want = crop_resize(x, Region(zero, zero, zero + 48, zero + 48), (16, 16), "bilinear")
    assert torch.equal(clean(data)(x, Draw(0, 0, torch.arange(4)))[0], want)


def test_non_square_images():
    x, data = images(4, 2, 12, 30)
    views = Views({"global": 1, "local": 1, "clean": 1}, recipe("weak"), data)
    assert views.shapes == [(2, 12, 30), (2, 4, 12), (2, 12, 30)]
    assert [tuple(v.shape[1:]) for v in views(x, Draw(0, 0, torch.arange(4)))] == views.shapes


@pytest.mark.parametrize(("side", "want"), [(224, 96), (96, 40), (64, 28), (32, 12), (8, 4)])
def test_size_of_local_views(side, want):
    _, data = images(1, 3, side)
    assert Views({"local": 1}, recipe("weak"), data).shapes == [(3, want, want)]
    whole = {"local": {"random_resized_crop": {"size": 10}}}
    assert Views({"local": 1}, whole, data).shapes == [(3, 10, 10)]


def test_p_by_view():
    x, data = images(200, 3, 8, values=Continuous((0.0,), (1.0,)))
    flips = {"global": {"horizontal_flip": {"p": [0.0, 1.0]}}}
    a, b = Views({"global": 2}, flips, data)(x, Draw(0, 0, torch.arange(200)))
    assert torch.equal(a, x.float() * (1 / 255))
    assert torch.equal(b, a.flip(-1))
    one = Views({"global": 1}, flips, data)(x, Draw(0, 0, torch.arange(200)))  # fewer views than entries: the first
    assert torch.equal(one[0], a)


def test_p_is_fraction_of_samples():
    x, data = images(4000, 1, 4, values=Continuous((0.0,), (1.0,)))
    y = Views({"global": 1}, {"global": {"solarize": {"threshold": 0.0, "p": 0.3}}}, data)(
        x, Draw(0, 0, torch.arange(4000))
    )[0]
    on = (y - (1 - x / 255)).flatten(1).abs().amax(1) < 1e-6
    off = (y - x / 255).flatten(1).abs().amax(1) < 1e-6
    assert (on ^ off).all()
    assert abs(float(on.double().mean()) - 0.3) < 4 * (0.21 / 4000) ** 0.5


def test_flip_fused_with_crop_equals_flip():
    x, data = images(64, 3, 16)
    draw = Draw(0, 0, torch.arange(64))
    plain = Views({"global": 1}, {"global": CROP}, data)(x, draw)[0]
    both = Views({"global": 1}, {"global": CROP | {"horizontal_flip": {"p": 0.5}}}, data)(x, draw)[0]
    on = draw.of_view(0).uniform("horizontal_flip/p") < 0.5
    assert 0 < int(on.sum()) < 64
    assert torch.equal(both[~on], plain[~on])
    torch.testing.assert_close(both[on], plain[on].flip(-1), rtol=0, atol=0.1 / 255 / 0.25)
    always = Views({"global": 1}, {"global": CROP | {"horizontal_flip": {"p": 1}}}, data)(x, draw)[0]
    torch.testing.assert_close(always, plain.flip(-1), rtol=0, atol=0.1 / 255 / 0.25)


# The same bits


CASES = [
    ("simclr", 32, 3, 256),
    ("symmetric", 13, 3, 256),
    ("asymmetric", 31, 3, 256),
    ("gray_small", 8, 1, 256),
    ("mae", 17, 2, 256),
    ("simclr", 72, 3, 65),
]


@pytest.mark.parametrize(("name", "side", "c", "n"), CASES)
def test_image_bits_independent_of_batch_and_threads(name, side, c, n):
    x, data = images(n, c, side)
    ids = torch.arange(n) * 7 + 3
    views = Views({"global": 2, "local": 1, "weak": 1}, recipe(name), data)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = in_batches(views, x, n, ids)
        assert digest(in_batches(views, x, 64, ids)) == digest(whole)
        some = torch.tensor([0, 63, 64, n - 1])
        want = digest([v[some] for v in whole])
        assert digest(in_batches(views, x[some], 1, ids[some])) == want
        shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:51]
        assert digest(in_batches(views, x[shuffled], 50, ids[shuffled])) == digest([v[shuffled] for v in whole])
        torch.set_num_threads(2)
        assert digest(in_batches(views, x[:48], 48, ids[:48])) == digest([v[:48] for v in whole])
        assert digest(in_batches(views, x[some], 1, ids[some])) == want
    finally:
        torch.set_num_threads(before)


def test_image_bits_independent_of_precision():
    x, data = images(20, 3, 32)
    views, draw = Views({"global": 1}, recipe("simclr"), data), Draw(0, 0, torch.arange(20))
    want = digest(views(x, draw))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert digest(views(x, draw)) == want
        assert torch.get_float32_matmul_precision() == "medium"  # left as it was
    finally:
        torch.set_float32_matmul_precision(before)


def test_series_bits_independent_of_batch():
    x, data = walks(256, 3, 61)
    others = {name: {"p": 0.5} for name in ("permutation", "rotation", "time_warp", "magnitude_warp", "frequency_mask")}
    ops = {"global": recipe("series")["global"] | others, "local": recipe("series")["local"]}
    views = Views({"global": 2, "local": 1}, ops, data)
    ids = torch.arange(256)
    whole = in_batches(views, x, 256, ids)
    assert digest(in_batches(views, x, 64, ids)) == digest(whole)
    assert digest(in_batches(views, x[:5], 1, ids[:5])) == digest([v[:5] for v in whole])


def test_views_depend_on_seed_epoch_sample_and_view():
    x = noise(1, 3, 16, 16).expand(8, 3, 16, 16)  # the same picture eight times
    _, data = images(1, 3, 16)
    views = Views({"global": 3}, recipe("simclr"), data)
    out = views(x, Draw(0, 0, torch.arange(8)))
    rows = [v[i] for v in out for i in range(8)]
    assert len({digest([r]) for r in rows}) == 24  # every sample and every view another picture
    assert digest(views(x, Draw(0, 0, torch.arange(8)))) == digest(out)
    for other in (Draw(1, 0, torch.arange(8)), Draw(0, 1, torch.arange(8)), Draw(0, 0, torch.arange(8) + 8)):
        assert not {digest([v[i]]) for v in views(x, other) for i in range(8)} & {digest([r]) for r in rows}
    twice = views(x, Draw(0, 0, torch.tensor([3, 3, 5, 5, 3, 3, 3, 3])))
    assert torch.equal(twice[1][0], twice[1][1])
    assert torch.equal(twice[1][0], out[1][3])


def test_ops_have_independent_random_numbers():
    x, data = images(40, 3, 16)
    draw = Draw(0, 0, torch.arange(40))
    short = Views({"global": 1}, {"global": CROP}, data)(x, draw)[0]
    long = Views({"global": 1}, {"global": CROP | {"solarize": {"p": 0.5}}}, data)(x, draw)[0]
    same = [torch.equal(a, b) for a, b in zip(short, long, strict=True)]
    assert 5 < sum(same) < 35  # those that are not solarized are cropped as before


def test_golden_bits():
    """Region, flip and color of fixed samples, compared with stored rounded values."""
    x = (torch.arange(3 * 6 * 6).view(1, 3, 6, 6) * 2).to(torch.uint8).expand(2, 3, 6, 6)
    data = Dataset("d", "image", (3, 6, 6), ArraySource(x), None, values=Continuous((0.0,), (1.0,)))
    ops = CROP | {"horizontal_flip": {}, "color_jitter": {"brightness": 0.4, "hue": 0.1, "p": 0.8}}
    y = Views({"global": 1}, {"global": ops}, data)(x, Draw(0, 0, torch.tensor([10, 11])))[0]
    assert [[round(v, 4) for v in row] for row in y[:, :, 2, 3].tolist()] == GOLDEN


GOLDEN = [[0.1892, 0.8136, 0.7903], [0.1813, 0.8432, 0.8868]]


# Two paths, one picture


def pictures(c: int, sizes: list[tuple[int, int]]) -> list[Image.Image]:
    """Smooth images of given (height, width): a wrong region is visible, Pillow's rounding is not."""
    made = []
    for i, (h, w) in enumerate(sizes):
        y, x = np.mgrid[0:h, 0:w]
        levels = [127 + 120 * np.sin(x / w * (3 + k) + i) * np.cos(y / h * (4 - k)) for k in range(c)]
        pixels = np.stack(levels, -1).round().astype(np.uint8)
        made.append(Image.fromarray(pixels[:, :, 0] if c == 1 else pixels))
    return made


def raw_of(picture: Image.Image, c: int) -> Tensor:
    pixels = torch.from_numpy(np.array(picture))
    return pixels.view(*pixels.shape[:2], c).permute(2, 0, 1)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("name", ["weak", "none"])
def test_frames_and_finish_use_same_region(c, name):
    sizes = [(40, 40)] * 12
    shown = pictures(c, sizes)
    x = torch.stack([raw_of(p, c) for p in shown])
    data = Dataset("d", "image", (c, 24, 24), ArraySource(x), None, values=Continuous((0.0,), (1.0,)))
    views = Views({"global": 2, "local": 1, "weak": 1, "clean": 1}, recipe(name), data)
    draw = Draw(3, 1, torch.arange(12) * 5)
    frames = views.frames(shown, draw)
    assert [f.dtype for f in frames] == [torch.uint8] * 5
    assert [tuple(f.shape[1:]) for f in frames] == views.shapes
    for got, want in zip(views.finish(frames, draw), views(x, draw), strict=True):
        # Pillow rounds to whole levels twice and cuts off what a cubic overshoots
        torch.testing.assert_close(got, want, rtol=0, atol=1.6 / 255)


def test_frames_of_images_of_any_size():
    sizes = [(40, 40), (17, 90), (120, 31), (9, 9), (200, 300)]
    shown = pictures(3, sizes)
    data = Dataset("d", "image", (3, 24, 24), ArraySource(noise(1, 3, 24, 24)), None, values=Continuous((0.0,), (1.0,)))
    views = Views({"global": 2, "clean": 1}, recipe("mae"), data)
    ids = torch.arange(5) + 7
    together = views.finish(views.frames(shown, Draw(0, 4, ids)), Draw(0, 4, ids))
    for i, picture in enumerate(shown):
        draw = Draw(0, 4, ids[i : i + 1])
        alone = views.finish(views.frames([picture], draw), draw)  # another worker, another batch: the same bits
        assert digest(alone) == digest([v[i : i + 1] for v in together])
        direct = views(raw_of(picture, 3)[None], draw)  # as if it were resident
        for got, want in zip(alone, direct, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=2.6 / 255)


def test_finish_applies_other_ops():
    shown = pictures(3, [(30, 30)] * 40)
    x = torch.stack([raw_of(p, 3) for p in shown])
    data = Dataset("d", "image", (3, 30, 30), ArraySource(x), None, values=Continuous((0.2, 0.4, 0.6), (0.5,) * 3))
    ops = {
        "global": {
            "horizontal_flip": {},
            "color_jitter": {"brightness": 0.4, "hue": 0.1},
            "solarize": {},
            "grayscale": {},
        }
    }
    views, draw = Views({"global": 2}, ops, data), Draw(0, 0, torch.arange(40))
    assert digest(views.finish(views.frames(shown, draw), draw)) == digest(views(x, draw))  # no resizing: the same bits


def test_views_are_picklable():
    x, data = images(3, 3, 16)
    views, draw = Views({"global": 2}, recipe("simclr"), data), Draw(0, 0, torch.arange(3))
    assert digest(pickle.loads(pickle.dumps(views))(x, draw)) == digest(views(x, draw))


def test_inputs_are_unchanged():
    x, data = images(5, 3, 16)
    before = x.clone()
    Views({"global": 2, "clean": 1}, recipe("simclr"), data)(x, Draw(0, 0, torch.arange(5)))
    assert torch.equal(x, before)
    s, data = walks(5, 2, 30)
    before = s.clone()
    Views({"global": 2, "clean": 1}, recipe("series"), data)(s, Draw(0, 0, torch.arange(5)))
    assert torch.equal(s.nan_to_num(9.0), before.nan_to_num(9.0))


def test_memory_is_bounded(monkeypatch):
    """Also with the whole batch as one part, as on a GPU."""
    from sslcli.views import image, op

    monkeypatch.setattr(image, "parts", lambda n, numbers, device: op.slices(n, 4 * numbers, 1 << 40))
    x, data = images(64, 3, 32)
    views = Views({"global": 1}, {"global": recipe("simclr")["global"] | {"noise": {}}}, data)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            made = func(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                largest = max(largest, made.untyped_storage().nbytes())
            return made

    with Watch():
        out = views(x, Draw(0, 0, torch.arange(64)))
    view = out[0].numel() * 4
    assert view <= largest <= 4 * view


# Refusals


@pytest.mark.parametrize(
    ("ops", "said", "hinted"),
    [
        ({"color_jiter": {}}, "augmentation.global.color_jiter: unknown op", "did you mean color_jitter?"),
        (
            {"color_jitter": {"brightnes": 1}},
            "augmentation.global.color_jitter has no parameter brightnes",
            "mean brightness?",
        ),
        (
            {"color_jitter": {"hue": 0.7}},
            "augmentation.global.color_jitter.hue: expected a number from 0 to 0.5, got 0.7",
            None,
        ),
        (
            {"color_jitter": {"brightness": "much"}},
            "color_jitter.brightness: expected a number of at least 0, got 'much'",
            None,
        ),
        ({"random_resized_crop": {"scale": [0.5, 0.1]}}, "scale: expected two numbers", None),
        ({"random_resized_crop": {"interpolation": "cubic"}}, "interpolation: expected one of bilinear, bicubic", None),
        ({"random_resized_crop": {"size": 7.5}}, "size: expected null, a fraction", None),
        ({"horizontal_flip": {"p": 1.5}}, "horizontal_flip.p: expected a number from 0 to 1", None),
        ({"horizontal_flip": {"p": [0.5]}}, "horizontal_flip.p has 1 entries", "one per view"),
        ({"horizontal_flip": 0.5}, "expected a mapping of parameters", "horizontal_flip: {}"),
        ({"horizontal_flip": {}, **CROP}, "random_resized_crop must be the first op", None),
        ({"random_crop": {"padding": 40, "mode": "reflect"}}, "padding: expected a number below the side", None),
        ({"time_mask": {}}, "augmentation.global.time_mask requires data of modality series", "time_mask=null"),
    ],
)
def test_refused(ops, said, hinted):
    _, data = images(1, 3, 16)
    with pytest.raises(RequestError) as caught:
        Views({"global": 2}, {"global": ops}, data)
    assert said in caught.value.message
    if hinted:
        assert hinted in (caught.value.hint or "")


@pytest.mark.parametrize(("size", "side"), [(None, 16), (1, 16), (1.0, 16), (0.75, 12), (0.01, 4), (9, 9), (20, 20)])
def test_size_of_a_view(size, side):
    _, data = images(1, 3, 16)
    views = Views({"global": 1}, {"global": {"random_resized_crop": {"size": size}}}, data)
    assert views.shapes == [(3, side, side)]


def test_refused_kinds():
    _, data = images(1, 3, 16)
    with pytest.raises(RequestError, match="views of kind globl") as caught:
        Views({"globl": 2}, recipe("weak"), data)
    assert "did you mean global?" in (caught.value.hint or "")
    with pytest.raises(RequestError, match="no views"):
        Views({"global": 0}, recipe("weak"), data)
    with pytest.raises(RequestError, match="expected an integer"):
        Views({"global": "two"}, recipe("weak"), data)  # type: ignore[dict-item]


def test_ops_can_be_switched_off():
    x, data = images(3, 3, 16)
    draw = Draw(0, 0, torch.arange(3))
    want = Views({"global": 1}, {"global": CROP}, data)(x, draw)
    for off in (None, False, {"p": 0}):
        assert digest(Views({"global": 1}, {"global": CROP | {"solarize": off}}, data)(x, draw)) == digest(want)


# A GPU, where there is one


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["simclr", "gray_small"])
def test_views_independent_of_device(name):
    x, data = images(128, 3, 32)
    views, draw = Views({"global": 2, "local": 1}, recipe(name), data), Draw(0, 0, torch.arange(128))
    here = views(x, draw)
    there = [v.cpu() for v in views(x.cuda(), draw)]
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    small = [v.cpu() for v in views(x[:3].cuda(), draw.rows(slice(0, 3)))]
    assert digest(small) == digest([v[:3] for v in there])
