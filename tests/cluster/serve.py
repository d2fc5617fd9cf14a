"""A PostgreSQL server and a one-node Slurm from Debian's packages, for as long as a command runs.

`python serve.py COMMAND...` installs what is missing (apt-get, as root), starts both in a temporary folder
with ports and keys of their own, runs the command with HIMAP_TEST_POSTGRES, HIMAP_TEST_SLURM and SLURM_CONF
set, stops everything, and exits as the command did. Outside the folder only the installed packages stay.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "initdb": "postgresql",
}
POLICY = Path("/usr/sbin/policy-rc.d")
# Debian keeps daemons and PostgreSQL's programs out of a user's search path.
PLACES = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), "/usr/sbin", "/sbin"]

SLURM_CONF = """\
ClusterName=himap
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A job that is queued again waits until its old credential has expired, by default two minutes.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} MaxTime=60 PriorityTier=2 PreemptMode=OFF
"""


def main(command: Sequence[str]) -> int:
    if not command:
        print("serve.py: needs a command to run beside the servers", file=sys.stderr)
        return 2
    os.environ["PATH"] = os.pathsep.join([*PLACES, os.environ["PATH"]])
    if not install():
        return 1
    # A stop of any kind comes through the stack below, so that no daemon stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        # On a disk that munge trusts: all folders above belong to root.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="himap-cluster-", dir="/tmp")))
        folder.chmod(0o755)
        variables = {"HIMAP_TEST_POSTGRES": stack.enter_context(postgres(folder))}
        stack.enter_context(munge(folder))
        variables["SLURM_CONF"] = os.environ["SLURM_CONF"] = stack.enter_context(slurm(folder))
        variables["HIMAP_TEST_SLURM"] = "1"
        try:
            return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode
        except KeyboardInterrupt:
            return 130


def install() -> bool:
    """Install what is missing; False, with a line that says why, where that cannot be done."""
    missing = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    words = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0:
        print("make test-cluster: needs root (slurmd starts jobs as other users)", file=sys.stderr)
        return False
    if not missing:
        return True
    if shutil.which("apt-get") is None:
        print(f"make test-cluster: needs Debian's packages ({words})", file=sys.stderr)
        return False
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_services():
        subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        print(f"make test-cluster: cannot install what it needs ({words})", file=sys.stderr)
        return False
    os.environ["PATH"] = os.pathsep.join(
        [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True), os.environ["PATH"]]
    )
    return True


@contextmanager
def no_services() -> Iterator[None]:
    """Keep packages from starting their daemons, as Debian's policy has it."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server with an empty database; gives its URL."""
    data, port = folder / "postgres", free_port()
    data.mkdir()
    shutil.chown(data, "postgres")
    # The server refuses to run as root.
    user = ["runuser", "-u", "postgres", "--"]
    subprocess.run(
        [*user, "initdb", "-D", data, "-A", "trust", "-U", "himap", "--no-locale", "-E", "UTF8"],
        stdout=subprocess.DEVNULL,
        check=True,
        cwd="/",
    )
    at = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
    server = ["postgres", "-D", str(data), "-p", str(port), *at]
    ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    with daemon("postgres", [*user, *server], folder, lambda: succeeds(ready), stop=signal.SIGINT):
        yield f"postgresql://himap@127.0.0.1:{port}/postgres"


@contextmanager
def munge(folder: Path) -> Iterator[None]:
    """What Slurm's programs sign their messages with."""
    place = folder / "munge"
    place.mkdir(mode=0o755)
    key = place / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    sock = place / "socket"
    files = [f"--{name}-file={place / name}" for name in ("key", "pid", "log", "seed")]
    command = ["munged", "--foreground", "--force", f"--socket={sock}", *files]
    with daemon("munged", command, folder, sock.exists):
        yield


@contextmanager
def slurm(folder: Path) -> Iterator[str]:
    """A controller and one node of four cores, even where there are fewer; gives the configuration."""
    host = socket.gethostname().partition(".")[0]
    conf = folder / "slurm.conf"
    ports = {"controller_port": free_port(), "node_port": free_port()}
    conf.write_text(SLURM_CONF.format(host=host, folder=folder, **ports))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    at = {"SLURM_CONF": str(conf)}

    def idle() -> bool:
        command = ["sinfo", "--noheader", "--format=%T", "--partition=low"]
        done = subprocess.run(
            command, env={**os.environ, **at}, capture_output=True, text=True, check=False, timeout=20
        )
        return done.stdout.strip() == "idle"

    with (
        daemon("slurmctld", ["slurmctld", "-D", "-f", str(conf)], folder, lambda: True, at),
        daemon("slurmd", ["slurmd", "-D", "-f", str(conf)], folder, idle, at),
    ):
        try:
            yield str(conf)
        finally:
            end_jobs({**os.environ, **at})


def end_jobs(environment: dict[str, str]) -> None:
    """Jobs outlive a node's daemon: none may be left when it is stopped."""
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    queue = ["squeue", "--noheader"]
    for attempt in range(60):
        left = subprocess.run(queue, env=environment, capture_output=True, text=True, check=False)
        if left.returncode or not left.stdout.strip():
            return
        if attempt == 30:
            subprocess.run(
                ["scancel", "--user=root", "--full", "--signal=KILL"], env=environment, check=False
            )
        time.sleep(1)


@contextmanager
def daemon(
    name: str,
    command: Sequence[str],
    folder: Path,
    ready: Callable[[], bool],
    variables: dict[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """A server in the foreground of a session of its own, from when it is ready until it has ended."""
    log = folder / f"{name}.txt"
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(variables or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield
    finally:
        if process.poll() is None:
            os.killpg(process.pid, stop)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False).returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
