"""Calls libpq for one client. Each line of standard input is a request in JSON, and each is answered by one line.

psycopg.connect would try the hosts one by one itself, so this uses PQconnectdb, which tries them as libpq does.
"""

import json
import select
import sys

from psycopg import OperationalError, pq

session = None


def connect(conninfo):
    global session
    session = pq.PGconn.connect(conninfo.encode())
    if session.status != pq.ConnStatus.OK:
        return failure(session)
    return {}


def execute(sql):
    result = session.exec_(sql.encode())
    if result.status != pq.ExecStatus.TUPLES_OK:
        state = result.error_field(pq.DiagnosticField.SQLSTATE) or b""
        return failure(result) | {"sqlstate": state.decode()}
    return {"row": [result.get_value(0, column).decode() for column in range(result.nfields)]}


def wait_for_end(_):
    """Returns when the server has closed the session."""
    try:
        while session.status == pq.ConnStatus.OK:
            select.select([session.socket], [], [])
            session.consume_input()
    except OperationalError:
        pass
    return {}


def close(_):
    session.finish()
    return {}


def failure(of):
    return {"error": " ".join(of.error_message.decode(errors="replace").split())}


for line in sys.stdin:
    request = json.loads(line)
    call = {"connect": connect, "execute": execute, "wait_for_end": wait_for_end, "close": close}[request["call"]]
    print(json.dumps(call(request.get("text"))), flush=True)
