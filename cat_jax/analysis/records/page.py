"""Shown records as a page that loads nothing from elsewhere."""

from html import escape

from cat_jax.analysis.records.show import ShownRecord, ShownRecords, words

HUES = (200, 320, 45, 130, 260, 0)
"""Of the effects of a record, in turn."""

STYLE = """
.cat-records { color-scheme: light dark; font: 15px/1.6 system-ui, sans-serif; max-width: 60rem;
  margin: auto; padding: 1rem; }
.cat-records h2 { font-size: 1em; margin: 1.5rem 0 .3rem; opacity: .7; }
.cat-records .text { white-space: pre-wrap; font-family: ui-monospace, monospace; padding: .6rem;
  border: 1px solid #8886; border-radius: .4rem; overflow-wrap: anywhere; }
.cat-records .text span { box-shadow: inset 1px 0 #8884; }
.cat-records .trained { text-decoration: underline; text-underline-offset: .25em;
  font-weight: 700; }
.cat-records .marked { background: hsl(var(--hue) 70% 50% / .3); }
.cat-records li { list-style: none; } .cat-records ul { margin: .3rem 0; padding: 0; }
.cat-records .wrong { color: #d33; }
.cat-records table { border-collapse: collapse; margin-top: 1.5rem; }
.cat-records td { padding: .1rem 1.5rem .1rem 0; }
.cat-records code { white-space: pre-wrap; padding: 0 .2em; border-radius: .2em; }
"""


def html_page(shown: ShownRecords) -> str:
    """Return a whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>Records</title></head>\n'
        f"<body>{html_fragment(shown)}</body></html>\n"
    )


def html_fragment(shown: ShownRecords) -> str:
    """Return the part of a page, with its style."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n"
        for name, value in shown.facts()
    )
    return (
        f'<style>{STYLE}</style>\n<div class="cat-records">\n'
        '<p><span class="trained">Trained tokens</span> are bold and underlined; a cause has the '
        "colour of its effect.</p>\n"
        + "".join(map(_record, shown.records))
        + f"<table>\n{rows}</table>\n</div>\n"
    )


def _record(record: ShownRecord) -> str:
    parts = [f"<section><h2>{escape(record.where)}</h2>\n"]
    if record.left_out is not None:
        parts.append(f'<p class="wrong">Left out: {escape(record.left_out)}.</p>\n')
    if record.tokens:
        parts.append(f'<div class="text">{_tokens(record)}</div>\n<ul>\n')
        parts += [_dependence(record, number) for number in range(len(record.dependences))]
        parts += [
            f'<li class="wrong">not found: {escape(x.role)} <code>{escape(x.words)}</code></li>\n'
            for x in record.unmatched
        ]
        parts.append("</ul>\n")
    return "".join((*parts, "</section>\n"))


def _tokens(record: ShownRecord) -> str:
    hues: dict[int, int] = {}
    for number, dependence in reversed(list(enumerate(record.dependences))):
        hues |= dict.fromkeys((*dependence.causes, *dependence.effects), number)
    spans = []
    for token, (text, trained) in enumerate(zip(record.tokens, record.trained, strict=True)):
        names = [name for name, on in (("trained", trained), ("marked", token in hues)) if on]
        hue = f' style="{_hue(hues[token])}"' if token in hues else ""
        kind = f' class="{" ".join(names)}"' if names else ""
        spans.append(f"<span{kind}{hue}>{escape(text)}</span>")
    return "".join(spans)


def _dependence(record: ShownRecord, number: int) -> str:
    dependence = record.dependences[number]

    def codes(tokens: list[int]) -> str:
        found = (escape(word) for word in words(record, tokens))
        style = f'class="marked" style="{_hue(number)}"'
        return " ".join(f"<code {style}>{word}</code>" for word in found)

    return f"<li>{codes(dependence.effects)} depends on {codes(dependence.causes)}</li>\n"


def _hue(number: int) -> str:
    return f"--hue: {HUES[number % len(HUES)]}"
