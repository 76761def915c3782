"""The page that steps through a trace."""

import base64
import json
import re

import numpy as np
import pytest

import nnlite as nn
from nnlite.debug.steps import formulas

from ..browser import WINDOWS, browser, opened


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


def small_trace():
    """A network whose ReLU gets (3, -8): the gradient of the second unit ends there."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2, rng=0))
    model[0].weight.data[...] = [[1, 2], [-3, -5]]
    model[0].bias.data[...] = 0
    x = np.array([[1, 1], [2, -2], [0, 3]], np.float32)
    return nn.trace(model, x, loss=nn.CrossEntropy(), target=np.array([0, 1, 1]))


def data_of(document):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', str(document))
    return json.loads(found[1])


def numbers(array):
    data = np.frombuffer(base64.b64decode(array["base64"]), "<f4")
    return data.reshape(array["shape"])


@pytest.mark.parametrize("window", WINDOWS)
def test_arrow_keys_go_forward_and_back(chromium, tmp_path, window):
    small_trace().to_html(tmp_path / "steps.html")
    with opened(chromium, tmp_path / "steps.html", window) as page:
        titles = []
        for _ in range(10):
            titles.append(page.locator("#step").text_content())
            page.keyboard.press("ArrowRight")
        assert titles == [
            "Forward: input", "Forward: 0 Linear(2, 2)", "Forward: 1 ReLU()",
            "Forward: 2 Linear(2, 2)", "Forward: loss CrossEntropy()",
            "Backward: loss CrossEntropy()", "Backward: 2 Linear(2, 2)", "Backward: 1 ReLU()",
            "Backward: 0 Linear(2, 2)", "Backward: input",
        ]  # fmt: skip
        page.keyboard.press("ArrowLeft")
        assert page.locator("#step").text_content() == "Backward: 0 Linear(2, 2)"
        page.locator("#slider").fill("2")
        assert page.locator("#step").text_content() == "Forward: 1 ReLU()"
        assert page.evaluate("document.documentElement.scrollWidth") <= WINDOWS[window][0]


def test_the_relu_says_what_it_stops(chromium, tmp_path):
    small_trace().to_html(tmp_path / "steps.html")
    with opened(chromium, tmp_path / "steps.html") as page:
        page.locator("#slider").fill("2")
        assert page.locator("#facts").text_content() == "Here 1 of 2 numbers become 0."
        page.locator("#slider").fill("7")
        assert "1 of 2 gradients that arrive is stopped" in page.locator("#facts").text_content()
        assert page.locator("#formula").text_content() == "dL/dx = dL/dy · [y > 0]"
        rows = page.locator(".numbers").first.locator("tr")
        assert rows.locator("th").all_inner_texts() == ["x", "y", "dL/dy", "dL/dx"]
        assert rows.nth(0).locator("td").all_inner_texts() == ["3", "-8"]
        assert rows.nth(1).locator("td").all_inner_texts() == ["3", "0"]
        assert rows.nth(3).locator("td").nth(1).get_attribute("class") == "stopped"
        assert page.locator(".stopped").count() == 1
        cells = page.locator(".numbers").nth(2).locator("td")
        assert cells.nth(1).inner_text().split() == ["0", "≈", "0"]
        page.locator("#sample").select_option("1")  # which gives (-2, 4)
        assert cells.first.inner_text().split() == ["0", "≈", "0"]


def test_finite_differences_stand_beside_the_derivatives():
    trace = small_trace()
    data = data_of(trace.to_html())
    compared = set()
    for entry in data["entries"]:
        (array,) = entry["arrays"]
        if array["grad"] is not None:
            grad = numbers(array["grad"]).reshape(-1)
            assert len(array["numeric"]) == grad.size
            for index, difference in array["numeric"]:
                assert difference == pytest.approx(grad[index], rel=1e-4, abs=1e-6)
            compared.add(entry["name"])
    assert compared == {"input", "0", "0.weight", "0.bias", "1", "2", "2.weight", "2.bias"}


def test_dropout_and_batch_norm_repeat_the_same_run():
    nn.seed(3)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    trace = nn.trace(model, x, loss=nn.MeanSquaredError(), target=np.ones((5, 2), np.float32))
    nn.Dropout(0.5)(np.ones(10))  # moves the package's generator on
    state = nn.random.generator().bit_generator.state
    data = data_of(trace.to_html())
    assert nn.random.generator().bit_generator.state == state
    for entry in data["entries"]:
        (array,) = entry["arrays"]
        if array["grad"] is not None:
            grad = numbers(array["grad"]).reshape(-1)
            assert array["numeric"]
            for index, difference in array["numeric"]:
                assert difference == pytest.approx(grad[index], rel=1e-3, abs=1e-5)


def test_a_graph_has_edges_and_scalars(chromium, tmp_path):
    product = nn.Graph({"s": (nn.Add(), "x", "y"), "p": (nn.Multiply(), "s", "y")}, ("x", "y"))
    trace = nn.trace(product, 2.0, 3.0)
    assert trace["p"].sources == ("s", "y")
    trace.to_html(tmp_path / "graph.html")
    with opened(chromium, tmp_path / "graph.html") as page:
        assert page.locator("#graph path").count() == 4
        page.locator("#slider").fill("7")  # the last: dp/dx = y
        assert page.locator("td").first.inner_text().split() == ["3", "≈", "3"]


def test_problems_are_marked(chromium, tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[0].weight.data[...] = 0
    model[0].bias.data[...] = -1
    nn.trace(model, np.ones((1, 2), np.float32)).to_html(tmp_path / "dead.html")
    with opened(chromium, tmp_path / "dead.html") as page:
        assert page.locator("#graph circle.mark").count() == 1
        page.locator("#slider").fill("2")
        assert "passes back all zeros" in page.locator("#marks").text_content()


def test_nan_is_shown(chromium, tmp_path):
    model = nn.Sequential(nn.Log(), nn.Linear(2, 1))
    nn.trace(model, np.array([[1, -1]], np.float32)).to_html(tmp_path / "nan.html")
    with opened(chromium, tmp_path / "nan.html") as page:
        page.locator("#slider").fill("1")
        assert "NaN" in page.locator(".numbers").first.inner_text()
        assert "1 NaN" in page.locator("#marks").text_content()


def test_a_large_trace_is_cut_and_says_so(chromium, tmp_path):
    model = nn.Sequential(nn.Linear(300, 400))
    x = np.ones((100, 300), np.float32)
    document = nn.trace(model, x).to_html(tmp_path / "large.html")
    assert len(str(document)) < 5_000_000
    with opened(chromium, tmp_path / "large.html") as page:
        assert "The first 16 of 100 samples are shown." in page.locator("#notes").text_content()
        page.locator("#slider").fill("1")
        cards = page.locator("#arrays .card")
        assert "Cut to (" in cards.nth(1).text_content()  # 0.weight
        assert "(400, 300)" in cards.nth(1).text_content()


def test_a_trace_of_many_megabytes_is_a_small_page(chromium, tmp_path):
    x = np.random.default_rng(0).normal(size=(1000, 4000)).astype(np.float32)
    trace = nn.trace(nn.Sequential(nn.ReLU(), nn.Tanh(), nn.ReLU()), x)
    assert sum(entry.value.nbytes + entry.grad.nbytes for entry in trace.values()) > 1e8
    document = trace.to_html(tmp_path / "huge.html")
    assert len(str(document)) < 2_000_000
    with opened(chromium, tmp_path / "huge.html") as page:
        assert re.search(r"The first \d+ of 1000 samples", page.locator("#notes").text_content())
        page.locator("#slider").fill("1")
        assert "50 % zeros" in page.locator("#arrays .card").nth(1).text_content()


def test_names_never_become_code(chromium, tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    graph = nn.Graph({evil: (nn.ReLU(), "x")})
    nn.trace(graph, np.ones((1, 2))).to_html(tmp_path / "evil.html", title=evil)
    with opened(chromium, tmp_path / "evil.html") as page:
        page.keyboard.press("ArrowRight")
        assert page.locator("#step").text_content() == f"Forward: {evil} ReLU()"
        assert page.locator("img").count() == 0


def test_a_notebook_shows_it_in_a_frame():
    shown = small_trace().to_html()._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "<script>" not in shown


def test_elsewhere_it_says_how_to_see_it():
    shown = repr(small_trace().to_html())
    assert re.fullmatch(r"<HTML page of [\d,]+ characters; save it with .save\(path\)>", shown)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        small_trace().to_html(tmp_path / "nowhere" / "steps.html")
    assert list(tmp_path.iterdir()) == []


def test_formulas_come_from_the_docstring():
    assert formulas(nn.ReLU) == (["y = max(x, 0)"], ["dL/dx = dL/dy · [y > 0]"])
    forward, backward = formulas(nn.Linear)
    assert forward[0] == "y = x Wᵀ + b"
    assert any(line.startswith("dL/dx") for line in backward)
    assert any(line.startswith("dL/dW") for line in backward)

    class Plain(nn.Layer):
        pass

    assert formulas(Plain) == ([], [])
