"""Who may do what over the real port: every route, every role."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute

from muster.access.roles import Right, Role, roles_with
from muster.access.routes import ROUTES
from muster.access.tokens import Wanted, digest_of
from muster.api.asgi import framework
from muster.gateway import gateway
from muster.ids import JobId
from muster.wire import encode
from tests.integration.api.conftest import Served, serving
from tests.planes import PlaneUnderTest

ADMIN = "the-token-of-the-settings"
# The framework's own, of no use to anybody.
CLOSED = {"GET /openapi.json/{}", "GET /openapi.json/openapi.json"}
# Calls of an agent go by one route of the framework.
CALLS = {"POST /api/agent/join"}


@pytest.fixture
async def guarded() -> AsyncIterator[Served]:
    async with serving(token=ADMIN) as served:
        yield served


async def token_of(served: Served, role: Role, **wanted: Any) -> str:
    _, text = await served.plane.access.create(Wanted(name=f"a-{role}", role=role, **wanted))
    return text


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


async def asked(
    served: Served, method: str, path: str, token: str | None, **options: Any
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and body; of a stream nothing is read."""
    async with served.client.request(method, path, headers=bearer(token), **options) as answer:
        body: Any = None
        if answer.content_type == "application/json":
            body = json.loads(await answer.read() or b"null")
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, body


@pytest.mark.parametrize("path", ["/health", "/api/v1/nodes", "/v1/models", "/api/tags"])
async def test_lesson_no_page_of_another_site_may_read_an_answer(guarded: Served, path: str) -> None:
    headers = bearer(ADMIN) | {"Origin": "https://elsewhere.example"}
    preflight = headers | {"Access-Control-Request-Method": "GET"}
    for method, sent in (("GET", headers), ("OPTIONS", preflight)):
        async with guarded.client.request(method, path, headers=sent) as answer:
            assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


# --- the table is whole -----------------------------------------------------------------------------------------------


_WORDS = {"path}": "*"}  # takes all segments that follow


def served_routes() -> set[str]:
    """Return what the framework and the gateway answer, in the words of the table."""
    plane = PlaneUnderTest().plane
    found = set(_of_framework(framework(lambda: plane, plane.web_dir, plane.request_bytes_max)))
    for path in gateway.PATHS:
        found |= {f"{method.decode()} {_worded(path.name)}" for method in path.methods if method != b"HEAD"}
    return found


def _of_framework(app: Litestar) -> Iterator[str]:
    for route in app.routes:
        path = _worded(route.path)
        if isinstance(route, HTTPRoute):
            for method in route.route_handler_map:
                if method not in {"OPTIONS", "HEAD"}:
                    yield f"{method} {path}"
        elif isinstance(route, WebSocketRoute):
            yield f"WS {path}"


def _worded(path: str) -> str:
    if path.startswith("/web/"):
        return "/web/*"
    return "/".join(
        _WORDS.get(part.partition(":")[2], "{}") if part.startswith("{") else part for part in path.split("/")
    )


def test_every_route_has_a_right_of_its_own() -> None:
    listed = {route for routes in ROUTES.values() for route in routes}

    assert served_routes() - listed == CLOSED, "a line in access/routes.py says who may; until then only admins may"


def test_every_listed_route_is_served() -> None:
    listed = {route for routes in ROUTES.values() for route in routes}

    assert listed - served_routes() == CALLS


# --- who may ----------------------------------------------------------------------------------------------------------

CASES = [(right, route) for right, routes in ROUTES.items() for route in routes if not route.startswith("WS ")]


@pytest.mark.parametrize("role", Role)
async def test_each_role_may_what_the_table_says_and_no_more(guarded: Served, role: Role) -> None:
    token = await token_of(guarded, role)
    wrong = []
    for right, route in CASES:
        method, _, path = route.partition(" ")
        status, _, body = await asked(guarded, method, path.replace("{}", "x").replace("*", "app.js"), token)
        if right is Right.OPEN or role in roles_with(right):
            fits = status not in {401, 403, 429, 500}
        else:
            needed = [allowed.value for allowed in roles_with(right)] or ["join token"]
            fits = status == 403 and all(name in json.dumps(body) for name in needed)
        if not fits:
            wrong.append((route, status, body))
    assert wrong == []


@pytest.mark.parametrize("token", [None, "", "wrong", "mst_abc_def", "mst_x"])
async def test_without_a_token_that_counts_only_the_open_routes_answer(guarded: Served, token: str | None) -> None:
    wrong = []
    for right, route in CASES:
        method, _, path = route.partition(" ")
        status, headers, _ = await asked(guarded, method, path.replace("{}", "x").replace("*", "app.js"), token)
        is_refused = status == 401 and headers.get("www-authenticate") == "Bearer"
        if is_refused is (right is Right.OPEN):
            wrong.append((route, status))
    assert wrong == []


@pytest.mark.parametrize("path", ["/nowhere", "/api/nowhere", "/v1/nowhere", "/web/../api/jobs", "/api//jobs"])
async def test_what_is_not_there_is_not_told_to_strangers(guarded: Served, path: str) -> None:
    assert (await asked(guarded, "GET", path, None))[0] == 401


async def test_a_token_in_the_query_is_for_streams_only(guarded: Served) -> None:
    viewer = await token_of(guarded, Role.VIEWER)
    async with guarded.client.get(f"/api/events/monitor?token={viewer}") as answer:
        assert answer.status == 200
    async with guarded.client.get(f"/api/v1/fleet?token={viewer}") as answer:
        assert answer.status == 401
    async with guarded.client.post(f"/api/jobs/x/cancel?token={ADMIN}") as answer:
        assert answer.status == 401


async def test_without_any_token_all_is_open(served: Served) -> None:
    assert (await asked(served, "GET", "/api/v1/tokens", None))[0] == 200
    wanted = {"node_id": "n1", "secret_sha256": digest_of("x")}
    status, _, problem = await asked(served, "POST", "/api/agent/join", "mst_join1_x", json=wanted)
    assert (status, "asks for no token" in problem["message"]) == (403, True)


# --- tokens over the API ----------------------------------------------------------------------------------------------


async def test_a_token_is_made_used_listed_and_revoked(guarded: Served) -> None:
    status, _, made = await asked(
        guarded, "POST", "/api/v1/tokens", ADMIN, json={"name": "eye", "role": "viewer", "expires_in_s": 60}
    )
    assert status == 201
    assert made["about"]["expires_at"] == made["about"]["created_at"] + 60_000
    assert (await asked(guarded, "GET", "/api/v1/fleet", made["token"]))[0] == 200

    _, _, listed = await asked(guarded, "GET", "/api/v1/tokens", ADMIN)
    assert [(token["id"], token["name"], token["role"]) for token in listed] == [(made["about"]["id"], "eye", "viewer")]
    assert listed[0]["last_used_at"] is not None
    assert made["token"].rsplit("_", 1)[1] not in json.dumps(listed)

    assert (await asked(guarded, "DELETE", f"/api/v1/tokens/{made['about']['id']}", ADMIN))[0] == 204
    assert (await asked(guarded, "GET", "/api/v1/fleet", made["token"]))[0] == 401
    assert (await asked(guarded, "DELETE", f"/api/v1/tokens/{made['about']['id']}", ADMIN))[0] == 404


async def test_an_expired_token_counts_no_more(guarded: Served) -> None:
    token = await token_of(guarded, Role.VIEWER, expires_in_s=10)
    guarded.plane.clock.advance(10)

    status, _, body = await asked(guarded, "GET", "/api/v1/fleet", token)

    assert status == 401
    assert "expired" in body["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "viewer"}, "name"),
        ({"name": "x"}, "role"),
        ({"name": "x", "role": "king"}, "role"),
        ({"name": "x y", "role": "viewer"}, "name"),
        ({"name": "x", "role": "viewer", "expires_in_s": -1}, "expires_in_s"),
        ({"name": "x", "role": "viewer", "joins": True}, "joins"),
        ({"name": "x", "role": "viewer", "secret": "mine"}, "secret"),
    ],
)
async def test_a_token_that_does_not_fit_is_refused_by_its_field(
    guarded: Served, body: dict[str, Any], field: str
) -> None:
    status, _, problem = await asked(guarded, "POST", "/api/v1/tokens", ADMIN, json=body)

    assert (status, problem["field"]) == (400, field)
    assert await guarded.plane.store.tokens.load() == []


async def test_the_first_token_must_be_an_admins(served: Served) -> None:
    wanted = {"name": "eye", "role": "viewer"}
    status, _, problem = await asked(served, "POST", "/api/v1/tokens", None, json=wanted)
    assert (status, problem["code"]) == (409, "conflict")
    assert "admin" in problem["message"]

    status, _, made = await asked(served, "POST", "/api/v1/tokens", None, json=wanted | {"role": "admin"})
    assert status == 201
    assert (await asked(served, "GET", "/api/v1/fleet", None))[0] == 401
    assert (await asked(served, "POST", "/api/v1/tokens", made["token"], json=wanted))[0] == 201


# --- clients and their jobs -------------------------------------------------------------------------------------------

JOB = {"type": "simulation"}


async def test_a_client_submits_sees_and_cancels_its_own_jobs_only(guarded: Served) -> None:
    mine, other = await token_of(guarded, Role.CLIENT), await token_of(guarded, Role.CLIENT)
    _, _, submitted = await asked(guarded, "POST", "/api/jobs", mine, json=JOB)
    job = f"/api/jobs/{submitted['job_id']}"

    for path in (job, f"{job}/explain"):
        assert (await asked(guarded, "GET", path, mine))[0] == 200
        status, _, problem = await asked(guarded, "GET", path, other)
        assert (status, problem["code"]) == (404, "job_not_found")
    assert (await asked(guarded, "GET", f"{job}/progress", other))[0] == 404
    assert (await asked(guarded, "POST", f"{job}/cancel", other))[0] == 404
    assert (await asked(guarded, "GET", job, await token_of(guarded, Role.VIEWER)))[0] == 200
    assert (await asked(guarded, "POST", f"{job}/cancel", mine))[0] == 200


async def test_a_client_learns_nothing_of_others_jobs_by_taking_their_ids(guarded: Served) -> None:
    mine, other = await token_of(guarded, Role.CLIENT), await token_of(guarded, Role.CLIENT)
    job = JOB | {"id": "j-1", "payload": {"secret": "plans"}}
    assert (await asked(guarded, "POST", "/api/jobs", mine, json=job))[0] == 201
    assert (await asked(guarded, "POST", "/api/jobs", mine, json=job))[0] == 200

    status, _, problem = await asked(guarded, "POST", "/api/jobs", other, json=job)

    assert status == 409
    assert "plans" not in json.dumps(problem)


# --- nodes that speak for themselves ----------------------------------------------------------------------------------


async def said(served: Served, call: str, token: str, message: object) -> int:
    return (await asked(served, "POST", f"/api/agent/{call}", token, data=encode(message)))[0]


async def test_a_client_learns_nothing_of_others_tasks_by_taking_their_ids_and_touches_none(guarded: Served) -> None:
    one, other = await token_of(guarded, Role.CLIENT), await token_of(guarded, Role.CLIENT)
    task = {"task_id": "t1", "engine": "simulation", "prompt": "a secret plan", "priority": 90}
    assert (await asked(guarded, "POST", "/v2/tasks", one, json=task))[0] == 202
    before = await guarded.plane.jobs.get(JobId("t1"))

    taken = await asked(guarded, "POST", "/v2/tasks", other, json=task | {"prompt": "mine", "priority": 1})
    streamed = await asked(guarded, "GET", "/v2/tasks/t1/events", other)
    cancelled = await asked(guarded, "POST", "/v2/tasks/t1/cancel", other)

    assert [answer[0] for answer in (taken, streamed, cancelled)] == [409, 404, 404]
    assert taken[2]["field"] == "task_id"
    assert not {"queue_position", "predicted_start_ms", "streams"} & taken[2].keys()
    assert "secret" not in json.dumps(taken[2])
    assert await guarded.plane.jobs.get(JobId("t1")) == before
    assert (await asked(guarded, "POST", "/v2/tasks", one, json=task))[2]["task_id"] == "t1"


async def test_a_nodes_token_speaks_for_its_node_only(guarded: Served) -> None:
    token = await token_of(guarded, Role.AGENT, node_id="n1")
    other: dict[str, Any] = {"facts": {"node_id": "n2"}, "boot_id": "b", "heartbeat_interval_s": 10}
    own = other | {"facts": {"node_id": "n1"}}
    session = {"session_id": "s", "capability": {"services": ["simulation"]}}
    worker = {"worker_id": "n2-worker-0", "index": 0, "status": "idle"}
    shown: list[tuple[str, dict[str, Any], int]] = [
        ("register", own, 200),
        ("register", other, 403),
        ("heartbeat", own | {"seq": 1}, 200),
        ("heartbeat", other | {"seq": 1}, 403),
        ("heartbeat", own | {"seq": 2, "workers": [worker]}, 403),
        ("heartbeat", own | {"seq": 3, "packed": {"workers": {"rows": 1, "same": worker}}}, 403),
        ("session", session | {"node_id": "n1", "worker_id": "n1-worker-0"}, 200),
        ("session", session | {"node_id": "n1", "worker_id": "n2-worker-0"}, 403),
        ("claim", {"session_id": "s", "worker_id": "n2-worker-0", "want": 1}, 403),
        ("deregister", {"node_id": "n2", "boot_id": "b"}, 403),
        ("join", {"node_id": "n1", "secret_sha256": digest_of("x")}, 403),
    ]
    for call, message, status in shown:
        assert await said(guarded, call, token, message) == status, (call, message)
    assert (await asked(guarded, "DELETE", "/v2/nodes/n2", token))[0] == 403
    assert (await asked(guarded, "POST", "/v2/nodes/n2/heartbeat", token, json={}))[0] == 403
    assert (await asked(guarded, "POST", "/v2/nodes/register", token, json={"node_id": "n2"}))[0] == 403
    assert (await asked(guarded, "POST", "/v1/hive-heartbeat", token, json={"hive": {"id": "n2"}}))[0] == 403
    assert [node.node_id for node in guarded.plane.fleet.nodes()] == ["n1"]


async def test_a_hives_token_speaks_for_its_hive(guarded: Served) -> None:
    token = await token_of(guarded, Role.AGENT, node_id="hive-1")
    assert (await asked(guarded, "POST", "/v1/hive-heartbeat", token, json={"hive": {"id": "hive-1"}}))[0] == 200
    assert [node.node_id for node in guarded.plane.fleet.nodes()] == ["hive-1"]


async def test_a_machine_joins_and_speaks_with_a_token_that_was_never_sent(guarded: Served) -> None:
    ticket = await token_of(guarded, Role.AGENT, joins=True)
    wanted = {"node_id": "n1", "secret_sha256": digest_of("own-secret")}
    registration = {"facts": {"node_id": "n1"}, "boot_id": "b", "heartbeat_interval_s": 10}

    status, _, joined = await asked(guarded, "POST", "/api/agent/join", ticket, json=wanted)

    assert status == 200
    assert await said(guarded, "register", f"mst_{joined['token_id']}_own-secret", registration) == 200
    assert await said(guarded, "register", ticket, registration) == 403
    assert (await asked(guarded, "POST", "/api/agent/join", ticket, json=wanted | {"node_id": "n2"}))[0] == 403


# --- too often --------------------------------------------------------------------------------------------------------


async def test_who_asks_too_often_is_told_when_to_ask_again(guarded: Served) -> None:
    token = await token_of(guarded, Role.OPERATOR, requests_per_s=0.5)
    assert (await asked(guarded, "GET", "/api/v1/fleet", token))[0] == 200

    status, headers, problem = await asked(guarded, "GET", "/api/v1/fleet", token)

    assert (status, problem["code"], problem["retriable"]) == (429, "rate_limited", True)
    assert (headers["retry-after"], headers["x-backoff-ms"]) == ("2", "2000")
    assert problem["retry_after_ms"] == 2000
    guarded.plane.clock.advance(2)
    assert (await asked(guarded, "GET", "/api/v1/fleet", token))[0] == 200


@pytest.mark.parametrize(("path", "worded"), [("/v1/chat/completions", dict), ("/api/chat", str)])
async def test_a_model_asked_for_too_often_refuses_in_the_callers_dialect(
    guarded: Served, path: str, worded: type
) -> None:
    token = await token_of(guarded, Role.CLIENT, requests_per_s=0.5)
    await asked(guarded, "POST", path, token, json={})

    status, headers, problem = await asked(guarded, "POST", path, token, json={})

    assert status == 429
    assert isinstance(problem["error"], worded)
    assert (headers["retry-after"], headers["x-backoff-ms"]) == ("2", "2000")


async def test_the_setting_is_the_limit_of_whoever_has_none_of_his_own() -> None:
    async with serving(token=ADMIN, requests_per_s_max=0.5) as served:
        assert (await asked(served, "GET", "/api/v1/fleet", ADMIN))[0] == 200
        assert (await asked(served, "GET", "/api/v1/fleet", ADMIN))[0] == 429
        assert (await asked(served, "GET", "/health", None))[0] == 200


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags"])
async def test_models_are_refused_in_the_callers_dialect(guarded: Served, path: str) -> None:
    status, headers, problem = await asked(guarded, "GET", path, await token_of(guarded, Role.AGENT))
    assert status == 403
    assert "needs client" in json.dumps(problem)
    status, headers, problem = await asked(guarded, "GET", path, None)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert "error" in problem
