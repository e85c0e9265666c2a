"""The monitor in a real Chromium: when its fleet is there, how soon it answers a hand, what it takes and misses."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import psutil
from bench.monitor_fanout import Plane
from bench.processes import cpu_of_tree, memory_mb_of_tree, stop_tree
from msgspec import Struct
from playwright.async_api import CDPSession, Page, async_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
_WIDE = {"width": 1440, "height": 960}
_SHOWN_MS = 60_000
_END_S = 300.0
_LOOKS = 5
_FASTEST_MS = 16.0  # what is faster is not told
_WORD = "node-003"
_CARD = ".card:not([aria-busy])"
_BULK = 500

# Before any script of the page: when its first node stands in full, each answer to a hand, how long after the touch all
# that follows from it stood on the screen, and what kept the page busy.
_WATCH = """() => {
  window.watched = { shown: null, answers: [], whole: 0, since: null, longest: 0 };
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (entry.interactionId) window.watched.answers.push(entry.duration);
  }).observe({ type: "event", durationThreshold: 16, buffered: true });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) window.watched.longest = Math.max(window.watched.longest, entry.duration);
  }).observe({ type: "longtask", buffered: true });
  const look = () => {
    if (!document.querySelector(".card:not([aria-busy])")) return requestAnimationFrame(look);
    requestAnimationFrame(() => { window.watched.shown = performance.now(); });
  };
  requestAnimationFrame(look);
  const toCome = 'main[aria-busy="true"], main > .empty, .cards > [aria-busy]:nth-child(-n+4), ' +
    ".nodes tbody > [aria-busy]:nth-child(-n+20)";
  let still = null;
  const settle = () => {
    if (document.querySelector(toCome)) still = null;
    else if (still === null) still = performance.now();
    else {  // for two frames: an address that changed is heard of a little later
      window.watched.whole = Math.max(window.watched.whole, still - window.watched.since);
      window.watched.since = still = null;
      return;
    }
    requestAnimationFrame(settle);
  };
  for (const kind of ["keydown", "click"]) addEventListener(kind, (event) => {
    if (window.watched.since === null) requestAnimationFrame(settle);
    window.watched.since = event.timeStamp;
  }, { capture: true });
}"""
_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
_TWO_FRAMES = (
    "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50))))"
)
_WHOLE = "window.watched.since === null"
_OURS = """async () => {
  const { state } = await import("/web/core/state.js");
  const jobs = [...state.jobs.values()].map((job) => job.peek());
  return { counts: state.jobCounts.peek(), nodes: state.nodeIds.peek().length,
    open: jobs.filter((job) => !["completed", "failed", "cancelled", "timeout"].includes(job.status)).length };
}"""


class Opened(Struct, frozen=True, kw_only=True):
    """A page that was opened, and used for a while."""

    first_paint_ms: float
    shown_ms: float
    answers_ms: dict[str, float]  # the slowest of each kind
    whole_ms: dict[str, float]  # until all that it leads to was on the screen
    longest_ms: float  # that the page was busy at one go while looked at; 0: never for 50 ms
    heap_mb: float
    memory_mb: float
    browser_cores: float
    plane_cores: float


class Soak(Struct, frozen=True, kw_only=True):
    minutes: float
    jobs: int
    done_s: float  # from the submit to the last end
    disconnects: int
    gaps: int
    differences: tuple[str, ...]
    problems: tuple[str, ...]
    heap_first_mb: float
    heap_mb: float
    longest_ms: float
    browser_cores: float
    plane_cores: float


def chromium() -> str:
    for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    raise SystemExit("the monitor is measured in Chromium: sudo apt-get install -y --no-install-recommends chromium")


@contextlib.contextmanager
def fleet(plane: Plane, nodes: int, workers: int, working: int, interval_s: float) -> Iterator[None]:
    """Run a fleet that works, in a process of its own."""
    numbers = [str(nodes), str(workers), str(working), str(interval_s)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.monitor_fleet", plane.url, *numbers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the fleet did not come up")
        yield
    finally:
        stop_tree(psutil.Process(process.pid), signal.SIGTERM)


class Tab:
    """One page in a browser of its own."""

    def __init__(self, page: Page, devtools: CDPSession, plane: Plane, browser: psutil.Process) -> None:
        self.page = page
        self._devtools = devtools
        self._plane = plane
        self._browser = browser
        self.disconnects = 0
        self.problems: list[str] = []
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def _said(self, kind: str, text: str) -> None:
        self.disconnects += text.startswith("muster: disconnected")
        # The fleet's thin agents have no logs to give: a node's page asks in vain.
        if kind in {"error", "warning"} and "504" not in text:
            self.problems.append(text)

    async def open(self) -> tuple[float, float]:
        """Return when something and when the fleet was on the screen, in ms."""
        await self.page.add_init_script(f"({_WATCH})()")
        await self.page.goto(self._plane.url)
        await self.page.locator(_CARD).first.wait_for(timeout=_SHOWN_MS)
        await self.page.evaluate(_TWO_FRAMES)
        return await self.page.evaluate(_PAINT), await self.page.evaluate("window.watched.shown")

    async def answer_ms(self, act: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
        """Return the longest from a hand's touch to the picture that answers it, and until all of it was there.

        The first is at least that of one frame.
        """
        await self.page.evaluate("() => { window.watched.answers = []; window.watched.whole = 0; }")
        await act()
        await self.page.evaluate(_TWO_FRAMES)
        await self.page.wait_for_function(_WHOLE)
        answers: list[float] = await self.page.evaluate("window.watched.answers")
        return max([_FASTEST_MS, *answers]), await self.page.evaluate("window.watched.whole")

    async def forget_longest(self) -> None:
        await self.page.evaluate("() => { window.watched.longest = 0; }")

    async def longest_ms(self) -> float:
        found: float = await self.page.evaluate("window.watched.longest")
        return found

    async def heap_mb(self) -> float:
        await self._devtools.send("HeapProfiler.collectGarbage")
        found = await self._devtools.send("Runtime.getHeapUsage")
        return float(found["usedSize"]) / 2**20

    def memory_mb(self) -> float:
        renderers = [each for each in self._browser.children(recursive=True) if "--type=renderer" in each.cmdline()]
        return max((memory_mb_of_tree(each) for each in renderers), default=0.0)

    @contextlib.contextmanager
    def cores(self) -> Iterator[list[float]]:
        """Fill the list at the end with the share of a core of the browser and of the control plane."""
        processes = (self._browser, self._plane.process)
        before_s, began_s = [cpu_of_tree(each) for each in processes], time.monotonic()
        found: list[float] = []
        yield found
        seconds = time.monotonic() - began_s
        found += [(cpu_of_tree(each) - cpu_s) / seconds for each, cpu_s in zip(processes, before_s, strict=True)]


@contextlib.asynccontextmanager
async def tab(plane: Plane) -> AsyncIterator[Tab]:
    async with async_playwright() as playwright:
        before = {each.pid for each in psutil.Process().children(recursive=True)}
        browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        started = [each for each in psutil.Process().children(recursive=True) if each.pid not in before]
        page = await browser.new_page(viewport=_WIDE)  # type: ignore[arg-type]  # a plain dict is what it wants
        try:
            yield Tab(page, await page.context.new_cdp_session(page), plane, started[0])
        finally:
            await browser.close()


async def opened(plane: Plane, seconds: float) -> Opened:
    """Open the fleet, look on for a while, then use it."""
    async with tab(plane) as looking:
        first_paint_ms, shown_ms = await looking.open()
        await looking.forget_longest()
        with looking.cores() as cores:
            await looking.page.wait_for_timeout(seconds * 1000)
        longest_ms = await looking.longest_ms()
        answers = {name: await looking.answer_ms(act) for name, act in Hands(looking.page).all.items()}
        assert not looking.problems, looking.problems
        return Opened(
            first_paint_ms=first_paint_ms,
            shown_ms=shown_ms,
            answers_ms={name: answer_ms for name, (answer_ms, _) in answers.items()},
            whole_ms={name: whole_ms for name, (_, whole_ms) in answers.items()},
            longest_ms=longest_ms,
            heap_mb=await looking.heap_mb(),
            memory_mb=looking.memory_mb(),
            browser_cores=cores[0],
            plane_cores=cores[1],
        )


class Hands:
    """What a person does on the fleet page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.all: dict[str, Callable[[], Awaitable[None]]] = {
            "type in the filter": self._type,
            "sort": self._sort,
            "turn the page": self._turn,
            "open a node and go back": self._open_node,
            "table and back": self._table,
        }

    async def _type(self) -> None:
        await self._page.locator("#filter").click()
        await self._page.keyboard.type(_WORD, delay=120)
        for _ in _WORD:
            await self._page.keyboard.press("Backspace", delay=60)

    async def _sort(self) -> None:
        await self._page.get_by_label("Sort by").focus()
        for key in (*["ArrowDown"] * (_LOOKS - 1), *["ArrowUp"] * (_LOOKS - 1)):
            await self._page.keyboard.press(key)
            await self._page.evaluate(_TWO_FRAMES)

    async def _turn(self) -> None:
        for name in ("Next", "Previous"):
            # By key: below cards that live, the button may move from under a slow hand.
            await self._page.get_by_role("button", name=name).press("Enter")
            await self._page.locator(_CARD).first.wait_for()
            await self._page.evaluate(_TWO_FRAMES)

    async def _open_node(self) -> None:
        for number in range(_LOOKS):
            await self._page.locator(".card h3 a").nth(number).click()
            await self._page.locator(".node-page").wait_for()
            await self._page.evaluate(_TWO_FRAMES)
            await self._page.get_by_label("Pages").get_by_role("link", name="Fleet").click()
            await self._page.locator(_CARD).first.wait_for()

    async def _table(self) -> None:
        for name in ("Table", "Cards"):
            await self._page.get_by_role("button", name=name).click()
            await self._page.evaluate(_TWO_FRAMES)


async def soak(plane: Plane, minutes: float, jobs: int) -> Soak:
    """Look on while a burst of jobs is done and for the rest of the time; at the end compare with the server."""
    gaps = plane.figure("muster_event_gaps_total")
    async with tab(plane) as looking:
        await looking.open()
        heap_first_mb = await looking.heap_mb()
        await looking.forget_longest()
        began_s = time.monotonic()
        with looking.cores() as cores:
            submit(plane, jobs)
            done_s = await _until_done(looking, plane, began_s)
            while (left_s := 60 * minutes - (time.monotonic() - began_s)) > 0:
                await looking.page.wait_for_timeout(min(left_s, 10.0) * 1000)
        return Soak(
            minutes=minutes,
            jobs=jobs,
            done_s=done_s,
            disconnects=looking.disconnects,
            gaps=round(plane.figure("muster_event_gaps_total") - gaps),
            differences=tuple(await differences(looking.page, plane)),
            problems=tuple(looking.problems),
            heap_first_mb=heap_first_mb,
            heap_mb=await looking.heap_mb(),
            longest_ms=await looking.longest_ms(),
            browser_cores=cores[0],
            plane_cores=cores[1],
        )


def submit(plane: Plane, jobs: int) -> None:
    for first in range(0, jobs, _BULK):
        body = [
            {"service_required": "simulation", "payload": {"duration_ms": 1000 + n}}
            for n in range(first, min(jobs, first + _BULK))
        ]
        request = urllib.request.Request(
            f"{plane.url}/api/jobs/batch",
            data=json.dumps({"jobs": body}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120):
            pass


def stats(plane: Plane) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plane.get("/api/monitor/state?limit=1"))["data"]["system_stats"]
    return found


async def _until_done(looking: Tab, plane: Plane, began_s: float) -> float:
    while True:
        counts = stats(plane)["jobs"]
        if not sum(counts[name] for name in ("pending", "assigned", "in_progress", "unworkable")):
            return time.monotonic() - began_s
        if time.monotonic() - began_s > _END_S:
            raise RuntimeError(f"the jobs were not done within {_END_S:g} s: {counts}")
        await looking.page.wait_for_timeout(250)


async def differences(page: Page, plane: Plane) -> list[str]:
    """Return in words where the page is not as the server; what is on its way gets a few seconds."""
    found: list[str] = []
    for _ in range(_LOOKS):
        theirs, ours = stats(plane), await page.evaluate(_OURS)
        found = []
        if ours["nodes"] != theirs["total_machines"]:
            found.append(f"{ours['nodes']} nodes on the page, {theirs['total_machines']} at the server")
        ended = theirs["jobs"]["completed"] + theirs["jobs"]["cancelled"]
        if ours["counts"]["finished"] != ended or ours["open"]:
            found.append(f"{ours['counts']} and {ours['open']} open jobs on the page, {theirs['jobs']} at the server")
        if not found:
            return []
        await page.wait_for_timeout(1000)
    return found
