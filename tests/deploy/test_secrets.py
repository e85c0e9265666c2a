"""No file under deploy/ has a password: they come from the environment, a Secret, or a person."""

import re
from pathlib import Path

import pytest

from tests.architecture.tree import shown, tracked_files
from tests.deploy.programs import DEPLOY

FILES = [path for path in tracked_files() if path.is_relative_to(DEPLOY)]
IN_URL = re.compile(r"://[^:/@\s]*:([^@\s]+)@")
ASSIGNED = re.compile(
    r"(?i)\b\w*(?:password|token|secret)\w*[\"']?\s*[=:]\s*[\"']?([\w./+-]{6,})(?:[\"']?\s*$|[\"']\s*[,}])",
    re.MULTILINE,
)
# To be filled in by a person, by the shell, by Compose or by Helm.
PLACEHOLDER = re.compile(r"PASSWORD|TOKEN|\$\{?\w+.*|\{\{.*\}\}")
# What stands behind such words without being one: names of objects and their keys.
NAMES = {"valkey-password", "rabbitmq-password", "agent-token", "existing", "muster-tls", "llm-tls", "secretName"}


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_there_is_no_password_in_it(path: Path) -> None:
    text = path.read_text()
    in_urls = [found for found in IN_URL.findall(text) if not PLACEHOLDER.fullmatch(found)]
    assigned = [found for found in ASSIGNED.findall(text) if found not in NAMES and not PLACEHOLDER.fullmatch(found)]

    assert in_urls == []
    assert assigned == []


def test_the_files_that_hold_them_are_ignored() -> None:
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()

    assert "/deploy/.env" in ignored
    assert DEPLOY / ".env" not in FILES
