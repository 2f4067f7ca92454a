"""``git theta completion``: what a shell must know to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_GIT_THETA_COMPLETE"
"""Set by the shell function: the program then prints completions, and does nothing else."""

_PROGRAM = "git-theta"

# What Git's own completion of each shell calls for `git theta`. The words before `theta` are
# options of git; the program is asked as if it had been called by its own name.
_GIT = {
    "bash": """
_git_theta() {
    local at=1 words cword
    while [[ $at -lt $COMP_CWORD && ${COMP_WORDS[at]} != theta ]]; do at=$((at + 1)); done
    words=(git-theta "${COMP_WORDS[@]:at+1}") cword=$((COMP_CWORD - at))
    local -a COMP_WORDS=("${words[@]}")
    local COMP_CWORD=$cword
    COMPREPLY=()
    _git_theta_completion git-theta
    # Git's own completion ends no word with a blank.
    COMPREPLY=("${COMPREPLY[@]/%/ }")
}
""",
    "zsh": """
_git-theta() {
    words[1]=git-theta
    _git_theta_completion
}
zstyle ':completion:*:*:git:*' user-commands theta:'version control for model checkpoints'
""",
    "fish": """
function _git_theta_of_git;
    set -l line (string replace -r '^.*?\\\\btheta\\\\b' git-theta -- (commandline -cp));
    set -l word (commandline -t);
    for completion in (env _GIT_THETA_COMPLETE=fish_complete COMP_WORDS="$line" \\
            COMP_CWORD="$word" git-theta);
        set -l metadata (string split "," $completion);
        test $metadata[1] = "plain"; and echo $metadata[2];
    end;
end;

complete -c git -n '__fish_git_needs_command' -a theta -d 'Version control for models';
complete -c git -n '__fish_git_using_command theta' -a '(_git_theta_of_git)';
""",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_GIT)))
def command(shell: str) -> None:
    """Print the script that completes `git theta` and `git-theta` in a shell.

    It completes commands, options and their values, also through Git's own completion. Put the
    line below into the shell's start-up file; in bash and zsh after Git's completion is loaded.

    \b
    Examples:
      eval "$(git theta completion bash)"                # ~/.bashrc
      eval "$(git theta completion zsh)"                 # ~/.zshrc, after compinit
      git theta completion fish | source                 # ~/.config/fish/config.fish
    """
    click.echo(source_of(shell), nl=False)


def source_of(shell: str) -> str:
    """Return the functions for a shell, those of Git's completion included."""
    from git_theta.cli.app import cli

    chosen = get_completion_class(shell)
    assert chosen is not None
    made = chosen(cli, {}, _PROGRAM, VARIABLE)
    text = made.source_template % made.source_vars()
    if shell == "bash":
        # Where nothing of ours fits, files do.
        text = text.replace("complete -o nosort", "complete -o nosort -o default")
    return f"{text.strip()}\n{_GIT[shell]}"
