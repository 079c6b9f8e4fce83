#!/usr/bin/env python3
"""hostile.py PROGRAM EXAMPLES lying|strangers [SECONDS [KIND]]: what one liar or a crowd of strangers costs; a table on stdout.

PROGRAM is target/release/gridbackup, EXAMPLES is target/release/examples with `liar` and `strangers` in it (cargo build --release --workspace
--examples). All processes are real ones.

lying: nine friends on loopback, one of them replaced by examples/liar; time, CPU and peak memory of `check` and `recover`.

strangers: needs root. A node in a network namespace of its own, friends in a second, a crowd in a third that owns all of 10.9.0.0/16. CPU and
memory of the node for SECONDS (30) under each crowd, or those of one KIND (tcp, quic, streams); how long a friend's restarted node takes to be back, and a blank machine to recover.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

FRIENDS = 9
CROWD = 1000
NODE, PORT = "10.8.0.1", 4250
NODE_SPACE, FRIEND_SPACE, CROWD_SPACE = "gbh-node", "gbh-friend", "gbh-crowd"
TICKS = os.sysconf("SC_CLK_TCK")


class Home:
    """A home of its own below `folder`, with processes in a network namespace if there is one."""

    def __init__(self, program, folder, name, space=None, listen=None):
        self.program, self.folder, self.name, self.space = program, folder, name, space
        self.dir = f"{folder}/{name}"
        self.env = dict(os.environ, GRIDBACKUP_HOME=self.dir)
        self.words = f"{folder}/{name}.words"
        self.listen = listen

    def init(self, tolerate=2):
        self.ok("init", "--name", self.name, "--tolerate", str(tolerate), "--phrase-out", self.words)
        self.quiet()
        if self.listen:
            self.ok("config", "set", "listen", self.listen)
        return self

    def quiet(self):
        self.ok("config", "set", "mdns", "false")
        self.ok("config", "set", "upnp", "false")

    def command(self, *args):
        within = ["ip", "netns", "exec", self.space] if self.space else []
        return [*within, self.program, *args, "--json"]

    def start(self):
        node = subprocess.Popen(
            self.command("node"), env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        ready = json.loads(node.stdout.readline())
        peer = f"/p2p/{ready['peer_id']}"
        node.addresses = [at if "/p2p/" in at else at + peer for at in ready["addresses"]]
        return node

    def ok(self, *args):
        done = subprocess.run(self.command(*args), env=self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{self.name} {args}: {done.returncode} {done.stdout[-500:]} {done.stderr[-500:]}")
        return messages(done.stdout)

    def measured(self, *args):
        """Exit code, seconds, CPU seconds and peak MiB of a command."""
        begun = time.time()
        process = subprocess.Popen(
            self.command(*args), env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        return process.returncode, time.time() - begun, cpu, usage.ru_maxrss // 1024


def messages(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def end(*processes):
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def own_pid(process):
    """The program's, below `ip netns exec`, which becomes the program."""
    return process.pid


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid):
    """Now, and at most since `forget_peak`."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return tuple(int(fields[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM"))


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as refs:
        refs.write("5")


def sockets(pid):
    folder = f"/proc/{pid}/fd"
    return sum(1 for fd in os.listdir(folder) if os.readlink(f"{folder}/{fd}").startswith("socket:"))


def source(folder, mib):
    os.mkdir(f"{folder}/source")
    for number in range(mib):
        with open(f"{folder}/source/file{number}", "wb") as file:
            file.write(os.urandom(1 << 20))
    return f"{folder}/source"


# One liar of nine friends


def lying(program, examples):
    with tempfile.TemporaryDirectory(prefix="lying-") as folder:
        nodes, first = [], None
        try:
            for number in range(FRIENDS):
                listen = f"/ip4/127.0.0.1/tcp/{46000 + number}"
                home = Home(program, folder, f"friend{number}", listen=listen).init()
                if first:
                    home.ok("join", first.ok("invite")[-1]["ticket"])
                nodes.append(home.start())
                first = first or home
            owner = Home(program, folder, "owner").init()
            owner.ok("join", first.ok("invite")[-1]["ticket"])
            owner.ok("run", "--once", source(folder, 100))
            # The one whose place the liar takes.
            liar = f"{folder}/friend{FRIENDS - 1}"
            listen = f"/ip4/127.0.0.1/tcp/{46000 + FRIENDS - 1}"
            print("| the ninth friend | `check`: exit, s, CPU s, peak MiB | `recover`: exit, s, CPU s, peak MiB |")
            print("|---|---|---|")
            for number, lie in enumerate(["honest", "endless", "same", "never", "honest again"]):
                if not lie.startswith("honest"):
                    end(nodes[-1])
                    command = [f"{examples}/liar", liar, listen, lie]
                    nodes[-1] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                    assert nodes[-1].stdout.readline() == "ready\n"
                elif number:
                    end(nodes[-1])
                    again = Home(program, folder, f"friend{FRIENDS - 1}")
                    nodes[-1] = again.start()
                checked = owner.measured("check")
                blank = Home(program, folder, f"blank{number}")
                via = nodes[0].addresses[0]
                recovered = blank.measured(
                    "recover", "--name", "blank", "--phrase-file", owner.words, "--via", via
                )
                shown = [f"{code}, {seconds:.1f}, {cpu:.2f}, {peak}" for code, seconds, cpu, peak in (checked, recovered)]
                print(f"| {lie} | {shown[0]} | {shown[1]} |", flush=True)
        finally:
            end(*nodes)


# A crowd of strangers


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def lay_network():
    clear_network()
    for space in (NODE_SPACE, FRIEND_SPACE, CROWD_SPACE):
        ip("netns", "add", space)
        ip("-n", space, "link", "set", "lo", "up")
    for space, net, device in ((FRIEND_SPACE, "10.8.1", "friend"), (CROWD_SPACE, "10.8.2", "crowd")):
        ip("-n", NODE_SPACE, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("-n", NODE_SPACE, "address", "add", f"{net}.1/24", "dev", device)
        ip("-n", space, "address", "add", f"{net}.2/24", "dev", "eth0")
        ip("-n", NODE_SPACE, "link", "set", device, "up")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "route", "add", "default", "via", f"{net}.1")
    ip("-n", NODE_SPACE, "address", "add", f"{NODE}/32", "dev", "lo")
    ip("-n", NODE_SPACE, "route", "add", "10.9.0.0/16", "via", "10.8.2.2")
    # Every address of the /16 is the crowd's own.
    ip("-n", CROWD_SPACE, "route", "add", "local", "10.9.0.0/16", "dev", "lo")


def clear_network():
    for space in (NODE_SPACE, FRIEND_SPACE, CROWD_SPACE):
        subprocess.run(["ip", "netns", "del", space], stderr=subprocess.DEVNULL)


def is_back(owner, name, since, patience=60):
    """Seconds until the member called so is online for the node of `owner`."""
    while time.time() - since < patience:
        for message in owner.ok("peer", "ls"):
            if message.get("name") == name and message.get("online"):
                return time.time() - since
        time.sleep(0.2)
    return None


def strangers(program, examples, seconds, only):
    lay_network()
    crowd_kinds = [("nobody", None, None)]
    for kind in ("tcp", "quic", "streams") if only is None else (only,):
        crowd_kinds += [(f"{kind}, one address", kind, "10.9.0.1"), (f"{kind}, a /24", kind, "10.9.0.0/24")]
        crowd_kinds.append((f"{kind}, a /16", kind, "10.9.0.0/16"))
    crowd_kinds.append(("nobody again", None, None))
    processes = []
    with tempfile.TemporaryDirectory(prefix="strangers-") as folder:
        try:
            listen = f"/ip4/{NODE}/tcp/{PORT},/ip4/{NODE}/udp/{PORT}/quic-v1"
            ada = Home(program, folder, "ada", NODE_SPACE, listen).init(0)
            node = ada.start()
            processes.append(node)
            friends = {}
            # One comes by TCP and one by QUIC, by the address that they were told.
            for name in ("bob", "cleo"):
                home = Home(program, folder, name, FRIEND_SPACE, "/ip4/10.8.1.2/tcp/0,/ip4/10.8.1.2/udp/0/quic-v1").init(0)
                home.ok("join", ada.ok("invite")[-1]["ticket"])
                friends[name] = home
            bob, cleo = friends["bob"], friends["cleo"]
            back = bob.start()
            processes.append(back)
            cleo.ok("run", "--once", source(folder, 20))
            addresses = {transport: next(a for a in node.addresses if f"/{transport}/" in a) for transport in ("tcp", "udp")}
            print(
                f"| {CROWD} silent ones | begun a second | CPU of the node, % of one core | its memory, MiB: now, peak | its sockets "
                "| bob back, s | recover by TCP, s | by QUIC, s |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for number, (label, kind, sources) in enumerate(crowd_kinds):
                crowd = None
                if kind:
                    command = ["ip", "netns", "exec", CROWD_SPACE, f"{examples}/strangers", kind, f"{NODE}:{PORT}", str(CROWD), sources]
                    crowd = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                    processes.append(crowd)
                    assert crowd.stdout.readline() == "ready\n"
                    time.sleep(5)
                pid = own_pid(node)
                forget_peak(pid)
                begun, cpu = time.time(), cpu_seconds(pid)
                end(back)
                came = time.time()
                back = bob.start()
                processes.append(back)
                bob_back = is_back(ada, "bob", came)
                recovered = []
                for transport in ("tcp", "udp"):
                    blank = Home(program, folder, f"blank{number}{transport}", FRIEND_SPACE)
                    code, took, _, _ = blank.measured(
                        "recover", "--name", "blank", "--phrase-file", cleo.words, "--via", addresses[transport]
                    )
                    recovered.append(f"{took:.1f}" if code == 0 else f"exit {code} after {took:.1f}")
                time.sleep(max(0, seconds - (time.time() - begun)))
                load = 100 * (cpu_seconds(pid) - cpu) / (time.time() - begun)
                now, peak = memory_mib(pid)
                open_sockets = sockets(pid)
                rate = "-"
                if crowd:
                    end(crowd)
                    counts = crowd.stdout.read().splitlines()
                    first, last = int(counts[4].split()[0]), int(counts[-1].split()[0])
                    rate = f"{(last - first) / (len(counts) - 5):.0f}"
                    time.sleep(12)
                shown_back = f"{bob_back:.1f}" if bob_back is not None else "never"
                print(
                    f"| {label} | {rate} | {load:.1f} | {now}, {peak} | {open_sockets} | {shown_back} | {recovered[0]} | {recovered[1]} |",
                    flush=True,
                )
        finally:
            end(*(process for process in processes if process.poll() is None))
            clear_network()


def main():
    program, examples, what = sys.argv[1:4]
    program, examples = os.path.abspath(program), os.path.abspath(examples)
    if what == "lying":
        lying(program, examples)
    else:
        seconds, only = [*sys.argv[4:], *[None, None][len(sys.argv[4:]) :]]
        strangers(program, examples, float(seconds or 30), only)


main()
