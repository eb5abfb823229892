// Colours, whose lightness alone tells large from small. Their scale is that of the square root.
const RAMPS = {
  light: {
    attention: ["#ffffff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"],
    difference: ["#7f3b08", "#e08214", "#fdd49e", "#ffffff", "#b9d3ea", "#4393c3", "#053061"],
    unseen: "#ececec",
  },
  dark: {
    attention: ["#15181d", "#22406a", "#6b7078", "#bfae65", "#ffe945"],
    difference: ["#ffd9a8", "#e08214", "#6b3c0b", "#15181d", "#15446b", "#4393c3", "#cfe8fb"],
    unseen: "#2b2f36",
  },
};
const STEPS = 511;
const dark = matchMedia("(prefers-color-scheme: dark)");
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// The colours of a ramp, evenly between its stops.
function ramp(stops) {
  const given = stops.map(channels);
  return Array.from({ length: STEPS }, (_, n) => {
    const at = (n / (STEPS - 1)) * (given.length - 1), low = Math.min(Math.floor(at), given.length - 2);
    return given[low].map((from, c) => Math.round(from + (given[low + 1][c] - from) * (at - low)));
  });
}

let palette = null;
function setPalette() {
  const { attention, difference, unseen } = RAMPS[dark.matches ? "dark" : "light"];
  palette = { attention: ramp(attention), difference: ramp(difference), unseen: channels(unseen) };
}
setPalette();

// Of values between 0 and top, or of differences between -top and top.
function colourOf(value, top, isDifference) {
  const size = Math.sqrt(Math.min(1, Math.abs(value) / top));
  return isDifference
    ? palette.difference[Math.round(((STEPS - 1) / 2) * (1 - Math.sign(value) * size))]
    : palette.attention[Math.round((STEPS - 1) * size)];
}

const css = (colour) => `rgb(${colour.join(" ")})`;
const isBright = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140;

// Paint a picture at a pixel per block; later tokens than a query are unseen.
function paint(canvas, picture, top) {
  const { high, wide, values, panel } = picture;
  [canvas.width, canvas.height] = [wide, high];
  const image = new ImageData(wide, high), isDifference = panel.models.length > 1;
  for (let y = 0; y < high; y += 1) {
    const last = queries[rangeOf(y, HEIGHT, high)[1]];
    for (let x = 0; x < wide; x += 1) {
      const at = y * wide + x, isSeen = firstOf(x, WIDTH, wide) <= last;
      const colour = isSeen ? colourOf(values[at], top, isDifference) : palette.unseen;
      image.data.set(colour, 4 * at);
      image.data[4 * at + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}
