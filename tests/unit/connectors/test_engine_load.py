import pytest

from muster.connectors.engine_load import EngineLoad, read_load


@pytest.mark.parametrize(
    ("text", "running", "waiting"),
    [
        (
            'vllm:num_requests_running{engine="0"} 3.0\nvllm:num_requests_waiting{engine="0"} 5.0\n',
            3,
            5,
        ),
        ("sglang:num_running_reqs 2\nsglang:num_queue_reqs 0\n", 2, 0),
        ("trtllm_num_requests_running 1\ntrtllm_num_requests_waiting 4\n", 1, 4),
        ("llamacpp:requests_processing 1\nllamacpp:requests_deferred 7\n", 1, 7),
        ('vllm_num_requests_running{m="a"} 1.5e1 1700000000\n', 15, None),
        ('vllm:num_requests_waiting{m="a"} 2\nvllm:num_requests_waiting{m="b"} 3\n', None, 5),
        (
            "# TYPE vllm:num_requests_running gauge\nprocess_cpu_seconds_total 3\nvllm:num_requests_running NaN\n",
            None,
            None,
        ),
        ("<html>", None, None),
        ("", None, None),
    ],
)
def test_each_engine_is_understood_by_its_own_names(text: str, running: int | None, waiting: int | None) -> None:
    assert read_load(text) == EngineLoad(running=running, waiting=waiting)
