"""The mean of several models' weights, which is one model as small and as fast as each of them.

It is often better than each of them if they were fine-tuned from the same model and so lie in one valley of the loss
(Wortsman et al. 2022, "Model soups"). The mean of models that were trained separately is useless.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from showtell.bundle import Bundle, check_replaceable, save_bundle
from showtell.errors import UsageError


def average(bundles: Sequence[Bundle], shares: Sequence[float], name: str, out: Path) -> None:
    """Write the mean of models; preprocessing, search options and the like are those of the first.

    Args:
        bundles: the models, with weights for PyTorch.
        shares: the weight of each model in the mean; they are divided by their sum.
        name: the name of the new model.
        out: its folder.

    Raises:
        UsageError: a model's words or weights don't match the first model's, or `out` holds a trained model or other
            files.
        BundleError: a model's weights can't be read, or the new one can't be written.
    """
    check_replaceable(out, means=True)
    first = bundles[0]
    weights = first.weights()
    mean = {key: np.zeros(array.shape) for key, array in weights.items() if array.dtype.kind == "f"}
    for bundle, share in zip(bundles, shares, strict=True):
        theirs = bundle.weights()
        if {key: array.shape for key, array in theirs.items()} != {key: array.shape for key, array in weights.items()}:
            raise UsageError(f"{bundle.path} and {first.path} are models of different kinds or sizes.")
        if bundle.tokenizer.to_json() != first.tokenizer.to_json():
            raise UsageError(
                f"{bundle.path} and {first.path} have different words.", "Train one from the other (start_from)."
            )
        for key, total in mean.items():
            total += share / sum(shares) * theirs[key]
    names = [bundle.config.name for bundle in bundles]
    training = {"mean_of": names, "shares": list(shares)}
    if "images" in first.config.training:
        training["images"] = first.config.training["images"]
    config = first.config.model_copy(update={"name": name, "scores": {}, "training": training})
    parts = "\n".join(f"- {share / sum(shares):.0%} of `{of}`" for of, share in zip(names, shares, strict=True))
    card = f"# {name}\n\nThe mean of the weights of {len(bundles)} models that showtell trained:\n\n{parts}\n"
    means = {key: total.astype(weights[key].dtype) for key, total in mean.items()}
    save_bundle(out, config, first.tokenizer, weights | means, card)
