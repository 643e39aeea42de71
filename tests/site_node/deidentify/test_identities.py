"""What an instance says about persons is found in every form."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_node.deidentify.identities import Identities, fold, written_days


def found(identities: Identities, text: str) -> list[str]:
    return [text[start:end] for start, end in identities.spans(text)]


@pytest.mark.parametrize(
    "text",
    [
        "O'Neill-Świątek",
        "ONEILL SWIATEK",
        "Zoë Świątek",
        "zoeswiatek",
        "Swiatek, Z",
        "z.swiatek",
        "swiatekz",
        "SWIATEK^ZOE",
    ],
)
def test_a_name_is_found_in_any_order_case_and_spelling(text: str) -> None:
    places = found(Identities.of(names=("O'Neill-Świątek^Zoë^^Dr.",)), text)

    assert "".join(filter(str.isalpha, "".join(places))) == "".join(filter(str.isalpha, text))


def test_every_group_of_a_name_is_found_and_where_words_do_not_stand_apart_within_them() -> None:
    name = Identities.of(names=("Yamada^Tarou=山田^太郎=やまだ^たろう",))

    assert found(name, "山田太郎様 CT") == ["山田太郎"]
    assert found(name, "TAROU YAMADA") == ["TAROU YAMADA"]


@pytest.mark.parametrize(
    "text", ["Q u v o s t r u p", "q.u.v.o.s.t.r.u.p", "Q-U-V-O-S-T-R-U-P", "Q_u_v_o_s_t_r_u_p", "Q u v o s t rup"]
)
def test_a_name_is_found_with_its_letters_apart(text: str) -> None:
    name = Identities.of(names=("Quvostrup^Zelgorbrek",))

    assert found(name, text) == [text]
    assert found(name, f"P A T I E N T : {text} T 2 w") == [text]
    assert found(name, f"{'P A T I E N T . ' * 10}{text} T 2 w") == [text]


@pytest.mark.parametrize("text", ["山 本", "山\u3000本", "山・本"])
def test_a_name_of_characters_is_found_with_gaps(text: str) -> None:
    assert found(Identities.of(names=("Yamamoto^Hanako=山本^花子",)), f"chest {text}") == [text]


def test_a_short_part_of_a_name_counts_only_beside_another() -> None:
    name = Identities.of(names=("Li^Wei",))

    assert found(name, "LI-RADS 4") == []
    assert found(name, "Wei Li") == ["Wei Li"]


@pytest.mark.parametrize("text", ["MRN0012345", "mrn 12345", "MRN-00-123-45", "12345", "0012345"])
def test_an_identifier_is_found_without_zeros_prefix_and_dividers(text: str) -> None:
    assert found(Identities.of(ids=("MRN-0012345",)), text) == [text]


def test_words_that_many_places_share_are_no_place() -> None:
    place = Identities.of(places=("GREEN VALLEY GENERAL HOSPITAL", "12 Kirchweg, 8001 Zürich"))

    assert found(place, "General hospital") == []
    assert found(place, "Green Valley") == ["Green Valley"]
    assert found(place, "Zuerich and Zurich") == ["Zuerich", "Zurich"]


@pytest.mark.parametrize(
    ("place", "text", "gone"),
    [
        ("1 Quay, Cork", "Cork chest", ["Cork"]),
        ("5 High St, Reading", "Reading chest, High resolution", ["Reading"]),
        ("Bath Hospital", "BATH", ["BATH"]),
        ("Bath Hospital", "water bath", []),
        ("5 High St, Reading", "reading the images", []),
        ("Reading Chest Hospital", "Chest reading", []),
        ("Emergency Department", "CHEST EMERGENCY", []),
    ],
)
def test_a_town_that_is_a_word_is_found_where_it_has_a_capital(place: str, text: str, gone: list[str]) -> None:
    assert found(Identities.of(places=(place,)), text) == gone


def test_a_telephone_number_is_found_by_its_last_digits() -> None:
    assert found(Identities.of(contacts=("+49 (0)30 123-4567",)), "tel 030/1234567") == ["030/1234567"]


@given(st.dates(date(1900, 1, 1), date(2068, 12, 31)))
def test_a_day_is_found_however_it_is_written(day: date) -> None:
    known = Identities.of(dates=(f"{day:%Y%m%d}120000",))
    forms = ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d.%m.%y", "%d %b %Y", "%B %d, %Y", "%d-%b-%Y", "%d%b%Y")

    for form in forms:
        text = f"on {day.strftime(form)} seen"
        assert known.spans(text) == [(3, len(text) - 5)], form


def test_a_day_may_be_written_in_two_orders() -> None:
    ((start, end, days),) = written_days("CT 3/4/2020")

    assert (start, end) == (3, 11)
    assert days == {date(2020, 3, 4), date(2020, 4, 3)}


@pytest.mark.parametrize(
    "text", ["KOWA1CZYK", "K0WALCZYK", "KOVVALCZYK", "KOWALCZVK", "ANNAKOWALCZYK", "M R N 12345", "MRN1234S"]
)
def test_misread_characters_still_resemble(text: str) -> None:
    assert Identities.of(names=("Kowalczyk^Anna",), ids=("MRN12345",)).resembles(text)


@pytest.mark.parametrize("text", ["CHEST", "LEFT", "120 kV", "PORTABLE"])
def test_words_of_the_technique_do_not_resemble(text: str) -> None:
    assert not Identities.of(names=("Chess^Anna",), ids=("MRN12345",)).resembles(text)


@given(st.text(max_size=40), st.text(max_size=80))
def test_places_are_in_order_apart_and_within_the_text(name: str, text: str) -> None:
    places = Identities.of(names=(name,), places=(name,), ids=(name,)).spans(text)

    edges = [edge for place in places for edge in place]
    assert edges == sorted(set(edges))
    assert all(0 <= edge <= len(text) for edge in edges)


@given(st.text(max_size=40))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize("station", ["CT01", "MR2", "GE1", "US-3", "XA_LAB3"])
def test_a_station_is_found_as_a_whole(station: str) -> None:
    known = Identities.of(stations=(station,))

    assert found(known, f"chest {station} T2") == [station]
    assert found(known, f"t2_{station.lower()}_tra") == [station.lower()]
    assert found(known, "CT MR US 2 01 GE11 MR20") == []


@pytest.mark.parametrize("station", ["CT", "MR", "3T", "T2", "1.5T"])
def test_a_station_called_as_the_technique_takes_nothing_away(station: str) -> None:
    assert found(Identities.of(stations=(station,)), f"CT MR {station} 3T T2 1.5T") == []
