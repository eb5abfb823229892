"use strict";
// Reading of the values that the page holds: eight bits each, base64, decoded when first needed.
// A cell is the index of a map: the layer after the last is the mean over layers, the head after
// the last the mean over heads.
const data = JSON.parse(document.getElementById("data").textContent);
const { tokens, kinds, queries, layers: LAYERS, heads: HEADS } = data;
const HEIGHT = queries.length, WIDTH = tokens.length;
const VALUES = Float64Array.from({ length: 256 }, (_, code) => (code / 255) ** 2);
const SIDE = 512;  // most blocks along a side of what is drawn of a whole map
const wholeMaps = new Map(data.maps.map((cell, line) => [cell, line]));
const wholeRows = new Map(data.rows.map((row, place) => [row, place]));
const isAllWhole = data.maps.length === (LAYERS + 1) * (HEADS + 1);
const cellOf = (layer, head) => layer * (HEADS + 1) + head;

// Each line of a block is an array of codes.
function decoder(id) {
  const lines = document.getElementById(id).textContent.split("\n"), decoded = new Map();
  return (line) => {
    if (!decoded.has(line)) {
      const bytes = atob(lines[line]), codes = new Uint8Array(bytes.length);
      for (let n = 0; n < bytes.length; n += 1) codes[n] = bytes.charCodeAt(n);
      decoded.set(line, codes);
    }
    return decoded.get(line);
  };
}

const models = data.models.map((name, n) => (
  { name, pooled: decoder(`pooled-${n}`), map: decoder(`map-${n}`), rows: decoder(`rows-${n}`) }));

// A query sees the keys up to itself: its row has that many codes.
function starts(rows) {
  let next = 0;
  return rows.map((row) => (next += queries[row] + 1) - queries[row] - 1);
}
const mapStarts = starts(queries.map((_, row) => row)), rowStarts = starts(data.rows);

// Blocks of n indices, b in all: the block of an index, and the first index of a block.
const blockOf = (index, n, b) => Math.floor(((index + 1) * b - 1) / n);
const firstOf = (block, n, b) => Math.floor((block * n) / b);
const rangeOf = (block, n, b) => [firstOf(block, n, b), firstOf(block + 1, n, b) - 1];

// Codes of a row of a map; null where only the pooled map is there.
function rowCodes(model, cell, row) {
  const size = queries[row] + 1;
  if (wholeMaps.has(cell)) {
    return model.map(wholeMaps.get(cell)).subarray(mapStarts[row], mapStarts[row] + size);
  }
  if (!wholeRows.has(row)) return null;
  const start = rowStarts[wholeRows.get(row)];
  return model.rows(cell).subarray(start, start + size);
}

function pooledCode(model, cell, row, key) {
  const [high, wide] = data.bins;
  return model.pooled(cell)[blockOf(row, HEIGHT, high) * wide + blockOf(key, WIDTH, wide)];
}

const isWhole = (cell, row) => wholeMaps.has(cell) || wholeRows.has(row);

// Attention of a query to a key, as far as the page knows: that of its block where it is pooled.
function valueAt(model, cell, row, key) {
  if (key > queries[row]) return 0;
  const codes = rowCodes(model, cell, row);
  return VALUES[codes ? codes[key] : pooledCode(model, cell, row, key)];
}

// What a panel shows: the attention of its model, or the second one's minus the first one's.
const shownOf = (panel, values) => (panel.models.length === 1 ? values[0] : values[1] - values[0]);
const shownAt = (panel, cell, row, key) =>
  shownOf(panel, panel.models.map((model) => valueAt(model, cell, row, key)));

// Largest distance of a stored value from the one it stands for.
const errorOf = (value) => Math.sqrt(value) / 255 + 1 / 510 ** 2;

function pooledPicture(panel, cell) {
  const [high, wide] = data.bins;
  const codes = panel.models.map((model) => model.pooled(cell));
  const values = Float32Array.from(codes[0], (_, n) =>
    shownOf(panel, codes.map((x) => VALUES[x[n]])));
  return { high, wide, values, panel, cell, isPooled: high < HEIGHT || wide < WIDTH };
}

// A whole map, of which each block shows its largest value; up to 512 tokens a block is one pair.
function wholePicture(panel, cell) {
  const high = Math.min(HEIGHT, SIDE), wide = Math.min(WIDTH, SIDE);
  const values = new Float32Array(high * wide);
  for (let row = 0; row < HEIGHT; row += 1) {
    const codes = panel.models.map((model) => rowCodes(model, cell, row));
    const start = blockOf(row, HEIGHT, high) * wide;
    for (let key = 0; key <= queries[row]; key += 1) {
      const value = codes.length === 1 ? VALUES[codes[0][key]]
        : VALUES[codes[1][key]] - VALUES[codes[0][key]];
      const place = start + blockOf(key, WIDTH, wide);
      if (Math.abs(value) > Math.abs(values[place])) values[place] = value;
    }
  }
  return { high, wide, values, panel, cell, isPooled: false };
}

const pictureOf = (panel, cell) =>
  (wholeMaps.has(cell) ? wholePicture(panel, cell) : pooledPicture(panel, cell));

// The pair of a picture's block: the one whose value it shows, or where it is pooled the ranges.
function pairAt(picture, y, x) {
  const rows = rangeOf(y, HEIGHT, picture.high), keys = rangeOf(x, WIDTH, picture.wide);
  if (keys[0] > queries[rows[1]]) return null;
  if (picture.isPooled) return { rows, keys, isPooled: true };
  let best = null, largest = -1;
  for (let row = rows[0]; row <= rows[1]; row += 1) {
    for (let key = keys[0]; key <= Math.min(keys[1], queries[row]); key += 1) {
      const size = Math.abs(shownAt(picture.panel, picture.cell, row, key));
      if (size > largest) [best, largest] = [{ row, key }, size];
    }
  }
  return best;
}
