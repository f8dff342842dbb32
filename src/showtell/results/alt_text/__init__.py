"""Images without alternative text in HTML and Markdown: where they are, and what a caption says in their place.

    document = read_document(Path("index.html"))
    texts = {image: sentence(caption_of(file)) for image, file in document.files.items()}
    document.write(texts)

Only the places found change; every other byte of a document stays, its encoding and its line breaks included.
"""

from showtell.results.alt_text.document import Document, read_document
from showtell.results.alt_text.place import Place, Skipped
from showtell.results.alt_text.sentence import sentence

__all__ = ["Document", "Place", "Skipped", "read_document", "sentence"]
