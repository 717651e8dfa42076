"""``durably completion``: scripts that make a shell complete commands, options, ids and names."""

from __future__ import annotations

import os

import click
from click.shell_completion import BashComplete, add_completion_class, get_completion_class, split_arg_string

from durably.cli.settings import COMPLETE_VAR, shared

_SHELLS = ("bash", "zsh", "fish")

_INSTALL = """\b
To use it now, and in each new shell:
  bash  eval "$(durably completion bash)"          in ~/.bashrc
  zsh   eval "$(durably completion zsh)"           in ~/.zshrc, behind compinit
  fish  durably completion fish | source           in ~/.config/fish/config.fish
"""

# Bash breaks words at colons, which ids of sub-orchestrations hold. So the program gets the line as it is, splits it
# itself, and bash puts in what stands behind the last colon.
_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" one prefix=""
    local last="${line##*[ $'\\t']}"
    if [[ "$last" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then prefix="${last%%:*}:"; fi
    COMPREPLY=()
    while IFS= read -r one; do
        case "${one%%%%,*}" in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) one="${one#*,}"; printf -v one '%%q' "${one#"$prefix"}"; COMPREPLY+=("$one") ;;
        esac
    done < <(env COMP_LINE="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""


class _Bash(BashComplete):
    """Completion for bash, also of words with colons in them."""

    source_template = _BASH

    def source(self) -> str:
        """The script; without the check of the version of bash, which starts one."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is being typed, and that one."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        if line[-1:].isspace() or not words:
            return words[1:], ""
        return words[1:-1], words[-1]


add_completion_class(_Bash)


@click.command("completion", short_help="Print a script that completes what is typed.", epilog=_INSTALL)
@click.argument("shell", type=click.Choice(_SHELLS))
@shared
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script for a SHELL: it completes commands, options, ids of instances and names of orchestrators.

    Ids and names come from the hub: that of --hub, or of DURABLY_HUB.
    """
    kind = get_completion_class(shell)
    assert kind is not None, shell  # noqa: S101 - one of the choice
    root = context.find_root()
    click.echo(kind(root.command, {}, "durably", COMPLETE_VAR).source())
