import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from muster.ports import BlobStore
from muster.stores.files.directory import DirectoryFiles
from muster.stores.files.s3 import S3Files
from tests.moto_server import CREDENTIALS, MotoServer


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    server = MotoServer(tmp_path_factory.mktemp("moto"))
    yield server
    server.stop()


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "directory":
        return DirectoryFiles(tmp_path / "files")
    moto: MotoServer = request.getfixturevalue("moto")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3", region_name="us-east-1", endpoint_url=moto.url).create_bucket(Bucket=bucket)
    return S3Files(bucket, "of/muster/", region="us-east-1", endpoint_url=moto.url)
