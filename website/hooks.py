"""Hooks of MkDocs: they make the pages that are not in docs/, and turn links into the repository into links to pages.

The documents are written to be read in the repository. So README.md becomes the front page here, notebooks become pages
with their pictures, and a link to a source file leads to its reference, or to a page that shows the file.
"""

import base64
import json
import logging
import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

from showtell.cli import COMMANDS, COMPLETION
from showtell.training.recipe import documented_keys

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "src/showtell/"
GUIDES = (
    "your-own", "captioning", "serve", "python", "systems", "training", "data", "metrics", "scale", "developing",
)  # fmt: skip
BENCHMARKS = ("benchmarks", "everyday", "flickr8k")
LINK = re.compile(r"""(\]\(|(?:src|href)=")(?!https?:|mailto:|data:|#|/)([^)\s"#]+)(#[^)\s"]*)?""")
FENCED = re.compile(r"(^```.*?^```$|^~~~.*?^~~~$)", re.MULTILINE | re.DOTALL)
MATHS = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+?)\$", re.DOTALL)
OUTPUTS = {"image/png": "png", "image/jpeg": "jpg"}
log = logging.getLogger("mkdocs.plugins.showtell")

pages: dict[str, str] = {}
"""A file of the repository -> the page that shows it."""
origins: dict[str, str] = {}
"""The other way round, for pages whose text is outside of docs/."""
formulas: list[str] = []
"""As MathML, by their numbers in the text."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The menu: guides in the order of GUIDES, then guides that it does not name."""
    documents = sorted(path.stem for path in Path(config.docs_dir).glob("*.md"))
    other = [name for name in documents if name not in (*GUIDES, *BENCHMARKS)]
    guides = [name for name in (*GUIDES, *other) if name in documents]
    config.nav = [
        {"Start": "index.md"},
        {"Guides": [f"{name}.md" for name in guides]},
        {"Tutorials": [f"tutorials/{path.stem}.md" for path in notebooks()]},
        {"Benchmarks": [f"{name}.md" for name in BENCHMARKS if name in documents]},
        {"Reference": ["commands.md", "recipes.md", *modules_in_folders()]},
    ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    pages.clear()
    origins.clear()

    def add(uri: str, content: str | bytes, origin: str = "") -> None:
        files.append(File.generated(config, uri, content=content))
        if origin:
            pages[origin], origins[uri] = uri, origin

    pages.update({f"docs/{file.src_uri}": file.src_uri for file in files})
    add("index.md", read("README.md"), "README.md")
    add("commands.md", commands_page())
    add("recipes.md", recipes_page(), "recipes")
    for path in notebooks():
        for uri, content in notebook_pages(path):
            add(uri, content, f"docs/tutorials/{path.name}" if uri.endswith(".md") else f"docs/{uri}")
    for module in modules():
        add(module_page(module), f"# {module}\n\n::: {module}\n", file_of(module))
    add("site.css", (ROOT / "website" / "site.css").read_text(encoding="utf-8"))
    # Then the files to which these pages link; if those are Markdown, they may link to more.
    seen: set[str] = set()
    while new := [file for file in files if file.src_uri.endswith(".md") and file.src_uri not in seen]:
        for file in new:
            seen.add(file.src_uri)
            for target in linked(file):
                if target not in pages and not target.startswith("recipes/") and (ROOT / target).exists():
                    add(f"files/{target}.md", shown(target), target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to pages, and write formulas as MathML, which browsers draw without a script."""

    def replaced(found: re.Match[str]) -> str:
        before, path, anchor = found[1], found[2], found[3] or ""
        target = in_repository(page.file.src_uri, path)
        if target.startswith("recipes/") and (ROOT / target).exists():
            uri, anchor = "recipes.md", f"#{Path(target).stem}"
        elif target in pages:
            uri = pages[target]
        else:
            log.warning("%s links to %s, which does not exist", page.file.src_uri, target)
            return found[0]
        return f"{before}{posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor}"

    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]  # it would be this page alone
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(replaced, part) for part in parts[::2]]
    if page.file.src_uri.startswith("tutorials/"):
        parts[::2] = [MATHS.sub(kept_formula, part) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the formulas in their places. (Markdown would have begun a new paragraph at each.)"""
    return re.sub("FORMULA([0-9]+)X", lambda found: formulas[int(found[1])], html)


def kept_formula(found: re.Match[str]) -> str:
    display = "block" if found[1] else "inline"
    formulas.append(str(latex2mathml.converter.convert(found[1] or found[2], display=display)))
    return f"FORMULA{len(formulas) - 1}X"


# ---------------------------------------------------------------- files of the repository


def read(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # a model card's front matter


def in_repository(uri: str, link: str) -> str:
    """The file to which a link on a page leads."""
    page = "docs/recipes.md" if uri == "recipes.md" else origins.get(uri, f"docs/{uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def linked(file: File) -> Iterator[str]:
    for part in FENCED.split(file.content_string)[::2]:
        for _, path, _ in LINK.findall(part):
            yield in_repository(file.src_uri, path)


def shown(path: str) -> str:
    """A page that shows a file, or lists what is in a folder."""
    place = ROOT / path
    if place.suffix == ".md":
        return read(path)
    if place.is_dir():
        inside = sorted(f"- `{each.name}`" for each in place.iterdir() if not each.name.startswith(("_", ".")))
        return f"# {path}\n\n" + "\n".join(inside) + "\n"
    return f"# {path}\n\n~~~{place.suffix.removeprefix('.')}\n{read(path)}\n~~~\n"


# ---------------------------------------------------------------- modules


def modules() -> list[str]:
    """The modules that have something to say; the commands have a page of their own."""
    found = []
    for path in sorted((ROOT / SOURCE).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        if "__main__" not in name and not name.startswith("showtell.cli") and path.read_text("utf-8").count("\n") > 3:
            found.append(name)
    return found


def file_of(module: str) -> str:
    path = f"src/{module.replace('.', '/')}"
    return f"{path}.py" if (ROOT / f"{path}.py").exists() else f"{path}/__init__.py"


def module_page(module: str) -> str:
    return f"reference/{module}.md"


def modules_in_folders() -> list[Any]:
    """The menu of the reference: first the modules in no folder, then a part for each folder of src/showtell."""
    folders: dict[str, list[Any]] = {}
    for module in modules():
        _, *inner = module.split(".")
        is_folder = (ROOT / "src" / module.replace(".", "/")).is_dir()
        folder = inner[0] if len(inner) > 1 or (inner and is_folder) else "showtell"
        folders.setdefault(folder, []).append({".".join(inner[1:] or inner) or "showtell": module_page(module)})
    return [{folder: folders[folder]} for folder in sorted(folders, key=lambda name: (name != "showtell", name))]


# ---------------------------------------------------------------- commands and recipes


def commands_page() -> str:
    """All commands with their options, from the commands themselves."""
    parts = ["# Commands", "`showtell COMMAND -h` says the same on a terminal."]
    for name, summary in COMMANDS.items():
        command = get_command(import_module(f"showtell.cli.commands.{name}").app)
        parts += [f"## {name}", *([] if command.help else [summary]), *command_parts(command, f"showtell {name}")]
    return "\n\n".join(parts) + "\n"


def command_parts(command: Any, called: str) -> Iterator[str]:
    context = command.make_context(called, [], resilient_parsing=True)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```\n{called} {usage}\n```"
    if command.help:
        yield "\n\n".join(" ".join(part.split()) for part in command.help.replace("\b", "").split("\n\n"))
    shown = [param for param in command.get_params(context) if param.name not in (*COMPLETION, "help")]
    records = [record for param in shown if (record := param.get_help_record(context))]
    if records:
        # Typer escapes a bracket that Rich would take for a style.
        rows = [f"| `{name.split(' <')[0]}` | {cell(text.replace(chr(92) + '[', '['))} |" for name, text in records]
        yield "\n".join(["| option | what it does |", "|---|---|", *rows])
    for name, below in getattr(command, "commands", {}).items():
        yield f"### {called.removeprefix('showtell ')} {name}"
        yield from command_parts(below, f"{called} {name}")


def recipes_page() -> str:
    parts = [
        "# Recipes",
        "A recipe describes a whole training run ([training](training.md)). `--set KEY=VALUE` changes one key.",
    ]
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        parts += [f"## {path.stem} {{#{path.stem}}}", f"~~~yaml\n{path.read_text('utf-8').strip()}\n~~~"]
    parts += ["## All keys {#keys}", "`stages.0` stands for any stage."]
    rows = [f"| `{key}` | `{cell(default)}` | {cell(text)} |" for key, default, text in documented_keys()]
    parts.append("\n".join(["| key | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def cell(text: str) -> str:
    """A text, made fit for a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("[", "&#91;")


# ---------------------------------------------------------------- notebooks


def notebooks() -> list[Path]:
    return sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


def notebook_pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """A notebook's pictures, and its text with its code and the code's output."""
    parts = []
    pictures = 0
    for entry in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(entry["source"])
        parts.append(text if entry["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in entry.get("outputs", ()):
            data = output.get("data", {})
            kind = next((kind for kind in OUTPUTS if kind in data), None)
            if kind:
                pictures += 1
                uri = f"tutorials/{path.stem}/{pictures}.{OUTPUTS[kind]}"
                yield uri, base64.b64decode("".join(data[kind]))
                parts.append(f"![What the code draws]({path.stem}/{pictures}.{OUTPUTS[kind]})")
            elif printed := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"~~~{{.text .printed}}\n{printed.rstrip()}\n~~~")
    title, _, rest = parts[0].partition("\n")
    parts[0] = f"{title}\n\n[Download it as a notebook]({path.name}){{download}}\n{rest}"
    yield f"tutorials/{path.stem}.md", "\n\n".join(parts) + "\n"
