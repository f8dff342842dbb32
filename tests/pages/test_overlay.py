from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from showtell.errors import UsageError
from showtell.pages.overlay import brightest, heat, overlay, panels, panels_html


def photo(height: int = 60, width: int = 80) -> np.ndarray:
    """A picture with edges and colours."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 3, columns * 2, (rows + columns) % 7 * 30], axis=-1).astype(np.uint8)


def looking_at(row: int, column: int, size: int = 7) -> np.ndarray:
    alpha = np.full((size, size), 0.1 / (size * size), dtype=np.float32)
    alpha[row, column] += 0.9
    return alpha


def test_heat_is_strongest_where_alpha_is():
    """Guards against a transposed or shifted grid."""
    strength = heat(looking_at(1, 5), 70, 140)
    row, column = np.unravel_index(strength.argmax(), strength.shape)
    assert row // 10 == 1
    assert column // 20 == 5
    assert strength.max() > 0.9


def test_even_attention_draws_nothing():
    """Guards against per-word min-max scaling, which shows noise as if the word had looked somewhere."""
    noise = np.random.default_rng(0).uniform(0.95, 1.05, (7, 7)) / 49
    assert heat(noise, 50, 50).max() < 0.05
    assert heat(np.full((7, 7), 1 / 49), 50, 50).max() == 0


def test_a_sharper_word_is_brighter_up_to_full():
    twice, often = np.ones((7, 7)), np.ones((7, 7))
    twice[3, 3], often[3, 3] = 2, 20
    assert 0.2 < heat(twice, 7, 7).max() < 0.5 < heat(often, 7, 7).max() == 1


@given(arrays(np.float32, (4, 6), elements=st.floats(0, 1e6, width=32, allow_subnormal=False)), st.floats(0.01, 100))
def test_heat_stays_in_range_and_ignores_the_sum(alpha: np.ndarray, factor: float):
    """Guards against bicubic overshoot, a division by zero, and gates that scale alpha."""
    strength = heat(alpha, 33, 21)
    assert strength.shape == (33, 21)
    assert strength.min() >= 0
    assert strength.max() <= 1
    assert np.isfinite(strength).all()
    np.testing.assert_allclose(strength, heat(alpha.astype(np.float64) * factor, 33, 21), atol=1e-3)


def test_overlay_brightens_what_was_looked_at_and_dims_the_rest():
    image = np.full((70, 70, 3), 128, dtype=np.uint8)
    drawn = overlay(image, looking_at(3, 3))
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert drawn[35, 35].mean() > 128 > drawn[2, 2].mean() > 40


def test_overlay_keeps_the_photo_readable():
    """Guards against an opaque heat map: edges survive both where it glows and where it is dimmed."""
    image = np.zeros((70, 70, 3), dtype=np.uint8)
    image[:, ::2] = 200
    drawn = overlay(image, looking_at(3, 3)).astype(int)
    for row, column in ((34, 34), (4, 4)):
        assert abs(drawn[row, column] - drawn[row, column + 1]).sum() > 150


def test_overlay_leaves_its_input_alone_and_takes_half_precision():
    image = photo()
    before = image.copy()
    half = overlay(image, looking_at(2, 2).astype(np.float16))
    assert (image == before).all()
    assert abs(half.astype(int) - overlay(image, looking_at(2, 2))).max() <= 2


@pytest.mark.parametrize(
    ("image", "alpha", "message"),
    [
        (np.zeros((5, 5), np.uint8), np.ones((2, 2)), "uint8 of shape"),
        (np.zeros((5, 5, 3), np.float32), np.ones((2, 2)), "float32"),
        (photo(), np.ones(49), "shape \\[h, w\\]"),
        (photo(), np.array([[np.nan, 1]]), "finite"),
    ],
)
def test_wrong_arrays_are_named(image: np.ndarray, alpha: np.ndarray, message: str):
    with pytest.raises(UsageError, match=message):
        overlay(image, alpha)


def test_panels_lay_out_one_a_word():
    words = ["a", "dog", "runs", "far", "away"]
    attention = np.stack([looking_at(n, n) for n in range(5)])
    sheet = panels(photo(), words, attention, columns=2, width=80)
    wide = panels(photo(), words, attention, columns=9, width=80)
    assert sheet.height > 3 * 60
    assert wide.width > 5 * 80 > sheet.width
    assert np.asarray(sheet.convert("L")).min() < 60  # words are written


def test_panels_write_the_word_below_its_picture():
    """Guards against captions that are drawn outside the sheet or not at all."""
    attention = np.stack([looking_at(0, 0)] * 2)
    one = np.asarray(panels(photo(), ["dog", "cat"], attention, width=80))
    other = np.asarray(panels(photo(), ["dog", "cow"], attention, width=80))
    different = np.argwhere((one != other).any(axis=-1))
    assert different[:, 0].min() > 60
    assert different[:, 1].min() > 80


def test_a_long_word_stays_within_its_panel():
    sheet = np.asarray(panels(photo(), ["antidisestablishmentarianism" * 3], looking_at(0, 0)[None], width=80))
    margins = np.concatenate([sheet[-16:, :4], sheet[-16:, -4:]])
    assert margins.min() == 255


@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ([], (0, 7, 7), "no words"),
        (["a", "dog"], (3, 7, 7), "2 words need attention of shape \\[2, h, w\\], not \\[3, 7, 7\\]"),
        (["a"], (7, 7), "1 words"),
    ],
)
def test_words_and_grids_must_match(words: list[str], shape: tuple[int, ...], message: str):
    with pytest.raises(UsageError, match=message):
        panels_html(photo(), words, np.ones(shape))


def test_panels_need_a_column():
    with pytest.raises(UsageError, match="at least 1 column"):
        panels(photo(), ["a"], looking_at(0, 0)[None], columns=0)


def test_html_holds_its_pictures_and_escapes_words():
    """Guards against a caption that becomes markup, and against requests."""
    found: list[tuple[str, dict[str, str | None]]] = []
    text: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

        def handle_data(self, data: str) -> None:
            text.append(data)

    words = ["<script>", 'a"b']
    Reader().feed(panels_html(photo(), words, np.stack([looking_at(0, 0), np.ones((7, 7))])))
    images = [attributes for tag, attributes in found if tag == "img"]
    assert {tag for tag, _ in found} == {"ol", "li", "figure", "img", "figcaption"}
    assert text == words
    assert [str(image["src"]).startswith("data:image/jpeg;base64,") for image in images] == [True, True]
    assert images[0]["alt"] == "Looked at for “<script>”: upper left"
    assert images[1]["alt"] == 'Looked at for “a"b”: about evenly everywhere'
    assert all(len(str(image["src"])) < 20_000 for image in images)


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 0, "upper left"), (3, 3, "middle"), (3, 6, "right"), (6, 3, "lower middle"), (6, 6, "lower right")],
)
def test_brightest_names_the_place(row: int, column: int, place: str):
    assert brightest(looking_at(row, column)) == place
