#!/usr/bin/env python3
"""Write the table of foreign tokenizers: small `tokenizer.json` files of many kinds, and what the `tokenizers` package
makes of some texts with each.

    pip install tokenizers==0.23.2
    python make.py             writes into this folder; the same bytes every time

Files:
  texts.json              the texts: name -> list of [string, count]; the text is each string repeated so often, joined
  <kind>.json             a tokenizer.json, trained on TRAINING below or written down
  <kind>.expected.json    what the package gives for the texts, with truncation and padding switched off
  broken.json             tokenizer.json files that make the crate panic: name -> [where, why, file]

README.md says what the keys of the expected files mean. The version must be that of the `tokenizers` crate in Cargo.lock;
the package runs the same code with another regular-expression engine (Oniguruma instead of fancy-regex).
"""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread: the same order, the same bytes every time
VERSION = "0.23.2"
FOLDER = Path(__file__).resolve().parent
# Longer results are kept as their length, digest and both ends.
LONGEST_LIST = 300
LONGEST_TEXT = 1200

TRAINING = """\
The river ran past the old mill, and the miller counted the sacks: one, two, three, twelve, forty.
"Where does the water go?" asked the child. "To the sea," said the miller, "and then it comes back as rain."
Nobody in the village knew who had built the wheel. It turned in winter and in summer, by day and by night.
They're saying it'll stop one day; I'd say it won't, we've seen it turn for 300 years, haven't we?
In 1984 the mill had 27 windows, 3 doors and 1 cat. In 2024 it had 26 windows, 3 doors and 2 cats.

The quiet stone, the golden field, the winter river: the children sang of the stone and the river and the field.
def count(sacks): return sum(1 for sack in sacks if sack.weight > 0.5)
    total = count(all_sacks) + 10 * (rest - 1)  # not yet paid
The mill's café served crêpes and piñones; über den Fluß ging ein Mädchen. Ça va? Señor Núñez était là.
Το ποτάμι και ο μύλος. Η θάλασσα και η βροχή. Река и мельница. Вода и камень, зима и лето.
川は水車のそばを流れる。水は海へ行く。春の川、冬の石。河水流过磨坊，水到海里去。
النهر والطاحونة. الماء إلى البحر. הנהר והטחנה. המים אל הים. नदी और चक्की। पानी समुद्र को जाता है। แม่น้ำและโรงสี
"""

# The long text: paragraphs and lines of every shape, so that there is much to cut wrongly.
PARAGRAPHS = [
    "The miller counted the sacks of the winter field and wrote them down: 12, 300, 4096, 70000.\n",
    "The river ran past the old mill.\n\nThe wheel turned,\tand turned;  and turned   again.   \n",
    "  An indented line.\n    A deeper one, it's the child's: we'll see, they'd say.\n\n\n",
    "Café, crêpes, Fluß; Το ποτάμι, Река и мельница, 川は水車のそばを流れる。水は海へ行く。\r\n",
    "if (sacks > 0) { return total / sacks; }  // rest\r\n\r\n\tindented by a tab\n",
    'النهر والطاحونة. नदी और चक्की। 👩‍🌾🇫🇷 done.\n \n  \nNew paragraph... "Where?" asked the child.\n',
]

TEXTS = {
    "plain": [["The river ran past the old mill, and they're saying it'll stop; the children sang.", 1]],
    "lines": [["First line  \r\nsecond line\t \r\n\r\n\n\nlast one \n", 1]],
    "spaces": [["   two and  three   spaces    here  ", 1]],
    "tabs": [["\tone\t\ttwo \t three\t\n\t\tfour", 1]],
    "space": [[" ", 1]],
    "newlines": [["\n\n", 1]],
    "latin": [["Café crêpes, Fluß, Señor Núñez; cafe\u0301 decomposed, ÉCOLE, İstanbul, ﬁne ½", 1]],
    "greek": [["Το ποτάμι και ο μύλος, ΟΔΟΣ ὁδός.", 1]],
    "cyrillic": [["Река и мельница, вода ЁЛКА ёлка.", 1]],
    "cjk": [["春の川、冬の石。河水流过磨坊, abc漢字 カタカナ ｶﾀｶﾅ 한국어", 1]],
    "rtl": [["النهر والطاحونة (الماء) 123 הנהר והטחנה, שָׁלוֹם", 1]],
    "marks": [["नदी और चक्की। क्षत्रिय แม่น้ำและโรงสี n\u0308\u0323 \u0301x", 1]],
    "emoji": [["👩‍🌾 went 👍🏽 to 🇫🇷🇯🇵 by 🚣🏿‍♀️!❤️", 1]],
    "code": [["def f(x):\n    return x[0]**2 != 1e-9  # 12345678 and 3.14, 1234 ١٢٣٤, 'it''s'\n\tS='S LL'\n", 1]],
    "specials": [
        [
            "<s>The</s> river <|endoftext|>\n[SEP] mill <|im_start|>old [MASK] stone<pad> [unk]<unk> <|begin_of_text|> [CLS]",
            1,
        ]
    ],
    "markers": [["a ▁river Ġmill ##ing </w> <0x0A> <0xE6> a|b ▁ Ċ", 1]],
    "controls": [
        ["nul\0bell\x07esc\x1b[1mdel\x7fnel\x85bom\ufeffzw\u200bnb\u00a0ls\u2028ideo\u3000pua\ue000rep\ufffdend", 1]
    ],
    "case": [["I'M it'S THEY'LL don'T o'ſ \u212aelvin ß ẞ ς Σ dž", 1]],
    "empty": [],
    "word": [["mill", 750]],
    "long": [[paragraph, 4] for paragraph in PARAGRAPHS] + [["".join(PARAGRAPHS), 6]],
}

CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
# As tiktoken spells it now. Oniguruma reads `{1,3}+` as "one or more times one to three" and `$` as the end of any line;
# fancy-regex as possessive, and as the end of the text.
TIKTOKEN_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")

KINDS = {}


def kind(name, note, **facts):
    """Registers a function that returns a Tokenizer, or the dict of a tokenizer.json. `facts` go into the expected file."""

    def register(make):
        KINDS[name] = (make, note, facts)
        return make

    return register


# The package's own trainers number some tokens in the order of a hash table, which differs from run to run. Only
# byte-level BPE with the whole alphabet given is the same every time; the rest is learned here.


def words_of(tokenizer):
    """The words of the training text, as normalizer and pre-tokenizer give them."""
    for line in TRAINING.splitlines(keepends=True):
        normalized = tokenizer.normalizer.normalize_str(line) if tokenizer.normalizer else line
        yield from (word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized))


def with_common_letters(words, letters):
    """The words without those that have other than the most frequent letters."""
    counts = Counter(char for word in words for char in word)
    common = {char for char, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:letters]}
    return [word for word in words if common.issuperset(word)]


def learn_bpe(words, size, prefix="", suffix="", start=()):
    """Vocabulary (after the tokens of `start`) and merges: again and again the most frequent pair, of equals the first by
    spelling. `prefix` marks what continues a word, `suffix` what ends it."""
    split = {}
    for word, count in Counter(words).items():
        symbols = [char if not at else prefix + char for at, char in enumerate(word)]
        symbols[-1] += suffix
        split[word] = (symbols, count)
    tokens = list(dict.fromkeys([*start, *sorted({symbol for symbols, _ in split.values() for symbol in symbols})]))
    merges = []
    while len(tokens) < size:
        pairs = Counter()
        for symbols, count in split.values():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[left, right] < 2:
            break
        joined = left + right.removeprefix(prefix)
        merges.append([left, right])
        if joined not in tokens:
            tokens.append(joined)
        for symbols, _ in split.values():
            at = 0
            while at + 1 < len(symbols):
                if (symbols[at], symbols[at + 1]) == (left, right):
                    symbols[at : at + 2] = [joined]
                at += 1
    return {token: id for id, token in enumerate(tokens)}, merges


def learn_unigram(words, size, start):
    """[token, score]: the tokens of `start`, all letters, and the frequent parts of words; scores are log frequencies."""
    counts = Counter()
    for word, count in Counter(words).items():
        for first in range(len(word)):
            for last in range(first + 1, min(len(word), first + 8) + 1):
                counts[word[first:last]] += count
    total = sum(count for part, count in counts.items() if len(part) == 1)
    gain = {
        part: -count * (len(part) if len(part) > 1 else total)
        for part, count in counts.items()
        if count > 1 or len(part) == 1
    }
    parts = sorted(gain, key=lambda part: (gain[part], part))[: size - len(start)]
    return [[token, 0.0] for token in start] + [[part, round(math.log(counts[part] / total), 3)] for part in parts]


def filled(tokenizer, specials=(), **model):
    """The tokenizer.json of `tokenizer` with these values in its model, and special tokens."""
    file = json.loads(tokenizer.to_str())
    file["model"].update(model)
    tokenizer = Tokenizer.from_str(json.dumps(file))
    tokenizer.add_special_tokens([special(token) for token in specials])
    return tokenizer


def special(content, **flags):
    return AddedToken(content, special=True, normalized=False, **flags)


def document(tokenizer):
    return json.loads(tokenizer.to_str())


# Byte-level BPE


def byte_bpe(vocab=310, specials=("<|endoftext|>",), pre=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[special(token) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING.splitlines(keepends=True), trainer)
    return tokenizer


def with_numbers(tokenizer):
    """The tokenizer.json with merges of digits, so that it shows where numbers are split."""
    file = document(tokenizer)
    for left, right in [("1", "2"), ("3", "4"), ("12", "34"), ("5", "6"), ("56", "7")]:
        assert left + right not in file["model"]["vocab"]
        file["model"]["vocab"][left + right] = len(file["model"]["vocab"])
        file["model"]["merges"].append([left, right])
    return file


def split_then_bytes(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@kind("gpt2", "GPT-2: byte-level BPE")
def gpt2():
    tokenizer = byte_bpe()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


@kind("gpt2-prefix-space", "byte-level BPE with add_prefix_space")
def gpt2_prefix_space():
    tokenizer = byte_bpe(pre=pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True)
    return tokenizer


@kind("roberta", "byte-level BPE, prefix space, RobertaProcessing, <mask> takes the white space on its left")
def roberta():
    tokenizer = byte_bpe(specials=["<s>", "<pad>", "</s>", "<unk>"], pre=pre_tokenizers.ByteLevel(add_prefix_space=True))
    tokenizer.add_special_tokens([special("<mask>", lstrip=True)])
    ids = {token: tokenizer.token_to_id(token) for token in ["<s>", "</s>"]}
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True, add_prefix_space=True
    )
    return tokenizer


@kind("bytes-trim", "byte-level BPE, ByteLevel as post-processor that trims offsets (ids are the same)")
def bytes_trim():
    tokenizer = byte_bpe(vocab=280, pre=pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True, add_prefix_space=False)
    return tokenizer


@kind("bytes-missing", "byte-level BPE trained without initial_alphabet: most bytes have no token and vanish")
def bytes_missing():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["the river ran past the old mill and the miller counted the sacks\n"] * 3,
        trainers.BpeTrainer(vocab_size=60, special_tokens=[special("<|endoftext|>")], show_progress=False),
    )
    return tokenizer


@kind("llama3", "Llama 3: Split by a pattern, ByteLevel, ignore_merges, <|begin_of_text|> by template")
def llama3():
    tokenizer = byte_bpe(
        specials=["<|begin_of_text|>", "<|end_of_text|>"], pre=split_then_bytes(LLAMA3_PATTERN), ignore_merges=True
    )
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", begin)],
            ),
        ]
    )
    file = with_numbers(tokenizer)
    # Words that no merges lead to: with ignore_merges they are found all the same.
    for word in ["Ġsaying", "Ġchildren"]:
        assert word not in file["model"]["vocab"]
        file["model"]["vocab"][word] = len(file["model"]["vocab"])
    return file


@kind(
    "qwen2",
    "Qwen 2: NFC, Split, ByteLevel without its pattern; <|endoftext|> and <|im_start|> beyond the model's vocabulary",
)
def qwen2():
    tokenizer = byte_bpe(specials=(), pre=split_then_bytes(QWEN2_PATTERN))
    tokenizer = Tokenizer.from_str(json.dumps(with_numbers(tokenizer)))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")])
    return tokenizer


@kind("cl100k", "Split by cl100k's pattern (possessive quantifiers), isolated")
def cl100k():
    return with_numbers(byte_bpe(pre=split_then_bytes(CL100K_PATTERN)))


@kind(
    "cl100k-tiktoken",
    "Split by cl100k's pattern as tiktoken spells it now",
    engine="the package's regular expressions read `{1,3}+` and `$` otherwise than fancy-regex: other ids for digits and line ends",
)
def cl100k_tiktoken():
    return with_numbers(byte_bpe(pre=split_then_bytes(TIKTOKEN_PATTERN)))


@kind("split-inverted", "Split, removed and inverted: what the pattern does not match (white space) is dropped on purpose")
def split_inverted():
    pattern = r"[\p{L}\p{M}]+|\p{N}|[^\s\p{L}\p{M}\p{N}]+"
    return byte_bpe(pre=split_then_bytes(pattern, "removed", True))


@kind("split-lines", "Split after each newline, merged with what comes before; ByteLevel without its pattern: words join")
def split_lines():
    return byte_bpe(pre=split_then_bytes(r"\n", "merged_with_previous"))


@kind("digits", "Sequence of Punctuation, Digits one by one, and ByteLevel")
def digits():
    tokenizer = byte_bpe(
        pre=pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation("isolated"),
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    )
    return with_numbers(tokenizer)


@kind("nfkc-lower", "NFKC, lower case, accents stripped: lossy")
def nfkc_lower():
    tokenizer = byte_bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()])
    return tokenizer


@kind("strip", "a normalizer that strips white space at both ends of the text")
def strip():
    tokenizer = byte_bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFC()])
    return tokenizer


@kind("clip", "CLIP: NFC, runs of white space to one space, lower case; end_of_word_suffix </w>")
def clip():
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = split_then_bytes(pattern, "removed", True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    start = [*alphabet, *(char + "</w>" for char in alphabet)]
    vocab, merges = learn_bpe(words_of(tokenizer), 560, suffix="</w>", start=start)
    specials = ["<|startoftext|>", "<|endoftext|>"]
    return filled(
        tokenizer, specials, vocab=vocab | {token: len(vocab) + n for n, token in enumerate(specials)}, merges=merges
    )


@kind("gpt1", "GPT: lower case, BertPreTokenizer, end_of_word_suffix </w>, BPEDecoder")
def gpt1():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    vocab, merges = learn_bpe(words_of(tokenizer), 420, suffix="</w>", start=["<unk>"])
    return filled(tokenizer, ["<unk>"], vocab=vocab, merges=merges)


# SentencePiece-like

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SENTENCE_PIECE_SPECIALS = ["<unk>", "<s>", "</s>"]


def strip_one_space():
    return decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )


def begin_template(tokenizer):
    return processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )


def sentence_piece_bpe(pre, normalizer=None, with_bytes=True, vocab=420):
    """A BPE over characters with ▁ for the space. Trained word by word: as in SentencePiece's own models, no token has
    a ▁ after another character."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=with_bytes, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    words = with_common_letters(list(words_of(tokenizer)), 50)
    # Bytes are tokens of the vocabulary, not added ones: the text `<0x0A>` is six characters.
    vocab, merges = learn_bpe(words, vocab, start=SENTENCE_PIECE_SPECIALS + (BYTES if with_bytes else []))
    # Runs of spaces are tokens, as in Llama's vocabulary.
    for spaces in ["▁" * 2, "▁" * 4]:
        vocab.setdefault(spaces, len(vocab))
        merges.append([spaces[: len(spaces) // 2]] * 2)
    tokenizer = filled(tokenizer, SENTENCE_PIECE_SPECIALS, vocab=vocab, merges=merges)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = strip_one_space()
    return tokenizer


@kind("llama2", "Llama 2: ▁ put first and for spaces by the normalizer, no pre-tokenizer, bytes, <s> by template")
def llama2():
    tokenizer = sentence_piece_bpe(None, normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))
    tokenizer.post_processor = begin_template(tokenizer)
    return tokenizer


@kind("mistral", "Llama 2 and Mistral without the `legacy` normalizer: Metaspace first, not split; bytes")
def mistral():
    tokenizer = sentence_piece_bpe(pre_tokenizers.Metaspace(prepend_scheme="first", split=False))
    tokenizer.post_processor = begin_template(tokenizer)
    return tokenizer


@kind("gemma", "Gemma: spaces replaced by the normalizer, nothing put first; bytes")
def gemma():
    tokenizer = sentence_piece_bpe(
        pre_tokenizers.Split(" ", "merged_with_previous"), normalizers.Replace(" ", "▁"), vocab=400
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = begin_template(tokenizer)
    return tokenizer


@kind("sp-bpe", "SentencePiece BPE: Metaspace first, no bytes, <unk>")
def sp_bpe():
    tokenizer = sentence_piece_bpe(pre_tokenizers.Metaspace(prepend_scheme="first"), with_bytes=False, vocab=200)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


@kind("sp-bpe-dropping", "SentencePiece BPE without bytes and without <unk>: what has no token vanishes")
def sp_bpe_dropping():
    file = document(sp_bpe())
    file["model"]["unk_token"] = None
    return file


@kind("fuse-unk", "BPE over words, runs of the unknown fused")
def fuse_unk(fuse=True):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vocab, merges = learn_bpe(with_common_letters(list(words_of(tokenizer)), 30), 90, start=["<unk>"])
    return filled(tokenizer, ["<unk>"], vocab=vocab, merges=merges)


@kind("no-fuse-unk", "BPE over words, each unknown by itself")
def no_fuse_unk():
    return fuse_unk(False)


def unigram(normalizer, pre, specials, vocab, **model):
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0)], 0))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=pre.prepend_scheme)
    words = with_common_letters(list(words_of(tokenizer)), 50)
    model = {"unk_id": specials.index("<unk>"), "vocab": learn_unigram(words, vocab, specials)} | model
    return filled(tokenizer, specials, **model)


@kind("t5", "T5: Unigram, normalizers that fold and collapse white space, Metaspace always, </s> by template")
def t5():
    normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer = unigram(normalizer, pre_tokenizers.Metaspace(prepend_scheme="always"), ["<pad>", "</s>", "<unk>"], 330)
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B:1 </s>:1", special_tokens=[("</s>", end)]
    )
    return tokenizer


@kind("unigram-bytes", "Unigram with byte_fallback, Metaspace first")
def unigram_bytes():
    pre = pre_tokenizers.Metaspace(prepend_scheme="first")
    file = document(unigram(normalizers.NFC(), pre, SENTENCE_PIECE_SPECIALS, 300))
    vocab = file["model"]["vocab"] + [[byte, -20.0] for byte in BYTES]
    tokenizer = filled(Tokenizer.from_str(json.dumps(file)), vocab=vocab, byte_fallback=True)
    tokenizer.decoder = strip_one_space()
    return tokenizer


@kind("unigram-no-unk", "Unigram without unk_id: the package refuses unknown text")
def unigram_no_unk():
    return unigram(None, pre_tokenizers.Metaspace(prepend_scheme="always"), ["<unk>"], 200, unk_id=None)


# Words


def bert_like(vocab=330):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = with_common_letters(list(words_of(tokenizer)), 60)
    tokenizer = filled(tokenizer, names, vocab=learn_bpe(words, vocab, prefix="##", start=names)[0])
    ids = [(name, tokenizer.token_to_id(name)) for name in ["[CLS]", "[SEP]"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    return tokenizer


@kind("bert", "BERT, uncased: WordPiece, [CLS] and [SEP] by template")
def bert():
    return bert_like()


@kind("word-level", "words and [UNK], no decoder: the package decodes with a space between tokens")
def word_level():
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    counts = Counter(words_of(tokenizer))
    words = ["[UNK]", *sorted(counts, key=lambda word: (-counts[word], word))[:149]]
    return filled(tokenizer, ["[UNK]"], vocab={word: id for id, word in enumerate(words)})


@kind("ctc", "wav2vec 2: characters, | for the space, and a decoder that drops repeated tokens")
def ctc():
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaoinshrdlcumwfgypbvkxjqz'"]
    tokenizer = Tokenizer(models.WordLevel({letter: id for id, letter in enumerate(letters)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "|")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.CTC(pad_token="<pad>", word_delimiter_token="|", cleanup=True)
    tokenizer.add_special_tokens([special(token) for token in letters[:4]])
    return tokenizer


@kind("scripts", "UnicodeScripts and Metaspace: splits where the script changes")
def scripts():
    tokenizer = sentence_piece_bpe(
        pre_tokenizers.Sequence([pre_tokenizers.UnicodeScripts(), pre_tokenizers.Metaspace(prepend_scheme="never")]),
        with_bytes=False,
        vocab=200,
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    return tokenizer


@kind("fixed-length", "FixedLength: every five characters, counted from where the text begins")
def fixed_length():
    pre = pre_tokenizers.Sequence(
        [pre_tokenizers.FixedLength(5), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return byte_bpe(vocab=290, pre=pre)


# Truncation and padding: switched off by the trainer, so that the ids are those of the same file without them


@kind("truncation", "truncation to 32 tokens is switched on")
def truncation():
    tokenizer = byte_bpe(vocab=280)
    tokenizer.enable_truncation(max_length=32)
    return tokenizer


@kind("padding", "padding to the longest of a batch is switched on")
def padding():
    tokenizer = bert_like(200)
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


@kind("both-left", "truncation to 24 with stride 4 and padding to 40, both on the left")
def both_left():
    tokenizer = bert_like(200)
    tokenizer.enable_truncation(max_length=24, stride=4, direction="left", strategy="only_first")
    tokenizer.enable_padding(direction="left", length=40, pad_to_multiple_of=8, pad_id=0, pad_token="[PAD]")
    return tokenizer


@kind(
    "truncation-panics",
    "truncation with a stride above its length: the crate panics at the first long text unless it is off",
)
def truncation_panics():
    file = document(byte_bpe(vocab=270))
    file["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5}
    return file


@kind("truncation-pair", "truncation of the second text only: the crate fails on every long text unless it is off")
def truncation_pair():
    file = document(byte_bpe(vocab=270))
    file["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "OnlySecond", "stride": 0}
    return file


# Added tokens


@kind("added", "added tokens of every flag in the middle of text")
def added():
    tokenizer = byte_bpe()
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens(
        [
            AddedToken("old", single_word=True, normalized=False),
            AddedToken("River", normalized=True),
            AddedToken("stone", lstrip=True, rstrip=True, normalized=False),
            AddedToken("two and", normalized=True),
            AddedToken("   ", normalized=False),
        ]
    )
    tokenizer.add_special_tokens(
        [
            special("<s>", rstrip=True),
            special("[MASK]", lstrip=True),
            special("</s>"),
            AddedToken("[SEP]", special=True, normalized=True),
        ]
    )
    return tokenizer


@kind("holes", "ids of the vocabulary with holes, above 65535; the added token has an id inside the vocabulary")
def holes():
    file = document(byte_bpe(vocab=280))
    vocab = file["model"]["vocab"]
    moved = {token: id if id < 100 else id + 900 if id < 270 else id + 70000 for token, id in vocab.items()}
    file["model"]["vocab"] = moved
    for token in file["added_tokens"]:
        token["id"] = moved[token["content"]]
    return file


@kind(
    "added-renumbered",
    "added tokens whose ids leave a hole: the package gives them the next free ids instead, in the file's order",
    refuse="the ids of added tokens are not those of the file",
)
def added_renumbered():
    tokenizer = byte_bpe(vocab=270, specials=())
    tokenizer.add_special_tokens([special("<s>"), special("</s>"), special("<|endoftext|>")])
    file = document(tokenizer)
    for token, id in zip(file["added_tokens"], [300, 302, 301]):
        token["id"] = id
    return file


@kind(
    "added-collides",
    "a hole in the vocabulary, and an added token after it: the package gives it the id that the last token has",
    refuse="two tokens have the same id",
)
def added_collides():
    tokenizer = byte_bpe(vocab=270, specials=())
    file = document(tokenizer)
    vocab = file["model"]["vocab"]
    last = max(vocab, key=vocab.get)
    vocab[last] += 1
    file["added_tokens"] = [
        {
            "id": 280,
            "content": "<|endoftext|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ]
    return file


@kind(
    "added-ambiguous",
    "two added tokens that are one after normalization: which id the text gets is drawn anew each time the file is loaded",
    refuse="the ids are not the same at every load",
    no_ids=True,
)
def added_ambiguous():
    tokenizer = byte_bpe(vocab=270)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("River", normalized=True), AddedToken("river", normalized=True)])
    return tokenizer


@kind(
    "dropout", "BPE with dropout: the ids are drawn at random", refuse="the ids are not the same at every call", no_ids=True
)
def dropout():
    file = document(byte_bpe(vocab=280))
    file["model"]["dropout"] = 0.1
    return file


# What the package makes of the texts


def fnv(data):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def short_list(ids):
    if len(ids) <= LONGEST_LIST:
        return ids
    digest = fnv(b"".join(id.to_bytes(4, "little") for id in ids))
    return {"count": len(ids), "fnv": digest, "first": ids[:6], "last": ids[-6:]}


def short_text(text):
    data = text.encode()
    return text if len(data) <= LONGEST_TEXT else {"bytes": len(data), "fnv": fnv(data)}


def byte_chars():
    """The characters that stand for bytes in byte-level vocabularies."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    chars = {byte: chr(byte) for byte in visible}
    for byte in range(256):
        if byte not in chars:
            chars[byte] = chr(256 + len(chars) - len(visible))
    return chars


BYTE_CHARS = byte_chars()


def lost(file, text):
    """What vanishes: [byte offset, the byte as a number or the character] of the first, and how many. Only for BPE
    without unknown token over bytes, or over characters with ▁ for the space; added tokens must have no flags."""
    model = file["model"]
    if model["type"] != "BPE" or model["unk_token"] or model["byte_fallback"] or model["end_of_word_suffix"]:
        return None
    is_bytes = "ByteLevel" in json.dumps(file["pre_tokenizer"])
    vocab = model["vocab"]
    if is_bytes and all(char in vocab for char in BYTE_CHARS.values()):
        return None
    assert file["normalizer"] is None
    added = sorted((token["content"] for token in file["added_tokens"]), key=len, reverse=True)
    found, at, offset = [], 0, 0
    while at < len(text):
        token = next((token for token in added if text.startswith(token, at)), None)
        if token:
            at, offset = at + len(token), offset + len(token.encode())
            continue
        char, at = text[at], at + 1
        if is_bytes:
            found += [[offset + index, byte] for index, byte in enumerate(char.encode()) if BYTE_CHARS[byte] not in vocab]
        elif char.replace(" ", "▁") not in vocab:
            found.append([offset, char])
        offset += len(char.encode())
    return {"first": found[0], "count": len(found)} if found else None


def unknown_id(file, tokenizer):
    model = file["model"]
    if model["type"] == "Unigram":
        return model["unk_id"]
    return tokenizer.token_to_id(model["unk_token"]) if model["unk_token"] else None


def splits(tokenizer, ids, whole):
    """[k, n]: the first k ids decode to the first n bytes of what all decode to. [k, text]: they decode to this text,
    which is not the beginning of the whole: mostly it ends within a character, as U+FFFD."""
    found, unfinished, other = {}, 0, 0
    for k in range(1, len(ids)):
        if len(ids) > LONGEST_LIST and k not in (len(ids) // 2, len(ids) - 1):
            continue
        text = tokenizer.decode(ids[:k], skip_special_tokens=False)
        if whole.startswith(text):
            if k in (1, len(ids) // 3, len(ids) // 2, len(ids) - 1):
                found[k] = len(text.encode())
        elif whole.startswith(text.rstrip("\ufffd")):
            unfinished += 1
            if unfinished <= 2 and len(text) < LONGEST_TEXT:
                found[k] = text
        else:
            other += 1
            if other <= 3:
                found[k] = text
    return sorted([k, value] for k, value in found.items())


def generated(tokenizer):
    """Ids as a model that has learned nothing gives them after a prompt, and what they decode to. The last of them is
    one that the vocabulary lacks."""
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    prompt = tokenizer.encode("the mill", add_special_tokens=False).ids
    state = 1
    for length in [6, 12, 24]:
        drawn = []
        for _ in range(length):
            state = (state * 1103515245 + 12345) % 2**31
            drawn.append(ids[(state >> 8) % len(ids)])
        drawn = prompt + drawn + [ids[-1] + 1000]
        whole = tokenizer.decode(drawn, skip_special_tokens=False)
        bare = tokenizer.decode(drawn, skip_special_tokens=True)
        result = {"prompt": len(prompt), "ids": drawn, "text": whole, "splits": splits(tokenizer, drawn, whole)}
        yield result | ({} if bare == whole else {"bare": bare})


def expect(file, tokenizer, text):
    try:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
    except Exception as error:  # the package raises nothing narrower
        return {"error": str(error)}
    full = tokenizer.encode(text, add_special_tokens=True).ids
    start = next(n for n in range(len(full) + 1) if full[n : n + len(plain)] == plain)
    result = {"ids": short_list(plain)}
    if full != plain:
        result["around"] = [full[:start], full[start + len(plain) :]]
    whole = tokenizer.decode(plain, skip_special_tokens=False)
    result["text"] = True if whole == text else short_text(whole)
    bare = tokenizer.decode(plain, skip_special_tokens=True)
    assert bare == tokenizer.decode(full, skip_special_tokens=True)
    if bare != whole:
        result["bare"] = True if bare == text else short_text(bare)
    if plain:
        result["splits"] = splits(tokenizer, plain, whole)
    unknown = plain.count(unknown_id(file, tokenizer)) if unknown_id(file, tokenizer) is not None else 0
    if unknown:
        result["unknown"] = unknown
    vanished = lost(file, text)
    if vanished:
        result["lost"] = vanished
    return result


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def lines(pairs, depth=0):
    """An object with a line for each key; nested where the value is an object of `depth` > 0."""
    body = [
        f"{compact(key)}: {lines(value.items(), depth - 1) if depth and isinstance(value, dict) else compact(value)}"
        for key, value in pairs
    ]
    return "{\n" + ",\n".join(body) + "\n}"


def write(name, text):
    (FOLDER / name).write_text(text + "\n", encoding="utf-8", newline="\n")


def bpe(vocab, merges=(), **other):
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    model |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": list(merges)}
    model |= other.pop("model", {})
    file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    return file | {"pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model} | other


BROKEN = {
    "merge-too-long": ["load", "a merge whose result is longer than every token", bpe({"a": 0, "b": 1}, [["a", "b"]])],
    "merge-without-prefix": [
        "load",
        "the right half of a merge is shorter than continuing_subword_prefix",
        bpe({"a": 0, "b": 1, "##": 2}, [["a", "b"]], model={"continuing_subword_prefix": "##"}),
    ],
    "precompiled": [
        "load",
        "a Precompiled normalizer that cannot be read",
        bpe({"a": 0}, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ],
    "strip-nothing": [
        "decode",
        "a Strip decoder that takes from the right of an empty text; decode no ids",
        bpe(
            {"a": 0},
            decoder={
                "type": "Sequence",
                "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}],
            },
        ),
    ],
    "strip-both": [
        "decode",
        "a Strip decoder that takes the same character from both sides; decode id 0",
        bpe({" ": 0, "a": 1}, decoder={"type": "Strip", "content": " ", "start": 1, "stop": 1}),
    ],
    "same-id": [
        "silent",
        "two tokens with one id: which of them decodes is drawn anew at each load",
        bpe({"a": 0, "b": 1, "c": 1}),
    ],
    "no-unknown-token": [
        "error",
        "unk_token is not in the vocabulary: an error at the first unknown text",
        bpe({"a": 0}, model={"unk_token": "<unk>"}),
    ],
}


def main():
    if tokenizers.__version__ != VERSION:
        sys.exit(f"tokenizers {tokenizers.__version__} is installed, the table is made with {VERSION}")
    texts = {name: "".join(part * count for part, count in parts) for name, parts in TEXTS.items()}
    write("texts.json", lines(TEXTS.items()))
    write("broken.json", lines(BROKEN.items()))
    for name, (make, note, facts) in KINDS.items():
        made = make()
        file = made if isinstance(made, dict) else document(made)
        write(f"{name}.json", lines(file.items()))
        tokenizer = Tokenizer.from_str((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        expected = {"kind": note, "version": VERSION}
        expected |= {key: value for key, value in facts.items() if key != "no_ids"}
        if not facts.get("no_ids"):
            vocab = tokenizer.get_vocab(with_added_tokens=True)
            expected["largest_id"] = max(vocab.values())
            renumbered = {
                token["content"]: [token["id"], tokenizer.token_to_id(token["content"])]
                for token in file["added_tokens"]
                if tokenizer.token_to_id(token["content"]) != token["id"]
            }
            if renumbered:
                expected["renumbered"] = renumbered
            expected["texts"] = {name: expect(file, tokenizer, text) for name, text in texts.items()}
            expected["generated"] = list(generated(tokenizer))
        write(f"{name}.expected.json", lines(expected.items(), depth=1))
    print(f"{len(KINDS)} kinds, {len(texts)} texts")


if __name__ == "__main__":
    main()
