"""The commands: one entry feeds the parser, the help, completion and the suggestion after a misspelled name.

A new command is one module `commands/NAME.py` and one entry here. The module of a plain command has `main(request) -> int`; the
module of a command that Hydra runs has the functions that `hydra_command.py` lists, and its keys are in `configs/NAME.yaml`.
Imports neither torch nor Hydra.
"""

from __future__ import annotations

from sslcli.cli.command import Command, Option, Subcommand
from sslcli.config.registry import KINDS
from sslcli.evals.metrics import ranking

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
EXPORT_FORMATS = ("sslcli", "hf", "sentence_transformers")  # the names in formats/registry.py
OUT_PNG = "the image to write"
LISTED = {"evaluator": "choices of sslcli eval NAME", "modality": "kinds of data, and what they provide to methods"}

_TABLE = (
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
    Command(
        "runs",
        "List, inspect and compare runs, and build an HTML report.",
        "[SUBCOMMAND]",
        (
            ("", "one line for each run"),
            ("show latest", "one run with its metrics"),
            ("best probe.top1 -n 5", "the five runs with the highest accuracy"),
            ("compare RUN_A RUN_B", "two runs on the same test samples"),
            ("report latest", "report.html in the run folder"),
            ("report runs/sweep/NAME", "a sweep: a table, best first, means over seeds"),
        ),
        subcommands=(
            Subcommand("list", "one line for each run (the default)"),
            Subcommand("show RUN", "status, metrics and configuration of a run"),
            Subcommand(
                "best METRIC",
                "the runs in order of a metric",
                (Option("-n", "N", "how many (default: 10)"),),
            ),
            Subcommand(
                "compare RUN RUN ...",
                "metrics and configurations side by side; the difference of accuracy on the same test samples with its 95 % "
                "interval and McNemar's exact test; CKA of the encoders; the curves as an image",
                (
                    Option("out", "FILE.png", f"{OUT_PNG} (default: compare.png)"),
                    Option("cka", "true|false", "compare the encoders (default: true)"),
                    Option("seed", "N", "which samples the comparison draws (default: 0)"),
                    Option("device", "NAME", "the device that computes the features; likewise device.KEY"),
                ),
            ),
            Subcommand(
                "report [RUN|FOLDER]",
                "one self-contained HTML file",
                (Option("out", "FILE.html", "the file to write (default: report.html in the folder)"),),
            ),
        ),
        overrides=True,
        runs=True,
    ),
    Command(
        "select",
        "Rank runs or checkpoints by label-free metrics.",
        "RUN [RUN ...] [key=value ...]",
        (
            ("runs/sweep/2026-11-22_14-03-09", "all finished runs of a sweep"),
            ("'runs/*_digits' by=lidar --json", ""),
            ("latest", "the checkpoints of one run (train.keep=10 keeps more)"),
            ("RUN RUN probe=true labels=10/class", "also probe each, and report the rank correlation"),
        ),
        options=(
            Option(
                "by",
                "METRIC",
                f"{', '.join(ranking.METRICS)} (default: {ranking.DEFAULT}, the accuracy with which the nearest neighbor predicts "
                "the k-means cluster of a sample)",
                tuple(ranking.METRICS),
            ),
            Option("probe", "true|false", "run a linear probe where there is none (default: false)"),
            Option("seed", "N", "which samples the metrics use"),
            Option("evaluator.KEY", "VALUE", "settings of the metrics: sslcli eval quality --help"),
        ),
        notes="Results of the same weights with the same settings are reused.",
        overrides=True,
        runs=True,
    ),
    Command(
        "export",
        "Export the trained encoder, also for other libraries.",
        "RUN out=FOLDER [checkpoint=STEP|best|last] [format=NAME]",
        (
            ("latest out=encoder", "the final weights"),
            ("RUN checkpoint=300 out=encoder-300", "the checkpoint of step 300 (train.keep sets how many are kept)"),
            ("RUN checkpoint=best out=encoder", "the checkpoint that `sslcli select RUN` ranks first"),
            ("RUN format=hf out=bert", "a folder for transformers, of an encoder of text"),
        ),
        options=(
            Option(
                "format",
                "NAME",
                "sslcli (default); hf: for BertForMaskedLM or BertModel of transformers; sentence_transformers: that, with pooling",
                EXPORT_FORMATS,
            ),
            Option("checkpoint", "STEP|best|last", "which weights (default: last)"),
            Option("out", "FOLDER", "a new or an empty folder"),
        ),
        notes="Writes encoder.safetensors, with the keys of torchvision's ResNets and timm's ViTs, and encoder.json: the backbone, "
        "the shape of a sample, mean and standard deviation of its channels. A method that evaluates its teacher exports the "
        "teacher. The folder is read back and compared before it appears. To start a run from it: sslcli pretrain init=FOLDER",
        overrides=True,
        runs=True,
    ),
    Command(
        "list",
        "List methods, backbones, data sets, evaluators and other choices.",
        "KIND",
        (
            ("methods", "and the kinds of data that each runs on; columns separated by tabs in a pipe"),
            ("methods | cut -f1", "the names alone"),
            ("methods --json", ""),
        ),
        subcommands=tuple(
            Subcommand(kind, LISTED.get(group, f"choices of {group}=NAME")) for kind, group in KINDS.items()
        ),
    ),
    Command(
        "data",
        "Inspect, preview, pack or audit a data set.",
        "SUBCOMMAND [key=value ...]",
        (
            ("inspect dataset=image_folder dataset.path=photos --strict", ""),
            ("preview method=simclr dataset=cifar10", ""),
            ("pack dataset=image_folder dataset.path=photos out=photos.pack size=256", "re-run to continue"),
            ("audit dataset=image_folder dataset.path=photos", "copies, leaks, wrong labels, outliers: audit.csv"),
            ("audit run=latest", "the data of a run, judged by its features"),
        ),
        subcommands=(
            Subcommand(
                "inspect",
                "report counts, classes, sizes and unreadable files",
                (Option("--strict", "", "decode every sample"),),
            ),
            Subcommand(
                "preview",
                "draw samples and the views that the method would see",
                (Option("out", "FILE.png", f"{OUT_PNG} (default: views.png)"),),
            ),
            Subcommand(
                "pack",
                "pack many image files into a few large ones",
                (
                    Option("out", "FOLDER", "the pack"),
                    Option("size", "N", "scale the shorter side to N pixels (default: null, no change)"),
                    Option("format", "jpeg|raw", "how the images are stored (default: jpeg)"),
                    Option("quality", "N", "of JPEG, from 1 to 100 (default: 90)"),
                ),
            ),
            Subcommand(
                "audit",
                "find copies, copies across train and test, outliers, likely wrong labels, worthless and unreadable samples",
                (
                    Option(
                        "run",
                        "RUN|none",
                        "judge labels and outliers by the features of a run (default: none, raw features)",
                    ),
                    Option("out", "FILE.csv", "path, issue, score, partner, suggestion (default: audit.csv)"),
                    Option(
                        "page", "FILE.html", "with the samples of pairs side by side (default: beside the CSV file)"
                    ),
                ),
            ),
        ),
        groups=("dataset", "method", "augmentation"),
        notes="The keys are those of sslcli pretrain.",
        overrides=True,
    ),
    Command(
        "doctor",
        "Check the installation and suggest fixes.",
        "",
        (("", ""), ("--json", "")),
    ),
    Command(
        "completion",
        "Print a shell completion script.",
        "SHELL",
        (),
        subcommands=(
            Subcommand("bash", 'in ~/.bashrc: eval "$(sslcli completion bash)"'),
            Subcommand("zsh", 'in ~/.zshrc: eval "$(sslcli completion zsh)"'),
            Subcommand("fish", "in ~/.config/fish/config.fish: sslcli completion fish | source"),
        ),
        json=False,
    ),
)
COMMANDS = {command.name: command for command in _TABLE}
