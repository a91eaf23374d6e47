"""What a setting is: how one is declared in a dataclass, read from a file, the environment or a flag, checked and documented.

The sections and their settings are in :mod:`gatecrew.common.config`; nothing here knows them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin, get_type_hints

from .errors import ConfigError

ENV_PREFIX = "GATECREW_"
#: Variables with our prefix that are no settings: the supervisor tells a process how often it was restarted.
_NOT_SETTINGS = frozenset({"GATECREW_RESTARTS"})
#: What Kubernetes puts into the environment of every pod for a Service whose name begins with "gatecrew".
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_|$)")
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a list of texts"}

Value = bool | int | float | str | tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section: its type, its bounds and what it means."""

    section: str
    key: str
    kind: type
    default: str
    help: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    check: Callable[[str], None] | None
    secret: bool

    @property
    def name(self) -> str:
        """How files and documents call it: ``[gateway] listen``."""
        return f"[{self.section}] {self.key}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{ENV_PREFIX}{self.section}_{self.key}".upper()

    @property
    def expected(self) -> str:
        """What is allowed, in words."""
        if self.choices:
            return " or ".join(f'"{choice}"' for choice in self.choices)
        bounds = {"at least": self.low, "at most": self.high}
        return ", ".join([_NAMES[self.kind], *(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)])

    def read(self, raw: object) -> Value:
        """Return the value for what stands in a TOML file, or raise ValueError with what is wrong with it."""
        kind = self.kind
        if kind is float and type(raw) is int:
            raw = float(raw)
        if kind is tuple and isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw):
            return tuple(raw)
        # exactly this type: True is an int to Python, but no number to a reader
        if type(raw) is not kind or kind is tuple:
            raise ValueError(self._found(raw))
        return raw  # type: ignore[return-value]  # it is of the type that the setting has

    def read_text(self, text: str) -> Value:
        """Return the value for the text of an environment variable or flag, or raise ValueError with what is wrong."""
        try:
            if self.kind is bool:
                return _TRUTHS[text.strip().lower()]
            if self.kind is tuple:
                return tuple(item.strip() for item in text.split(",") if item.strip())
            value: Value = self.kind(text)
        except (ValueError, KeyError):
            raise ValueError(self._found(text)) from None
        return value

    def verify(self, value: Any) -> None:
        """Raise ValueError, with what is wrong, if the value is out of its bounds."""
        too_low = self.low is not None and value < self.low
        too_high = self.high is not None and value > self.high
        unknown = bool(self.choices) and value not in self.choices
        if too_low or too_high or unknown or (self.kind is float and not math.isfinite(value)):
            raise ValueError(self._found(value))
        if self.check is not None:
            for item in value if self.kind is tuple else (value,):
                try:
                    self.check(item)
                except ValueError as error:
                    raise ValueError(f"found {item!r}, {error}") from None

    def _found(self, raw: object) -> str:
        found = "something else (not shown)" if self.secret else _shown(raw)
        return f"found {found}, expected {self.expected}"


def setting(
    default: Value | Callable[[], Value],
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], None] | None = None,
    secret: bool = False,
    shown: str = "",
) -> Any:
    """Declare a field of a section.

    Args:
        default: the default, or a function that finds it.
        meaning: one sentence for the reference, in Markdown.
        low: the least value allowed.
        high: the greatest value allowed.
        choices: the only values allowed.
        check: raises ValueError, with what is wrong, for a text (of a list: for one item) that is not allowed.
        secret: the value stays out of ``repr`` and of errors.
        shown: the default in words, for the reference.
    """
    rules = {"help": meaning, "low": low, "high": high, "choices": choices, "check": check, "secret": secret}
    metadata = {"rules": rules, "help": meaning, "default": shown or _shown(default)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata, repr=not secret)
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


def settings_of(section: str, cls: type) -> dict[str, Setting]:
    """Return the settings that a dataclass declares, by key."""
    hints = get_type_hints(cls)
    return {
        field.name: Setting(
            section=section,
            key=field.name,
            kind=get_origin(hints[field.name]) or hints[field.name],
            default=field.metadata["default"],
            **field.metadata["rules"],
        )
        for field in dataclasses.fields(cls)
    }


class Reader:
    """Gathers values from several places, of which a later one has precedence, and remembers where each came from."""

    def __init__(self, settings: Iterable[Setting]) -> None:
        self._settings = {f"{setting.section}.{setting.key}": setting for setting in settings}
        self._sections = {setting.section for setting in self._settings.values()}
        self._variables = {setting.variable: setting for setting in self._settings.values()}
        #: section -> key -> value
        self.values: dict[str, dict[str, Value]] = {section: {} for section in self._sections}
        #: "section.key" -> how to name it in an error
        self.sources: dict[str, str] = {}

    def file(self, name: str, content: Mapping[str, object]) -> None:
        """Take what a TOML file says.

        Raises:
            ConfigError: if it has an unknown section or key, or a value of a wrong type.
        """
        for section, keys in content.items():
            if not isinstance(keys, Mapping):
                hint = self._nearest(section, section)
                raise ConfigError(f"{name}: {section} stands outside of any section{hint}")
            if section not in self._sections:
                hint = _did_you_mean(difflib.get_close_matches(section, sorted(self._sections), 1), "[{}]")
                raise ConfigError(f"{name}: there is no section [{section}]{hint or self._all_sections()}")
            for key, raw in keys.items():
                found = self._settings.get(f"{section}.{key}")
                if found is None:
                    raise ConfigError(f"{name}: [{section}] has no key {key}{self._nearest(section, key)}")
                self._take(found, f"{name}: {found.name}", found.read, raw)

    def environment(self, env: Mapping[str, str]) -> None:
        """Take the variables that begin with ``GATECREW_``.

        Raises:
            ConfigError: if one looks like a setting and is none, or does not hold what the setting needs.
        """
        for variable, text in env.items():
            if not variable.startswith(ENV_PREFIX) or variable in _NOT_SETTINGS:
                continue
            found = self._variables.get(variable)
            if found is not None:
                self._take(found, variable, found.read_text, text)
            elif problem := self._unknown_variable(variable):
                raise ConfigError(f"{variable}: there is no such setting{problem}")

    def flags(self, flags: Mapping[str, object]) -> None:
        """Take flags of the command line, keyed ``"section.key"``; None means not given.

        Raises:
            ConfigError: if one does not hold what the setting needs.
        """
        for name, raw in flags.items():
            if raw is None:
                continue
            found = self._settings.get(name)
            if found is None:
                raise ConfigError(f"command line: there is no setting {name}")
            self._take(found, f"command line: {found.name}", found.read_text if isinstance(raw, str) else found.read, raw)

    def _take(self, found: Setting, source: str, read: Callable[[Any], Value], raw: object) -> None:
        try:
            self.values[found.section][found.key] = read(raw)
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
        self.sources[f"{found.section}.{found.key}"] = source

    def _nearest(self, section: str, key: str) -> str:
        """Point to the setting that was probably meant: the same key elsewhere, or else a similar one."""
        same = [found.name for found in self._settings.values() if found.key == key]
        here = {found.key: found.name for found in self._settings.values() if found.section == section}
        there = {found.key: found.name for found in self._settings.values()}
        near = [keys[match] for keys in (here, there) for match in difflib.get_close_matches(key, keys, 1)]
        return _did_you_mean(same or near[:1], "{}")

    def _unknown_variable(self, variable: str) -> str:
        bare = variable.removeprefix(ENV_PREFIX)
        if _KUBERNETES.search(bare):
            return ""
        known = [name.removeprefix(ENV_PREFIX) for name in self._variables]
        if near := difflib.get_close_matches(bare, known, 1, cutoff=0.8):
            return _did_you_mean(near, ENV_PREFIX + "{}")
        in_section = bare.split("_")[0].lower() in self._sections
        return f" (variables are {ENV_PREFIX}<SECTION>_<KEY>)" if in_section else ""

    def _all_sections(self) -> str:
        return "; there are " + ", ".join(f"[{section}]" for section in sorted(self._sections))


def verify(section: str, values: object, sources: Mapping[str, str]) -> None:
    """Check each setting of a section on its own.

    Raises:
        ConfigError: if one is out of its bounds.
    """
    for found in settings_of(section, type(values)).values():
        try:
            found.verify(getattr(values, found.key))
        except ValueError as error:
            raise ConfigError(f"{sources.get(f'{section}.{found.key}', found.name)}: {error}") from None


def table(settings: Iterable[Setting]) -> Iterator[str]:
    """Yield the lines of a Markdown table of these settings."""
    yield "| Key | Default | Allowed | Meaning |"
    yield "| --- | --- | --- | --- |"
    for found in settings:
        yield f"| `{found.key}` | {found.default} | {found.expected} | {found.help} |"


def _shown(value: object) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value)}]"
    return str(value)


def _did_you_mean(names: Iterable[str], form: str) -> str:
    said = " or ".join(form.format(name) for name in names)
    return f"; did you mean {said}?" if said else ""
