"""examples/visualize.py: its labels, the cells found, its figures, and its page in a browser."""

import html.parser
import json

import numpy as np
import pytest

import char_lm_model
import figures
import visualize

SOURCE = '''def f(a, b=[1]):
    """Two
    lines"""
    return a, r'x(y', f"{a}"  # so
'''


def marked(name):
    """The characters of SOURCE after which a feature is not 0."""
    return "".join(c for c, value in zip(SOURCE, visualize.features(SOURCE)[name], strict=True) if value)


def test_what_is_known_of_a_source():
    labels = visualize.features(SOURCE)
    lines = SOURCE.splitlines()
    assert labels["position"].tolist() == [k for line in lines for k in (*range(1, len(line) + 1), 0)]
    assert labels["indentation"][len(lines[0]) + 1 :][:6].tolist() == [1, 2, 3, 4, 4, 4]
    assert marked("brackets") == "(a, b=[1]" and labels["brackets"].max() == 2
    assert marked("docstring") == '"""Two\n    lines""'
    assert marked("string") == "'x(y" + '"{a}'
    assert marked("comment") == "# so"


def test_sources_are_whole_modules_and_the_same_each_time():
    modules = visualize.sources(300_000)
    assert modules == visualize.sources(300_000) and 300_000 <= sum(map(len, modules)) < 400_000
    for name, label in visualize.features(modules[-1]).items():
        assert len(label) == len(modules[-1]) and label.min() == 0 and label.any(), name
    assert visualize.features(modules[-1])["brackets"][-1] == 0


def test_correlations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    states, label = rng.normal(size=(50, 3)), rng.normal(size=50)
    states[:, 1] = 2
    r = visualize.correlations(states, label)
    np.testing.assert_allclose(r[[0, 2]], [np.corrcoef(states[:, k], label)[0, 1] for k in (0, 2)], rtol=1e-12)
    assert r[1] == 0


def test_the_record_is_one_reading():
    model = char_lm_model.CharModel(5, 3, 4, layers=2, rng=0)
    ids = np.random.default_rng(0).integers(5, size=23)
    whole, cut = visualize.recorded(model, ids), visualize.recorded(model, ids, window=10)
    _, (_, c), _, gates = model.lstm.forward(model.embed(ids), return_gates=True)
    for name, array in whole.items():
        assert array.tobytes() == cut[name].tobytes()
        expected = np.concatenate([layer[name] for layer in gates], axis=1)
        np.testing.assert_array_equal(array, np.tanh(expected) if name == "c" else expected)
    np.testing.assert_array_equal(whole["c"][-1], np.tanh(c).ravel())


def test_cells_are_found_and_confirmed(quick):
    numbers, folder = quick("visualize")
    assert numbers["bits"][0] < 2.8  # of 96 characters
    learnt = {name: numbers[name]["confirmed"][0] - numbers[name]["untrained"][0] for name in visualize.FEATURES}
    assert learnt["brackets"] > 0.1 and np.mean(list(learnt.values())) > 0.05, learnt
    assert numbers["position"]["confirmed"][0] > 0.5
    for gate in visualize.GATES:
        for layer in range(visualize.LAYERS):
            (shut,), (opened,) = numbers[f"{gate}{layer}"].values()
            assert 0 <= shut and 0 <= opened and shut + opened <= 1
    for name in ("gates", "cells", "correlations"):
        picture = figures.pyplot.imread(folder / f"visualize-{name}.png")
        assert picture.shape[1] == 1080 and 400 < picture.shape[0] < 1200 and picture.std() > 0.05
    data = page_data(folder / "visualize.html")
    assert data["layers"] == 2 and data["units"] == 64 and data["text"].count("\n") == visualize.PASSAGE
    assert sorted(labels_of(data)) == sorted(visualize.FEATURES.values())
    cells = [(one["layer"], one["unit"]) for one in data["found"]]
    assert len(set(cells)) == len(cells)


# The page


class Page(html.parser.HTMLParser):
    """Its tags and attributes, and the data in it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(text)


def page_data(path):
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text.replace(page.scripts[0], "")
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.tags)
    (policy,) = (a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert ("html", {"lang": "en"}) in page.tags
    return json.loads(page.scripts[0])


def values_of(data, quantity):
    """(layers, units, characters) of one of the quantities."""
    coded = data["quantities"][quantity]
    parts = np.array([data["codes"].index(code) for code in coded["values"]]) / (len(data["codes"]) - 1)
    values = coded["low"] + (coded["high"] - coded["low"]) * parts
    return values.reshape(data["layers"], data["units"], len(data["text"]))


def labels_of(data):
    """feature -> its correlations, layer and unit."""
    return {
        label["feature"]: (label["r"], label["confirmed"], cell["layer"], cell["unit"])
        for cell in data["found"]
        for label in cell["labels"]
    }


@pytest.fixture
def seen():
    """A result of of_seed for a page, of 2 layers of 3 units over a text with HTML's special characters.

    One cell is the best for two of the features.
    """
    text = "if a<b:\n  '</script>&amp;'\n"
    rng = np.random.default_rng(0)
    record = {name: rng.uniform(0, 1, (6, len(text))).astype(np.float32) for name in visualize.GATES}
    record["c"] = rng.uniform(-1, 1, (6, len(text))).astype(np.float32)
    r = {name: rng.uniform(-1, 1, (2, 6)) for name in visualize.FEATURES}
    r["string"], r["comment"] = r["brackets"] / 2, -r["brackets"]
    return {"bits": 2.0, "passage": text, "record": record, "trained": r}


def test_the_page_has_every_value(seen, tmp_path):
    path = tmp_path / "page.html"
    visualize.write_page(seen, path)
    data = page_data(path)
    assert data["text"] == seen["passage"] and (data["layers"], data["units"]) == (2, 3)
    for quantity, name in enumerate(("c", "i", "f", "o")):
        values = values_of(data, quantity).reshape(6, -1)
        np.testing.assert_allclose(values, seen["record"][name], rtol=0, atol=1.01 / 63)
    labels = labels_of(data)
    for feature, r in zip(visualize.FEATURES.values(), seen["trained"].values(), strict=True):
        found, confirmed, layer, unit = labels[feature]
        assert [found, confirmed] == r[:, 3 * layer + unit].tolist() and abs(found) == np.abs(r[0]).max()


def luminance(rgb):
    """The contrast of WCAG 2; r, g and b are from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_the_text_can_be_read_on_every_colour():
    ink = luminance(figures.matplotlib.colors.to_rgb("#1b1f24"))
    for colour in visualize.PALETTE:
        assert (luminance(colour) + 0.05) / (ink + 0.05) > 4.5


def test_the_page_in_a_browser(seen, tmp_path, browser):
    path = tmp_path / "page.html"
    visualize.write_page(seen, path)
    data = page_data(path)
    page = browser.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())

    def colours():
        spans = page.locator("#text span")
        return spans.evaluate_all("spans => spans.map((span) => getComputedStyle(span).backgroundColor)")

    def expected(quantity, layer, unit):
        minus, paper, plus = (np.array(rgb) for rgb in data["colours"])
        for value in values_of(data, quantity)[layer, unit]:
            yield paper + abs(value) * ((minus if value < 0 else plus) - paper)

    def assert_shown(quantity, layer, unit):
        found = [[int(part) for part in colour[4:-1].split(", ")] for colour in colours()]
        np.testing.assert_allclose(found, list(expected(quantity, layer, unit)), rtol=0, atol=0.51)
        name = data["quantities"][quantity]["name"]
        assert page.inner_text("#status").startswith(f"{name}, layer {layer}, unit {unit}")

    assert page.text_content("#text") == seen["passage"]
    buttons = page.locator("#found button")
    assert buttons.count() == len(data["found"]) < len(visualize.FEATURES)
    assert buttons.filter(has_text="depth of brackets").inner_text().count("r = ") == 3
    one, other = data["found"][0], next(o for o in data["found"] if o["unit"] != data["found"][0]["unit"])
    assert_shown(0, one["layer"], one["unit"])
    page.get_by_role("button", name=other["labels"][0]["feature"]).click()
    assert_shown(0, other["layer"], other["unit"])
    page.get_by_label("What").select_option("forget gate")
    assert_shown(2, other["layer"], other["unit"])
    page.get_by_label("Layer").select_option("1")
    page.get_by_label("Unit", exact=True).fill("2")
    assert_shown(2, 1, 2)
    page.get_by_label("Unit", exact=True).fill("7")  # there is no such unit
    page.get_by_role("slider").fill("0")
    assert_shown(2, 1, 0)

    page.locator("#text").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    value = values_of(data, 2)[1, 0, seen["passage"].index("\n") + 2]
    assert page.inner_text("#status") == f'forget gate, layer 1, unit 0: {value:.2f} after " " in line 2, column 2'
    page.locator("#text span").nth(0).hover()
    assert page.inner_text("#status").endswith('after "i" in line 1, column 1')
    assert complaints == [] and requests == [path.as_uri()]
