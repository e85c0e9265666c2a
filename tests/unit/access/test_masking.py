import pytest

from muster.access.masking import mask
from tests.unit.access.makers import made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token mst_ab12_s3cret9 was shown", "token mst_ab12_*** was shown"),
        ("Authorization: Bearer hunter2-long", "Authorization: Bearer ***"),
        ("{'authorization': 'bearer abc.def'}", "{'authorization': 'bearer ***'}"),
        ("GET /ws/monitor/1?token=hunter2&x=1", "GET /ws/monitor/1?token=***&x=1"),
        ("GET /a?b=1&token=mst_ab12_s3cret9", "GET /a?b=1&token=mst_ab12_***"),
        ("Bearer mst_ab12_s3cret9", "Bearer mst_ab12_***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_of_a_token_only_its_id_stays(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_a_made_token_is_masked_wherever_it_stands() -> None:
    token, text = made()
    secret = text.decode().rsplit("_", 1)[1]

    masked = mask(f'{{"event": "x", "url": "http://h/p?token={text.decode()}", "error": "{text.decode()}"}}')

    assert secret not in masked
    assert masked.count(token.token_id) == 2
