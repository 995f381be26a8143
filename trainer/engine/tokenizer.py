"""Builds CLIP-compatible tokenizers from a list of words: each of them becomes one token, and any other text is split
into smaller pieces, down to single bytes. Nothing is downloaded.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

_END_OF_WORD = "</w>"
"""CLIP's suffix for the last piece of a word."""

Pieces = tuple[str, ...]


def make_tokenizer(folder: Path, *, words: Iterable[str] = (), length: int = 77) -> CLIPTokenizer:
    """Build a tokenizer with up to `length` tokens, start and end included; writes `vocab.json` and `merges.txt` to the
    folder."""
    characters, merges = _byte_characters(), _learn_merges(words)
    pieces = [
        *characters,
        *(f"{character}{_END_OF_WORD}" for character in characters),
        *("".join(merge) for merge in merges),
    ]
    ids = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("".join(["#version: 0.2\n", *(f"{left} {right}\n" for left, right in merges)]))
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=length)


def _learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte pair encoding (Sennrich et al. 2016): merge the most frequent pair until every word is one piece.

    Terminates, since every merge shortens a word.
    """
    word_pieces: list[Pieces] = [(*word[:-1], word[-1] + _END_OF_WORD) for word in sorted(set(words))]
    merges = []
    while pairs := Counter(pair for pieces in word_pieces for pair in pairwise(pieces)):
        most_frequent = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(most_frequent)
        word_pieces = [_apply_merge(pieces, most_frequent) for pieces in word_pieces]
    return merges


def _apply_merge(pieces: Pieces, pair: tuple[str, str]) -> Pieces:
    merged: list[str] = []
    for piece in pieces:
        # In "aaa" the left piece may just have been merged itself and then no longer matches.
        if merged and (merged[-1], piece) == pair:
            merged[-1] = "".join(pair)
        else:
            merged.append(piece)
    return tuple(merged)


def _byte_characters() -> list[str]:
    """The printable character that represents each byte in GPT-2's and CLIP's vocabularies (Radford et al. 2019)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
