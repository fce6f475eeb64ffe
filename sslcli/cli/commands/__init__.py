"""One verb each. A word that Hydra runs has `preview(cfg)` (all checks, before a folder is made), `look(cfg)` (those that
touch no data: for each job of a sweep), `dry_run(cfg)` and `run(cfg)`."""
