from muster.gateway.figures.usage import CLIENT_GONE, Finished, Usage


def test_requests_are_counted_by_path_and_status_and_timed_by_model():
    usage = Usage()
    usage.finished(Finished("/v1/chat/completions", 200, "m", "a/llama", 1, 0.02, 1.5, 100))
    usage.finished(Finished("/v1/chat/completions", 200, "m", "a/llama", 1, 0.2, 700.0, 50))
    usage.finished(Finished("/v1/chat/completions", 404, "invented"))
    usage.upstream_failed("a/llama", "lost")

    stats = usage.stats({"a/llama": 3})
    assert (stats.requests_total, stats.errors_total, stats.upstream_failures_total) == (3, 1, 1)
    assert (stats.in_flight, stats.bytes_sent_total) == (3, 150)

    metrics = {metric.family.name: list(metric.samples) for metric in usage.metrics({"a/llama": 3})}
    requests = {labels: value for _, labels, value in metrics["muster_gateway_requests_total"]}
    assert requests == {("/v1/chat/completions", "200"): 2, ("/v1/chat/completions", "404"): 1}
    assert metrics["muster_gateway_in_flight"] == [("", ("a/llama",), 3)]

    duration = metrics["muster_gateway_duration_seconds"]
    assert {labels[0] for _, labels, _ in duration} == {"m"}, "a model that nobody has gets no series"
    buckets = {labels[1]: value for suffix, labels, value in duration if suffix == "_bucket"}
    assert (buckets["1.0"], buckets["2.5"], buckets["600.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert [value for suffix, _, value in duration if suffix in {"_sum", "_count"}] == [701.5, 2]
    assert list(buckets.values()) == sorted(buckets.values())


def test_the_time_between_tokens_is_one_observation_an_answer():
    usage = Usage()
    usage.finished(Finished("/v1/chat/completions", 200, "m", "w", 1, 1.0, 3.0, 100, None, 5))
    usage.finished(Finished("/v1/chat/completions", 200, "m", "w", 1, 1.0, 3.0, 100, None, 0))
    usage.finished(Finished("/v1/chat/completions", 200, "m", "w", 1, 1.0, 1.0, 100, None, 1))

    (metric,) = usage.own_metrics()
    assert [value for suffix, _, value in metric.samples if suffix in {"_sum", "_count"}] == [0.5, 1]


def test_workers_that_failed_are_told_apart_up_to_a_bound():
    usage = Usage()
    for number in range(10_005):
        usage.upstream_failed(f"w{number}", "lost")

    assert len(usage.own.upstream_failures) == 10_001
    assert usage.own.upstream_failures["_other", "lost"] == 5


def test_a_caller_that_leaves_is_no_error_of_the_gateway():
    usage = Usage()
    usage.finished(Finished("/v1/chat/completions", CLIENT_GONE, "m"))

    stats = usage.stats({})
    assert (stats.requests_total, stats.errors_total) == (1, 0)
