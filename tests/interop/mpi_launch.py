"""Starting processes with ``mpiexec``, on one host or on two."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
# Open MPI refuses to run as root, as containers do, unless it is told twice.
ENVIRONMENT = {
    **os.environ,
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    # A process that waits leaves its core to others, such as those that run other tests.
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


def mpiexec(processes: int, *arguments: object, options: Sequence[object] = ()) -> list[str]:
    """Return the command that runs Python with these arguments in several processes."""
    assert MPIEXEC is not None
    words = [MPIEXEC, *(options or ["--oversubscribe"]), "-n", processes]
    return [*map(str, words), sys.executable, *map(str, arguments)]


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the repository."""
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300
    )


# ---- two hosts ----


class Hosts(NamedTuple):
    """Two hosts with a slot each.

    Attributes
    ----------
    options : list
        The options of ``mpiexec``.
    first : list of str
        What a command on the first host begins with.
    """

    options: list[object]
    first: list[str]

    def mpiexec(self, *arguments: object) -> list[str]:
        """Return the command that runs Python on both hosts."""
        return [*self.first, *mpiexec(2, *arguments, options=self.options)]


def _hosts(folder: Path, addresses: Sequence[str], second: str, first: str = "") -> Hosts:
    """Return hosts of which the script `second` runs a command, its arguments, on the other one."""
    file, agent = folder / "hosts", folder / "agent"
    file.write_text("".join(f"{address} slots=1\n" for address in addresses))
    agent.write_text(f"#!/bin/sh\nshift  # the address\n{second}\n")
    agent.chmod(0o755)
    options = ["--hostfile", file, "--map-by", "node", "--mca", "btl", "tcp,self"]
    return Hosts([*options, "--prtemca", "plm_ssh_agent", agent], shlex.split(first))


@contextlib.contextmanager
def loopback_hosts(folder: Path) -> Iterator[Hosts]:
    """Two daemons of MPI on this machine, at two addresses, that take each other for other hosts.

    Each has a name of its own, the second the host's without its first letter, and its own folder.
    """
    temporary = folder / "second"
    temporary.mkdir()
    second = f"export PRTE_MCA_prte_strip_prefix={socket.gethostname()[0]} TMPDIR={temporary}"
    hosts = _hosts(folder, ("127.0.0.1", "127.0.0.2"), f'{second}\nexec sh -c "$*"')
    yield hosts._replace(options=[*hosts.options, "--mca", "btl_tcp_if_include", "127.0.0.0/8"])


@contextlib.contextmanager
def namespace_hosts(folder: Path) -> Iterator[Hosts]:
    """Two network namespaces with names of their own, and a virtual cable between them."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(_namespace(name)) for name in ("first", "second")]
        _cable(*processes)
        first, second = (f"nsenter --target {pid} --net --uts" for pid in processes)
        yield _hosts(folder, ("10.77.0.1", "10.77.0.2"), f'exec {second} sh -c "$*"', first)


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[int]:
    """Context with the id of a process that keeps a namespace."""
    script = f"hostname {name} && ip link set lo up && echo ready && exec sleep infinity"
    command = ["unshare", "--net", "--uts", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise OSError("namespaces are not permitted")
            yield process.pid
        finally:
            process.kill()


def _cable(first: int, second: int) -> None:
    ends = (first, "10.77.0.1/24"), (second, "10.77.0.2/24")
    add = f"ip link add cable netns {first} type veth peer name cable netns {second}"
    subprocess.run(add.split(), check=True, capture_output=True)
    for pid, address in ends:
        script = f"ip address add {address} dev cable && ip link set cable up"
        command = ["nsenter", "--target", str(pid), "--net", "sh", "-c", script]
        subprocess.run(command, check=True, capture_output=True)


def namespaces_work() -> bool:
    """Whether this user may make namespaces, and has the programs for it."""
    try:
        with _namespace("first") as first, _namespace("second") as second:
            _cable(first, second)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True
