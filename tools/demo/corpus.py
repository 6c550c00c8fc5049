"""Reading the corpus that fetch_corpus.py wrote."""

import lzma
import os

DOMAINS = ["c", "python", "rust", "english", "reference", "german", "french", "japanese"]


def documents(folder, domain, split):
    """(source, text) of each document of a domain; split is "train" or "heldout"."""
    with lzma.open(os.path.join(folder, "%s.%s.xz" % (domain, split))) as file:
        for document in file.read().decode("utf-8").split("\0"):
            if document:
                source, text = document.split("\n", 1)
                yield source, text
