"use strict";
// Offsets are of code points: texts are arrays of them. A place is "start-stop"; the causes of an
// item are kept by effect, in `notes`.
const data = JSON.parse(document.getElementById("data").textContent);
const KEY = `cat-review:${data.digest}:`;
const ROW = 44;
const $ = (id) => document.getElementById(id);
const kindNames = data.kinds.map(([kind]) => kind);
const isEdge = (cause, effect) => data.edges.some(([a, b]) => a === cause && b === effect);
const effectKinds = kindNames.filter((kind) => data.edges.some(([, b]) => b === kind));

function makeItem(given, index) {
  const item = {
    ...given, index, decision: null, chars: Array.from(given.input + given.target),
    start: Array.from(given.input).length,
    kinds: new Map(given.kinds.map(([a, b, kind]) => [`${a}-${b}`, kind])),
    shares: new Map(given.shares.map(([a, b, c, d, share]) => [`${a}-${b} ${c}-${d}`, share])),
    notes: new Map(),
  };
  for (const [a, b, c, d] of given.edges) addCause(item, `${a}-${b}`, `${c}-${d}`);
  item.original = snapshot(item);
  item.active = firstEffect(item);
  return item;
}

function addCause(item, effect, cause) {
  if (!item.notes.has(effect)) item.notes.set(effect, new Set());
  item.notes.get(effect).add(cause);
}

const ends = (place) => place.split("-").map(Number);
const byPlace = (a, b) => ends(a)[0] - ends(b)[0] || ends(a)[1] - ends(b)[1];
const words = (item, place) => item.chars.slice(...ends(place)).join("");

function firstEffect(item) {
  const effects = [...item.notes.keys()].sort(byPlace);
  return effects.find((place) => ends(place)[1] > item.start) ?? effects[0] ?? null;
}

function snapshot(item) {
  const notes = [...item.notes].map(([effect, causes]) => [effect, [...causes].sort(byPlace)]);
  notes.sort(([a], [b]) => byPlace(a, b));
  const used = new Set(notes.flatMap(([effect, causes]) => [effect, ...causes]));
  const kinds = [...used].sort(byPlace).map((place) => [place, item.kinds.get(place)]);
  return JSON.stringify({ notes, kinds });
}

function restore(item, text) {
  const { notes, kinds } = JSON.parse(text);
  item.notes = new Map(notes.map(([effect, causes]) => [effect, new Set(causes)]));
  for (const [place, kind] of kinds) item.kinds.set(place, kind);
  item.active = firstEffect(item);
}

// What cat_jax.annotation.checks refuses.
function errors(item) {
  const found = [];
  for (const [effect, causes] of item.notes) {
    const kind = item.kinds.get(effect);
    if (!causes.size) found.push(`the effect "${words(item, effect)}" has no causes`);
    for (const cause of causes) {
      const pair = `("${words(item, cause)}" of "${words(item, effect)}")`;
      if (!isEdge(item.kinds.get(cause), kind))
        found.push(`${item.kinds.get(cause)} -> ${kind} is no edge of the graph ${pair}`);
      if (ends(cause)[1] > ends(effect)[0])
        found.push(`the cause does not stand before its effect ${pair}`);
    }
  }
  const answers = [...item.notes.keys()].filter(
    (place) => item.kinds.get(place) === data.answer && ends(place)[1] > item.start);
  if (!answers.length) found.push(`no effect is the ${data.answer}`);
  return found;
}

// Progress

const items = data.items.map(makeItem);
const order = items.map((item) => item.index).sort((a, b) =>
  Boolean(items[b].reasons.length) - Boolean(items[a].reasons.length)
  || items[a].agreement - items[b].agreement || a - b);
let place = 0;
let storageFails = false;
const current = () => items[order[place]];

function load() {
  try {
    for (const item of items) {
      const kept = localStorage.getItem(KEY + item.index);
      if (kept === null) continue;
      const { state, decision } = JSON.parse(kept);
      restore(item, state);
      item.decision = decision;
    }
  } catch (error) { warnOfStorage(error); }
}

function save(item) {
  try {
    const kept = { state: snapshot(item), decision: item.decision };
    localStorage.setItem(KEY + item.index, JSON.stringify(kept));
  } catch (error) { warnOfStorage(error); }
}

function warnOfStorage(error) {
  storageFails = true;
  say(`Progress cannot be kept in this browser (${error.name}); export before you close the page.`);
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

// Decisions

function decide(decision) {
  const item = current();
  if (decision === "accepted") {
    const wrong = errors(item);
    if (wrong.length) return say(`Not accepted: ${wrong.join("; ")}.`);
    if (snapshot(item) !== item.original) decision = "edited";
  }
  item.decision = decision;
  save(item);
  say("");
  if (decision) go(place + 1); else show();
}

function change(edit) {
  const item = current();
  edit(item);
  if (item.decision !== null) item.decision = null;
  save(item);
  show();
}

function go(to) {
  place = Math.max(0, Math.min(order.length - 1, to));
  say("");
  getSelection().removeAllRanges();
  show();
}

// Export and import

function exported(item) {
  const span = (at) => ({ text: words(item, at), start: ends(at)[0] });
  const effects = [...item.notes.keys()].sort(byPlace);
  const important = effects.map((effect) => ({
    effect: span(effect), causes: [...item.notes.get(effect)].sort(byPlace).map(span),
  }));
  const used = new Set([...item.notes].flatMap(([effect, causes]) => [effect, ...causes]));
  const kinds = [...used].sort(byPlace).map((at) =>
    ({ start: ends(at)[0], stop: ends(at)[1], kind: item.kinds.get(at) }));
  return {
    input: item.input, target: item.target, important, ...item.fields,
    annotation: { ...item.fields.annotation, kinds },
    review: { decision: item.decision ?? "undecided" },
  };
}

function exportedLines(all) {
  return items
    .filter((item) => item.decision === "accepted" || item.decision === "edited"
      || (all && item.decision === null && !errors(item).length))
    .map((item) => `${JSON.stringify(exported(item))}\n`);
}

function saveFile() {
  const lines = exportedLines($("all").checked);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
  link.download = "reviewed.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`${lines.length} records are exported.`);
}

async function importFile(file) {
  const open = new Map();
  for (const item of items) {
    const name = JSON.stringify([item.input, item.target]);
    open.set(name, [...(open.get(name) ?? []), item]);
  }
  let taken = 0, foreign = 0;
  for (const line of (await file.text()).split("\n").filter((text) => text.trim())) {
    const item = takeLine(line, open);
    if (item) { taken += 1; save(item); } else foreign += 1;
  }
  say(`${taken} decisions are taken over; ${foreign} lines are of no record of this page.`);
  show();
}

function takeLine(line, open) {
  try {
    const given = JSON.parse(line);
    const item = open.get(JSON.stringify([given.input, given.target]))?.shift();
    if (!item) return null;
    const at = ({ text, start }) => `${start}-${start + Array.from(text).length}`;
    item.notes = new Map(given.important.map((note) =>
      [at(note.effect), new Set(note.causes.map(at))]));
    for (const { start, stop, kind } of given.annotation?.kinds ?? [])
      item.kinds.set(`${start}-${stop}`, kind);
    const decision = given.review?.decision;
    item.decision = decision === "undecided" ? null : decision ?? "accepted";
    item.active = firstEffect(item);
    return item;
  } catch { return null; }
}

// What is seen

function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

const kindClass = (kind) => `kind${kindNames.indexOf(kind) % 8}`;
const status = (item) => item.decision ?? (item.reasons.length ? "rejected"
  : item.agreement < 1 ? `${Math.round(100 * item.agreement)} % agree` : "undecided");

function showList() {
  const nav = $("list");
  $("rows").style.height = `${ROW * order.length}px`;
  const first = Math.max(0, Math.floor(nav.scrollTop / ROW) - 5);
  const last = Math.min(order.length, first + Math.ceil(nav.clientHeight / ROW) + 10);
  $("rows").replaceChildren(...order.slice(first, last).map((index, offset) => {
    const item = items[index];
    const row = element("button", { className: "row", tabIndex: -1 });
    row.append(item.chars.slice(0, 70).join(""),
      element("small", { textContent: `${index + 1} · ${status(item)}` }));
    row.style.top = `${ROW * (first + offset)}px`;
    row.setAttribute("aria-current", String(first + offset === place));
    row.onclick = () => go(first + offset);
    return row;
  }));
}

function keepInView() {
  const nav = $("list");
  if (ROW * place < nav.scrollTop) nav.scrollTop = ROW * place;
  const below = ROW * (place + 1) - nav.clientHeight;
  if (below > nav.scrollTop) nav.scrollTop = below;
}

function show() {
  const done = items.filter((item) => item.decision !== null).length;
  $("progress").textContent = `${done} of ${items.length} decided, ${items.length - done} undecided`;
  if (!items.length) return;
  const item = current();
  $("title").textContent = `Record ${item.index + 1}: ${status(item)}`;
  $("rejected").hidden = !item.reasons.length;
  $("reasons").replaceChildren(...item.reasons.map((text) => element("li", { textContent: text })));
  $("reply").textContent = item.reply;
  showText(item);
  showNotes(item);
  showSelected();
  keepInView();
  showList();
  drawArcs(item);
}

function showText(item) {
  const marks = [...item.notes].flatMap(([effect, causes]) => [effect, ...causes]);
  const disputed = [...item.shares.keys()].flatMap((edge) => edge.split(" "))
    .filter((at) => !marks.includes(at));
  const cuts = [...marks, ...disputed].flatMap(ends).concat(0, item.start, item.chars.length);
  const bounds = [...new Set(cuts)].sort((a, b) => a - b);
  $("text").replaceChildren(...bounds.slice(0, -1).map((start, n) => {
    const stop = bounds[n + 1];
    const over = (at) => ends(at)[0] <= start && ends(at)[1] >= stop;
    const size = (at) => ends(at)[1] - ends(at)[0];
    const inner = marks.filter(over).sort((a, b) => size(a) - size(b))[0];
    const part = element("span", { textContent: item.chars.slice(start, stop).join("") });
    part.dataset.start = start;
    part.dataset.stop = stop;
    if (start >= item.start) part.classList.add("target");
    if (inner) part.classList.add("mark", kindClass(item.kinds.get(inner)));
    if (inner && item.notes.has(inner)) part.classList.add("effect");
    if (!inner && disputed.some(over)) part.classList.add("mark", "disputed");
    return part;
  }));
}

const partsOf = (at) => [...$("text").children].filter((part) =>
  Number(part.dataset.start) >= ends(at)[0] && Number(part.dataset.stop) <= ends(at)[1]);

function light(at, isLit) {
  for (const part of partsOf(at)) part.classList.toggle("lit", isLit);
}

function wordsButton(item, at, share) {
  const kind = item.kinds.get(at);
  const button = element("button", { className: kindClass(kind) }, words(item, at), " ",
    element("small", { textContent: kind + (share === undefined ? "" : ` ${percent(share)}`) }));
  button.dir = "auto";
  button.onmouseenter = button.onfocus = () => light(at, true);
  button.onmouseleave = button.onblur = () => light(at, false);
  return button;
}

const percent = (share) => `${Math.round(100 * share)} %`;

function chip(item, effect, cause, isKept) {
  const share = item.shares.get(`${effect} ${cause}`);
  const main = wordsButton(item, cause, share);
  const remove = () => change(() => item.notes.get(effect)?.delete(cause));
  const add = () => change(() => addCause(item, effect, cause));
  const name = isKept ? "Remove the cause" : "Add the cause";
  const act = element("button", { textContent: isKept ? "×" : "+", onclick: isKept ? remove : add });
  act.setAttribute("aria-label", `${name} ${words(item, cause)}`);
  main.onkeydown = (event) => {
    if (isKept && (event.key === "Delete" || event.key === "Backspace")) remove();
    else if (event.key === "k") change(() => nextKind(item, cause, effect));
  };
  return element("span", { className: isKept ? "chip" : "chip disputed" }, main, act);
}

function nextKind(item, cause, effect) {
  const fit = kindNames.filter((kind) => isEdge(kind, item.kinds.get(effect)));
  item.kinds.set(cause, fit[(fit.indexOf(item.kinds.get(cause)) + 1) % fit.length]);
}

function showNotes(item) {
  const edges = [...item.shares.keys()].map((edge) => edge.split(" "));
  const effects = new Set([...item.notes.keys(), ...edges.map(([effect]) => effect)]);
  $("notes").replaceChildren(...[...effects].sort(byPlace).map((effect) => {
    const causes = item.notes.get(effect) ?? new Set();
    const line = element("li", { className: effect === item.active ? "active" : "" });
    const head = wordsButton(item, effect);
    head.setAttribute("aria-pressed", String(effect === item.active));
    head.onclick = () => { item.active = effect; show(); };
    const drop = element("button", { textContent: "×",
      onclick: () => change(() => { item.notes.delete(effect); item.active = firstEffect(item); }) });
    drop.setAttribute("aria-label", `Remove the effect ${words(item, effect)}`);
    const kept = [...causes].sort(byPlace).map((cause) => chip(item, effect, cause, true));
    const others = edges.filter(([e, cause]) => e === effect && !causes.has(cause))
      .map(([, cause]) => chip(item, effect, cause, false));
    line.append(element("span", { className: "chip" }, head, drop), " depends on ",
      ...kept, ...others);
    return line;
  }));
}

// Arcs from the causes of the chosen effect to it.
function drawArcs(item) {
  const box = $("page").getBoundingClientRect();
  const top = (at) => {
    const rect = partsOf(at)[0]?.getClientRects()[0];
    return rect && [rect.left + rect.width / 2 - box.left, rect.top - box.top];
  };
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const marker = make("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4,
    markerWidth: 7, markerHeight: 7, orient: "auto" });
  marker.append(make("path", { d: "M0 0L8 4L0 8z" }));
  const causes = item.notes.get(item.active) ?? [];
  const to = item.active && top(item.active);
  const arcs = to ? [...causes].map(top).filter(Boolean).map(([x, y]) =>
    make("path", { "marker-end": "url(#head)",
      d: `M${x} ${y}C${x} ${y - 26} ${to[0]} ${to[1] - 26} ${to[0]} ${to[1]}` })) : [];
  $("arcs").replaceChildren(marker, ...arcs);
}

// Selection by mouse

function offsetOf(node, offset) {
  const range = document.createRange();
  range.setStart($("text"), 0);
  range.setEnd(node, offset);
  return Array.from(range.toString()).length;
}

// Return the selected place, grown to whole words; null without one.
function selectedPlace(item) {
  const selection = getSelection();
  if (selection.isCollapsed || !selection.rangeCount) return null;
  const range = selection.getRangeAt(0);
  if (!$("text").contains(range.commonAncestorContainer)) return null;
  let start = offsetOf(range.startContainer, range.startOffset);
  let stop = offsetOf(range.endContainer, range.endOffset);
  const isSpace = (n) => !item.chars[n].trim();
  while (start < stop && isSpace(start)) start += 1;
  while (stop > start && isSpace(stop - 1)) stop -= 1;
  if (start === stop) return null;
  while (item.borders[start] === "0") start -= 1;
  while (item.borders[stop] === "0") stop += 1;
  return `${start}-${stop}`;
}

function choices(item) {
  const effectKind = item.kinds.get(item.active);
  return {
    causes: item.active ? kindNames.filter((kind) => isEdge(kind, effectKind)) : [],
    effects: effectKinds,
  };
}

function take(item, at, kind, isEffect) {
  change(() => {
    item.kinds.set(at, kind);
    if (isEffect) {
      if (!item.notes.has(at)) item.notes.set(at, new Set());
      item.active = at;
    } else addCause(item, item.active, at);
  });
  getSelection().removeAllRanges();
  showSelected();
}

function showSelected() {
  const item = current();
  const at = item && selectedPlace(item);
  $("selected").hidden = !at;
  if (!at) return;
  const { causes, effects } = choices(item);
  const buttons = (kinds, isEffect) => kinds.map((kind, n) => {
    const key = element("kbd", { textContent: `${isEffect ? "⇧" : ""}${n + 1}` });
    const button = element("button", { className: kindClass(kind) }, kind, " ", key);
    button.onmousedown = (event) => event.preventDefault();  // the selection stays
    button.onclick = () => take(item, at, kind, isEffect);
    return button;
  });
  const chosen = item.active ? [` is a cause of “${words(item, item.active)}”: `] : [];
  $("selected").replaceChildren(element("bdi", { textContent: `“${words(item, at)}”` }), ...chosen,
    ...buttons(causes, false), ...(item.active ? [" or an effect: "] : [" is an effect: "]),
    ...buttons(effects, true));
}

// Keys

const KEYS = {
  a: () => decide("accepted"), d: () => decide("dropped"), u: () => decide(null),
  r: () => change((item) => restore(item, item.original)),
  n: () => go(place + 1), ArrowDown: () => go(place + 1),
  p: () => go(place - 1), ArrowUp: () => go(place - 1),
  e: () => $("notes").querySelector(".chip + .chip button")?.focus(),
};

function digit(event) {
  const item = current(), at = selectedPlace(item);
  const number = /^Digit([1-9])$/.exec(event.code)?.[1];
  if (!number || !at) return false;
  const { causes, effects } = choices(item);
  const kind = (event.shiftKey ? effects : causes)[number - 1];
  if (kind) take(item, at, kind, event.shiftKey);
  return true;
}

document.onkeydown = (event) => {
  if (!items.length || event.ctrlKey || event.metaKey || event.altKey) return;
  if (digit(event) || (!event.shiftKey && Object.hasOwn(KEYS, event.key))) event.preventDefault();
  else return;
  if (!/^Digit/.test(event.code)) KEYS[event.key]();
};
document.onselectionchange = showSelected;
onresize = () => items.length && drawArcs(current());
onbeforeunload = (event) => { if (storageFails) event.preventDefault(); };
$("list").onscroll = showList;
$("accept").onclick = KEYS.a;
$("drop").onclick = KEYS.d;
$("undecide").onclick = KEYS.u;
$("reset").onclick = KEYS.r;
$("next").onclick = KEYS.n;
$("previous").onclick = KEYS.p;
$("export").onclick = saveFile;
$("import").onchange = (event) => {
  if (event.target.files.length) importFile(event.target.files[0]);
  event.target.value = "";
};
$("task").textContent = data.task;
$("kinds").replaceChildren(...data.kinds.flatMap(([kind, sentence]) => [
  element("dt", { textContent: kind, className: kindClass(kind) }),
  element("dd", { textContent: sentence })]));
load();
show();
