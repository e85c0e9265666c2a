"""A real llama.cpp that rests until somebody asks for its model."""

from pathlib import Path

from muster.agent.config import ServiceTemplate
from muster.domain.job import JobStatus
from muster.domain.service import ServiceStatus
from tests.integration.models.whole import Whole
from tests.tiny_model import make_tiny_model
from tests.waiting import eventually


async def test_a_server_of_one_model_starts_for_a_request_and_rests_again(fleet: Whole, tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "tiny.gguf")
    serve = ("{python}", "-m", "muster.connectors.llamacpp.serve", "--host", "{host}", "--port", "{port}")
    template = ServiceTemplate(
        name="llama",
        connector="llamacpp",
        command=(*serve, "--model", str(path), "--alias", "tiny", "--slots", "1", "--ctx-per-slot", "256"),
        on_demand=True,
        serves=("tiny",),
    )
    agent = await fleet.add("a", services=(template,))
    (rests,) = fleet.node("a").services
    assert (rests.status, rests.on_demand, rests.pid) == (ServiceStatus.STOPPED, True, None)
    assert [(model.name, model.resident) for model in rests.models] == [("tiny", False)]

    assert (await fleet.chat("tiny"))[0] == 200
    assert fleet.resident("a") == {"tiny"}

    await agent._residency.unload({"model": "tiny"}, lambda _: None)
    await eventually(lambda: fleet.node("a").services[0].status is ServiceStatus.STOPPED)
    assert fleet.resident("a") == set()
    prompt = {"model": "tiny", "prompt": "the", "max_tokens": 2}
    job_id = await fleet.submit("openai", prompt)

    async def done() -> bool:
        (job,) = await fleet.jobs.get_many([job_id])
        return job.state.status is JobStatus.COMPLETED

    assert await eventually(done), "it starts as often as it is asked for, for jobs as well"
    await agent.stop()
