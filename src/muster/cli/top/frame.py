"""One picture of the screen, line by line: never wider or higher than it is, and never only colour says something."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct
from rich.cells import cell_len
from rich.text import Text

from muster.cli.top import cells, rows
from muster.cli.top.cells import Glyphs, cut
from muster.cli.top.lines import BUSY, NOT_BUSY, Row, is_line
from muster.cli.top.picture import Picture
from muster.cli.top.screen import HELP, Listing, Mode, Screen
from muster.domain.job import ACTIVE, TERMINAL

_STYLES = {
    "healthy": "green", "degraded": "yellow", "stale": "yellow", "late": "yellow", "unhealthy": "red", "dead": "red",
    "draining": "yellow", "in_progress": "cyan", "assigned": "cyan", "completed": "green", "failed": "red",
    "timeout": "red", "unworkable": "yellow", "busy": "cyan", "error": "red",
}  # fmt: skip
_ROWS_MIN = 3  # of the list, before details are shown
_DETAILS_FROM = 18  # lines; on lower screens the list needs them all
_GAP = 1


class Link(Struct, frozen=True):
    """How it stands with the stream of events. `words` say it, `live` decides about the colour alone."""

    live: bool
    words: str


class Size(NamedTuple):
    width: int
    height: int


class Column(NamedTuple):
    name: str
    width: int
    cell: Callable[[Row], str]
    dear: int  # the least dear go first where there is no room
    right: bool = False
    styled: bool = False  # by what it says


class Drawing:
    """Draws frames of one picture for one screen."""

    def __init__(self, picture: Picture, screen: Screen, glyphs: Glyphs, url: str, now_ms: int) -> None:
        self._picture = picture
        self._screen = screen
        self._glyphs = glyphs
        self._url = url
        self._now_ms = now_ms + picture.ahead_ms

    # --- whole frames ------------------------------------------------------------------------------------------------

    def frame(self, link: Link, size: Size) -> list[Text]:
        """Return exactly `size.height` lines of at most `size.width`."""
        screen, width = self._screen, size.width
        head = [self._title(link, width), *self._summary(width)][: max(1, size.height - 4)]
        foot = self._foot(width)
        room = size.height - len(head) - 1
        body = self._help(width, room) if screen.mode is Mode.HELP else self._body(width, room)
        lines = [*head, *body[:room]]
        lines += [Text()] * (size.height - 1 - len(lines))
        return [*lines, foot][: size.height]

    def plain(self, link: Link, width: int) -> list[Text]:
        """Return everything there is for a file or a pipe: no window, nothing selected."""
        found = self._screen.nodes.rows(self._picture)
        running = [job for job in self._screen.jobs.rows(self._picture) if job["status"] not in TERMINAL]
        lines = [self._title(link, width), *self._summary(width), Text()]
        lines += self._table(self._screen.nodes, self._node_columns(width), found, range(len(found)), None)
        if running:
            lines += [Text()]
            lines += self._table(self._screen.jobs, self._job_columns(width), running, range(len(running)), None)
        return [_trimmed(line) for line in lines]

    # --- head and foot -----------------------------------------------------------------------------------------------

    def _title(self, link: Link, width: int) -> Text:
        """Show the state of the connection on any screen; the rest gives way to it."""
        state = cut(link.words, min(cell_len(link.words), width), self._glyphs)
        room = max(0, width - cell_len(state) - 1)
        name = cut(f"muster top  {self._url}", room, self._glyphs)
        gap = " " if room else ""
        return Text.assemble((name, "bold"), gap, (state, "bold green" if link.live else "bold red"))

    def _summary(self, width: int) -> list[Text]:
        picture = self._picture
        if not picture.complete:
            return []
        dot = f" {self._glyphs.dot} "
        health = Counter(machine["health_status"] for machine in picture.machines.values())
        words = (worker["status"] for group in picture.workers.values() for worker in group)
        # Lines tell of workers only whether they are busy: then no more is told of any.
        workers = Counter(word if word == BUSY or not picture.selective else NOT_BUSY for word in words)
        nodes = f"nodes {len(picture.machines)}: {_counted(health)}" if health else "nodes 0"
        gpus = sum(machine["gpu_count"] for machine in picture.machines.values())
        fleet = dot.join([nodes, f"gpus {gpus}", f"workers {workers.total()}: {_counted(workers) or 'none'}"])
        counts = picture.stats["jobs"]
        running = sum(counts.get(status, 0) for status in ACTIVE)
        jobs = f"jobs: {running} running, {counts.get('pending', 0)} waiting, {counts.get('unworkable', 0)} unworkable"
        jobs += f", {counts.get('failed', 0) + counts.get('timeout', 0)} failed"
        rate = picture.requests_per_s
        gateway = picture.stats["gateway"]
        requests = cells.UNKNOWN if rate is None else f"{rate:.1f}"
        asked = f"gateway: {requests} req/s, {gateway['in_flight']} in flight, {gateway['errors_total']} errors"
        return [Text(cut(line, width, self._glyphs)) for line in (fleet, jobs + dot + asked, self._queues(width))]

    def _queues(self, width: int) -> str:
        """Name the largest queues, and say how many there was no room for."""
        queues = self._picture.queues
        if queues is None:
            return f"queues: {cells.UNKNOWN}"
        shown = sorted(queues, key=lambda queue: -(queue["waiting"] + queue["running"]))
        line, left = "queues:", len(shown)
        for queue in shown:
            words = f" {cells.clean(queue['name'])} {queue['running']} running {queue['waiting']} waiting"
            words += " (paused)" if queue["paused"] else ""
            left -= 1
            more = f", {left} more" if left else ""
            if cell_len(line + words + more) + 1 > width and line != "queues:":
                return f"{line} {left + 1} more"
            line += words + ("," if left else "")
        return line if shown else "queues: none"

    def _foot(self, width: int) -> Text:
        screen = self._screen
        match screen.mode:
            case Mode.CONFIRM if screen.deed is not None:
                hint = "  [y: do it, any other key: leave it]"
                question = cut(screen.deed.question, max(1, width - len(hint)), self._glyphs).rstrip() + hint
                return Text(cut(question, width, self._glyphs), "bold reverse")
            case Mode.FILTER:
                return Text(cut(f"filter: {screen.listing.words}_   Enter keeps it, Esc clears", width, self._glyphs))
        if screen.message:
            return Text(cut(screen.message, width, self._glyphs), "bold")
        other, deeds = ("jobs", "d drain  r resume") if screen.listing is screen.nodes else ("nodes", "c cancel")
        keys = f"q quit  ? help  / filter  s sort  Tab {other}  {deeds}  Enter details"
        return Text(cut(keys, width, self._glyphs), "dim")

    def _help(self, width: int, room: int) -> list[Text]:
        names = max(len(keys) for keys, _ in HELP)
        lines = [Text(), *(Text(cut(f"{keys:<{names}}  {what}", width, self._glyphs)) for keys, what in HELP)]
        return [*lines, Text(), Text(cut("Any key goes back.", width, self._glyphs))][:room]

    # --- lists -------------------------------------------------------------------------------------------------------

    def _body(self, width: int, room: int) -> list[Text]:
        screen, picture = self._screen, self._picture
        if not picture.complete:
            return [Text(), Text(cut("Waiting for the first word of the control plane.", width, self._glyphs))]
        listing = screen.listing
        found = listing.rows(picture)
        listing.settle(found)
        is_nodes = listing is screen.nodes
        selected = listing.selected if screen.details else None
        details = (self._node_details if is_nodes else self._job_details)(selected, width) if selected else []
        details = details[: max(0, min(room // 2, room - _ROWS_MIN - 3))] if room >= _DETAILS_FROM - 4 else []
        screen.page = max(1, room - 2 - (len(details) + 1 if details else 0))
        if found:
            window = listing.window(len(found), screen.page)
            columns = self._node_columns(width) if is_nodes else self._job_columns(width)
            lines = self._table(listing, columns, found, window, listing.selected)
            if is_nodes:
                screen.shown = frozenset(found[index]["machine_id"] for index in window)
        else:
            window = range(0)
            lines = [Text(), Text(cut(self._nothing(), width, self._glyphs))]
        body = [self._caption(listing, found, window, width), *lines]
        if details:
            body += [Text()] * (room - len(details) - 1 - len(body))
            body += [Text(self._glyphs.line * width, "dim"), *details]
        return body

    def _nothing(self) -> str:
        screen = self._screen
        if screen.listing.words:
            return f"Nothing fits {screen.listing.words!r}. Esc takes the filter away."
        if screen.listing is screen.nodes:
            return "No nodes. A machine joins with: muster agent --control-plane URL"
        return "No jobs."

    def _caption(self, listing: Listing, found: Sequence[Row], window: range, width: int) -> Text:
        what = "nodes" if listing is self._screen.nodes else "jobs"
        place = f"{window.start + 1}-{window.stop} of {len(found)}" if window else "0"
        words = f"{what} {place}, by {listing.sort.name}" + (", turned round" if listing.turned else "")
        words += f", filter: {listing.words}" if listing.words else ""
        words += "" if what == "nodes" or len(found) < 1 else " (those that run or changed last)"
        return Text(cut(words, width, self._glyphs), "bold")

    def _table(
        self, listing: Listing, columns: Sequence[Column], found: Sequence[Row], window: range, selected: str | None
    ) -> list[Text]:
        titles = (_title_of(column, listing) for column in columns)
        head = " " * _GAP + " ".join(
            _aligned(title, column, self._glyphs) for title, column in zip(titles, columns, strict=True)
        )
        lines = [Text(head, "reverse")]
        for index in window:
            row = found[index]
            chosen = selected is not None and selected in (row.get("machine_id"), row.get("job_id"))
            line = Text(">" if chosen else " ", style="bold" if chosen else "")
            for column in columns:
                words = column.cell(row)
                style = _STYLES.get(words, "") if column.styled else ""
                line.append(_aligned(words, column, self._glyphs), style)
                line.append(" ")
            line.right_crop(1)
            lines.append(line)
        return lines

    def _node_columns(self, width: int) -> list[Column]:
        glyphs, picture = self._glyphs, self._picture
        loads: dict[str, rows.Load] = {}

        def load(machine: Row) -> rows.Load:
            machine_id = machine["machine_id"]
            if machine_id not in loads:
                loads[machine_id] = rows.load_of(machine)
            return loads[machine_id]

        def bar(share: float | None, machine: Row) -> str:
            return cells.bar(share, 11, glyphs) if machine["gpus"] else ""

        return _fitting(
            [
                Column("node", 20, lambda m: m["machine_id"], 10),
                Column("health", 11, lambda m: str(m["health_status"]), 9, styled=True),
                Column("phase", 11, _phase, 5, styled=True),
                Column("gpus", 4, lambda m: str(m["gpu_count"] or ""), 2, right=True),
                Column("util", 11, lambda m: bar(load(m).utilization, m), 8, right=True),
                Column("vram", 11, lambda m: bar(load(m).memory, m), 7, right=True),
                Column("temp", 5, lambda m: cells.degrees(load(m).temperature_c, glyphs) if m["gpus"] else "", 4, True),
                Column("power", 6, lambda m: cells.watts(load(m).power_w) if m["gpus"] else "", 3, right=True),
                Column("busy", 7, self._busy, 6, right=True),
                Column("heard", 5, self._heard, 1, right=True),
                Column("now", 18, lambda m: self._doing(picture.workers.get(m["machine_id"], ())), 0),
            ],
            width,
        )

    def _job_columns(self, width: int) -> list[Column]:
        return _fitting(
            [
                Column("job", 24, lambda job: job["job_id"], 10),
                Column("status", 11, lambda job: str(job["status"]), 9, styled=True),
                Column("queue", 14, lambda job: job["service_required"], 8),
                Column("progress", 20, self._progress, 6),
                Column("worker", 22, lambda job: job["worker_id"] or "", 7),
                Column("priority", 8, lambda job: str(job["priority"]), 2, right=True),
                Column("try", 3, lambda job: str(job["attempt"]), 1, right=True),
                Column("age", 5, lambda job: cells.span((self._now_ms - job["created_at"]) / 1000), 5, right=True),
                Column("why", 40, _why, 0),
            ],
            width,
        )

    def _heard(self, machine: Row) -> str:
        seen = machine["last_seen"]
        return cells.UNKNOWN if seen is None else cells.span((self._now_ms - seen) / 1000)

    def _busy(self, machine: Row) -> str:
        workers = self._picture.workers.get(machine["machine_id"], ())
        return f"{sum(worker['status'] == 'busy' for worker in workers)}/{len(workers)}" if workers else ""

    def _doing(self, workers: Iterable[Row]) -> str:
        """Name what is worked at: `comfyui 3, simulation 1`."""
        at = Counter(
            self._picture.jobs[job_id]["service_required"] if job_id in self._picture.jobs else "other"
            for worker in workers
            for job_id in worker["current_jobs"]
        )
        return ", ".join(f"{service} {count}" for service, count in at.most_common())

    def _progress(self, job: Row) -> str:
        progress = job.get("progress") or {}
        if job["status"] not in ACTIVE:
            return ""
        fraction, message = progress.get("fraction"), progress.get("message")
        return " ".join(
            filter(None, ["" if fraction is None else f"{fraction * 100:.0f}%", cells.clean(message or "")])
        )

    # --- details -----------------------------------------------------------------------------------------------------

    def _node_details(self, machine_id: str, width: int) -> list[Text]:
        """Show what a node is made of, each GPU and each worker a line."""
        machine = self._picture.machines[machine_id]
        if is_line(machine):
            return [Text(cut(f"{machine_id}: waiting for the rest", width, self._glyphs))]
        lines = [self._facts(machine)]
        lines += [self._gpu(gpu, width) for gpu in machine["gpus"]]
        lines += [self._worker(worker) for worker in self._picture.workers.get(machine_id, ())]
        return [Text(cut(line, width, self._glyphs)) for line in lines]

    def _facts(self, machine: Row) -> str:
        resources = machine["resources"]
        cpu = resources["cpu_percent"]
        disk_mb = resources["disk_free_mb"]
        facts = [
            machine["machine_id"],
            machine["reason"] or "",
            f"cpu {cells.UNKNOWN if cpu is None else f'{cpu:.0f}%'}",
            f"memory {cells.gigabytes(resources['memory_used_mb'], resources['memory_total_mb'])}",
            f"disk free {cells.UNKNOWN if disk_mb is None else f'{disk_mb / 1024:.0f} GB'}",
            f"pool {machine['pool']}" if machine["pool"] else "",
            f"link {machine['link']}",
            f"models {', '.join(machine['models'])}" if machine["models"] else "",
        ]
        return f" {self._glyphs.dot} ".join(filter(None, facts))

    def _gpu(self, gpu: Row, width: int) -> str:
        glyphs = self._glyphs
        used, total, busy = gpu["memory_used_mb"], gpu["memory_total_mb"], gpu["utilization_percent"]
        held = cells.share_of(used, total)
        size = 25 if width >= 100 else 15 if width >= 70 else 9  # noqa: PLR2004 - as wide as there is room
        parts = [
            f"gpu {gpu['index']}",
            f"OUT OF SERVICE: {gpu['out_of_service']}" if gpu["out_of_service"] else "",
            f"util {cells.bar(busy / 100, size, glyphs) if busy is not None else cells.UNKNOWN}",
            f"vram {cells.bar(held, size, glyphs) if held is not None else ''} {cells.gigabytes(used, total)}",
            cells.degrees(gpu["temperature_c"], glyphs),
            cells.watts(gpu["power_w"]),
            gpu["name"] + (" (simulated)" if gpu["simulated"] else ""),
        ]
        return " " + "  ".join(filter(None, parts))

    def _worker(self, worker: Row) -> str:
        doing = [
            " ".join(filter(None, [job["service_required"], self._progress(job), job["job_id"]]))
            for job in (self._picture.jobs.get(job_id) for job_id in worker["current_jobs"])
            if job is not None
        ]
        unknown = [job_id for job_id in worker["current_jobs"] if job_id not in self._picture.jobs]
        at = "" if worker["gpu_index"] is None else f"  gpu {worker['gpu_index']}"
        done = f"{worker['jobs_completed']} done, {worker['jobs_failed']} failed"
        now = "; ".join([*doing, *unknown]) or "nothing now"
        return f" worker {worker['index']}{at}  {worker['status']}  {now}  ({done})"

    def _job_details(self, job_id: str, width: int) -> list[Text]:
        job = self._picture.jobs[job_id]
        took = ""
        if job["started_at"]:
            took = f"ran {cells.span(((job['completed_at'] or self._now_ms) - job['started_at']) / 1000)}"
        facts = [
            job["job_id"],
            job["service_required"],
            str(job["status"]),
            f"priority {job['priority']}",
            f"attempt {job['attempt']}, {job['retry_count']} of {job['max_retries']} retries used",
            f"submitted {cells.span((self._now_ms - job['created_at']) / 1000)} ago",
            took,
            f"customer {job['customer_id']}" if job["customer_id"] else "",
        ]
        lines = [f" {self._glyphs.dot} ".join(filter(None, facts))]
        lines += [f"worker {job['worker_id']}  {self._progress(job)}"] if job["worker_id"] else []
        lines += [_why(job)] if _why(job) else []
        return [Text(cut(line, width, self._glyphs)) for line in lines]


def _phase(machine: Row) -> str:
    if machine["draining"]:
        return "draining"
    return "late" if machine["late"] else str(machine["phase"])


def _why(job: Row) -> str:
    error = job.get("error")
    return f"{error['code']}: {error['message']}" if error else job.get("reason") or ""


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _title_of(column: Column, listing: Listing) -> str:
    if column.name != listing.sort.name:
        return column.name
    return column.name + ("+" if listing.sort.falling is listing.turned else "-")


def _aligned(words: str, column: Column, glyphs: Glyphs) -> str:
    words = cells.clean(words)
    if column.right and cell_len(words) < column.width:
        words = " " * (column.width - cell_len(words)) + words
    return cut(words, column.width, glyphs)


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """Leave out the least dear until the rest fits; the first one takes what is left over, up to twice its width."""
    room = width - _GAP
    while len(columns) > 1 and sum(column.width + 1 for column in columns) - 1 > room:
        columns.remove(min(columns, key=lambda column: column.dear))
    first, *others = columns
    rest = room - sum(column.width + 1 for column in others)
    return [first._replace(width=max(0, min(rest, 2 * first.width))), *others]


def _trimmed(line: Text) -> Text:
    line.rstrip()
    return line
