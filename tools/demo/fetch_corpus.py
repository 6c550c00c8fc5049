#!/usr/bin/env python3
"""Build the demo model's corpus from Debian packages, by name.

    fetch_corpus.py --work DIR [--cap-mb 32]

Downloads each package with `apt-get download`, unpacks it, turns its files into plain text, drops duplicates,
and writes one file per domain and split: DIR/text/<domain>.{train,heldout}.xz. A document ends with a NUL byte and starts
with a line "package:path". Which documents are held out depends on a hash of the document alone.
Needs a Debian system (12, "bookworm", was used) and nothing but Python's library.
"""

import argparse
import glob
import gzip
import hashlib
import html
import json
import lzma
import multiprocessing
import os
import re
import subprocess

PYTHON_PACKAGES = [
    "libpython3.11-stdlib", "python3-django", "python3-twisted", "python3-networkx", "python3-sqlalchemy",
    "python3-matplotlib", "python3-sklearn", "python3-numpy", "python3-scipy", "python3-pandas",
    "python3-astropy", "python3-sympy",
]


def translated(code, region, extra):
    """Manuals that exist in several languages: the same packages, another folder or suffix."""
    return [
        ("manpages-" + code, r"/man/%s/man.*\.gz$" % code, "man"),
        ("manpages-%s-dev" % code, r"/man/%s/man.*\.gz$" % code, "man"),
        ("libreoffice-help-" + code, r"/help/%s/text/.*\.html$" % code, "html"),
        ("gimp-help-" + code, r"/help/%s/.*\.html$" % code, "html"),
        ("debian-handbook", r"/html/%s/.*\.html$" % region, "html"),
        ("gnome-user-docs", r"/help/%s/.*\.page$" % code, "html"),
        ("installation-guide-amd64", r"/%s/.*\.html$" % code, "html"),
        ("debian-reference-" + code, r"\.%s\.html$" % code, "html"),
        ("developers-reference-" + code, r"\.html$", "html"),
        ("debian-faq-" + code, r"\.html$", "html"),
        ("kicad-doc-" + code, r"\.html$", "html"),
    ] + extra


# domain -> list of (package, regular expression over paths, how to read the file)
DOMAINS = {
    "c": [("linux-source-6.1", r"/(kernel|mm|lib|block|crypto|fs|include/linux|net)/.*\.[ch]$", "code")],
    "python": [(name, r"\.py$", "code") for name in PYTHON_PACKAGES],
    "rust": [("rust-src", r"/(library|compiler|src/tools|src/bootstrap|src/librustdoc|vendor)/.*\.rs$", "code")],
    "english": [
        ("anarchism", r"/markdown/.*\.md\.gz$", "text"),
        ("gimp-help-en", r"/help/en/.*\.html$", "html"),
        ("libreoffice-help-en-us", r"/text/.*\.html$", "html"),
        ("debian-handbook", r"/html/en-US/.*\.html$", "html"),
        ("gnome-user-docs", r"/help/C/.*\.page$", "html"),
        ("gnucash-docs", r"/gnucash-(guide|help)-en/.*\.html$", "html"),
        ("installation-guide-amd64", r"/en/.*\.html$", "html"),
        ("debian-reference-en", r"\.en\.html$", "html"),
        ("developers-reference", r"/developers-reference/[^_]*\.html$", "html"),
        ("debian-policy", r"/policy.html/[^_]*\.html$", "html"),
        ("debian-faq", r"\.html$", "html"),
        ("kicad-doc-en", r"\.html$", "html"),
        ("aptitude-doc-en", r"\.html$", "html"),
        ("dict-jargon", r"\.dict\.dz$", "text"),
    ],
    "reference": [
        ("postgresql-doc-15", r"/html/.*\.html$", "html"),
        ("python3.11-doc", r"/_sources/(library|reference|c-api|howto|tutorial|faq).*\.txt$", "text"),
        ("git-doc", r"/[^/]*\.txt$", "text"),
        ("perl-doc", r"/pod/.*\.pod$", "text"),
        ("manpages", r"/man/man.*\.gz$", "man"),
        ("manpages-dev", r"/man/man.*\.gz$", "man"),
        ("glibc-doc", r"/man/man.*\.gz$", "man"),
        ("apache2-doc", r"/manual/en/.*\.html$", "html"),
        ("sqlite3-doc", r"/sqlite3/([^/]*|c3ref/[^/]*)\.html$", "html"),
        ("octave-doc", r"/octave.html/.*\.html$", "html"),
        ("maxima-doc", r"/html/[a-z]*_\d+\.html$", "html"),
        ("linux-doc-6.1", r"/_sources/(?!translations).*\.rst\.txt(\.gz)?$", "text"),
    ],
    "german": translated("de", "de-DE", [("gnucash-docs", r"/gnucash-(guide|help)-de/.*\.html$", "html")]),
    "french": translated("fr", "fr-FR", [
        ("apache2-doc", r"/manual/fr/.*\.html$", "html"), ("aptitude-doc-fr", r"\.html$", "html")]),
    "japanese": translated("ja", "ja-JP", [
        ("apache2-doc", r"/manual/ja/.*\.html$", "html"), ("aptitude-doc-ja", r"\.html$", "html"),
        ("gnucash-docs", r"/gnucash-(guide|help)-ja/.*\.html$", "html")]),
}

PIECE_BYTES = 32 << 10       # longer files are cut into pieces at empty lines
SMALLEST_BYTES = 200
HELDOUT_PER_MILLE = 30
LICENCE_WORDS = re.compile(r"copyright|licen[cs]e|SPDX|all rights reserved|warrant", re.I)
COMMENT_HEAD = re.compile(r"\A\s*(?:/\*.*?\*/\s*|(?://[^\n]*\n)+\s*|(?:#[^\n]*\n)+\s*)", re.S)
HTML_DROP = re.compile(r"<(script|style|head|nav|header|footer|noscript|svg|math|annotation|info)\b.*?</\1\s*>|<!--.*?-->", re.S | re.I)
HTML_BREAK = re.compile(r"</?(p|div|li|ul|ol|dl|dt|dd|tr|table|h\d|br|pre|section|blockquote|title|item|note|steps|list)\b[^>]*>", re.I)
HTML_TAG = re.compile(r"<[^>]+>")
PRE_BLOCK = re.compile(r"(<pre\b.*?</pre>)", re.S | re.I)


def run(*command, **kwargs):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)


def unpack(work, package):
    """Download and unpack one package; returns its folder."""
    debs, target = os.path.join(work, "debs"), os.path.join(work, "x", package)
    os.makedirs(debs, exist_ok=True)
    if not glob.glob(os.path.join(debs, package + "_*.deb")):
        run("apt-get", "download", package, cwd=debs)
    if not os.path.isdir(target):
        os.makedirs(target)
        run("dpkg", "-x", glob.glob(os.path.join(debs, package + "_*.deb"))[0], target)
        for archive in glob.glob(os.path.join(target, "usr/src/linux-source-*.tar.xz")):
            run("tar", "-xJf", archive, "-C", os.path.join(target, "usr/src"))
            os.remove(archive)
    return target


def read_bytes(path):
    if path.endswith((".gz", ".dz")):
        with gzip.open(path) as file:
            return file.read()
    with open(path, "rb") as file:
        return file.read()


def text_of_html(text):
    def flow(part):
        return re.sub(r"[ \t]*\n[ \t]*|[ \t]+", " ", part)
    text = HTML_DROP.sub("", text)
    parts = PRE_BLOCK.split(text)
    parts = [part if part[:4].lower() == "<pre" else flow(part) for part in parts]
    text = HTML_TAG.sub("", HTML_BREAK.sub("\n", "".join(parts)))
    return html.unescape(text).replace("\u00a0", " ")


ROFF_FONTS = ("B", "I", "BR", "IR", "RB", "RI", "BI", "IB", "SM", "SB", "Nm", "Nd", "Fl", "Ar", "Xr", "UR", "MT")
ROFF_ESCAPES = ((r"\(aq", "'"), (r"\(dq", '"'), (r"\(bu", "*"), (r"\(en", "–"), (r"\(em", "—"), (r"\(co", "©"), (r"\-", "-"),
                (r"\ ", " "), (r"\~", " "), (r"\(lq", "“"), (r"\(rq", "”"), (r"\'", "'"), (r"\e", "\\"))


def roff_request(line):
    """The text that a request line stands for, or None for nothing."""
    name, rest = (line[1:].strip().split(None, 1) + ["", ""])[:2]
    words = re.findall(r'"[^"]*"|(?:\\ |\S)+', rest)
    words = [word.strip('"') for word in words]
    if name in ("SH", "SS", "Sh", "Ss", "TH"):
        return "\n" + " ".join(words)
    if name == "IP":
        return "\n" + words[0] if words else ""
    if name in ("PP", "P", "LP", "sp", "TP", "HP", "Pp", "TQ"):
        return ""
    if name in ROFF_FONTS:
        return ("" if len(name) == 2 and name.isupper() else " ").join(words)
    return None


def text_of_man(text):
    lines = []
    for line in text.split("\n"):
        if line.startswith((".", "'")):
            line = roff_request(line)
        if line is not None:
            lines.append(line)
    text = re.sub(r"\\f(\[[^\]]*\]|\(..|.)|\\s[-+]?\d|\\[&,/|^:%]|\\\*\(..|\\c$", "", "\n".join(lines), flags=re.M)
    for escape, char in ROFF_ESCAPES:
        text = text.replace(escape, char)
    return text


def text_of_code(text):
    """Source as it is, less a leading comment that only states the licence (thousands of files share it)."""
    shebang = re.match(r"\A#![^\n]*\n", text)
    head, body = (shebang.group(0), text[shebang.end():]) if shebang else ("", text)
    for _ in range(4):
        comment = COMMENT_HEAD.match(body)
        if not comment or not LICENCE_WORDS.search(comment.group(0)):
            break
        body = body[comment.end():]
    return head + body


READERS = {"html": text_of_html, "man": text_of_man, "code": text_of_code, "text": lambda text: text}


def tidy(text):
    text = text.replace("\r\n", "\n").replace("\0", "")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def pieces(text):
    while len(text.encode()) > PIECE_BYTES * 5 // 4:
        cut = text.find("\n\n", PIECE_BYTES // 2)
        if cut < 0 or cut > PIECE_BYTES * 2:
            cut = text.find("\n", PIECE_BYTES // 2)
        if cut < 0:
            return
        yield text[:cut + 1]
        text = text[cut + 1:].lstrip("\n")
    yield text


def read_documents(job):
    """All documents of one (package, pattern, kind), as (order key, held out?, source, text); a file is held out whole."""
    folder, package, pattern, kind = job
    found, pattern = [], re.compile(pattern)
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if not pattern.search(path) or os.path.islink(path) or not os.path.isfile(path):
                continue
            try:
                text = read_bytes(path).decode("utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            source = package + ":" + os.path.relpath(path, folder)
            text = tidy(READERS[kind](text))
            held = hold_out(hashlib.sha256(text.encode()).hexdigest())
            for number, piece in enumerate(pieces(text)):
                if len(piece.encode()) >= SMALLEST_BYTES:
                    key = hashlib.sha256(piece.encode()).hexdigest()
                    found.append((key, held, source + ("#%d" % number if number else ""), piece))
    return found


def fraction_seen(text, seen):
    lines = [hash(line.strip()) for line in text.split("\n") if len(line.strip()) >= 24]
    return (sum(line in seen for line in lines) / len(lines) if lines else 0.0), lines


def hold_out(key):
    return int(key[:8], 16) % 1000 < HELDOUT_PER_MILLE


def select(documents, cap_bytes):
    """Drop duplicates and near duplicates, split by hash, cap the training part; hash order is a fair shuffle."""
    documents = sorted({document[0]: document for document in documents}.values())
    seen, train, heldout, size = set(), [], [], 0
    for _, held, source, text in documents:
        if held:
            continue
        share, lines = fraction_seen(text, seen)
        if share > 0.5 or size > cap_bytes:
            continue
        seen.update(lines)
        train.append((source, text))
        size += len(text.encode())
    for _, held, source, text in documents:
        share, lines = fraction_seen(text, seen)
        if held and share <= 0.25:
            seen.update(lines)
            heldout.append((source, text))
    return train, heldout


def write(path, documents):
    data = "".join(source + "\n" + text + "\0" for source, text in documents).encode()
    with lzma.open(path, "wb", preset=9) as file:
        file.write(data)
    return {"documents": len(documents), "bytes": len(data), "compressed": os.path.getsize(path)}


def build(job):
    name, work, cap_bytes = job
    documents = []
    for package, pattern, kind in DOMAINS[name]:
        documents += read_documents((os.path.join(work, "x", package), package, pattern, kind))
    train, heldout = select(documents, cap_bytes)
    by_package = {}
    for source, text in train:
        package = source.split(":")[0]
        by_package[package] = by_package.get(package, 0) + len(text.encode())
    base = os.path.join(work, "text", name)
    report = {"train": write(base + ".train.xz", train), "heldout": write(base + ".heldout.xz", heldout),
              "train_bytes_by_package": dict(sorted(by_package.items(), key=lambda item: -item[1]))}
    print(name, json.dumps(report), flush=True)
    return name, report


def versions(work):
    out = {}
    for path in sorted(glob.glob(os.path.join(work, "debs", "*.deb"))):
        package, version = os.path.basename(path).split("_")[:2]
        out[package] = version.replace("%3a", ":")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", required=True)
    parser.add_argument("--cap-mb", type=float, default=32.0)
    parser.add_argument("--only", nargs="*", default=list(DOMAINS))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    os.makedirs(os.path.join(arguments.work, "text"), exist_ok=True)
    used = sorted({package for name in arguments.only for package, _, _ in DOMAINS[name]})
    for package in used:
        unpack(arguments.work, package)
    jobs = [(name, arguments.work, int(arguments.cap_mb * 1e6)) for name in arguments.only]
    with multiprocessing.Pool(arguments.jobs) as pool:
        reports = dict(pool.imap_unordered(build, jobs))
    everything = {"domains": reports, "packages": {p: v for p, v in versions(arguments.work).items() if p in used}}
    with open(os.path.join(arguments.work, "text", "report.json"), "w") as file:
        json.dump(everything, file, indent=1)


if __name__ == "__main__":
    main()
