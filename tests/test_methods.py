"""Every registered method against every law; a new method needs no test of its own here."""

import pytest

from lcbench import registry
from lcbench.conformance import LAWS, Law, check_law


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("name", registry.method_names())
def test_method_keeps_law(name: str, law: Law) -> None:
    finding = check_law(law, registry.load_method(name))
    assert finding.outcome != "fail", finding.detail
