"""What `sslcli --help` and `sslcli WORD --help` say. Groups, choices and keys are read from the YAML files."""

from __future__ import annotations

from pathlib import Path

from sslcli.config import registry

HYDRA_WORDS = {
    "pretrain": "train a method without labels; prints the run folder",
    "eval": "measure a run: probe, knn, quality (run=latest, a path, a prefix, or none)",
    "pipeline": "pretrain, then the stages, on one run",
    "bench": "how fast this machine is on a configuration: views, model, both",
}
PLAIN_WORDS = {
    "resume": "go on with a run: same folder, same configuration, next step",
    "runs": "list runs; show RUN; best METRIC; compare A B ...; report [RUN]",
    "select": "which run, or checkpoint of a run, is best, without labels",
    "export": "the backbone of a run, or of a checkpoint of it, as a folder to take away",
    "list": "methods, backbones, datasets, augmentations, evals, experiments",
    "data": "inspect a data set; preview the views a method would see; pack image files",
    "doctor": "what is installed, which device, what is wrong and how to mend it",
    "completion": "shell completion for bash, zsh or fish",
}
WORDS = HYDRA_WORDS | PLAIN_WORDS

HELP = """\
sslcli: self-supervised learning from the command line

  sslcli pretrain method=simsiam                      digits, a minute on a laptop's processor
  sslcli eval probe labels=10/class seeds=5           what the newest run learned, beside baselines
  sslcli pretrain method=simclr dataset=image_folder dataset.path=photos backbone=resnet18

words
{words}

flags
  -m             sweep: every combination of comma-separated values (method=simsiam,byol seed=0,1)
  --dry-run      compose, check, build, run one batch; print the plan; make no folder
  --cfg job      print the composed configuration
  --json         one JSON object on stdout (eval, bench, runs, select, export, list, doctor)
  --config-dir D a folder with YAML files (and Python modules) of your own
  -q, -v         errors only; more detail
  --version, --help (also after a word, and after `eval NAME`)

Results go to stdout, everything else to stderr. Runs go to runs/ (or $SSLCLI_RUNS).
"""

WORD_HELP = {
    "pretrain": """\
sslcli pretrain: train a method without labels; the last line on stdout is the run folder

  run=$(sslcli pretrain method=byol dataset=cifar10 backbone=resnet18 train.epochs=200)
  sslcli pretrain method=mae dataset=series dataset.path=signals.npz
  sslcli pretrain -m method=simsiam,simclr seed=0,1,2
  sslcli pretrain method=simclr resume=auto          goes on with the newest run of just this; begins one where there is none
""",
    "eval": """\
sslcli eval NAME: measure a run's frozen backbone; prints `name value` lines

  sslcli eval probe labels=10/class seeds=5
  sslcli eval knn run=runs/2026-11-22_14-03-09-275925_simsiam_convnet_digits
  sslcli eval knn run=none dataset=cifar10 backbone=resnet18     (an untrained backbone, as baseline)

names: {evals}
keys: run=latest|PATH|PREFIX|none  labels=all|1%|100|10/class  seeds=N (draws of the labels)
those of one: sslcli eval NAME --help
""",
    "pipeline": """\
sslcli pipeline: pretrain, then each stage, on one run

  sslcli pipeline method=simclr stages=[probe,knn] labels=1% seeds=5
""",
    "bench": """\
sslcli bench: samples per second of the views alone, the model alone (the floor) and both together; makes no run folder

  sslcli bench method=simclr dataset=cifar10 backbone=resnet18 train.batch_size=64
  sslcli bench method=byol dataset=image_folder dataset.path=photos device.workers=4 --json
  sslcli bench backbone=convnet device.threads=1 repeats=5 seconds=1

It takes what pretrain takes: what is fast here is fast there. `lost` is 1 - end to end / model alone.
keys: repeats=N (rounds, in which the parts take turns)  seconds=S (of each part in a round)
""",
    "resume": """\
sslcli resume RUN: go on with an interrupted run, bit for bit as if it had not been interrupted

  sslcli resume latest
  sslcli resume 2026-11-22_14-03

To start a new run from a run's weights instead: sslcli pretrain init=RUN
""",
    "runs": """\
sslcli runs: what is in the runs folder

  sslcli runs                      a line each
  sslcli runs show RUN             one, with its numbers
  sslcli runs best probe.top1 -n 5 the best by a measured number
  sslcli runs compare A B [C ...]  numbers and configuration side by side; on the same test items the difference of accuracy
                                   with its 95 % interval and McNemar's exact test; CKA of the encoders; the curves as a picture
  sslcli runs report [RUN]         report.html in the run folder: one page that needs nothing else, for a browser or a mail
  sslcli runs report runs/sweep/S  a table of a whole sweep, best first, means over seeds, with the report of each run

keys of report: out=FILE.html
keys of compare: out=compare.png (the picture)  cka=true|false
""",
    "select": """\
sslcli select RUN RUN ...: which is best, said without any label

  sslcli select runs/sweep/2026-11-22_14-03-09        all finished runs of a sweep
  sslcli select 'runs/*_digits' by=lidar --json
  sslcli select latest                                the checkpoints of one run (train.keep=10 keeps more)
  sslcli select RUN RUN probe=true labels=10/class    measures a probe too, where there is none, and how well it agrees

by: learnability (the default: how well a neighbour tells a sample's k-means cluster), or one of
    rankme alpha_req lidar clid intrinsic_dim alignment uniformity spread
keys: by=NAME  probe=true  seed=N (which samples)  evaluator.samples=N ... (those of sslcli eval quality)
What was measured before of the same weights with the same settings is not measured again.
""",
    "export": """\
sslcli export RUN out=FOLDER: the backbone alone, as encoder.safetensors and encoder.json; prints the folder

  sslcli export latest out=encoder                   of its last weights
  sslcli export RUN checkpoint=300 out=encoder-300   of the checkpoint of step 300 (train.keep says how many there are)
  sslcli export RUN checkpoint=best out=encoder      of the one that `sslcli select RUN` ranks first
  sslcli pretrain init=encoder                       a run that starts from it

keys: out=FOLDER (new, or empty)  checkpoint=STEP|best|last
Where a method measures its teacher, that is what is exported, as in the run folder. The keys are those of torchvision's ResNets and
timm's ViTs; encoder.json says the backbone, the shape of a sample, mean and deviation of its channels.
""",
    "list": """\
sslcli list KIND: {kinds}

  sslcli list methods                    a table on a terminal; columns separated by tabs through a pipe
  sslcli list methods | cut -f1          the names alone
  sslcli list methods --json             everything as JSON
""",
    "data": """\
sslcli data inspect|preview|pack: look before you train; make a few large files of many small ones

  sslcli data inspect dataset=image_folder dataset.path=photos [--strict]
  sslcli data preview method=simclr dataset=cifar10 [out=views.png]
  sslcli data pack dataset=image_folder dataset.path=photos out=photos.pack [size=256] [format=jpeg|raw] [quality=90]
""",
    "doctor": "sslcli doctor [--json]: what is installed, which device, what is wrong and how to mend it\n",
    "completion": """\
sslcli completion SHELL: prints a completion script

  eval "$(sslcli completion bash)"        in ~/.bashrc
  eval "$(sslcli completion zsh)"         in ~/.zshrc
  sslcli completion fish | source         in ~/.config/fish/config.fish
""",
}


def help_text(word: str | None) -> str:
    if word is None or word not in WORDS:
        width = max(len(w) for w in WORDS)
        return HELP.format(words="\n".join(f"  {w.ljust(width)}  {text}" for w, text in WORDS.items()))
    text = WORD_HELP[word]
    if "{evals}" in text:
        text = text.replace("{evals}", ", ".join(sorted(set(registry.choices("evaluator")) - {"online"})))
    if "{kinds}" in text:
        text = text.replace("{kinds}", ", ".join(registry.KINDS))
    if word in HYDRA_WORDS:
        text += group_help(word)
    return text


def evaluator_help(name: str, path: Path) -> str:
    """`sslcli eval NAME --help`: what it measures and its keys with their defaults, read from its YAML file."""
    text = path.read_text(encoding="utf-8")
    remarks = [line.lstrip("# ") for line in text.partition("_target_:")[0].splitlines() if line.startswith("#")]
    summary = registry.describe(path, "evaluator").get("summary", "")
    own = [line for line in key_lines(path, "evaluator.") if "=${" not in line]
    lines = [
        f"sslcli eval {name}: {summary}",
        *remarks,
        "",
        f"  sslcli eval {name} run=RUN KEY=VALUE ...",
        "",
        "keys",
        *own,
    ]
    general = key_lines(registry.config_dir() / "eval.yaml", "")
    unused = [f"  {key}=" for key in ("labels", "seeds") if f"${{{key}}}" not in text]  # they reach it through its YAML
    lines += ["", "of every evaluator", *(line for line in general if not line.startswith(tuple(unused or ["-"])))]
    return "\n".join([*lines, "  dataset=NAME dataset.KEY=...".ljust(36) + " measure on other data than the run's", ""])


def key_lines(path: Path, prefix: str) -> list[str]:
    """The keys at the top of a YAML file, with their values, and the comment beside each, or above it."""
    hidden = {"_target_", "hydra", "defaults", *registry.FACT_KEYS[""], *registry.FACT_KEYS["evaluator"]}
    lines, above = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, rest = line.partition(":")
        if line.startswith("#"):
            above = line.lstrip("# ")
        elif colon and key.isidentifier() and key not in hidden:
            value, _, comment = rest.partition(" #")
            lines.append(f"  {f'{prefix}{key}={value.strip()}'.ljust(34)} {comment.strip() or above}".rstrip())
            above = ""
    return lines


def group_help(word: str) -> str:
    """The groups with their choices, and the keys of train and device with their comments, read from the YAML files."""
    lines = ["", "groups (GROUP=CHOICE)"]
    for group in registry.GROUPS:
        names = sorted(registry.choices(group))
        if names:
            lines.append(f"  {group.ljust(13)} {', '.join(names)}")
    for group, name in (("train", "default"), ("device", "auto")):
        lines += ["", f"{group} keys", *key_lines(registry.config_dir() / group / f"{name}.yaml", f"{group}.")]
    own = {"eval": "run, labels, seeds", "bench": "init"}.get(word, "init, resume=auto")
    lines += ["", f"also: seed, {own}; sslcli {word} --cfg job shows every key; --hydra-help shows Hydra's flags", ""]
    return "\n".join(lines)
