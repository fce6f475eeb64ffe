"""Views of audio: log-mel spectrograms (1, F, T) float32, normalized by band, of clips of any lengths.

Raw samples are int16 waves at one rate. Padding is silence: zeros of the wave, never of the normalized spectrogram,
where 0 is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.statistics import middle
from sslcli.data.dataset import Dataset, Preprocessor, Source
from sslcli.data.user_files.audio import read_audio_files
from sslcli.data.user_files.samples import UserFiles
from sslcli.views.clips.baselines import Clips, MelRegression, MelStatistics, mean_and_std, stretched
from sslcli.views.clips.copies import ClipCopies, defects
from sslcli.views.clips.corruptions import corruptions
from sslcli.views.clips.mel_ops import OPS
from sslcli.views.clips.view import AudioView, preprocessor_of
from sslcli.views.copies import NearCopies
from sslcli.views.corruption import Corruption
from sslcli.views.grid import GridModality
from sslcli.views.modality import Baseline, RawFeatures
from sslcli.views.op import Op
from sslcli.views.preview.base import Preview
from sslcli.views.preview.spectrogram import Spectrogram

PLAYED_SECONDS = 10


class AudioModality(GridModality):
    """Clips of audio."""

    noun = ("clip", "clips")
    ops = OPS
    unit = "standard deviations of the band"

    def view(self, ops: list[Op], dataset: Dataset) -> AudioView:
        return AudioView(ops, dataset)

    def describe(self, shape: tuple[int, ...]) -> str:
        return f"log-mel spectrogram of {shape[1]} bands x {shape[2]} frames"

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, AudioPreprocessor), preprocessor
        return read_audio_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        known = preprocessor_of(dataset)
        mean, std = (torch.tensor(v)[:, None] for v in (known.mean, known.std))
        levels = x.detach().float().cpu()[:, 0] * std + mean
        levels = levels.where(levels.isfinite(), known.mel.log_floor)  # padding
        seconds = known.mel.samples(x.shape[-1]) / known.mel.rate
        return [Spectrogram(each, seconds) for each in levels]

    def present(self, shown: list[Preview], source: Source, ids: Tensor, dataset: Dataset) -> list[Preview]:
        """With the sound, of at most 10 seconds of the middle."""
        rate = preprocessor_of(dataset).mel.rate
        return [
            replace(one, clip=middle(source.read(i), PLAYED_SECONDS * rate), rate=rate)
            if isinstance(one, Spectrogram)
            else one
            for one, i in zip(shown, ids.tolist(), strict=True)
        ]

    def raw_features(self, dataset: Dataset) -> RawFeatures:
        return MelStatistics()

    def whole(self, source: Source, ids: Tensor, dataset: Dataset) -> Clips:
        """The clips without the cut of a view, and without silence after them."""
        return Clips(source, ids, preprocessor_of(dataset))

    def baselines(self, dataset: Dataset) -> dict[str, Baseline]:
        training = self.whole(dataset.train, torch.arange(len(dataset.train)), dataset)
        return {
            "mel": MelRegression(mean_and_std, "mean and standard deviation of each mel band", training, dataset.task),
            "mel32": MelRegression(stretched, "log-mel spectrograms stretched to 32 frames", training, dataset.task),
        }

    def near_copies(self, dataset: Dataset, features: RawFeatures) -> NearCopies:
        return ClipCopies()

    def defects(self, x: Tensor, dataset: Dataset) -> Mapping[str, Tensor]:
        return defects(x, preprocessor_of(dataset))

    def corruptions(self, dataset: Dataset) -> Mapping[str, Corruption]:
        return corruptions(preprocessor_of(dataset))
