"""The whole of showtell in a few minutes, with nothing but this repository: `make demo`.

    python examples/demo.py FOLDER

First it captions four photos with the model that comes with showtell; FOLDER/why/index.html shows where it looked.

Then it draws 3,000 scenes, trains Show, Attend and Tell on the captions of most of them, captions scenes that the model
has never seen, and checks by program whether each caption is true. FOLDER/run/report.html shows how the training went,
and where the model looked for each word; FOLDER/scenes.html shows the new scenes.
"""

import html
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import showtell
from showtell.bundle import DEFAULT, shipped_models
from showtell.cli import main as command_line
from showtell.data import load
from showtell.pages.overlay import panels_html

RECIPE = Path(__file__).parents[1] / "recipes" / "shapes.yaml"
DATA = "shapes:3000"
SHOWN = 10
PHOTOS = ("astronaut", "camera", "chelsea", "coffee")  # free to use; they come with scikit-image


def demo(folder: Path) -> None:
    """Caption photos; then train, caption, check, and write the pages."""
    shutil.rmtree(folder, ignore_errors=True)
    if DEFAULT in shipped_models():
        caption_photos(folder / "photos", folder / "why")
    else:
        print("This checkout has no shipped model, so no photos are captioned. Next: training on drawn scenes.\n")
    run("train", RECIPE, "--data", DATA, "--out", folder / "run")

    captioner = showtell.load(folder / "run")
    unseen = load(DATA).split("test")
    images = [example.read() for example in unseen]
    captions = [found[0] for found in captioner(images, batch_size=64)]
    true = [example.scene.is_true(caption.text) for example, caption in zip(unseen, captions, strict=True)]

    print("\nNew scenes, the model's captions, and whether they are true:")
    for example, caption, right in list(zip(unseen, captions, true, strict=True))[:SHOWN]:
        print(f"  {example.image_id}  {'true ' if right else 'FALSE'}  {caption.text}")
    print(f"{sum(true)} of {len(true)} captions of unseen scenes are true ({sum(true) / len(true):.0%}).")

    page = folder / "scenes.html"
    page.write_text(scenes_page(images[:SHOWN], captions[:SHOWN]), encoding="utf-8")
    print(f"Look at {page} and {folder / 'run' / 'report.html'}")


def caption_photos(photos: Path, why: Path) -> None:
    """Let the shipped model caption four photos, as a user would, and draw where it looked for each word."""
    photos.mkdir(parents=True)
    for photo in packaged_photos():
        shutil.copy(photo, photos)
    print(f"Captions by the model that comes with showtell: showtell caption {photos} --explain {why}")
    run("caption", photos, "--explain", why)
    print(f"Look at {why / 'index.html'}\n")


def packaged_photos() -> list[Path]:
    """Photos from an installed package: an astronaut, a camera operator, a cat, a cup of coffee."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        sys.exit("The demo's photos come with scikit-image. Run: pip install 'showtell[demo]'")
    return [Path(package.origin).parent / "data" / f"{name}.png" for name in PHOTOS]


def run(*arguments: str | Path) -> None:
    """Run a `showtell` command line; a failure ends the demo."""
    code = command_line([str(argument) for argument in arguments])
    if code:
        sys.exit(code)


def scenes_page(images, captions) -> str:
    """The captions with a panel for each word: where the model looked before it said it."""
    parts = [
        f"<h2>{html.escape(caption.text)}</h2>{panels_html(image, caption.words, caption.attention)}"
        for image, caption in zip(images, captions, strict=True)
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Unseen scenes</title><style>:root{color-scheme:light dark}"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "h2{font-size:1.1rem;margin-top:2.5rem}</style>"
        f"<h1>The model's captions of scenes that it had never seen, and where it looked</h1>{''.join(parts)}</html>"
    )


if __name__ == "__main__":
    demo(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
