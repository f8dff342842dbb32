"""The Python API: what a call returns, that batches don't matter, and what errors say."""

import io
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import showtell
from showtell import bundle as bundle_module
from showtell import captioner as captioner_module
from showtell.bundle import save_bundle
from showtell.captioner import Caption, Captioner, load
from showtell.engines import exported
from showtell.engines.ensemble import EnsembleEngine
from showtell.errors import BundleError, ImageError, MissingExtraError, UsageError
from showtell.search import Hypothesis
from showtell.search.options import SearchOptions
from showtell.tokenizer import Tokenizer, TokenizerConfig
from tests.fake_model import (
    CAPTIONS,
    FakeEngine,
    fake_config,
    fake_tokenizer,
    picture,
    png,
    save_fake_model,
    use_fake_engine,
)


def make_captioner(kind="word", **changes) -> Captioner:
    tokenizer = fake_tokenizer(kind)
    return Captioner(FakeEngine(tokenizer), tokenizer, fake_config(**changes))


@pytest.fixture
def captioner() -> Captioner:
    return make_captioner()


def test_one_image_gives_its_captions(captioner, tmp_path):
    """Everything that read_image takes is one image; a str is a path, not a list of characters."""
    path = tmp_path / "red.png"
    picture("red").save(path)
    for image in (
        path,
        str(path),
        path.read_bytes(),
        path.open("rb"),
        picture("red"),
        np.asarray(picture("red")),
    ):
        captions = captioner(image)
        assert [str(caption) for caption in captions] == ["a red picture of nothing"]
        assert isinstance(captions[0], Caption)


def test_many_images_give_a_list_for_each(captioner):
    images = [picture("red"), picture("blue"), picture("lime")]
    for many in (images, tuple(images), iter(images)):
        assert [found[0].words[1] for found in captioner(many)] == ["red", "blue", "green"]
    assert captioner([]) == []


def test_what_a_caption_holds(captioner):
    caption = captioner(picture("blue"))[0]
    assert caption.text == " ".join(caption.words) == "a blue picture of nothing"
    assert caption.finished
    assert len(caption.word_log_probs) == 5
    assert caption.log_prob < sum(caption.word_log_probs) < 0  # the end's share is missing
    assert caption.score == pytest.approx(caption.log_prob / 6**0.7)  # five words and the end
    assert caption.attention.shape == (5, 2, 2)
    # The engine looks at cell t % 4 for word t: rows of the grid are rows of the array.
    assert [int(cells.argmax()) for cells in caption.attention] == [0, 1, 2, 3, 0]


def test_no_attention_where_none_is_wanted_or_had(captioner, monkeypatch):
    assert captioner(picture("red"), attention=False)[0].attention is None
    assert next(captioner.stream([picture("red")]))[0].attention is None


def test_a_cut_caption_is_not_finished(captioner):
    caption = captioner(picture("red"), max_words=2, sample=True, top_k=1)[0]
    assert (caption.text, caption.finished) == ("a red", False)
    assert caption.log_prob == pytest.approx(sum(caption.word_log_probs))


def test_pieces_of_a_word_are_put_together():
    """BPE: a word's log-probability is its pieces' sum, its attention their mean: both match the words."""
    captioner = make_captioner("bpe")
    tokenizer = captioner.tokenizer
    tokens = tokenizer.encode("a red picture")[1:]
    pieces = range(tokenizer.unk + 1, len(tokenizer))
    tokens.insert(2, next(piece for piece in pieces if len(tokenizer.decode([tokens[1], piece]).split()) == 1))
    words = tuple(tokenizer.decode(tokens).split())
    assert len(words) == 3
    attention = np.eye(4, dtype=np.float32)[np.arange(len(tokens)) % 4]
    log_probs = tuple(-float(n) for n in range(1, len(tokens) + 1))
    caption = captioner._caption(Hypothesis(tuple(tokens), sum(log_probs), log_probs, -1.0, True, attention))
    assert caption.words == words
    assert caption.word_log_probs[1] == -5.0  # pieces 2 and 3
    assert sum(caption.word_log_probs) - len(tokens) == pytest.approx(caption.log_prob)  # less the end's
    np.testing.assert_allclose(caption.attention.sum(axis=(1, 2)), 1.0)
    np.testing.assert_allclose(caption.attention[1].ravel(), [0, 0.5, 0.5, 0])


@pytest.mark.parametrize("letters", [True, False])
def test_letters_of_a_script_without_spaces_are_the_words_of_a_caption(letters):
    """Each with its own log-probability and attention; a vocabulary of whole words keeps them."""
    config = TokenizerConfig(min_count=1, letters=letters)
    tokenizer = Tokenizer.train(["红色的 ball"] if letters else ["红色 的 ball"], config)
    captioner = Captioner(FakeEngine(tokenizer), tokenizer, fake_config())
    tokens = tokenizer.encode("红色的 ball" if letters else "红色 的 ball")[1:]
    log_probs = tuple(-float(n) for n in range(1, len(tokens) + 1))
    caption = captioner._caption(Hypothesis(tuple(tokens), sum(log_probs), log_probs, -1.0, True, None))
    assert caption.words == (("红", "色", "的", "ball") if letters else ("红色", "的", "ball"))
    assert caption.text == ("红色的 ball" if letters else "红色 的 ball")
    assert caption.word_log_probs == log_probs[:-1]


def test_a_caption_without_words(captioner):
    end = captioner.tokenizer.end
    caption = captioner._caption(Hypothesis((end,), -1.0, (-1.0,), -1.0, True, np.ones((1, 4), np.float32) / 4))
    assert (caption.text, caption.words, caption.word_log_probs) == ("", (), ())
    assert caption.attention.shape == (0, 2, 2)


@settings(deadline=None, max_examples=25)
@given(batch_size=st.integers(1, 9), bad=st.sets(st.integers(0, 7)), sample=st.booleans())
def test_batches_and_bad_neighbours_change_nothing(batch_size, bad, sample):
    """Sampling is seeded by an image's number: neither the batch nor a file that fails may shift it."""
    captioner = make_captioner()
    images = [picture(("red", "lime", "blue")[n % 3]) for n in range(8)]
    alone = [
        next(captioner.stream([image], numbers=[n], sample=sample, num=2, seed=5)) for n, image in enumerate(images)
    ]
    mixed = [b"nonsense" if n in bad else image for n, image in enumerate(images)]
    together = list(captioner.stream(mixed, batch_size=batch_size, sample=sample, num=2, seed=5))
    assert len(together) == 8
    for n, outcome in enumerate(together):
        if n in bad:
            assert isinstance(outcome, ImageError)
        else:
            assert [(c.text, c.log_prob) for c in outcome] == [(c.text, c.log_prob) for c in alone[n]]


def test_batches_are_full(captioner):
    list(captioner.stream([picture("red")] * 10, batch_size=4))
    assert captioner.engine.batches == [4, 4, 2]


def test_streaming_reads_only_a_window_ahead(captioner):
    """A folder of a million photos must not be in memory at once."""
    read = []
    lock = threading.Lock()
    threads = threading.active_count()  # tests before this one may have left some

    def image(n):
        with lock:
            read.append(n)
        return picture("red")

    stream = captioner.stream(((lambda n=n: image(n)) for n in range(1000)), batch_size=2)
    next(stream)
    time.sleep(0.05)
    assert len(read) <= 6
    stream.close()
    assert threading.active_count() < threads + 10


def side_by_side() -> Captioner:
    """A captioner whose engine leaves a core free."""
    captioner = make_captioner()
    captioner.engine.batches_at_a_time = 2
    return captioner


def test_an_engine_of_one_thread_captions_several_batches_at_a_time(monkeypatch):
    """As many as there are cores; each waits here until the other is there."""
    captioner = side_by_side()
    meeting = threading.Barrier(2, timeout=20)
    encode = captioner.engine.encode
    captioner.engine.encode = lambda images: (meeting.wait(), encode(images))[1]
    assert len(list(captioner.stream([picture("red")] * 8, batch_size=2))) == 8


@pytest.mark.parametrize(
    ("threads", "cores", "batches"), [(1, 1, 1), (1, 2, 2), (2, 2, 1), (None, 8, 1), (2, 8, 4), (4, 2, 1), (1, 64, 8)]
)
def test_batches_at_a_time(monkeypatch, threads, cores, batches):
    monkeypatch.setattr(exported, "CORES", cores)
    assert exported.batches_at_a_time(threads) == batches


def test_an_ensemble_takes_as_many_batches_as_the_member_that_takes_fewest():
    engine = side_by_side().engine
    assert EnsembleEngine([engine, engine], 9).batches_at_a_time == 2
    assert EnsembleEngine([engine, FakeEngine(fake_tokenizer())], 9).batches_at_a_time == 1


def test_batches_side_by_side_come_in_order(monkeypatch):
    """A batch that takes long must not be overtaken, nor one that holds no readable image."""
    captioner = side_by_side()
    encode = captioner.engine.encode
    slow = iter([0.05, 0, 0, 0.03] + 10 * [0])
    captioner.engine.encode = lambda images: (time.sleep(next(slow)), encode(images))[1]
    colours = ["red", "lime", "blue", "blue", "lime"] * 4
    images = [picture(colour) for colour in colours]
    images[4:6] = [b"", b"nonsense"]
    found = list(captioner.stream(images, batch_size=2))
    assert [outcome if isinstance(outcome, ImageError) else outcome[0].words[1] for outcome in found] == [
        found[n] if n in (4, 5) else {"lime": "green"}.get(colour, colour) for n, colour in enumerate(colours)
    ]


@pytest.mark.parametrize("count", [50, 500])
def test_pictures_in_memory_do_not_depend_on_the_number_of_images(monkeypatch, count):
    """Read, and not yet captioned or handed over: at most three batches read ahead, three in work, one that fills."""
    captioner = side_by_side()
    lock = threading.Lock()
    alive, most = 0, 0

    def image():
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return picture("red")

    for _ in captioner.stream((image for _ in range(count)), batch_size=4):
        with lock:
            alive -= 1
    assert alive == 0
    assert most <= 4 * (3 + 3 + 1)


def test_an_error_of_the_engine_ends_the_stream(monkeypatch):
    """On another thread it must not be lost, or leave threads behind."""
    captioner = side_by_side()
    captioner.engine.encode = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        list(captioner.stream([picture("red")] * 40, batch_size=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("showtell-caption")]


def test_load_passes_threads_and_engine_on(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(captioner_module, "_engine", lambda bundle, threads, engine: asked.append((threads, engine)))
    folder = save_fake_model(tmp_path / "model")
    load(folder, threads=1)
    load(folder, engine="onnx")
    assert asked == [(1, "auto"), (None, "onnx")]


def test_images_are_read_on_other_threads(captioner):
    threads = set()

    def image():
        threads.add(threading.current_thread().name)
        return picture("red")

    list(captioner.stream([image] * 4))
    assert all(name.startswith("showtell-read") for name in threads)


def test_a_bad_image_raises_from_a_call(captioner):
    with pytest.raises(ImageError, match="not an image"):
        captioner([picture("red"), b"nonsense"])


def test_options_change_the_models_own():
    captioner = make_captioner(search=SearchOptions(beam=2, max_words=9, length_penalty=0.5))
    assert captioner.options(beam=4) == SearchOptions(beam=4, max_words=9, length_penalty=0.5)
    assert captioner.options() == captioner.config.search


def test_who_asks_for_five_captions_gets_five(captioner):
    """The model's own beam of 3 must not make num=5 an error; a beam that was asked for is kept."""
    captions = captioner(picture("red"), num=5)
    assert len({caption.text for caption in captions}) == 5
    assert sorted(captions, key=lambda caption: -caption.score) == captions
    with pytest.raises(UsageError, match="num is 5, but a beam of 2"):
        captioner(picture("red"), num=5, beam=2)
    assert len(captioner(picture("red"), num=5, sample=True)) == 5


def test_a_beam_that_was_not_asked_for_fits_the_groups(captioner):
    """The model's own beam of 3 must not make groups=2 an error; a beam that was asked for is kept."""
    assert captioner.options(groups=2).beam == 4
    assert captioner.options(groups=2, num=5).beam == 6
    assert len({caption.text for caption in captioner(picture("red"), num=5, groups=2)}) == 5
    with pytest.raises(UsageError, match="A beam of 3 can't be split into 2 equal groups"):
        captioner.options(groups=2, beam=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beem": 3}, "There is no search option 'beem'. Did you mean 'beam'?"),
        (
            {"zzz": 3},
            "There is no search option 'zzz'. Choose from: beam, groups, diversity, like_generate, sample, num,",
        ),
        ({"beam": 0}, "beam is 0"),
        ({"num": "5"}, "num is '5', not a whole number"),
        ({"batch_size": 0}, "batch_size is 0. Give 1 or more."),
        ({"banned_words": ["hot dog"]}, "banned_words: 'hot dog' is not one word. Give words one by one: hot, dog."),
        ({"require": ["hot dog"]}, "require: 'hot dog' is not one word. Give words one by one: hot, dog."),
        ({"require": ["zebra"]}, "require has the word 'zebra', which this model never says."),
        ({"prefix": "a zebra"}, "prefix has the word 'zebra', which this model never says."),
        ({"banned_words": "dog"}, "banned_words is 'dog', not a tuple"),
    ],
)
def test_wrong_options_are_named(captioner, options, message):
    with pytest.raises(UsageError) as error:
        captioner.stream([], **options)  # at the call, before the first image is asked for
    assert message in str(error.value)


def test_banned_words_are_spelled_as_the_vocabulary_does(captioner):
    """ "Red" is not in a lower-case vocabulary, and would be banned in vain."""
    assert "red" not in captioner(picture("red"), banned_words=["Red"])[0].words


def test_required_words_are_spelled_as_the_vocabulary_does(captioner):
    assert "green" in captioner(picture("red"), require=["Green"])[0].words


def test_words_of_a_script_without_spaces_have_several_letters():
    tokenizer = Tokenizer.train(["桌上有红色的 t恤"], TokenizerConfig(min_count=1))
    captioner = Captioner(FakeEngine(tokenizer), tokenizer, fake_config())
    options = captioner.options(banned_words=["红色", "T恤", "绿色"], require=["桌上"], prefix="桌上")
    assert (options.banned_words, options.require) == (("红色", "t恤", "绿色"), ("桌上",))
    assert options.prefix == ("桌", "上")
    caption = captioner(picture("red"), require=["桌上", "t恤"], banned_words=["上有"])[0]
    assert "桌上" in caption.text
    assert "t恤" in caption.text.replace(" ", "")
    assert "上有" not in caption.text
    for several in ("红色，t恤", "红 色"):
        with pytest.raises(
            UsageError, match=f"banned_words: '{several}' is not one word. Give words one by one: 红, 色"
        ):
            captioner.options(banned_words=[several])


def test_words_of_several_pieces():
    """BPE: banned, required and forced."""
    captioner = make_captioner("bpe")
    tokenizer = captioner.tokenizer
    word = "nothingred"
    assert len(tokenizer.spell(word)) > 1
    assert word in captioner(picture("red"), require=[word])[0].text
    assert captioner(picture("red"), prefix=word)[0].text.startswith(word)
    assert captioner.options(banned_words=[word]).banned_words == (word,)


@pytest.mark.parametrize("prefix", ["Nothing of", ["nothing", "of"], ("nothing of",)])
def test_a_prefix_is_text(captioner, prefix):
    assert captioner(picture("red"), prefix=prefix)[0].words[:2] == ("nothing", "of")


def test_a_vocabulary_may_be_another_librarys():
    """Here a list of words, with the special ones at the end."""

    class Words:
        listed = (*sorted({word for caption in CAPTIONS for word in caption.split()}), "[P]", "[S]", "[E]", "[U]")
        pad, start, end, unk = range(len(listed) - 4, len(listed))

        def __len__(self):
            return len(self.listed)

        def id_of(self, word):
            return self.listed.index(word) if word in self.listed else None

        def spell(self, text):
            ids = tuple(map(self.id_of, self.words(text)))
            return None if None in ids else ids

        def spellings(self, word):
            return tuple((id,) for id in (self.id_of(word),) if id is not None)

        def words(self, caption):
            return caption.lower().split()

        def decode(self, ids):
            return " ".join(self.listed[id] for id in ids if id < self.pad)

        def encode(self, caption):  # for the engine's script
            return [self.start, *map(self.id_of, self.words(caption)), self.end]

        def to_json(self):
            return json.dumps(self.listed)

    captioner = Captioner(FakeEngine(Words()), Words(), fake_config())
    assert captioner(picture("lime"))[0].text == "a green picture of nothing"
    assert captioner(picture("lime"), prefix="Nothing", banned_words=("green",))[0].words[0] == "nothing"


def test_memory_can_be_captioned(captioner):
    """Cached features go this way."""
    memory = captioner.engine.memory_from_grid(np.eye(3)[:, None, :])
    found = captioner.caption_memory(memory, captioner.options())
    assert [captions[0].words[1] for captions in found] == ["red", "green", "blue"]


def test_load(tmp_path, monkeypatch):
    use_fake_engine(monkeypatch)
    folder = save_fake_model(tmp_path / "run" / "model")
    for where in (folder, str(folder), tmp_path / "run"):
        assert showtell.load(where)(png("lime"))[0].text == "a green picture of nothing"


def test_several_models_caption_as_one(tmp_path, monkeypatch):
    use_fake_engine(monkeypatch)
    own, other = SearchOptions(beam=2, max_words=9), SearchOptions(beam=5)
    save_fake_model(tmp_path / "a", name="a", search=own, scores={"CIDEr": 1.0}, training={"feature_fingerprint": "x"})
    save_fake_model(tmp_path / "b", name="b", search=other, training={"feature_fingerprint": "x"})
    save_fake_model(tmp_path / "c", name="c", training={"feature_fingerprint": "y"})
    both = load([tmp_path / "a", str(tmp_path / "b")])
    [[caption]] = both([picture("lime")])
    [[alone]] = load([tmp_path / "a"])([picture("lime")])
    assert caption.text == alone.text == "a green picture of nothing"
    assert caption.log_prob == pytest.approx(alone.log_prob, abs=1e-5)
    np.testing.assert_allclose(caption.attention, alone.attention)
    assert (both.config.name, both.config.search, both.config.scores) == ("a + b", own, {})
    # Features of one encoder are not taken for those of another.
    assert both.config.training == {"feature_fingerprint": "x"}
    assert load([tmp_path / "a", tmp_path / "c"]).config.training["feature_fingerprint"] not in "xy"


def test_models_that_can_not_caption_as_one_are_both_named(tmp_path, monkeypatch):
    use_fake_engine(monkeypatch)
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    save_fake_model(a)
    save_bundle(b, fake_config(), fake_tokenizer("bpe"), {"w": np.zeros(1, np.float32)}, "")
    save_fake_model(c, preprocessing=fake_config().preprocessing.model_copy(update={"size": 9}))
    with pytest.raises(UsageError) as error:
        load([a, b])
    assert str(error.value) == (
        f"{a} and {b} have different words (tokenizer.json), so they can't be an ensemble. "
        "Train both on the same captions with the same tokenizer settings."
    )
    with pytest.raises(UsageError) as error:
        load([a, c])
    assert str(error.value).startswith(f"{a} and {c} see images differently (preprocessing in config.json), so they")


def test_load_without_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "SHIPPED", tmp_path)
    with pytest.raises(BundleError, match=r"comes without a model\. Train one .*showtell\.load\(DIR\)"):
        load()


def test_load_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "showtell.engines.torch", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'showtell\[train\]'"):
        load(save_fake_model(tmp_path / "model"))


def test_images_are_found_single():
    for image in ("a.jpg", b"", io.BytesIO(), picture("red"), np.zeros((2, 2))):
        assert captioner_module.is_one_image(image)
    for images in (["a.jpg"], ("a.jpg",), iter(["a.jpg"])):
        assert not captioner_module.is_one_image(images)


def test_the_package_loads_its_names_on_first_use():
    assert showtell.Caption is Caption
    assert showtell.Captioner is Captioner
    assert showtell.load is load
    assert set(showtell.__all__) <= set(dir(showtell))
    with pytest.raises(AttributeError, match="module 'showtell' has no attribute 'lode'"):
        showtell.lode  # noqa: B018


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import showtell", "numpy PIL pydantic torch transformers onnxruntime"),
        ("import showtell; showtell.Captioner", "torch transformers"),
        ("import showtell; dir(showtell)", "numpy torch"),
    ],
)
def test_imports_stay_light(code, absent):
    """A server that captions through ONNX must not pay for PyTorch."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(set({absent.split()!r}) & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
