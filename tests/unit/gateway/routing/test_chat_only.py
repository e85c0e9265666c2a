from muster.gateway.routing import chat_only
from muster.gateway.routing.chat_only import ChatOnly


def test_who_has_said_that_it_only_chats_is_believed_for_a_while() -> None:
    known = ChatOnly()
    assert not known.has("a/llama", 0.0)
    known.note("a/llama", 5.0)
    assert known.has("a/llama", 600.0)
    assert not known.has("b/llama", 600.0)
    assert not known.has("a/llama", 605.0)


def test_what_is_known_is_bounded() -> None:
    known = ChatOnly()
    for number in range(chat_only._WORKERS_MAX + 1):
        known.note(str(number), 0.0)
    assert [known.has(str(number), 1.0) for number in (0, chat_only._WORKERS_MAX)] == [False, True]
