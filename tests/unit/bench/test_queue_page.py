from bench.queue_page import peers_table, ratios_table
from bench.queue_peers import PEERS, Figures, Outcome


def figures(drain: float, *, off: float | None = None) -> Figures:
    found = Figures(latencies_ms=[1.0] * 99 + [9.0])
    for one, bulk in ((100.0, 1000.0), (300.0, 3000.0), (200.0, 2000.0)):
        found.add(one=one, bulk=bulk)
    found.add(**{"on drain": drain, "on worker_us": 7.0, "on server_us": 18.0, "on worker_mb": 18.4})
    if off is not None:
        found.add(**{"off drain": off})
    return found


def outcome_of(**found: Figures) -> Outcome:
    return Outcome(server="Redis 7.0.15", repetitions=3, share=1.0, load="1.0", crowded=False, figures=found, absent={})


def test_a_row_has_medians_and_the_ratio_to_the_largest_batch_of_muster() -> None:
    outcome = outcome_of(
        **{"Muster, 64 at a time": figures(50_000), "Muster, 1 at a time": figures(5_000)},
        BullMQ=figures(25_000, off=26_000),
    )
    _, _, best, small, node = peers_table(outcome)
    assert best == "| Muster, 64 at a time | 200 / 2,000 | - / 50,000 | 1.0 | 7 / 18 | 18 | 1.00 / 9.00 |"
    assert "| - / 5,000 | 10.0 |" in small
    assert node.startswith("| BullMQ (Node) | 200 / 2,000 | 26,000 / 25,000 | 2.0 |")


def test_ratios_are_to_the_best_of_the_others_in_the_same_run() -> None:
    slow = Figures()
    slow.add(**{"one": 50.0, "bulk": 9000.0, "on drain": 4_000.0})
    fast = Figures()
    fast.add(**{"one": 400.0, "bulk": 500.0, "on drain": 10_000.0})
    outcome = outcome_of(
        **{"Muster, 64 at a time": figures(50_000), "Muster, 1 at a time": figures(5_000)},
        BullMQ=figures(25_000),
        SAQ=slow,
        Huey=fast,
    )
    assert ratios_table(outcome)[2:] == [
        "| enqueue/s one by one | 200 | Huey, the best of 3 | 400 | 0.50 |",
        "| enqueue/s in bulk | 2,000 | BullMQ | 2,000 | 1.00 |",
        "| drain/s with results | 50,000 | BullMQ | 25,000 | 2.00 |",
        "| drain/s with results | 50,000 | Huey, the best of 2 | 10,000 | 5.00 |",
    ]


def test_what_was_not_measured_has_no_ratio() -> None:
    assert len(ratios_table(outcome_of(**{"Muster, 64 at a time": figures(50_000)}))) == 2


def test_every_queue_has_a_name_and_an_adapter_of_its_own() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    others = [peer for peer in PEERS if peer.packages]
    assert len({peer.adapter for peer in others}) == len(others)
    for peer in others:  # what is measured can be measured again
        assert all("==" in package or "@" in package for package in peer.packages)
