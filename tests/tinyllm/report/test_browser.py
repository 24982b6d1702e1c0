"""page, in a real browser: it fits the width of a phone and of a desktop, and fetches nothing.

What could go wrong: a reader has to scroll sideways, or sees an incomplete page when offline. The tests need
chromium and chromedriver (Debian: apt-get install chromium chromium-driver).
"""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import requests

from tinyllm.report import page

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs chromium and chromedriver"
)
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Two functions: command(name, **parameters) of the DevTools protocol, and open_page(path)."""
    log = tmp_path_factory.mktemp("browser") / "log"
    with open(log, "wb") as file:
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=file, stderr=file)
    try:
        while not (port := re.search(r"successfully on port (\d+)", log.read_text())):
            assert driver.poll() is None, log.read_text()
            time.sleep(0.1)
        base = f"http://127.0.0.1:{port[1]}/session"
        options = {"args": ARGUMENTS}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        session = requests.post(base, json={"capabilities": {"alwaysMatch": wanted}}, timeout=120).json()
        base += f"/{session['value']['sessionId']}"

        def command(name, **parameters):
            job = {"cmd": name, "params": parameters}
            return requests.post(f"{base}/goog/cdp/execute", json=job, timeout=60).json()["value"]

        def open_page(path):
            """Open a page -> the addresses of everything that the browser requested."""
            requests.post(f"{base}/url", json={"url": path.resolve().as_uri()}, timeout=60)
            entries = requests.post(f"{base}/se/log", json={"type": "performance"}, timeout=60).json()[
                "value"
            ]
            events = [json.loads(entry["message"])["message"] for entry in entries]
            sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
            return [request["request"]["url"] for request in sent]

        yield command, open_page
        command("Browser.close")
    finally:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_no_wider_than_the_screen_and_fetches_nothing(browser, five_stages, width, scheme):
    command, open_page = browser
    path = page.write("demo")
    command("Emulation.setScriptExecutionDisabled", value=True)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    command("Emulation.setEmulatedMedia", features=features)
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    command("Emulation.setDeviceMetricsOverride", **metrics)
    addresses = [address for address in open_page(path) if not address.startswith("data:")]
    assert addresses == [path.resolve().as_uri()]
    size = command("Page.getLayoutMetrics")["cssContentSize"]
    assert size["width"] == width and size["height"] > 3000


def test_the_check_notices_if_a_page_is_too_wide_and_if_a_page_fetches_an_image(browser, tmp_path):
    command, open_page = browser
    wide = Path(tmp_path / "wide.html")
    wide.write_text("<!doctype html><body><img src=missing.png><div style='width:500px'>wide</div>")
    metrics = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    command("Emulation.setDeviceMetricsOverride", **metrics)
    assert len(open_page(wide)) == 2
    assert command("Page.getLayoutMetrics")["cssContentSize"]["width"] > 390
