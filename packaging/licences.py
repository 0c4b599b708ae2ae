#!/usr/bin/env python3
"""Prints the licences of everything that is linked into the binary: each crate with its version and licence, then each text once, with the crates it
belongs to. The texts are those in the crates' own folders. It fails if a crate has none and its licence is not Apache-2.0, whose text is pgnorth's own."""

import collections
import json
import pathlib
import re
import subprocess
import sys

FILES = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
HERE = pathlib.Path(__file__).resolve().parent.parent


def cargo(*arguments):
    command = ["cargo", *arguments, "--locked"]
    return subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout


def linked():
    """Returns (name, version) of the crates in the binary: neither tests' and builds' ones, nor macros, which run in the compiler."""
    lines = cargo("tree", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}").splitlines()
    crates = {tuple(line.split()[:2]) for line in lines if line}
    return sorted((name, version.removeprefix("v")) for name, version in crates if name != "pgnorth")


def texts(folder):
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and FILES.match(path.name)]
    return [path.read_text(encoding="utf-8", errors="replace") for path in files]


def main():
    packages = json.loads(cargo("metadata", "--format-version", "1"))["packages"]
    packages = {(package["name"], package["version"]): package for package in packages}
    rust = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    rows, owners, originals = [f"rust-std {rust}: MIT OR Apache-2.0"], collections.defaultdict(list), {}

    def keep(text, name):
        key = " ".join(text.split())
        originals.setdefault(key, text)
        owners[key].append(name)

    own = (HERE / "LICENSE").read_text()
    keep(own, rows[0].partition(":")[0])
    for crate in linked():
        package = packages[crate]
        name, licence = " ".join(crate), package["license"] or "see its text"
        rows.append(f"{name}: {licence}")
        found = texts(pathlib.Path(package["manifest_path"]).parent)
        if not found and "Apache-2.0" not in licence:
            sys.exit(f"licences: error: {name} ({licence}) comes without a text: find it, and add it here")
        for text in found or [own]:
            keep(text, name)
    print("pgnorth is linked with these crates and with Rust's standard library:\n")
    print("\n".join(f"  {row}" for row in rows))
    for key, names in sorted(owners.items(), key=lambda item: (-len(item[1]), item[1])):
        print("\n" + "-" * 100 + "\n" + ", ".join(names) + ":\n\n" + originals[key].strip("\n"))


main()
