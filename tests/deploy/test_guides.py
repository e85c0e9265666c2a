"""What the guides tell people to type: shell that parses, commands and settings that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, shown
from tests.deploy.programs import output_of
from tests.deploy.words import check_command, is_setting

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Where a command may begin, and up to where it ends.
TYPED = re.compile(
    r"(?:^|[;&|({]|\bexec|\bsudo|\b[A-Z_]+=\S+|bin/)[ ]*\b(muster|worker-agent) ([^\n;&|>#)`]*)", re.MULTILINE
)
SET = re.compile(r"\b(MUSTER_[A-Z_]+)=")
# Read by the command line itself.
OF_OTHERS = {"MUSTER_DEBUG"}

every_guide = pytest.mark.parametrize("guide", GUIDES, ids=shown)


def blocks(guide: Path) -> list[str]:
    # Somebody else's URL in <> is no redirection.
    return [re.sub(r"<[a-z ]+>", "URL", block) for block in BLOCK.findall(guide.read_text())]


def commands(text: str) -> Iterator[list[str]]:
    for program, rest in TYPED.findall(text.replace("\\\n", " ")):
        yield (["agent"] if program == "worker-agent" else []) + rest.split()


@every_guide
def test_its_shell_parses(guide: Path) -> None:
    for block in blocks(guide):
        output_of("bash", "-n", "-c", block)


@every_guide
def test_its_commands_exist(guide: Path) -> None:
    for block in blocks(guide):
        for words in commands(block):
            check_command(words)


@every_guide
def test_its_settings_exist(guide: Path) -> None:
    names = set(SET.findall(guide.read_text())) - OF_OTHERS

    assert [name for name in names if not is_setting(name)] == []


def test_commands_are_found_wherever_they_stand() -> None:
    text = "export A=$(muster token create x | jq .)\nX=1 muster cloud up\n(set -a; exec worker-agent --link amqp) &\n"

    assert [words[:2] for words in commands(text)] == [["token", "create"], ["cloud", "up"], ["agent", "--link"]]
