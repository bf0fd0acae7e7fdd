"""Views that send a payout task, and show its result."""

import json
from uuid import UUID

from django.core.cache import cache
from django.http import HttpRequest, JsonResponse

from .tasks import pay_driver


def create(request: HttpRequest) -> JsonResponse:
    """``POST {"driver": …, "rides": [{"ride": 1, "fare": 900}, …]}`` sends the task, and returns its id at once."""
    try:
        body = json.loads(request.body)
        driver, rides = str(body["driver"]), list(body["rides"])
    except (ValueError, TypeError, KeyError):
        return JsonResponse({"error": "send JSON: a driver, and a list of rides"}, status=400)
    task = pay_driver.delay(driver, rides)
    return JsonResponse({"task": task.id}, status=202)


def show(_: HttpRequest, task: UUID) -> JsonResponse:
    """``GET`` returns the state of a task, and its payout once that is SUCCESS. An unknown task is PENDING."""
    result = pay_driver.AsyncResult(str(task))
    return JsonResponse({"state": result.state, "paid": result.result if result.successful() else None})


def latest(_: HttpRequest) -> JsonResponse:
    """``GET`` returns when everyone was last paid by Beat, and how many drivers."""
    return JsonResponse(cache.get("latest_daily_payouts", {"at": None, "drivers": 0}))
