"""Options out of the fields of a dataclass: their type and default, and the docstring under each as help."""

from __future__ import annotations

import argparse
import typing
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import yaml

from bevformer_ros.commands.options import Options
from bevformer_ros.config import field_docstrings


def add_field(parser: Options, kind: type, name: str, option: str = "") -> None:
    """A number or string that has a default, or a switch. option: its word where it is not the field's name."""
    (entry,) = (entry for entry in fields(kind) if entry.name == name)
    word, text = option or f"--{name.replace('_', '-')}", help_text(kind, name)
    if isinstance(entry.default, bool):
        parser.add_argument(word, dest=name, action=argparse.BooleanOptionalAction, default=entry.default, help=text)
        return
    parser.add_argument(
        word, dest=name, type=type(entry.default), default=entry.default, help=f"{text} (default %(default)s)"
    )


def help_text(kind: type, name: str) -> str:
    """A field's docstring as argparse wants it."""
    return field_docstrings(kind)[name].rstrip(".").replace("%", "%%")


def add_tree(parser: argparse.ArgumentParser, kind: type, prefix: str = "") -> None:
    """All fields of a dataclass and of those in it: --field VALUE and --field.of-it VALUE, in groups. A value is
    written as it would stand in a YAML file."""
    group = parser.add_argument_group(prefix or kind.__name__, (kind.__doc__ or "").partition("\n\n")[0])
    for name, hint in typing.get_type_hints(kind).items():
        word = f"{prefix}.{name}".removeprefix(".")
        group.add_argument(
            f"--{word.replace('_', '-')}",
            dest=word,
            default=argparse.SUPPRESS,
            type=_yaml_value,
            metavar=_metavar(hint),
            help=help_text(kind, name) + _default_text(kind, name),
        )
        for inner in _dataclasses_in(hint):
            add_tree(parser, inner, word)


def _yaml_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no YAML") from error


def tree_values(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    """What was given of add_tree's options, by dotted path."""
    words = set(_words(kind, ""))
    return {word: value for word, value in vars(arguments).items() if word in words}


def _words(kind: type, prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(kind).items():
        word = f"{prefix}.{name}".removeprefix(".")
        yield word
        for inner in _dataclasses_in(hint):
            yield from _words(inner, word)


def _dataclasses_in(hint: Any) -> list[type]:
    """Of the type of a field: itself, or those in a union."""
    return [entry for entry in (hint, *typing.get_args(hint)) if isinstance(entry, type) and is_dataclass(entry)]


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(map(str, typing.get_args(hint)))
    return hint.__name__.upper() if hint in (int, float, str, bool) else "YAML"


def _default_text(kind: type, name: str) -> str:
    """A nested dataclass tells its own."""
    (entry,) = (entry for entry in fields(kind) if entry.name == name)
    if entry.default is MISSING or entry.default is None or is_dataclass(entry.default):
        return ""
    value = list(entry.default) if isinstance(entry.default, tuple) else entry.default
    return f" (default {value})".replace("%", "%%")
