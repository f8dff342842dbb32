"""The page in a browser: what people do on it, by mouse, by touch, by keyboard; how it looks, dark and narrow.

Screenshots are kept as `keep` in tests/conftest.py says.
"""

import json
import re
from pathlib import Path

import pytest

from showtell.confidence import Confidence
from showtell.data import load as load_data
from showtell.serve.examples import Example
from tests.fake_model import FakeEngine, picture
from tests.serve.serving import GREEN, RED, GatedEngine, dreaming_captioner, encoded, fake_captioner, running, until

PHOTO = {"name": "red.png", "mimeType": "image/png", "buffer": encoded(picture("red", 240))}
OTHER = {"name": "green.jpg", "mimeType": "image/jpeg", "buffer": encoded(picture("lime", 240), "JPEG")}
QUOTED = {**OTHER, "name": 'a "b", c.jpg'}
NOTES = {"name": "notes.png", "mimeType": "image/png", "buffer": b"hello"}


class BlindEngine(FakeEngine):
    """A model without attention."""

    def start(self, memory, attention=False):
        return super().start(memory, False)


@pytest.fixture(scope="module")
def port():
    example = Example("Green", encoded(picture("lime", 64), "JPEG"))
    others = {"dreams": dreaming_captioner(), "blind": fake_captioner(BlindEngine)}
    with running(others=others, examples=(example,), max_images=4) as port:
        yield port


@pytest.fixture
def open_page(browser, port):
    """A function that opens the page; afterwards the page must have asked nobody else and complained of nothing."""
    contexts, complaints, asked = [], [], []

    def open_one(port=port, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | options))
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#models:not([hidden]), dialog[open]")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not [text for text in complaints if "the server responded with a status of 4" not in text]
    assert all(re.match(r"(http://127\.0\.0\.1:\d+/|blob:http://127\.0\.0\.1)", url) for url in asked)


def send(page, *files) -> None:
    page.set_input_files("#files", list(files))
    page.wait_for_selector(".word")


def said(page, view: int = 0) -> str:
    return " ".join(page.locator(".view").nth(view).locator(".word").all_inner_texts())


def glow(page) -> list[int]:
    """The overlay, in a few numbers."""
    script = """() => { const pen = document.querySelector(".glow").getContext("2d"), { width, height } = pen.canvas;
        return [.25, .75].flatMap((y) => [.25, .75].flatMap(
            (x) => [...pen.getImageData(x * width, y * height, 1, 1).data])); }"""
    return page.evaluate(script)


def test_a_photo_gets_its_caption(open_page, keep):
    page = open_page()
    keep(page, "start")
    send(page, PHOTO)
    assert said(page).lower() == RED
    assert page.inner_text("#status") == f"red.png: {RED.capitalize()}."
    assert page.locator(".others li").count() == 3
    assert "the surer the model" in page.inner_text(".facts")
    keep(page, "caption")


def test_hovering_moves_the_light(open_page, keep):
    page = open_page()
    send(page, PHOTO)
    assert page.locator(".looking").count() == 0
    lights = []
    for number in (0, 1, 2):
        page.locator(".word").nth(number).hover()
        page.wait_for_selector(".looking")
        page.wait_for_timeout(400)
        assert page.locator(".looking").count() == 1
        lights.append(glow(page))
    assert len({tuple(light) for light in lights}) == 3
    # The fake model looks at the upper left, then the upper right: there it is warm (red over blue), elsewhere dark.
    assert lights[0][0] > lights[0][2]
    assert lights[1][4] > lights[1][6]
    assert lights[1][0] == lights[1][2]
    assert "“picture”" in page.inner_text(".look")
    assert "lower left" in page.inner_text(".look")
    keep(page, "hover")
    page.mouse.move(5, 5)
    page.wait_for_selector(".looking", state="detached")
    assert "Hover over a word" in page.inner_text(".look")


def test_all_of_it_works_by_keyboard(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    assert {"brand", "model-a", "compare", "files"} <= reached
    page.locator("#example-list button").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".word")
    page.locator(".word").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "“picture”" in page.inner_text(".look")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("picture: lower left, ")
    page.keyboard.press("Enter")
    assert page.locator('.word[aria-pressed="true"]').inner_text() == "picture"
    page.keyboard.press("End")
    assert "“nothing”" in page.inner_text(".look")
    page.keyboard.press("Escape")
    assert page.locator('.word[aria-pressed="true"]').count() == 0
    page.keyboard.press("Tab")  # one stop for all the words
    assert page.evaluate("document.activeElement.className") == "quiet copy"
    page.locator(".others button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator(".others [aria-current]").count() == 1
    assert said(page).lower() != GREEN
    assert page.evaluate("document.activeElement.hasAttribute('aria-current')")


def test_a_bad_file_is_a_readable_error_and_no_end(open_page, keep):
    page = open_page()
    page.set_input_files("#files", [NOTES])
    page.wait_for_selector(".problem:not([hidden])")
    problem = page.locator('[role="alert"]')
    assert "notes.png is not an image that showtell can read. It reads JPEG" in problem.inner_text()
    keep(page, "error")
    send(page, PHOTO, OTHER)
    assert not problem.is_visible()
    page.get_by_role("button", name="green.jpg").click()
    until(lambda: GREEN in page.inner_text("#status").lower())
    page.get_by_role("button", name="notes.png").click()
    problem.wait_for()
    assert page.locator(".word").count() == 0


def test_sliders_search_again(open_page):
    page = open_page()
    send(page, PHOTO)
    page.evaluate(
        """() => {
            const real = window.fetch;
            window.asked = [];
            window.fetch = (path, options) => {
                asked.push(Object.fromEntries([...options.body].filter(([, value]) => typeof value === "string")));
                return real(path, options);
            };
        }"""
    )
    page.locator("#beam").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(lambda: page.locator(".others li").count() == 5)
    assert page.evaluate("asked.at(-1)") == {"beam": "5", "num": "5", "model": "fake", "attention": "true"}
    page.get_by_text("Drawn at random").click()
    page.wait_for_timeout(400)
    for slider, key in (("#temperature", "ArrowLeft"), ("#top-k", "End"), ("#top-p", "ArrowLeft")):
        page.locator(slider).focus()
        page.keyboard.press(key)
    drawn = {"sample": "true", "num": "5", "temperature": "0.9", "top_k": "200", "top_p": "0.85", "seed": "0"}
    until(lambda: page.evaluate("asked.at(-1)") == drawn | {"model": "fake", "attention": "true"})
    assert page.get_attribute("#top-k", "aria-valuetext") == "200"
    page.get_by_role("button", name="Draw again").click()
    until(lambda: page.evaluate("asked.at(-1).seed") == "1")


def test_more_options_reach_the_search(open_page, keep):
    page = open_page()
    send(page, PHOTO)
    page.get_by_text("More options").click()
    assert page.get_attribute("#max-words", "placeholder") == "8"
    page.fill("#banned-words", "red, blue")
    until(lambda: "red" not in said(page).lower().split())
    page.fill("#require", "unicorn")
    page.locator(".problem").get_by_text("unicorn").wait_for()
    page.get_by_text("Drawn at random").click()  # which heeds no required words
    page.wait_for_selector(".problem", state="hidden")
    assert not page.locator("#require").is_visible()
    keep(page, "more")


def test_two_models_side_by_side(open_page, keep):
    page = open_page()
    send(page, PHOTO)
    page.get_by_role("button", name="Compare").click()
    page.locator(".view").nth(1).locator(".word").first.wait_for()
    assert page.locator(".view").count() == 2
    assert said(page, 0).lower() == RED
    assert said(page, 1).lower() != RED
    assert page.locator(".by").all_inner_texts() == ["fake", "dreams"]
    left, right = (page.locator(".view").nth(n).bounding_box() for n in (0, 1))
    assert left["x"] + left["width"] < right["x"]
    assert left["y"] == right["y"]
    keep(page, "two")
    page.select_option("#model-b", "blind")
    page.locator(".view").nth(1).get_by_text("there is no place to show").wait_for()
    page.get_by_role("button", name="Compare").click()
    assert page.locator(".view").count() == 1


def test_copy_and_download(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    send(page, PHOTO)
    page.get_by_role("button", name="Copy as alt text").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{RED.capitalize()}."
    with page.expect_download() as download:
        page.get_by_role("button", name="Download JSON").click()
    assert download.value.suggested_filename == "red.json"
    answer = json.loads(Path(download.value.path()).read_text())
    assert answer["images"][0]["captions"][0]["text"] == RED
    assert answer["model"] == "fake"


def bring(page, kind: str, *photos) -> None:
    """Paste or drop photos."""
    page.evaluate(
        """([kind, photos]) => {
            const carried = new DataTransfer();
            for (const [name, type, data] of photos) {
                carried.items.add(new File([new Uint8Array(data)], name, { type }));
            }
            const about = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(kind === "paste"
                ? new ClipboardEvent("paste", { ...about, clipboardData: carried })
                : new DragEvent("drop", { ...about, dataTransfer: carried }));
        }""",
        [kind, [[photo["name"], photo["mimeType"], list(photo["buffer"])] for photo in photos]],
    )
    page.wait_for_selector(".word")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_photos_are_pasted_and_dropped(open_page, kind):
    page = open_page()
    bring(page, kind, PHOTO)
    assert said(page).lower() == RED


def downloaded(page) -> str:
    """What "Download all" saves."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all").click()
    assert download.value.suggested_filename == "captions.csv"
    return Path(download.value.path()).read_bytes().decode()


def test_many_photos_are_corrected_and_downloaded_together(open_page, keep, tmp_path):
    page = open_page()
    bring(page, "drop", PHOTO)
    assert not page.locator("#all").is_visible()
    bring(page, "drop", OTHER, QUOTED, NOTES)
    page.get_by_text("3 of 4 captioned").wait_for()
    page.get_by_role("button", name="Gallery").click()
    assert not page.locator("#stage").is_visible()
    fields = page.locator(".card textarea:enabled")
    assert fields.evaluate_all("(fields) => fields.map((field) => field.value)") == [RED, GREEN, GREEN]
    assert "notes.png is not an image" in page.locator(".card .failed").inner_text()
    keep(page, "serve-gallery")
    page.get_by_label("Caption of green.jpg").fill('a "lime",\nall over')
    page.get_by_label(f"Caption of {QUOTED['name']}").fill("a lawn")
    page.locator(".card", has_text=QUOTED["name"]).get_by_role("button", name="undo").click()
    text = downloaded(page)
    assert text == (
        "image,caption,confidence\r\n"
        f'"red.png","{RED}",\r\n"green.jpg","a ""lime"", all over",\r\n"a ""b"", c.jpg","{GREEN}",\r\n'
    )
    (tmp_path / "captions.csv").write_text(text, newline="")
    for photo in (PHOTO, OTHER, QUOTED):
        (tmp_path / photo["name"]).write_bytes(photo["buffer"])
    read = {example.path.name: example.captions for example in load_data(str(tmp_path / "captions.csv")).examples}
    assert read == {"red.png": (RED,), "green.jpg": ('a "lime", all over',), QUOTED["name"]: (GREEN,)}
    page.get_by_role("button", name="red.png: where the model looked").click()
    assert said(page).lower() == RED
    assert not page.locator("#gallery").is_visible()


def test_the_gallery_follows_the_model_and_the_search(open_page):
    page = open_page()
    send(page, PHOTO, OTHER)
    page.get_by_text("2 photos", exact=True).wait_for()
    page.get_by_role("button", name="Gallery").click()
    page.get_by_label("Caption of red.png").fill("mine")
    page.select_option("#model-a", "dreams")
    until(lambda: page.get_by_label("Caption of green.jpg").input_value() not in ("", GREEN))
    assert page.get_by_label("Caption of red.png").input_value() == "mine"
    page.select_option("#model-a", "fake")
    page.get_by_text("More options").click()
    page.fill("#banned-words", "green")
    until(lambda: "green" not in page.get_by_label("Caption of green.jpg").input_value())


def test_all_of_the_gallery_works_by_keyboard(open_page):
    page = open_page()
    send(page, PHOTO, OTHER)
    page.get_by_text("2 photos", exact=True).wait_for()
    page.locator("#grid").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Caption of red.png").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Control+A")
    page.keyboard.type("a lawn")
    assert page.get_by_label("Caption of green.jpg").input_value() == "a lawn"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.get_by_label("Caption of green.jpg").input_value() == GREEN


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_gallery_fits_every_screen(open_page, keep, width, dark):
    scheme = "dark" if dark else "light"
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500)
    send(page, PHOTO, OTHER, NOTES)
    page.get_by_role("button", name="Gallery").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"serve-gallery-{scheme}-{width}")


def test_the_words_play(open_page):
    page = open_page(reduced_motion="reduce")
    send(page, PHOTO)
    page.get_by_role("button", name="Play the words").click()
    page.wait_for_selector(".word.active >> text=picture")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".looking", state="detached")
    assert page.get_by_role("button", name="Play the words").is_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_it_fits_every_screen(open_page, keep, width, dark):
    scheme = "dark" if dark else "light"
    page = open_page(viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 500)
    send(page, PHOTO, OTHER)
    page.get_by_role("button", name="Compare").click()
    page.wait_for_timeout(300)
    if width < 500:
        page.locator(".word").nth(1).tap()
        assert page.locator(".looking").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 60) == dark
    keep(page, f"{scheme}-{width}")


def test_a_token_is_asked_for_once(open_page):
    with running(token="s3cret") as port:
        page = open_page(port)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        until(lambda: page.input_value("#token") == "")
        page.fill("#token", "s3cret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#models:not([hidden])")
        send(page, PHOTO)
        assert said(page).lower() == RED


def test_a_busy_server_is_asked_again(open_page):
    captioner = fake_captioner(GatedEngine)
    with running(captioner, queue=1) as port:
        page = open_page(port)
        page.set_input_files("#files", [PHOTO, OTHER])
        page.wait_for_timeout(300)
        captioner.engine.gate.set()
        page.wait_for_selector(".word")
        page.get_by_role("button", name="green.jpg").click()
        until(lambda: GREEN in page.inner_text("#status").lower())


def test_every_part_has_a_name(open_page):
    """Buttons, fields and pictures say what they are to who can't see them."""
    page = open_page()
    send(page, PHOTO)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a")]
            .filter((each) => !each.closest("template") && !(each.getAttribute("aria-label") || each.textContent.trim()
                || each.labels?.length || each.querySelector("img[alt]:not([alt=''])")))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_the_page_says_how_sure_it_is_and_what_the_model_is_good_at(open_page, keep):
    confidence = Confidence(weights=(0.0, 0.0, 0.0), bias=-2.0, rarity=(1.0,) * 16)
    with running(fake_captioner(confidence=confidence, about="It knows colours.")) as port:
        page = open_page(port)
        assert page.inner_text("#about") == "It knows colours."
        send(page, PHOTO)
        assert page.inner_text(".badge") == "a guess"
        assert page.get_attribute(".badge", "title") == "Of 100 captions with this confidence, about 12 are right"
        assert "check it before you use it" in page.inner_text(".facts")
        assert "%" not in page.inner_text(".others")
        keep(page, "guess")
