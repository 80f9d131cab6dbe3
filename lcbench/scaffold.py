"""A new method's file, written from another's: what `lcbench new` does.

A copy runs as it is. It has a name of its own and says what it came from; the places to edit are
marked, and nothing else is added.
"""

import ast
import builtins
import io
import keyword
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

from lcbench import registry
from lcbench.config import UsageError
from lcbench.paths import EXTRA_FOLDERS, PACKAGE, checkout, plugin_folders

MARK = "EDIT:"
"""How a place to edit begins."""
STARTER = PACKAGE / "starter.py"
"""What is copied where no method is named."""
LONGEST_NAME = 32
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PORTS = {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
_NOT_NAMES = {"all", "con", "prn", "aux", "nul", *_PORTS}
"""What the command line takes for all methods, and what Windows takes for a device."""


class Scaffold(NamedTuple):
    """A file that was written."""

    name: str
    path: Path
    origin: str | None
    """The method it is a copy of."""
    marks: int
    """Places to edit."""


def create(name: str, origin: str | None = None) -> Scaffold:
    """Write the file of a new method, which passes what its origin passes.

    Args:
        name: The method's name; underscores stand for hyphens.
        origin: A method to begin from; None for `starter`, the smallest there is.

    Raises:
        UsageError: A name that cannot be one or is taken, no such origin, or no folder to write to.
    """
    name = read_name(name)
    source = STARTER if origin is None else registry.source("method", origin).path
    folder = methods_folder()
    path = folder / f"{name.replace('-', '_')}.py"
    text = rewrite(source.read_text(encoding="utf-8"), name, origin)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already; take another name") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return Scaffold(name, path, origin, len(marked_lines(path)))


def marked_lines(path: Path) -> list[int]:
    """The lines of a file that are still marked, from 1."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if MARK in line]


def read_name(text: str) -> str:
    """The name a new method may have, of what was typed.

    Raises:
        UsageError: It cannot be a name, or something has it.
    """
    name = text.replace("_", "-")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{text!r} cannot be a method's name: small letters, digits and single hyphens, a"
            " letter first, such as my-window"
        )
    if len(name) > LONGEST_NAME:
        raise UsageError(f"{text!r} is {len(name)} characters long; {LONGEST_NAME} is the most")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in _NOT_NAMES:
        raise UsageError(f"{text!r} is a reserved word; take another name, such as my-{name}")
    for kind in ("method", "suite", "task"):
        if found := registry.sources(kind).get(name):
            raise UsageError(
                f"{name!r} is the name of a {kind} ({found.path.name}); take another, such as"
                f" my-{name}"
            )
    return name


def methods_folder() -> Path:
    """Where a new method goes: the checkout's `methods/`, else the first of one's own.

    Raises:
        UsageError: There is neither.
    """
    folders = plugin_folders("methods")
    if checkout() is not None:
        return folders[0]
    if len(folders) < 2:
        raise UsageError(
            "lcbench is installed here without its repository, so there is no methods/ to write"
            f" to; name a folder of your own, export {EXTRA_FOLDERS}=$PWD, or work in a clone"
        )
    return folders[1]


def rewrite(source: str, name: str, origin: str | None) -> str:
    """The text of a method's file under a new name, its places to edit marked.

    Args:
        source: The file's text.
        name: The new method's name.
        origin: Whose file it is; None for `starter`.

    Raises:
        UsageError: A file whose `METHOD` is not written out.
    """
    tree = ast.parse(source)
    declared = _declaration(tree, origin)
    fields = {field.arg: field.value for field in declared.keywords}
    title = name.replace("-", " ").capitalize()
    lines = source.splitlines()
    _set_title(lines, fields.get("title"), title)
    built = _identifier(fields.get("build"))
    above = {
        _identifier(fields.get("config")): "what can be set; a number it cannot take is refused.",
        built: "what a token reads.",
    }
    marks = {
        _first_line(node): f"# {MARK} {above[node.name]}"
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in above
    }
    marks[min(field.lineno for field in declared.keywords)] = (
        f"    # {MARK} its title and paper, and all that it claims."
    )
    for line in sorted(marks, reverse=True):
        lines.insert(line - 1, marks[line])
    has_docstring = ast.get_docstring(tree) is not None
    body = lines[tree.body[0].end_lineno :] if has_docstring else lines
    text = "\n".join([_header(tree, title, origin), *body]) + "\n"
    return _renamed(text, built, _class_name(name, text)) if built else text


def _declaration(tree: ast.Module, origin: str | None) -> ast.Call:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_identifier(t) == "METHOD" for t in targets) and node.value.keywords:
                return node.value
    raise UsageError(f"method {origin!r} does not write out its METHOD; begin from another")


def _identifier(node: ast.AST | None) -> str | None:
    return node.id if isinstance(node, ast.Name) else None


def _first_line(node: ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _set_title(lines: list[str], old: ast.expr | None, title: str) -> None:
    if not isinstance(old, ast.Constant) or old.lineno != old.end_lineno:
        return
    line = lines[old.lineno - 1].encode()
    written = f'"{title}"'.encode()
    lines[old.lineno - 1] = (line[: old.col_offset] + written + line[old.end_col_offset :]).decode()


def _header(tree: ast.Module, title: str, origin: str | None) -> str:
    """The module's docstring: the new name, what it came from, and what that says of itself."""
    words = (ast.get_docstring(tree) or "").replace("\\", "\\\\").replace('"""', r"\"\"\"")
    begun = f"a copy of {origin}" if origin else "a running mean"
    return (
        f'"""{title}: begun as {begun}.\n\n'
        f"{MARK} say above what a token reads, and below of your method what is said there of the\n"
        "one it came from: where it stands, what was left out.\n\n"
        f'{words}\n"""'
    )


def _class_name(name: str, text: str) -> str:
    """A class name that means nothing else in the file."""
    taken = {token.string for token in _tokens(text) if token.type == tokenize.NAME}
    taken |= {*keyword.kwlist, *dir(builtins)}
    chosen = "".join(part.capitalize() for part in name.split("-"))
    while chosen in taken:
        chosen += "Mixer"
    return chosen


def _renamed(text: str, old: str, new: str) -> str:
    """The text with one name in place of another, wherever it stands as a name."""
    lines = text.splitlines()
    found = [t for t in _tokens(text) if t.type == tokenize.NAME and t.string == old]
    for token in reversed(found):
        row, column = token.start
        line = lines[row - 1]
        lines[row - 1] = line[:column] + new + line[column + len(old) :]
    return "\n".join(lines) + "\n"


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(text).readline))
