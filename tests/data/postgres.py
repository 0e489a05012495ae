"""A real PostgreSQL server of the tests' own, on loopback and in a directory that goes away."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

PASSWORD = "sesame, open: 100%"


def find_binaries() -> Path | None:
    """The directory of Debian's newest initdb, or of the one on PATH; None where there is no server."""
    debian = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: float(p.split("/")[-2]))
    if debian and Path(debian[-1], "initdb").exists():
        return Path(debian[-1])
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found and shutil.which("pg_ctl") else None


class Server:
    """`start`, `stop` (immediate: connections are cut), `remove`; `url` is a SQLAlchemy URL with the password in it."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._root = Path(tempfile.mkdtemp(prefix="p2pfed-postgres-"))
        self._root.chmod(0o755)
        self._data = self._root / "data"
        self._data.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self._root / "password"
        secret.write_text(PASSWORD)
        if self._owner:
            for path in (self._root, self._data, secret):
                os.chown(path, self._owner.pw_uid, self._owner.pw_gid)
        self._run(
            "initdb", "-D", self._data, "-U", "bank", "-A", "scram-sha-256", f"--pwfile={secret}", "-N", "-E", "UTF8"
        )

    @property
    def _owner(self) -> pwd.struct_passwd | None:
        """PostgreSQL refuses to run as root: then it runs as its own user, or as nobody."""
        if os.geteuid() != 0:
            return None
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        return names.get("postgres") or names["nobody"]

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://bank:{quote(PASSWORD)}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-l", self._data / "log", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", "60", "-m", "immediate", "stop")

    def remove(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._root)

    def execute(self, *statements: str) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="bank", password=PASSWORD, dbname="postgres"
        ) as link:
            for statement in statements:
                link.execute(statement)

    def _run(self, program: str, *arguments: Any) -> None:
        identity: dict[str, Any] = {}
        if self._owner:
            identity = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        subprocess.run(
            [self._binaries / program, *map(str, arguments)],
            check=True,
            cwd=self._root,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            **identity,
        )
