import os
from pathlib import Path

from structlog.testing import capture_logs

from muster.app.certificates import CertificateWatch
from muster.tls import Certificate
from tests.certificates import write_certificate
from tests.waiting import eventually


def spoil(file: str) -> None:
    Path(file).write_text("no key")


async def test_a_renewed_certificate_is_noticed_and_a_broken_one_is_said(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    watch = CertificateWatch(Certificate(*files), every_s=0.01)
    with capture_logs() as logs:
        await watch.start()
        await watch.start()
        spoil(files[1])
        await eventually(lambda: "certificate_not_renewed" in [entry["event"] for entry in logs])
        for number, file in enumerate(write_certificate(tmp_path)):
            os.utime(file, ns=(number, number))
        await eventually(lambda: "certificate_renewed" in [entry["event"] for entry in logs])
        await watch.stop()
        await watch.stop()
