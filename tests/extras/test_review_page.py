"""The review page in a browser: keys, mouse, export, progress, and nothing asked of a network."""

import json
import time
from dataclasses import replace

import pytest
from browser import severe_errors

import cat_jax as cat
from cat_jax.annotation import read_prior
from cat_jax.annotation.review import ReviewItem, read_review_items, save_review
from cat_jax.data.records import Annotation, Record, Span
from experiments.benchmarking.browser import requested_elsewhere

PRIOR = read_prior("math")
TEXTS = {
    "plain": "Tom has 3 apples and 41 pens. He buys 2 apples. How many apples? Answer: ",
    "emoji": "Zoë 👩‍👩‍👧 has 3 🍎 and buys 2 🍎. How many? Answer: ",
    "combining": "Ame\u0301lie a 3 pommes et 2 poires. Combien? Answer: ",
    "chinese": "小明有3个苹果，又买了2个。一共几个？Answer: ",
    "arabic": "لدى سارة 3 تفاحات واشترت 2 أخرى. كم؟ Answer: ",
}
MARKUP = "<img src=x onerror=alert(1)></script><script>alert(2)</script> has 3 & 2. Answer: "


def record(prompt, *causes, target="5"):
    spans = tuple(Span(word, prompt.index(word)) for word in causes)
    notes = (Annotation(Span(target, len(prompt)), spans),) if spans else ()
    return Record(prompt, target, notes)


def place(text, words):
    start = text.index(words)
    return start, start + len(words)


ANSWER = (len(TEXTS["plain"]), len(TEXTS["plain"]) + 1)
EDGES = [(ANSWER, place(TEXTS["plain"], words)) for words in ("3 apples", "2 apples", "41")]
ITEMS = [
    ReviewItem(
        record(TEXTS["plain"], "3 apples", "2 apples"),
        frozenset(EDGES[:2]),
        {ANSWER: "answer"} | {cause: "quantity" for _, cause in EDGES},
        dict(zip(EDGES, (1.0, 2 / 3, 1 / 3), strict=True)),
        fields={"id": 7, "annotation": {"model": "m"}},
    ),
    *(record(text, "3", "2") for name, text in TEXTS.items() if name != "plain"),
    ReviewItem(record(MARKUP), reasons=("'4' does not stand in the text",), reply="<b>no</b>"),
]


@pytest.fixture
def page(driver, folder, request):
    """Open a page of the items that no other test shares progress with.

    Progress is kept by what a page holds, and Chromium's processes learn of a cleared storage
    late: so each test has content of its own.
    """
    file = folder / f"{request.node.name.split('[')[0]}.html"
    first = replace(ITEMS[0], fields={**ITEMS[0].fields, "test": request.node.name})
    save_review(file, [first, *ITEMS[1:]], PRIOR)
    open_page(driver, file)
    return driver


def open_page(driver, file):
    driver.get("about:blank")  # or the question whether to leave would stop it
    driver.get(f"file://{file}")


def text_of(driver, name):
    return driver.execute_script("return document.getElementById(arguments[0]).textContent", name)


def press(driver, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(driver)
    for key in keys:
        chain.send_keys(key)
    chain.perform()


def click(driver, name):
    driver.find_element("id", name).click()


def goto(driver, words):
    """Go on until the record is the one with these words."""
    for _ in ITEMS:
        if words in text_of(driver, "text"):
            return
        press(driver, "n")
    raise AssertionError(words)


SELECT = """
const [from, to] = arguments, box = document.getElementById("text");
const walk = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
const range = document.createRange();
let seen = 0;
for (let node = walk.nextNode(); node; node = walk.nextNode()) {
  const end = seen + node.length;
  if (seen <= from && from < end) range.setStart(node, from - seen);
  if (seen < to && to <= end) range.setEnd(node, to - seen);
  seen = end;
}
getSelection().removeAllRanges();
getSelection().addRange(range);
"""


def select(driver, words):
    """Select words as a mouse does: by UTF-16 units."""
    text = text_of(driver, "text")
    start = len(text[: text.index(words)].encode("utf-16-le")) // 2
    driver.execute_script(SELECT, start, start + len(words.encode("utf-16-le")) // 2)
    time.sleep(0.05)  # the event comes later


def export(driver, folder):
    file = folder / "reviewed.jsonl"
    file.unlink(missing_ok=True)
    click(driver, "export")
    for _ in range(100):
        if (file.exists() and file.read_text()) or "0 records" in text_of(driver, "message"):
            break
        time.sleep(0.05)
    time.sleep(0.1)
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return rows, file


def test_rejects_and_disagreement_come_first(page):
    assert MARKUP in text_of(page, "text")
    assert text_of(page, "reasons") == "'4' does not stand in the text"
    assert text_of(page, "reply") == "<b>no</b>"
    press(page, "n")
    assert TEXTS["plain"] in text_of(page, "text")
    assert "67 % agree" in text_of(page, "title")


def test_markup_in_texts_stays_text_and_nothing_is_asked_for(page):
    assert page.execute_script("return document.querySelectorAll('img, #text script').length") == 0
    click(page, "next")
    press(page, "a", "d", "u")
    assert requested_elsewhere(page) == []
    assert severe_errors(page) == []
    # The policy holds: a script that a text would bring in does not run.
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        "document.body.append(s)"
    )
    assert page.execute_script("return window.bad") is None
    page.get_log("browser")


def test_keys_decide_and_the_export_is_read_back(page, folder):
    press(page, "d")  # the rejected one
    press(page, "a", "a", "a", "a", "a")
    assert text_of(page, "progress") == "6 of 6 decided, 0 undecided"
    rows, file = export(page, folder)
    assert [row["review"]["decision"] for row in rows] == ["accepted"] * 5
    assert rows[0]["id"] == 7
    assert rows[0]["annotation"]["model"] == "m"
    read = cat.read_records(file)
    assert [x.input for x in read] == [item_record(x).input for x in ITEMS[:5]]
    assert read == [item_record(x) for x in ITEMS[:5]]


def item_record(item):
    return item.record if isinstance(item, ReviewItem) else item


def test_a_broken_annotation_is_not_accepted(page, folder):
    press(page, "a")
    assert text_of(page, "message") == "Not accepted: no effect is the answer."
    assert text_of(page, "progress").startswith("0 of 6")
    rows, _ = export(page, folder)
    assert rows == []
    # It is mended with the mouse and keys alone.
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    select(page, "5")
    assert "is an effect" in text_of(page, "selected")
    page.execute_script(SELECT, len(MARKUP), len(MARKUP) + 1)
    time.sleep(0.05)
    ActionChains(page).key_down(Keys.SHIFT).send_keys("1").key_up(Keys.SHIFT).perform()
    press(page, "a")
    assert "has no causes" in text_of(page, "message")
    select(page, "3")
    press(page, "1", "a")
    rows, file = export(page, folder)
    assert rows[0]["review"]["decision"] == "edited"
    (read,) = cat.read_records(file)
    assert read.important == (Annotation(Span("5", len(MARKUP)), (Span("3", MARKUP.index("3")),)),)
    assert "reasons" not in rows[0]


@pytest.mark.parametrize(
    ("name", "words", "becomes"),
    [
        ("plain", "pen", "pens"),  # whole words
        ("emoji", "🍎 and", "🍎 and"),
        ("emoji", "👩‍👩‍👧", "👩‍👩‍👧"),
        ("combining", "Ame", "Ame\u0301lie"),
        ("chinese", "苹果", "苹果"),
        ("arabic", "تفاحات", "تفاحات"),
        ("arabic", " 2 ", "2"),
    ],
)
def test_selected_words_keep_their_offsets(page, folder, name, words, becomes):
    goto(page, TEXTS[name])
    select(page, words)
    press(page, "2", "a")
    rows, file = export(page, folder)
    (read,) = cat.read_records(file)
    added = Span(becomes, TEXTS[name].index(becomes))
    assert added in read.important[0].causes
    starts = [cause.start for cause in read.important[0].causes]
    assert starts == sorted(starts)
    assert {x["kind"] for x in rows[0]["annotation"]["kinds"]} >= {"answer"}


def test_disputed_causes_are_taken_and_causes_removed_by_key(page, folder):
    from selenium.webdriver.common.keys import Keys

    goto(page, TEXTS["plain"])
    page.find_element("css selector", ".chip.disputed button:last-child").click()
    press(page, "e", Keys.DELETE)
    press(page, "a")
    rows, _ = export(page, folder)
    assert [x["text"] for x in rows[0]["important"][0]["causes"]] == ["41", "2 apples"]
    assert rows[0]["review"]["decision"] == "edited"
    press(page, "p", "r", "a")
    rows, _ = export(page, folder)
    assert [x["text"] for x in rows[0]["important"][0]["causes"]] == ["3 apples", "2 apples"]
    assert rows[0]["review"]["decision"] == "accepted"


def test_the_kind_of_a_cause_is_changed_by_key(page, folder):
    goto(page, TEXTS["plain"])
    press(page, "e", "k", "a")
    rows, _ = export(page, folder)
    kinds = {x["start"]: x["kind"] for x in rows[0]["annotation"]["kinds"]}
    assert kinds[TEXTS["plain"].index("3")] == "operation"


def test_progress_outlives_a_reload_and_goes_elsewhere(page, driver, folder):
    press(page, "d", "a")
    _, file = export(page, folder)
    kept = folder / "kept.jsonl"
    kept.write_text(file.read_text() + '{"input": "other", "target": "1"}\n')
    page.refresh()
    assert text_of(page, "progress").startswith("2 of 6 decided")
    page.execute_script("localStorage.clear()")
    page.refresh()
    assert text_of(page, "progress").startswith("0 of 6 decided")
    page.find_element("id", "import").send_keys(str(kept))
    for _ in range(40):
        if "taken over" in text_of(page, "message"):
            break
        time.sleep(0.05)
    assert text_of(page, "message") == (
        "1 decisions are taken over; 1 lines are of no record of this page."
    )
    assert text_of(page, "progress").startswith("1 of 6 decided")


def test_a_browser_that_keeps_nothing_is_told(page):
    page.execute_script("Storage.prototype.setItem = () => { throw new Error('full') }")
    press(page, "d")
    assert "Progress cannot be kept" in page.execute_script(
        "decide('dropped'); save(items[0]); return document.getElementById('message').textContent"
    )


def test_what_annotation_writes_is_what_review_reads(page, driver, folder, tmp_path):
    out = tmp_path / "out.jsonl"
    lines = [
        {"input": "a 3 b. Answer: ", "target": "4", "important": [{"4": ["3"]}]},
        {"input": "a 3 3 b. Answer: ", "target": "3", "important": [{"3": ["3"]}]},
    ]
    out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_review(tmp_path / "r.html", read_review_items(out), PRIOR)
    open_page(driver, tmp_path / "r.html")
    press(driver, "a", "a")
    _, file = export(driver, folder)
    read = cat.read_records(file)
    assert [[c.start for c in x.important[0].causes] for x in read] == [[2], [2, 4]]


def test_five_thousand_records_open_within_three_seconds(driver, tmp_path):
    text = "word " * 60
    many = [record(f"{n} {text}{TEXTS['plain']}", "3 apples", "2 apples") for n in range(5000)]
    save_review(tmp_path / "many.html", many, PRIOR)
    start = time.monotonic()
    open_page(driver, tmp_path / "many.html")
    assert text_of(driver, "progress") == "0 of 5000 decided, 5000 undecided"
    assert time.monotonic() - start < 3
    start = time.monotonic()
    for _ in range(20):
        press(driver, "a")
    assert time.monotonic() - start < 5
    assert text_of(driver, "progress").startswith("20 of 5000")
    driver.execute_script("document.getElementById('list').scrollTop = 1e9")
    time.sleep(0.1)
    assert "5000 ·" in text_of(driver, "rows")
    assert driver.execute_script("return document.querySelectorAll('.row').length") < 60
