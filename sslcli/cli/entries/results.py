"""Commands that read runs, export them, or list choices."""

from __future__ import annotations

from sslcli.cli.command import Command, Option, Subcommand
from sslcli.config.registry import KINDS
from sslcli.evals.metrics import ranking

EXPORT_FORMATS = (
    "sslcli",
    "hf",
    "sentence_transformers",
    "timm",
    "torch_export",
    "onnx",
)  # the names in formats/registry.py
LISTED = {"evaluator": "choices of sslcli eval NAME", "modality": "kinds of data, and what they provide to methods"}
OUT_PNG = "the image to write"

ENTRIES = (
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
                "interval and a paired test; CKA of the encoders; the curves as an image",
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
            ("RUN format=onnx out=onnx", "a graph for onnxruntime, compared with the network on held-out samples"),
            ("RUN format=onnx tower=text out=text", "the encoder of captions of a run of clip or siglip"),
        ),
        options=(
            Option(
                "format",
                "NAME",
                "sslcli, also called safetensors (default); timm, torch_export, onnx; of text: hf, sentence_transformers",
                EXPORT_FORMATS,
            ),
            Option(
                "head",
                "none|probe|finetune",
                "of timm, torch_export and onnx: the classifier that eval kept (default: none)",
            ),
            Option(
                "tower",
                "image|text",
                "of torch_export and onnx, and of runs of clip and siglip: the encoder of images or of captions with its "
                "projection to the shared space (default: the backbone of images without it)",
                ("image", "text"),
            ),
            Option("precision", "fp32|fp16|int8", "of the weights of an ONNX file (default: fp32)"),
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
)
