"""Search: the captions that a model finds most likely, or draws at random. NumPy only; it knows no model.

`engine.py` says what search asks of a model, `options.py` how to search, `rules.py` what may not be said,
`beam.py` and `sample.py` are the two ways of searching, `hypotheses.py` is what they find.
"""

from collections.abc import Sequence

from showtell.errors import UsageError
from showtell.search.beam import beam_search
from showtell.search.engine import Engine, Memory, Proposals, State, Vocabulary, gather, select
from showtell.search.hypotheses import Hypothesis
from showtell.search.options import SearchOptions
from showtell.search.rules import rules_for
from showtell.search.sample import sample

__all__ = [
    "Engine",
    "Hypothesis",
    "Memory",
    "Proposals",
    "SearchOptions",
    "State",
    "Vocabulary",
    "gather",
    "search",
    "select",
]


def search(
    engine: Engine,
    memory: Memory,
    options: SearchOptions,
    vocabulary: Vocabulary,
    *,
    attention: bool = False,
    image_numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Return the captions of the B images of a memory: `options.num` hypotheses for each, best first.

    Args:
        engine: the model.
        memory: what the engine's `encode` returned for the images.
        options: how to search.
        vocabulary: the tokenizer of the model.
        attention: whether hypotheses include attention, if the model has any.
        image_numbers: B numbers from 0 up that seed, with `options.seed`, the samples of each image; by default
            its place in the batch. An image with the same number gets the same captions in any batch.

    Raises:
        UsageError: `image_numbers` does not fit the images, or captions can't say the prefix or a required word.
    """
    batch = engine.batch_size(memory)
    numbers = range(batch) if image_numbers is None else image_numbers
    if len(numbers) != batch:
        raise UsageError(f"image_numbers has {len(numbers)} numbers for {batch} images.", "Give one for each image.")
    if batch == 0:
        return []
    rules = rules_for(options, vocabulary)
    start, end, size = vocabulary.start, vocabulary.end, len(vocabulary)
    if options.sample:
        return sample(
            engine,
            memory,
            options,
            rules,
            start=start,
            end=end,
            vocabulary_size=size,
            image_numbers=numbers,
            attention=attention,
        )
    return beam_search(engine, memory, options, rules, start=start, end=end, vocabulary_size=size, attention=attention)
