import pytest

from muster.access.roles import GRANTS, Right, Role, roles_with
from muster.access.routes import ROUTES, right_for

# Who may do what, in full. What is not here, nobody but an admin may.
MAY = {
    Right.LOOK_UP: {Role.CLIENT, Role.VIEWER, Role.OPERATOR, Role.ADMIN},
    Right.CHAT: {Role.CLIENT, Role.OPERATOR, Role.ADMIN},
    Right.SUBMIT: {Role.CLIENT, Role.OPERATOR, Role.ADMIN},
    Right.FOLLOW_JOB: {Role.CLIENT, Role.VIEWER, Role.OPERATOR, Role.ADMIN},
    Right.CANCEL_JOB: {Role.CLIENT, Role.OPERATOR, Role.ADMIN},
    Right.VIEW: {Role.VIEWER, Role.OPERATOR, Role.ADMIN},
    Right.READ_LOGS: {Role.OPERATOR, Role.ADMIN},
    Right.ACT: {Role.OPERATOR, Role.ADMIN},
    Right.SPEAK: {Role.AGENT, Role.ADMIN},
    Right.MANAGE: {Role.ADMIN},
    Right.JOIN: set(),
    Right.OPEN: {Role.ADMIN},
}


@pytest.mark.parametrize("right", Right)
def test_each_right_has_its_roles(right: Right) -> None:
    assert set(roles_with(right)) == MAY[right]


def test_admin_operator_viewer_each_may_all_that_the_next_may() -> None:
    assert GRANTS[Role.ADMIN] > GRANTS[Role.OPERATOR] > GRANTS[Role.VIEWER]


def test_the_roles_that_may_are_named_from_the_least_on() -> None:
    assert roles_with(Right.VIEW) == [Role.VIEWER, Role.OPERATOR, Role.ADMIN]


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/", Right.OPEN),
        ("GET", "/health", Right.OPEN),
        ("GET", "/api/v1/logs", Right.READ_LOGS),
        ("GET", "/api/v1/nodes/n1/logs/llama", Right.READ_LOGS),
        ("GET", "/api/jobs/j1/timeline", Right.READ_LOGS),
        ("DELETE", "/api/v1/nodes/n1/logs/llama", Right.ACT),
        ("HEAD", "/health", Right.OPEN),
        ("GET", "/web/app.js", Right.OPEN),
        ("GET", "/web/vendor/a/b.js", Right.OPEN),
        ("GET", "/api/jobs/", Right.VIEW),
        ("GET", "//api//jobs", Right.VIEW),
        ("POST", "/api/jobs", Right.SUBMIT),
        ("GET", "/api/jobs/j1", Right.FOLLOW_JOB),
        ("POST", "/api/jobs/j1/retry", Right.ACT),
        ("POST", "/api/agent/heartbeat", Right.SPEAK),
        ("POST", "/api/agent/join", Right.JOIN),
        ("POST", "/v2/nodes/register", Right.SPEAK),
        ("WS", "/ws/monitor/1", Right.VIEW),
        ("GET", "/v1/models/llama", Right.LOOK_UP),
        ("GET", "/api/v1/tokens", Right.MANAGE),
    ],
)
def test_a_request_needs_the_right_of_its_route(method: str, path: str, right: Right) -> None:
    assert right_for(method, path) is right


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nowhere"),
        ("GET", "/api/nowhere/at/all"),
        ("DELETE", "/health"),
        ("POST", "/web/app.js"),
        ("OPTIONS", "/api/jobs"),
        ("GET", "/ws/monitor/1"),
        ("GET", "/web"),
    ],
)
def test_what_is_not_listed_is_for_admins_only(method: str, path: str) -> None:
    assert right_for(method, path) is Right.MANAGE


def test_no_route_is_listed_twice() -> None:
    listed = [route for routes in ROUTES.values() for route in routes]

    assert len(listed) == len(set(listed))
