"""Tokenizers of merged models, read and used by the ``tokenizers`` library."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as Real

from git_theta.errors import MergeError
from git_theta.merge.planning import tokenizers
from git_theta.merge.planning.tokenizers import Tokenizer
from git_theta.merge.planning.vocabulary import Vocabulary
from tests.support.vocabularies import PAIRS, bpe, side, unigram, word_piece


def real(made: Tokenizer) -> Real:
    """What the library makes of the file; its numbers are those that the rows go by."""
    found = Real.from_str(made.files["tokenizer.json"].decode())
    assert found.get_vocab() == dict(made.ids)
    return found


def test_a_union_of_added_tokens_keeps_the_numbers_of_ours():
    ours, theirs = bpe(added=["<x>", "<both>"]), bpe(added=["<both>", "<y>"])
    made = tokenizers.union([side("main", ours), side("dev", theirs)])
    found, before = real(made), ours.get_vocab()
    assert {token: n for token, n in found.get_vocab().items() if token in before} == before
    assert found.token_to_id("<y>") == len(before)
    assert found.encode("abcd<y>ab<x>").tokens == ["abcd", "<y>", "ab", "<x>"]


def test_a_union_of_merges_splits_what_either_knew():
    """Tokens that were added on our side stand before those of the model that theirs brings."""
    ours = bpe(added=["<x>"])
    theirs = bpe([*PAIRS, ("e", "f"), ("abcd", "ef")], added=["<y>"])
    found = real(tokenizers.union([side("main", ours), side("dev", theirs)]))
    assert found.encode("abcdef<x><y>").tokens == ["abcdef", "<x>", "<y>"]
    assert found.encode("abcd").ids == ours.encode("abcd").ids


def test_a_union_of_three_word_pieces():
    sides = [word_piece(["good", "##ish", *more]) for more in ([], ["bad"], ["##est", "bad"])]
    made = tokenizers.union([side(str(n), each) for n, each in enumerate(sides)])
    assert real(made).encode("badest goodish").tokens == ["bad", "##est", "good", "##ish"]


def test_added_tokens_join_a_unigram_model_and_pieces_do_not():
    ours = unigram(["<unk>", "a", "b"], ["<x>"])
    made = tokenizers.union(
        [side("main", ours), side("dev", unigram(["<unk>", "a", "b"], ["<y>"]))]
    )
    assert real(made).token_to_id("<y>") == 4
    with pytest.raises(MergeError, match="a Unigram model has 1 token that main"):
        tokenizers.union([side("main", ours), side("dev", unigram(["<unk>", "a", "b", "c"]))])


def test_common_tokens_are_those_of_all():
    ours = bpe([*PAIRS, ("e", "f")], added=["<x>"])
    made = tokenizers.common([side("main", ours), side("dev", bpe(added=["<y>"]))])
    found = real(made)
    assert found.get_vocab() == bpe().get_vocab()
    assert found.encode("abcdef").tokens == ["abcd", "e", "f"]


def test_common_tokens_of_which_some_come_late_are_refused():
    sides = [side("main", bpe(added=["<x>", "<both>"])), side("dev", bpe(added=["<both>"]))]
    with pytest.raises(MergeError, match="tokens that only some sides have stand between"):
        tokenizers.common(sides)


def lines(of: str, *tokens: str, **files: bytes) -> Vocabulary:
    named = {name.replace("_json", ".json"): content for name, content in files.items()}
    return Vocabulary(of, {"vocab.txt": ("\n".join(tokens) + "\n").encode(), **named})


def test_lines_of_vocab_txt():
    made = tokenizers.union([lines("main", "[UNK]", "a"), lines("dev", "[UNK]", "b", "a")])
    assert made.files == {"vocab.txt": b"[UNK]\na\nb\n"}
    assert made.ids == {"[UNK]": 0, "a": 1, "b": 2}
    cut = tokenizers.common([lines("main", "[UNK]", "a", "c"), lines("dev", "[UNK]", "b", "a")])
    assert cut.files == {"vocab.txt": b"[UNK]\na\n"}


def test_a_line_cannot_come_after_added_tokens():
    added = json.dumps({"<x>": 2}).encode()
    ours = lines("main", "[UNK]", "a", added_tokens_json=added)
    theirs = lines("dev", "[UNK]", "a", added_tokens_json=json.dumps({"<y>": 2}).encode())
    made = tokenizers.union([ours, theirs])
    assert json.loads(made.files["added_tokens.json"]) == {"<x>": 2, "<y>": 3}
    assert made.files["vocab.txt"] == ours.files["vocab.txt"]
    with pytest.raises(MergeError, match="its added tokens stand where"):
        tokenizers.union([ours, lines("dev", "[UNK]", "a", "b")])


def test_vocab_json_and_merges_txt():
    def files(tokens: list[str], merges: str) -> dict[str, bytes]:
        table = {token: number for number, token in enumerate(tokens)}
        return {
            "vocab.json": json.dumps(table).encode(),
            "merges.txt": f"#version: 0.2\n{merges}".encode(),
        }

    ours = Vocabulary("main", files(["a", "b", "ab"], "a b\n"))
    theirs = Vocabulary("dev", files(["a", "b", "ab", "aba"], "a b\nab a\n"))
    made = tokenizers.union([ours, theirs])
    assert json.loads(made.files["vocab.json"]) == {"a": 0, "b": 1, "ab": 2, "aba": 3}
    assert made.files["merges.txt"] == b"#version: 0.2\na b\nab a\n"
    assert tokenizers.common([theirs, ours]).files["merges.txt"] == b"#version: 0.2\na b\n"


def test_the_table_of_added_tokens_in_the_configuration_follows():
    def with_config(of: str, *added: str) -> Vocabulary:
        made = bpe(added=added)
        table = {str(made.token_to_id(t)): {"content": t, "special": True} for t in added}
        config = {"added_tokens_decoder": table, "model_max_length": 8}
        files = side(of, made).files
        return Vocabulary(of, {**files, "tokenizer_config.json": json.dumps(config).encode()})

    made = tokenizers.union([with_config("main", "<x>"), with_config("dev", "<y>")])
    config = json.loads(made.files["tokenizer_config.json"])
    assert {n: each["content"] for n, each in config["added_tokens_decoder"].items()} == {
        str(made.ids["<x>"]): "<x>",
        str(made.ids["<y>"]): "<y>",
    }
    assert config["model_max_length"] == 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"model": {"vocab": 3}}',
        b'{"model": {"vocab": {"a": "1"}}}',
        b'{"model": {"vocab": {"a": -1}}}',
        b'{"model": {"vocab": {"a": 99999999999}}}',
        b"[" * 9999,
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\xff",
    ],
)
def test_what_is_no_tokenizer_is_refused(content):
    with pytest.raises(MergeError, match="main: its tokenizer cannot be read"):
        Vocabulary("main", {"tokenizer.json": content}).ids  # noqa: B018


def test_two_tokens_of_one_number_are_refused():
    with pytest.raises(MergeError, match="two tokens of its tokenizer have one number"):
        Vocabulary("main", {"vocab.json": b'{"a": 1, "b": 1}'}).ids  # noqa: B018
