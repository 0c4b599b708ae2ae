"""Connects with psycopg 3."""

import lines
import psycopg


def connect(case):
    with psycopg.connect(lines.conninfo(case)) as connection:
        return connection.execute("show port").fetchone()[0]


lines.serve(connect, f"psycopg {psycopg.__version__} (libpq {lines.dotted(psycopg.pq.version())})")
