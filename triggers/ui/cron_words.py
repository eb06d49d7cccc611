"""A cron expression in words, where it is one of those that most schedules have."""

from collections.abc import Mapping

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NUMBERS: Mapping[str, int] = {day[:3].lower(): number for number, day in enumerate(_DAYS)} | {
    str(number): number % 7 for number in range(8)
}
_MOST_TIMES = 4
# A step of one leaves nothing out.
_ALL = {"*", "*/1"}


def cron_words(expression: str) -> str:
    """Such as `every Monday at 06:00`; empty for an expression that has no short words."""
    fields = expression.split()
    if len(fields) != len(("minute", "hour", "day of month", "month", "day of week")):
        return ""
    minute, hour, day, month, weekday = ("*" if field in _ALL else field for field in fields)
    if month != "*" or ((day, weekday) != ("*", "*") and "*" not in (day, weekday)):
        return ""
    days = _days(day, weekday)
    if days == "every day":
        often = _often(minute, hour)
        if often:
            return often
    times = _times(minute, hour)
    return f"{days} at {times}" if days and times else ""


def _days(day: str, weekday: str) -> str:
    if day != "*":
        return f"on day {int(day)} of each month" if day.isdigit() else ""
    if weekday == "*":
        return "every day"
    first, dash, last = weekday.lower().partition("-")
    if dash:
        ends = [_NUMBERS.get(each) for each in (first, last)]
        return "" if None in ends else " to ".join(_DAYS[end] for end in ends if end is not None)
    numbers = [_NUMBERS.get(each) for each in weekday.lower().split(",")]
    return "" if None in numbers else "every " + _and([_DAYS[each] for each in numbers if each is not None])


def _often(minute: str, hour: str) -> str:
    """Of steps that divide the hour or the day; others are not even."""
    if hour == "*":
        if minute == "*":
            return "every minute"
        step = _step(minute, 60)
        if step:
            return f"every {step} minutes"
        return f"every hour at :{int(minute):02}" if minute.isdigit() else ""
    step = _step(hour, 24)
    return f"every {step} hours at :{int(minute):02}" if step and minute.isdigit() else ""


def _step(text: str, whole: int) -> int:
    step = text.removeprefix("*/")
    is_even = step != text and step.isdigit() and int(step) > 1 and whole % int(step) == 0
    return int(step) if is_even else 0


def _times(minute: str, hour: str) -> str:
    hours = hour.split(",")
    if len(hours) > _MOST_TIMES or not all(each.isdigit() for each in (minute, *hours)):
        return ""
    return _and([f"{int(each):02}:{int(minute):02}" for each in hours])


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
