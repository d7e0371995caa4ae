"""The parser of the command line: help in groups, errors of one line, hints where a word is unknown."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

import gossamer
from gossamer.cli.hints import key_value, respelled, unknown_command, unknown_flag
from gossamer.cli.table import ALIASES, COMMANDS, GROUPS, command_module
from gossamer.errors import SettingsError, nearest_names

TYPE_CHECKING = False  # as typing has it, whose import the help need not wait for
if TYPE_CHECKING:
    from typing import Any, NoReturn

COMMON = ("--json", "--offline", "--debug")  # flags of every command, which may also stand before it


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line.

    show_all: whether the help lists every flag, or the usual ones where a command has many.
    """

    show_all = True

    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        raise SettingsError(
            f"{command}: {message}" if command else message,
            f"what `{self.prog} --help` lists",
            "check the arguments",
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write the help or the version; argparse would pass over a full disk, and the command would seem to be done."""
        (file or sys.stderr).write(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            near = nearest_names(str(value), names)
            raise argparse.ArgumentError(
                action, f"{value!r} is none of {', '.join(names)}" + (f"; did you mean {near[0]}?" if near else "")
            )


class _Lines(argparse.HelpFormatter):
    """A formatter that keeps the lines of the examples, each wrapped where the terminal is narrow."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        lines = text.splitlines()
        margins = [line[: len(line) - len(line.lstrip())] for line in lines]
        return "\n".join(
            textwrap.fill(line.strip(), width, initial_indent=indent + margin, subsequent_indent=indent + margin + "  ")
            for line, margin in zip(lines, margins)
        )


class _MainParser(Parser):
    """The parser of `gossamer` alone, whose help has the commands in groups."""

    def format_help(self) -> str:
        formatter = argparse.HelpFormatter(self.prog, max_help_position=20)
        formatter.add_usage(self.usage, self._actions, [])
        formatter.add_text(self.description)
        for title, names in GROUPS.items():
            formatter.start_section(title)
            for name in names:
                formatter.add_argument(argparse.Action([], name, metavar=name, help=COMMANDS[name][1]))
            formatter.end_section()
        formatter.start_section("flags")
        formatter.add_arguments(self._actions)
        formatter.end_section()
        formatter.add_text(
            "`gossamer COMMAND --help` lists the flags of a command with an example. Every command takes --json (the result "
            "as JSON), --offline (download nothing) and --debug (the traceback of an error)."
        )
        return formatter.format_help()


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Raises SettingsError; SystemExit for help and the version."""
    words = respelled(words)
    early = 0
    while early < len(words) and words[early] in COMMON:
        early += 1
    words = [
        *words[early : early + 1],
        *words[:early],
        *words[early + 1 :],
    ]  # gossamer --json list is gossamer list --json
    command = words[0] if words else ""
    if command == "help":  # gossamer help train
        words, command = [*words[1:2], "--help"], (words[1] if len(words) > 1 else "")
    command = ALIASES.get(command, command)
    if command and not command.startswith("-") and command not in COMMANDS:
        raise unknown_command(command, COMMANDS)
    if not command or command.startswith("-"):
        main_parser = _main_parser()
        if not words:
            main_parser.print_help()
            main_parser.exit(0)
        if set(words) - set(COMMON):
            main_parser.parse_args(words)
        raise SettingsError(f"{' '.join(words)} without a command", "gossamer COMMAND", "see gossamer --help")
    words = [words[0], *map(_expanded, words[1:])]
    parser = command_parser(command, show_all="--help-all" in words)
    _check_flags(parser, command, words[1:])
    options, more = parser.parse_known_args(words[1:])
    if more:
        raise SettingsError(
            f"{command} with {more[0]!r}", "fewer arguments without a flag", f"see gossamer {command} --help"
        )
    options.command = command
    return options


def _expanded(word: str) -> str:
    """A path that begins with ~/ from the home folder: shells leave it so in quotes and behind --flag=, and a folder called
    ~ would be written."""
    flag, mark, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return flag + mark + os.path.expanduser(value) if value.startswith("~/") else word  # noqa: PTH111 (pathlib is slow to import)


def command_parser(command: str, *, show_all: bool = True) -> Parser:
    """The parser of one command."""
    module, help = command_module(command), COMMANDS[command][1]
    parser = Parser(
        prog=f"gossamer {command}",
        description=f"{help[0].upper()}{help[1:]}.",
        formatter_class=_Lines,
        allow_abbrev=False,
        add_help=False,
    )
    parser.show_all = show_all
    module.arguments(parser)
    common = parser.add_argument_group("of every command")
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument(
        "--offline", action="store_true", help="download nothing: weights come from the cache, or not at all"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("-h", "--help", action="help", help="show this text and exit")
    common.add_argument("--help-all", action="help", help="show every flag and exit")
    examples = "\n".join(f"  {line}" for line in module.EXAMPLES)
    parser.epilog = f"{'example' if len(module.EXAMPLES) == 1 else 'examples'}:\n{examples}"
    return parser


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The flags of a parser."""
    return {flag: action for action in parser._actions for flag in action.option_strings}


def positionals_of(parser: argparse.ArgumentParser) -> list[str]:
    """The names of the arguments of a parser that stand without a flag."""
    return [action.dest for action in parser._actions if not action.option_strings]


def _main_parser() -> _MainParser:
    parser = _MainParser(
        prog="gossamer",
        usage="gossamer COMMAND [flags]",
        description=(gossamer.__doc__ or "").splitlines()[0],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gossamer {gossamer.__version__}")
    return parser


def _check_flags(parser: Parser, command: str, words: Sequence[str]) -> None:
    """Raises SettingsError with a hint at the first flag that the command does not have, and at words that are empty or key=value."""
    flags, positionals = flags_of(parser), positionals_of(parser)
    shown = [flag for flag in flags if not flag.startswith("--no-")]
    before: argparse.Action | None = None
    for word in words:
        if word == "--":
            return
        name, equals, value = word.partition("=")
        if re.match(r"--?[A-Za-z]", word):
            if name not in flags:
                raise unknown_flag(name, command, shown, positionals)
            before = flags[name] if name == word and flags[name].nargs != 0 else None
            if equals and not value:
                _check_empty(command, flags[name])
            continue
        if before is not None and not word:
            _check_empty(command, before)
        if before is None and not word:  # an unset variable of a script
            raise SettingsError(f"{command}: an empty argument", "a path or a name", "check the arguments")
        if before is None and (error := key_value(word, command, shown, positionals)):
            raise error
        if before is not None and before.nargs is None:
            before = None


def _check_empty(command: str, flag: argparse.Action) -> None:
    """Refuse an empty value, as of an unset variable of a script, where it would count as no flag at all. Raises SettingsError.

    Settings of a training may be empty: `--freeze ''` freezes nothing where a file of settings freezes something.
    """
    if command in ("train", "swap") or flag.metavar == "TEXT" or flag.type is not None or flag.choices is not None:
        return
    if flag.nargs is None and not flag.required and flag.default in ("", None):
        raise SettingsError(
            f"{command} {flag.option_strings[-1]} with an empty value",
            str(flag.metavar or "a value"),
            "leave it out, or fill it",
        )
