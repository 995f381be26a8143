"""Tokenizers with the classes and files of CLIP's, made from a list of words: each of those is one token, any other
text a few, down to single bytes. Nothing is downloaded.
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

_END = "</w>"
"""What CLIP writes behind the last piece of a word."""

Pieces = tuple[str, ...]


def make_tokenizer(folder: Path, *, words: Iterable[str] = (), length: int = 77) -> CLIPTokenizer:
    """A tokenizer that reads up to `length` tokens, its two ends included; `vocab.json` and `merges.txt` are left in
    the folder."""
    letters, merges = _byte_letters(), _merges(words)
    pieces = [*letters, *(f"{letter}{_END}" for letter in letters), *("".join(merge) for merge in merges)]
    places = {piece: place for place, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(places))
    (folder / "merges.txt").write_text("".join(["#version: 0.2\n", *(f"{left} {right}\n" for left, right in merges)]))
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True, model_max_length=length)


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte pair encoding (Sennrich et al. 2016) until every word is one piece: the commonest pair becomes one, again
    and again. Ends, since every round makes a word shorter."""
    left: list[Pieces] = [(*word[:-1], word[-1] + _END) for word in sorted(set(words))]
    merges = []
    while pairs := Counter(pair for pieces in left for pair in pairwise(pieces)):
        commonest = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(commonest)
        left = [_merged(pieces, commonest) for pieces in left]
    return merges


def _merged(pieces: Pieces, pair: tuple[str, str]) -> Pieces:
    merged: list[str] = []
    for piece in pieces:
        # The left half may itself be the end of a pair just merged ("aaa"): then it is no half any more.
        if merged and (merged[-1], piece) == pair:
            merged[-1] = "".join(pair)
        else:
            merged.append(piece)
    return tuple(merged)


def _byte_letters() -> list[str]:
    """The printable character that GPT-2's and CLIP's vocabularies write for each byte (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in plain] + [chr(256 + place) for place in range(256 - len(plain))]
