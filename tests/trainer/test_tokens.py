from pathlib import Path

from trainer.demo.tokens import make_tokenizer
from trainer.demo.world.scenes import all_words


def test_every_word_of_the_world_is_one_token_and_any_other_text_is_some(tmp_path: Path) -> None:
    words = make_tokenizer(tmp_path, words=all_words(), length=40)
    assert [word for word in all_words() if len(words(word).input_ids) != 3] == []
    assert words.decode(words("momo, ein Bär").input_ids, skip_special_tokens=True).strip() == "momo , ein bär"
    assert words.model_max_length == 40


def test_words_that_hold_each_other_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    names = ["aaa", "aa", "aab", "starts", "star", "art", "tart"]
    words = make_tokenizer(tmp_path, words=names)
    assert [len(words(name).input_ids) for name in names] == [3] * len(names)
