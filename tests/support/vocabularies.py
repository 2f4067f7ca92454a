"""Tokenizers made by the ``tokenizers`` library, and their files."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from git_theta.merge.planning.vocabulary import Vocabulary

LETTERS = list("abcdefgh")
PAIRS = [("a", "b"), ("c", "d"), ("ab", "cd")]


def bpe(pairs: Sequence[tuple[str, str]] = PAIRS, added: Sequence[str] = ()) -> Tokenizer:
    """Letters, what ``pairs`` merge, and tokens that were added."""
    tokens = dict.fromkeys([*LETTERS, *("".join(pair) for pair in pairs)])
    vocab = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=list(pairs)))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([AddedToken(token, normalized=False) for token in added])
    return made


def word_piece(pieces: Sequence[str], added: Sequence[str] = ()) -> Tokenizer:
    vocab = {token: number for number, token in enumerate(["[UNK]", *pieces])}
    made = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(added))
    return made


def unigram(pieces: Sequence[str], added: Sequence[str] = ()) -> Tokenizer:
    made = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], 0))
    made.add_special_tokens(list(added))
    return made


def side(of: str, made: Tokenizer) -> Vocabulary:
    """The tokenizer of a side, in ``tokenizer.json``."""
    return Vocabulary(of, {"tokenizer.json": made.to_str(pretty=True).encode()})
