#!/usr/bin/env python3
"""Load on a PostgreSQL address, from a pod, and what its clients saw.

    load.py HOST          connects again and again until it is ended; one JSON line for each attempt in LOG
    load.py since TIME    prints the counts of the attempts that ended after TIME (seconds since 1970) as JSON
"""

import json
import sys
import threading
import time

import psycopg

LOG = "/tmp/load.jsonl"
SHORT = 4
LONG = 6
# A long session is well below the time that pgnorth gives its sessions when it is stopped.
STATEMENTS = 15
PAUSE = 0.1
# Longer than pgnorth holds a client: what it refuses is counted as refused, not as a client's own deadline.
CONNECT_TIMEOUT = 15
# A server that stops ends the logins that are under way: by this message, or without one before authentication is over.
CUT = ("server closed the connection unexpectedly", "terminating connection due to administrator command")

lock = threading.Lock()
log = None


def note(**line):
    line["end"] = time.time()
    with lock:
        log.write(json.dumps(line) + "\n")
        log.flush()


def one_line(error):
    return " ".join(str(error).split())[:200]


def connect(host):
    return psycopg.connect(
        host=host,
        user="postgres",
        dbname="postgres",
        connect_timeout=CONNECT_TIMEOUT,
        autocommit=True,
        # A lost node answers nothing at all.
        options="-c statement_timeout=5000",
        tcp_user_timeout=5000,
    )


def client(host, statements):
    """Connects and runs the statements, again and again. A connection that is open is a session."""
    while True:
        begin = time.time()
        try:
            connection = connect(host)
        except psycopg.Error as error:
            note(kind="connection", begin=begin, ok=False, error=one_line(error))
            time.sleep(PAUSE)
            continue
        note(kind="connection", begin=begin, ok=True)
        try:
            recovery = False
            with connection:
                for _ in range(statements):
                    recovery |= connection.execute("select pg_is_in_recovery()").fetchone()[0]
                    time.sleep(PAUSE)
                if not recovery:
                    connection.execute("insert into load default values")
            note(kind="session", ok=True, standby=recovery)
        except psycopg.Error as error:
            note(kind="session", ok=False, error=one_line(error))


def run(host):
    global log
    while True:
        try:
            with connect(host) as connection:
                connection.execute("create table if not exists load (at timestamptz default now())")
            break
        except psycopg.Error as error:
            print(one_line(error), flush=True)
            time.sleep(0.5)
    log = open(LOG, "w")
    for statements in [1] * SHORT + [STATEMENTS] * LONG:
        threading.Thread(target=client, args=(host, statements), daemon=True).start()
    threading.Event().wait()


def since(start):
    lines = [json.loads(line) for line in open(LOG)]
    lines = [line for line in lines if line["end"] >= start]
    connections = sorted((line for line in lines if line["kind"] == "connection"), key=lambda line: line["end"])
    good = [line for line in connections if line["ok"]]
    cut = sum(not line["ok"] and any(text in line["error"] for text in CUT) for line in connections)
    opened = [line for line in lines if line["kind"] == "session"]
    ends = [start] + [line["end"] for line in good]
    errors = {}
    for line in lines:
        if not line["ok"]:
            errors[line["error"]] = errors.get(line["error"], 0) + 1
    print(
        json.dumps(
            {
                "connections": len(connections),
                "refused": len(connections) - len(good) - cut,
                "cut": cut,
                "longest_wait": round(max((line["end"] - line["begin"] for line in good), default=0), 2),
                "longest_gap": round(max((b - a for a, b in zip(ends, ends[1:])), default=0), 2),
                "standby": sum(line.get("standby", False) for line in lines),
                "sessions": len(opened),
                "broken": sum(not line["ok"] for line in opened),
                "last": round(time.time() - ends[-1], 2),
                "errors": errors,
            }
        )
    )


if sys.argv[1] == "since":
    since(float(sys.argv[2]))
else:
    run(sys.argv[1])
