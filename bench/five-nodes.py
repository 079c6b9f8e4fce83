#!/usr/bin/env python3
"""five-nodes.py PROGRAM SOURCE: five nodes and an owner on loopback, one backup; MB/s, CPU s/GB, peak memory.

Everything goes the whole way: read, packed, sealed, coded, sent over libp2p, synced by the nodes. Run it several times: all six
processes share this machine's disk and cores.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

NODES = 5


class Home:
    """A home of its own below `folder`."""

    def __init__(self, program, folder, name):
        self.program = program
        self.env = dict(os.environ, GRIDBACKUP_HOME=f"{folder}/{name}")
        self.run("init", "--name", name, "--tolerate", "2", "--phrase-out", f"{folder}/{name}.words")
        self.run("config", "set", "mdns", "false")
        self.run("config", "set", "upnp", "false")

    def start(self, *args):
        return subprocess.Popen(
            [self.program, *args, "--json"],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *args):
        """The messages that a command prints."""
        done = subprocess.run([self.program, *args, "--json"], env=self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{args}: {done.stderr}")
        return messages(done.stdout)


def messages(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_mib(pid):
    """0 for a process that has ended."""
    try:
        with open(f"/proc/{pid}/status") as status:
            return next((int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")), 0)
    except OSError:
        return 0


def start_nodes(program, folder, nodes):
    """Starts nodes, each a member of the first one's grid, into `nodes`; returns the first one's home."""
    first = None
    for number in range(1, NODES + 1):
        home = Home(program, folder, f"node{number}")
        home.run("config", "set", "listen", "/ip4/127.0.0.1/tcp/0")
        if first:
            home.run("join", first.run("invite")[-1]["ticket"])
        nodes.append(home.start("node"))
        nodes[-1].stdout.readline()  # it is ready
        first = first or home
    return first


def measure(owner, source, nodes):
    os.sync()
    nodes_before = [cpu_seconds(node.pid) for node in nodes]
    own_before, start, peak = children_cpu_seconds(), time.time(), 0
    backup = owner.start("run", "--once", source)
    while backup.poll() is None:
        peak = max(peak, peak_mib(backup.pid))
        time.sleep(0.05)
    seconds = time.time() - start
    said = messages(backup.stdout.read())[-1]
    own = children_cpu_seconds() - own_before
    theirs = sum(cpu_seconds(node.pid) - before for node, before in zip(nodes, nodes_before))
    gb = said["bytes_read"] / 1e9
    print(
        f"{seconds:.1f} s, {gb * 1000 / seconds:.0f} MB/s of source, sent {said['bytes_sent'] / 1e9:.2f} GB; "
        f"CPU owner {own / gb:.1f} s/GB, nodes {theirs / gb:.1f} s/GB; "
        f"memory owner {peak} MiB, nodes {[peak_mib(node.pid) for node in nodes]} MiB"
    )


def main():
    program, source = sys.argv[1:3]
    nodes = []
    with tempfile.TemporaryDirectory(prefix="five-") as folder:
        try:
            first = start_nodes(program, folder, nodes)
            owner = Home(program, folder, "owner")
            owner.run("join", first.run("invite")[-1]["ticket"])
            measure(owner, source, nodes)
        finally:
            for node in nodes:
                node.kill()
                node.wait()


main()
