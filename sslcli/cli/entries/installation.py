"""Commands about the installation."""

from __future__ import annotations

from sslcli.cli.command import Command, Subcommand

ENTRIES = (
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
