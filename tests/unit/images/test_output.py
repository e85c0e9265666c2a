"""Pictures in the result of a graph."""

from typing import Any

import pytest

from muster.domain.file import FileRef
from muster.domain.job import encode_result
from muster.images.output import pictures_of


def ref(name: str, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "type": kind, "bytes": 3, "sha256": "ab", "url": f"/api/files/job-1/1-{name}"}


def test_pictures_come_in_their_order_and_nothing_else() -> None:
    outputs = {
        "9": {"images": [ref("b.png"), ref("a.png")], "text": ["words"], "count": 2},
        "3": {"gifs": [ref("c.webp", "image/webp"), ref("d.mp4", "video/mp4")]},
    }
    found = pictures_of(encode_result({"prompt_id": "p", "outputs": outputs}))
    assert [picture.name for picture in found] == ["b.png", "a.png", "c.webp"]
    assert found[0] == FileRef(**ref("b.png"))


@pytest.mark.parametrize("result", [{}, {"outputs": {}}, {"outputs": 5}, {"outputs": {"1": []}}, [1], None])
def test_what_is_no_result_of_a_graph_has_none(result: Any) -> None:
    assert pictures_of(encode_result(result)) == []
