"""Single pools: drained, taken back, looked at. Every service of every node is one, by `pool` or `node/pool`."""

import http

from litestar import get, post
from litestar.params import FromPath
from msgspec import Struct

from muster.api.nodes_v2 import pool_view
from muster.api.plane import Plane, ThePlane
from muster.control.fleet.pools import Pool


class PoolAnswer(Struct, frozen=True, kw_only=True):
    pool_id: str
    node_id: str
    draining: bool


class PoolMetrics(Struct, frozen=True, kw_only=True):
    slots_free: int | None
    slots_total: int | None
    vram_free_bytes: int | None
    vram_total_bytes: int | None
    models_available: list[str]


class PoolHealth(Struct, frozen=True, kw_only=True):
    """`live`: its node is heard. `ready`: it says so itself, and it is live; a draining one may still be ready."""

    pool_id: str
    node_id: str
    live: bool
    ready: bool
    draining: bool
    metrics: PoolMetrics
    last_error: str | None


@post(
    ["/v2/pools/{pool_id:str}/drain", "/v2/pools/{node_id:str}/{pool_id:str}/drain"],
    tags=["older APIs"],
    summary="Keep a pool from new work; what runs goes on",
    status_code=http.HTTPStatus.ACCEPTED,
)
async def drain_pool(plane: ThePlane, pool_id: FromPath[str], node_id: FromPath[str | None] = None) -> PoolAnswer:
    return _set_draining(plane, plane.pools.find(pool_id, node_id), draining=True)


@post(
    ["/v2/pools/{pool_id:str}/resume", "/v2/pools/{node_id:str}/{pool_id:str}/resume"],
    tags=["older APIs"],
    summary="Take a drained pool back; one that drains by its own word goes on draining",
    status_code=http.HTTPStatus.ACCEPTED,
)
async def resume_pool(plane: ThePlane, pool_id: FromPath[str], node_id: FromPath[str | None] = None) -> PoolAnswer:
    return _set_draining(plane, plane.pools.find(pool_id, node_id), draining=False)


@get(
    ["/v2/pools/{pool_id:str}/health", "/v2/pools/{node_id:str}/{pool_id:str}/health"],
    tags=["older APIs"],
    summary="How a pool is",
)
async def pool_health(plane: ThePlane, pool_id: FromPath[str], node_id: FromPath[str | None] = None) -> PoolHealth:
    pool = plane.pools.find(pool_id, node_id)
    view, live = pool_view(pool), plane.pools.is_live(pool)
    return PoolHealth(
        pool_id=view.pool_id,
        node_id=pool.node.node_id,
        live=live,
        ready=view.ready and live,
        draining=view.draining,
        metrics=PoolMetrics(
            slots_free=view.slots_free,
            slots_total=view.slots_total,
            vram_free_bytes=view.vram_free_bytes,
            vram_total_bytes=view.vram_total_bytes,
            models_available=view.models_available,
        ),
        last_error=pool.service.error,
    )


def _set_draining(plane: Plane, pool: Pool, *, draining: bool) -> PoolAnswer:
    after = plane.pools.set_draining(pool, draining=draining)
    return PoolAnswer(pool_id=after.service.name, node_id=after.node.node_id, draining=after.draining)


HANDLERS = [drain_pool, resume_pool, pool_health]
