import os
import ssl
from pathlib import Path

import pytest

from muster.errors import SetupError
from muster.tls import Certificate, trusting, trusting_only
from tests.certificates import write_certificate


def meets(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """Shake hands in memory; return why not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=name),
    ]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return str(error)
    return None


def renew(folder: Path, at_ns: int) -> tuple[str, str]:
    """Write another certificate over the first, and give it a time of its own, however fast that goes."""
    files = write_certificate(folder)
    for file in files:
        os.utime(file, ns=(at_ns, at_ns))
    return files


def test_a_certificate_is_shown_to_those_who_trust_it(tmp_path: Path) -> None:
    certificate = Certificate(*write_certificate(tmp_path))

    assert meets(certificate.context, trusting(str(tmp_path / "server.crt")), "localhost") is None
    assert meets(certificate.context, trusting(str(tmp_path / "server.crt")), "127.0.0.1") is None
    assert "mismatch" in (meets(certificate.context, trusting(str(tmp_path / "server.crt")), "elsewhere") or "")
    assert "self-signed" in (meets(certificate.context, trusting(), "localhost") or "")


def test_the_own_certificate_is_trusted_under_any_name_and_no_other_is(tmp_path: Path) -> None:
    own = Certificate(*write_certificate(tmp_path, "own", "fleet.example"))
    other = Certificate(*write_certificate(tmp_path, "other", "fleet.example"))
    trust = trusting_only(str(tmp_path / "own.crt"))

    assert meets(own.context, trust, "127.0.0.1") is None
    assert meets(other.context, trust, "fleet.example") is not None


def test_a_renewed_certificate_is_shown_from_then_on(tmp_path: Path) -> None:
    certificate = Certificate(*write_certificate(tmp_path))
    before = trusting(str(tmp_path / "server.crt"))
    assert not certificate.refresh()

    renew(tmp_path, 1)

    assert certificate.refresh()
    assert not certificate.refresh()
    assert meets(certificate.context, before, "localhost") is not None
    assert meets(certificate.context, trusting(str(tmp_path / "server.crt")), "localhost") is None


def test_a_renewal_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    certificate = Certificate(*write_certificate(tmp_path))
    before = trusting(str(tmp_path / "server.crt"))
    write_certificate(tmp_path, "other")
    (tmp_path / "other.crt").replace(tmp_path / "server.crt")  # the key is still the old one

    with pytest.raises(SetupError, match="not a PEM certificate and its key"):
        certificate.refresh()
    assert not certificate.refresh(), "what was refused is looked at again when it changes"
    assert meets(certificate.context, before, "localhost") is None
    (tmp_path / "other.key").replace(tmp_path / "server.key")
    assert certificate.refresh()
    (tmp_path / "server.key").unlink()
    with pytest.raises(SetupError, match="cannot read"):
        certificate.refresh()


@pytest.mark.parametrize("missing", ["server.crt", "server.key"])
def test_a_file_that_is_not_there_is_said_with_a_next_step(tmp_path: Path, missing: str) -> None:
    files = write_certificate(tmp_path)
    (tmp_path / missing).unlink()

    with pytest.raises(SetupError, match="cannot read") as refused:
        Certificate(*files)
    assert "tls_cert_file" in refused.value.next_step


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    cert_file, key_file = write_certificate(tmp_path)
    _, other_key = write_certificate(tmp_path, "other")
    text = tmp_path / "text"
    text.write_text("hello")

    for files in ((str(text), key_file), (cert_file, str(text)), (cert_file, other_key), (key_file, cert_file)):
        with pytest.raises(SetupError, match="not a PEM certificate"):
            Certificate(*files)


def test_authorities_that_cannot_be_had_are_said(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("hello")

    with pytest.raises(SetupError, match="holds no PEM certificate"):
        trusting(str(text))
    with pytest.raises(SetupError, match="cannot read"):
        trusting(str(tmp_path / "nowhere"))
    with pytest.raises(SetupError, match="cannot read"):
        trusting_only(str(tmp_path / "nowhere"))
