"""Commands that read samples."""

from __future__ import annotations

from sslcli.cli.command import Command, Option, Subcommand
from sslcli.evals.active_learning.names import RULE_NAMES

EMBEDDING_FORMATS = (".npz", ".npy", ".parquet", ".safetensors")  # those of inference/embeddings/formats.py
OUT_PNG = "the image to write"
PICK_FORMATS = {"csv": ".csv", "labelstudio": ".json"}  # with the endings of their files

ENTRIES = (
    Command(
        "embed",
        "Write the features of files or of a data set.",
        "RUN [FILES...] out=FILE [dataset=NAME] [key=value ...]",
        (
            ("latest out=E.npz", "the data set of the newest run"),
            ("latest photos 'more/*.jpg' out=E.npz", "folders and files; patterns in quotes"),
            ("RUN dataset=cifar10 split=test out=E.parquet", "a data set, and one of its splits"),
            ("hf:FOLDER reviews.csv out=E.safetensors", "an encoder of another library, and rows of a table"),
        ),
        options=(
            Option("out", "FILE", f"the file to write: {', '.join(EMBEDDING_FORMATS)}"),
            Option("split", "all|train|test", "the samples of a data set (default: all)"),
            Option(
                "pool",
                "mean|cls|tokens|items|shared",
                "of backbones with tokens (default: as the backbone pools); items: the embedding of each item that users can have; "
                "shared: the space of images and captions (clip, siglip)",
            ),
            Option(
                "batch_size", "N", "samples that are decoded at a time; it does not change the features (default: 64)"
            ),
            Option("train.devices", "N", "the number of processes, which share the work"),
        ),
        groups=("dataset", "device"),
        notes="RUN may also be a folder that `sslcli export` wrote. The file holds id, path, label and vector of each sample, and "
        "what identifies the encoder. Run again after an interruption, the command continues and writes the same bytes. Files "
        "that cannot be read are left out and listed.",
        overrides=True,
        runs=True,
        files=True,
        distributed=True,
    ),
    Command(
        "search",
        "Find the embedded samples nearest to files, ids or texts.",
        "E.npz QUERY... [k=N] [page=FILE.html]",
        (
            ("E.npz photo.jpg", "the ten samples most similar to a file"),
            ("E.npz train/17 train/40 k=3", "of samples of E.npz, by their ids, or the titles of items"),
            ("E.npz 'new/*.jpg' page=near.html", "with pictures, in one HTML file"),
            ("E.npz 'a red circle'", "of a text, where E.npz holds texts or was written with pool=shared"),
        ),
        options=(
            Option("k", "N", "neighbors of each query (default: 10)"),
            Option("page", "FILE.html", "also write a page that shows the samples"),
            Option("run", "RUN", "where the encoder is now (default: where it was)"),
        ),
        groups=("device",),
        notes="The search is exact, by cosine similarity. Files are embedded by the encoder that the embeddings name, which must "
        "have the same weights.",
        overrides=True,
        files=True,
    ),
    Command(
        "predict",
        "Predict the classes of new files, or the next items of users.",
        "RUN [FILE ...] [key=value ...]",
        (
            ("latest photos/new out=predictions.csv", "a folder, files or quoted patterns"),
            ("latest photo.jpg", "without out=, rows on stdout; --json prints an object for each"),
            (
                "RUN 'new/*.jpg' from=finetune threshold=0.9 out=P.csv",
                "the class is left empty where it is less probable",
            ),
            ("RUN dataset=image_folder dataset.path=more split=test out=P.parquet", "a data set"),
            (
                "RUN photos from=zeroshot 'classes=[red fox,snow owl]'",
                "by the names of classes, by a run of clip or siglip",
            ),
            ("RUN events.csv k=5 out=next.csv", "the next items of each user, by a run of sasrec or bert4rec"),
        ),
        options=(
            Option("out", "FILE", "a new .csv or .parquet file (default: rows on stdout)"),
            Option(
                "from",
                "probe|finetune|zeroshot|next",
                "whose classifier: that of the last eval probe or eval finetune (default: the newer one); zeroshot: the most "
                "similar name of a class, where the method reads captions; next: the next items of users (default, where the "
                "method predicts them)",
                ("probe", "finetune", "zeroshot", "next"),
            ),
            Option(
                "classes",
                "LIST",
                "of zeroshot: [name,...], {name: text,...}, or a .txt file with a class on each line (default: those of the run's "
                "data)",
            ),
            Option("templates", "LIST", "of zeroshot: texts with {} for a class (default: those of eval zeroshot)"),
            Option("k", "N", "next items of each user (default: 10)"),
            Option(
                "seen",
                "mask|keep",
                "leave out the items that a user has had, or keep them (default: mask)",
                ("mask", "keep"),
            ),
            Option("threshold", "P", "leave the class empty where its probability is below P, from 0 to 1"),
            Option(
                "probabilities",
                "auto|all|top",
                "all: a column probability_CLASS for each class; top: the two most probable classes alone (default: auto, all for "
                "up to 20 classes)",
                ("auto", "all", "top"),
            ),
            Option("split", "all|train|test", "which samples of a data set (default: all)", ("all", "train", "test")),
            Option("batch_size", "N", "samples that are decoded at a time; the predictions are the same (default: 64)"),
            Option("train.devices", "N", "the number of processes"),
        ),
        notes="Columns: path, class, probability, runner_up, runner_up_probability, distance, error, probability_CLASS for each "
        "class; of a value: path, value, distance, error; of next items: user, rank, item, score, title. The column of dataset.id, "
        "if the run has one, comes first. Probabilities are calibrated on held-out training labels; those of zeroshot are "
        "not, and have no distance. "
        "The distance is the percentile of the k-NN distance among training samples: at 99, 99 % of them are closer to the others.",
        groups=("dataset", "device"),
        shared=("device",),
        overrides=True,
        runs=True,
        files=True,
        distributed=True,
    ),
    Command(
        "pick",
        "Pick the samples to label next.",
        "RUN [FILE ...] [key=value ...]",
        (
            (
                "latest n=100 out=pick.csv page=pick.html",
                "of the data that the run was trained on; label them on the page",
            ),
            ("latest n=100 have=labels.csv out=more.csv", "the next hundred beside those that have a label"),
            ("RUN new/photos n=50 by=kcenter", "files, folders or quoted patterns; without out=, rows on stdout"),
            ("RUN n=200 format=labelstudio out=tasks.json", "tasks for Label Studio"),
        ),
        options=(
            Option("n", "N", "how many (default: 100); the first 50 of 100 are those of n=50"),
            Option(
                "by",
                "RULE",
                "; ".join(f"{name}: {meaning}" for name, meaning in RULE_NAMES.items()) + " (default: typical)",
                tuple(RULE_NAMES),
            ),
            Option(
                "have", "FILE.csv", "labels that there are, as labels= reads them: these samples are not picked again"
            ),
            Option("out", "FILE", "a new file (default: rows on stdout)"),
            Option("format", "csv|labelstudio", "of out= (default: csv)"),
            Option("page", "FILE.html", "a page to label the samples on with the keys 1 to 9; it saves labels.csv"),
            Option("seed", "N", "of clusterings and random choices (default: 0)"),
            Option("train.devices", "N", "the number of processes"),
        ),
        notes="Columns: path (or id), rank, stratum, reason, and an empty column label to fill in; labels=pick.csv reads the file. "
        "A stratum is a cluster of k-means. by=typical and by=cover are for a handful of labels per class, by=uncertain for many.",
        groups=("dataset", "device"),
        shared=("device",),
        overrides=True,
        runs=True,
        files=True,
        distributed=True,
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
)
