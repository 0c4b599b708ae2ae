"""Connects with psycopg2."""

import lines
import psycopg2


def connect(case):
    connection = psycopg2.connect(lines.conninfo(case))
    try:
        cursor = connection.cursor()
        cursor.execute("show port")
        return cursor.fetchone()[0]
    finally:
        connection.close()


libpq = psycopg2.extensions.libpq_version()
lines.serve(connect, f"psycopg2 {psycopg2.__version__.split()[0]} (libpq {lines.dotted(libpq)})")
