from muster.gateway.usage import CLIENT_GONE, Finished, Usage


def test_requests_are_counted_by_path_and_status_and_timed_by_model():
    usage = Usage()
    usage.finished(Finished("/v1/chat/completions", 200, "m", "a/llama", 1, 0.02, 1.5, 100))
    usage.finished(Finished("/v1/chat/completions", 200, "m", "a/llama", 1, 0.2, 700.0, 50))
    usage.finished(Finished("/v1/chat/completions", 404, "invented"))
    usage.upstream_failed("a/llama", "lost")

    stats = usage.stats({"a/llama": 3})
    assert (stats.requests_total, stats.errors_total, stats.upstream_failures_total) == (3, 1, 1)
    assert (stats.in_flight, stats.bytes_sent_total) == (3, 150)

    metrics = {metric.name: metric for metric in usage.metrics({"a/llama": 3})}
    requests = {tuple(s.labels.values()): s.value for s in metrics["muster_gateway_requests_total"].samples}
    assert requests == {("/v1/chat/completions", "200"): 2, ("/v1/chat/completions", "404"): 1}
    assert [s.labels for s in metrics["muster_gateway_in_flight"].samples] == [{"worker": "a/llama"}]

    duration = metrics["muster_gateway_duration_seconds"]
    assert {s.labels["model"] for s in duration.samples} == {"m"}, "a model that nobody has gets no series"
    buckets = {s.labels["le"]: s.value for s in duration.samples if s.suffix == "_bucket"}
    assert (buckets["1.0"], buckets["2.5"], buckets["600.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert [s.value for s in duration.samples if s.suffix in {"_sum", "_count"}] == [701.5, 2]
    assert list(buckets.values()) == sorted(buckets.values())


def test_a_caller_that_leaves_is_no_error_of_the_gateway():
    usage = Usage()
    usage.finished(Finished("/v1/chat/completions", CLIENT_GONE, "m"))

    stats = usage.stats({})
    assert (stats.requests_total, stats.errors_total) == (1, 0)
