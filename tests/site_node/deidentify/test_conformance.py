"""The conformance statement, against the tables it counts."""

from __future__ import annotations

from site_node.deidentify.conformance import markdown, statements
from site_node.deidentify.profile import Dates, Option, Options


def test_every_option_of_the_standard_has_a_statement_of_what_is_done() -> None:
    codes = [each.code for each in statements()]

    assert codes == [str(code) for code in range(113100, 113113)]
    assert all(each.done.endswith(".") for each in statements())


def test_the_defaults_are_those_of_the_options() -> None:
    by_default = {each.code for each in statements() if each.by_default}

    assert by_default == {"113100"} | {option.value[0] for option in Options().chosen()}
    assert "113110" in {each.code for each in statements(Options(retain_uids=True)) if each.by_default}
    assert "113107" not in {each.code for each in statements(Options(dates=Dates.FULL)) if each.by_default}


def test_the_counts_are_those_of_the_tables() -> None:
    counts = {each.code: (each.attributes, each.content_items) for each in statements()}

    assert counts["113100"] == (657, 214)
    assert counts[Option.CLEAN_DESCRIPTORS.value[0]] == (141, 45)
    assert counts[Option.RETAIN_MODIFIED_DATES.value[0]] == (169, 44)


def test_the_table_for_the_documentation_has_a_line_for_each() -> None:
    assert len(markdown().splitlines()) == 2 + 13
