"""A hook of mkdocs: formulas become MathML as the site is built, which needs no script and no network to be shown."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
# latex2mathml sets a function's name and its argument without the space between that TeX has.
FUNCTION = re.compile(r"<mi>(log|exp|sin|cos|tan|arctan)</mi>(?!<mo[^>]*>&#x00028;)")


def on_page_content(content, **_):
    def mathml(found):
        display = "block" if found[1] == "div" else "inline"
        formula = convert(html.unescape(found[2]), display=display)
        formula = FUNCTION.sub(r'<mspace width="0.167em" /><mi>\1</mi><mspace width="0.167em" />', formula)
        return f'<{found[1]} class="formula">{formula}</{found[1]}>'

    return FORMULA.sub(mathml, content)
