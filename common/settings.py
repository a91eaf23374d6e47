"""What a setting is: how one is declared in a dataclass, read from a file, the environment or a flag, checked and documented.

The sections and their settings are in :mod:`gatecrew.common.config`; nothing here knows them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin, get_type_hints

from .errors import ConfigError

ENV_PREFIX = "GATECREW_"
#: Variables with our prefix that are no settings: the supervisor tells a process how often it was restarted.
_NOT_SETTINGS = frozenset({"GATECREW_RESTARTS"})
#: What Kubernetes puts into the environment of every pod for a Service whose name begins with "gatecrew".
_KUBERNETES = re.compile(
    r"_SERVICE_(HOST|PORT(_\w+)?)=|_PORT(_[0-9]+_(TCP|UDP|SCTP))?=[a-z]+://|_PORT_[0-9]+_[A-Z]+_\w+="
)
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", tuple: "a list of strings"}

Value = bool | int | float | str | tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One key of a section: its type, its bounds and what it means."""

    section: str
    key: str
    kind: type
    default: str  #: in Markdown
    meaning: str  #: in Markdown
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    check: Callable[[str], None] | None
    per_listener: bool

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
        words = [_NAMES[self.kind]]
        if self.low is not None:
            words.append(f"at least {_shown(self.low)}")
        if self.high is not None:
            words.append(f"at most {_shown(self.high)}")
        return ", ".join(words)

    def read(self, raw: object) -> Value:
        """Return the value for what stands in a TOML file.

        Raises:
            ValueError: with what is wrong with it.
        """
        value: Any = raw
        if self.kind is float and type(raw) is int:
            try:
                value = float(raw)
            except OverflowError:
                raise self._unexpected(raw) from None
        elif self.kind is tuple and isinstance(raw, list) and all(isinstance(item, str) for item in raw):
            value = tuple(raw)
        kind = type(value)
        if kind is not self.kind:  # exactly: True is an int to Python, but no number to a reader
            raise self._unexpected(raw)
        self._verify(value)
        return value  # type: ignore[no-any-return]  # it is of the type that the setting has

    def read_text(self, text: str) -> Value:
        """Return the value for the text of an environment variable or a flag; the items of a list stand between commas.

        Raises:
            ValueError: with what is wrong with it.
        """
        value: Value
        try:
            text.encode()  # the environment may hold what is no text
            if self.kind is bool:
                value = _TRUTHS[text.strip().lower()]
            elif self.kind is tuple:
                value = tuple(item.strip() for item in text.split(",") if item.strip())
            else:
                value = self.kind(text)
        except (ValueError, KeyError):
            raise self._unexpected(text) from None
        self._verify(value)
        return value

    def _verify(self, value: Any) -> None:
        too_low = self.low is not None and value < self.low
        too_high = self.high is not None and value > self.high
        unknown = bool(self.choices) and value not in self.choices
        if too_low or too_high or unknown or (self.kind is float and not math.isfinite(value)):
            raise self._unexpected(value)
        if self.check is not None:
            for item in value if self.kind is tuple else (value,):
                try:
                    self.check(item)
                except ValueError as error:
                    raise ValueError(f"found {_shown(item)}, {error}") from None

    def _unexpected(self, raw: object) -> ValueError:
        return ValueError(f"found {_shown(raw)}, expected {self.expected}")


def setting(
    default: Value | Callable[[], Value],
    meaning: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], None] | None = None,
    per_listener: bool = False,
    shown: str = "",
) -> Any:
    """Declare a field of a section.

    Args:
        default: the default, or a function that finds it.
        meaning: what it is, for the reference, in Markdown.
        low: the least value allowed.
        high: the greatest value allowed.
        choices: the only values allowed.
        check: raises ValueError, with what is expected, for a string (of a list: for one item) that is not allowed.
        per_listener: whether the URL of a listener may have it as an option.
        shown: the default in words, for the reference.
    """
    metadata = {
        "default": shown or f"`{_shown(default)}`",
        "meaning": meaning,
        "low": low,
        "high": high,
        "choices": choices,
        "check": check,
        "per_listener": per_listener,
    }
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_options(settings: Iterable[Setting], options: Mapping[str, str]) -> dict[str, Value]:
    """Return the values of the options of a listener's URL, by key.

    Raises:
        ValueError: if one has no such setting, or a value that is not allowed.
    """
    known = {setting.key: setting for setting in settings if setting.per_listener}
    values = {}
    for key, text in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(f"there is no option {key}{_did_you_mean(near) or '; there are ' + ', '.join(known)}")
        try:
            values[key] = known[key].read_text(text)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return values


def settings_of(section: str, cls: type) -> list[Setting]:
    """Return the settings that a dataclass declares."""
    hints = get_type_hints(cls)
    return [
        Setting(
            section=section, key=field.name, kind=get_origin(hints[field.name]) or hints[field.name], **field.metadata
        )
        for field in dataclasses.fields(cls)
    ]


class Reader:
    """Gathers values from several places, of which a later one has precedence, and remembers where each came from."""

    def __init__(self, settings: Iterable[Setting]) -> None:
        self._settings = {f"{setting.section}.{setting.key}": setting for setting in settings}
        self._variables = {setting.variable: setting for setting in self._settings.values()}
        #: section -> key -> value
        self.values: dict[str, dict[str, Value]] = {setting.section: {} for setting in self._settings.values()}
        self._sources: dict[str, str] = {}

    def where(self, *names: str) -> str:
        """Name what set these settings (``"gateway.link"``), or the settings themselves if none of them was set."""
        sources = [self._sources[name] for name in names if name in self._sources]
        return " and ".join(sources or [self._settings[name].name for name in names])

    def file(self, name: str, content: Mapping[str, object]) -> None:
        """Take what a TOML file says.

        Raises:
            ConfigError: if it has an unknown section or key, or a value that is not allowed.
        """
        for section, keys in content.items():
            if section not in self.values:
                near = [f"[{known}]" for known in difflib.get_close_matches(section, self.values, 1)]
                hint = _did_you_mean(near) or self._nearest(section)
                there_are = ", ".join(f"[{known}]" for known in self.values)
                raise ConfigError(f"{name}: there is no section [{section}]{hint or f'; there are {there_are}'}")
            if not isinstance(keys, Mapping):
                raise ConfigError(f"{name}: {section} is a section, expected [{section}] and its keys below")
            for key, raw in keys.items():
                setting = self._settings.get(f"{section}.{key}")
                if setting is None:
                    raise ConfigError(f"{name}: [{section}] has no key {key}{self._nearest(key, section)}")
                self._take(setting, f"{name}: {setting.name}", setting.read, raw)

    def environment(self, env: Mapping[str, str]) -> None:
        """Take the variables that begin with ``GATECREW_``.

        Raises:
            ConfigError: if one names no setting, or has a value that is not allowed.
        """
        for variable, text in env.items():
            if not variable.startswith(ENV_PREFIX) or variable in _NOT_SETTINGS:
                continue
            setting = self._variables.get(variable)
            if setting is not None:
                self._take(setting, variable, setting.read_text, text)
            elif not _KUBERNETES.search(f"{variable}={text}"):
                near = difflib.get_close_matches(variable, self._variables, 1, cutoff=0.75)
                hint = _did_you_mean(near) or f", expected {ENV_PREFIX}<SECTION>_<KEY>"
                raise ConfigError(f"{variable}: there is no such setting{hint}")

    def flags(self, flags: Mapping[str, object]) -> None:
        """Take flags of the command line, keyed ``"section.key"``; None means not given.

        Raises:
            ConfigError: if one has a value that is not allowed.
        """
        for name, raw in flags.items():
            if raw is not None:
                setting = self._settings[name]
                read = setting.read_text if isinstance(raw, str) else setting.read
                self._take(setting, f"command line: {setting.name}", read, raw)

    def _take(self, setting: Setting, source: str, read: Callable[[Any], Value], raw: object) -> None:
        try:
            self.values[setting.section][setting.key] = read(raw)
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
        self._sources[f"{setting.section}.{setting.key}"] = source

    def _nearest(self, key: str, section: str = "") -> str:
        """Point to what was probably meant: the same key elsewhere, or else a similar one, in this section first."""
        everywhere = list(self._settings.values())
        here = [setting for setting in everywhere if setting.section == section]
        if same := [setting.name for setting in everywhere if setting.key == key]:
            return _did_you_mean(same)
        for settings in (here, everywhere):
            if near := difflib.get_close_matches(key, [setting.key for setting in settings], 1):
                return _did_you_mean(setting.name for setting in settings if setting.key in near)
        return ""


def table(settings: Iterable[Setting]) -> Iterator[str]:
    """Yield the lines of a Markdown table of these settings."""
    yield "| Key | Default | Allowed | Meaning |"
    yield "| --- | --- | --- | --- |"
    for setting in settings:
        mark = " \\*" if setting.per_listener else ""
        yield f"| `{setting.key}`{mark} | {setting.default} | {setting.expected} | {setting.meaning} |"


def _shown(value: object) -> str:
    """Return a value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"{value:_}" if abs(value) >= 10_000 else str(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list() | tuple():
            return f"[{', '.join(map(_shown, value))}]"
        case _:
            return str(value)


def _did_you_mean(names: Iterable[str]) -> str:
    said = " or ".join(names)
    return f"; did you mean {said}?" if said else ""
