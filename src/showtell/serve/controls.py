"""The page's controls of the search, as HTML: one for each option of `search/options.py`."""

from html import escape

from showtell.search.options import Option, declared

ELSEWHERE = ("sample", "num", "seed")  # the page sets them with "Drawn at random", five captions and "Draw again"


def sliders() -> str:
    """The controls that the page always shows: the options that have a slider."""
    return "".join(_control(name, kind, option) for name, kind, option in declared() if option.slider)


def others() -> str:
    """The other controls; an empty field means the model's own option."""
    return "".join(
        _control(name, kind, option) for name, kind, option in declared() if not option.slider and name not in ELSEWHERE
    )


def _control(name: str, kind: type, option: Option) -> str:
    id = name.replace("_", "-")
    about = f'id="{id}" name="{name}" aria-describedby="{id}-note"'
    mode = f' data-mode="{option.mode}"' if option.mode else ""
    output = ""
    if option.slider:
        output = f'<output for="{id}" id="{id}-value"></output>'
        values = " ".join(option.slider)
        control = f'<input type="range" {about} min="0" max="{len(option.slider) - 1}" data-values="{values}">'
    elif kind is bool:
        control = f'<select {about}><option value=""></option><option>true</option><option>false</option></select>'
    elif kind is str:
        control = f'<input type="text" {about}{"" if option.text else " data-list"}>'
    else:
        least, most = option.served or (option.ge, option.le)
        control = f'<input type="number" {about} min="{least}" max="{most}" step="{1 if kind is int else 0.1}">'
    label = name.replace("_", " ").capitalize()
    return (
        f'<div class="option"{mode}><label for="{id}">{label}</label>{output}'
        f'{control}<p id="{id}-note">{escape(option.help)}</p></div>\n'
    )
