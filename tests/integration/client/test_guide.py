"""What the guide shows is run as it stands there."""

import re

import pytest
from msgspec import Struct

from muster.wire import clients
from tests.architecture.tree import ROOT
from tests.integration.client.conftest import StartAgent
from tests.muster_process import ControlPlane

GUIDE = (ROOT / "docs" / "guides" / "python-client.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_every_example_runs(plane: ControlPlane, start_agent: StartAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    start_agent("one", plane.url)
    monkeypatch.setenv("MUSTER_CONTROL_PLANE", plane.url)
    monkeypatch.delenv("MUSTER_TOKEN", raising=False)
    assert len(EXAMPLES) >= 7
    for number, example in enumerate(EXAMPLES, start=1):
        exec(compile(example, f"example {number} of python-client.md", "exec"), {"__name__": "example"})


def test_every_message_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "sockets.md").read_text(encoding="utf-8")
    kinds = {
        kind.__struct_config__.tag
        for kind in vars(clients).values()
        if isinstance(kind, type) and issubclass(kind, Struct) and kind.__name__[0] != "_"
    }
    assert "subscribe_job" in kinds
    assert {kind for kind in kinds - {None} if f"| `{kind}` |" not in page} == set()
