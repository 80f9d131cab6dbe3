"""Imports go downward only: the arrows are read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest first. A module may import what stands in a lower line, and nothing beside it.
LAYERS = (
    {"config", "paths", "locks", "descent", "confinement", "reproduce", "repository", "__init__"},
    {"method", "task", "methods", "suites", "app", "places", "confined", "failures"},
    {"blocks", "blockwise", "sampling", "suite", "corpus", "floors", "statistics", "starter"}
    | {"examples", "curve"},
    {"fused_band", "code_words"},
    {"attention", "block_sparse", "distance_bias", "chunkwise"},
    {"registry", "contract", "model", "measure", "environment", "estimate", "store", "isolation"}
    | {"references"},
    {"train", "rows", "probe", "parts", "families", "journal", "memory"}
    | {"counting", "noise", "peaks", "guard"},
    {"scores", "costs", "disturbance", "learning"},
    {"quality", "runs"},
    {"ranking", "budgets", "tiers"},
    {"slices"},
    {"streaming", "visibility", "gradients", "growth", "surroundings", "cost", "cards", "plans"}
    | {"generation"}
    | {"machine", "buckets"},
    {"cells"},
    {"conformance", "errands", "tables", "compare", "gate", "picture"},
    {"compare_text"},
    {"pool", "preload", "profiling", "compare_tables", "evidence", "scaffold"},
    {"runner", "merging", "submission_rules", "submission_thrift"},
    {"submission_pages", "submission_rows"},
    {"submission_tree"},
    {"submission_scores", "submission_costs", "submission_curves"},
    {"submission_plan"},
    {"submission_file"},
    {"submission"},
    {"submission_report", "submission_checks"},
    {"terminal", "status", "gallery"},
    {"running"},
    {"difference"},
    {"submitting", "verifying"},
    {"pull_request"},
    {"reviewing"},
    {"command"},
    {"cli_measure", "cli_browse", "cli_contribute"},
    {"cli"},
    {"__main__"},
)
NO_TORCH = {
    "config", "paths", "locks", "descent", "confinement", "confined", "places", "task",
    "corpus", "suite", "registry", "estimate", "store", "isolation", "memory", "machine",
    "profiling", "journal", "errands", "pool", "runner", "running", "status", "merging",
    "ranking", "tables", "terminal", "cli", "families", "floors", "compare", "compare_tables",
    "gate", "evidence", "command", "slices", "tiers", "cli_measure", "cli_browse",
    "cli_contribute", "reproduce", "examples", "cards", "compare_text", "runs", "disturbance",
    "buckets", "submission", "submission_report", "submission_checks", "scaffold", "difference",
    "code_words", "failures", "learning", "submitting", "verifying", "pull_request", "reviewing",
    "repository",
}  # fmt: skip
PLUGINS = {
    "methods": {"method", "blocks", "blockwise", "attention", "block_sparse", "distance_bias"}
    | {"chunkwise", "fused_band"},
    "suites": {"suite"},
    "suites/tasks": {"task", "corpus", "code_words", "sampling", "floors"},
}


def imported(path: Path, *, top_level: bool = False) -> set[str]:
    """Names of the modules a file imports; those in function bodies only if not `top_level`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        hidden = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        )
        if top_level and hidden:
            skipped.update(ast.walk(node))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "lcbench":
                found.update(f"lcbench.{alias.name}" for alias in node.names)
    return found


def own(modules: set[str]) -> set[str]:
    """The lcbench modules among them, without the prefix."""
    return {m.split(".")[1] for m in modules if m.startswith("lcbench.")}


def level(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


CORE = sorted(path for path in (ROOT / "lcbench").glob("*.py"))


def test_every_core_module_has_a_layer() -> None:
    assert {path.stem for path in CORE} <= set().union(*LAYERS)


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_core_imports_point_downward(path: Path) -> None:
    modules = set(own(imported(path, top_level=path.stem == "registry")))
    known = set().union(*LAYERS)
    upward = {m for m in modules & known if level(m) >= level(path.stem)}
    assert not upward, f"{path.stem} imports {upward}, which are not below it"


@pytest.mark.parametrize("name", sorted(NO_TORCH))
def test_light_modules_never_import_torch_at_the_top(name: str) -> None:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        path = ROOT / "lcbench" / f"{current}.py"
        if current in seen or not path.exists():
            continue
        seen.add(current)
        modules = imported(path, top_level=True)
        assert not {m for m in modules if m.split(".")[0] == "torch"}, f"{current} imports torch"
        waiting += own(modules)


@pytest.mark.parametrize("folder", PLUGINS)
def test_plugins_import_contracts_only(folder: str) -> None:
    for path in (ROOT / folder).glob("*.py"):
        extra = own(imported(path)) - PLUGINS[folder]
        assert not extra, f"{path.name} imports {extra}"
