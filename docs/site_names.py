"""The API pages of the site: what cannot be seen in the source, and links from names of code to these pages.

A hook of mkdocs and an extension of griffe in one file, since both need the names that the API pages have.
"""

import re
from pathlib import Path

from griffe import Class, Extension, Function, Parameter, ParameterKind, Parameters

API = Path(__file__).parent / "api"
PAGES = "\n".join(page.read_text() for page in sorted(API.glob("*.md")))
PATHS = re.findall(r"^::: (\S+)$", PAGES, re.MULTILINE)
NAMES = {path.rpartition(".")[2] for path in PATHS}
# `sgm.sample`, `DDIM(20)`, `sgm.training.Adam(1e-3)`; in a fence or a link already there is nothing to be done.
CODE = re.compile(r"(?<![\[`\w])`((?:sgm\.)?(?:\w+\.)?(\w+))(\([^`\n]*\))?`(?!\])")
KIND = ParameterKind.positional_or_keyword
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def path_of(name, called):
    """The path on the API pages of what a piece of code names, or None where it is not one of them alone."""
    if name in PATHS:
        return name
    # `steps` and `objective` are words of many meanings; `Squared`, `encode(x)` and `sgm.encode` are names.
    clear = called or name.startswith("sgm.") or re.match(r"[A-Z]\w*[a-z0-9]|[A-Z]{2}", name)
    ends = [path for path in PATHS if path.endswith(f".{name.removeprefix('sgm.')}")]
    return ends[0] if clear and len(ends) == 1 else None


def linked(words):
    """The same words, each name of the library a link to its page."""

    def link(found):
        path = path_of(found[1], found[3])
        return f"[{found[0]}][{path}]" if path else found[0]

    return CODE.sub(link, words)


def on_page_markdown(markdown, page, **_):
    if page.file.src_uri.startswith("api/"):
        return markdown
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [linked(markdown[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join(parts) + linked(markdown[at:])


class Modules(Extension):
    """Docstrings in the form that griffe reads, and the constructors that Equinox makes of fields."""

    def on_object(self, *, obj, **_):
        if obj.docstring is None or obj.is_module:
            return
        words = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
        words = re.sub(r"^(References?|Sources?): (.*(?:\n.+)*)", _on_one_line, words, flags=re.MULTILINE)
        examples = words.find("\nExamples:\n")
        end = len(words) if examples < 0 else examples
        obj.docstring.value = linked(words[:end]) + words[end:]

    def on_package(self, *, pkg, **_):
        modules = [kind for kind in _classes(pkg) if "__init__" not in kind.all_members and _is_module(kind)]
        for kind in modules:  # A constructor that is set is inherited, so that all are looked at before.
            _set_constructor(kind)
        for kind in _classes(pkg):
            kind.bases = [base for base in kind.bases if str(base).rpartition(".")[2] in NAMES]


def _on_one_line(found):
    return f"**{found[1]}**: {' '.join(found[2].split())}"


def _classes(module):
    for member in module.members.values():
        if member.is_alias:
            continue
        if member.is_module:
            yield from _classes(member)
        elif member.is_class:
            yield member


def _line(kind: Class):
    """The class and its bases within the library, the class first."""
    return [kind, *kind.mro()]


def _is_module(kind: Class):
    return any(str(base).endswith("Module") for owner in _line(kind) for base in owner.bases)


def _is_field(member):
    if not member.is_attribute or member.annotation is None or "AbstractVar[" in str(member.annotation):
        return False
    return "property" not in member.labels and "instance-attribute" in member.labels


def _set_constructor(kind: Class):
    fields = {}
    for owner in reversed(_line(kind)):
        for name, field in owner.members.items():
            if not _is_field(field):
                continue
            fields[name] = Parameter(name, annotation=field.annotation, kind=KIND, default=_default(field.value))
    own = Parameter("self", kind=KIND)
    kind.set_member("__init__", Function("__init__", parent=kind, parameters=Parameters(own, *fields.values())))


def _default(value):
    """The default of a field, that of `eqx.field(default=...)` among them."""
    if not str(value).startswith(("eqx.field(", "field(")):
        return value
    return next((a.value for a in value.arguments if getattr(a, "name", None) == "default"), None)
