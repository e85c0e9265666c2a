import msgspec
import pytest

from muster.errors import InvalidInput
from muster.wire.clients import Ack, CancelJob
from muster.wire.codec import decode, encode


def test_the_type_of_a_message_stands_in_its_text():
    told = Ack(message_id="7", original_type="cancel_job", job_id="job-1", timestamp=5)
    assert msgspec.json.decode(encode(told))["type"] == "ack"


def test_a_request_of_another_type_is_not_taken_for_it():
    assert decode(b'{"type": "cancel_job", "job_id": "job-1"}', CancelJob) == CancelJob(job_id="job-1")
    with pytest.raises(InvalidInput, match="subscribe_job"):
        decode(b'{"type": "subscribe_job", "job_id": "job-1"}', CancelJob)
