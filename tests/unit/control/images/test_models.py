"""The folder of image models: read, read again when a file changes, and wrong in words."""

import os
from pathlib import Path

import pytest

from muster.control.images.models import ImageModels
from muster.errors import ImageModelBroken, SetupError
from tests.artist import workflow, write_model


async def test_each_file_is_a_model_by_its_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_model(tmp_path, name, workflow())
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / ".a.json").write_text("an editor's")
    models = ImageModels(tmp_path)
    await models.look()

    assert models.names() == ["a", "b"]
    assert models.has("a:latest")
    assert models.get("a:latest").name == "a"
    assert not models.has("c")
    with pytest.raises(ImageModelBroken, match="its file has gone"):
        models.get("c")


async def test_a_folder_that_is_not_there_has_none_until_it_is(tmp_path: Path) -> None:
    models = ImageModels(tmp_path / "image_models")
    await models.start()
    assert models.names() == []
    write_model(tmp_path / "image_models", "a", workflow())
    await models.look()
    assert models.names() == ["a"]
    await models.stop()


async def test_a_folder_that_cannot_be_read_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SetupError, match="loop cannot be read") as raised:
        await ImageModels(tmp_path / "loop").start()
    assert "image_models_dir" in raised.value.next_step


async def test_what_changed_is_read_again_and_what_has_gone_is_forgotten(tmp_path: Path) -> None:
    path = write_model(tmp_path, "a", workflow())
    models = ImageModels(tmp_path)
    await models.look()
    first = models.get("a")
    await models.look()
    assert models.get("a") is first

    write_model(tmp_path, "a", workflow(n_max=2))
    os.utime(path, ns=(1, 1))
    await models.look()
    assert models.get("a").options.n_max == 2

    path.unlink()
    await models.look()
    assert not models.has("a")


async def test_a_wrong_file_is_no_model_to_choose_and_says_what_is_wrong_to_who_asks(tmp_path: Path) -> None:
    path = write_model(tmp_path, "a", workflow(n_max=0))
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "long.json").write_bytes(b" " * 4_194_305)
    models = ImageModels(tmp_path)
    await models.look()

    assert models.names() == []
    assert models.has("a")
    with pytest.raises(ImageModelBroken, match=r"model a cannot be used: .*a\.json: muster\.n_max: ") as refused:
        models.get("a")
    assert (refused.value.field, str(path) in refused.value.message) == ("model", True)
    with pytest.raises(ImageModelBroken, match="Is a directory"):
        models.get("folder")
    with pytest.raises(ImageModelBroken, match="more than 4194304 bytes"):
        models.get("long")
