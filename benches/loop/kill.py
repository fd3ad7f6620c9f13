#!/usr/bin/env python3
"""Kills the loop, the switch that guards its trainers, or both, at random moments of a comparison, a confirmation and a
commit of the toy of the tests, and looks at what is left.

    benches/loop/kill.py [--count=N]

Asked: no process is left or stays stopped, HEAD is the old commit or the whole new one, no attempt is forgotten, and the
same command goes on to land the gain. Appends rows to perf/loop-kill.jsonl and goes on where it stopped. Needs
`scripts/build.sh` first.
"""
import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import scratch
from scratch import ALPHA, Results, forget, git, loop

# Takes the waste out of the toy's attention.
FASTER = [('"attention": 40_000', '"attention": 0'), ('"attention_backward": 40_000', '"attention_backward": 0')]
VICTIMS = ["loop", "switch", "both"]
# What the loop builds and runs lies here.
CACHE = Path.home() / ".cache/alpha/loop"
# Longest time in which everything has to be gone after a kill.
GONE_S = 10
# Every so many trials go on to the end after the kill; the others only look.
GO_ON_EVERY = 4
RUN = ["run", "-m", "no waste in attention"]


def command_lines():
    """Of all processes: number, parent, command line, letter of the state."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            yield int(entry.name), int(parent), words, state


def mounts(pid):
    """What a process sees mounted, with where each lies outside: behind walls a command line names no path of this machine."""
    try:
        return Path(f"/proc/{pid}/mountinfo").read_text()
    except OSError:
        return ""


def left():
    """Processes of the loop and its trainers: those that name the scratch repository or its cache, or have a folder of it mounted.
    Other loops on this machine have other ones."""
    names = [str(scratch.SCRATCH), str(CACHE)]
    return [f"{pid} {state} {words[:80]}" for pid, _, words, state in command_lines()
            if pid != os.getpid() and state not in "ZX" and (any(name in words for name in names) or str(CACHE) in mounts(pid))]


def switch_of(loop_pid):
    return [pid for pid, parent, words, _ in command_lines() if parent == loop_pid and words.startswith("sh -c trap '' HUP")]


def stand(head):
    git("checkout", "-q", "--force", "-B", "experiment", head)
    git("clean", "-fdq")
    forget()
    file = scratch.SCRATCH / "src/trainer.py"
    text = file.read_text()
    for old, new in FASTER:
        assert old in text, f"the toy no longer has {old!r}"
        text = text.replace(old, new)
    file.write_text(text)
    loop("start", "no waste in attention", "--area=attention")


def pairs():
    """Pairs in the state of open attempts, by attempt."""
    found = {}
    for file in (scratch.SCRATCH / ".git/alpha-loop/attempts").glob("*.json"):
        attempt = json.loads(file.read_text())
        confirmation = attempt.get("confirmation") or {}
        found[file.stem] = len(attempt["pairs"]) + len(confirmation.get("pairs", []))
    return found


def counted():
    """Attempts that the repository will remember: of the folder and of the reference."""
    folder = {file.name for file in (scratch.SCRATCH / ".git/alpha-loop/counted").glob("*")}
    names = subprocess.run(["git", "-C", scratch.SCRATCH, "ls-tree", "--name-only", "refs/alpha-loop/attempts"],
                           capture_output=True, text=True, check=False).stdout.split()
    return folder, set(names)


def trial(number, head, whole_s):
    draw = random.Random(f"kill {number}")
    stand(head)
    victim, moment_s = draw.choice(VICTIMS), draw.uniform(0, whole_s)
    running = subprocess.Popen([ALPHA, "loop", *RUN], cwd=scratch.SCRATCH, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment_s)
    switches = switch_of(running.pid)
    victims = {"loop": [running.pid], "switch": switches, "both": [running.pid, *switches]}[victim]
    # Before the first trainer there is no switch.
    killed = len(victims) if running.poll() is None else 0
    if killed:
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    faults = []
    if victim == "switch" or not killed:
        code = running.wait()
        if code != 0:
            faults.append(f"alive, the loop ended with {code}")
    else:
        running.wait()
    until = time.monotonic() + GONE_S
    while left() and time.monotonic() < until:
        time.sleep(0.05)
    faults += [f"left: {process}" for process in left()]
    now = git("rev-parse", "HEAD")
    landed = now != head
    if landed:
        if git("rev-parse", "HEAD^") != head:
            faults.append("HEAD is neither the old commit nor one after it")
        if loop("verify", "HEAD")["exit_code"] != 0:
            faults.append("what landed does not verify")
    before = pairs()
    folder, reference = counted()
    # Written down before the first pair.
    if any(before.values()) and not (folder and reference):
        faults.append(f"attempts with {before} pairs are not remembered: {len(folder)} in the folder, {len(reference)} in the reference")
    goes_on = number % GO_ON_EVERY == 0 and not landed
    if goes_on:
        found = loop(*RUN)
        if found["exit_code"] != 0 or git("rev-parse", "HEAD^") != head or loop("verify", "HEAD")["exit_code"] != 0:
            faults.append(f"asked again it ended with {found['exit_code']}: {found.get('error') or found.get('refusal')}")
        faults += [f"left after going on: {process}" for process in left()]
    if git("status", "--porcelain", "--untracked-files=no") and git("rev-parse", "HEAD") != head:
        faults.append(f"half a commit: {git('status', '--porcelain')[:200]}")
    return {"victim": victim, "killed": killed, "moment_s": round(moment_s, 2), "stage_pairs": sum(before.values()), "landed": landed,
            "went_on": goes_on, "faults": faults}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="trials in all")
    arguments = parser.parse_args()
    if not ALPHA.exists():
        sys.exit("error: `.bun-out/alpha` is not there\n\nhint: `scripts/build.sh`")
    results = Results("kill")
    if len(results.rows()) < arguments.count:
        head = scratch.toy("kill")
        stand(head)
        began = time.monotonic()
        found = loop(*RUN)
        assert found["exit_code"] == 0, f"the gain did not land undisturbed: {found}"
        stand(head)
        began = time.monotonic()
        loop(*RUN)
        whole_s = time.monotonic() - began
        for number in range(len(results.rows()), arguments.count):
            results.append(number=number, whole_s=round(whole_s, 1), **trial(number, head, whole_s))
    rows = [row for row in results.rows() if row.get("killed", 1)]
    faults = [fault for row in rows for fault in row["faults"]]
    print(f"{len(rows)} kills, of {dict(collections.Counter(row['victim'] for row in rows))}; {sum(row['went_on'] for row in rows)} went on,",
          f"{sum(row['landed'] for row in rows)} had landed; {len(faults)} faults", *faults, sep="\n  ")


if __name__ == "__main__":
    main()
