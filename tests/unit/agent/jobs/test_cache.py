from pathlib import Path

from muster.agent.jobs.cache import Cleaned, clean


def test_what_attempts_left_is_gone_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "attempts"
    (folder / "job-1").mkdir(parents=True)
    (folder / "job-1" / "picture.png").write_bytes(b"12345")
    (folder / "job-1" / "away").symlink_to(tmp_path)
    assert clean(folder).files == 2
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    assert clean(tmp_path / "attempts") == Cleaned(0, 0)
    assert (tmp_path / "attempts").is_dir()
