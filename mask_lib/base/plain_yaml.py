"""Values from YAML files, without what YAML would read in silence as something else than was meant."""

import re
from typing import Any

import yaml

from mask_lib.base import checks, files

PLAIN_NUMBER = re.compile(r"[+-]?(?!0\d)[^:]*")
TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
UNNAMED = "<unicode string>"  # as PyYAML calls a text
MOST_VALUES = 100_000  # in a file, what aliases stand for counted each time


class PlainLoader(yaml.SafeLoader):
    """Refuses a key written twice, one that is no text, such as `no` or 7, and numbers of base 8 (007) or 60 (1:30)."""

    def __init__(self, text: str) -> None:
        self.values, self.sizes = 0, {}
        super().__init__(text)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node in self.recursive_objects:
            self.refuse("it holds itself, by an alias", node)
        before = self.values
        try:
            found = super().construct_object(node, deep=True)  # at once, or what holds itself is not noticed
        except (ValueError, LookupError, TypeError, AttributeError) as error:  # of a date 2024-13-45
            self.refuse(f"{node.tag.rpartition(':')[2]} cannot be written so ({error})", node)
        self.values += self.sizes.get(node, 1)
        self.sizes.setdefault(node, self.values - before)
        if self.values > MOST_VALUES:
            self.refuse(f"more than {MOST_VALUES:,} values", node)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if key.tag not in TEXT_TAGS:
                advice = "; write a value in place of {{ }}" if isinstance(key, yaml.MappingNode) else ""
                advice = f": put it in quotes, '{key.value}'" if isinstance(key, yaml.ScalarNode) else advice
                self.refuse(f"a name must be text{advice}", key)
            if key.value in seen:
                self.refuse(f"{key.value} is set twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        construct = self.construct_yaml_int if node.tag.endswith(":int") else self.construct_yaml_float
        found = construct(node)
        as_read = str(found)  # raises ValueError for thousands of digits
        if not PLAIN_NUMBER.fullmatch(node.value):
            plain = f"{node.value.lstrip('0')}, or " if node.value.isdigit() else ""
            self.refuse(f"YAML reads {node.value} as {as_read}: write {plain}'{node.value}' where it is text", node)
        return found

    def refuse(self, message: str, node: yaml.Node) -> None:
        raise yaml.constructor.ConstructorError(None, None, message, node.start_mark)


for kind in ("int", "float"):
    PlainLoader.add_constructor(f"tag:yaml.org,2002:{kind}", PlainLoader.construct_number)


def parse(text: str, name: str = UNNAMED) -> Any:
    """What a text of YAML holds. Raises ValueError with its `name` and the line."""
    try:
        return yaml.load(text, Loader=PlainLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace(UNNAMED, name)) from None
    except RecursionError:
        raise ValueError(f"{name}: it nests lists or mappings too deep") from None


def read(path: files.AnyPath) -> dict[str, Any]:
    """The mapping in a YAML file, {} if it is empty. Raises OSError, and ValueError that names the file and line."""
    values = parse(files.read_text(path), str(path))
    if not isinstance(values, dict | None):
        raise ValueError(f"{path} holds {checks.words_for(values)}; write `name: value` lines")
    return values or {}
