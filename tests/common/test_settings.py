"""How settings are declared, read, refused and documented."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from gatecrew.common.errors import ConfigError
from gatecrew.common.settings import Reader, Setting, setting, settings_of, table
from hypothesis import given
from hypothesis import strategies as st


def no_spaces(text: str) -> None:
    if " " in text:
        raise ValueError("expected no spaces")


@dataclass(frozen=True)
class Kitchen:
    cooks: int = setting(2, "How many cook.", low=1, high=20_000)
    heat: float = setting(1.5, "How hot.", low=0)
    open: bool = setting(default=True, meaning="Whether it is open.")
    dish: str = setting("soup", "What there is.", choices=("soup", "stew"))
    spices: tuple[str, ...] = setting(("salt",), "What is in it.", check=no_spaces)
    plates: int = setting(lambda: 7, "How many plates.", shown="as many as there are")


@dataclass(frozen=True)
class Garden:
    herbs: tuple[str, ...] = setting((), "What grows.")
    open: bool = setting(default=False, meaning="Whether it is open.")


KITCHEN = {found.key: found for found in settings_of("kitchen", Kitchen)}


@pytest.fixture
def reader() -> Reader:
    return Reader([*KITCHEN.values(), *settings_of("garden", Garden)])


def toml(reader: Reader, text: str) -> None:
    reader.file("house.toml", tomllib.loads(text))


def test_a_value_has_the_type_of_its_setting(reader: Reader) -> None:
    toml(
        reader,
        '[kitchen]\ncooks = 3\nheat = 2\nopen = false\ndish = "stew"\nspices = ["salt", "pepper"]\n[garden]\nherbs = []',
    )

    assert reader.values == {
        "kitchen": {"cooks": 3, "heat": 2.0, "open": False, "dish": "stew", "spices": ("salt", "pepper")},
        "garden": {"herbs": ()},
    }
    assert type(reader.values["kitchen"]["heat"]) is float


def test_text_is_read_as_the_type_of_its_setting(reader: Reader) -> None:
    reader.environment(
        {
            "GATECREW_KITCHEN_COOKS": " 3",
            "GATECREW_KITCHEN_HEAT": "2e1",
            "GATECREW_KITCHEN_OPEN": "No",
            "GATECREW_KITCHEN_SPICES": " salt, pepper,",
            "GATECREW_GARDEN_HERBS": "",
        }
    )

    assert reader.values == {
        "kitchen": {"cooks": 3, "heat": 20.0, "open": False, "spices": ("salt", "pepper")},
        "garden": {"herbs": ()},
    }


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cooks = true", "found true, expected a whole number, at least 1, at most 20_000"),
        ("cooks = 2.0", "found 2.0, expected a whole number, at least 1, at most 20_000"),
        ('cooks = "2"', 'found "2", expected a whole number, at least 1, at most 20_000'),
        ("cooks = 0", "found 0, expected a whole number, at least 1, at most 20_000"),
        ("cooks = 20001", "found 20_001, expected a whole number, at least 1, at most 20_000"),
        ("heat = -0.5", "found -0.5, expected a number, at least 0"),
        ("heat = nan", "found nan, expected a number, at least 0"),
        ("heat = inf", "found inf, expected a number, at least 0"),
        ("heat = 1979-05-27", "found 1979-05-27, expected a number, at least 0"),
        ("open = 1", "found 1, expected true or false"),
        ('dish = "cake"', 'found "cake", expected "soup" or "stew"'),
        ('spices = "salt"', 'found "salt", expected a list of strings'),
        ('spices = ["salt", 1]', 'found ["salt", 1], expected a list of strings'),
        ('spices = ["salt", "black pepper"]', 'found "black pepper", expected no spaces'),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_its_place(reader: Reader, line: str, found: str) -> None:
    key = line.partition(" ")[0]

    with pytest.raises(ConfigError) as caught:
        toml(reader, f"[kitchen]\n{line}")

    assert str(caught.value) == f"house.toml: [kitchen] {key}: {found}"


@pytest.mark.parametrize(
    ("variable", "text", "found"),
    [
        ("KITCHEN_COOKS", "many", 'found "many", expected a whole number, at least 1, at most 20_000'),
        ("KITCHEN_COOKS", "", 'found "", expected a whole number, at least 1, at most 20_000'),
        ("KITCHEN_HEAT", "nan", "found nan, expected a number, at least 0"),
        ("KITCHEN_OPEN", "perhaps", 'found "perhaps", expected true or false'),
        ("KITCHEN_SPICES", "salt,black pepper", 'found "black pepper", expected no spaces'),
        ("KITCHEN_DISH", "\udcff", 'found "\udcff", expected "soup" or "stew"'),
    ],
)
def test_a_variable_that_is_not_allowed_is_named(reader: Reader, variable: str, text: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reader.environment({f"GATECREW_{variable}": text})

    assert str(caught.value) == f"GATECREW_{variable}: {found}"


def test_a_number_too_large_for_a_float_is_refused(reader: Reader) -> None:
    with pytest.raises(ConfigError, match="expected a number"):
        toml(reader, f"[kitchen]\nheat = 1{'0' * 400}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[kitchen]\ncoks = 1", "[kitchen] has no key coks; did you mean [kitchen] cooks?"),
        ("[kitchen]\nherbs = []", "[kitchen] has no key herbs; did you mean [garden] herbs?"),
        ("[garden]\ncoks = 1", "[garden] has no key coks; did you mean [kitchen] cooks?"),
        ("[kitchen]\nzzz = 1", "[kitchen] has no key zzz"),
        ("[kitchn]\ncooks = 1", "there is no section [kitchn]; did you mean [kitchen]?"),
        ("[cellar]\nwine = 1", "there is no section [cellar]; there are [kitchen], [garden]"),
        ("cooks = 1", "there is no section [cooks]; did you mean [kitchen] cooks?"),
        ("open = true", "there is no section [open]; did you mean [kitchen] open or [garden] open?"),
        ("kitchen = 1", "kitchen is a section, expected [kitchen] and its keys below"),
        ("[[kitchen]]\ncooks = 1", "kitchen is a section, expected [kitchen] and its keys below"),
    ],
)
def test_what_is_unknown_is_named_with_what_was_meant(reader: Reader, text: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        toml(reader, text)

    assert str(caught.value) == f"house.toml: {error}"


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("GATECREW_KITCHEN_COKS", "; did you mean GATECREW_KITCHEN_COOKS?"),
        ("GATECREW_COOKS", "; did you mean GATECREW_KITCHEN_COOKS?"),
        ("GATECREW_WINE", ", expected GATECREW_<SECTION>_<KEY>"),
        ("GATECREW_KITCHEN_PORT", "; did you mean GATECREW_KITCHEN_PLATES?"),
    ],
)
def test_a_variable_that_names_no_setting_is_refused(reader: Reader, variable: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        reader.environment({variable: "1"})

    assert str(caught.value) == f"{variable}: there is no such setting{hint}"


def test_variables_of_others_are_left_alone(reader: Reader) -> None:
    reader.environment(
        {
            "PATH": "/bin",
            "GATECREW_RESTARTS": "3",
            # Kubernetes, for a service of the name gatecrew-kitchen
            "GATECREW_KITCHEN_SERVICE_HOST": "10.0.0.11",
            "GATECREW_KITCHEN_SERVICE_PORT": "6379",
            "GATECREW_KITCHEN_SERVICE_PORT_WEB": "6379",
            "GATECREW_KITCHEN_PORT": "tcp://10.0.0.11:6379",
            "GATECREW_KITCHEN_PORT_6379_TCP": "tcp://10.0.0.11:6379",
            "GATECREW_KITCHEN_PORT_6379_TCP_PROTO": "tcp",
            "GATECREW_KITCHEN_PORT_6379_TCP_PORT": "6379",
            "GATECREW_KITCHEN_PORT_6379_TCP_ADDR": "10.0.0.11",
        }
    )

    assert reader.values == {"kitchen": {}, "garden": {}}


def test_variables_go_over_the_file_and_flags_over_both(reader: Reader) -> None:
    toml(reader, "[kitchen]\ncooks = 3\nheat = 3\nplates = 3")
    reader.environment({"GATECREW_KITCHEN_HEAT": "4", "GATECREW_KITCHEN_PLATES": "4"})
    reader.flags({"kitchen.plates": 5, "kitchen.cooks": None, "garden.herbs": "thyme,sage"})

    assert reader.values == {"kitchen": {"cooks": 3, "heat": 4.0, "plates": 5}, "garden": {"herbs": ("thyme", "sage")}}


def test_a_flag_that_is_not_allowed_is_named(reader: Reader) -> None:
    with pytest.raises(ConfigError, match=r"^command line: \[kitchen\] cooks: found -1, expected a whole number"):
        reader.flags({"kitchen.cooks": -1})


def test_the_reader_knows_what_said_a_setting(reader: Reader) -> None:
    toml(reader, "[kitchen]\ncooks = 3\nheat = 3\nplates = 3")
    reader.environment({"GATECREW_KITCHEN_HEAT": "4", "GATECREW_KITCHEN_PLATES": "4"})
    reader.flags({"kitchen.plates": 5})

    assert reader.where("kitchen.cooks") == "house.toml: [kitchen] cooks"
    assert reader.where("kitchen.heat") == "GATECREW_KITCHEN_HEAT"
    assert reader.where("kitchen.plates") == "command line: [kitchen] plates"
    assert reader.where("kitchen.open") == "[kitchen] open"
    assert reader.where("kitchen.open", "garden.open") == "[kitchen] open and [garden] open"
    assert reader.where("kitchen.open", "kitchen.heat") == "GATECREW_KITCHEN_HEAT"
    assert reader.where("kitchen.cooks", "kitchen.heat") == "house.toml: [kitchen] cooks and GATECREW_KITCHEN_HEAT"


def test_a_dataclass_takes_the_defaults() -> None:
    kitchen = Kitchen()

    assert (kitchen.cooks, kitchen.plates, kitchen.spices) == (2, 7, ("salt",))


def test_the_table_has_each_setting_with_its_default_and_what_is_allowed() -> None:
    assert list(table(KITCHEN.values())) == [
        "| Key | Default | Allowed | Meaning |",
        "| --- | --- | --- | --- |",
        "| `cooks` | `2` | a whole number, at least 1, at most 20_000 | How many cook. |",
        "| `heat` | `1.5` | a number, at least 0 | How hot. |",
        "| `open` | `true` | true or false | Whether it is open. |",
        '| `dish` | `"soup"` | "soup" or "stew" | What there is. |',
        '| `spices` | `["salt"]` | a list of strings | What is in it. |',
        "| `plates` | as many as there are | a whole number | How many plates. |",
    ]


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
settings = st.sampled_from(list(KITCHEN.values()))


@given(settings, toml_values)
def test_whatever_a_file_holds_is_taken_as_the_right_type_or_refused(found: Setting, raw: Any) -> None:
    with suppress(ValueError):
        assert type(found.read(raw)) is found.kind


@given(settings, st.text(st.characters()))
def test_whatever_a_variable_holds_is_taken_as_the_right_type_or_refused(found: Setting, text: str) -> None:
    with suppress(ValueError):
        assert type(found.read_text(text)) is found.kind


@given(st.floats(min_value=0, allow_infinity=False))
def test_a_number_is_the_same_in_a_file_and_in_a_variable(number: float) -> None:
    heat = KITCHEN["heat"]

    assert heat.read(number) == heat.read_text(str(number)) == number


@given(st.integers(max_value=0) | st.integers(min_value=20_001))
def test_what_is_out_of_bounds_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="at least 1, at most 20_000"):
        KITCHEN["cooks"].read(number)


def test_bounds_themselves_are_allowed() -> None:
    assert (KITCHEN["cooks"].read(1), KITCHEN["cooks"].read(20_000)) == (1, 20_000)
    assert KITCHEN["heat"].read(0) == 0
