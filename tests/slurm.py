"""A SLURM of one node that a test starts by itself on loopback; as a script, exits with 1 where it cannot be had."""

import contextlib
import functools
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel")
# Two GPUs that do not exist are handed out, to the steps that ask for one. Neither cgroups nor systemd are needed.
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=60
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=100000 Gres=gpu:2
PartitionName=main Nodes={host} Default=YES MaxTime=60
"""
# What Snakemake's plug-in calls: it takes SLURM_CONF out of srun's environment, and looks ever more rarely after its
# jobs, so that an answer waits, at most for 50 s, until there are more or fewer of them than at the last.
WRAPPED = {
    "srun": "",
    "squeue": """\
for _ in $(seq 100); do
    jobs=$(command -p squeue --noheader --format=%i | wc -l)
    [ "$jobs" = "$(cat $SLURM_CONF.jobs 2>/dev/null)" ] || break
    sleep 0.5
done
echo "$jobs" >$SLURM_CONF.jobs""",
}


def missing() -> str:
    """What of SLURM is not installed; empty if nothing is missing."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return f"no {', '.join(absent)} on this machine: apt-get install slurm-wlm munge" if absent else ""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


@contextlib.contextmanager
def daemon(name: str, *options: str, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A daemon that stays in the foreground and is ended on leaving."""
    # The kernel ends it if this process is killed.
    command = ["setpriv", "--pdeathsig", "TERM", shutil.which(name, path=f"{environment['PATH']}:/usr/sbin"), *options]
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A running cluster; what its commands need in their environment. Without SLURM skips, or fails with `CI` set.

    folder: an empty one, for its key, socket, settings, state and logs.
    """
    if reason := missing() or ("" if os.geteuid() == 0 else "SLURM's daemons are started by root, which this is not"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    host, (ctld, slurmd) = socket.gethostname().partition(".")[0], free_ports(2)
    settings, key = folder / "slurm.conf", folder / "munge.key"
    settings.write_text(SETTINGS.format(host=host, ctld=ctld, slurmd=slurmd, folder=folder))
    (folder / "gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "bin").mkdir()
    for name, before in WRAPPED.items():
        export = f"export SLURM_CONF={shlex.quote(str(settings))}"
        (folder / "bin" / name).write_text(f'#!/bin/sh\n{export}\n{before}\nexec {shutil.which(name)} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    here = os.environ | {"SLURM_CONF": str(settings)}
    munge = [f"--{what}-file={folder}/munge.{what}" for what in ("key", "pid", "log", "seed")]
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", "--num-threads=2", *munge]
    with contextlib.ExitStack() as stack:
        for name, options in {"munged": munge, "slurmctld": ["-D"], "slurmd": ["-D", "-N", host]}.items():
            stack.enter_context(daemon(name, *options, environment=here, log=folder / f"{name}.out"))
        wait_until_idle(here, folder)
        stack.callback(end_jobs, here)  # what runs a job outlives the daemons
        yield {"SLURM_CONF": str(settings), "PATH": f"{folder}/bin:{os.environ['PATH']}"}


def end_jobs(environment: dict[str, str]) -> None:
    """Kill what runs, and wait until it is gone."""
    run = functools.partial(subprocess.run, env=environment, capture_output=True, text=True, timeout=30)
    run(["scancel", "--user=root", "--full", "--signal=KILL"])
    run(["scancel", "--user=root"])
    deadline = time.monotonic() + 30
    while run(["squeue", "--noheader"]).stdout.strip() and time.monotonic() < deadline:
        time.sleep(0.2)


def wait_until_idle(environment: dict[str, str], folder: Path, seconds: float = 60) -> None:
    """Wait for the node to take jobs; else fail with what the daemons wrote."""
    deadline = time.monotonic() + seconds
    ask = ["sinfo", "--noheader", "--format=%T"]
    while subprocess.run(ask, env=environment, capture_output=True, text=True).stdout.strip() != "idle":
        if time.monotonic() > deadline:
            logs = {path.name: path.read_text()[-1500:] for path in [*folder.glob("*.out"), *folder.glob("*.log")]}
            pytest.fail("\n".join(f"== {name}\n{text}" for name, text in logs.items()))
        time.sleep(0.2)


if __name__ == "__main__":
    print(missing() or "SLURM is here")
    sys.exit(bool(missing()))
