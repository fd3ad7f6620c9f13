#!/usr/bin/env python3
"""Where may a long text be cut, so that the ids of the pieces, joined, are those of the whole? Tries it with every kind
of this folder, on texts with runs of newlines, spaces, digits and letters, \\r\\n, special tokens, and few spaces.

    pip install tokenizers==0.23.2
    python cuts.py [KIND ...]      about 30 seconds for all; prints the table of README.md: failures / trials

E is `encode` without special tokens, L and R what is left and right of a cut. "Plain" is a letter, a digit, or ASCII
punctuation. The first four rules look at the text alone, and never cut where an added token touches the white space
around the cut:
  space      before a space between plain characters; ids E(L) + E(R)
  dropped    the same, R without its space
  line       after a newline between plain characters; E(L) + E(R)
  newline    before a newline between plain characters; E(L) + E(R)
The others look at what the tokenizer gives. C is the text of CONTEXT characters before the cut, A that after it:
  free       where white space begins, if E(C + A) = E(C) + E(A); E(L) + E(R)
  context    where white space begins, if E(C + A) begins with E(C); E(L), then E(C + R) without as many ids as E(C) has
  anywhere   the same at any character
  pieces     whole texts in pieces of some 300 characters by the rule `context`: texts that differ / texts
"""

import json
import os
import random
import string
import sys
from pathlib import Path

from tokenizers import Tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
FOLDER = Path(__file__).resolve().parent
CONTEXT = 128
RULES = ["space", "dropped", "line", "newline", "free", "context", "anywhere", "pieces"]
WORDS = "river the mill a I it's don't 12 1234567 é e\u0301 ß 春の川 石 Το नदी 👩‍🌾 🇫🇷".split()
MARKS = ["...", "!?", *'.,()"#-▁Ġ\u0301ﬁİΣ\0\x85\u00a0\u2028\ufeff\u200b']
SPACES = [*[" "] * 6, *["\n"] * 5, "  ", "   ", "     ", "\t", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r"]
SPACES += [" \n", "\n ", " \r\n", "  \n  "]
RUNS = [*"1alé川 \n\t-.\u0301▁", "aa", "mill", "春の川", "\r\n", " \n", "नदी", "'s", "12 ", "a ", "a\n", "1,", "000,"]


def random_text(rng, added):
    parts = []
    for _ in range(rng.randrange(6, 60)):
        kind = rng.random()
        if added and kind < 0.05:
            parts.append(rng.choice(added))
        elif kind < 0.4:
            parts.append(rng.choice(WORDS[:4]) + rng.choice([" ", " ", " ", "\n", "", "."]))
        elif kind < 0.42:
            parts.append(rng.choice(RUNS) * rng.randrange(1, 90))
        else:
            parts.append(rng.choice(rng.choice([WORDS, MARKS, SPACES, SPACES])))
    return "".join(parts)


def is_plain(char):
    return char.isalnum() or char in string.punctuation


def is_space(char):
    return char.isspace() and char not in "\x1c\x1d\x1e\x1f"


def touches(text, cut, added):
    """Whether an added token touches the cut or the white space around it."""
    start, end = cut, cut
    while start and is_space(text[start - 1]):
        start -= 1
    while end < len(text) and is_space(text[end]):
        end += 1
    for token in added:
        at = text.find(token, max(0, start - len(token)))
        while at != -1 and at <= end:
            if at + len(token) >= start:
                return True
            at = text.find(token, at + 1)
    return False


def candidates(text, cut):
    """The rules that the characters at the cut allow."""
    before, after = text[cut - 1], text[cut]
    beyond = text[cut + 1] if cut + 1 < len(text) else " "
    if is_plain(before) and is_plain(beyond):
        if after == " ":
            yield from ["space", "dropped"]
        if after == "\n":
            yield "newline"
    if before == "\n" and cut > 1 and is_plain(text[cut - 2]) and is_plain(after):
        yield "line"
    if is_space(after) and not is_space(before):
        yield from ["free", "context"]
    yield "anywhere"


def in_pieces(encode, text, size):
    """All ids, from pieces of at least `size` characters, cut by the rule `context`."""
    ids, start = [], 0
    while start < len(text):
        context = encode(text[max(0, start - CONTEXT) : start])
        end = start + size
        while end < len(text) and not is_cut(encode, text, end):
            end += 1
        ids += encode(text[max(0, start - CONTEXT) : end])[len(context) :]
        start = end
    return ids


def is_cut(encode, text, cut):
    if not is_space(text[cut]) or is_space(text[cut - 1]):
        return False
    before, after = text[max(0, cut - CONTEXT) : cut], text[cut : cut + CONTEXT]
    known = encode(before)
    return encode(before + after)[: len(known)] == known


def try_cuts(encode, text, added, results):
    whole = encode(text)
    for cut in range(1, len(text)):
        left, before, after = encode(text[:cut]), text[max(0, cut - CONTEXT) : cut], text[cut : cut + CONTEXT]
        is_far = not touches(text, cut, added)
        known = both = None
        for rule in candidates(text, cut):
            if rule in ["free", "context", "anywhere"]:
                if known is None:
                    known, both = encode(before), encode(before + after)
                if both[: len(known)] != known or (rule == "free" and both[len(known) :] != encode(after)):
                    continue
                right = encode(text[cut:]) if rule == "free" else encode(before + text[cut:])[len(known) :]
            elif not is_far:
                continue
            else:
                right = encode(text[cut + 1 :] if rule == "dropped" else text[cut:])
            results[rule][0] += left + right != whole
            results[rule][1] += 1


def main():
    parts = json.loads((FOLDER / "texts.json").read_text(encoding="utf-8"))
    texts = {name: "".join(part * count for part, count in value) for name, value in parts.items()}
    names = sys.argv[1:] or sorted(path.name.removesuffix(".expected.json") for path in FOLDER.glob("*.expected.json"))
    print("| kind |", " | ".join(RULES), "|")
    print("| --- |", " | ".join("---" for _ in RULES), "|")
    for name in names:
        file = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        if file["model"].get("dropout") or name == "added-ambiguous":
            continue
        tokenizer = Tokenizer.from_file(str(FOLDER / f"{name}.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        contents = {token["content"] for token in file["added_tokens"]}
        added = sorted(contents | {content.lower() for content in contents})
        rng = random.Random(name)
        samples = [random_text(rng, added if index % 2 else []) for index in range(24)]
        samples += [text for key, text in texts.items() if key not in ["word", "long"] and len(text) > 1]
        results = {rule: [0, 0] for rule in RULES}

        def encode(text):
            return tokenizer.encode(text, add_special_tokens=False).ids

        for text in samples:
            try:
                encode(text)
            except Exception:  # text that this kind refuses; the package raises nothing narrower
                continue
            try_cuts(encode, text, added, results)
        for text in [texts["long"], texts["long"].replace("\n", " "), texts["long"].replace(" ", ""), "".join(samples)]:
            try:
                whole = encode(text)
            except Exception:
                continue
            results["pieces"][0] += in_pieces(encode, text, 300) != whole
            results["pieces"][1] += 1
        print(f"| {name} |", " | ".join(f"{bad}/{trials}" for bad, trials in results.values()), "|", flush=True)


if __name__ == "__main__":
    main()
