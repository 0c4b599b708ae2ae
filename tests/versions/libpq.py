"""Connects with libpq 18: over TLS, with the newest protocol that both sides know. Cancels a statement twice, by a request inside TLS and by one in clear.
Prints what it saw, as a cell of the table.

    libpq.py PORT CA_FILE sslnegotiation
"""

import select
import sys
import time

from psycopg import pq

DEADLINE = 30


def connect(port, authority, negotiation):
    options = f"host=127.0.0.1 port={port} user=postgres password=rig dbname=postgres connect_timeout=10 max_protocol_version=latest"
    tls = f"sslmode=verify-full sslrootcert={authority} sslnegotiation={negotiation} channel_binding=require"
    connection = pq.PGconn.connect(f"{options} {tls}".encode())
    if connection.status != pq.ConnStatus.OK:
        sys.exit(connection.error_message.decode())
    return connection


def cancelled(connection, cancel):
    """Cancels a long statement. A request that arrives before the statement has begun is lost, so they are repeated."""
    connection.send_query(b"select pg_sleep(60)")
    begun = time.monotonic()
    while connection.is_busy():
        if time.monotonic() - begun > DEADLINE:
            sys.exit("the statement was not cancelled")
        cancel()
        if select.select([connection.socket], [], [], 0.5)[0]:
            connection.consume_input()
    state = connection.get_result().error_field(pq.DiagnosticField.SQLSTATE)
    if state != b"57014":
        sys.exit(f"the statement ended with {state}")


def main(port, authority, negotiation):
    inside = connect(port, authority, negotiation)
    cancelled(inside, lambda: inside.cancel_conn().blocking())
    clear = connect(port, authority, negotiation)
    cancelled(clear, lambda: clear.get_cancel().cancel())
    version = inside.full_protocol_version
    tls = "direct TLS" if negotiation == "direct" else "TLS"
    print(f"{tls}, {version // 10000}.{version % 10000}, cancelled")


main(*sys.argv[1:])
