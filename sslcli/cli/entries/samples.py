"""Commands that read samples."""

from __future__ import annotations

from sslcli.cli.command import Command, Option, Subcommand

OUT_PNG = "the image to write"

ENTRIES = (
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
)
