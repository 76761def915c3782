"""A Chromium for tests of web pages, which are skipped if it is not installed."""

import shutil
from contextlib import contextmanager

import pytest

WINDOWS = {"desktop": (1280, 900), "phone": (390, 844)}


@contextmanager
def browser():
    """Context with Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened(chromium, path, window="desktop", **options):
    """Context with the page of a file, in which no script fails and nothing is blocked."""
    width, height = WINDOWS[window]
    context = chromium.new_context(
        viewport={"width": width, "height": height}, has_touch=window == "phone",
        is_mobile=window == "phone", **options,
    )  # fmt: skip
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert not faults


def until(page, expression):
    """Wait until an expression is true on the page, whose policy forbids that it asks itself."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")
