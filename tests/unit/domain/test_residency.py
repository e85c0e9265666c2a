"""What a node says of the models in its memory."""

from muster.domain.residency import ModelPolicy, ModelRule

POLICY = ModelPolicy(
    idle_unload_s=60.0,
    rules=(ModelRule(name="kept:latest", pinned=True), ModelRule(name="slow", idle_unload_s=600.0, memory_mb=9)),
)


def test_a_rule_is_found_whatever_way_its_model_is_named():
    assert POLICY.rule("kept").pinned
    assert POLICY.rule("slow:latest").memory_mb == 9
    assert POLICY.rule("other") == ModelRule(name="other")


def test_the_nodes_idle_time_holds_where_a_model_has_none_of_its_own():
    assert POLICY.idle_s("other") == 60.0
    assert POLICY.idle_s("slow") == 600.0


def test_what_is_pinned_never_goes():
    assert POLICY.idle_s("kept") is None
    assert POLICY.pinned() == ("kept:latest",)


def test_without_a_word_what_is_loaded_stays():
    assert ModelPolicy().idle_s("any") is None
