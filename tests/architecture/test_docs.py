"""The documents say what is true: generated pages are current, links lead somewhere, nothing points outside."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs.generate import pages

from muster.settings import Settings
from tests.architecture.tree import ROOT, shown, tracked_files

LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]+)?(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)
# In parts, or this file would break its own rule. Versions are enough: every machine has its own way to an index.
OUTSIDE = [
    separator.join(parts)
    for separator, parts in (
        (".", ("pypi", "org")),
        (".", ("pythonhosted", "org")),
        (".", ("npmjs", "org")),
        (".", ("npmjs", "com")),
        (".", ("yarnpkg", "com")),
        (".", ("debian", "org")),
        (".", ("golang", "org")),
        (".", ("crates", "io")),
        ("/", ("", "work", "")),
    )
]
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".js",
    ".mjs",
    ".ts",
    ".json",
    ".html",
    ".css",
    ".lua",
    ".yaml",
    ".yml",
    "",
}

MARKDOWN = [path for path in tracked_files() if path.suffix == ".md"]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"


def test_every_setting_says_what_it_is() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", page, re.MULTILINE))

    assert set(rows) == set(Settings.__struct_fields__)
    assert [name for name, what in rows.items() if not what.strip()] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}" if anchor else target)

    assert broken == []


def anchors(page: Path) -> set[str]:
    """Name the headings of a page as links to them do."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))

    assert [name for name in records if f"({name})" not in index] == []
    assert [name[:4] for name in records] == [f"{number:04}" for number in range(1, len(records) + 1)]


def test_every_package_is_on_the_page_of_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    packages = sorted(path.parent.name for path in (ROOT / "src" / "muster").glob("*/__init__.py"))

    assert [name for name in packages if f"`{name}/`" not in page] == []


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/walks.md", "CONTRIBUTING.md"])
def test_the_files_that_pages_about_the_code_name_are_there(page: str) -> None:
    files = [path.relative_to(ROOT).as_posix() for path in tracked_files()]
    places = {*files, *(file.removeprefix("src/muster/") for file in files)}
    places |= {parent.as_posix() + "/" for place in list(places) for parent in Path(place).parents}
    alone = {Path(file).name for file in files}  # beside one that was named with its folder
    named = re.findall(r"`([\w/.-]+(?:\.(?:py|js|lua|md)|/))`", (ROOT / page).read_text())

    assert [name for name in named if name not in places | alone and f"tests/{name}" not in places] == []


def test_nothing_names_a_package_index_or_a_path_of_one_machine() -> None:
    found = [
        f"{shown(path)}: {word}"
        for path in tracked_files()
        if path.suffix in TEXT
        for word in OUTSIDE
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]

    assert found == []


def test_the_site_leads_to_every_page() -> None:
    listed = set(re.findall(r"- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    docs = ROOT / "docs"
    pages_there = {str(path.relative_to(docs)) for path in MARKDOWN if path.is_relative_to(docs)}
    assert listed <= pages_there
    assert {page for page in pages_there - listed if not page.startswith("decisions/")} == set()


def test_the_site_can_be_made(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    build = [sys.executable, "-m", "zensical", "build", "--strict", "-f", "mkdocs.yml"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Troubleshooting" in (tmp_path / "build" / "site" / "index.html").read_text()
