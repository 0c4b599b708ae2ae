"""psycopg 3 through PgBouncer in transaction mode, which has pgnorth as its server. Logins are those of PgBouncer: it logs that one has begun, and not that it
is complete. They have a role of their own, because PgBouncer sends no application_name when it logs in.
"""

import os
import pathlib
import re
import subprocess
import tempfile
import threading
import time

import load
import psycopg

# pgnorth holds a login for up to --hold; after a failed one, PgBouncer waits before the next.
RECOMMENDED = "server_connect_timeout = 90\nserver_login_retry = 1" if load.SAFE else ""
TLS = f"server_tls_sslmode = verify-full\nserver_tls_ca_file = {load.CA}" if load.CA else "server_tls_sslmode = disable"

folder = pathlib.Path(tempfile.mkdtemp(prefix="pgbouncer."))
folder.chmod(0o755)
(folder / "users").write_text(f'"{load.NAME}" "rig"\n')
(folder / "pgbouncer.ini").write_text(
    f"""[databases]
postgres = host={load.HOSTS} port={load.PORTS}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
listen_port = 6432
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 3
{RECOMMENDED}
{TLS}
"""
)
as_postgres = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if os.geteuid() == 0 else []
if as_postgres:
    subprocess.run(["chown", "-R", "postgres:", str(folder)], check=True)
log = open(folder / "log", "w")
pooler = subprocess.Popen([*as_postgres, "/usr/sbin/pgbouncer", str(folder / "pgbouncer.ini")], stdout=log, stderr=log)
deadline = time.monotonic() + 30
while not (folder / ".s.PGSQL.6432").exists():
    assert pooler.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
    time.sleep(0.02)

kept = threading.local()


def insert():
    if getattr(kept, "connection", None) is None:
        # PgBouncer before 1.21 knows no prepared statements in transaction mode.
        kept.connection = psycopg.connect(
            host=str(folder), port=6432, user=load.NAME, dbname="postgres", autocommit=True, prepare_threshold=None
        )
    try:
        kept.connection.execute(load.INSERT)
    except Exception:
        # It stays open after an error that PgBouncer sent; after any other, it is gone.
        if kept.connection.closed:
            kept.connection = None
        raise


def account():
    pooler.terminate()
    pooler.wait()
    load.ACCOUNT.begun = len(re.findall(r" S-.* new connection to server", (folder / "log").read_text()))
    load.ACCOUNT.completed = None


load.serve(insert, account)
