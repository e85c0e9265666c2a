import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import InvalidInput
from muster.gateway.dialects.form import flag, read_form, with_field


def form(*fields: tuple[str, bytes], boundary: bytes = b"x") -> bytes:
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, n.encode(), v)
        for n, v in fields
    ]
    return b"".join(parts) + b"--%b--\r\n" % boundary


@given(st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=20).filter(lambda v: b"--" not in v)), min_size=1))
def test_fields_are_found_whatever_lies_in_the_others(fields: list[tuple[str, bytes]]) -> None:
    body = form(*fields)
    found = read_form(body)
    first = dict(reversed(fields))
    assert {name: body[start:end] for name, (start, end) in found.spans.items()} == first
    name = fields[0][0]
    changed = with_field(body, name, "other")
    assert read_form(changed).text(changed, name) == "other"
    assert len(changed) == len(body) - len(first[name]) + len("other")


def test_a_body_that_is_cut_anywhere_is_refused() -> None:
    body = form(("model", b"m"), ("file", b"\r\n--y\r\n"), boundary=b"xyz")
    for end in range(len(body) - len(b"--\r\n")):
        with pytest.raises(InvalidInput):
            read_form(body[:end])


def test_names_are_read_with_and_without_quotes_and_beside_other_lines() -> None:
    body = b"--x\r\nContent-Type: a/b\r\ncontent-disposition: form-data; filename=f; name=model\r\n\r\nm\r\n--x--"
    assert read_form(body).text(body, "model") == "m"
    assert read_form(body).text(body, "stream") == ""


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), (" True", True), ("1", True), ("no way", False), ("", False)]
)
def test_a_flag_of_a_form_is_a_text(text: str, value: bool) -> None:  # noqa: FBT001 - a case of the table
    assert flag(text) is value
