#!/usr/bin/env python3
"""five-nodes.py PROGRAM SOURCE: five nodes and an owner on loopback, one backup; MB/s, CPU s/GB, peak memory.

Everything goes the whole way: read, packed, sealed, coded, sent over libp2p, synced by the nodes. Run it several times: all six
processes share this machine's disk and cores.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

prog, src = sys.argv[1:3]
tmp = tempfile.mkdtemp(prefix="five-")


def run(home, *args, check=True):
    env = dict(os.environ, GRIDBACKUP_HOME=f"{tmp}/{home}")
    out = subprocess.run([prog, *args, "--json"], env=env, capture_output=True, text=True)
    if check and out.returncode: sys.exit(f"{home} {args}: {out.stderr}")
    return [json.loads(l) for l in out.stdout.splitlines() if l.startswith("{")]
nodes = []
def cpu(pid):
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")
def peak(pid):
    return [int(l.split()[1]) // 1024 for l in open(f"/proc/{pid}/status") if l.startswith("VmHWM")][0]
def init(name):
    run(name, "init", "--name", name, "--tolerate", "2", "--phrase-out", f"{tmp}/{name}.words")
    for key in ("mdns", "upnp"): run(name, "config", "set", key, "false", check=False)
for i in range(1, 6):
    name = f"node{i}"; init(name)
    run(name, "config", "set", "listen", "/ip4/127.0.0.1/tcp/0")
    if nodes: run(name, "join", run("node1", "invite")[-1]["ticket"])
    p = subprocess.Popen([prog, "node", "--json"], env=dict(os.environ, GRIDBACKUP_HOME=f"{tmp}/{name}"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    p.stdout.readline(); nodes.append(p)
init("owner"); run("owner", "join", run("node1", "invite")[-1]["ticket"])
os.sync()
before = [cpu(p.pid) for p in nodes]; r0 = resource.getrusage(resource.RUSAGE_CHILDREN); t = time.time()
env = dict(os.environ, GRIDBACKUP_HOME=f"{tmp}/owner")
p = subprocess.Popen([prog, "run", "--once", src, "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
hwm = 0
while p.poll() is None:
    try: hwm = max(hwm, peak(p.pid))
    except Exception: pass
    time.sleep(0.05)
secs = time.time() - t; r1 = resource.getrusage(resource.RUSAGE_CHILDREN)
said = [json.loads(l) for l in p.stdout.read().splitlines() if l.startswith("{")][-1]
own = r1.ru_utime + r1.ru_stime - r0.ru_utime - r0.ru_stime
theirs = sum(cpu(p.pid) - b for p, b in zip(nodes, before))
gb = said["bytes_read"] / 1e9
print(f"{secs:.1f} s, {gb*1000/secs:.0f} MB/s of source, sent {said['bytes_sent']/1e9:.2f} GB, CPU owner {own/gb:.1f} s/GB, five nodes {theirs/gb:.1f} s/GB; memory owner {hwm} MiB, nodes {[peak(p.pid) for p in nodes]}", flush=True)
for p in nodes: p.kill()
shutil.rmtree(tmp)
