from datetime import UTC, datetime

from muster.domain.usage import By, Sum, Use, day_of, hour_of, month_of, next_day, next_month, summed


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_hours_days_and_months_are_those_of_utc() -> None:
    at_ms = ms("2024-02-29T23:59:59.999")

    assert hour_of(at_ms) == ms("2024-02-29T23:00:00")
    assert day_of(at_ms) == ms("2024-02-29T00:00:00")
    assert month_of(at_ms) == ms("2024-02-01T00:00:00")
    assert next_day(at_ms) == next_month(at_ms) == ms("2024-03-01T00:00:00")
    assert next_month(ms("2024-12-31T12:00:00")) == ms("2025-01-01T00:00:00")
    assert next_month(ms("2025-01-01T00:00:00")) == ms("2025-02-01T00:00:00")


def use(token: str = "t", model: str = "m", energy_mwh: int | None = 5) -> Use:
    return Use(token=token, model=model, prompt_tokens=3, completion_tokens=4, worker_ms=100, energy_mwh=energy_mwh)


def sum_of(one: Use, at_ms: int) -> Sum:
    made = Sum(at_ms=hour_of(at_ms), token=one.token, model=one.model)
    made.take(one)
    return made


def test_an_answer_becomes_a_sum_of_its_hour() -> None:
    assert use().tokens == 7
    assert sum_of(use(), ms("2024-03-01T10:30:00")) == Sum(
        at_ms=ms("2024-03-01T10:00:00"),
        token="t",
        model="m",
        requests=1,
        metered=1,
        prompt_tokens=3,
        completion_tokens=4,
        worker_ms=100,
        energy_mwh=5,
    )


def test_energy_that_is_not_known_is_not_metered() -> None:
    one = sum_of(use(energy_mwh=None), 0)

    assert (one.metered, one.energy_mwh) == (0, 0)


def test_sums_tell_apart_what_is_asked_for_and_nothing_else() -> None:
    ten, eleven = ms("2024-03-01T10:30:00"), ms("2024-03-01T11:30:00")
    sums = [sum_of(use("a", "x"), ten), sum_of(use("a", "y"), eleven), sum_of(use("b", "x"), eleven)]

    def told(*by: By) -> list[tuple[int, str, str, int]]:
        return [(one.at_ms, one.token, one.model, one.requests) for one in summed(sums, by)]

    assert told() == [(0, "", "", 3)]
    assert told(By.WHOSE) == [(0, "a", "", 2), (0, "b", "", 1)]
    assert told(By.MODEL) == [(0, "", "x", 2), (0, "", "y", 1)]
    assert told(By.DAY) == [(day_of(ten), "", "", 3)]
    assert told(By.HOUR) == [(hour_of(ten), "", "", 1), (hour_of(eleven), "", "", 2)]
    assert summed(sums, [])[0].prompt_tokens == 9
