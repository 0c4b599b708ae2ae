"""What the Python clients share: workers that insert one row at a time through a pool, until standard input ends; then an account of it as JSON.

CLIENT_HOSTS, CLIENT_PORTS: the addresses, with commas between; CLIENT_NAME: application_name, and the rows' column `client`; CLIENT_CA: an authority, for
TLS with verify-full; CLIENT_SAFE: `yes` for the settings that docs/operating/clients.md recommends, otherwise the pool's own.
"""

import asyncio
import collections
import json
import os
import sys
import threading
import time

NAME, HOSTS, PORTS = (os.environ[f"CLIENT_{name}"] for name in ["NAME", "HOSTS", "PORTS"])
CA = os.environ.get("CLIENT_CA", "")
SAFE = os.environ.get("CLIENT_SAFE") == "yes"
WORKERS = 3
PAUSE = 0.03
INSERT = f"insert into driven (client) values ('{NAME}')"
USER = {"user": "postgres", "password": "rig", "dbname": "postgres"}
TLS = {"sslmode": "verify-full", "sslrootcert": CA, "channel_binding": "require"} if CA else {"sslmode": "disable"}
LIBPQ = {"host": HOSTS, "port": PORTS, "application_name": NAME, **USER, **TLS}


class Account:
    """Counts of logins begun and completed, of rows and errors, and the longest time for a row."""

    def __init__(self):
        self.begun = self.completed = self.rows = 0
        self.longest = 0.0
        self.errors = collections.Counter()
        self.lock = threading.Lock()
        self.over = threading.Event()

    def login(self, connect):
        """Calls a function that logs in, and counts it."""
        with self.lock:
            self.begun += 1
        connection = connect()
        with self.lock:
            self.completed += 1
        return connection

    async def login_async(self, connect):
        self.begun += 1
        connection = await connect()
        self.completed += 1
        return connection

    def row(self, began):
        with self.lock:
            self.rows += 1
            self.longest = max(self.longest, time.monotonic() - began)

    def error(self, error):
        cause = getattr(error, "orig", None) or getattr(error, "__cause__", None) or error
        code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
        with self.lock:
            self.errors[" ".join(filter(None, [type(error).__name__, code]))] += 1

    def show(self):
        print(json.dumps({"begun": self.begun, "completed": self.completed, "rows": self.rows, "longest": self.longest, "errors": self.errors}), flush=True)


ACCOUNT = Account()


def serve(insert, account=lambda: None):
    """Runs `insert`, which takes a connection from the pool and inserts one row, in each worker. `account` is called at the end."""

    def work():
        while not ACCOUNT.over.is_set():
            began = time.monotonic()
            try:
                insert()
                ACCOUNT.row(began)
            except Exception as error:
                ACCOUNT.error(error)
            time.sleep(PAUSE)

    workers = [threading.Thread(target=work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    sys.stdin.read()
    ACCOUNT.over.set()
    for worker in workers:
        worker.join()
    account()
    ACCOUNT.show()
    os._exit(0)  # a pool's threads may wait


async def serve_async(insert):
    async def work():
        while not ACCOUNT.over.is_set():
            began = time.monotonic()
            try:
                await insert()
                ACCOUNT.row(began)
            except Exception as error:
                ACCOUNT.error(error)
            await asyncio.sleep(PAUSE)

    workers = [asyncio.create_task(work()) for _ in range(WORKERS)]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    ACCOUNT.over.set()
    await asyncio.gather(*workers)
    ACCOUNT.show()
    os._exit(0)
