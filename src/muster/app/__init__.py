"""The composition root: the only place that knows which adapter serves which port."""

from muster.app.run import run_agent, run_server, run_up

__all__ = ["run_agent", "run_server", "run_up"]
