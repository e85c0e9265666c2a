from pathlib import Path

import pytest

from muster.agent.artifacts.artifacts import ArtifactCache, ModelFile, own_models
from muster.errors import SetupError


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "artifacts")


def put(path: Path, content: bytes = b"GGUF...") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


async def test_a_file_of_ones_own_is_used_where_it_lies(cache: ArtifactCache, tmp_path: Path) -> None:
    path = put(tmp_path / "Qwen3-8B-Q4_K_M.gguf")
    assert await cache.fetch(str(path)) == ModelFile(path, "Qwen3-8B-Q4_K_M")
    assert await cache.fetch(path.as_uri()) == ModelFile(path, "Qwen3-8B-Q4_K_M")


async def test_a_path_may_be_relative_to_the_folder_or_the_home(
    cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await cache.fetch("m.gguf")).path == path
    assert (await cache.fetch("~/m.gguf")).path == path


async def test_a_url_of_a_file_may_have_escapes(cache: ArtifactCache, tmp_path: Path) -> None:
    path = put(tmp_path / "my models" / "m.gguf")
    assert (await cache.fetch(path.as_uri())).path == path


async def test_a_folder_with_one_model_is_that_model(cache: ArtifactCache, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    first = put(folder / "big-00001-of-00002.gguf")
    put(folder / "big-00002-of-00002.gguf")
    put(folder / "mmproj-big.gguf")
    put(folder / "readme.txt")
    assert await cache.fetch(str(folder)) == ModelFile(first, "big")


async def test_of_several_models_one_must_be_named(cache: ArtifactCache, tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf"):
        put(tmp_path / "models" / name)
    with pytest.raises(SetupError, match=r"has several models: a\.gguf, b\.gguf") as refused:
        await cache.fetch(str(tmp_path / "models"))
    assert refused.value.next_step == f"name one: {tmp_path}/models/a.gguf"
    assert [file.name for file in own_models(str(tmp_path / "models"))] == ["a", "b"]


async def test_a_file_that_cannot_be_read_is_named(
    cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "m.gguf")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SetupError, match=r"cannot read the model .*: Permission denied"):
        await cache.fetch(str(path))


async def test_a_folder_without_models_is_refused(cache: ArtifactCache, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"has no \.gguf files"):
        await cache.fetch(str(tmp_path))


async def test_a_file_of_another_kind_is_refused(cache: ArtifactCache, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a GGUF file"):
        await cache.fetch(str(put(tmp_path / "m.gguf", b"PK\3\4")))


@pytest.mark.parametrize("model", ["smolm2-135m", "SmolLM2-135M", "", "/no/such/file.gguf", "file:///no/such.gguf"])
async def test_an_unknown_model_is_refused_with_what_is_known(cache: ArtifactCache, model: str) -> None:
    with pytest.raises(SetupError, match="there is no model") as refused:
        await cache.fetch(model)
    assert "built-in model: smollm2-135m" in refused.value.next_step


async def test_the_nearest_built_in_model_is_proposed(cache: ArtifactCache) -> None:
    with pytest.raises(SetupError, match="did you mean smollm2-135m"):
        await cache.fetch("smollm-135m")


async def test_a_url_says_what_to_do_instead(cache: ArtifactCache) -> None:
    with pytest.raises(SetupError, match="not fetched from URLs"):
        await cache.fetch("https://models.example/m.gguf")
