"""Checks of ./check on texts: `texts.py links` and `texts.py standalone`.

links       every relative link in a Markdown file leads to a file of the
            repository, and its #anchor to a heading there.
standalone  no file names a path of the machine it was written on, or a folder
            beside the repository.

Both read what git tracks or would track. Each finding is one line; any finding
is exit code 1.
"""

import pathlib
import posixpath
import re
import subprocess
import sys
import urllib.parse

# Put together here, so that this file passes its own check.
MACHINE_PATHS = ["/" + name + "/" for name in ("work", "root", "home", "tmp/bash_jobs")]
MACHINE_PATH = re.compile(r"(?<![\w.~$})-])(?:%s)" % "|".join(map(re.escape, MACHINE_PATHS)))
UPWARD = re.compile(r"(?<![\w/.-])(?:\.\./)+[\w.-]+(?:/[\w.-]+)*")

FENCE = re.compile(r"^\s*(```|~~~)")
CODE = re.compile(r"(`+).+?\1")
# [text](target), ![alt](target "title"), and [label]: target
INLINE = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)")
REFERENCE = re.compile(r"^\s{0,3}\[[^\]]+\]:\s*<?([^\s>]+)>?")
HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.*?)\s*#*\s*$")
ANCHOR = re.compile(r"<a\s+(?:name|id)=[\"']([^\"']+)[\"']")


def files():
    """Every tracked or to-be-tracked file, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True, capture_output=True,
    ).stdout.decode()
    return sorted({name for name in listed.split("\0") if name and pathlib.Path(name).is_file()})


def prose(path):
    """The numbered lines of a Markdown file outside of fenced code."""
    fence = None
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
        mark = FENCE.match(line)
        if mark and fence in (None, mark[1]):
            fence = mark[1] if fence is None else None
        elif fence is None:
            yield number, line


def anchors(path):
    """A Markdown file's anchors, made of its headings as GitHub makes them."""
    seen, found = {}, set()
    for _, line in prose(path):
        found.update(ANCHOR.findall(line))
        heading = HEADING.match(line)
        if not heading:
            continue
        text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def links(names):
    """Broken relative links."""
    known, folders = set(names), {"."}
    for name in names:
        folders.update(str(parent) for parent in pathlib.PurePosixPath(name).parents)
    checked = 0
    for name in (n for n in names if n.endswith(".md")):
        for number, line in prose(name):
            line = CODE.sub("", line)
            for target in INLINE.findall(line) + REFERENCE.findall(line):
                if re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.I):
                    continue
                checked += 1
                path, _, anchor = target.partition("#")
                path = urllib.parse.unquote(path)
                file = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
                if file not in known and file not in folders:
                    yield f"{name}:{number}: {target}: no such file in the repository"
                elif anchor and file.endswith(".md") and urllib.parse.unquote(anchor) not in anchors(file):
                    yield f"{name}:{number}: {target}: {file} has no such heading"
    print(f"{checked} relative links")


def standalone(names):
    """Mentions of what is outside of the repository."""
    read = 0
    for name in names:
        try:
            text = pathlib.Path(name).read_text()
        except UnicodeDecodeError:
            continue
        read += 1
        for number, line in enumerate(text.splitlines(), 1):
            machine = MACHINE_PATH.search(line)
            if machine:
                yield f"{name}:{number}: {machine[0]}: a path of one machine"
            for upward in UPWARD.findall(line):
                file = posixpath.normpath(posixpath.join(posixpath.dirname(name), upward))
                if file.startswith(".."):
                    yield f"{name}:{number}: {upward}: leads out of the repository"
    print(f"{read} files")


def main():
    check = {"links": links, "standalone": standalone}[sys.argv[1]]
    found = list(check(files()))
    for finding in found:
        print(finding, file=sys.stderr)
    sys.exit(bool(found))


main()
