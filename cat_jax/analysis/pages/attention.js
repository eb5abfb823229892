// What is chosen, what is seen, keys and pointer.
const $ = (id) => document.getElementById(id);
const MEAN = "mean";
const LABELLED = 48;  // most tokens whose names stand beside a map
const STRONGEST = 12;
// The first query that predicts an effect; of a long text one that is whole.
const answering = queries.findIndex((query) => kinds[query + 1] === "effect");
const state = { layer: LAYERS, head: HEADS, view: 0, top: 1, pointed: null,
  row: data.rows.at(-1) ?? (answering < 0 ? HEIGHT - 1 : answering) };
const back = { layer: 0, head: 0 };  // where "mean and back" goes back to

const VIEWS = models.length === 1 ? [[{ name: models[0].name, models }]]
  : [
    ...models.map((model) => [{ name: model.name, models: [model] }]),
    models.map((model) => ({ name: model.name, models: [model] })),
    [{ name: `${models[1].name} − ${models[0].name}`, models }],
  ];
const VIEW_NAMES = [...models.map((model) => model.name), "side by side", "difference"];
if (models.length === 2) state.view = 2;
const panelsShown = () => VIEWS[state.view];
const cellShown = () => cellOf(state.layer, state.head);

function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

const nameOf = (index, count) => (index === count ? MEAN : String(index));
const headName = (layer, head) =>
  (layer === LAYERS && head === HEADS ? "mean of all layers and heads"
    : layer === LAYERS ? `head ${head}, mean over layers`
      : head === HEADS ? `layer ${layer}, mean over heads` : `layer ${layer}, head ${head}`);

// A token on one line, with what is invisible in it made visible.
const SIGNS = { "\n": "⏎", "\t": "⇥", "\r": "␍" };
function shown(token) {
  const text = token.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) =>
    SIGNS[c] ?? (c === "\u200d" ? c : `‹U+${c.codePointAt().toString(16).toUpperCase()}›`));
  return /^ *$/.test(text) ? "␣".repeat(text.length) || "∅" : text;
}
const tokenName = (place) => [`${place} `, element("bdi", { textContent: `“${shown(tokens[place])}”` })];

function number(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const text = size < 0.001 ? size.toExponential(2) : size.toFixed(4);
  return value < 0 ? `−${text}` : text;
}

// Heads by layer

const gridCells = new Map();

function makeGrid() {
  const head = element("tr", {}, element("td"));
  for (let h = 0; h <= HEADS; h += 1)
    head.append(element("th", { scope: "col", textContent: nameOf(h, HEADS) }));
  const rows = [element("thead", {}, head)], body = element("tbody");
  for (let layer = 0; layer <= LAYERS; layer += 1) {
    const line = element("tr", {},
      element("th", { scope: "row", textContent: nameOf(layer, LAYERS) }));
    for (let h = 0; h <= HEADS; h += 1) line.append(makeCell(layer, h));
    body.append(line);
  }
  $("grid").replaceChildren(...rows, body);
}

function makeCell(layer, head) {
  const cell = cellOf(layer, head), isMarked = wholeMaps.has(cell) && !isAllWhole;
  const button = element("button", { type: "button", tabIndex: -1,
    onclick: () => choose({ layer, head }) });
  button.setAttribute("aria-label", headName(layer, head) + (isMarked ? ", whole" : ""));
  const place = element("td", { role: "gridcell", className: isMarked ? "whole" : "" }, button);
  gridCells.set(cell, { place, button });
  return place;
}

function paintGrid() {
  const isCoarse = Math.max(...data.bins) <= 34;
  for (const [cell, { button }] of gridCells) {
    button.replaceChildren(...panelsShown().map((panel) => {
      const canvas = element("canvas", { className: isCoarse ? "coarse" : "" });
      paint(canvas, pooledPicture(panel, cell), state.top);
      return canvas;
    }));
  }
}

function markGrid() {
  const hadFocus = $("grid").contains(document.activeElement);
  for (const [cell, { place, button }] of gridCells) {
    const isChosen = cell === cellShown();
    place.setAttribute("aria-selected", String(isChosen));
    button.tabIndex = isChosen ? 0 : -1;
    if (isChosen) {
      keepInView(place);
      if (hadFocus) button.focus({ preventScroll: true });
    }
  }
}

// Scroll the grid alone, not the page.
function keepInView(place) {
  const box = $("grid-box"), outer = box.getBoundingClientRect();
  const inner = place.getBoundingClientRect();
  box.scrollTop += Math.min(0, inner.top - outer.top - 24) + Math.max(0, inner.bottom - outer.bottom);
  box.scrollLeft += Math.min(0, inner.left - outer.left - 48) + Math.max(0, inner.right - outer.right);
}

// One head

let drawn = [];  // of each panel: its picture, and its elements

function makePanels() {
  drawn = panelsShown().map((panel) => {
    const canvas = element("canvas"), row = element("div", { className: "row", hidden: true });
    canvas.setAttribute("role", "img");
    const pair = element("div", { className: "pair", hidden: true });
    const map = element("div", { className: "map" }, canvas, row, pair);
    if (WIDTH === HEIGHT) map.style.aspectRatio = "1";
    else map.style.height = `${Math.max(24, Math.min(480, 18 * HEIGHT))}px`;
    const strips = ["top", "left"].map((side) =>
      element("canvas", { className: `strip-${side}` }));
    const text = element("div", { className: "text", dir: "auto" });
    text.setAttribute("aria-label", `Text, shaded by ${panel.name}`);
    text.setAttribute("role", "group");
    text.append(...tokens.map((token, place) => {
      const shownText = token.includes("\n") ? token.replaceAll("\n", "⏎\n") : token || "∅";
      const isQuery = queries.includes(place);
      const span = element("span", { textContent: shownText });
      span.className = `${kinds[place]}${isQuery ? "" : " fixed"}`;
      span.dataset.place = place;
      return span;
    }));
    const one = { panel, canvas, row, pair, map, strips, spans: [...text.children], text };
    const frame = element("div", { className: "frame" }, ...names(), ...strips, map);
    one.box = element("div", { className: "panel" }, element("h3", {}, element("bdi",
      { textContent: panel.name })), frame, text);
    map.onpointermove = (event) => pointAt(one, event);
    map.onpointerleave = () => point(null);
    map.onclick = (event) => { pointAt(one, event); chooseRowOf(state.pointed); };
    text.onpointerover = (event) => pointAtWord(event.target.dataset.place);
    text.onpointerleave = () => point(null);
    text.onclick = (event) => chooseQuery(event.target.dataset.place);
    return one;
  });
  drawn[0].box.classList.toggle("alone", drawn.length === 1);
  $("panels").replaceChildren(...drawn.map((one) => one.box));
}

function names() {
  if (WIDTH > LABELLED) return [];
  const made = (places, side) => {
    const list = element("div", { className: `names ${side}` },
      ...places.map((place) => element("span", { textContent: shown(tokens[place]) })));
    list.setAttribute("aria-hidden", "true");
    return list;
  };
  return [made(queries, "left"), made(tokens.map((_, place) => place), "top")];
}

// Colours of the kinds along a side; of a block the first kind that a reader looks for.
function paintStrips({ strips, picture }) {
  const style = getComputedStyle(document.documentElement);
  const paintStrip = (canvas, places, count, isTop) => {
    [canvas.width, canvas.height] = isTop ? [count, 1] : [1, count];
    const context = canvas.getContext("2d");
    for (let block = 0; block < count; block += 1) {
      const [first, last] = rangeOf(block, places.length, count);
      const found = places.slice(first, last + 1).map((place) => kinds[place]);
      const kind = data.kindNames.find((name) => found.includes(name));
      context.fillStyle = style.getPropertyValue(`--${kind === "other" ? "line" : kind}`);
      context.fillRect(isTop ? block : 0, isTop ? 0 : block, 1, 1);
    }
  };
  paintStrip(strips[0], tokens.map((_, place) => place), picture.wide, true);
  paintStrip(strips[1], queries, picture.high, false);
}

function paintPanels() {
  for (const one of drawn) {
    one.picture = pictureOf(one.panel, cellShown());
    paint(one.canvas, one.picture, state.top);
    paintStrips(one);
    one.canvas.setAttribute("aria-label", `${one.panel.name}: attention of ${headName(state.layer,
      state.head)}, ${HEIGHT} queries by ${WIDTH} keys`);
  }
  $("chosen").textContent = headName(state.layer, state.head)
    + (wholeMaps.has(cellShown()) ? "" : `, pooled to ${data.bins.join(" × ")}`);
}

function place(box, picture, y, x = null) {
  box.hidden = false;
  box.style.top = `${(100 * y) / picture.high}%`;
  box.style.height = `${100 / picture.high}%`;
  if (x === null) return;
  box.style.left = `${(100 * x) / picture.wide}%`;
  box.style.width = `${100 / picture.wide}%`;
}

// The chosen query

function showQuery() {
  for (const { panel, picture, row, spans } of drawn) {
    place(row, picture, blockOf(state.row, HEIGHT, picture.high));
    spans.forEach((span, key) => {
      const isSeen = key <= queries[state.row];
      const value = isSeen ? shownAt(panel, cellShown(), state.row, key) : 0;
      const colour = isSeen ? colourOf(value, state.top, panel.models.length > 1) : null;
      span.style.background = colour ? css(colour) : "none";
      span.style.color = colour ? (isBright(colour) ? "#000" : "#fff") : "";
      span.classList.toggle("later", !isSeen);
      span.classList.toggle("chosen", key === queries[state.row]);
    });
  }
  showStrongest();
}

const seenKeys = () => Array.from({ length: queries[state.row] + 1 }, (_, key) => key);

function showStrongest() {
  const cell = cellShown(), [panel] = panelsShown();
  const size = (key) => Math.abs(shownAt(panel, cell, state.row, key));
  const keys = seenKeys().sort((a, b) => size(b) - size(a) || a - b).slice(0, STRONGEST);
  const table = $("strongest").firstElementChild;
  table.caption.replaceChildren("Where query ", ...tokenName(queries[state.row]), " looks most in ",
    headName(state.layer, state.head), isWhole(cell, state.row) ? "" : ` (${POOLED_ROW})`);
  const head = (text) => element("th", { scope: "col", textContent: text });
  const columns = models.length === 2 ? [...models.map((x) => x.name), "difference"]
    : [models[0].name];
  table.tHead.replaceChildren(element("tr", {}, head("key"), head("kind"), ...columns.map(head)));
  table.tBodies[0].replaceChildren(...keys.map((key) => {
    const values = models.map((model) => valueAt(model, cell, state.row, key));
    if (models.length === 2) values.push(values[1] - values[0]);
    return element("tr", {}, element("td", {}, ...tokenName(key)),
      element("td", { textContent: kinds[key] }),
      ...values.map((value) => element("td", { className: "number", textContent: number(value) })));
  }));
}
const POOLED_ROW = "pooled: of each block the largest value";

function say() {
  const values = seenKeys().map((key) => shownAt(panelsShown()[0], cellShown(), state.row, key));
  const best = values.reduce((at, value, key) =>
    (Math.abs(value) > Math.abs(values[at]) ? key : at), 0);
  $("status").replaceChildren(`${headName(state.layer, state.head)}; query `,
    ...tokenName(queries[state.row]), " looks most at ", ...tokenName(best),
    `: ${number(values[best])}`);
}

// What is pointed at: a pair of tokens, or ranges of them where the map is pooled.

function point(pair) {
  state.pointed = pair;
  for (const { pair: box, picture, spans } of drawn) {
    box.hidden = !pair;
    for (const span of spans) {
      const key = Number(span.dataset.place);
      span.classList.toggle("pointed", Boolean(pair)
        && (pair.isPooled ? key >= pair.keys[0] && key <= pair.keys[1]
          : key === pair.key || (key === queries[pair.row] && pair.row !== state.row)));
    }
    if (!pair) continue;
    const row = pair.isPooled ? pair.rows[0] : pair.row, key = pair.isPooled ? pair.keys[0] : pair.key;
    place(box, picture, blockOf(row, HEIGHT, picture.high), blockOf(key, WIDTH, picture.wide));
  }
  $("reading").replaceChildren(...(pair ? reading(pair)
    : [element("em", { textContent: "Point at a map or at a word." })]));
}

function reading(pair) {
  const [row, key] = pair.isPooled ? [pair.rows[0], pair.keys[0]] : [pair.row, pair.key];
  const cell = cellShown();
  const values = models.map((model) => (pair.isPooled
    ? VALUES[pooledCode(model, cell, row, key)] : valueAt(model, cell, row, key)));
  const texts = values.map((value, n) =>
    `${models.length > 1 ? `${models[n].name} ` : ""}${number(value)} ± ${number(errorOf(value))}`);
  if (models.length === 2) {
    const error = errorOf(values[0]) + errorOf(values[1]);
    texts.push(`difference ${number(values[1] - values[0])} ± ${number(error)}`);
  }
  const between = ([first, last]) => (first === last ? `${first}` : `${first} to ${last}`);
  const what = pair.isPooled || !isWhole(cell, row)
    ? [`queries ${between(rangeIn(pair, "rows", row, HEIGHT).map((r) => queries[r]))} → keys `,
      `${between(rangeIn(pair, "keys", key, WIDTH))}, largest value`]
    : ["query ", ...tokenName(queries[row]), " → key ", ...tokenName(key)];
  return [...what, ": ", texts.join(" · ")];
}

// The block of a pooled map that an index lies in.
function rangeIn(pair, name, index, count) {
  if (pair.isPooled) return pair[name];
  const blocks = data.bins[name === "keys" ? 1 : 0];
  return rangeOf(blockOf(index, count, blocks), count, blocks);
}

function pointAt({ picture, map }, event) {
  const box = map.getBoundingClientRect();
  const at = (offset, size, count) =>
    Math.max(0, Math.min(count - 1, Math.floor((offset / size) * count)));
  point(pairAt(picture, at(event.clientY - box.top, box.height, picture.high),
    at(event.clientX - box.left, box.width, picture.wide)));
}

function pointAtWord(key) {
  if (key === undefined || Number(key) > queries[state.row]) return point(null);
  point({ row: state.row, key: Number(key) });
}

function chooseRowOf(pair) {
  if (!pair) return;
  if (!pair.isPooled) return choose({ row: pair.row });
  const [first, last] = pair.rows;
  choose({ row: data.rows.find((row) => first <= row && row <= last) ?? last });
}

function chooseQuery(key) {
  const row = key === undefined ? -1 : queries.indexOf(Number(key));
  if (row >= 0) choose({ row });
}

// Choice

function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  if (state.layer !== LAYERS) back.layer = state.layer;
  if (state.head !== HEADS) back.head = state.head;
  if (before.view !== state.view) makePanels();
  if (before.view !== state.view || before.top !== state.top) { paintGrid(); showLegend(); }
  point(null);
  paintPanels();
  markGrid();
  for (const name of ["layer", "head", "row", "view", "top"])
    $(name === "row" ? "query" : name).value = String(state[name]);
  showQuery();
  say();
}

const step = (name, by, last) =>
  choose({ [name]: Math.max(0, Math.min(last, state[name] + by)) });
const toggle = (name, end) => choose({ [name]: state[name] === end ? back[name] : end });

const KEYS = {
  ArrowLeft: () => step("head", -1, HEADS), ArrowRight: () => step("head", 1, HEADS),
  ArrowUp: () => step("layer", -1, LAYERS), ArrowDown: () => step("layer", 1, LAYERS),
  ",": () => step("row", -1, HEIGHT - 1), ".": () => step("row", 1, HEIGHT - 1),
  Home: () => choose({ row: 0 }), End: () => choose({ row: HEIGHT - 1 }),
  h: () => toggle("head", HEADS), l: () => toggle("layer", LAYERS),
  v: () => choose({ view: (state.view + 1) % VIEWS.length }),
  "?": () => { $("help").open = !$("help").open; },
};

document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
};

// What does not change

function fillSelect(id, labels, key = id) {
  $(id).replaceChildren(...labels.map((textContent, value) =>
    element("option", { textContent, value: String(value) })));
  $(id).onchange = () => choose({ [key]: Number($(id).value) });
}

const counted = (n, name) => `${n.toLocaleString("en")} ${name}${n === 1 ? "" : "s"}`;

function whatIsWhole() {
  if (isAllWhole) return "All maps are whole.";
  const maps = data.maps.map((cell) =>
    headName(Math.floor(cell / (HEADS + 1)), cell % (HEADS + 1))).join("; ");
  const rows = data.rows.map((row) => `query ${queries[row]}`).join(", ");
  return `Whole maps: ${maps || "none"}. Whole in every map: ${rows || "no query"}. `
    + `All else is pooled to ${data.bins.join(" × ")} blocks, each showing its largest value.`;
}

function showLegend() {
  const isDifference = panelsShown()[0].models.length > 1;
  const image = new ImageData(STEPS, 1);
  const colours = isDifference ? palette.difference.toReversed() : palette.attention;
  colours.forEach((colour, n) => image.data.set([...colour, 255], 4 * n));
  const [canvas, labels] = $("legend").children;
  canvas.getContext("2d").putImageData(image, 0, 0);
  const ticks = [0, 0.01, 0.05, 0.2, 0.5, 1].map((part) => part * state.top);
  const all = isDifference ? [...ticks.slice(1).map((tick) => -tick), ...ticks] : ticks;
  labels.replaceChildren(...all.map((tick) => {
    const at = Math.sign(tick) * Math.sqrt(Math.abs(tick) / state.top);
    const text = `${tick < 0 ? "−" : ""}${Number(Math.abs(tick).toPrecision(2))}`;
    const label = element("span", { textContent: text });
    label.style.left = `${isDifference ? 50 + 50 * at : 100 * at}%`;
    return label;
  }));
}

function start() {
  document.title = data.title;
  $("title").textContent = data.title;
  const sizes = [counted(WIDTH, "token"), counted(LAYERS, "layer"), counted(HEADS, "head")];
  if (HEIGHT !== WIDTH) sizes.splice(1, 0, HEIGHT === 1 ? "1 query" : `${HEIGHT} queries`);
  $("summary").textContent = `${sizes.join(", ")}. ${whatIsWhole()}`;
  $("numbers").textContent = "Each value has eight bits: code c stands for (c / 255)². An "
    + `attention p is off by at most √p / 255 + 1 / 510², never by more than `
    + `${data.largestError.toFixed(4)}; a difference by the sum of both. `
    + "A mean is that of the exact values. The difference of pooled maps is that of the largest "
    + `values. The values take ${(data.bytes / 1e6).toFixed(1)} MB of this page`
    + (models.length === 2 ? " for each of the two models." : ".");
  fillSelect("layer", Array.from({ length: LAYERS + 1 }, (_, n) => nameOf(n, LAYERS)));
  fillSelect("head", Array.from({ length: HEADS + 1 }, (_, n) => nameOf(n, HEADS)));
  fillSelect("query", queries.map((q) => `${q} ${shown(tokens[q]).slice(0, 30)}`), "row");
  fillSelect("view", VIEWS.length > 1 ? VIEW_NAMES : VIEW_NAMES.slice(0, 1));
  $("view-label").hidden = VIEWS.length === 1;
  $("top").onchange = () => choose({ top: Number($("top").value) });
  const used = data.kindNames.filter((kind) => kinds.includes(kind) && kind !== "other");
  $("kinds").replaceChildren(...used.map((kind) =>
    element("li", {}, element("span", { className: kind, textContent: kind }))));
  makeGrid();
  makePanels();
  paintGrid();
  showLegend();
  choose({});
}

dark.onchange = () => { setPalette(); paintGrid(); showLegend(); choose({}); };
start();
