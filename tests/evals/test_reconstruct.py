from __future__ import annotations

import math

import pytest
import torch

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.vit import ViT
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.reconstruct import errors, psnr, reconstruct, reconstructs
from sslcli.methods.autoencoder import Autoencoder
from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.methods.mae import MAE
from sslcli.methods.simsiam import SimSiam
from sslcli.nn.values import Continuous
from sslcli.rng import Draw
from sslcli.views.modality import modality
from tests.evals import toys


class Copy(Method):
    """Draws each sample again, `off` too bright in the units of the view; `half`: sees the left half only."""

    def __init__(self, off: float = 0.0, half: bool = False):
        super().__init__(toys.Rows())
        self.off, self.half = off, half

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.views
        hidden = torch.zeros_like(x, dtype=torch.bool)
        hidden[..., x.shape[-1] // 2 :] = True
        return Reconstruction(x, x + self.off, hidden if self.half else None)


def evaluated(method: Method, dataset: Dataset | None = None) -> EvalData:
    return EvalData(dataset or toys.dataset(), pretraining=lambda: (method.eval(), None))


def mae(norm_pix: bool, shape=(1, 8, 8)) -> MAE:
    torch.manual_seed(0)
    return MAE(ViT(shape, width=16, depth=1, heads=2, patch=2), norm_pix=norm_pix)


def test_reconstruct_metrics_are_in_pixels():
    """The toys have a standard deviation of 0.5: an error of 0.2 of the view is one of 0.1 in 0..1, whose PSNR is 20 dB."""
    data = evaluated(Copy(0.2))
    found = reconstruct(toys.Rows(), data)
    assert found.metrics["mse"] == pytest.approx(0.01, rel=1e-5)
    assert found.metrics["psnr"] == pytest.approx(20, abs=1e-4)
    train, test = (s.x.double() / 255 for s in (data.dataset.train, data.dataset.test))
    expected = float((test - train.mean(dim=0)).square().mean())
    assert found.metrics["mean.mse"] == pytest.approx(expected, rel=1e-4)
    assert set(found.metrics) == {"mse", "psnr", "mean.mse", "mean.psnr"}
    assert found.protocol["samples"] == 120
    assert found.protocol["masks"] == 1


def test_reconstruct_error_is_of_masked_patches():
    data = evaluated(Copy(0.2, half=True))
    found = reconstruct(toys.Rows(), data, masks=2).metrics
    assert found["mse"] == pytest.approx(0.01, rel=1e-5)
    assert found["whole.mse"] == pytest.approx(0.005, rel=1e-5)
    x = data.dataset.test.x.double() / 255
    level = x[..., :4].mean(dim=(2, 3), keepdim=True)
    assert found["visible.mse"] == pytest.approx(float((x[..., 4:] - level).square().mean()), rel=1e-4)
    assert found["interpolated.mse"] < found["visible.mse"] * 1.5
    assert "normalised.mse" not in found


@pytest.mark.parametrize("norm_pix", [True, False])
def test_reconstruct_error_of_known_mae(norm_pix):
    """Its own error is its loss on these masks; without normalised patches that is the number, in pixels."""
    method = mae(norm_pix)
    data = evaluated(method)
    found = reconstruct(toys.Rows(), data, masks=1)
    from sslcli.rng import derive

    x, ids = data.inputs("test", torch.arange(120))
    batch = Batch([x], ["clean"], Draw(derive(0, "reconstruct"), 0, ids))
    loss = method(batch)["loss"].item()
    name, scale = ("normalised.mse", 1.0) if norm_pix else ("mse", 0.25)
    assert found.metrics[name] == pytest.approx(loss * scale, rel=1e-4)
    assert ("normalised.mse" in found.metrics) == norm_pix
    assert bool(found.protocol["notes"]) == norm_pix


def test_reconstruct_ignores_statistics_of_masked_patches():
    """Two samples whose visible halves agree: what is guessed of the hidden half agrees too."""

    class Flat(Copy):
        def reconstruct(self, batch: Batch) -> Reconstruction:
            found = super().reconstruct(batch)
            mean = found.source.mean(dim=3, keepdim=True).expand_as(found.source)  # of rows: each has a hidden half
            return Reconstruction(
                found.source, torch.zeros_like(mean), found.hidden, mean * found.hidden, torch.ones_like(mean)
            )

    x = torch.randint(0, 255, (2, 1, 8, 8), dtype=torch.uint8)
    x[1, ..., :4] = x[0, ..., :4]
    source = ArraySource(x, torch.zeros(2, dtype=torch.int64))
    rows = Dataset("two", "image", (1, 8, 8), source, source, ("a",))
    from sslcli.evals.reconstruct import _guesses

    method = Flat(half=True)
    view = (x.float() / 255 - 0.5) / 0.5
    found = method.reconstruct(Batch([view], ["clean"], Draw(0, 0, torch.arange(2))))
    guess, _ = _guesses(found, torch.zeros(1, 1, 8, 8), modality("image"), rows.values)[""]
    assert torch.equal(guess[0], guess[1])
    assert "normalised.mse" in reconstruct(toys.Rows(), evaluated(method, rows)).metrics


def test_reconstruct_errors_per_sample():
    class Later(Copy):
        """Off by the id."""

        def reconstruct(self, batch: Batch) -> Reconstruction:
            (x,) = batch.views
            return Reconstruction(x, x + batch.ids.view(-1, 1, 1, 1))

    data = evaluated(Later())
    error, ids = errors(data, "test")
    assert ids.tolist() == list(range(120))
    torch.testing.assert_close(error, ids.float() ** 2)
    masked, _ = errors(evaluated(Copy(0.2, half=True)), "train")
    torch.testing.assert_close(masked, torch.full((240,), 0.04))


def test_reconstruct_errors_do_not_depend_on_the_batch():
    method = mae(True)
    one, other = evaluated(method), evaluated(method)
    other.batch_size = 7
    torch.testing.assert_close(errors(one, "test")[0], errors(other, "test")[0])


def test_reconstruct_requires_a_decoder():
    assert reconstructs(evaluated(mae(True)))
    assert reconstructs(evaluated(Autoencoder(ConvNet((1, 8, 8), width=4), width=4)))
    assert not reconstructs(evaluated(SimSiam(ConvNet((1, 8, 8), width=4))))
    assert not reconstructs(EvalData(toys.dataset()))
    with pytest.raises(RequestError, match="SimSiam does not reconstruct") as error:
        reconstruct(toys.Rows(), evaluated(SimSiam(ConvNet((1, 8, 8), width=4))))
    assert "method=mae" in error.value.hint
    with pytest.raises(RequestError, match="untrained"):
        errors(EvalData(toys.dataset()), "test")
    with pytest.raises(RequestError, match="at least 1"):
        reconstruct(toys.Rows(), evaluated(Copy()), masks=0)


def test_psnr_matches_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.image")
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(4, 3, 8, 8, generator=g), torch.rand(4, 3, 8, 8, generator=g)
    assert psnr(float((a - b).square().mean())) == pytest.approx(
        float(metrics.peak_signal_noise_ratio(a, b, data_range=1.0)), rel=1e-5
    )
    assert psnr(0.0) == 100.0
    assert psnr(0.1) == pytest.approx(10.0)


@pytest.mark.parametrize("shape", [(2, 21), (3, 40)])
def test_reconstruct_on_padded_series(shape):
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0))
    x[::2, :, -5:] = math.nan
    source = ArraySource(x)
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    rows = Dataset("s", "series", shape, source, source, values=Continuous(mean, std))
    torch.manual_seed(0)
    method = MAE(ViT(shape, width=16, depth=1, heads=2, patch=4), norm_pix=False)
    found = reconstruct(toys.Rows(), evaluated(method, rows))
    assert all(math.isfinite(v) for v in found.metrics.values())
    assert not any("psnr" in name for name in found.metrics)
    assert found.metrics["mean.mse"] == pytest.approx(1.0, abs=0.15)
    error, _ = errors(evaluated(method, rows), "test")
    assert torch.isfinite(error).all()


@pytest.mark.parametrize("norm_pix", [True, False])
def test_reconstruct_saves_the_sheet(tmp_path, norm_pix):
    sheet = reconstruct(toys.Rows(), evaluated(mae(norm_pix))).artefacts["samples.png"]
    assert ("true mean" in sheet.caption) == norm_pix
    assert list(sheet.titles) == ["source", "visible", "predicted", "error"]
    sheet.save(tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
