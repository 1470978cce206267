"""Completion scripts for bash, zsh and fish, made from the verbs' parsers.

The scripts contain all fixed words. Names of resources come from ``llmos get KIND -o name`` at completion, so that
only those are suggested that the caller may see.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from llmos.cli.parser import PLATFORM_VERBS, VERBS, build_parser
from llmos.resources import KINDS, MAIN_KIND

__all__ = ["SHELLS", "Completion", "completions"]


@dataclass(frozen=True)
class Completion:
    """The possible words after a verb.

    Attributes
    ----------
    verb, summary
        The verb and its summary.
    options
        Its options with their help texts.
    positional
        Type of the first argument: ``kind``, ``name`` (of a model service), ``shell`` or empty for any.
    """

    verb: str
    summary: str
    options: tuple[tuple[str, str], ...]
    positional: str


def completions() -> list[Completion]:
    """Return the possible words after each verb."""
    found = []
    for verb in VERBS.values():
        parser = build_parser(verb)
        options: list[tuple[str, str]] = []
        positional = ""
        for action in parser._actions:  # noqa: SLF001 - argparse has no public list of them
            options += [(option, action.help or "") for option in action.option_strings]
            if not action.option_strings and not positional:
                positional = _positional(action)
        found.append(Completion(verb.name, verb.summary, tuple(options), positional))
    found += [Completion(name, summary, (), "") for name, summary in PLATFORM_VERBS.items()]
    return found


def _positional(action: argparse.Action) -> str:
    if action.dest in {"kind", "path"}:
        return "kind"
    if action.dest == "shell":
        return "shell"
    return "name" if action.dest == "name" or action.metavar == "MODEL" else ""


def _kinds() -> list[str]:
    return sorted(cls.plural for cls in KINDS.values())


_BASH = """\
# bash completion for llmos; made by: llmos completion bash
_llmos_names() {{
    llmos get "$1" -o name 2>/dev/null | sed 's|^[^/]*/||'
}}
_llmos() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" verb="${{COMP_WORDS[1]}}" options="" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    case "$verb" in
{cases}
    esac
    if [[ "$word" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
        return
    fi
    case "$words" in
        kind)
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=($(compgen -W "{kinds}" -- "$word"))
            else
                COMPREPLY=($(compgen -W "$(_llmos_names "${{COMP_WORDS[2]}}")" -- "$word"))
            fi ;;
        name) COMPREPLY=($(compgen -W "$(_llmos_names {main})" -- "$word")) ;;
        shell) COMPREPLY=($(compgen -W "bash fish zsh" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -F _llmos llmos
"""


def bash() -> str:
    """Return the completion script for bash."""
    found = completions()
    cases = "\n".join(
        f'        {c.verb}) options="{" ".join(option for option, _ in c.options)}" words="{c.positional}" ;;'
        for c in found
    )
    return _BASH.format(
        verbs=" ".join(c.verb for c in found), kinds=" ".join(_kinds()), main=MAIN_KIND.plural, cases=cases
    )


_ZSH = """\
#compdef llmos
# zsh completion for llmos; made by: llmos completion zsh
_llmos_names() {{
    local -a names
    names=(${{(f)"$(llmos get $1 -o name 2>/dev/null | sed 's|^[^/]*/||')"}})
    compadd -a names
}}
_llmos() {{
    local -a verbs options
    local words_are=""
    verbs=(
{verbs}
    )
    if (( CURRENT == 2 )); then
        _describe verb verbs
        return
    fi
    case "$words[2]" in
{cases}
    esac
    if [[ "$words[CURRENT]" == -* ]]; then
        _describe option options
        return
    fi
    case "$words_are" in
        kind) if (( CURRENT == 3 )); then compadd {kinds}; else _llmos_names "$words[3]"; fi ;;
        name) _llmos_names {main} ;;
        shell) compadd bash fish zsh ;;
        *) _files ;;
    esac
}}
if [ "$funcstack[1]" = "_llmos" ]; then _llmos "$@"; else compdef _llmos llmos; fi
"""


def _zsh_pair(word: str, text: str) -> str:
    escaped = text.replace("'", "'\\''").replace(":", "\\:")
    return f"'{word}:{escaped}'"


def zsh() -> str:
    """Return the completion script for zsh."""
    found = completions()
    verbs = "\n".join(f"        {_zsh_pair(c.verb, c.summary)}" for c in found)
    cases = "\n".join(
        f"        {c.verb}) options=({' '.join(_zsh_pair(o, t) for o, t in c.options)}) words_are={c.positional or 'files'} ;;"
        for c in found
    )
    return _ZSH.format(verbs=verbs, cases=cases, kinds=" ".join(_kinds()), main=MAIN_KIND.plural)


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish() -> str:
    """Return the completion script for fish."""
    lines = [
        "# fish completion for llmos; made by: llmos completion fish",
        "function __llmos_names",
        "    llmos get $argv[1] -o name 2>/dev/null | string replace -r '^[^/]*/' ''",
        "end",
        "complete -c llmos -f",
    ]
    for c in completions():
        lines.append(f"complete -c llmos -n __fish_use_subcommand -a {c.verb} -d {_fish_text(c.summary)}")
        seen = f"'__fish_seen_subcommand_from {c.verb}'"
        for option, text in c.options:
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"complete -c llmos -n {seen} {flag} -d {_fish_text(text)}")
        if c.positional == "kind":
            first = f"'__fish_seen_subcommand_from {c.verb}; and test (count (commandline -opc)) -eq 2'"
            later = f"'__fish_seen_subcommand_from {c.verb}; and test (count (commandline -opc)) -gt 2'"
            lines.append(f"complete -c llmos -n {first} -a '{' '.join(_kinds())}'")
            lines.append(f"complete -c llmos -n {later} -a '(__llmos_names (commandline -opc)[3])'")
        elif c.positional == "name":
            lines.append(f"complete -c llmos -n {seen} -a '(__llmos_names {MAIN_KIND.plural})'")
        elif c.positional == "shell":
            lines.append(f"complete -c llmos -n {seen} -a 'bash fish zsh'")
    return "\n".join(lines) + "\n"


SHELLS: dict[str, Callable[[], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
