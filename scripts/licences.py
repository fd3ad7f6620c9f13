#!/usr/bin/env python3
"""Checks the dependencies against deny.toml and docs/dependencies.md.

Every package, on every platform, has a licence that deny.toml allows and comes from crates.io or this repository;
every direct dependency is explained in docs/dependencies.md. Crates present in several versions are listed.
cargo-deny reads the same file and can do more, but takes minutes to build; this needs nothing but python3.
"""
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def allowed_licences(deny_toml):
    """The strings in `allow = [...]`. (tomllib would need Python 3.11.)"""
    found = re.search(r"^allow\s*=\s*\[(.*?)\]", deny_toml, re.DOTALL | re.MULTILINE)
    if not found:
        sys.exit("error: `deny.toml` has no `allow = [...]`")
    return set(re.findall(r'"([^"]+)"', found.group(1)))


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be satisfied: OR needs one side, AND both; `/` is an old form of OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() | value
        return value

    def both():
        value = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = single() & value
        return value

    def single():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens and tokens[0] == "WITH":
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in allowed

    return either()


def self_test():
    """The parser's own examples."""
    allowed = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"}
    for expression in ["MIT", "GPL-3.0 OR MIT", "MIT/X11", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]:
        assert is_allowed(expression, allowed), expression
    for expression in ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR MPL-2.0) AND MIT", "Apache-2.0 WITH Other-exception"]:
        assert not is_allowed(expression, allowed), expression


def main():
    self_test()
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--locked"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
    )
    allowed = allowed_licences((ROOT / "deny.toml").read_text())
    explained = ROOT / "docs/dependencies.md"
    explained = set(re.findall(r"`([^`\s]+)`", explained.read_text())) if explained.exists() else set()
    members = set(metadata["workspace_members"])
    problems, versions = [], defaultdict(set)
    for package in metadata["packages"]:
        name = f"`{package['name']}` {package['version']}"
        versions[package["name"]].add(package["version"])
        if package["source"] not in (None, CRATES_IO):
            problems.append(f"{name} comes from `{package['source']}`, not from crates.io")
        if not package["license"]:
            problems.append(f"{name} states no licence")
        elif not is_allowed(package["license"], allowed):
            problems.append(f"{name} has the licence `{package['license']}`, which deny.toml does not allow")
        if package["id"] in members:
            for dependency in package["dependencies"]:
                if dependency["source"] and dependency["name"] not in explained:
                    problems.append(f"`{dependency['name']}`, used by {name}, has no line in docs/dependencies.md")
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            print(f"note: `{name}` is there in {len(found)} versions: {', '.join(sorted(found))}")
    for problem in sorted(set(problems)):
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(metadata['packages'])} packages, {len(set(problems))} problems")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
