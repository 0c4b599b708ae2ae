"""Connects with libpq itself, through ctypes: `libpq.py PATH_OF_LIBRARY`. try.py says which lines it reads and writes."""

import ctypes
import sys

import lines

library = ctypes.CDLL(sys.argv[1])
library.PQconnectdb.restype = ctypes.c_void_p
library.PQconnectdb.argtypes = [ctypes.c_char_p]
library.PQerrorMessage.restype = ctypes.c_char_p
library.PQerrorMessage.argtypes = [ctypes.c_void_p]
library.PQstatus.argtypes = [ctypes.c_void_p]
library.PQexec.restype = ctypes.c_void_p
library.PQexec.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
library.PQgetvalue.restype = ctypes.c_char_p
library.PQgetvalue.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
library.PQclear.argtypes = [ctypes.c_void_p]
library.PQfinish.argtypes = [ctypes.c_void_p]


class ConnectionBad(Exception):
    pass


def connect(case):
    connection = library.PQconnectdb(lines.conninfo(case).encode())
    try:
        if library.PQstatus(connection) != 0:
            raise ConnectionBad(library.PQerrorMessage(connection).decode())
        result = library.PQexec(connection, b"show port")
        port = library.PQgetvalue(result, 0, 0).decode()
        library.PQclear(result)
        return port
    finally:
        library.PQfinish(connection)


lines.serve(connect, f"libpq {lines.dotted(library.PQlibVersion())}")
