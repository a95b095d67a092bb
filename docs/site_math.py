"""A hook of mkdocs: formulas become MathML as the site is built, which needs no script and no network to be shown."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, **_):
    def mathml(found):
        display = "block" if found[1] == "div" else "inline"
        return f'<{found[1]} class="formula">{convert(html.unescape(found[2]), display=display)}</{found[1]}>'

    return FORMULA.sub(mathml, content)
