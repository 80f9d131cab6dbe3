"""Methods by family, from their source alone: what a listing shows."""

from collections.abc import Iterable

from lcbench import registry

FAMILIES = {
    "full": "a token reads every token before it",
    "local": "a token reads those near it",
    "sparse": "a token reads those near it and some far ones",
    "recurrent-memory": "a token reads its segment and what earlier ones hand on",
    "constant-state": "a token reads a summary of the past that does not grow",
    "hybrid": "methods alternate by layer",
}
"""From the most direct to the most condensed; other families come after."""


def by_family(names: Iterable[str]) -> dict[str, list[str]]:
    """Methods by the family they declare, families in order; `other` for those that tell none."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(family_of(name), []).append(name)
    order = [*FAMILIES, *sorted(found.keys() - FAMILIES.keys() - {"other"}), "other"]
    return {family: found[family] for family in order if family in found}


def family_of(method: str) -> str:
    """The family a method declares; `other` if it tells none or is not installed."""
    if method not in registry.sources("method"):
        return "other"
    return str(registry.headline("method", method).fields.get("family", "other"))


def heading(family: str) -> str:
    """A family and what it has in common."""
    return f"{family}: {FAMILIES[family]}" if family in FAMILIES else family


def listing() -> str:
    """All methods with their summaries, family by family."""
    groups = by_family(registry.method_names())
    width = max((len(name) for names in groups.values() for name in names), default=0)
    lines: list[str] = []
    for family, names in groups.items():
        lines.append(heading(family))
        for name in names:
            lines.append(f"  {name:{width}}  {registry.headline('method', name).summary}")
        lines.append("")
    return "\n".join(lines)
