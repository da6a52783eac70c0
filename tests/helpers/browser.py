"""A real browser that looks at a page and is asked what it sees."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

DRAWN = """const drawn = async () => {
  const done = () => [...document.querySelectorAll(".chart")].every((chart) => chart.querySelector("svg path[d]"));
  for (let turn = 0; turn < 200 && !done(); turn++) await new Promise((go) => setTimeout(go, 50));
};"""


def look(file, script, folder, width=1200, dark=False, before=""):
    """What `script`, the body of an asynchronous function, returns once all charts of a page are drawn.

    folder: an empty one, for the browser. before: a script that the page is given.
    """
    asked = f"""<script>{before}</script><script>{DRAWN}
    const ask = async () => {{ {script} }};
    drawn().then(ask).then((told) => {{ document.body.dataset.told = JSON.stringify(told); }},
      (error) => {{ document.body.dataset.told = JSON.stringify(String(error)); }});
    </script></body>"""
    copy = folder / "page.html"
    copy.write_text(asked.join(file.read_text().rsplit("</body>", 1)))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000"]
    options += [f"--window-size={width},900", f"--user-data-dir={folder / 'profile'}"]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [CHROMIUM, *options, "--dump-dom", copy.as_uri()]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout
    return json.loads(unescape(re.search(r'data-told="([^"]*)"', dumped).group(1)))
