import re
from pathlib import Path

import pytest

from muster.gateway.gateway import PATHS
from muster.gateway.gateway import Path as GatewayPath

_PAGE = Path(__file__).parents[3] / "docs" / "reference" / "gateway.md"
_SAID = re.compile(r"`((?:GET|HEAD|POST|DELETE) /[^`]*)`")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_every_path_is_on_the_page_of_the_gateway(path: GatewayPath) -> None:
    said = set(_SAID.findall(_PAGE.read_text()))
    methods = [method.decode() for method in path.methods if method != b"HEAD" or b"GET" not in path.methods]
    assert {f"{method} {path.name}" for method in methods} <= said


def test_the_page_of_the_gateway_names_nothing_else() -> None:
    known = {f"{method.decode()} {path.name}" for path in PATHS for method in path.methods}
    assert set(_SAID.findall(_PAGE.read_text())) - known == {"GET /", "HEAD /"}
