"""The page about finished runs in a browser, on a phone's and on a desktop's width."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from matplotlib import image
from small_runs import HANGS
from written_runs import COUNTS, write_run

from experiments.report import __main__ as report
from jaxlt.recipes import CCSAM, SGD, Optimizer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE, DESKTOP = 390, 1200

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

# A window has at least 500 pixels in Chromium, a frame in it as few as one likes.
VIEWER = """<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script>
const page = PAGE, seen = {};
function look(width) {
  const frame = document.createElement("iframe");
  frame.width = width;
  frame.height = 800;
  frame.onload = async () => {
    const view = frame.contentWindow, there = frame.contentDocument;
    const images = [...there.images];
    await Promise.allSettled(images.map(one => one.decode()));
    for (const folded of there.querySelectorAll("details")) folded.open = true;
    const table = there.querySelector("table.sortable"), orders = [];
    const read = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent);
    orders.push(read());
    for (const column of [1, 1, 0]) {
      table.tHead.rows[0].cells[column].querySelector("button").click();
      const told = [...table.tHead.rows[0].cells].map(cell => cell.getAttribute("aria-sort"));
      orders.push([read(), told]);
    }
    const root = there.documentElement;
    seen[width] = {
      width: view.innerWidth,
      overflow: Math.max(root.scrollWidth, there.body.scrollWidth) - root.clientWidth,
      images: images.length,
      undecoded: images.filter(one => !one.naturalWidth).map(one => one.alt),
      orders,
      broad: images.filter(one => one.naturalWidth > 2 * one.naturalHeight).length,
      columns: new Set(images.map(one => one.getBoundingClientRect().left)).size,
      narrowest: Math.min(...images.map(one => one.getBoundingClientRect().width)),
      named: Math.max(...[...there.querySelectorAll("tbody th")].map(
        one => one.getBoundingClientRect().width)),
      tables: there.querySelectorAll("table").length,
      requests: view.performance.getEntriesByType("resource").map(one => one.name)
        .filter(name => !name.startsWith("data:")),
    };
    document.title = JSON.stringify(seen);
  };
  frame.srcdoc = page;
  document.body.append(frame);
}
WIDTHS.forEach(look);
</script>"""


def look(page, place):
    """Opens a page at both widths; returns what was seen there and the browser's console."""
    # Within a script nothing may read as its end.
    text = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    viewer = VIEWER.replace("WIDTHS", json.dumps([PHONE, DESKTOP])).replace("PAGE", text)
    (place / "viewer.html").write_text(viewer)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    flags += ["--virtual-time-budget=20000", f"--user-data-dir={place / 'profile'}", "--dump-dom"]
    finished = subprocess.run(
        [str(CHROMIUM), *flags, f"file://{place / 'viewer.html'}"],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
    )
    title = re.search("<title>(.*?)</title>", finished.stdout)
    assert title, finished.stderr
    console = [line for line in finished.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(title[1])), console


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Long names, many fields that differ, every kind of section."""
    place = tmp_path_factory.mktemp("runs")
    names = ["a" * 80, "two words", "<b>", "café", "last"]
    for method, radii in ((SGD(), [0.0]), (CCSAM(), [0.1] * 5)):
        path = place / f"a method with a rather long name, {method.label}" / "seed0"
        optimizer = Optimizer(lr=len(radii) / 10)
        write_run(path, method=method, radii=radii, names=names, optimizer=optimizer)
    (place / "flatness").mkdir()
    image.imsave(place / "flatness" / "wide.png", np.zeros((30, 1600)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["report", str(place)])
        report.main()
    return (place / "report.html").read_text()


def test_reads_well_on_a_phone_and_on_a_desktop(page, tmp_path):
    seen, console = look(page, tmp_path)
    assert console == []
    for width, columns, broad in ((PHONE, 1, 1), (DESKTOP, 4, 4)):
        there = seen[str(width)]
        assert there["width"] == width
        assert there["overflow"] == 0
        assert there["images"] == page.count("<img ") == 21
        assert there["undecoded"] == []
        assert there["requests"] == []
        # Where lines of one picture, of two and of three begin, and the second and third in them.
        assert there["columns"] == columns
        # Pictures that stand alone use a desktop's width: classes, reliability and norm.
        assert there["broad"] == broad
        first, *sorts = there["orders"]
        sizes = [str(count) for count in COUNTS]
        assert first == sizes
        assert sorts == [
            [sizes, [None, "descending", None, None]],
            [sizes[::-1], [None, "ascending", None, None]],
            [sizes, ["ascending", None, None, None]],
        ]
        assert there["narrowest"] > 340
        # What stands beside a long name is seen.
        assert there["named"] < 0.6 * width
        assert there["tables"] == 6


def test_would_see_what_is_wrong(page, tmp_path):
    wrong = (
        '<div style="width:2000px">wide</div><img alt="broken" src="data:image/png;base64,AAAA">'
        '<img alt="elsewhere" src="http://127.0.0.1:9/nowhere.png"><script>console.error("oh")</script></main>'
    )
    seen, console = look(page.replace("</main>", wrong), tmp_path)
    for width in (PHONE, DESKTOP):
        assert seen[str(width)]["overflow"] > 0
        assert seen[str(width)]["undecoded"] == ["broken", "elsewhere"]
        assert len(seen[str(width)]["requests"]) == 1
    assert any("oh" in line for line in console)
