#!/usr/bin/env python3
"""House rules that neither rustfmt nor clippy knows. Prints every breach; exit code 1 if there is one.

Each check is a function that yields `(file, line or 0, message)`.
"""
import ast
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 600
MAX_ARCHITECTURE_LINES = 250


def files(*suffixes):
    """Files of the project with one of these endings: what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout.decode()
    return [ROOT / name for name in sorted(set(listed.split("\0"))) if name.endswith(suffixes) and (ROOT / name).is_file()]


def lines(path):
    return enumerate(path.read_text(encoding="utf-8").splitlines(), 1)


def rust_files_are_short_and_say_what_they_are():
    for path in files(".rs"):
        text = path.read_text(encoding="utf-8")
        count = text.count("\n")
        if count > MAX_LINES:
            yield path, 0, f"{count} lines; at most {MAX_LINES}: split it by idea"
        if not text.startswith("//!"):
            yield path, 1, "begins without `//!`: say what the file does"


def nothing_below_the_binary_prints():
    pattern = re.compile(r"\b(e?println!|e?print!|dbg!)")
    for path in files(".rs"):
        inside = path.relative_to(ROOT).parts
        if inside[:2] == ("crates", "alpha") or "tests" in inside or "benches" in inside or "examples" in inside:
            continue
        for number, line in lines(path):
            if pattern.search(line.split("//")[0]):
                yield path, number, "prints; progress and records go through a sink"


def open_ends_name_their_issue():
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(?!\(#?\d+\))")
    for path in files(".rs", ".sh", ".py", ".toml", ".yml"):
        if path == Path(__file__).resolve():
            continue
        for number, line in lines(path):
            if pattern.search(line):
                yield path, number, "an open end without its issue; write `FIXME(12)`"


def tests_are_run():
    pattern = re.compile(r"#\[\s*(ignore|should_panic)\b")
    for path in files(".rs"):
        for number, line in lines(path):
            if pattern.search(line):
                yield path, number, "no `#[ignore]`, no `#[should_panic]`: assert what happens"


def builds_are_portable():
    for path in files(".toml", ".sh", ".rs"):
        for number, line in lines(path):
            if "target-cpu=native" in line.split("#" if path.suffix != ".rs" else "//")[0]:
                yield path, number, "`target-cpu=native`: features are detected at run time"


def crates_are_documented():
    for manifest in (ROOT / "crates").glob("*/Cargo.toml"):
        text = manifest.read_text()
        if not re.search(r"^\[lints\]\s*\nworkspace = true", text, re.MULTILINE):
            yield manifest, 0, "does not take the workspace's lints (`[lints] workspace = true`)"
        if not re.search(r'^description = "', text, re.MULTILINE):
            yield manifest, 0, "has no `description`"


def operation_table_is_complete():
    """Each operation of the table is named in the folder of each backend, in the file of its module."""
    source = ROOT / "crates/alpha-tensor/src"
    table = source / "op.rs"
    text = table.read_text()
    block = re.search(r"^operations! \{(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    exports = re.search(r"^pub use self::\{(.*?)^\};", text, re.DOTALL | re.MULTILINE)
    if not block or not exports:
        yield table, 0, "this check no longer finds the table: adapt scripts/tidy.py"
        return
    module_of = {}
    for module, names in re.findall(r"(\w+)::\{([^}]*)\}|(?!)", exports.group(1)):
        for name in re.findall(r"\w+", names):
            module_of[name] = module
    variants = re.findall(r"^\s*(\w+) = \"\w+\"", block.group(1), re.MULTILINE)
    if not variants:
        yield table, 0, "this check finds no operations: adapt scripts/tidy.py"
    for variant in variants:
        module = module_of.get(variant)
        if module is None:
            yield table, 0, f"`{variant}` comes from no module"
            continue
        for backend in [source / "cpu_ref", source / "cpu", ROOT / "crates/helios/src/kernels"]:
            places = [backend / f"{module}.rs", *(backend / module).glob("*.rs")]
            if not any(place.is_file() and re.search(rf"\b{variant}\b", place.read_text()) for place in places):
                yield table, 0, f"`{variant}` is not in {backend.relative_to(ROOT)}/{module}.rs"


def golden_files_are_of_their_script():
    """Both .safetensors of a case carry the hash of the script that wrote them."""
    script = ROOT / "scripts/make_golden.py"
    expected = hashlib.sha256(script.read_bytes()).hexdigest()
    cases = [folder for folder in sorted((ROOT / "tests/golden").iterdir()) if folder.is_dir()]
    if not cases:
        yield ROOT / "tests/golden", 0, "there are no golden cases"
    for folder in cases:
        for name in ["model.safetensors", "expected.safetensors"]:
            path = folder / name
            try:
                data = path.read_bytes()
                (length,) = struct.unpack("<Q", data[:8])
                found = json.loads(data[8 : 8 + length])["__metadata__"]["script_sha256"]
            except (OSError, ValueError, KeyError, struct.error) as error:
                yield path, 0, f"cannot be read: {error!r}"
                continue
            if found != expected:
                yield path, 0, "was written by another version of scripts/make_golden.py: run it again"


def statistics_are_of_their_script():
    """The golden statistics carry the hash of the script that wrote them."""
    path = ROOT / "tests/statistics/golden.json"
    script = ROOT / "scripts/make_statistics_golden.py"
    try:
        found = json.loads(path.read_bytes())["script_sha256"]
    except (OSError, ValueError, KeyError) as error:
        yield path, 0, f"cannot be read: {error!r}"
        return
    if found != hashlib.sha256(script.read_bytes()).hexdigest():
        yield path, 0, "was written by another version of scripts/make_statistics_golden.py: run it again"


def scripts_are_safe():
    for path in files(".sh") + [ROOT / ".ci/run"]:
        text = path.read_text()
        if not text.startswith("#!/usr/bin/env bash\n"):
            yield path, 1, "begins without `#!/usr/bin/env bash`"
        if "\nset -euo pipefail\n" not in text:
            yield path, 0, "has no `set -euo pipefail`"
        if not os.access(path, os.X_OK):
            yield path, 0, "is not executable"
    for path in files(".py"):
        module = ast.parse(path.read_text(), str(path))
        if not ast.get_docstring(module):
            yield path, 1, "begins without a docstring: say what the file does"


def import_leaves(tree):
    """The paths of a `use` tree, each as a list of names."""
    depth, part, parts = 0, "", []
    for char in tree + ",":
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += char
    for part in filter(None, parts):
        nested = re.match(r"((?:\w+::)*)\{(.*)\}$", part, re.DOTALL)
        if nested:
            yield from ([*nested[1].split("::")[:-1], *leaf] for leaf in import_leaves(nested[2]))
        else:
            yield part.split("::")


def modules_use_those_above():
    """A module uses only modules that the root of its crate lists before it. So folders form no cycles."""
    for source in (ROOT / "crates").glob("*/src"):
        root = next(path for path in [source / "lib.rs", source / "main.rs"] if path.exists())
        order = re.findall(r"^(?:pub )?mod (\w+);", root.read_text(), re.MULTILINE)
        for path in source.rglob("*.rs"):
            module = path.relative_to(source).parts[0].removesuffix(".rs")
            if module not in order or path.name == "tests.rs":
                continue
            text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0])
            used = {leaf[0] for tree in re.findall(r"\buse crate::([^;]*);", text)
                    for leaf in import_leaves(tree[1:-1] if tree.startswith("{") else tree)}
            used |= set(re.findall(r"\bcrate::(\w+)", re.sub(r"\buse [^;]*;", "", text)))
            for name in sorted(used & set(order[order.index(module) + 1:])):
                yield path, 0, f"uses `{name}`, which {root.name} lists after `{module}`"


def links_lead_somewhere():
    pattern = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
    for path in files(".md"):
        for number, line in lines(path):
            for target, _ in pattern.findall(line):
                if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                    yield path, number, f"links to `{target}`, which is not there"


def faults_have_their_places():
    """The sources that experiments break on purpose still have the places to edit."""
    path = ROOT / "benches/loop/faults.py"
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    for kind in ["TRAINERS", "SAMPLERS", "HARMLESS"]:
        for name, edits in names[kind]:
            for file, old, _ in edits:
                if old not in (ROOT / file).read_text():
                    yield path, 0, f"{name!r}: `{file}` no longer has {old!r}"


def architecture_is_short():
    path = ROOT / "ARCHITECTURE.md"
    if path.exists() and path.read_text().count("\n") > MAX_ARCHITECTURE_LINES:
        yield path, 0, f"more than {MAX_ARCHITECTURE_LINES} lines"


CHECKS = [
    rust_files_are_short_and_say_what_they_are,
    nothing_below_the_binary_prints,
    open_ends_name_their_issue,
    tests_are_run,
    builds_are_portable,
    crates_are_documented,
    operation_table_is_complete,
    golden_files_are_of_their_script,
    statistics_are_of_their_script,
    scripts_are_safe,
    modules_use_those_above,
    links_lead_somewhere,
    faults_have_their_places,
    architecture_is_short,
]


def main():
    breaches = 0
    for check in CHECKS:
        for path, line, message in check():
            breaches += 1
            place = f"{path.relative_to(ROOT)}:{line}" if line else path.relative_to(ROOT)
            print(f"{place}: {message}  [{check.__name__}]")
    print(f"{len(CHECKS)} checks, {breaches} breaches")
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
