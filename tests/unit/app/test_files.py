"""Where files are kept, and how an agent reaches them."""

from pathlib import Path

import pytest

from muster.app.file_link import files_url
from muster.app.files import open_file_store
from muster.settings import Settings
from muster.stores.files.directory import DirectoryFiles
from muster.stores.files.s3 import S3Files


@pytest.mark.parametrize(
    ("control_plane", "url"),
    [
        ("http://10.0.0.1:8090", "http://10.0.0.1:8090"),
        ("https://fleet.example", "https://fleet.example"),
        ("grpc://10.0.0.1:50051", "http://10.0.0.1:8090"),
        ("grpcs://[fd00::1]:50051", "https://[fd00::1]:8090"),
        ("amqp://broker:5672", "http://127.0.0.1:8090"),
        ("", "http://127.0.0.1:8090"),
    ],
)
def test_files_go_to_the_http_port_whatever_the_link(control_plane: str, url: str) -> None:
    assert files_url(Settings(), control_plane) == url
    assert files_url(Settings(files_url="https://files.example"), control_plane) == "https://files.example"


def test_they_are_kept_in_the_data_directory_or_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert isinstance(open_file_store(Settings(data_dir=str(tmp_path))), DirectoryFiles)
    bucket = open_file_store(Settings(file_store_url="s3://bucket/some/prefix", cloud_region="us-east-1"))
    assert isinstance(bucket, S3Files)
    assert bucket._key("job-1", "a") == "some/prefix/job-1/a"
