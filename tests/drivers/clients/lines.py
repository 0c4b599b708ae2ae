"""What the Python clients share: a case comes in as a line, its outcome goes out as a line."""

import collections
import sys

Case = collections.namedtuple("Case", "hosts sslmode negotiation rootcert")


def conninfo(case):
    hosts, ports = zip(*(host.split(":") for host in case.hosts.split(",")))
    text = f"host={','.join(hosts)} port={','.join(ports)} user=driver dbname=postgres sslmode={case.sslmode} gssencmode=disable"
    if case.negotiation:
        text += f" sslnegotiation={case.negotiation}"
    if case.sslmode.startswith("verify"):
        text += f" sslrootcert={case.rootcert}"
    return text


def serve(connect, version):
    print(version, flush=True)
    for line in sys.stdin:
        case = Case(*line.rstrip("\n").split("\t"))
        try:
            answer(f"port {connect(case)}", "", "")
        except Exception as error:
            code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
            answer(type(error).__name__, code, str(error))


def answer(*fields):
    print("\t".join(" ".join(field.split()) for field in fields), flush=True)


def dotted(version):
    """libpq's number of a version, as people write it."""
    return f"{version // 10000}.{version % 10000}"
