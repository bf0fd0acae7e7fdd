"""Tests of examples/social_sync as its README says to run it: honcho, a web process, a worker for each queue, Beat."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from support import examples
from support.examples import FOLDER, running_example
from support.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil
    from support.examples import Example

APP = "social_sync.app"
SETTINGS = {
    "POSTS_EVERY": "1",
    "COMMENTS_EVERY": "2",
    "BATCH_SECONDS": "1",
    "REPLY_SECONDS": "1",
    "INGEST_CONCURRENCY": "4",
    "CELERY_POOL_LIMIT": "3",
    "CELERY_RESULT_MAX_CONNECTIONS": "6",
    "CELERY_TASK_IGNORE_RESULT": "0",
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": "0",
}

#: A program: many threads take what is due at the same time. It prints everything that they were given.
TAKERS = """
import json, threading
from social_sync import store

for number in range(300):
    store.add_message(f"m{number}", f"sender-{number}", "Hi")
    store.add_post("Hi", 0)
taken, start = [], threading.Barrier(8)

def take():
    start.wait()
    while batches := list(store.take_due_batches()):
        taken.extend(sender for sender, _ in batches)
    while posts := store.take_due_posts():
        taken.extend(posts)

takers = [threading.Thread(target=take) for _ in range(8)]
for taker in takers:
    taker.start()
for taker in takers:
    taker.join()
print(json.dumps(taken))
"""


#: A program: scans, each in a process of its own, that fail before they send what they took, or before they drop it.
#: The next scan comes when it is due again. It prints how the processes ended.
FAILING_SCANS = """
import json, os, signal, sys, time
from kombu.exceptions import OperationalError
from social_sync import store, tasks

def without_broker():
    os.environ["CELERY_BROKER_URL"] = "redis://127.0.0.1:1/0"

def killed_before_it_sends():
    tasks.process_message.delay = tasks.publish_post.delay = kill

def killed_once_it_has_sent():
    store.drop_batch = store.drop_post = kill

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def ended(prepare, scan, due):
    while (due() or sys.exit("it is lost")) > time.time():
        time.sleep(0.02)
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    prepare()
    try:
        scan()
    except OperationalError:
        os._exit(1)
    os._exit(0)

sender, post = sys.argv[1:]
scans = {
    tasks.scan_redis_batches: lambda: store.client.zscore(store.BATCHES, sender),
    tasks.enqueue_due_posts: lambda: store.client.zscore(store.POSTS, post),
}
ways = (without_broker, killed_before_it_sends, killed_once_it_has_sent)
print(json.dumps({way.__name__: [ended(way, scan, due) for scan, due in scans.items()] for way in ways}))
"""


@pytest.fixture(scope="module")
def social(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    with running_example("social_sync", tmp_path_factory.mktemp("social"), **SETTINGS) as example:
        yield example
        example.stop()


def worker(example: Example, queue: str = "ingest") -> list[psutil.Process]:
    """The main process of the worker for *queue*, and then its children."""
    group = [process for process in example.processes() if f"{queue}@%h" in process.cmdline()]
    return sorted(group, key=lambda process: process.parent() in group)


@contextmanager
def held(example: Example, queue: str = "ingest") -> Iterator[None]:
    """Suspend the worker of *queue* during a ``with`` block, so that nothing is taken from the queue."""
    processes = worker(example, queue)
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def send(example: Example, message_id: str, sender: str, text: str, **more: str) -> Any:
    status, answer = example.post("/webhook", {"id": message_id, "sender": sender, "text": text, **more})
    assert status == 200
    return answer


def handed_over(example: Example) -> int:
    """How many batches were handed over so far, as the log says: figures come later."""
    return len(re.findall(r"Task process_message\[[\w-]+\] received", example.log))


def reply_to(example: Example, message_id: str) -> str | None:
    reply: str | None = example.get(f"/messages/{message_id}")[1]["reply"]
    return reply


def test_the_webhook_answers_before_anything_is_done_and_all_of_it_is_done_later(social: Example) -> None:
    with held(social):
        assert send(social, "held", "ana", "Hola", document="one two three four five six") == {"new": True}
        assert social.get("/messages/held") == (200, {"text": "Hola", "summary": None, "reply": None})
    wait_until(lambda: reply_to(social, "held"), what="the reply")
    summary = wait_until(lambda: social.get("/messages/held")[1]["summary"], what="the summary")
    assert summary == "6 words, the first: one two three four five"


@pytest.mark.slow
def test_a_message_that_is_sent_twice_is_answered_once_together_with_what_its_sender_wrote_then(
    social: Example,
) -> None:
    with held(social):
        new = [send(social, name, "bo", name)["new"] for name in ("first", "second", "first", "third")]
    assert new == [True, True, False, True]
    reply = wait_until(lambda: reply_to(social, "third"), what="the reply")
    assert reply == "Thank you! You wrote: first / second / third"
    assert [reply_to(social, name) for name in ("first", "second")] == [reply, reply]
    assert social.log.count("Replied to bo:") == 1


@pytest.mark.slow
def test_however_many_scan_at_once_each_batch_is_handed_over_once(social: Example) -> None:
    before = handed_over(social)
    senders = [f"sender-{number}" for number in range(8)]
    with held(social), Celery(broker=social.redis_url) as producer:
        for sender in senders:
            send(social, f"from-{sender}", sender, "Hi")
        for _ in range(100):
            producer.send_task("scan_redis_batches", queue="ingest", ignore_result=True)
        due = time.monotonic() + float(SETTINGS["BATCH_SECONDS"])
        wait_until(lambda: time.monotonic() > due, what="the batches being due")
    wait_until(lambda: all(reply_to(social, f"from-{sender}") for sender in senders), what="the replies")
    wait_until(lambda: social.runs()["process_message"] >= handed_over(social), what="the figures")
    assert {sender: social.log.count(f"Replied to {sender}:") for sender in senders} == dict.fromkeys(senders, 1)
    assert handed_over(social) == social.runs()["process_message"] == before + len(senders)


def test_of_many_who_take_what_is_due_nobody_is_given_what_another_has(social: Example) -> None:
    apart = ["env", f"STATE_URL={social.redis_url.removesuffix('0')}5", "BATCH_SECONDS=0"]
    taken = json.loads(social.run(*apart, "python", "-c", TAKERS))
    assert len(taken) == len(set(taken)) == 600


@pytest.mark.slow
def test_a_message_whose_process_is_killed_is_answered_all_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    work = tmp_path_factory.mktemp("killed")
    # Long enough that the process is killed in the middle of its task, however busy the machine is.
    with running_example("social_sync", work, **SETTINGS | {"REPLY_SECONDS": "8"}) as social:

        def received() -> list[str]:
            return re.findall(r"Task process_message\[([\w-]+)\] received", social.log)

        _, *children = worker(social)
        send(social, "killed", "chen", "Hello?")
        # A task is active once a process has taken it. Before that, another process would run it.
        wait_until(lambda: social.inspect(APP, "active")["ingest"], what="the task in a process")
        for process in children:
            process.kill()
        wait_until(lambda: reply_to(social, "killed"), what="the reply")
        assert received() == [received()[0]] * 2
        assert social.log.count("Replied to chen:") == 1


@pytest.mark.slow
def test_what_a_scan_took_that_fails_or_is_killed_is_taken_again_and_done_once(social: Example) -> None:
    before = Counter(social.runs())

    def has_run_twice(task: str) -> bool:
        return social.runs()[task] >= before[task] + 2

    with held(social), held(social, "scheduler"):
        post = social.post("/posts", {"text": "Taken"})[1]["id"]
        send(social, "taken", "gus", "Hi")
        failing = social.run("env", "TAKEN_SECONDS=0.5", "python", "-c", FAILING_SCANS, "gus", post)
        assert json.loads(failing) == {
            "without_broker": [1, 1],
            "killed_before_it_sends": [-signal.SIGKILL] * 2,
            "killed_once_it_has_sent": [-signal.SIGKILL] * 2,
        }
        assert reply_to(social, "taken") is None
    wait_until(lambda: reply_to(social, "taken"), what="the reply")
    wait_until(lambda: social.get(f"/posts/{post}")[1]["comments"], what="the post")
    for task in ("process_message", "publish_post"):
        wait_until(partial(has_run_twice, task), what=f"{task}, sent twice")
    assert social.log.count("Replied to gus:") == 1
    assert social.log.count(f"Published: {post}") == 1
    with redis.Redis.from_url(social.env["STATE_URL"]) as client:
        assert client.zscore("batches", "gus") is client.zscore("posts", post) is None


def test_a_post_is_published_once_when_it_is_due_and_its_comments_are_polled(social: Example) -> None:
    def shown(post: dict[str, str]) -> dict[str, Any]:
        page: dict[str, Any] = social.get(f"/posts/{post['id']}")[1]
        return page

    _, later = social.post("/posts", {"text": "Later", "due_in": 3600})
    status, now = social.post("/posts", {"text": "Now"})
    assert status == 201
    wait_until(lambda: shown(now)["comments"], what="comments")
    first = shown(now)
    assert first["text"] == "Now"
    assert first["published"] is not None
    polls = social.runs()["poll_post_comments"]
    wait_until(lambda: social.runs()["poll_post_comments"] > polls, what="one more poll")
    assert shown(now) == first
    assert shown(later) == {"text": "Later", "published": None, "comments": []}
    assert social.log.count(f"Published: {now['id']}") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [("scan-batches", 0.5), ("enqueue-posts", 1), ("poll-comments", 2)])
def test_one_beat_sends_each_periodic_task_at_its_pace(social: Example, name: str, seconds: float) -> None:
    line = re.compile(rf"\[([\d :-]+,\d+): INFO/MainProcess\] Scheduler: Sending due task {name} ")

    def sent() -> list[float]:
        found = (f"{at.replace(',', '.')}000+00:00" for at in line.findall(social.log))
        return [datetime.fromisoformat(at).timestamp() for at in found]

    wait_until(lambda: len(sent()) >= 4, what=f"{name} sent four times")
    assert min(after - before for before, after in pairwise(sent())) > 0.8 * seconds


def test_each_queue_has_a_worker_with_a_concurrency_of_its_own(social: Example) -> None:
    queues = social.inspect(APP, "active_queues")
    assert {worker: [queue["name"] for queue in taken] for worker, taken in queues.items()} == {
        "ingest": ["ingest"],
        "scheduler": ["scheduler"],
        "comments": ["comments"],
    }
    pools = {worker: stats["pool"]["max-concurrency"] for worker, stats in social.inspect(APP, "stats").items()}
    assert pools == {"ingest": 4, "scheduler": 1, "comments": 1}


def test_its_workers_honor_the_environment(social: Example) -> None:
    for conf in social.inspect(APP, "conf").values():
        assert conf["broker_pool_limit"] == 3
        assert conf["redis_max_connections"] == 6
        assert conf["task_ignore_result"] is False
        assert conf["broker_connection_retry_on_startup"] is False


def test_without_a_word_its_periods_are_the_ones_of_its_readme() -> None:
    code = "import json; from social_sync.app import app; print(json.dumps(app.conf.beat_schedule))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)
    assert {(entry["task"], entry["schedule"]) for entry in json.loads(done.stdout).values()} == {
        ("scan_redis_batches", 0.5),
        ("enqueue_due_posts", 60),
        ("poll_post_comments", 300),
    }


def test_meta_gets_its_challenge_back_only_with_the_token(social: Example) -> None:
    page = "/webhook?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    assert social.get(page + "secret") == (200, 1158201444)
    assert social.get(page + "guessed")[0] == 403


def test_the_report_has_all_its_tasks(social: Example) -> None:
    send(social, "reported", "eva", "Hi", document="words")
    social.post("/posts", {"text": "Soon", "due_in": 0})
    wait_until(lambda: len(social.runs()) == 6, what="six tasks")
    report = json.loads(social.run("celery", "-A", APP, "argsize", "report", "--json"))
    assert report["apps"] == ["social_sync"]
    assert set(report["tasks"]) == {
        *("process_message", "process_document", "scan_redis_batches"),
        *("publish_post", "enqueue_due_posts", "poll_post_comments"),
    }


def test_only_whole_numbers_are_taken_for_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = iter([38092, 6392])
    monkeypatch.setattr(examples, "free_port", lambda: next(ports))
    text = "REDIS_PORT=6392\nWEB_PORT=8092\nSTATE_URL=redis://127.0.0.1:6392/1\nOTHER=16392 63920\n"
    assert examples._on_free_ports(text) == (
        "REDIS_PORT=38092\nWEB_PORT=6392\nSTATE_URL=redis://127.0.0.1:38092/1\nOTHER=16392 63920\n"
    )


@pytest.mark.slow
def test_stopped_while_it_writes_a_reply_it_leaves_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_example("social_sync", tmp_path_factory.mktemp("social"), REPLY_SECONDS="30") as example:
        send(example, "late", "dora", "Hi")
        wait_until(lambda: re.search(r"Task process_message\[[\w-]+\] received", example.log), what="the task")
        example.stop(signal.SIGTERM)
