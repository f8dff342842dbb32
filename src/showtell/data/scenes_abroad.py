"""True captions of drawn scenes in German, Turkish, Chinese, Japanese and Arabic.

These languages differ in what a tokenizer can get wrong: capitals and endings, a special lower-case I, no spaces,
letters from right to left. A caption names one thing or two, with or without sizes, joined by "and" or by the relation
of the first to the second; there are few enough captions to list all of them.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations, product

from showtell.data.scenes import Scene, Thing

Say = Callable[[Sequence[Thing], Sequence[bool], str, bool], str]
"""Things, whether to say each one's size, the relation of the first to the second (or ""), with a lead or not."""

GERMAN_SHAPES = {"circle": "Kreis", "square": "Quadrat", "triangle": "Dreieck", "star": "Stern", "cross": "Kreuz"}
GERMAN_WORDS = {
    "big": "groß", "small": "klein", "red": "rot", "green": "grün", "blue": "blau", "yellow": "gelb", "purple": "lila",
    "black": "schwarz", "left of": "links von", "right of": "rechts von", "above": "über", "below": "unter",
}  # fmt: skip


def german(things: Sequence[Thing], sized: Sequence[bool], relation: str, lead: bool) -> str:
    """ "ein großer roter Kreis links von einem blauen Quadrat"."""

    def mention(thing: Thing, with_size: bool, dative: bool) -> str:
        ending = "en" if dative else "er" if thing.shape in ("circle", "star") else "es"
        said = [GERMAN_WORDS[word] for word in [thing.size] * with_size + [thing.colour]]
        adjectives = [word if word == "lila" else word + ending for word in said]
        return " ".join(["einem" if dative else "ein", *adjectives, GERMAN_SHAPES[thing.shape]])

    joint = f" {GERMAN_WORDS[relation]} " if relation else " und "
    said = [mention(thing, sized[n], bool(relation and n)) for n, thing in enumerate(things)]
    return "da ist " * lead + joint.join(said)


TURKISH_SHAPES = {
    "circle": ("daire", "dairenin"), "square": ("kare", "karenin"), "triangle": ("üçgen", "üçgenin"),
    "star": ("yıldız", "yıldızın"), "cross": ("haç", "haçın"),
}  # fmt: skip
TURKISH_WORDS = {
    "big": "büyük", "small": "küçük", "red": "kırmızı", "green": "yeşil", "blue": "mavi", "yellow": "sarı",
    "purple": "mor", "black": "siyah", "left of": "solunda", "right of": "sağında", "above": "üstünde",
    "below": "altında",
}  # fmt: skip


def turkish(things: Sequence[Thing], sized: Sequence[bool], relation: str, lead: bool) -> str:
    """ "büyük kırmızı bir daire mavi bir karenin solunda"."""
    said = [
        " ".join(TURKISH_WORDS[word] for word in [thing.size] * sized[n] + [thing.colour])
        + f" bir {TURKISH_SHAPES[thing.shape][bool(relation and n)]}"
        for n, thing in enumerate(things)
    ]
    if relation:
        return f"{'İşte ' * lead}{' '.join(said)} {TURKISH_WORDS[relation]}"
    return f"{'İşte ' * lead}{' ve '.join(said)}"


def _unspaced(things: Sequence[Thing], sized: Sequence[bool], words: Mapping[str, str]) -> list[str]:
    """Each thing's size, if it is said, colour and shape, without spaces."""
    return [
        "".join(words[word] for word in [thing.size] * with_size + [thing.colour, thing.shape])
        for thing, with_size in zip(things, sized, strict=True)
    ]


CHINESE_WORDS = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形", "cross": "十字形", "big": "大的",
    "small": "小的", "red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "purple": "紫色",
    "black": "黑色", "left of": "左边", "right of": "右边", "above": "上面", "below": "下面",
}  # fmt: skip


def chinese(things: Sequence[Thing], sized: Sequence[bool], relation: str, lead: bool) -> str:
    """ "一个大的红色圆形在一个蓝色正方形的左边"."""
    said = ["一个" + mention for mention in _unspaced(things, sized, CHINESE_WORDS)]
    return "图中有" * lead + (f"{said[0]}在{said[1]}的{CHINESE_WORDS[relation]}" if relation else "和".join(said))


JAPANESE_WORDS = {
    "circle": "丸", "square": "四角", "triangle": "三角", "star": "星", "cross": "十字", "big": "大きい",
    "small": "小さい", "red": "赤い", "green": "緑の", "blue": "青い", "yellow": "黄色い", "purple": "紫の",
    "black": "黒い", "left of": "左", "right of": "右", "above": "上", "below": "下",
}  # fmt: skip


def japanese(things: Sequence[Thing], sized: Sequence[bool], relation: str, lead: bool) -> str:
    """ "大きい赤い丸は青い四角の左にある"."""
    said = _unspaced(things, sized, JAPANESE_WORDS)
    begin = "ここに" * lead
    return f"{begin}{said[0]}は{said[1]}の{JAPANESE_WORDS[relation]}にある" if relation else f"{begin}{'と'.join(said)}"


ARABIC_SHAPES = {"circle": "دائرة", "square": "مربع", "triangle": "مثلث", "star": "نجمة", "cross": "صليب"}
ARABIC_WORDS = {  # masculine, feminine
    "big": ("كبير", "كبيرة"), "small": ("صغير", "صغيرة"), "red": ("أحمر", "حمراء"), "green": ("أخضر", "خضراء"),
    "blue": ("أزرق", "زرقاء"), "yellow": ("أصفر", "صفراء"), "purple": ("بنفسجي", "بنفسجية"), "black": ("أسود", "سوداء"),
}  # fmt: skip
ARABIC_RELATIONS = {"left of": "على يسار", "right of": "على يمين", "above": "فوق", "below": "تحت"}


def arabic(things: Sequence[Thing], sized: Sequence[bool], relation: str, lead: bool) -> str:
    """ "دائرة حمراء كبيرة على يسار مربع أزرق"."""
    said = [
        " ".join(
            [ARABIC_SHAPES[thing.shape]]
            + [
                ARABIC_WORDS[word][thing.shape in ("circle", "star")]
                for word in [thing.colour] + [thing.size] * sized[n]
            ]
        )
        for n, thing in enumerate(things)
    ]
    return "هناك " * lead + (f" {ARABIC_RELATIONS[relation]} ".join(said) if relation else " و".join(said))


LANGUAGES: dict[str, Say] = {"de": german, "tr": turkish, "zh": chinese, "ja": japanese, "ar": arabic}


def true_captions(scene: Scene, language: str) -> set[str]:
    """All captions that are true of the scene: of one of its things or of two, in any order."""
    pairs = [things for count in (1, 2) for things in permutations(scene.things, count)]
    return {caption for things in pairs for caption in _of_things(things, LANGUAGES[language])}


def random_captions(scene: Scene, rng: random.Random, count: int, language: str) -> tuple[str, ...]:
    """Different captions that are true of the scene and name all its things in reading order."""
    captions = sorted(set(_of_things(scene.things, LANGUAGES[language])))
    return tuple(rng.sample(captions, min(count, len(captions))))


def _of_things(things: Sequence[Thing], say: Say) -> Iterator[str]:
    relations = ["", *sorted(things[0].relations_to(things[1]))] if len(things) > 1 else [""]
    for sized, relation, lead in product(product((False, True), repeat=len(things)), relations, (False, True)):
        yield say(things, sized, relation, lead)
