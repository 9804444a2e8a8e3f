"""Values held to types and ranges by pydantic, with errors that say in a sentence what is wrong and what to write."""

import datetime
import difflib
import functools
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, field_validator

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", dict: "a mapping"}
_WORDS |= {list: "a list", tuple: "a list", types.NoneType: "empty"}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_ERRORS = {f"{kind.__name__.replace('str', 'string')}_type": kind for kind in _WORDS}  # as pydantic calls them
_ERRORS["model_type"] = dict
_LIMITS = {"greater than or equal to": "at least", "less than or equal to": "at most"}
_LIMITS |= {"greater than": "above", "less than": "below"}
_LIMITS["List should have at least 1 item after validation, not 0"] = "a list of one or more"
_adapter = functools.cache(functools.partial(TypeAdapter, config=_STRICT))


class Settings(BaseModel):
    """Base of frozen settings, checked however built. ValueError says in a sentence what is wrong and what to write.

    Types are strict, but whole numbers will do for floats and lists for tuples; NaN and infinity are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", **_STRICT)

    def __init__(self, /, **settings: Any) -> None:  # a file may hold a setting called self
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError(_sentence(error, type(self).model_fields)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _lists_as_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def require(self, name: str, holds: Any, wanted: str) -> None:
        """Raise ValueError that shows the field `name` and what it must be, unless it holds."""
        require(name, getattr(self, name), holds, wanted)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Settings from a mapping that holds all fields among other names, such as a notebook's `globals()`."""
        missing = [name for name in cls.model_fields if name not in parameters]
        if missing:
            raise ValueError(f"the parameters cell lacks {', '.join(missing)}")
        return cls(**{name: parameters[name] for name in cls.model_fields})

    def settings(self) -> dict[str, Any]:
        """Every field as plain JSON data."""
        return self.model_dump(mode="json")

    def replace(self, **changes: Any) -> Self:
        """The same settings with changes, checked anew."""
        return type(self)(**{**dict(self), **changes})


def checked(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`, a type such as a field's, or a ValueError that says what to write instead."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(_sentence(error, (), name)) from None


def _sentence(error: ValidationError, known: Iterable[str], name: str = "") -> str:
    """The first of pydantic's errors in one sentence; `name`: of what was checked, where it is no field of settings."""
    first = error.errors(include_url=False)[0]
    value, context = first["input"], first.get("ctx", {})
    place, *inside = [*([name] if name else []), *first["loc"]] or [""]
    shown = f"{place}{''.join(f'[{one}]' for one in inside)} = {value!r}"
    if first["type"] == "value_error":  # of our own validators, which name the field, but not where it is inside others
        return f"{shown.partition(' = ')[0]}: {context['error']}" if inside else str(context["error"])
    if first["type"] == "extra_forbidden":
        return f"there is no setting {place!r}{did_you_mean(place, known)}"
    if kind := _ERRORS.get(first["type"]):
        return f"{shown} is {words_for(value)}, not {_WORDS[kind]}{advice_on_type(value, kind)}"
    if first["type"] == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        return f"{shown}: it must be one of {choices}{did_you_mean(value, choices.split(', '))}"
    wanted = first["msg"].removeprefix("Input should be ")
    for words, shorter in _LIMITS.items():
        wanted = wanted.replace(words, shorter)
    return f"{shown}: it must be {wanted}"


def safe_name(name: str, value: Any) -> str:
    """`value`, which becomes part of file names. Raises ValueError that says what to write unless it is one word."""
    wanted = "1 to 100 letters of a-z and A-Z, digits, '_', '-' and '.', the first a letter or digit"
    require(name, checked(name, value, str), SAFE_NAME.fullmatch(value), wanted)
    return value


def require(name: str, value: Any, holds: Any, wanted: str) -> None:
    """Raise ValueError that shows `name`, its value and what it must be, unless it holds."""
    if not holds:
        raise ValueError(f"{name} = {list(value) if isinstance(value, tuple) else value!r}: it must be {wanted}")


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """`; did you mean epochs?` where a known name is near, else nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def advice_on_type(value: Any, kind: type) -> str:
    """`: ` and what to write instead of `value` to give a `kind`, where that is a common slip; else nothing."""
    if kind is str and isinstance(value, bool):
        return ": put it in quotes (without them YAML reads yes, no, on and off as true or false)"
    if kind is str and isinstance(value, int | float | datetime.date):
        return f": put it in quotes, '{value}'"
    if kind in (list, tuple) and isinstance(value, int | float):
        return f": write [{value}]"
    is_number = kind in (int, float) and isinstance(value, str) and NUMBER.fullmatch(value)
    if not is_number or (kind is int and not float(value).is_integer()):
        return ""
    mantissa, _, exponent = value.lower().partition("e")
    if kind is int or not exponent:
        plain = f"{float(value):.0f}" if kind is int else value
        return f": write {plain}{'' if exponent else ' without quotes'}"
    point, sign = "" if "." in mantissa else ".0", "" if exponent[0] in "+-" else "+"
    written = f"{mantissa}{point}e{sign}{exponent}"
    return f": YAML reads it as text unless it has a point and the exponent's sign; write {written}"


def words_for(value: Any) -> str:
    """What a value is, as a person says it: `a whole number`, `text`, `a list`."""
    return _WORDS.get(type(value), f"a {type(value).__name__}")
