#!/usr/bin/env python3
"""Prints the circles of files in a crate: files that import one another, directly or through others.

Usage: bench/circles.py [--roofs] SRC      for instance  bench/circles.py backup/src

An import is a `use` line or a path that begins with `crate`, `self` or `super`, outside of tests. What a file offers by
`pub use` counts as imported from the file that it lies in. A file may take words (options, errors) from the files that it
stands under, `scan/walk.rs` from `scan.rs`; with --roofs such imports count, too. Exits with 1 if there are circles.
"""

import re
import sys
from pathlib import Path

COMMENT = re.compile(r"//[^\n]*")
USE = re.compile(r"^[ \t]*(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", re.M)
MOD = re.compile(r"^[ \t]*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);", re.M)
TEST_LINE = re.compile(
    r"^[ \t]*#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)?(?:pub(?:\([^)]*\))?\s+)?(?:use\s+[^;]+|mod\s+\w+);", re.M
)
TESTS = re.compile(r"^#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+\w+\s*\{", re.M)
INLINE = re.compile(r"\b((?:crate|self|super)(?:::\w+)+)")


def split(text):
    """The parts of a list between braces."""
    parts, depth, part = [], 0, ""
    for letter in text:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    return [part.strip() for part in parts + [part] if part.strip()]


def paths(tree):
    """A `use` tree as (path, name that it gets)."""
    tree = re.sub(r"\s+", " ", tree).strip()
    if "{" not in tree:
        path, _, name = tree.partition(" as ")
        path = path.strip().split("::")
        path = path[:-1] if path[-1] == "self" and len(path) > 1 else path
        return [(path, name.strip() or path[-1])]
    head, rest = tree.split("{", 1)
    head = [part for part in head.strip().rstrip(":").split("::") if part]
    found = []
    for part in split(rest.rsplit("}", 1)[0]):
        if part == "self":
            found.append((head, head[-1]))
        else:
            found += [(head + path, name) for path, name in paths(part)]
    return found


class Crate:
    def __init__(self, src):
        self.files, self.children, self.uses, self.offers = {}, {}, {}, {}
        self.read(src / "lib.rs" if (src / "lib.rs").exists() else src / "main.rs", (), src)

    def read(self, file, module, folder):
        text = TESTS.split(TEST_LINE.sub("", COMMENT.sub("", file.read_text())))[0]
        self.files[module] = file
        uses = [(path, name, bool(shown)) for shown, tree in USE.findall(text) for path, name in paths(tree)]
        inline = [(path.split("::"), None, False) for path in INLINE.findall(USE.sub("", text))]
        self.uses[module] = uses + inline
        self.offers[module] = {name: path for path, name, shown in uses if shown}
        self.children[module] = []
        for name in MOD.findall(text):
            for child in (folder / f"{name}.rs", folder / name / "mod.rs"):
                if child.exists():
                    self.children[module].append(name)
                    self.read(child, module + (name,), folder / name)

    def file_of(self, module, path, depth=0):
        """The module whose file holds what `path`, named in `module`, means; None if that is not in this crate."""
        at, path = module, list(path)
        if path[0] == "crate":
            at, path = (), path[1:]
        elif path[0] in ("self", "super"):
            while path and path[0] in ("self", "super"):
                at = at[:-1] if path[0] == "super" else at
                path = path[1:]
        elif path[0] not in self.children[module]:
            return None
        while path:
            name, rest = path[0], path[1:]
            offered = self.offers[at].get(name)
            # A function may have the name of its module: outside, what is offered is meant.
            if offered and not rest and depth < 9:
                return self.file_of(at, offered, depth + 1) or at
            if name not in self.children[at]:
                break
            at, path = at + (name,), rest
        return at

    def arrows(self, roofs):
        arrows = {module: set() for module in self.files}
        for module, uses in self.uses.items():
            for path, _, _ in uses:
                to = self.file_of(module, path)
                if to is None or to == module or (not roofs and to == module[: len(to)]):
                    continue
                arrows[module].add(to)
        return arrows


def circles(arrows):
    """Tarjan's strongly connected components of more than one."""
    number, low, stack, found = {}, {}, [], []

    def visit(module):
        number[module] = low[module] = len(number)
        stack.append(module)
        for to in sorted(arrows[module]):
            if to not in number:
                visit(to)
                low[module] = min(low[module], low[to])
            elif to in stack:
                low[module] = min(low[module], number[to])
        if low[module] == number[module]:
            at = stack.index(module)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(arrows):
        if module not in number:
            visit(module)
    return sorted(found)


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--roofs"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    sys.setrecursionlimit(10_000)
    src = Path(arguments[0])
    crate = Crate(src)
    arrows = crate.arrows("--roofs" in sys.argv)
    found = circles(arrows)
    for circle in found:
        print(f"{len(circle)} files:")
        for module in circle:
            into = ", ".join(str(crate.files[to].relative_to(src)) for to in sorted(arrows[module] & set(circle)))
            print(f"  {crate.files[module].relative_to(src)} -> {into}")
    print(f"{len(found)} circles in {len(crate.files)} files of {src}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
