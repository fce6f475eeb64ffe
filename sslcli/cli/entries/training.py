"""Commands that train or evaluate a configuration."""

from __future__ import annotations

from sslcli.cli.command import Command, Option

TRAINING_GROUPS = (
    "method",
    "backbone",
    "dataset",
    "augmentation",
    "optimizer",
    "schedule",
    "device",
    "logger",
    "experiment",
)

ENTRIES = (
    Command(
        "pretrain",
        "Train a backbone without labels and print the run folder.",
        "[key=value ...]",
        (
            ("method=simsiam", "scikit-learn's digits, about a minute on two cores"),
            ("method=byol dataset=cifar10 backbone=resnet18 train.epochs=200", ""),
            ("method=mae dataset=series dataset.path=signals.npz", "time series"),
            ("-m method=simsiam,simclr seed=0,1,2", "a sweep of six runs"),
            ("method=simclr resume=auto", "continue the newest run of this configuration, or start one"),
        ),
        hydra=True,
        groups=TRAINING_GROUPS,
        shared=("seed", "init", "train", "device"),
        overrides=True,
        json=False,
        distributed=True,
    ),
    Command(
        "eval",
        "Evaluate the frozen backbone of a run.",
        "NAME [run=RUN] [key=value ...]",
        (
            ("probe labels=10/class seeds=5", "linear probe of the newest run, five draws of the labels"),
            ("knn run=2026-11-22_14-03", "a run by the start of its name"),
            ("-m probe,knn,cluster", "several evaluators"),
            ("knn run=none dataset=cifar10 backbone=resnet18", "an untrained backbone, as baseline"),
            (
                "probe run=none init=hf:FOLDER dataset=text_table dataset.path=FILE",
                "pretrained weights of another library",
            ),
        ),
        notes="backbone=, augmentation= and init= require run=none: otherwise the run determines them.",
        hydra=True,
        groups=("dataset", "backbone", "augmentation", "device", "logger"),
        shared=("seed", "init", "train.devices", "device"),
        overrides=True,
        distributed=True,
    ),
    Command(
        "pipeline",
        "Pretrain, evaluate and write the report, in one command.",
        "[key=value ...]",
        (
            ("method=simclr stages=[probe,knn] labels=1% seeds=5", ""),
            ("method=simclr resume=auto", "continue: finished stages are skipped"),
        ),
        hydra=True,
        groups=TRAINING_GROUPS,
        shared=("seed", "init", "train", "device"),
        overrides=True,
        distributed=True,
    ),
    Command(
        "bench",
        "Measure the throughput of a configuration: views, model, both.",
        "[key=value ...]",
        (
            ("method=simclr dataset=cifar10 backbone=resnet18 train.batch_size=64", ""),
            ("method=byol dataset=image_folder dataset.path=photos device.workers=4 --json", ""),
            ("backbone=convnet device.threads=1 repeats=5 seconds=1", ""),
        ),
        notes="`lost` is 1 - (end to end / model alone). No run folder is created.",
        hydra=True,
        groups=TRAINING_GROUPS,
        shared=("seed", "init", "train.batch_size", "train.accumulate", "train.devices", "train.strategy", "device"),
        overrides=True,
        distributed=True,
    ),
    Command(
        "resume",
        "Resume an interrupted run.",
        "RUN [key=value ...]",
        (
            ("latest", "the newest run"),
            ("2026-11-22_14-03", "a run by the start of its name"),
            ("latest train.epochs=400", "train a run longer"),
        ),
        options=(
            Option("train.epochs", "N", "train for longer; likewise train.steps and train.budget"),
            Option(
                "train.devices",
                "N",
                "the number of processes; likewise the other keys that do not change what is computed",
            ),
            Option("device.KEY", "VALUE", "another device, precision, number of workers or threads"),
            Option("logger.KEY", "VALUE", "other settings of the loggers"),
            Option("dataset.path", "PATH", "where the data of the run are now"),
            Option("allow_data_change", "true|false", "resume although the data changed (default: false)"),
        ),
        notes="The weights are bit-identical to those of a run that was not interrupted. To start a new run from the weights of a "
        "run: sslcli pretrain init=RUN",
        overrides=True,
        runs=True,
        json=False,
        distributed=True,
    ),
)
