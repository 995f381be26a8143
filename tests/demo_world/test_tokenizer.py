from pathlib import Path

from demo_world.scenes import all_words
from trainer.engine.tokenizer import make_tokenizer


def test_every_word_of_the_demo_world_is_one_token_and_other_text_is_split(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, words=all_words(), length=40)
    assert [word for word in all_words() if len(tokenizer(word).input_ids) != 3] == []
    assert tokenizer.decode(tokenizer("momo, ein Bär").input_ids, skip_special_tokens=True).strip() == "momo , ein bär"
    assert tokenizer.model_max_length == 40


def test_words_that_contain_each_other_are_still_one_token_each(tmp_path: Path) -> None:
    names = ["aaa", "aa", "aab", "starts", "star", "art", "tart"]
    tokenizer = make_tokenizer(tmp_path, words=names)
    assert [len(tokenizer(name).input_ids) for name in names] == [3] * len(names)
