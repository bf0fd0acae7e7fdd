"""The checks of the groups broker and workers: who answers, and how they fare.

Those of pools and queues are in ``pool_checks`` and ``queue_checks``.
"""

from __future__ import annotations

import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from celery_argsize.doctor.app import number, queue_of, setting, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_ANSWER, NO_PSUTIL, Unavailable
from celery_argsize.doctor.judge.queues import QUEUE_CHECKS, is_starting, unheard
from celery_argsize.doctor.judge.settings import memory_line, memory_options
from celery_argsize.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Heartbeat, Node, WorkerFacts

#: Seconds that two clocks may differ: ``HEARTBEAT_DRIFT_MAX`` of celery.events.state.
DRIFT_SECONDS: Final = 16
#: Seconds that looking takes by default, and that is enough but for a slow broker.
DEFAULT_SECONDS: Final = 10
#: Seconds without any answer to conclude from: what ``celery inspect`` waits.
LISTENED_AT_LEAST: Final = 1.0
#: Seconds to connect from which on they are shown, and from which on the broker is slow. A connection takes several
#: round trips, so these are some 0.2 s each.
SHOWN_SECONDS: Final = 0.5
SLOW_SECONDS: Final = 2.0
#: Connecting takes several round trips, and so does an answer: how many times as long to hear somebody.
ANSWER_TIMES: Final = 3
#: Names that are shown of many.
SHOWN: Final = 5


def some_of(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# --- the broker


def _reachable(facts: Facts) -> list[Outcome]:
    found = facts.workers.get()
    if found.took is None:
        raise Unavailable(found.no_control)
    if found.broker_error:
        reason = f"No task is sent or run: {found.broker_error}."
        return [fail(reason, found.broker, fix=_how_to_reach(facts, found.broker, found.broker_error))]
    figure = f"{found.broker}, connected in {found.took:.1f} s" if found.took >= SHOWN_SECONDS else found.broker
    if found.took < SLOW_SECONDS:
        outcomes = [ok("The broker takes connections.", figure)]
    else:
        reason = "The broker is there, and slow: whoever sends a task waits that long, and workers are hard to ask."
        fix = "# what takes so long: its machine, the network, or the look-up of its name\n"
        outcomes = [warn(reason, figure, fix=f"{fix}# to look all the same:\n{_patiently(facts)}")]
    return outcomes + [
        warn(
            f"It is one of the brokers that broker_url lists, and takes no connection: {why}. Workers and senders go "
            "on with another one; messages that are left in this one wait until it is back.",
            url,
            fix=_how_to_reach(facts, url, why),
            subject=url,
        )
        for url, why in found.unreached.items()
    ]


def _how_to_reach(facts: Facts, url: str, why: str) -> str:
    """Lines that see after the broker at *url*; where there was no answer it may only be slow."""
    fix = broker_fix(facts.app, url, why)
    return f"{fix}\n# or, if it is there and slow:\n{_patiently(facts)}" if NO_ANSWER in why else fix


def _patiently(facts: Facts) -> str:
    return f"celery -A {word_of(facts.app)} argsize doctor --timeout {max(60, round(3 * facts.where.seconds))}"


# --- who answers


def _answering(facts: Facts) -> list[Outcome]:
    found = facts.workers.get().asked()
    if not facts.conf.worker_enable_remote_control:
        message = "worker_enable_remote_control is off: workers answer nothing"
        raise Unavailable(message)
    names = [node.name for node in found.nodes]
    start = f"celery -A {word_of(facts.app)} worker -l info"
    if not names and found.listened < max(LISTENED_AT_LEAST, ANSWER_TIMES * (found.took or 0)):
        timeout = 60 if facts.where.seconds >= DEFAULT_SECONDS else 10
        message = f"too little time to hear the workers: {found.listened:.1f} s; give it --timeout {timeout}"
        raise Unavailable(message)
    excuses = [] if names else [(one.pid, why) for one in unheard(facts) if (why := _excuse(facts, one))]
    if excuses:
        return [unknown(f"no other worker answers, and {why}", subject=f"pid {pid}") for pid, why in excuses]
    if not names:
        where = f" at {found.broker}" if found.unreached else ""
        reason = (
            "No worker answers: none runs on this broker, or all are stuck. A solo worker answers only between tasks."
        )
        return [fail(reason, f"0 answers within {found.listened:.0f} s{where}", fix=f"# start one:\n{start}")]
    outcomes = [ok("Workers answer.", some_of(names))]
    return outcomes + [
        warn(
            "Several workers have this name: what is sent to one is done by any, and answers get mixed up.",
            subject=name,
            fix=f"# give each a name of its own, with -n (%h is the host):\n{start} -n worker1@%h",
        )
        for name in found.twice
    ]


def _silent(facts: Facts) -> list[Outcome]:
    """Workers that are known to be there, and do not answer."""
    found = facts.workers.get().asked()
    heard = [
        fail(
            "It sends heartbeats and does not answer: it is stuck, or a solo worker in a task.",
            f"no answer within {found.listened:.0f} s",
            fix=_RESTART,
            subject=name,
        )
        for name in found.silent
    ]
    here = [outcome for process in unheard(facts) if (outcome := _of_process(facts, found, process))]
    return heard + here or [ok("Every worker that is known answers.")] * bool(found.nodes)


_RESTART: Final = (
    "# what it does now (py-spy is a tool of its own):\npy-spy dump --pid PID\n# and start it again, if it stays so"
)


def _excuse(facts: Facts, process: CeleryProcess) -> str:
    """Why a worker that is at this broker need not answer now; empty: it should, or it is not known to be there."""
    local = facts.workers.get().local[process.pid]
    if local.stopped or (is_starting(process) and not local.ports):
        return ""
    if (local.pool or facts.conf.worker_pool) == "solo":
        return "a solo worker answers only between tasks, and this one did not"
    return "it does not answer: it is starting, or a solo worker in a task" if is_starting(process) else ""


def _of_process(facts: Facts, found: WorkerFacts, process: CeleryProcess) -> Outcome | None:
    local = found.local[process.pid]
    subject = f"pid {process.pid}"
    if local.stopped:
        return fail(
            "This worker is stopped (SIGSTOP): it takes nothing, and what it has fetched waits.",
            "state: stopped",
            fix=f"kill -CONT {process.pid}",
            subject=subject,
        )
    if excuse := _excuse(facts, process):
        return unknown(excuse, subject=subject)
    if is_starting(process):
        return None
    return fail(
        "This worker runs here and does not answer: it is stuck, starved, or shutting down.",
        f"no answer within {found.listened:.0f} s",
        fix=_RESTART.replace("PID", str(process.pid)),
        subject=subject,
    )


# --- heartbeats


def _heartbeats(facts: Facts) -> list[Outcome]:
    found = facts.workers.get()
    nodes = found.live()
    troubles = [outcome for node in nodes for outcome in (_late(facts, node, found.listened), _drift(node)) if outcome]
    quiet = [node.name for node in nodes if not node.heartbeats]
    if quiet:
        told = "started with --without-heartbeat, or with a longer --heartbeat-interval. They answer, which is enough."
        troubles.append(ok(told, f"no heartbeat within {found.listened:.0f} s from {some_of(quiet)}"))
    heard = len(nodes) - len(quiet)
    return troubles or [ok("Heartbeats come in time.", f"{heard} of {len(nodes)} heard")]


def _late(facts: Facts, node: Node, listened: float) -> Outcome | None:
    """A gap twice as long as it should be. The first one says how long that is."""
    times = [beat.received for beat in node.heartbeats]
    gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    every = max((beat.every for beat in node.heartbeats), default=0.0)
    if gap <= 2 * every + 1:
        return None
    return warn(
        "Heartbeats come late: the worker starves (CPU, swap) or its connection hangs. In other workers' logs this is "
        "“missed heartbeat”. Celery has no setting worker_heartbeat: no timeout cures it.",
        f"{gap:.1f} s between two, where {every:g} s are due (heard for {listened:.0f} s)",
        fix="# fewer children, or a limit on their memory (in KiB), so that the machine keeps up:\n"
        + setting(facts.app, "worker_concurrency", 2)
        + "\n"
        + setting(facts.app, "worker_max_memory_per_child", 512000),
        subject=node.name,
    )


def _drift(node: Node) -> Outcome | None:
    drifts = [_drift_of(beat) for beat in node.heartbeats]
    drift = min(drifts, key=abs, default=0.0)
    if abs(drift) <= DRIFT_SECONDS:
        return None
    return warn(
        "The clocks of that machine and this one differ: ETAs, countdowns and expires come early or late there.",
        f"{abs(drift):.0f} s {'behind' if drift > 0 else 'ahead'}",
        fix="# on both machines:\ntimedatectl set-ntp true",
        subject=node.name,
    )


def _drift_of(beat: Heartbeat) -> float:
    return beat.received - beat.sent


# --- what they can run


def _registered(facts: Facts) -> list[Outcome]:
    nodes = [node for node in facts.workers.get().live() if node.registered is not None]
    lacking = [(node, *found) for node in nodes if (found := _lacks(facts, node, nodes))]
    return [
        warn(
            "Other workers on this queue know tasks that this one does not. It throws such messages away (“Received "
            "unregistered task”): they run different versions, or different apps share the queue.",
            f"{len(names)} unknown on queue {queue}: {some_of(names)}",
            fix="# deploy the same code to all, or give each app a queue of its own:\n"
            + setting(facts.app, "task_default_queue", "a_name_of_its_own"),
            subject=node.name,
        )
        for node, queue, names in lacking
    ] or [ok("Workers that share a queue know the same tasks.", f"{len(nodes)} asked")]


def _lacks(facts: Facts, node: Node, nodes: Sequence[Node]) -> tuple[str, list[str]] | None:
    """A queue of *node*, and the tasks sent there that others on it know and *node* does not."""
    for queue in node.queues:
        known = {name for other in nodes if queue in other.queues for name in other.registered or ()}
        lacks = sorted(known - set(node.registered or ()))
        # of another app's tasks it is not known where they are sent
        lacks = [name for name in lacks if name not in facts.app.tasks or queue_of(facts.app, name) == queue]
        if lacks:
            return queue, lacks
    return None


#: Pool processes for each CPU from which on they take the CPU from each other, and from the main process's heartbeats.
#: Celery's default is one for each; tasks that wait for a network bear a few more.
CHILDREN_PER_CPU: Final = 4
#: As many are always well.
CHILDREN_ALWAYS: Final = 8
#: Seconds by which a child is younger than the oldest for it to be a later one.
REPLACED_SECONDS: Final = 5.0
#: Seconds after its start (which is told in whole ones) in which a worker has forked its children.
FORKED_SECONDS: Final = 2.0
#: Bytes in the KiB that Celery counts worker_max_memory_per_child in.
KIB: Final = 1024


class _Pool(NamedTuple):
    """The processes of one node on this machine."""

    node: Node
    main: CeleryProcess
    children: tuple[CeleryProcess, ...]

    @property
    def biggest(self) -> int:
        """Bytes of the biggest process that runs tasks."""
        return max((child.rss for child in self.children), default=self.main.rss)

    @property
    def grown(self) -> int:
        """Bytes that all take, were each child as big as the biggest; what they share with the main process once."""
        own = max(0, self.biggest - self.main.rss)
        return self.main.rss + own * self.node.concurrency * bool(self.children)


def _local_pools(facts: Facts) -> list[_Pool]:
    """The answering nodes of this machine.

    Raises:
        Unavailable: no worker answers, or processes cannot be seen.
    """
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        message = f"{NO_PSUTIL}: {GET_PSUTIL}"
        raise Unavailable(message)
    processes = {process.pid: process for process in host.processes}
    return [
        _Pool(node, main, tuple(processes[pid] for pid in node.processes if _is_child(processes.get(pid), main)))
        for node in nodes
        if node.hostname == host.hostname and (main := processes.get(node.pid)) is not None
    ]


def _is_child(process: CeleryProcess | None, main: CeleryProcess) -> bool:
    return process is not None and process.ppid == main.pid


def _mib(size: float) -> str:
    return f"{size / KIB / KIB:,.0f} MiB"


# --- how many


def _concurrency(facts: Facts) -> Outcome:
    nodes, host = facts.workers.get().live(), facts.host.get()
    here = [node for node in nodes if node.hostname == host.hostname]
    children = sum(node.concurrency for node in here if node.pool == "prefork")
    shown = ", ".join(f"{node.pool} {node.concurrency}" for node in (here or nodes)[:8])
    if not here:
        return ok("All workers run on other machines.", shown)
    most = max(CHILDREN_PER_CPU * host.cpus, CHILDREN_ALWAYS)
    figure = f"{children} prefork {'child' if children == 1 else 'children'} for {counted(host.cpus, 'CPU')}"
    if children <= most:
        return ok("The CPUs bear that.", figure if children else shown)
    each = max(1, host.cpus // len(here))
    return warn(
        "They take the CPU from each other, and from the heartbeats of their main processes (“missed heartbeat”), and "
        "each costs its memory. Tasks that only wait are cheaper with -P threads or -P gevent.",
        figure,
        fix=f"# for {'the worker' if len(here) == 1 else f'each of the {len(here)} workers'} here, or -c {each}:\n"
        + setting(facts.app, "worker_concurrency", each),
    )


# --- how large


def _memory(facts: Facts) -> list[Outcome]:
    pools = _local_pools(facts)
    local = {pool.node.name for pool in pools}
    remote = [node for node in facts.workers.get().nodes if node.name not in local]
    return [*_together(facts, pools), *_over_limit(facts, pools), *map(_remote_memory, remote)]


def _together(facts: Facts, pools: list[_Pool]) -> list[Outcome]:
    """Whether all fit, were each child as big as its biggest sibling."""
    limit = facts.host.get().memory_limit
    if not pools or limit is None:
        return []
    biggest = max(pools, key=lambda pool: pool.biggest)
    grown = sum(pool.grown for pool in pools)
    count = sum(len(pool.children) or 1 for pool in pools)
    processes = f"{count} process{'' if count == 1 else 'es'}"
    figure = f"{processes}, the biggest {_mib(biggest.biggest)}; the memory here: {_mib(limit)}"
    if grown <= limit:
        return [ok("They fit, were each as big as the biggest.", figure)]
    room = (limit // 2 - sum(pool.main.rss for pool in pools)) // max(1, sum(pool.node.concurrency for pool in pools))
    most = max(room + biggest.main.rss, biggest.main.rss * 2) // KIB
    return [
        warn(
            f"Were each child as big as the biggest, they would take {_mib(grown)}: more than there is, and the kernel "
            "kills one (SIGKILL, WorkerLostError).",
            figure,
            fix="# replace children that grow (in KiB: 512000 is 500 MB), and run fewer:\n"
            + setting(facts.app, "worker_max_memory_per_child", most)
            + "\n"
            + setting(facts.app, "worker_concurrency", max(1, biggest.node.concurrency // 2)),
        )
    ]


def _over_limit(facts: Facts, pools: list[_Pool]) -> list[Outcome]:
    """Pools whose smallest child is over the limit at which it is replaced: all are, after every task."""
    told = memory_options(facts)
    limits = [int(told.get(pool.node.name) or number(facts.conf.worker_max_memory_per_child) or 0) for pool in pools]
    return [
        warn(
            "Every child is over worker_max_memory_per_child from the start: each is replaced after every task.",
            f"the smallest takes {_mib(smallest)}, the limit is {_mib(limit * KIB)}",
            fix="# in KiB; leave room for what tasks need:\n"
            + memory_line(facts, 2 * smallest // KIB, pool.node.name if pool.node.name in told else ""),
            subject=pool.node.name,
        )
        for pool, limit in zip(pools, limits, strict=True)
        if limit and pool.children and (smallest := min(child.rss for child in pool.children)) > limit * KIB
    ]


def _remote_memory(node: Node) -> Outcome:
    usage = node.stats.get("rusage")
    most = usage.get("maxrss") if isinstance(usage, dict) else None
    # in KiB, but on macOS, which cannot be told from here
    figure = f"main process: {_mib(most * KIB)} at most so far" if isinstance(most, int) else ""
    return ok("It is not on this machine: its children are not seen here.", figure, subject=node.name)


# --- replaced ones


def _restarts(facts: Facts) -> list[Outcome]:
    return [_replaced(facts, pool) for pool in _local_pools(facts) if pool.children]


def _replaced(facts: Facts, pool: _Pool) -> Outcome:
    oldest = min(child.created for child in pool.children)
    # none of the first ones may be left
    since = min(oldest, (pool.node.started or oldest) + FORKED_SECONDS)
    later = [child for child in pool.children if child.created > since + REPLACED_SECONDS]
    figure = f"{len(later)} of {len(pool.children)} children started later"
    if not later:
        return ok("All children are the first ones.", figure, subject=pool.node.name)
    why = _recycled_by(facts, pool)
    if why:
        told = f"{why} replaces children; were they killed, the worker's log would have WorkerLostError"
        return ok(told, figure, subject=pool.node.name)
    return warn(
        "Children were replaced though nothing is set that replaces them: they were killed (SIGKILL, mostly for "
        "memory), crashed, or pool_grow added them. Look for WorkerLostError in the worker's log.",
        figure,
        fix="# whether the kernel killed them (as root):\ndmesg -T | grep -i 'killed process'\n"
        "# have them replaced before they are too large (in KiB: 512000 is 500 MB):\n"
        + setting(facts.app, "worker_max_memory_per_child", 512000),
        subject=pool.node.name,
    )


def _recycled_by(facts: Facts, pool: _Pool) -> str:
    """What has children of this pool replaced in good order; empty: nothing that is known."""
    most = (pool.node.stats.get("pool") or {}).get("max-tasks-per-child")
    local = facts.workers.get().local.get(pool.node.pid)
    # by itself it replaces nobody before that many have run
    if isinstance(most, int) and 0 < most <= sum(pool.node.totals.values()):
        return "max_tasks_per_child"
    if facts.conf.worker_max_memory_per_child or (local and local.recycles):
        return "max_memory_per_child"
    return "--autoscale" if pool.node.autoscales else ""


POOL_CHECKS: Final = (
    Check("workers.concurrency", "children of prefork pools against the CPUs here", _concurrency),
    Check("workers.memory", "memory of the workers' processes against what there is", _memory),
    Check("workers.restarts", "children that are younger than the first ones", _restarts),
)


class _Fix(NamedTuple):
    """Lines, at a Redis and at a RabbitMQ; ``_urls`` and ``_lines`` have what is in braces."""

    cause: str
    """A part of what ``why_not`` says."""
    redis: str
    amqp: str = ""
    """Empty: the same, or nothing that is known of one."""


_LOGIN: Final = (
    "# with the user and the password that are right; of # / ? % @ : in them, write %23 %2F %3F %25 %40 %3A:\n{login}"
)
_CA: Final = "# with the CA that signed its certificate:\nimport ssl\n{use_ssl}"
_CLIENT: Final = "# with a certificate of your own, signed by a CA that it knows:\nimport ssl\n{use_ssl_client}"
_NO_TLS: Final = "# without TLS, and without broker_use_ssl; or with the port at which it speaks TLS:\n{plain}"
_WANTS_TLS: Final = "# if that port wants TLS:\n{tls}\n{look}"
_ADDRESS: Final = "# the address that is right:\n{other}"
_AWAY: Final = (
    "# see that it runs at {place}, and that no firewall is between; or give the address that is right:\n{other}\n"
    "{look}"
)
_START: Final = "# start what is to listen at {place}, or give the address that is right:\n{other}\n{look}"

_FIXES: Final = (
    _Fix(
        "no room for one more client",
        "# as soon as a connection is free, have live workers keep fewer:\n"
        "celery -A {app} argsize doctor --apply-pool-shrink\n"
        "# or let it take more: in its redis.conf; hosted, with a larger plan:\nmaxclients 10000",
    ),
    _Fix(
        "user name and password",
        _LOGIN,
        _LOGIN + "\n# on the broker's machine, to try them; guest may only come from "
        "there:\nrabbitmqctl authenticate_user USER PASSWORD",
    ),
    _Fix("wants a password", _LOGIN),
    _Fix("(NOPERM)", "{cli} ACL SETUSER NAME '~*' '&*' +@all -@dangerous +info"),
    _Fix(
        "(maxmemory)",
        "# what is in it: see redis.queues and redis.results; then more memory, or fewer keys:\n"
        "{cli} INFO memory\n{cli} CONFIG SET maxmemory SIZE  # more than now, such as 512mb",
    ),
    _Fix("it is a replica", "# master_host and master_port are there; give that URL:\n{cli} INFO replication\n{other}"),
    _Fix("(MISCONF)", "# why it could not save; mostly the disk is full:\n{cli} INFO persistence\ndf -h"),
    _Fix("still loading", "# nothing: it takes connections once it has loaded. How far it is:\n{cli} INFO persistence"),
    _Fix("no database of that number", "# a number below its setting databases (16 by default):\n{first}"),
    _Fix(
        "vhost",
        "",
        "# on the broker's machine, to see which there are, and to make it:\nrabbitmqctl list_vhosts\n"
        "rabbitmqctl add_vhost {vhost}\n# and for the user to use it:\n"
        "rabbitmqctl set_permissions -p {vhost} USER '.*' '.*' '.*'",
    ),
    _Fix("another host name", "# with the name that is in its certificate:\n{other}"),
    _Fix(
        "has expired",
        "# renew its certificate, on the broker's machine. Until when it is valid:\n"
        "openssl s_client -connect {place} </dev/null | openssl x509 -noout -dates",
    ),
    _Fix("CERTIFICATE_VERIFY_FAILED", _CA),
    _Fix("client certificate", _CLIENT),
    _Fix("speaks no TLS", _NO_TLS),
    _Fix("TLS handshake failed", f"{_NO_TLS}\n{_CA}"),
    _Fix("refused", _START),
    _Fix("name is not known", _ADDRESS),
    _Fix("could not be looked up", _ADDRESS),
    _Fix("no such socket", "# its unixsocket, or the files that broker_use_ssl names:\n{other}"),
    _Fix(
        "no sentinel",
        "# the name that its sentinels have for the primary, with what else is in it:\n{master_name}\n"
        "# to see it:\nredis-cli -h SENTINEL -p 26379 SENTINEL masters",
    ),
    _Fix("closed the connection", _WANTS_TLS),
    _Fix("a library is missing", "pip install 'celery[redis]'", "pip install celery"),
    _Fix("does not know the scheme", "{other}\n# or amqp://, sqs://, …: what Celery calls transports"),
    _Fix("", _AWAY),
)


def broker_fix(app: Celery, url: str, why: str) -> str:
    """Lines to paste where the broker at *url*, which has no secrets in it, cannot be used because of *why*."""
    scheme = url.partition(":")[0]
    amqp, redis = "amqp" in scheme, any(part in scheme for part in ("redis", "sentinel", "socket", "unix"))
    if not amqp and not redis and "the scheme" not in why and "library" not in why:
        return f"# see that it can be reached, and that the user and the password are right:\n{_broker_url(app, url)}"
    fix = next(one for one in _FIXES if one.cause in why)
    return ((amqp and fix.amqp) or fix.redis or fix.amqp).format(**_urls(app, url, amqp=amqp), **_lines(app, amqp=amqp))


def _urls(app: Celery, url: str, *, amqp: bool) -> dict[str, str]:
    """The words that come of the URL."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    tls = scheme in {"rediss", "amqps", "rediss+sentinel"}
    plain, secure, port = ("amqp", "amqps", 5671 if tls else 5672) if amqp else ("redis", "rediss", 6379)
    secret = "USER:PASSWORD@" if amqp else ":PASSWORD@"
    other = f"{secure if tls else plain}://{secret}HOST:{port}/{path if amqp else 0}"
    several = ";" in url or "," in place or "sentinel" in scheme  # what is in these is not taken apart
    other = f"{scheme}://{secret}HOST:26379/0" if "sentinel" in scheme else other
    file = not place and ("socket" in scheme or scheme == "unix")
    other = f"{scheme}:///path/of/redis.sock" if file else other
    client = f"-s {shlex.quote(f'/{path}')}" if file else "-h HOST" if several else f"-u {shlex.quote(url)}"
    see = "on the broker's machine, to see whether it runs" if amqp else "to see whether it answers"
    whole = {
        "login": f"{scheme}://{secret}{place}{slash}{path}",
        "first": f"{scheme}://{secret}{place}/0",
        "plain": f"{plain}://{secret}{place}{slash}{path}",
        "tls": f"{secure}://{secret}{place}{slash}{path}",
    }
    return {
        "place": place or f"/{path}",
        "vhost": shlex.quote(unquote(path) or "/"),
        "cli": f"redis-cli {client}",
        "look": f"# {see}:\n{'rabbitmqctl status' if amqp else f'redis-cli {client} ping'}",
        "other": _broker_url(app, other),
        **{name: _broker_url(app, other if several else one) for name, one in whole.items()},
    }


def _lines(app: Celery, *, amqp: bool) -> dict[str, str]:
    """The words that are settings."""
    prefix = "" if amqp else "ssl_"
    line = setting(app, "broker_use_ssl", 0).partition(" = ")[0]
    verified = f'"{prefix}cert_reqs": ssl.CERT_REQUIRED, "{prefix}ca_certs": "/path/of/ca.pem"'
    own = f'"{prefix}certfile": "/path/of/own.pem", "{prefix}keyfile": "/path/of/own.key"'
    return {
        "app": word_of(app),
        "use_ssl": f"{line} = {{{verified}}}",
        "use_ssl_client": f"{line} = {{{verified}, {own}}}",
        "master_name": setting(app, "broker_transport_options", {"master_name": "mymaster"}),
    }


def _broker_url(app: Celery, url: str) -> str:
    """The line of the setting that workers read."""
    conf: Any = app.conf
    line = setting(app, "broker_url" if conf.broker_read_url == conf.broker_url else "broker_read_url", url)
    several = isinstance(conf.broker_url, (list, tuple)) or ";" in str(conf.broker_url)
    return f"{line}  # with the others of the list" if several else line


CHECKS: Final[tuple[Check, ...]] = (
    Check("broker.reachable", "a connection to the broker", _reachable, vital=True),
    Check("workers.answering", "who answers a ping", _answering, vital=True),
    Check("workers.silent", "workers that are known and do not answer", _silent),
    Check("workers.heartbeats", "worker-heartbeat events, their gaps and clocks", _heartbeats),
    *POOL_CHECKS,
    *QUEUE_CHECKS,
    Check("workers.registered", "the tasks of workers that share a queue", _registered),
)
