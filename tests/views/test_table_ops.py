"""Views of tables: draws from the marginals of training rows, masks, noise; as functions of the sample."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from sslcli.data.dataset import ArraySource
from sslcli.errors import RequestError
from sslcli.plotting import LEVELS, heat_class
from sslcli.report.html.page import asset
from sslcli.rng import Draw
from sslcli.views import Views, clean, previews
from sslcli.views.preview.base import heat
from sslcli.views.preview.row import Row
from sslcli.views.table import in_units
from sslcli.views.tables.ops import Corrupt
from tests.rows import VALUES, dataset, rows


def view(recipe: dict, data=None, n: int = 50, epoch: int = 0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    data = data or dataset()
    x = data.train.resident.tensor[:n]
    (out,) = Views({"global": 1}, {"global": recipe}, data)(x, Draw(seed, epoch, torch.arange(n)))
    return x, out


def changed(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    return (x != out) & ~(x.isnan() & out.isnan())


def test_clean_view_is_the_row():
    x = dataset().train.resident.tensor
    (out,) = clean(dataset())(x, Draw(0, 0, torch.arange(len(x))))
    torch.testing.assert_close(out, x, rtol=0, atol=0, equal_nan=True)
    assert out.data_ptr() != x.data_ptr()


def test_corrupt_changes_at_most_the_share():
    x, out = view({"corrupt": {"share": 0.5}})
    assert changed(x, out).sum(1).max() == 3
    everything = torch.randn(200, 6)  # of continuous columns each draw differs
    data = replace(
        dataset(),
        train=ArraySource(everything),
        values=replace(VALUES, categories=(0,) * 6, mean=(0.0,) * 6, std=(1.0,) * 6),
    )
    x, out = view({"corrupt": {"share": 0.6}}, data)
    own = (everything[:50][:, None] == everything[None, :]).all(-1).float().argmax(1)
    assert torch.equal(own, torch.arange(50))
    assert (changed(x, out).sum(1) <= 3).all()
    assert changed(x, out).sum() >= 0.97 * 150


def test_inexact_corrupt_has_a_random_count():
    x, out = view({"corrupt": {"share": 0.5, "exact": False}}, n=200)
    counts = changed(x, out).sum(1)
    assert counts.min() == 0
    assert counts.max() >= 4


def test_corrupt_draws_the_marginal_of_training_rows():
    data = dataset(2000)
    x, out = view({"corrupt": {"share": 1.0}}, data, n=2000)
    for j in range(6):
        values = {v for v in x[:, j].tolist() if v == v}
        assert {v for v in out[:, j].tolist() if v == v} <= values
        a, b = (torch.nan_to_num(t[:, j], -9.0) for t in (x, out))
        assert abs(a.mean() - b.mean()) < 0.25
    assert abs(out[:, 2].isnan().float().mean() - x[:, 2].isnan().float().mean()) < 0.04
    assert abs(torch.corrcoef(torch.stack([out[:, 0], out[:, 1]]))[0, 1]) < 0.08, "columns are drawn independently"
    assert torch.corrcoef(torch.stack([x[:, 0], x[:, 1]]))[0, 1] > 0.2


def test_corrupt_never_reads_test_rows():
    data = dataset()
    other = replace(data, test=ArraySource(torch.full((100, 6), 1e9)))
    test = other.test.resident.tensor[:20]
    (out,) = Views({"global": 1}, {"global": {"corrupt": {"share": 0.9}}}, other)(test, Draw(0, 0, torch.arange(20)))
    assert (out[out != 1e9].nan_to_num().abs() < 100).all()
    _, a = view({"corrupt": {}}, data)
    _, b = view({"corrupt": {}}, other)
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "recipe", [{"corrupt": {"p": 0.5}}, {"mask": {}}, {"noise": {}}, {"corrupt": {"exact": False}, "noise": {}}]
)
def test_view_is_a_function_of_the_sample(recipe):
    data = dataset()
    _, together = view(recipe, data)
    views = Views({"global": 1}, {"global": recipe}, data)
    ids = torch.tensor([31, 2, 7])
    (alone,) = views(data.train.resident.tensor[ids], Draw(0, 0, ids))
    torch.testing.assert_close(alone, together[ids], rtol=0, atol=0, equal_nan=True)
    _, later = view(recipe, data, epoch=1)
    _, other = view(recipe, data, seed=1)
    assert changed(together, later).any()
    assert changed(together, other).any()
    (finished,) = views.finish([data.train.resident.tensor[ids]], Draw(0, 0, ids))
    torch.testing.assert_close(finished, alone, rtol=0, atol=0, equal_nan=True)


def test_mask_hides_the_share_of_what_is_present():
    x, out = view({"mask": {"share": 0.4}}, dataset(2000), n=2000)
    category = VALUES.is_category(x)
    assert torch.equal(x.isnan(), out.isnan())
    hidden = changed(x, out)
    assert (out[hidden] == 0).all()
    assert abs(hidden[:, category & torch.tensor([True, True, True, True, False, True])].float().mean() - 0.4) < 0.03


def test_noise_leaves_categories_and_missing_values():
    x, out = view({"noise": {"sigma": 0.5}}, dataset(2000), n=2000)
    category = VALUES.is_category(x)
    assert torch.equal(x[:, category], out[:, category])
    assert torch.equal(x.isnan(), out.isnan())
    difference = (out - x)[:, [0, 5]]
    assert abs(difference.std() - 0.5) < 0.03
    assert abs(difference.mean()) < 0.03


def test_wrong_parameters_are_named():
    for recipe, message in (
        ({"corrupt": {"share": 1.5}}, "corrupt.share"),
        ({"corrupt": {"exact": 1}}, "corrupt.exact"),
        ({"mask": {"share": -1}}, "mask.share"),
        ({"noise": {"sigma": "a"}}, "noise.sigma"),
        ({"horizontal_flip": {}}, "requires data of modality image"),
    ):
        with pytest.raises(RequestError, match=message):
            view(recipe)


def test_rows_in_units_of_the_data():
    data = dataset()
    x = data.train.resident.tensor[:5]
    out = in_units(x, data.values)
    torch.testing.assert_close(out[:, 0], x[:, 0] * 10 + 40)
    torch.testing.assert_close(out[:, 5], x[:, 5] * 2e4 + 1e5)
    assert torch.equal(out[:, 1], x[:, 1])


def test_preview_names_columns_and_values():
    x = torch.tensor([[1.0, 2.0, float("nan"), 0.0, 1.0, -2.0]])
    (shown,) = previews(dataset(), x)
    assert shown.text() == "column 1 50, column 2 2, column 3 –, column 4 –, column 5 1, column 6 60,000"
    assert "<th" in shown.html()
    assert "60,000" in shown.html()
    assert shown.image(200, 60).size == (200, 60)
    weights = torch.arange(6.0)
    assert [f"heat-{level}" in shown.importance(weights).html() for level in (0, 9)] == [True, True]
    other = x.clone()
    other[0, 1] = 3
    assert shown.difference(previews(dataset(), other)[0]).text() == "column 2 3"


def test_importance_lists_the_most_important_columns_first():
    row = Row(("a", "b", "c"), ("1", "2", "3")).importance(torch.tensor([0.2, 0.9, -0.5]))
    assert (row.names, row.values) == (("b", "a", "c"), ("2", "1", "3"))
    assert row.colors.sum(dim=0).argsort().tolist() == [0, 1, 2]  # dark is more


def test_page_of_a_row_needs_no_style_attribute():
    """The policy of a report blocks them: its stylesheet has a class for each level."""
    row = Row(("a", "b", "c", "d"), ("1", "2", "3", "4"))
    markup = row.importance(torch.tensor([0.0, 1.0, 0.55, 0.1])).html()
    assert re.findall(r'<td class="(heat-\d)">(\d)</td>', markup) == [
        ("heat-9", "2"),
        ("heat-5", "3"),
        ("heat-1", "4"),
        ("heat-0", "1"),
    ]
    for shown in (row, row.importance(torch.zeros(4)), row.overlay(torch.rand(3, 4))):
        assert "style=" not in shown.html()
    assert "class=" not in row.overlay(torch.rand(3, 4)).html().removeprefix('<table class="preview">')


def test_stylesheet_has_the_colors_of_heat():
    style = asset("style.css")
    for level in range(LEVELS):
        (rule,) = re.findall(rf"\.heat-{level} {{ background: (#\w+); color: (#\w+); }}", style)
        r, g, b = (heat(torch.tensor(level / (LEVELS - 1))) * 255).round().int().tolist()
        shown = [int(rule[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert max(abs(a - b) for a, b in zip(shown, (r, g, b), strict=True)) <= 1
        assert heat_class((level + 0.5) / LEVELS) == f"heat-{level}"
    assert (heat_class(1.0), heat_class(-0.1)) == (f"heat-{LEVELS - 1}", "heat-0")


def test_preview_escapes_names():
    assert "<script>" not in Row(("<script>",), ("<b>",)).html()


def test_rows_are_resident_in_both_splits():
    assert dataset().train.resident.tensor.shape == rows(200)[0].shape


def test_training_rows_are_copied_to_a_device_once():
    data, device = dataset(), torch.device("meta")
    op = Corrupt()
    op.attach(data)
    assert op.training_rows(device) is op.training_rows(device), (
        "a copy for each batch would end the capture of CUDA graphs"
    )
    assert op.training_rows(torch.device("cpu")) is data.train.resident.tensor


def test_corrupt_draws_each_column_from_its_marginal():
    data = dataset(500)
    pool = data.train.resident.tensor
    x = rows(3000, 7)[0] + 1000  # no value of a row is one of a training row
    (out,) = Views({"global": 1}, {"global": {"corrupt": {"share": 1.0}}}, data)(x, Draw(0, 0, torch.arange(len(x))))
    for j, n in enumerate(VALUES.categories):
        if n:
            share, expected = (torch.bincount(v[:, j].long(), minlength=n) / len(v) for v in (out, pool))
            torch.testing.assert_close(share, expected, atol=0.04, rtol=0)
    missing, expected = (float(v[:, 2].isnan().float().mean()) for v in (out, pool))
    assert missing == pytest.approx(expected, abs=0.03)
    dependence = torch.corrcoef(torch.stack([out[:, 0], out[:, 1]]))[0, 1]
    assert float(torch.corrcoef(torch.stack([pool[:, 0], pool[:, 1]]))[0, 1]) > 0.2
    assert abs(float(dependence)) < 0.06, "columns are drawn from different rows"


def test_row_of_many_columns_keeps_a_legible_size():
    row = Row(tuple(f"column {j}" for j in range(2000)), ("1",) * 2000)
    assert row.size[1] < 400
    assert row.image(*row.size).size == row.size
    assert "1,940 more columns" in row.html()
