"""The messages of every error that mask_lib raises, read from its source without importing it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Functions that raise what their callers say: the exception, and the message from their arguments as text.
HELPERS = {
    "require": ("ValueError", lambda texts: f"{texts[0]} = {{value}}: it must be {texts[-1]}"),
    "refuse": ("ValueError", lambda texts: texts[1] + ": {count}, such as {culprits}"),
    "self.refuse": ("ValueError", lambda texts: texts[0]),
    "_refuse": ("ValueError", lambda texts: f"{texts[1]} {{name}} {texts[3]}"),
    "stop": ("NotebookError", lambda texts: f"{{notebook}}, {{cell}}: {texts[0]}"),
}
PASSED_ON = {"shown_path", "_shown", "sorted", "list", "set", "str", "dict", "map", "join", "repr", "filter", "int"}
PASSED_ON |= {"Path", "project_path", "with_name", "min", "max"}  # calls that are shown as their last argument
CALLED = {"len": "count", "sum": "count", "argmax": "number"}
# How a clause begins that says what to do, or what may stand there.
ADVISES = re.compile(
    r"(?i)(write|run(?! \{)|give|name|set|use|take|make|train|lower|raise|choose|wait|save|rename|move|remove|leave|"
    r"export|pass|unpack|pack|put|add|tag|look|type|do not|combine|near it|there are|did you mean|modes are|\? shows|"
    r"they go|labels are|try|this version reads|let it|start|open|"
    r"[^:;.]*\b(must|needs?|wants|at least|at most|data folder)\b)"
)
# In a message that says it on the way, or by what is filled in.
REQUIRES = re.compile(
    r"\b(must|may hold|needs?|wants|write|give one|installs a torch)\b|\{(advice|hint|remedy|anew|how_to)"
)
Scope = dict[str, ast.expr | None]


class Message(NamedTuple):
    """`said` and `advice`, which may be empty, are one text: {…} in it stands for what is filled in, […] may lack."""

    wing: str
    module: str
    exception: str
    said: str
    advice: str


def assigned(body: list[ast.stmt]) -> Scope:
    """What is assigned to names, in blocks too; None for what is assigned more than once."""
    found: Scope = {}
    for node in (one for statement in body for one in ast.walk(statement)):
        targets = node.targets if isinstance(node, ast.Assign) else []
        found |= {node.target.id: None} if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else {}
        for target in targets:
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            both = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            values = node.value.elts if both else [node.value if names == [target] else None] * len(names)
            pairs = zip(names, values, strict=True)
            found |= {one.id: None if one.id in found else value for one, value in pairs if isinstance(one, ast.Name)}
    return found


class Source:
    """A package's functions, classes and constants by name, and what it raises."""

    def __init__(self, package: Path) -> None:
        self.trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.glob("*/*.py"))}
        nodes = [node for tree in self.trees.values() for node in ast.walk(tree)]
        defined = [node for node in nodes if isinstance(node, ast.FunctionDef)]
        counts = Counter(node.name for node in defined)
        self.functions = {node.name: node for node in defined if counts[node.name] == 1}
        self.classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
        self.constants: Scope = {}
        for tree in self.trees.values():
            for name, value in assigned([one for one in tree.body if isinstance(one, ast.Assign)]).items():
                differs = name in self.constants and ast.dump(self.constants[name] or value) != ast.dump(value)
                self.constants[name] = None if differs else value

    def messages(self) -> list[Message]:
        """All of them, module by module in the order of the source, each once."""
        found = []
        for path, tree in self.trees.items():
            raised = sorted(self.raised(tree), key=lambda one: one[0])  # by line
            found += [Message(path.parent.name, path.stem, one[1], *parted(one[2])) for one in raised if words(one[2])]
        return list(dict.fromkeys(found))

    def raised(self, tree: ast.Module) -> Iterator[tuple[int, str, str]]:
        """(line, exception, message) of what a module's functions raise."""
        seen = set()
        for function in reversed([node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]):  # inner first
            nodes = [one for one in ast.walk(function) if isinstance(one, ast.Raise | ast.Call) and id(one) not in seen]
            seen |= set(map(id, nodes))
            nodes = [one for one in nodes if isinstance(one, ast.Raise) or called(one) in HELPERS]
            if nodes and function.name not in HELPERS:
                scope = assigned(function.body) | dict.fromkeys(one.arg for one in function.args.args)
                yield from ((node.lineno, *one) for node in nodes for one in self.exceptions(node, scope))

    def exceptions(self, node: ast.expr | ast.Raise, scope: Scope) -> Iterator[tuple[str, str]]:
        """(exception, message) of a helper's call or of what stands behind `raise`; none for signals without words."""
        if isinstance(node, ast.Raise):
            yield from self.exceptions(node.exc, scope) if node.exc else ()
            return
        name = called(node)
        if isinstance(node, ast.Call) and name in HELPERS:
            is_own = name == "refuse" and ast.unparse(node.func) == "self.refuse"
            exception, message = HELPERS["self.refuse" if is_own else name]
            yield exception, message([self.text(one, scope) for one in node.args])
        elif isinstance(node, ast.Call) and name in self.functions:  # which gives an exception
            for one in ast.walk(self.functions[name]):
                if isinstance(one, ast.Return) and isinstance(one.value, ast.Call):
                    yield from self.exceptions(one.value, assigned(self.functions[name].body))
        elif isinstance(node, ast.Call) and node.args and name[0].isupper() and name != "SystemExit":
            for one in self.choices(node.args[0]):  # or what a function makes of it
                yield name, self.text(one, assigned(self.functions[called(node.args[0])].body))
            texts = (self.text(one, scope) for one in node.args)
            yield name, next((text for text in texts if re.search("[a-z] ", text)), "")
        elif name in self.classes:
            told = [one for one in self.classes[name].body if getattr(one, "name", "") == "__str__"]
            made = [one.value for method in told for one in ast.walk(method) if isinstance(one, ast.Return)]
            yield from ((name, self.text(one, {})) for one in made)

    def choices(self, node: ast.expr) -> list[ast.expr]:
        """The texts of which a function that is called gives one; none for fewer than two."""
        nodes = ast.walk(self.functions[called(node)]) if called(node) in self.functions else ()
        found = [one.value for one in nodes if isinstance(one, ast.Return) and one.value and is_text(one.value)]
        return found if len(found) > 1 else []

    def text(self, node: ast.expr, scope: Scope) -> str:
        """An expression as text: what is known of it, and {names} for the rest."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(self.text(one, scope) for one in node.values)
        if isinstance(node, ast.FormattedValue):
            return self.text(node.value, scope)
        if isinstance(node, ast.BinOp) and not any(map(is_number, (node.left, node.right))):
            mark = "/" if isinstance(node.op, ast.Div) else ""
            return self.text(node.left, scope) + mark + self.text(node.right, scope)
        if isinstance(node, ast.Tuple):
            return ", ".join(self.text(one, scope) for one in node.elts)
        if isinstance(node, ast.IfExp):
            parts = [self.text(part, scope) for part in (node.body, node.orelse)]
            said = [part for part in parts if words(part)]
            return (
                f"({' or '.join(said)})"
                if len(said) > 1
                else f"[{said[0]}]"
                if "" in parts and said
                else (said or parts)[0]
            )
        if isinstance(node, ast.Name | ast.Attribute):
            name = called(node)
            known = scope[name] if name in scope else self.constants.get(name)
            plain = known and (is_text(known) or isinstance(known, ast.Constant | ast.Tuple))
            return self.text(known, scope | {name: None}) if plain else f"{{{name}}}"
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and is_text(node.slice):
            return f"{{{node.slice.value}}}"
        if isinstance(node, ast.Call):
            return self.text_of_call(node, scope)
        inner = getattr(node, "value", None) or getattr(node, "elt", None) or getattr(node, "left", None)
        inner = node.values[0] if isinstance(node, ast.BoolOp) else inner
        return self.text(inner, scope) if isinstance(inner, ast.expr) else "{…}"

    def text_of_call(self, node: ast.Call, scope: Scope) -> str:
        """What a call gives, as text: known of `format`, of what is passed on, and of functions with one return."""
        name = called(node)
        if name == "format":
            return self.text(node.func.value, scope)
        if name in PASSED_ON and node.args:
            return self.text(node.args[-1], scope)
        made = [one.value for one in ast.walk(self.functions.get(name, node)) if isinstance(one, ast.Return)]
        return self.text(made[0], {}) if len(made) == 1 and is_text(made[0]) else f"{{{CALLED.get(name, name)}}}"


def called(node: ast.expr) -> str:
    """The last name of a call, an attribute or a name; "" for anything else."""
    node = node.func if isinstance(node, ast.Call) else node
    return getattr(node, "attr", None) or getattr(node, "id", "")


def words(text: str) -> list[str]:
    """The words of a message but for what is filled in."""
    return re.findall("[a-z]{2,}", re.sub(r"\{.*?\}", "", text))


def is_number(node: ast.expr) -> bool:
    """Whether an expression is a number as it is written."""
    return isinstance(node, ast.Constant) and not isinstance(node.value, str)


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a text, or one of two."""
    if isinstance(node, ast.IfExp):
        return is_text(node.body) and is_text(node.orelse)
    if isinstance(node, ast.BinOp | ast.BoolOp):
        return any(map(is_text, [node.left, node.right] if isinstance(node, ast.BinOp) else node.values))
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def parted(text: str) -> tuple[str, str]:
    """A message before and behind the mark where it begins to say what to do."""
    for mark in re.finditer(r"[:;.] ", text):
        if ADVISES.match(text[mark.end() :]):
            said, advice = text[: mark.start()], text[mark.end() :]
            return (said[:-1], advice[:-1]) if said.endswith("[") else (said, advice)
    return text, ""
