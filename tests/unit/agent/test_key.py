import random
import stat
from pathlib import Path

import pytest

from muster.access.tokens import digest_of
from muster.agent.key import KEY_FILE, NodeKeyFile
from muster.errors import SetupError
from muster.ids import NodeId


def key_in(folder: Path, node_id: str = "n1", seed: int = 1) -> NodeKeyFile:
    return NodeKeyFile(folder, NodeId(node_id), random.Random(seed))


def test_a_node_that_has_not_joined_has_no_token(tmp_path: Path) -> None:
    assert key_in(tmp_path).token is None
    assert not (tmp_path / KEY_FILE).exists(), "nothing is written before it is needed"


def test_the_secret_is_kept_before_its_digest_is_told(tmp_path: Path) -> None:
    digest = key_in(tmp_path).new_secret()

    assert key_in(tmp_path, seed=2).new_secret() == digest, "an agent that was killed while it joined says the same"


def test_a_token_outlives_the_process_and_is_for_its_owner_only(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    digest = key.new_secret()

    token = key.joined("node7")

    assert key_in(tmp_path).token == token == key.token
    assert digest_of(token.removeprefix("mst_node7_")) == digest
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_what_was_refused_is_forgotten_with_its_secret(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    digest = key.new_secret()
    key.joined("node7")

    key.forget()
    key.forget()

    assert key.token is None
    assert key.new_secret() != digest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"node_id": "n1"}', b"\xff"])
def test_a_file_that_cannot_be_read_is_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(content)

    key = key_in(tmp_path)

    assert key.token is None
    assert key.joined("node7") == key_in(tmp_path).token


def test_a_copied_data_directory_does_not_make_two_of_one_node(tmp_path: Path) -> None:
    key_in(tmp_path, "n1").joined("node7")

    assert key_in(tmp_path, "n2").token is None


def test_a_key_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot keep"):
        key_in(tmp_path / "nowhere").new_secret()
