import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from showtell.errors import BundleError, DataError
from showtell.tokenizer import SPECIALS, Tokenizer, TokenizerConfig

CAPTIONS = [
    "A dog runs on the grass .",
    "A brown dog's ball on the grass",
    "a Dog, in a t-shirt!",
    "two dogs run",
]
KNOWN = [
    "a",
    "dog",
    "on",
    "the",
    "grass",
    "dog's",
    "t-shirt",
    "two",
    "dogs",
    "run",
    "runs",
    "ball",
    "in",
    "brown",
]


@pytest.fixture(scope="module", params=["word", "bpe"])
def either(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer.train(CAPTIONS, TokenizerConfig(kind=request.param, min_count=1))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, TokenizerConfig(min_count=1))


def test_ids_go_by_count_then_alphabet(tokenizer: Tokenizer) -> None:
    """Guards against ids that depend on the order of the captions or of a hash table."""
    words = [tokenizer.word_of(i) for i in range(len(tokenizer))]
    assert words[:4] == list(SPECIALS)
    assert words[4:9] == ["a", "dog", "grass", "on", "the"]
    assert words[9:] == sorted(words[9:])
    assert Tokenizer.train(reversed(CAPTIONS), TokenizerConfig(min_count=1)).to_json() == tokenizer.to_json()


def test_minimum_count_and_size() -> None:
    assert len(Tokenizer.train(CAPTIONS, TokenizerConfig(min_count=2))) == 4 + 5
    small = Tokenizer.train(CAPTIONS, TokenizerConfig(min_count=1, max_size=6))
    assert [small.word_of(i) for i in range(4, len(small))] == ["a", "dog"]


def test_case_is_kept_on_request() -> None:
    cased = Tokenizer.train(CAPTIONS, TokenizerConfig(min_count=1, lowercase=False))
    assert cased.id_of("Dog") not in (None, cased.id_of("dog"))


def test_encode_frames_and_cuts(tokenizer: Tokenizer) -> None:
    """The <end> must survive a cut: a decoder that never sees it never stops."""
    ids = tokenizer.encode("A dog, ZEBRA grass.")
    assert ids == [1, tokenizer.id_of("a"), tokenizer.id_of("dog"), 3, tokenizer.id_of("grass"), 2]
    assert tokenizer.encode("A dog on the grass", max_words=2) == [*ids[:3], 2]
    assert tokenizer.encode("a dog", max_words=2) == [*ids[:3], 2]
    assert tokenizer.encode("a dog", max_words=0) == [1, 2]


def test_words_keep_inner_hyphens_and_apostrophes(tokenizer: Tokenizer) -> None:
    assert tokenizer.words("The dog’s T-shirt -- 'nice' rock'n'roll, 3 dogs'!") == [
        "the", "dog's", "t-shirt", "nice", "rock'n'roll", "3", "dogs",
    ]  # fmt: skip


def test_composed_and_decomposed_letters_are_the_same_word(tokenizer: Tokenizer) -> None:
    assert tokenizer.words("cafe\u0301") == tokenizer.words("caf\u00e9") == ["caf\u00e9"]


@pytest.mark.parametrize("caption", ["", "   ", "...!?", "\u2028\n", "🐕", "-'-"])
def test_captions_without_words(either: Tokenizer, caption: str) -> None:
    assert either.encode(caption) == [1, 2]
    assert either.decode(either.encode(caption)) == ""


@pytest.mark.parametrize("special", SPECIALS)
def test_special_token_typed_in_a_caption_is_text(either: Tokenizer, special: str) -> None:
    """A caption that holds "<end>" once ended its own training sequence there."""
    assert either.encode(f"a {special} dog")[0] == 1
    inner = either.encode(f"a {special} dog")[1:-1]
    assert not {0, 1, 2} & set(inner)
    trained = Tokenizer.train([f"a {special} dog"] * 2, TokenizerConfig(min_count=1))
    assert trained.words(special) == [special.strip("<>")]
    assert trained.id_of(special) == SPECIALS.index(special)
    assert trained.decode(trained.encode(f"a {special} dog")) == f"a {special.strip('<>')} dog"


def test_lone_surrogate_does_not_crash(either: Tokenizer) -> None:
    assert either.encode("a \ud800 dog")[0] == 1


@given(st.lists(st.sampled_from(KNOWN), max_size=12))
def test_lossless_for_known_words(either: Tokenizer, words: list[str]) -> None:
    """With BPE, a decoder without an end-of-word mark glues the words together."""
    caption = " ".join(words)
    assert either.decode(either.encode(caption)) == caption
    assert either.words(caption) == words


@given(st.text(max_size=60))
def test_any_text_encodes_to_ids_of_the_table(either: Tokenizer, text: str) -> None:
    ids = either.encode(text)
    assert ids[0] == 1
    assert ids[-1] == 2
    assert all(3 <= i < len(either) for i in ids[1:-1])
    assert either.encode_batch([text, "a dog"]) == [ids, either.encode("a dog")]
    assert either.words(" ".join(either.words(text))) == either.words(text)


def test_bpe_table_does_not_depend_on_the_run() -> None:
    """With an end-of-word suffix the library numbers the alphabet in the order of a hash table."""
    captions = [f"{a}{b}{c}" for a in "abcdef" for b in "ghijkl" for c in "mnopqrstu"]
    config = TokenizerConfig(kind="bpe", min_count=2)
    first = Tokenizer.train(captions, config).to_json()
    assert all(Tokenizer.train(captions[::-1], config).to_json() == first for _ in range(5))


def test_bpe_spells_an_unseen_word(either: Tokenizer) -> None:
    bpe = Tokenizer.train(CAPTIONS, TokenizerConfig(kind="bpe", min_count=1))
    assert bpe.decode(bpe.encode("a brass dog gown")) == "a brass dog gown"
    assert bpe.word_of(bpe.id_of("dog") or 0) == "dog"


def test_words_are_spelled_as_captions_have_them(either: Tokenizer) -> None:
    """In one piece or in several, the same at the beginning of a caption and inside."""
    for text in ("a", "Dog", "two dogs", "the grass"):
        assert either.spell(text) == tuple(either.encode(text)[1:-1])
        assert either.spellings(text) == (either.spell(text),)
    [inside] = either.spellings("dog")
    assert either.encode("a dog dog")[-1 - 2 * len(inside) : -1] == [*inside, *inside]


def test_words_that_ids_can_not_spell(either: Tokenizer) -> None:
    for text in ("a zqx", "ξ", "<unk>"):
        assert either.spell(text) is None
        assert either.spellings(text) == ()
    assert either.spell("...") == ()
    assert either.spellings("...") == ()


def test_id_and_word_of_what_is_not_there(tokenizer: Tokenizer) -> None:
    assert tokenizer.id_of("zebra") is None
    with pytest.raises(IndexError, match=r"id 99 is not in 0\.\."):
        tokenizer.word_of(99)
    with pytest.raises(IndexError, match="id -1"):
        tokenizer.word_of(-1)


def test_save_and_load(either: Tokenizer, tmp_path: Path) -> None:
    either.save(tmp_path / "tokenizer.json")
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.to_json() == either.to_json()
    assert again.encode("a zebra's brown dogs") == either.encode("a zebra's brown dogs")
    assert again.decode(again.encode("a dog's ball")) == "a dog's ball"
    assert again.id_of("dog") == either.id_of("dog")


def test_errors_name_the_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"gone\.json can't be read"):
        Tokenizer.load(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(BundleError, match=r"bad\.json: This is not a tokenizer"):
        Tokenizer.load(tmp_path / "bad.json")
    other = json.loads(tokenizer.to_json())
    other["model"]["vocab"]["<pad>"] = 1
    other["model"]["vocab"]["<start>"] = 0
    with pytest.raises(BundleError, match="The first ids of the tokenizer are"):
        Tokenizer.from_json(json.dumps(other))


def test_training_on_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="No word occurs 5 times or more"):
        Tokenizer.train(["a dog"], TokenizerConfig(min_count=5))
    with pytest.raises(ValidationError):
        TokenizerConfig(min_count=0)


def test_import_does_not_need_torch() -> None:
    code = "import sys, showtell.tokenizer; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


UNSPACED = {
    "天空中有一个红色的球。": ["天", "空", "中", "有", "一", "个", "红", "色", "的", "球"],
    "桌上有 T恤 和 t-shirt": ["桌", "上", "有", "t", "恤", "和", "t-shirt"],
    "ボールがあります": ["ボ", "ー", "ル", "が", "あ", "り", "ま", "す"],
    "ลูกบอลสีแดง": ["ลู", "ก", "บ", "อ", "ล", "สี", "แ", "ด", "ง"],
}


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_letters_are_words_where_a_script_has_no_spaces(kind):
    """A Chinese sentence was one word: --ban, --require and min_words meant sentences."""
    tokenizer = Tokenizer.from_json(Tokenizer.train(UNSPACED, TokenizerConfig(kind=kind, min_count=1)).to_json())
    for caption, words in UNSPACED.items():
        assert tokenizer.words(caption) == words
        ids = tokenizer.encode(caption)
        assert len(ids) == len(words) + 2 or kind == "bpe"
        assert tokenizer.decode(ids).replace(" ", "") == caption.lower().replace(" ", "").removesuffix("。")
    assert tokenizer.decode(tokenizer.encode("红色的 t-shirt 球")) == "红色的 t-shirt 球"
    assert tokenizer.spellings("红色") == (tokenizer.spell("红 色"),) == (tuple(tokenizer.encode("红色")[1:-1]),)
    assert tokenizer.word_of(tokenizer.id_of("红")) == "红"


def test_a_foreign_word_changes_nothing_and_letters_can_be_left_together():
    """Models of other languages keep their tables, byte for byte; captions that are cut into words keep their words."""
    captions = ["a sign that reads 出口", "a red sign", "a sign"]
    config = TokenizerConfig(min_count=1)
    tokenizer = Tokenizer.train(captions, config)
    assert tokenizer.words("出口") == ["出口"]
    assert (
        json.loads(tokenizer.to_json())["pre_tokenizer"]
        == json.loads(Tokenizer.train(["a red sign"], config).to_json())["pre_tokenizer"]
    )
    cut = Tokenizer.train(["天空 中 有 红色 的 球"], TokenizerConfig(min_count=1, letters=False))
    assert cut.words("红色 的 球") == ["红色", "的", "球"]
    assert cut.decode(cut.encode("红色 的 球")) == "红色 的 球"


def test_a_grown_table_has_new_words_behind_its_own(tokenizer: Tokenizer) -> None:
    words = tokenizer
    said = ["a zebra runs", "a zebra sleeps", "a dog runs"]
    grown = words.grown(said, TokenizerConfig(min_count=2))
    assert [grown.word_of(n) for n in range(len(words))] == [words.word_of(n) for n in range(len(words))]
    assert len(grown) == len(words) + 1
    assert grown.word_of(len(words)) == "zebra"
    assert grown.decode(grown.encode("a zebra")) == "a zebra"
    assert words.grown(said, TokenizerConfig(min_count=1, max_size=len(words) + 1)).id_of("sleeps") is None
    assert words.grown([], TokenizerConfig()).to_json() == words.to_json()


def test_how_rare_a_word_may_be_follows_from_the_captions() -> None:
    least = [TokenizerConfig().least_count(captions) for captions in (10, 1_000, 1_001, 5_001, 20_000, 20_001, 10**6)]
    assert least == [1, 1, 2, 3, 3, 5, 5]
    assert TokenizerConfig(min_count=4).least_count(10) == 4
