from muster.wire import decode, encode
from muster.wire.gateways import GatewayNews, Taken, TrustNews


def test_news_of_a_gateway_say_only_what_there_is() -> None:
    idle = GatewayNews("plane-1")
    assert encode(idle) == encode({"plane_id": "plane-1"})
    assert decode(encode(idle), GatewayNews) == idle


def test_what_tokens_took_and_miss_comes_through_whole() -> None:
    news = GatewayNews("plane-1", taken={"t": Taken(calls=1, tokens=20)}, missing={"t": Taken(requests=2.5)}, asks=True)
    assert b'"taken":{"t":[1,0,20]}' in encode(news)
    assert decode(encode(news), GatewayNews) == news


def test_news_of_trust_come_through_whole() -> None:
    news = GatewayNews(
        "plane-1",
        in_flight={"node/engine": 2},
        waiting={"llama": 50},
        waited_ms={"llama": 120},
        jobs={"node/engine": 1},
        whole=False,
        trust=(TrustNews(worker="node/engine", asked_for="llama", reason="silent", for_s=4.0),),
    )
    assert decode(encode(news), GatewayNews) == news
