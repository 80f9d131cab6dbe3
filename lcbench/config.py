"""Frozen configurations: read from `name=value`, written as canonical JSON, hashed.

A configuration is typed code, not a mapping: an unknown field, a value of the wrong type or one
that its class refuses is an error that names the field and what it takes.
"""

import ast
import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self


class UsageError(ValueError):
    """What a person asked for cannot be: the message says what, why and the way out."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest of `known`, or lists them all when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are: {', '.join(names)}" if names else "there are none"


def digest(text: str | bytes, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of `text`."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:length]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every configuration. Fields: int, float, bool, str, a Literal, or one with None."""

    @classmethod
    def field_types(cls) -> dict[str, Any]:
        """Each field's name and its resolved type, in the order of declaration."""
        hints = typing.get_type_hints(cls)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    def override(self, assignments: Mapping[str, str]) -> Self:
        """This configuration with the named fields read from text.

        Raises:
            UsageError: An unknown field, text that is not of its type, or a refused value.
        """
        kinds = self.field_types()
        values: dict[str, Any] = {}
        for name, text in assignments.items():
            if name not in kinds:
                raise UsageError(f"no config field {name!r}; {did_you_mean(name, kinds)}")
            values[name] = _parse(name, text, kinds[name])
        try:
            return dataclasses.replace(self, **values)
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from None

    def canonical(self) -> str:
        """The configuration as JSON with sorted keys and no spaces: equal configs, equal text."""
        values = dataclasses.asdict(self)
        floats = [name for name, kind in self.field_types().items() if kind is float]
        values |= {name: float(values[name]) for name in floats}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def assignments(self) -> str:
        """The fields that differ from their defaults, as `name=value,name=value`."""
        default = type(self)()
        changed = [
            f"{field.name}={_text(getattr(self, field.name))}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != getattr(default, field.name)
        ]
        return ",".join(changed)

    @classmethod
    def field_docs(cls) -> dict[str, str]:
        """Each field's docstring: the string literal that follows its declaration."""
        docs: dict[str, str] = {}
        for base in reversed(cls.__mro__):
            if not dataclasses.is_dataclass(base):
                continue
            (body,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(base))).body
            assert isinstance(body, ast.ClassDef)
            for node, after in zip(body.body, body.body[1:], strict=False):
                match node, after:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        docs[name] = inspect.cleandoc(text)
                    case _:
                        pass
        return docs


def split_assignments(text: str) -> dict[str, str]:
    """Read `name=value,name=value` into a mapping; text without `=` belongs to no field.

    Raises:
        UsageError: A part without `=`, or a field given twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name:
            raise UsageError(f"{part!r} is not a config override; write field=value")
        if name in found:
            raise UsageError(f"config field {name!r} is given twice")
        found[name] = value
    return found


def type_name(kind: Any) -> str:
    """How a field's type is written for a person: `int`, `rotary | sinusoidal`, `int | None`."""
    if typing.get_origin(kind) is Literal:
        return " | ".join(str(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return " | ".join(type_name(member) for member in typing.get_args(kind))
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def _parse(name: str, text: str, kind: Any) -> object:
    """Read `text` as `kind`, trying the members of a union in turn."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        members = sorted(typing.get_args(kind), key=lambda member: member is str)
    else:
        members = (kind,)
    for member in members:
        try:
            return _parse_one(text, member)
        except ValueError:
            continue
    raise UsageError(f"config field {name!r} takes {type_name(kind)}, got {text!r}")


def _parse_one(text: str, kind: Any) -> object:
    if typing.get_origin(kind) is Literal:
        for choice in typing.get_args(kind):
            if text == str(choice):
                return choice
        raise ValueError(text)
    if kind is type(None):
        if text.lower() != "none":
            raise ValueError(text)
        return None
    if kind is bool:
        truth = {"true": True, "false": False, "1": True, "0": False}
        if text.lower() not in truth:
            raise ValueError(text)
        return truth[text.lower()]
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    if kind in (int, float, str):
        return kind(text)
    raise TypeError(f"a config field of type {type_name(kind)} cannot be read from text")
