"""Sets limits on an app: for all tasks, or for single ones.

Celery makes every message by a function in ``app.amqp.task_protocols``, which
``set_repr_limits`` wraps. docs/advice.md tells why not elsewhere.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from celery.utils.saferepr import saferepr

from celery_argsize.advice.advice import ReprLimits
from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

_PROTOCOL = 2  # protocol 1 has no reprs


class _MessageMaker:
    """Makes messages by Celery's *make*, with other limits for some tasks."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.limits: dict[str, ReprLimits] = {}  # by task name

    def __call__(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any
    ) -> Any:
        if limits := self.limits.get(name):
            parts = ("argsrepr", args or (), limits.args), ("kwargsrepr", kwargs or {}, limits.kwargs)
            for option, part, limit in parts:
                if options.get(option) is None:
                    options[option] = saferepr(part, limit, maxlevels=limits.levels)
        return self.make(task_id, name, args, kwargs, *rest, **options)


def set_repr_limits(app: Celery, limits: Mapping[str, ReprLimits | int]) -> None:
    """Set limits for single tasks of *app*, in the process that sends them.

    *limits*: task name → ``ReprLimits``, or one number of characters for args and
    kwargs. Levels work with any Celery. Later calls add to earlier ones;
    ``ReprLimits()`` gives a task Celery's defaults. A caller's own repr (``argsrepr=``)
    is kept.

    Raises:
        ConfigError: a limit is no integer of 0 or more.
    """
    checked = {str(name): _check(name, value) for name, value in limits.items()}
    amqp: Any = app.amqp  # celery-types lacks this
    maker = amqp.task_protocols[_PROTOCOL]
    if not isinstance(maker, _MessageMaker):
        maker = amqp.task_protocols[_PROTOCOL] = _MessageMaker(maker)
        amqp.__dict__.pop("create_task_message", None)  # a cached property
    maker.limits.update(checked)


def set_app_limits(app: Celery, limits: ReprLimits) -> None:
    """Set limits for all tasks of *app*.

    Raises:
        ConfigError: a limit is no integer of 0 or more.
    """
    _check("app", limits)
    app.amqp.argsrepr_maxsize = limits.args
    app.amqp.kwargsrepr_maxsize = limits.kwargs
    app.conf.task_repr_maxlevels = limits.levels  # from Celery 5.7 on


def limits_of(app: Celery, task: str) -> ReprLimits:
    """The limits that messages of *task* now get."""
    amqp: Any = app.amqp
    maker = amqp.task_protocols[_PROTOCOL]
    if isinstance(maker, _MessageMaker) and task in maker.limits:
        return maker.limits[task]
    levels = app.conf.get("task_repr_maxlevels", ReprLimits().levels)
    return ReprLimits(amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize, levels)


def _check(name: str, limits: ReprLimits | int) -> ReprLimits:
    checked: Any = ReprLimits(limits, limits) if isinstance(limits, int) else limits
    numbers = astuple(checked) if isinstance(checked, ReprLimits) else (None,)
    if not all(type(number) is int and number >= 0 for number in numbers):
        message = f"the limits of {name!r} cannot work: {limits!r}; allowed: ReprLimits or int, of 0 or more"
        raise ConfigError(message)
    return checked  # type: ignore[no-any-return]
