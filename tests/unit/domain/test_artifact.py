import hashlib

from muster.domain.artifact import ArtifactFile, NodeArtifacts, digest_of
from muster.wire import decode, encode

A = ArtifactFile(path="a", size_bytes=1, sha256="1" * 64)
B = ArtifactFile(path="b/c", size_bytes=1, sha256="2" * 64)


def test_one_file_is_named_by_its_checksum() -> None:
    assert digest_of([A]) == "1" * 64


def test_several_files_are_named_by_their_list_in_any_order() -> None:
    listed = f"{'1' * 64} a\n{'2' * 64} b/c\n"
    assert digest_of([B, A]) == digest_of([A, B]) == hashlib.sha256(listed.encode()).hexdigest()


def test_a_node_that_keeps_nothing_says_nothing() -> None:
    assert encode(NodeArtifacts()) == b"{}"
    assert decode(b"{}", NodeArtifacts) == NodeArtifacts()
