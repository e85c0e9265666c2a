"""Where files are kept."""

from urllib.parse import urlsplit

from muster.errors import SetupError
from muster.ports import BlobStore
from muster.settings import Settings
from muster.stores.files.directory import DirectoryFiles

_FOLDER = "files"


def open_file_store(settings: Settings) -> BlobStore:
    """Return the directory below the data directory, or the bucket that is named."""
    if not settings.file_store_url:
        return DirectoryFiles(settings.data_path / _FOLDER)
    try:
        from muster.stores.files.s3 import S3Files  # noqa: PLC0415 - an extra, loaded where it is used
    except ImportError as error:
        raise SetupError(
            f"file_store_url names a bucket, but {error.name} is not installed", next_step="pip install 'muster[cloud]'"
        ) from None
    parts = urlsplit(settings.file_store_url)
    prefix = parts.path.strip("/")
    return S3Files(
        parts.netloc,
        f"{prefix}/" if prefix else "",
        region=settings.cloud_region,
        endpoint_url=settings.file_store_endpoint_url,
    )
