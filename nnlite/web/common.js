"use strict";

// Shared by the pages: numbers, elements, and arrays as pictures.

// ---- numbers ----

// Returns the numbers of an array {dtype, base64}.
function decode({ dtype, base64 }) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  if (dtype === "float32") return new Float32Array(bytes.buffer);
  return Float32Array.from(new Uint16Array(bytes.buffer), halfToNumber);
}

// Returns the number that 16 bits stand for: sign, 5 bits of exponent, 10 of mantissa.
function halfToNumber(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}

function format(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 2);
  return String(Number(value.toPrecision(digits)));
}

const describeShape = (shape) =>
  shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(", ")})`;

// The largest magnitude among the finite values: that of the strongest colour.
function largest(data) {
  let found = 0;
  for (const value of data) {
    if (Number.isFinite(value) && Math.abs(value) > found) found = Math.abs(value);
  }
  return found;
}

// ---- elements ----

// Returns a new element. Text is always text: nothing that it says becomes HTML.
function element(tag, properties = {}, ...children) {
  const created = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in created) created[name] = value;
    else created.setAttribute(name, value);
  }
  created.append(...children);
  return created;
}

// Returns a sign for a character that cannot be seen.
const SIGNS = { "\n": "⏎", " ": "␣", "\t": "⇥", "\r": "␍" };
const visible = (text) => SIGNS[text] ?? text;

const byId = (id) => document.getElementById(id);
const readData = (id) => JSON.parse(byId(id).textContent);

// ---- colours: blue below 0, the page's own colour at 0, orange above ----

const COLOURS = {};
function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["zero", "below", "above", "ink"]) {
    COLOURS[name] = style.getPropertyValue(`--${name}`).trim().split(/\s+/).map(Number);
  }
}

// Returns red, green and blue for a value, the scale of which is the strongest colour.
function colourOf(value, scale) {
  if (!Number.isFinite(value)) return [219, 39, 119];
  const strength = scale > 0 ? Math.min(1, Math.abs(value) / scale) ** 0.75 : 0;
  const target = value < 0 ? COLOURS.below : COLOURS.above;
  return COLOURS.zero.map((base, i) => base + strength * (target[i] - base));
}

// ---- an array as a picture ----

const MOST_TILES = 1024;

// A canvas that shows an array: the last two axes as images side by side, or a vector as cells.
class Picture {
  constructor({ label, onPick, most = 160 }) {
    this.canvas = element("canvas", { role: "img", "aria-label": label });
    this.most = most; // how wide a single image gets
    this.canvas.addEventListener("pointermove", (event) => this.hover(this.indexAt(event)));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    if (onPick) {
      this.canvas.addEventListener("click", (event) => {
        const index = this.indexAt(event);
        if (index !== null) onPick(index);
      });
    }
    this.hover = () => {};
  }

  // Draws `data` of `shape`, as wide as the page lets it; `marked` is the index of a tile or cell.
  draw(shape, data, { scale = largest(data), marked = null, dot = null } = {}) {
    const isImage = shape.length > 1;
    const [height, width] = isImage ? shape.slice(-2) : [1, 1];
    const tiles = data.length / (height * width);
    const count = Math.min(tiles, MOST_TILES);
    const room = Math.max(120, this.canvas.parentElement?.clientWidth || 320);
    const { columns, zoom, gap } = this.layout(count, height, width, room);
    this.place = { columns, zoom, gap, height, width, count };

    const ratio = window.devicePixelRatio || 1;
    const rows = Math.ceil(count / columns);
    const size = [
      columns * width * zoom + (columns - 1) * gap,
      rows * height * zoom + (rows - 1) * gap,
    ];
    Object.assign(this.canvas, { width: size[0] * ratio, height: size[1] * ratio });
    this.canvas.style.width = `${size[0]}px`;
    this.canvas.style.height = `${size[1]}px`;
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    const tile = element("canvas", { width, height });
    const pen = tile.getContext("2d");
    const pixels = pen.createImageData(width, height);
    for (let index = 0; index < count; index++) {
      for (let k = 0; k < width * height; k++) {
        pixels.data.set([...colourOf(data[index * width * height + k], scale), 255], 4 * k);
      }
      pen.putImageData(pixels, 0, 0);
      const [x, y] = this.corner(index);
      context.drawImage(tile, x, y, width * zoom, height * zoom);
      if (dot) {
        context.fillStyle = `rgb(${COLOURS.ink})`;
        context.beginPath();
        context.arc(x + dot[0] * width * zoom, y + dot[1] * height * zoom, 2, 0, 7);
        context.fill();
      }
    }
    if (marked !== null && marked < count) {
      const [x, y] = this.corner(marked);
      context.strokeStyle = `rgb(${COLOURS.ink})`;
      context.lineWidth = 2;
      context.strokeRect(x + 1, y + 1, width * zoom - 2, height * zoom - 2);
    }
    return { shown: count, tiles, scale };
  }

  // Returns the number of columns, and the sizes of a value and of a gap in CSS pixels.
  layout(count, height, width, room) {
    const gap = count === 1 ? 0 : width === 1 && height === 1 ? 1 : 3;
    if (width * height > 1) {
      const wanted = count === 1 ? this.most : count <= 8 ? 84 : 56;
      const fits = Math.floor(room / width) || room / width;
      const zoom = Math.max(Math.min(1, fits), Math.min(fits, Math.round(wanted / Math.max(width, height)) || 1));
      const columns = Math.max(1, Math.floor((room + gap) / (width * zoom + gap)));
      return { columns: Math.min(columns, count), zoom, gap };
    }
    const root = Math.round(Math.sqrt(count)); // a flat image that is square shows as one
    const columns = count <= 16 ? count : count <= 64 ? 16 : root ** 2 === count ? root : 32;
    const most = count <= 64 ? 22 : 10;
    const zoom = Math.max(2, Math.min(most, Math.floor((room + gap) / columns) - gap));
    return { columns, zoom, gap: count > 256 ? 0 : gap };
  }

  corner(index) {
    const { columns, zoom, gap, height, width } = this.place;
    const row = Math.floor(index / columns);
    return [(index % columns) * (width * zoom + gap), row * (height * zoom + gap)];
  }

  // Returns the index of the value under the pointer, or null.
  indexAt(event) {
    if (!this.place) return null;
    const { columns, zoom, gap, height, width, count } = this.place;
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    const column = Math.floor(x / (width * zoom + gap));
    const row = Math.floor(y / (height * zoom + gap));
    const tile = row * columns + column;
    const inside = [x - column * (width * zoom + gap), y - row * (height * zoom + gap)];
    const [j, i] = inside.map((distance) => Math.floor(distance / zoom));
    if (tile >= count || tile < 0 || j < 0 || i < 0 || j >= width || i >= height) return null;
    return (tile * height + i) * width + j;
  }
}

// Returns the indices of a place in an array of this shape.
function unravel(index, shape) {
  const found = [];
  for (const size of [...shape].reverse()) {
    found.unshift(index % size);
    index = Math.floor(index / size);
  }
  return found;
}
