"""HTML pages in one file that load nothing, send nothing and run no script but their own."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from typing import Any


def offline_page(
    title: str,
    body: str,
    *,
    style: str,
    script: str,
    data: Any,
    blocks: Mapping[str, str] | None = None,
) -> str:
    """Return a page whose content security policy forbids all but its own style and script.

    Args:
        title: Title of the window, plain text.
        body: HTML of the body; texts in it must be escaped.
        style: CSS.
        script: JavaScript, which runs after everything else is there.
        data: What the script reads as JSON from the element ``data``; any text may be in it.
        blocks: Further texts by the id of their element, without "<" (base64, say).
    """
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    # "<" would end the script block, or open a comment in it.
    shown = json.dumps(data).replace("<", "\\u003c")
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>",
            body,
            f'<script type="application/json" id="data">{shown}</script>\n',
            *(
                f'<script type="text/plain" id="{name}">{text}</script>\n'
                for name, text in (blocks or {}).items()
            ),
            f"<script>{script}</script></body></html>\n",
        ]
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
