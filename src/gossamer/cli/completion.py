"""`gossamer completion`: the script by which bash or zsh completes commands, flags and their values."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable

from gossamer.cli.result import Result
from gossamer.host.progress import Progress

EXAMPLES = (
    "source <(gossamer completion bash)",
    "gossamer completion zsh > ~/.zfunc/_gossamer",
)
SHELLS = ("bash", "zsh")
NETWORK_FLAGS = ("--net",)  # their values are names of networks


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shell", choices=SHELLS, help="bash or zsh: put `source <(gossamer completion bash)` into ~/.bashrc"
    )


def run(options: argparse.Namespace, progress: Progress) -> Result:
    script = _bash() if options.shell == "bash" else _zsh()
    return Result(script, {"shell": options.shell, "script": script})


def _words() -> tuple[dict[str, list[str]], dict[tuple[str, str], list[str]]]:
    """The flags of each command, and the values of each flag of a command that takes one of several words."""
    from gossamer.cli.parser import command_parser, flags_of
    from gossamer.cli.table import COMMANDS
    from gossamer.networks.registry import ALIASES, NETWORKS

    flags: dict[str, list[str]] = {}
    values: dict[tuple[str, str], list[str]] = {}
    for command in COMMANDS:
        parser = command_parser(command)
        flags[command] = sorted(flags_of(parser))
        for flag, action in flags_of(parser).items():
            if flag in NETWORK_FLAGS:
                values[command, flag] = sorted({*NETWORKS, *ALIASES})
            elif action.choices is not None:
                values[command, flag] = [str(choice) for choice in action.choices]
            elif isinstance(action.metavar, str) and "|" in action.metavar:
                values[command, flag] = action.metavar.split("|")
    return flags, values


def _quoted(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _bash() -> str:
    flags, values = _words()
    lines = [
        "# gossamer completion bash",
        "_gossamer() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= words= word",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        "        [[ $word != -* ]] && { command=$word; break; }",
        "    done",
        '    case "$command $before" in',
        *(f'        "{command} {flag}") words={_quoted(names)} ;;' for (command, flag), names in values.items()),
        "    esac",
        "    if [[ -z $words && -z $command ]]; then",
        f"        words={_quoted(flags)}",
        "    elif [[ -z $words && $current == -* ]]; then",
        "        case $command in",
        *(f"            {command}) words={_quoted(names)} ;;" for command, names in flags.items()),
        "        esac",
        "    fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o default -o bashdefault -F _gossamer gossamer",
    ]
    return "\n".join(lines)


def _zsh() -> str:
    flags, values = _words()

    def added(names: Iterable[str]) -> str:
        return "compadd -- " + " ".join(map(shlex.quote, names))

    lines = [
        "#compdef gossamer",
        "_gossamer() {",
        "    local command= word",
        "    for word in ${words[2,CURRENT-1]}; do",
        "        [[ $word != -* ]] && { command=$word; break }",
        "    done",
        '    case "$command ${words[CURRENT-1]}" in',
        *(f'        ("{command} {flag}") {added(names)}; return ;;' for (command, flag), names in values.items()),
        "    esac",
        "    if [[ -z $command ]]; then",
        f"        {added(flags)}",
        "    elif [[ ${words[CURRENT]} == -* ]]; then",
        "        case $command in",
        *(f"            ({command}) {added(names)} ;;" for command, names in flags.items()),
        "        esac",
        "    else",
        "        _files",
        "    fi",
        "}",
        "if [[ $funcstack[1] == _gossamer ]]; then _gossamer; else compdef _gossamer gossamer; fi",
    ]
    return "\n".join(lines)
