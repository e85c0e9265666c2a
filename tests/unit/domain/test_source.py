import pytest

from muster.domain.source import (
    HubSource,
    OllamaSource,
    WebSource,
    canonical_name,
    is_digest,
    is_safe_path,
    parse_source,
)
from muster.errors import InvalidInput

SHA = "ab" * 32


def test_a_url_is_one_file_and_may_say_what_it_must_be() -> None:
    assert parse_source("https://host/dir/model.gguf") == WebSource(
        name="https://host/dir/model.gguf", url="https://host/dir/model.gguf"
    )
    pinned = parse_source(f"https://host/model.gguf#sha256={SHA.upper()}")
    assert pinned == WebSource(name="https://host/model.gguf", url="https://host/model.gguf", sha256=SHA)


@pytest.mark.parametrize(
    ("url", "file_name"),
    [
        ("https://host/a/model.gguf?download=true", "model.gguf"),
        ("https://host/a/my%20model.gguf", "my_model.gguf"),
        ("https://host/", "file"),
        ("https://host", "file"),
        ("https://host/..%2f..%2fetc%2fpasswd", "passwd"),
    ],
)
def test_the_file_is_called_as_the_url_ends(url: str, file_name: str) -> None:
    source = parse_source(url)
    assert isinstance(source, WebSource)
    assert source.file_name == file_name


def test_what_signs_an_address_is_not_part_of_the_name() -> None:
    source = parse_source("https://host/m.gguf?X-Amz-Signature=s3cret&version=2&access_token=t")
    assert isinstance(source, WebSource)
    assert source.name == "https://host/m.gguf?X-Amz-Signature=***&version=2&access_token=***"
    assert "s3cret" in source.url


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@host/m.gguf",
        "https://user@host/m.gguf",
        "https:///m.gguf",
        "https:host",
        "http://host:99999/m",
        "http://host:0/m",
        "https://host/m.gguf#sha256=abc",
        "https://host/m.gguf#md5=" + SHA,
        "https://host/a b",
        "ftp://host/m.gguf",
        "javascript://host/m",
    ],
)
def test_a_url_that_cannot_be_fetched_is_refused_before_anything_is_asked(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_source(url)
    assert refused.value.field == "model"
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/repo", HubSource(name="hf:org/repo", repo="org/repo")),
        ("hf:org/repo@main", HubSource(name="hf:org/repo", repo="org/repo")),
        ("HF:org/repo/", HubSource(name="hf:org/repo", repo="org/repo")),
        ("hf:org/repo/q4/m.gguf", HubSource(name="hf:org/repo/q4/m.gguf", repo="org/repo", path="q4/m.gguf")),
        (
            "hf:org/repo/m.gguf@v1.0",
            HubSource(name="hf:org/repo/m.gguf@v1.0", repo="org/repo", path="m.gguf", revision="v1.0"),
        ),
    ],
)
def test_a_repository_or_one_file_of_it(text: str, source: HubSource) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:org", "hf:org/", "hf:org/repo/../x", "hf:../repo", "hf:org/repo@", "hf:org/repo@a/../b", "hf:a/b//c"],
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="must be like hf:ORG/REPO"):
        parse_source(text)


def test_models_that_ollama_fetches() -> None:
    assert parse_source("ollama:qwen2.5:0.5b") == OllamaSource(name="ollama:qwen2.5:0.5b", model="qwen2.5:0.5b")
    with pytest.raises(InvalidInput, match="ollama:NAME"):
        parse_source("ollama:")


@pytest.mark.parametrize(
    "text", ["smollm2-135m", "/models/m.gguf", "file:///models/m.gguf", "qwen2.5:0.5b", "C:\\m.gguf", "x" * 5000 + ":"]
)
def test_other_names_are_left_to_others(text: str) -> None:
    assert parse_source(text) is None
    assert canonical_name(text) == text


def test_one_artifact_has_one_name() -> None:
    assert canonical_name(f"https://h/m#sha256={SHA}") == canonical_name("https://h/m")
    assert canonical_name("hf:o/r@main") == "hf:o/r"
    assert canonical_name("ftp://h/m") == "ftp://h/m"  # what nobody could fetch is called as it was written


def test_digests_and_paths() -> None:
    assert is_digest(SHA)
    assert not is_digest(SHA[:-1])
    assert is_safe_path("a/b.gguf")
    assert not any(map(is_safe_path, ["", "/a", "../a", "a/../b", "a//b", "a\\b", "a/./b", "a\nb"]))
