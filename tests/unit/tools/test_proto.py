"""The python files of the gRPC service are those of its .proto."""

from pathlib import Path

import pytest
from tools.proto import generated

MADE = generated()


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.name)
def test_generated_files_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path], "run `make proto`"
