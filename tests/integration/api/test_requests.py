"""Why a request to a model went where it did, asked over the API; and the lines as the gateway's page shows them."""

from tests.integration.api.conftest import Served

CHAT = {"model": "nobodys", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_request_is_explained_by_the_id_of_its_answer(served: Served) -> None:
    async with served.client.post("/v1/chat/completions", json=CHAT) as refused:
        request_id = refused.headers["X-Correlation-Id"]
    async with served.client.get(f"/api/v1/requests/{request_id}") as answer:
        told = await answer.json()
    async with served.client.get("/api/v1/gateway") as answer:
        view = await answer.json()

    assert (told["correlation_id"], told["model"], told["attempts"]) == (request_id, "nobodys", [])
    assert told["status"] == refused.status
    assert view["lines"] == []
    assert [request["correlation_id"] for request in view["requests"]] == [request_id]


async def test_a_request_that_is_not_remembered_is_not_found(served: Served) -> None:
    async with served.client.get("/api/v1/requests/unknown") as answer:
        problem = await answer.json()

    assert (answer.status, problem["code"], problem["field"]) == (404, "not_found", "request_id")
