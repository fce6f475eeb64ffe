"""Audio files of a folder or a list: clips of any lengths and rates."""

from __future__ import annotations

from sslcli.data.audio.build import AudioOptions, build_dataset
from sslcli.data.audio.files import EXPECTED, choose_test, read_files
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_path


def audio_folder(
    path: str | None = None,
    name: str = "audio_folder",
    test: str | None = None,
    label: str | None = "auto",
    group: str | None = "auto",
    name_pattern: str | None = None,
    rate: int | str = "auto",
    seconds: float | str = "auto",
    channels: str = "mean",
    n_fft: int | str = "auto",
    hop: int | str = "auto",
    bands: int = 64,
    f_min: float = 50.0,
    f_max: float | str = "auto",
    mel: str = "htk",
    norm: str = "slaney",
    log_epsilon: float = 1e-6,
    loudness: str = "keep",
    splits: object = "auto",
    holdout: float | str = "auto",
    split_seed: int = 0,
    pretrain_on: str = "all",
    resident: bool | str = "auto",
    max_bad_fraction: float = 0.01,
    like: AudioPreprocessor | None = None,
) -> Dataset:
    """A data set of the audio files in a folder or a list file, of the modality "audio". WAV files are read without
    any other package, other formats with soundfile.

    `path`: a folder, or a list of files (.txt, .csv, .tsv) with the column path and optionally label, split and
    group.
    `test`: the held-out files: a folder, a list, or a pattern of names such as `*_jackson_*`; None, the folders test
    or val, the column split, or a part that is held out.
    `label`, `splits`: as of image_folder. `group`: clips of one group, such as a speaker, are never in both splits:
    auto, the column group or the field of `name_pattern`; top or parent, the names of folders; none.
    `name_pattern`: fields in the names of files, such as `{label}_{group}_{take}`.
    `rate`: samples per second; auto, that of most files, at most 16,000. `seconds`: of a view; auto, the length that
    95 % of the clips do not exceed, at most 5. It is rounded up to 16 frames.
    `channels`: the mean of all, or the first.
    `n_fft`: samples of a window; auto, a power of two, about 64 ms. `hop`: samples between frames; auto, 10 ms.
    `bands`, `f_min`, `f_max` (auto: half the rate), `mel`, `norm`, `log_epsilon`, `loudness`: see `MelSettings`.
    `holdout`: the held-out fraction; auto is a fifth where there are labels.
    `resident`: keep all clips in memory: auto (at most 2 GiB and half of the free memory), true, false.
    `like`: a preprocessor to use instead of these settings, and of fitting the mean and standard deviation of the
    bands.

    Raises RequestError for options, MachineError where a format requires soundfile, DataError for the contents of
    files.
    """
    options = AudioOptions(
        rate, seconds, channels, n_fft, hop, bands, f_min, f_max, mel, norm, log_epsilon, loudness, label, holdout, split_seed,
        pretrain_on, resident, max_bad_fraction, splits,
    )  # fmt: skip
    notes: list[str] = []
    text = require_path(path, EXPECTED)
    contents = read_files(text, label, group, name_pattern, splits, notes)
    choose_test(contents, test, text, lambda other: read_files(other, label, group, name_pattern, splits, []), notes)
    return build_dataset(name, contents, options, notes, like)
