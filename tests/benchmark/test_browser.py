"""The page in a browser: it works, it asks for nothing, and it can be read in every way."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.benchmark.made_whole import whole

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="there is no chromium with its chromedriver here"
)
OPTIONS = (
    *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
)
CONTRAST = Path(__file__).with_name("contrast.js").read_text("utf-8")
VISIBLE = "return document.body.innerText"
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(option)
    options.binary_location = BROWSER or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With both paths given, selenium looks for nothing and fetches nothing.
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    whole().save(path)
    return path.as_uri()


@pytest.fixture
def opened(browser: WebDriver, address: str) -> WebDriver:
    size(browser, 1300)
    colours(browser, "light")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what was there is of another test
    browser.get(address)
    return browser


def size(browser: WebDriver, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def colours(browser: WebDriver, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def column(browser: WebDriver, at: int) -> list[str]:
    """The cells of a column of the first table that can be sorted."""
    first = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    rows = first.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [row.find_elements(By.CSS_SELECTOR, "th, td")[at].text for row in rows]


def head(browser: WebDriver, text: str) -> tuple[int, object]:
    heads = browser.find_element(By.CSS_SELECTOR, "table.sortable").find_elements(
        By.CSS_SELECTOR, "thead th"
    )
    return next((at, found) for at, found in enumerate(heads) if found.text.startswith(text))


def test_no_error_and_no_request_but_for_the_file(opened: WebDriver, address: str) -> None:
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("WillBeSent")]
    assert address in asked
    assert {url for url in asked if not url.startswith("data:")} == {address}
    assert opened.get_log("browser") == []
    assert not opened.find_elements(By.TAG_NAME, "img"), "a hostile name made an element"
    assert "onerror=alert(1)" in opened.execute_script(VISIBLE)


def test_sorting_by_latency_reorders(opened: WebDriver) -> None:
    at, found = head(opened, "Latency")
    before = column(opened, at)
    seconds = {text: float(text.split()[0]) for text in before if text[0].isdigit()}
    for order in ("ascending", "descending"):
        found.find_element(By.TAG_NAME, "button").click()
        assert found.get_attribute("aria-sort") == order
        now = column(opened, at)
        times = [seconds[text] for text in now if text in seconds]
        assert times == sorted(times, reverse=order == "descending") and len(times) == 12
        assert now[-1] == "not measured" and sorted(now) == sorted(before)
        assert now != before


def test_the_keyboard_reaches_the_buttons(opened: WebDriver) -> None:
    at, found = head(opened, "Variant")
    button = found.find_element(By.TAG_NAME, "button")
    for _ in range(40):
        opened.switch_to.active_element.send_keys(Keys.TAB)
        if opened.switch_to.active_element == button:
            break
    assert opened.switch_to.active_element == button
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert opened.execute_script(outline) != "none", "where one is must show"
    button.send_keys(Keys.ENTER)
    assert found.get_attribute("aria-sort") == "ascending"
    names = [name.split()[0] for name in column(opened, at)]
    assert names[1:] == sorted(names[1:], key=str.lower)


def test_light_and_dark(opened: WebDriver) -> None:
    light = opened.execute_script(BACKGROUND)
    button = opened.find_element(By.ID, "theme")
    assert button.text == "Dark"
    button.click()
    dark = opened.execute_script(BACKGROUND)
    assert dark != light and button.text == "Light"
    button.click()
    assert opened.execute_script(BACKGROUND) == light
    colours(opened, "dark")
    opened.refresh()
    assert opened.execute_script(BACKGROUND) == dark


@pytest.mark.parametrize("width", [375, 768, 1300])
def test_the_page_does_not_scroll_sideways(opened: WebDriver, width: int) -> None:
    size(opened, width)
    opened.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_sheet_of_paper_is_wide_enough(opened: WebDriver) -> None:
    size(opened, 720)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert opened.execute_script("return document.documentElement.scrollWidth") <= 720
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_it_can_be_read_without_its_script(opened: WebDriver) -> None:
    with_script = opened.execute_script(VISIBLE)
    opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        opened.refresh()
        assert not opened.find_elements(By.CSS_SELECTOR, ":root.script"), "the script did not run"
        without = opened.execute_script(VISIBLE)
        assert without.splitlines() == [
            line for line in with_script.splitlines() if line.strip() != "Dark"
        ]
        blocks = opened.find_elements(By.CSS_SELECTOR, "details.block")
        blocks[1].find_element(By.TAG_NAME, "summary").click()
        assert "Too large to be drawn" in opened.execute_script(VISIBLE)
    finally:
        opened.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(opened: WebDriver, scheme: str) -> None:
    """By 4.5 to 1, as WCAG asks: badges, table cells, headings, charts."""
    colours(opened, scheme)
    opened.refresh()
    worst = opened.execute_script(CONTRAST)
    assert worst["ratio"] >= 4.5, worst


def test_a_picture_of_it_is_not_blank(opened: WebDriver, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    assert opened.save_screenshot(str(path))
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (1300, 900)
    assert len(set(zlib.decompress(_image_data(content)))) > 50


def _image_data(png: bytes) -> bytes:
    """What the chunks IDAT of a PNG hold."""
    at, found = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        found += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += length + 12
    return found
