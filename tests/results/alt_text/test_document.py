"""Documents come back byte for byte but for the texts, and addresses lead to files."""

import html
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showtell.errors import DataError
from showtell.results.alt_text import document, read_document
from showtell.results.alt_text.document import file_of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            b"\xef\xbb\xbf<p>\xc3\xa9\r\n<img src=a>\r",
            b'\xef\xbb\xbf<p>\xc3\xa9\r\n<img alt="\xc3\x89t\xc3\xa9." src=a>\r',
        ),
        (b"\xe9<img src=a>\0", b'\xe9<img alt="&#201;t&#233;." src=a>\0'),  # Latin-1, in a page that may say so
        ("\ufeff<img src=a>é".encode("utf-16-le"), '\ufeff<img alt="Été." src=a>é'.encode("utf-16-le")),
    ],
)
def test_encodings(tmp_path, before, after):
    path = tmp_path / "page.html"
    path.write_bytes(before)
    document = read_document(path)
    assert document.with_texts({}) == before
    document.write({"a": "Été."})
    assert path.read_bytes() == after
    assert read_document(path).places == ()


def test_text_is_escaped(tmp_path):
    """References that both languages read as the letters they stand for, in a table, too."""
    pyromark = pytest.importorskip("pyromark")
    path = tmp_path / "page.md"
    path.write_text("|a|b|\n|-|-|\n|<img src=a>|![](a)|\n")
    text = 'a "b" | <c> [d] & *e* `f` $g$ \\'
    read_document(path).write({"a": text})
    rendered = pyromark.html(path.read_text(), options=pyromark.Options.ENABLE_TABLES)
    alts = re.findall('alt="([^"]*)"', rendered)
    assert [html.unescape(alt) for alt in alts] == [text, text]


def test_lines(tmp_path):
    path = tmp_path / "page.htm"
    path.write_bytes(b"1\r\n2\r3\n<img src=a><img src=http://x/a>\n\n<img src=a>")
    document = read_document(path)
    assert [document.line_of(place) for place in document.places] == [4, 6]
    assert [document.line_of(place) for place in document.skipped] == [4]


@pytest.mark.parametrize(
    ("image", "file"),
    [
        ("a%20b.jpg?v=3#top", "site/a b.jpg"),
        ("../a.jpg", "site/../a.jpg"),
        ("/img/a.jpg", "begins at the site's root (add --root DIR)"),
        ("https://x.org/a.jpg", "is on another machine"),
        ("//x.org/a.jpg", "is on another machine"),
        ("file://x.org/a.jpg", "is on another machine"),
        ("file:///pics/a%20b.jpg", "/pics/a b.jpg"),
        ("file://localhost/a.jpg", "/a.jpg"),
        ("img\\a.jpg", "site/img/a.jpg"),
        ("data:image/png;base64,AAAA", "is data in the document"),
        ("{{ url }}/a.jpg", "is filled in by a template"),
        ("<?= $a ?>", "is filled in by a template"),
        ("icon.svg", "is a drawing (SVG)"),
        ("a%00b.jpg", "is no address"),
        ("#top", "is no address"),
        ("//[x", "is no address"),
    ],
)
def test_file_of(image, file):
    assert str(file_of(image, Path("site"))) == file


@pytest.mark.parametrize("image", ["C:\\pics\\a.jpg", "c:/pics/a.jpg", "file:///C:/pics/a.jpg"])
def test_a_windows_drive(image, monkeypatch):
    assert file_of(image, Path("site")) == "is on a Windows drive"
    monkeypatch.setattr(document, "ON_WINDOWS", True)
    assert str(file_of(image, Path("site"))).lower() == "c:/pics/a.jpg"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("café.jpg", b'<meta charset="iso-8859-1"><img src="caf\xe9.jpg">'),
        ("café.jpg", b'<img src="caf%E9.jpg"><meta charset="utf-8">'),
        ("café.jpg", b'<meta charset=x-unknown><img src="caf\xe9.jpg">'),
        ("café.jpg", b'<meta charset=hex><img src="caf%c3%a9.jpg">'),
        ("мир.jpg", '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251"><img src="мир.jpg">'),
        ("写.jpg", '<?xml version="1.0" encoding="Shift_JIS"?><img src="写.jpg">'),
    ],
)
def test_addresses_in_older_encodings(tmp_path, name, source):
    """Browsers read an address in the page's encoding."""
    path = tmp_path / "page.html"
    if isinstance(source, str):
        source = source.encode(re.search(r"windows-1251|Shift_JIS", source)[0])
    path.write_bytes(source)
    (tmp_path / name).touch()
    assert list(read_document(path).files.values()) == [tmp_path / name]


def test_root(tmp_path):
    assert file_of("/img/a.jpg", Path("site/posts"), Path("site")) == Path("site/img/a.jpg")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            b"",
            "a.txt is neither HTML nor Markdown by its suffix. Known are .htm, .html, .markdown, .md, .xhtml.",
        ),
        ("a.html", b"\xff\xfe\x00", "a.html begins like UTF-16 but is not."),
        ("a.html", None, "a.html can't be read: No such file or directory."),
    ],
)
def test_no_document(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_document(Path(name))
    assert str(error.value) == message


def test_changed_meanwhile(tmp_path):
    """Captioning takes minutes; what an editor saved meanwhile is not lost."""
    path = tmp_path / "page.html"
    path.write_text("<img src=a>")
    document = read_document(path)
    path.write_text("<p><img src=a>")
    with pytest.raises(DataError, match="has changed since it was read, so it is left as it is"):
        document.write({"a": "T."})
    assert path.read_text() == "<p><img src=a>"


@given(st.binary(max_size=60), st.sampled_from([".html", ".md"]))
def test_any_bytes_come_back(tmp_path_factory, content, suffix):
    pytest.importorskip("pyromark")
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        document = read_document(path)
    except DataError as error:
        assert content[:2] in (b"\xff\xfe", b"\xfe\xff"), error  # noqa: PT017
    else:
        assert document.with_texts({}) == content
