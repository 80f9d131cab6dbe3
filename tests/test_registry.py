import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import lcbench.methods
import lcbench.suites
from lcbench import registry
from lcbench.config import UsageError
from lcbench.paths import package_path
from lcbench.registry import PluginError

ROOT = Path(__file__).resolve().parents[1]

GOOD = '''"""What a listing shows.

Source: none.
"""

from lcbench.method import Cost, Method, MethodConfig, MethodSpec, Paper

METHOD = MethodSpec(
    build=Method, config=MethodConfig, title="Mine " "alone", family="test", equation="y = x",
    paper=Paper("None", 2026, "2601.00001"), cost=Cost(1.0, 1.0, 0.0), causal=False,
    bidirectional=True,
)
'''

Write = Callable[..., Path]


@pytest.fixture
def write(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a plug-in where lcbench looks, and forget what was imported of it."""
    monkeypatch.setenv("LCBENCH_PATH", str(own_folder))
    for package, name in ((lcbench.methods, "methods"), (lcbench.suites, "suites")):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(own_folder / name)])
    importlib.invalidate_caches()
    before = set(sys.modules)

    def write_text(stem: str, text: str | bytes, folder: str = "methods") -> Path:
        path = own_folder / folder / f"{stem}.py"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    yield write_text
    for name in set(sys.modules) - before:
        if name.startswith(("lcbench.methods.", "lcbench.suites.")):
            del sys.modules[name]


def test_a_name_is_the_stem_with_dashes(write: Write) -> None:
    write("my_own_method", GOOD)
    write("_shared", GOOD)
    names = registry.method_names()
    assert "my-own-method" in names
    assert not any("shared" in name for name in names)
    assert names == sorted(names)
    assert {"vanilla", "sliding-window", "my-own-method"} <= set(names)


def test_tasks_and_suites_of_an_own_folder_are_found(write: Write) -> None:
    write("my_task", "TASK = None", "suites/tasks")
    write("my_suite", "SUITE = None", "suites")
    assert "my-task" in registry.task_names()
    assert "my-suite" in registry.suite_names()
    assert "my-task" not in registry.suite_names()


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [
        ("method", "vanila", "vanilla"),
        ("method", "sliding_window", "sliding-window"),
        ("task", "mqr", "mqar"),
        ("suite", "quik", "quick"),
    ],
)
def test_an_unknown_name_gets_the_nearest(kind: registry.Kind, typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"no {kind} '{typed}'; did you mean '{meant}'"):
        registry.source(kind, typed)


def test_loading_gives_what_the_file_declares(write: Write) -> None:
    write("my_own", GOOD)
    assert registry.load_method("my-own").title == "Mine alone"


def test_a_listing_reads_without_importing(write: Write) -> None:
    write("never_run", GOOD + "raise SystemExit('a listing must not run this')\n")
    told = registry.headline("method", "never-run")
    assert told.summary == "What a listing shows."
    assert told.fields["title"] == "Mine alone"
    assert told.fields["family"] == "test"
    assert told.fields["causal"] is False
    assert registry.source_hash("method", "never-run")
    assert "lcbench.methods.never_run" not in sys.modules


def test_listing_everything_imports_no_plug_in() -> None:
    script = (
        "import sys; from lcbench import registry as r\n"
        "[r.headline(k, n) for k in ('method', 'task', 'suite') for n in r.sources(k)]\n"
        "print([m for m in sys.modules if m.startswith(('lcbench.methods', 'lcbench.suites',"
        " 'torch', 'pandas', 'numpy'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_shipped_plug_in_has_a_headline() -> None:
    needed = {"method": {"title", "family"}, "task": {"title", "version"}, "suite": {"title"}}
    for kind, fields in needed.items():
        for name in registry.sources(kind):
            told = registry.headline(kind, name)
            assert told.summary.endswith((".", "?")), (kind, name)
            assert fields <= told.fields.keys(), (kind, name)


def test_the_headline_of_an_annotated_declaration_is_read(write: Write) -> None:
    write("annotated", GOOD.replace("METHOD =", "METHOD: MethodSpec ="))
    assert registry.load_method("annotated").title == "Mine alone"
    assert registry.headline("method", "annotated").fields["title"] == "Mine alone"


def test_the_headline_of_a_file_with_a_byte_order_mark_is_read(write: Write) -> None:
    write("windows_made", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert registry.load_method("windows-made").title == "Mine alone"
    assert registry.headline("method", "windows-made").fields["title"] == "Mine alone"


@pytest.mark.parametrize("text", [b"def broken(:\n", b"\xff\xfe", b"x = 1\0\n"])
def test_a_file_that_does_not_parse_is_listed_with_its_error(write: Write, text: bytes) -> None:
    write("garbled", text)
    told = registry.headline("method", "garbled")
    assert told.summary.startswith("cannot be read: ")
    assert told.fields == {}


@pytest.mark.parametrize(
    ("text", "words", "where"),
    [
        ('"""Doc."""\n\ndef broken(:\n', "SyntaxError", "line 3"),
        ('"""Doc."""\nimport no_such_package\n', "no_such_package", "line 2"),
        ("def f():\n    raise KeyError('x')\n\n\nf()\n", "KeyError", "line 2"),
        ("from pathlib import Path\nPath('/nowhere/at-all').read_text()\n", "FileNotFound", "2"),
        (GOOD.replace('"Mine " "alone"', '""'), "title is empty", "line 8"),
    ],
)
def test_a_file_that_does_not_import_names_file_and_line(
    write: Write, text: str, words: str, where: str
) -> None:
    write("bad_one", text)
    with pytest.raises(PluginError) as caught:
        registry.load_method("bad-one")
    message = str(caught.value)
    assert "method 'bad-one' does not import" in message
    assert words in message
    assert "bad_one.py" in message
    assert where in message


def test_a_broken_file_is_named_by_line_in_a_folder_named_relatively(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "x = 1\nraise KeyError('x')\n"
    (own_folder / "methods" / "raises_here.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(own_folder.parent)
    monkeypatch.setenv("LCBENCH_PATH", own_folder.name)
    monkeypatch.setattr(lcbench.methods, "__path__", package_path("methods"))
    with pytest.raises(PluginError, match=r"raises_here\.py, line 2"):
        registry.load_method("raises-here")


def test_where_a_syntax_error_lies_is_told_once(write: Write) -> None:
    write("bad_one", "def broken(:\n")
    with pytest.raises(PluginError) as caught:
        registry.load_method("bad-one")
    assert str(caught.value).count("line 1") == 1


@pytest.mark.parametrize(
    ("text", "found"), [("x = 1\n", "NoneType"), ("METHOD = 3\n", "int"), ("", "NoneType")]
)
def test_a_file_without_a_declaration_says_what_it_must_end_in(
    write: Write, text: str, found: str
) -> None:
    write("undeclared", text)
    with pytest.raises(PluginError) as caught:
        registry.load_method("undeclared")
    assert "undeclared.py must end in `METHOD = MethodSpec(...)`" in str(caught.value)
    assert f"found {found}" in str(caught.value)


def test_a_task_file_that_declares_a_method_is_refused(write: Write) -> None:
    write("odd_task", GOOD, "suites/tasks")
    with pytest.raises(PluginError, match=r"must end in `TASK = TaskSpec\(\.\.\.\)`"):
        registry.load_task("odd-task")


def test_a_suite_with_a_refused_value_is_a_plug_in_error(write: Write) -> None:
    text = (ROOT / "suites" / "smoke.py").read_text(encoding="utf-8")
    write("odd_suite", text.replace("steps=5", "steps=0"), "suites")
    with pytest.raises(PluginError, match="code-lm: steps must be above 0, got 0"):
        registry.load_suite("odd-suite")


def test_the_source_hash_is_the_same_with_either_line_ending(write: Write) -> None:
    write("unix", GOOD)
    write("windows", GOOD.replace("\n", "\r\n"))
    write("edited", GOOD.replace("y = x", "y = 2 x"))
    unix, windows, edited = (
        registry.source_hash("method", name) for name in ("unix", "windows", "edited")
    )
    assert unix == windows
    assert unix != edited


def test_two_files_with_one_name_are_refused(write: Write) -> None:
    write("vanilla", GOOD)
    with pytest.raises(PluginError, match="'vanilla'"):
        registry.sources("method")


def test_two_stems_that_make_one_name_are_refused(write: Write) -> None:
    write("my_twin", GOOD)
    write("my-twin", GOOD)
    with pytest.raises(PluginError, match="'my-twin'"):
        registry.sources("method")


def installed(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    group = EntryPoints([EntryPoint(name, value, "lcbench.methods")])
    monkeypatch.setattr(registry, "_entry_points", lambda wanted: group.select(group=wanted))


def test_an_installed_package_brings_a_method(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "somebodys_method.py").write_text(GOOD, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    installed(monkeypatch, "theirs", "somebodys_method")
    assert registry.headline("method", "theirs").fields["title"] == "Mine alone"
    assert "somebodys_method" not in sys.modules
    assert registry.load_method("theirs").title == "Mine alone"
    assert "theirs" not in registry.task_names()
    monkeypatch.delitem(sys.modules, "somebodys_method")


def test_an_installed_method_may_not_take_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "vanilla", "somebodys_method")
    with pytest.raises(PluginError, match=r"'vanilla' of somebodys_method .* vanilla\.py"):
        registry.sources("method")


@pytest.mark.parametrize("module", ["not_installed_at_all", "not_installed_at_all.method"])
def test_an_installed_method_without_its_module_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    installed(monkeypatch, "theirs", module)
    with pytest.raises(PluginError, match=f"'theirs': module {module} is not installed"):
        registry.sources("method")
