"""The profile form, its options, and the names of homes and tokens."""

import re
from html.parser import HTMLParser

import pytest
from llmos_spawners.profiles.choices import DEFAULT_SIZE, SIZES, BadOptions, Profiles, workstation
from llmos_spawners.profiles.form import render_form

from llmos.names import invoke_note, slug


class Inputs(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.inputs, self.labels = {}, set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "input":
            self.inputs[attributes["value"]] = attributes
        if tag == "label":
            self.labels.add(attributes["for"])


GIB = 1024**3
PROFILES = Profiles()


def test_the_form_offers_every_size_with_a_label_and_marks_one():
    form = Inputs(render_form(PROFILES))
    assert set(form.inputs) == {size.name for size in SIZES}
    assert {attributes["id"] for attributes in form.inputs.values()} == form.labels
    assert [name for name, attributes in form.inputs.items() if "checked" in attributes] == [DEFAULT_SIZE]


def test_the_last_choice_is_marked_and_a_strange_one_is_not_shown():
    assert "checked" in Inputs(render_form(PROFILES, {"size": "large"})).inputs["large"]
    assert "<script>" not in render_form(PROFILES, {"size": "<script>"})
    refused = Inputs(render_form(PROFILES, {"size": ["large"]}))  # the Hub remembers the options of a refused start
    assert "checked" in refused.inputs[DEFAULT_SIZE]


def test_what_the_form_sends_is_what_is_started():
    assert PROFILES.from_form({"size": ["medium"], "_xsrf": ["x"]}) == {"size": "medium"}
    assert PROFILES.from_form({}) == {"size": DEFAULT_SIZE}
    assert PROFILES.choose({"size": "large"}).size.memory == 16 * 1024**3


@pytest.mark.parametrize("options", [{"size": "huge"}, {"size": None}, {"size": ["small"]}, {"image": "x"}])
def test_unknown_options_are_refused_with_what_there_is(options):
    with pytest.raises(BadOptions, match=r"small, medium, large|Options: size"):
        PROFILES.choose(options)


@pytest.mark.parametrize(
    "name", ["../x", "..", "/etc/passwd", "a/b", "Ada.L@example.org", "x" * 300, "\x00", "a--b", "é"]
)
def test_no_name_leads_out_of_the_homes(name):
    found = slug(name)
    assert "/" not in found
    assert found not in ("", ".", "..")
    assert len(found) <= 64
    assert found != slug(name + "x")


def test_names_that_would_strip_to_the_same_differ():
    names = ["a.b", "a-b", "A-b", "a_b", "a b", "a--b", slug("a.b")]
    assert len({slug(name) for name in names}) == len(names)


def test_the_note_names_user_and_server():
    assert invoke_note("ada", "") == "llmos-invoke ada/"
    assert invoke_note("ada", "lab") == "llmos-invoke ada/lab"


@pytest.mark.parametrize(
    ("memory", "sizes", "default"),
    [
        (64, {"small": 1, "medium": 4, "large": 16}, "medium"),
        (8, {"small": 1, "medium": 4, "large": 8}, "medium"),
        (6, {"small": 1, "medium": 4, "large": 6}, "small"),
        (4, {"small": 1, "medium": 4}, "small"),
        (2, {"small": 1, "medium": 2}, "small"),
        (0.5, {"small": 0.5}, "small"),
    ],
)
def test_a_workstation_offers_what_it_has(memory, sizes, default):
    offered = workstation(int(memory * GIB))
    assert {size.name: size.memory / GIB for size in offered.sizes} == sizes
    assert offered.default_size == default


def test_a_workstation_promises_no_cores_and_says_why_the_last_server_ended():
    page = render_form(workstation(64 * GIB), notice="It used 2 of 1 GiB <of> memory.")
    assert "core" not in page
    assert re.findall(r">([^<>]+ GiB)<", page) == ["1 GiB", "4 GiB", "16 GiB"]
    assert "It used 2 of 1 GiB &lt;of&gt; memory." in page
    assert "4 cores · 16 GiB" in render_form(PROFILES)
    assert "alert" not in render_form(PROFILES)
