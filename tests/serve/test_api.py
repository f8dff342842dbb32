"""The API: what goes in, what comes out, who may ask, and how it says no."""

import base64
import json
from dataclasses import fields

import pytest
from starlette.testclient import TestClient

from showtell.confidence import Confidence
from showtell.search.options import SearchOptions
from showtell.serve.app import create_app
from showtell.serve.schema import Asked
from showtell.serve.settings import Settings
from tests.fake_model import png
from tests.serve.serving import GREEN, RED, GatedEngine, client, dreaming_captioner, fake_captioner, until


def form(*colours: str) -> list:
    return [("images", (f"{colour}.png", png(colour), "image/png")) for colour in colours]


def as_json(*colours: str, **asked) -> dict:
    return {"images": [{"data": base64.b64encode(png(c)).decode(), "name": f"{c}.png"} for c in colours], **asked}


def check_problem(answer, status: int, *words: str) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"].endswith((".", "...", "'."))
    for word in words:
        assert word in problem["detail"]
    return problem


@pytest.fixture(scope="module")
def api():
    with client() as opened:
        yield opened


@pytest.mark.parametrize(
    "way", [{"files": form("red", "lime")}, {"json": as_json("red", "lime")}], ids=["form", "json"]
)
def test_captions_come_in_the_order_of_the_images(api, way):
    answer = api.post("/v1/captions", **way).json()
    assert answer["model"] == "fake"
    assert answer["options"]["beam"] == 3
    assert [image["name"] for image in answer["images"]] == ["red.png", "lime.png"]
    assert [image["captions"][0]["text"] for image in answer["images"]] == [RED, GREEN]
    best = answer["images"][0]["captions"][0]
    assert best["words"] == RED.split()
    assert best["attention"] is None
    assert best["finished"]
    assert best["word_probabilities"] == pytest.approx([0.9] * 5, abs=0.1)
    assert 0 < best["probability"] < 1
    assert answer["images"][0]["seen"] == [0, 0, 1, 1]


def test_a_form_takes_all_search_options(api):
    data = {
        "num": "2", "beam": "4", "min_words": "1", "max_words": "7", "no_repeat_ngram": "2", "length_penalty": "0.5",
        "banned_words": ["green", "blue"], "prefix": "a red", "attention": "true", "groups": "1", "model": "fake",
        "allow_unknown": "false",
    }  # fmt: skip
    answer = api.post("/v1/captions", files=form("red"), data=data).json()
    assert len(answer["images"][0]["captions"]) == 2
    assert answer["options"]["banned_words"] == ["green", "blue"]
    assert answer["options"]["prefix"] == ["a", "red"]
    assert answer["options"]["max_words"] == 7
    best = answer["images"][0]["captions"][0]
    assert len(best["attention"]) == len(best["words"])
    assert [sum(map(sum, grid)) for grid in best["attention"]] == pytest.approx([1] * len(best["words"]))


def test_the_same_request_draws_the_same_captions():
    with client(dreaming_captioner()) as api:
        asked = as_json("red", "lime", sample=True, num=4, temperature=2.0, top_k=9, top_p=0.95, seed=11)
        first, second = (api.post("/v1/captions", json=asked).json() for _ in range(2))
        assert first == second
        other = api.post("/v1/captions", json={**asked, "seed": 12}).json()
        assert other["images"] != first["images"]


def test_search_options_are_all_there():
    assert {field.name for field in fields(SearchOptions)} == set(Asked.model_fields) - {
        "model",
        "attention",
        "min_confidence",
    }


def test_every_search_option_has_a_bound():
    """What one request asks, all wait for."""
    for name in {field.name for field in fields(SearchOptions)}:
        asked = Asked.model_json_schema()["properties"][name]["anyOf"][0]
        assert asked["type"] == "boolean" or asked.keys() & {"maximum", "maxLength", "maxItems"}, name


def test_an_image_that_cannot_be_read_does_not_stop_the_others(api):
    files = [*form("red"), ("images", ("notes.txt", b"hello", "image/png"))]
    answer = api.post("/v1/captions", files=files)
    assert answer.status_code == 200
    good, bad = answer.json()["images"]
    assert good["captions"][0]["text"] == RED
    assert bad["captions"] is None
    assert bad["problem"]["status"] == 422
    assert bad["problem"]["detail"].startswith("notes.txt is not an image that showtell can read.")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"beam": 99}, ["beam", "20"]),
        ({"beam": "3"}, ["beam", "integer"]),
        ({"beam": True}, ["beam"]),
        ({"temperature": 0}, ["temperature", "0.05"]),
        ({"temperature": 0.5}, ["temperature", "sampl"]),
        ({"max_words": 51}, ["max_words", "50"]),
        ({"num": 5, "beam": 2}, ["num is 5", "beam of 2"]),
        ({"require": ["red"] * 4}, ["require", "3"]),
        ({"prefix": "a unicorn"}, ["unicorn"]),
        ({"beem": 2}, ["beem", "not permitted"]),
        ({"model": "other"}, ["'other'", "Choose from: fake"]),
        ({"images": []}, ["images", "at least 1"]),
        ({"images": [{"data": "%%"}]}, ["images.0.data", "base64"]),
        ({"images": [{}]}, ["images.0", "either data or url"]),
        ({"images": [{"url": "http://a.example/a.jpg"}]}, ["fetches none"]),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_request_is_a_sentence(api, asked, words):
    check_problem(api.post("/v1/captions", json=as_json("red") | asked), 422, *words)


@pytest.mark.parametrize("field", ["images", "images[]", "images[0]", "image", "file", "files", "files[]"])
def test_files_in_the_fields_that_clients_use(api, field):
    answer = api.post("/v1/captions", files=[(field, (f"{c}.png", png(c), "image/png")) for c in ("red", "lime")])
    assert [image["name"] for image in answer.json()["images"]] == ["red.png", "lime.png"]


def test_json_as_the_programs_of_other_languages_write_it(api):
    """A byte order mark was invalid JSON; base64 in lines, or with the letters for addresses, was no base64."""
    for data in (
        base64.encodebytes(png("red")).decode(),
        base64.urlsafe_b64encode(png("red")).decode(),
        "data:image/png;base64," + base64.b64encode(png("red")).decode(),
    ):
        body = b"\xef\xbb\xbf" + json.dumps({"images": [{"data": data}]}).encode()
        answer = api.post("/v1/captions", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
        assert answer.json()["images"][0]["captions"][0]["text"] == RED


def test_options_behind_the_address_are_refused(api):
    """They changed nothing, without a word."""
    answer = api.post("/v1/captions?num=2", files=form("red"))
    check_problem(answer, 422, "num", "Send options in the body, not in the URL.")


@pytest.mark.parametrize(
    ("data", "files", "words"),
    [
        ({"beam": "many"}, form("red"), ["beam", "integer"]),
        ({"images": "dog.jpg"}, None, ["images", "curl"]),
        ({}, [("model", ("a", b"fake"))], ["model", "-F images=@FILE"]),
        ({}, [("photo", ("a.png", b""))], ["photo", "-F images=@FILE"]),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_form_is_a_sentence(api, data, files, words):
    files = files or [("images", (None, data.pop("images")))]
    check_problem(api.post("/v1/captions", data=data, files=files), 422, *words)


def test_models(api):
    answer = api.get("/v1/models").json()
    assert answer["models"][0]["name"] == "fake"
    assert answer["models"][0]["grid"] == [2, 2]
    assert answer["models"][0]["options"]["max_words"] == 8
    assert answer["limits"]["max_images"] == 16


def test_there_may_be_several_models():
    app = create_app({"one": fake_captioner(), "two": dreaming_captioner()}, Settings())
    with TestClient(app) as api:
        assert [model["name"] for model in api.get("/v1/models").json()["models"]] == ["one", "two"]
        first, second = (api.post("/v1/captions", json=as_json("red", model=m)).json() for m in ("one", "two"))
        assert first["images"][0]["captions"][0]["text"] == RED
        assert second["model"] == "two"
        assert second["images"][0]["captions"][0]["text"] != RED


def test_health_and_metrics(api):
    assert api.get("/healthz").json() == {"status": "alive"}
    assert api.get("/readyz").json() == {"status": "ready"}
    api.post("/v1/captions", files=form("red"))
    api.get("/no/such/path")
    text = api.get("/metrics").text
    assert 'showtell_requests_total{path="/v1/captions",status="200"}' in text
    assert 'showtell_requests_total{path="other",status="404"}' in text
    assert 'showtell_images_total{model="fake",outcome="captioned"}' in text
    assert 'showtell_queue_images{model="fake"} 0.0' in text
    assert 'showtell_batch_images_count{model="fake"}' in text


def test_a_server_whose_model_has_stopped_is_not_ready():
    with client() as api:
        api.app.state.service.models["fake"].batcher.close()
        check_problem(api.get("/readyz"), 503)


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/icon.svg", "/v1/models", "/healthz", "/nowhere"])
def test_every_answer_forbids_what_the_page_does_not_need(api, path):
    headers = api.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_asks_nobody_else(api):
    """No script, style, font or picture from elsewhere, and none in the page itself."""
    html = api.get("/").text
    assert "<script>" not in html
    assert "style=" not in html
    assert " on" not in html.partition("<body>")[2].replace(" one", "").replace(" on ", " ").replace(" only", "")
    for path in ("/", "/page.js", "/page.css"):
        text = api.get(path).text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "//cdn" not in text


def test_unknown_paths_and_methods_are_problems(api):
    check_problem(api.get("/nowhere"), 404)
    answer = api.get("/v1/captions")
    check_problem(answer, 405, "GET")
    assert answer.headers["allow"] == "POST"
    for number in ("7", "-1", "x", "²"):
        check_problem(api.get(f"/examples/{number}"), 404)


def test_a_token_is_asked_for():
    with client(token="s3cret") as api:
        assert api.get("/").status_code == 200
        assert api.get("/healthz").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            for path in ("/v1/models", "/metrics"):
                answer = api.get(path, headers=headers)
                check_problem(answer, 401, "Bearer TOKEN")
                assert answer.headers["www-authenticate"] == "Bearer"
            check_problem(api.post("/v1/captions", files=form("red"), headers=headers), 401)
        headers = {"Authorization": "bearer s3cret"}
        assert api.get("/v1/models", headers=headers).status_code == 200
        assert api.post("/v1/captions", files=form("red"), headers=headers).status_code == 200
        assert api.get("/v1/models", headers={"Authorization": "Bearer s3crét".encode()}).status_code == 401


def test_pages_of_other_sites_are_refused(api):
    """A page that a user happens to visit must not make this machine work."""
    headers = {"Sec-Fetch-Site": "cross-site"}
    check_problem(api.post("/v1/captions", files=form("red"), headers=headers), 403)
    assert api.post("/v1/captions", files=form("red"), headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_a_full_queue_says_when_to_try_again():
    with client(queue=3) as api:
        batcher = api.app.state.service.models["fake"].batcher
        for others, status in ((2, 429), (3, 429), (1, 200)):
            batcher.reserve(others)
            answer = api.post("/v1/captions", files=form("red", "red"))
            assert answer.status_code == status
            if status == 429:
                check_problem(answer, 429, "queue is full")
                assert int(answer.headers["retry-after"]) >= 1
            batcher.release(others)
        check_problem(api.post("/v1/captions", files=form(*["red"] * 4)), 413, "the limit is 3")


def test_captions_that_take_too_long_are_given_up():
    captioner = fake_captioner(GatedEngine)
    with client(captioner, timeout=1.5) as api:
        answer = api.post("/v1/captions", files=form("red"))
        check_problem(answer, 503, "1.5 s")
        assert answer.headers["retry-after"]
        captioner.engine.gate.set()
        until(lambda: api.app.state.service.models["fake"].batcher.waiting == 0)
        assert api.post("/v1/captions", files=form("red")).status_code == 200


def test_a_defect_is_a_problem_too(monkeypatch):
    captioner = fake_captioner()
    monkeypatch.setattr(captioner.engine, "encode", lambda images: 1 / 0)
    with client(captioner) as api:
        check_problem(api.post("/v1/captions", files=form("red")), 500, "bug")
        assert api.get("/readyz").status_code == 200


def test_the_openapi_document_names_every_schema(api):
    text = api.get("/openapi.json").text
    document = json.loads(text)
    refs = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert refs <= set(document["components"]["schemas"])
    body = document["paths"]["/v1/captions"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert "$defs" not in text


@pytest.fixture
def serving_sure():
    confidence = Confidence(weights=(7.0, 0.0, 0.0), bias=0.9, rarity=(1.0,) * 16)
    with client(fake_captioner(confidence=confidence, about="Colours.")) as opened:
        yield opened


def test_confidence_and_the_least_that_is_wanted(serving_sure):
    answer = serving_sure.post("/v1/captions", files=form("red")).json()
    caption = answer["images"][0]["captions"][0]
    assert 0 < caption["confidence"] < 1
    assert caption["left_out"] is None
    least = {"min_confidence": caption["confidence"] + 0.01}
    empty = serving_sure.post("/v1/captions", files=form("red"), data=least).json()["images"][0]["captions"][0]
    assert (empty["text"], empty["words"]) == ("", [])
    assert empty["left_out"].startswith("confidence ")
    assert serving_sure.get("/v1/models").json()["models"][0]["about"] == "Colours."


def test_a_model_that_cannot_tell_how_sure_it_is(api):
    assert api.post("/v1/captions", files=form("red")).json()["images"][0]["captions"][0]["confidence"] is None
    refused = api.post("/v1/captions", files=form("red"), data={"min_confidence": 0.5})
    assert refused.status_code == 422
    assert "has no calibrated confidence" in refused.json()["detail"]
