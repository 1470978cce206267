"""``completion``: the possible words of each argument, and scripts for shells, which shtab makes from the parsers.

The scripts contain all fixed words, so that most of them need no process. Names of resources come from
``llmos get KIND -o name`` at completion, so that only those are suggested that the caller may see.
"""

from __future__ import annotations

import argparse
from typing import Final

from llmos.cli.output import Output
from llmos.cli.parser import PLATFORM_VERBS, VERBS, Parser, Verb, build_parser
from llmos.resources import KINDS, MAIN_KIND

__all__ = ["OF_KIND", "SHELLS", "configure_completion", "fixed_words", "kind_of_names", "run_completion", "script"]

SHELLS: Final = ("bash", "fish", "zsh")
OF_KIND: Final = "KIND"
"""Stands for the kind that is the word after the verb."""
_MODELS: Final = ("demo://tiny", "demo://smollm2", "demo://minilm", "hf://", "file:///")


def configure_completion(parser: Parser) -> None:
    """Add the arguments of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, help="name of the shell")


def run_completion(client: None, args: argparse.Namespace, output: Output) -> None:  # noqa: ARG001 - every verb's signature
    """Print the completion script."""
    output.text(script(args.shell))


def fixed_words(verb: Verb, action: argparse.Action) -> list[str]:
    """Return the fixed words that are possible for an argument of a verb."""
    if action.dest in {"kind", "path"}:
        return sorted(kind.plural if verb.name == "get" else kind.singular for kind in KINDS.values())
    if action.dest == "model" and verb.name in {"serve", "set"}:
        return list(_MODELS)
    return [str(choice) for choice in action.choices or ()]


def kind_of_names(verb: Verb, action: argparse.Action) -> str:
    """Return the plural of the kind whose names are possible for an argument, `OF_KIND`, or an empty string."""
    if action.dest == "names":
        return OF_KIND
    named = action.dest == "name" or (action.dest, verb.name) == ("model", "chat")
    either = action.dest == "kind" and verb.name != "get"  # a single word is the name of a model service
    return MAIN_KIND.plural if (named or either) and not action.option_strings else ""


_NAMES: Final = {
    MAIN_KIND.plural: {
        "bash": "_llmos_names_of_main",
        "zsh": "_llmos_names_of_main",
        "fish": f"(__llmos_names {MAIN_KIND.plural})",
    },
    OF_KIND: {
        "bash": "_llmos_names_of_kind",
        "zsh": "_llmos_names_of_kind",
        "fish": "(__llmos_names (commandline -opc)[3])",
    },
}
_FUNCTIONS: Final = {
    "bash": f"""\
_llmos_names() {{
  compgen -W "$(llmos get "$1" -o name 2>/dev/null | sed 's|^[^/]*/||')" -- "$2"
}}
_llmos_names_of_main() {{ _llmos_names {MAIN_KIND.plural} "$1"; }}
_llmos_names_of_kind() {{ _llmos_names "${{COMP_WORDS[2]}}" "$1"; }}
""",
    "zsh": f"""\
_llmos_names() {{
  compadd -- ${{(f)"$(llmos get $1 -o name 2>/dev/null | sed 's|^[^/]*/||')"}}
}}
_llmos_names_of_main() {{ _llmos_names {MAIN_KIND.plural} }}
_llmos_names_of_kind() {{ _llmos_names $words[2] }}
""",
    "fish": """\
function __llmos_names
  llmos get $argv[1] -o name 2>/dev/null | string replace -r '^[^/]*/' ''
end
""",
}


def script(shell: str) -> str:
    """Return the completion script for a shell of `SHELLS`."""
    import shtab

    root = argparse.ArgumentParser("llmos")
    verbs = root.add_subparsers()
    for verb in VERBS.values():
        parser = build_parser(verb)
        for action in parser.actions:
            action.choices = fixed_words(verb, action) or None
            names = kind_of_names(verb, action)
            if action.choices is None and (names or action.dest == "filename"):
                # shtab's own attribute
                action.complete = _NAMES[names] if names else shtab.FILE  # type: ignore[attr-defined]
        verbs.add_parser(verb.name, help=verb.summary, parents=[parser], add_help=False)
    for name, summary in PLATFORM_VERBS.items():
        words = verbs.add_parser(name, help=summary, add_help=False).add_argument("words", nargs="*")
        words.complete = shtab.FILE  # type: ignore[attr-defined]
    text = shtab.complete(root, shell, preamble=_FUNCTIONS[shell])
    if shell == "zsh":
        # all words of nargs="*" instead of the first, and `source <(llmos completion zsh)` beside eval
        text = text.replace('"(*)::', '"*:').replace("[-1] == eval ]]", "[-1] == (eval|file) ]]")
    return text
