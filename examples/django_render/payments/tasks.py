"""The tasks: pay one driver, and pay all drivers, which Beat sends."""

from typing import TypedDict

from celery import shared_task
from django.core.cache import cache
from django.utils import timezone


class Ride(TypedDict):
    """One ride of a driver. The fare is in cents."""

    ride: int
    fare: int


class Payout(TypedDict):
    """The cents that a driver was paid."""

    driver: str
    cents: int


@shared_task
def pay_driver(driver: str, rides: list[Ride]) -> Payout:
    """Pay *driver* for *rides*."""
    return Payout(driver=driver, cents=sum(ride["fare"] for ride in rides))


@shared_task(ignore_result=True)
def process_daily_payouts() -> None:
    """Send a task for each driver who drove today."""
    today = rides_of_today()
    for driver, rides in today.items():
        pay_driver.apply_async((driver, rides), ignore_result=True)
    cache.set("latest_daily_payouts", {"at": timezone.now(), "drivers": len(today)}, timeout=None)


def rides_of_today() -> dict[str, list[Ride]]:
    """Driver → rides. These are made up; a real app would read them from its database."""
    counts = {"ada": 40, "grace": 120, "linus": 8}
    return {driver: [Ride(ride=number, fare=900) for number in range(count)] for driver, count in counts.items()}
