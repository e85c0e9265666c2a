from muster.cli import detached
from muster.cli.machine_part import clear_left_behind
from muster.cli.options import DataDir, settings_from
from muster.cli.running import find_running
from muster.cli.tables import console


def down(data_dir: DataDir = None) -> None:
    """Stop the Muster that runs on this data directory, with all its parts; what is stored stays."""
    settings = settings_from(data_dir=data_dir)
    running = find_running(settings.data_path)
    if running is not None:
        with console(stderr=True).status("stopping ..."):
            detached.stop(running, settings)
    cleared = clear_left_behind(settings.data_path, settings.stop_timeout_s)
    if cleared:
        print(f"Ended {cleared}.")
    if running is not None:
        print(f"Stopped (pid {running.pid}). Its data stay in {settings.data_path}.")
    elif not cleared:
        print(f"No Muster runs on {settings.data_path}.")
