"""Languages: found from captions, cut into their own words, scored by their own tokens."""

import random
import sys
from itertools import chain, pairwise
from unicodedata import normalize

import numpy as np
import pytest

from showtell.data import load
from showtell.data.scenes_abroad import LANGUAGES, random_captions, true_captions
from showtell.errors import MissingExtraError, UsageError
from showtell.languages import language_of
from showtell.metrics import score
from showtell.metrics.tokens import tokens_of
from showtell.tokenizer import Tokenizer, TokenizerConfig
from showtell.training.inputs.augmentation import mirrored

CAPTIONS = {
    "ar": ["كلبان يركضان على العشب", "رجل يركب حصانا على الشاطئ"],
    "de": ["Zwei Hunde laufen über die Wiese", "Ein Mann reitet am Strand"],
    "en": ["two dogs run across the grass", "a man rides a horse on the beach"],
    "es": ["dos perros corren por la hierba", "un hombre monta a caballo en la playa"],
    "fr": ["deux chiens courent dans l'herbe", "un homme monte à cheval sur la plage"],
    "hi": ["दो कुत्ते घास पर दौड़ रहे हैं", "एक आदमी समुद्र तट पर घोड़े की सवारी कर रहा है"],
    "ja": ["二匹の犬が芝生を走っている", "男が海岸で馬に乗っている"],
    "ru": ["две собаки бегут по траве", "мужчина едет верхом на лошади по пляжу"],
    "th": ["สุนัขสองตัววิ่งบนหญ้า", "ชายคนหนึ่งขี่ม้าบนชายหาด"],
    "tr": ["iki köpek çimlerin üzerinde koşuyor", "bir adam sahilde ata biniyor"],
    "zh": ["两只狗在草地上奔跑", "一个男人在海滩上骑马"],
}
SPOKEN = list(CAPTIONS)


@pytest.mark.parametrize("language", SPOKEN)
def test_a_language_is_found_from_its_captions(language: str) -> None:
    if language in ("de", "es", "fr", "tr"):
        pytest.importorskip("py3langid")
    assert language_of(CAPTIONS[language]) == language


@pytest.mark.parametrize(
    "captions", [[], [""], ["a dog"], ["1 2 3"], ["dog", "cat", "bus stop"], ["a sign reads 出口", "a dog"]]
)
def test_what_cannot_be_told_is_english(captions: list[str]) -> None:
    assert language_of(captions) == "en"


def test_without_the_package_the_script_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("showtell.languages.find_spec", lambda name: None)
    found = {language: language_of(captions) for language, captions in CAPTIONS.items()}
    assert [code for code in SPOKEN if found[code] != code] == ["de", "es", "fr", "tr"]
    assert {found[code] for code in ("de", "es", "fr", "tr")} == {"en"}


@pytest.mark.parametrize("language", SPOKEN)
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_captions_are_read_and_written_in_every_language(language: str, kind: str) -> None:
    config = TokenizerConfig(kind=kind, min_count=1, language=language)  # type: ignore[arg-type]
    tokenizer = Tokenizer.train(CAPTIONS[language], config)
    for caption in CAPTIONS[language]:
        again = tokenizer.decode(tokenizer.encode(caption))
        assert again == (caption if language == "de" else caption.lower())


@pytest.mark.parametrize("language", SPOKEN)
def test_a_model_that_knows_english_learns_another_language(language: str) -> None:
    english = Tokenizer.train(CAPTIONS["en"], TokenizerConfig(min_count=1))
    tokenizer = english.grown(CAPTIONS[language], TokenizerConfig(min_count=1, language=language))
    for caption in (*CAPTIONS[language], *CAPTIONS["en"]):
        assert tokenizer.decode(tokenizer.encode(caption)) in (caption, caption.lower())
    assert [tokenizer.word_of(n) for n in range(len(english))] == [english.word_of(n) for n in range(len(english))]


def test_turkish_has_two_letters_i() -> None:
    tokenizer = Tokenizer.train(["IŞIK İki"], TokenizerConfig(min_count=1, language="tr"))
    assert tokenizer.decode(tokenizer.encode("Işık İKİ")) == "ışık iki"
    pytest.importorskip("sacrebleu")
    assert tokens_of(["IŞIK, İKİ!"], "tr") == ["ışık iki"]


def test_yaml_takes_norwegian_for_false() -> None:
    assert TokenizerConfig.model_validate({"language": False}).language == "no"


def test_a_language_that_there_is_not_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"no language xx. Choose from: ar, "):
        score({"1": "a"}, {"1": ["a"]}, language="xx")


@pytest.mark.parametrize("language", [code for code in SPOKEN if code not in ("en", "th")])
def test_scores_are_sacrebleus(language: str) -> None:
    """Of any number of references, in the tokens of the language; and a caption that is right is best."""
    sacrebleu = pytest.importorskip("sacrebleu")
    first, second = CAPTIONS[language]
    people = {"1": [first, second], "2": [second], "3": [first + " " + second, first, second]}
    said = {"1": first, "2": second[: len(second) // 2], "3": second + " " + first}
    report = score(said, people, language=language)
    assert {"sacreBLEU", "chrF", "CIDEr", "ROUGE_L", "BLEU-4"} <= set(report.scores)
    assert "METEOR" not in report.scores
    streams = [[of_image[n] if n < len(of_image) else None for of_image in people.values()] for n in range(3)]
    tokens = {"ja": "ja-mecab", "zh": "zh"}.get(language, "intl")
    bleu = sacrebleu.BLEU(tokenize=tokens, lowercase=True).corpus_score(list(said.values()), streams).score
    chrf = sacrebleu.CHRF(lowercase=True).corpus_score(list(said.values()), streams).score
    assert report.scores["sacreBLEU"] == pytest.approx(bleu / 100)
    assert report.scores["chrF"] == pytest.approx(chrf / 100)
    assert np.argmax(report.per_image["chrF"]) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_of_scenes_are_true_and_false_ones_are_found_out(language: str) -> None:
    examples = load(f"shapes:60,language={language}").examples
    assert language_of(list(chain(*(example.captions for example in examples)))) == language
    for example in examples:
        assert example.scene is not None
        assert set(example.captions) <= true_captions(example.scene, language)
    for example, other in pairwise(examples):
        assert other.scene is not None
        differs = {(t.shape, t.colour) for t in example.scene.things} - {
            (t.shape, t.colour) for t in other.scene.things
        }  # type: ignore[union-attr]
        if differs:
            assert not set(example.captions) & true_captions(other.scene, language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_left_is_right_in_a_mirror(language: str) -> None:
    for example in load(f"shapes:40,language={language}").examples:
        scene = example.scene
        assert scene is not None
        seen = type(scene)(
            tuple(type(t)(t.shape, t.colour, t.size, 1 - t.x, t.y, t.radius, -t.turn, t.rgb) for t in scene.things),
            scene.ground,
            scene.pixels,
        )
        for caption in random_captions(scene, random.Random(0), 4, language):
            assert mirrored(caption, language) in true_captions(seen, language)


@pytest.mark.parametrize(
    ("language", "caption", "other"),
    [
        ("en", "sausage links on the Left", "sausage links on the Right"),
        ("de", "Links ein Hund", "Rechts ein Hund"),
        ("tr", "masanın SAĞINDA sağinda", "masanın SOLUNDA sağinda"),
        ("pt", "um homem solda uma peça", "um homem solda uma peça"),
        ("zh", "左右两边，左边", "左右两边，右边"),
        ("th", "ขวานทางขวา", "ขวานทางซ้าย"),
        ("fi", "left", "left"),
    ],
)
def test_only_sides_change_places(language: str, caption: str, other: str) -> None:
    assert mirrored(caption, language) == other


@pytest.mark.parametrize(("language", "text"), [("hi", "लड़का घोड़ा"), ("vi", "một con chó chạy"), ("ja", "ガラスの犬")])
def test_the_same_text_in_another_unicode_form_is_the_same(language: str, text: str) -> None:
    pytest.importorskip("sacrebleu")
    forms = [normalize("NFD", text), normalize("NFC", text), text]
    report = score({"1": forms[0], "2": forms[1]}, {"1": [forms[1]], "2": [forms[0]]}, language=language)
    assert report.scores["BLEU-1"] == pytest.approx(1)
    assert report.scores["chrF"] == pytest.approx(1)


def test_persian_joiners_part_no_words() -> None:
    tokenizer = Tokenizer.train(["سگ می\u200cدود"], TokenizerConfig(min_count=1, language="fa"))
    assert tokenizer.words("سگ می\u200cدود") == ["سگ", "می\u200cدود"]


def test_a_letter_of_another_script_changes_no_language() -> None:
    assert language_of(["一只猫在喝牛奶"] * 60 + ["一杯鲜の牛奶"]) == "zh"
    assert language_of(["pasta carbonara", "chicken tikka masala", "margherita pizza"]) == "en"


def test_what_is_told_counts_for_a_model_of_another_language() -> None:
    german = Tokenizer.train(CAPTIONS["de"], TokenizerConfig(min_count=1))
    assert german.grown(["In a park"], TokenizerConfig(min_count=1, language="en")).words("In a Park") == [
        "in",
        "a",
        "park",
    ]


def test_japanese_needs_its_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)
    with pytest.raises(MissingExtraError, match=r"Scoring captions in Japanese needs .*languages"):
        tokens_of(["犬"], "ja")


def test_a_language_without_a_grammar_is_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"the scenes have no captions in fi. Choose from: en, de, tr, zh, ja, ar."):
        load("shapes:10,language=fi")
