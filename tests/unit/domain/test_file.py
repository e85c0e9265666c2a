import pytest

from muster.domain.file import check_file_name, ending_of, file_url, media_type, parse_file_url, safe_name
from muster.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cat.png", "cat.png"),
        ("sub/dir/cat 1.png", "sub_dir_cat_1.png"),
        ("../../etc/passwd", "etc_passwd"),
        ("…", "file"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
        ("", "file"),
    ],
)
def test_any_text_becomes_a_name_that_is_safe_and_keeps_its_end(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert check_file_name(safe_name(text)) == name


def test_an_address_is_read_as_it_was_written() -> None:
    assert parse_file_url(file_url("~tok~file-1", "1-a.png")) == ("~tok~file-1", "1-a.png")
    assert parse_file_url(file_url("job-1", "a")) == ("job-1", "a")


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere/api/files/job-1/a",
        "/api/files/job-1",
        "/api/files/job-1/",
        "/api/files/../a",
        "/api/files/job-1/..",
        "/api/files/job-1/a/b",
        "/api/files//a",
        "/etc/passwd",
        "",
    ],
)
def test_what_is_no_address_of_a_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"payload\.x must be the url of a file") as refused:
        parse_file_url(url, "payload.x")
    assert refused.value.field == "payload.x"


def test_kinds_are_known_by_the_end_of_the_name_and_back() -> None:
    assert media_type("A.PNG") == "image/png"
    assert media_type("page.html") == media_type("none") == "application/octet-stream"
    assert ending_of("image/png; q=1") == "png"
    assert ending_of("text/html") == "bin"
