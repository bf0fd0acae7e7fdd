"""What the worker does: pay one driver, and, when Beat says so, have all of them paid."""

from typing import TypedDict

from celery import shared_task
from django.core.cache import cache
from django.utils import timezone


class Ride(TypedDict):
    """One ride of a driver; the fare in cents."""

    ride: int
    fare: int


class Payout(TypedDict):
    """What a driver was paid, in cents."""

    driver: str
    cents: int


@shared_task
def pay_driver(driver: str, rides: list[Ride]) -> Payout:
    """Pay *driver* for *rides*."""
    return Payout(driver=driver, cents=sum(ride["fare"] for ride in rides))


@shared_task(ignore_result=True)
def process_daily_payouts() -> None:
    """Have everyone paid who drove today."""
    today = rides_of_today()
    for driver, rides in today.items():
        pay_driver.apply_async((driver, rides), ignore_result=True)
    cache.set("latest_daily_payouts", {"at": timezone.now(), "drivers": len(today)}, timeout=None)


def rides_of_today() -> dict[str, list[Ride]]:
    """Rides by driver: made up here, where others ask their database."""
    counts = {"ada": 40, "grace": 120, "linus": 8}
    return {driver: [Ride(ride=number, fare=900) for number in range(count)] for driver, count in counts.items()}
