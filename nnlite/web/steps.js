// The page of a trace: the same layers once forward and once backward, a step each.

const page = readData("data");
const entries = new Map(page.entries.map((entry) => [entry.name, entry]));
for (const entry of page.entries) {
  for (const array of entry.arrays) {
    array.value.data = decode(array.value);
    if (array.grad) array.grad.data = decode(array.grad);
    array.numeric = new Map(array.numeric);
  }
}
const nodes = page.entries.filter((entry) => entry.kind !== "parameter");
const steps = [
  ...nodes.map((entry) => ({ entry, isForward: true })),
  ...[...nodes].reverse().map((entry) => ({ entry, isForward: false })),
];
const state = { step: 0, sample: 0 };

// ---- the arrays of a step ----

// Returns the part of an array that belongs to the sample that is looked at.
function sampleOf(array, what) {
  const { shape, data } = array[what];
  if (!array.has_samples) return { shape, data, start: 0 };
  const size = data.length / shape[0];
  const start = state.sample * size;
  return { shape: shape.slice(1), data: data.subarray(start, start + size), start };
}

const MOST_NUMBERS = 64;
// A card with the values or gradients of an array; `symbol` is its letter in the formula.
function arrayCard({ symbol, role }, array, what) {
  const card = element("section", { className: "card" });
  const { shape, data, start } = sampleOf(array, what);
  const full = array.has_samples ? array.shape.slice(1) : array.shape;
  const isCut = full.some((size, axis) => size !== shape[axis]);
  card.append(
    element("div", { className: "heading" },
      element("h2", {}, element("span", { className: "mono", textContent: symbol }), ` ${role}`),
      element("span", { className: "quiet mono", textContent: describeShape(full) })),
  );
  if (isCut) {
    card.append(element("p", {
      className: "quiet", textContent: `Cut to ${describeShape(shape)}: the whole is too large.`,
    }));
  }
  const numeric = (index) => (what === "grad" ? array.numeric.get(start + index) : undefined);
  if (data.length <= MOST_NUMBERS) card.append(numbersOf(shape, data, numeric));
  else card.append(...pictureOf(shape, data, numeric, `${symbol} ${role}`));
  if (what === "grad" && array.numeric.size) card.append(comparison(array));
  card.append(...statisticsOf(array.statistics[what], array));
  return card;
}

// A table of numbers, each derivative with its finite difference below it.
function numbersOf(shape, data, numeric) {
  const columns = shape.length ? shape.at(-1) : 1;
  const scale = largest(data);
  const table = element("table");
  for (let first = 0; first < data.length; first += columns) {
    const row = element("tr");
    for (let index = first; index < Math.min(first + columns, data.length); index++) {
      const cell = element("td", { textContent: format(data[index]) });
      cell.style.background = `rgb(${colourOf(data[index], 2 * scale)})`;
      const difference = numeric(index);
      if (difference !== undefined) {
        cell.title = "finite difference below";
        cell.append(element("small", { textContent: `≈ ${format(difference)}` }));
      }
      row.append(cell);
    }
    table.append(row);
  }
  return element("div", { className: "numbers" }, table);
}

function pictureOf(shape, data, numeric, label) {
  const picture = new Picture({ label });
  const holder = element("div", {}, picture.canvas);
  const readout = element("p", { className: "quiet readout" });
  const scale = largest(data);
  const key = element("div", { className: "quiet key" }, format(-scale, 3), element("span"), format(scale, 3));
  picture.hover = (index) => {
    if (index === null) readout.textContent = "";
    else {
      const difference = numeric(index);
      const beside = difference === undefined ? "" : `, finite difference ${format(difference)}`;
      readout.textContent = `[${unravel(index, shape).join(", ")}] = ${format(data[index])}${beside}`;
    }
  };
  requestAnimationFrame(() => {
    const { shown, tiles } = picture.draw(shape, data);
    if (shown < tiles) readout.textContent = `the first ${shown} of ${tiles}`;
  });
  return [holder, key, readout];
}

// How well the derivatives agree with their finite differences.
function comparison(array) {
  let worst = 0;
  for (const [index, difference] of array.numeric) {
    const derivative = array.grad.data[index];
    const size = Math.max(Math.abs(derivative), Math.abs(difference), 1e-6);
    worst = Math.max(worst, Math.abs(derivative - difference) / size);
  }
  const count = array.numeric.size;
  const text = `${count} finite difference${count > 1 ? "s" : ""}, the largest relative error ${format(worst, 2)}`;
  return element("p", { className: "quiet", textContent: text });
}

function statisticsOf(found, array) {
  if (found.size <= MOST_NUMBERS && !found.bad) return [];
  const percent = (100 * found.zeros) / found.size;
  const parts = [
    `min ${format(found.min, 3)}`, `max ${format(found.max, 3)}`, `rms ${format(found.rms, 3)}`,
    `${format(percent, 3)} % zeros`,
  ];
  if (found.bad) parts.push(`${found.bad} NaN or inf`);
  const whole = array.has_samples && page.batch > 1 ? "whole batch: " : "";
  const text = element("p", { className: "quiet", textContent: whole + parts.join(", ") });
  const most = Math.max(...found.histogram, 1);
  const bars = found.histogram.map((count) => {
    const bar = element("i", { title: String(count) });
    bar.style.height = `${(100 * count) / most}%`;
    return bar;
  });
  const label = `histogram from ${format(found.min, 3)} to ${format(found.max, 3)}`;
  return [element("div", { className: "histogram", role: "img", "aria-label": label }, ...bars), text];
}

// ---- what happens, in words ----

// Counts, on the sample that is looked at, what an activation has cut off.
function facts({ entry, isForward }) {
  const source = entries.get(entry.sources[0]);
  const [own, from] = [entry.arrays[0], source?.arrays[0]];
  if (entry.kind !== "layer" || !own || !from) return "";
  if (isForward) {
    const output = sampleOf(own, "value").data;
    const input = sampleOf(from, "value").data;
    if (output.length !== input.length) return "";
    const cut = output.filter((v, i) => v === 0 && input[i] !== 0).length;
    return cut ? `Here ${cut} of ${output.length} numbers become 0.` : "";
  }
  if (!own.grad || !from.grad) return "";
  const arriving = sampleOf(own, "grad").data;
  const leaving = sampleOf(from, "grad").data;
  if (arriving.length !== leaving.length) return "";
  const stopped = arriving.filter((g, i) => g !== 0 && leaving[i] === 0).length;
  const live = arriving.filter((g) => g !== 0).length;
  const them = stopped === 1 ? "it" : "them";
  return stopped
    ? `Here ${stopped} of ${live} gradients that arrive ${stopped === 1 ? "is" : "are"} stopped: ` +
      `the layers before learn nothing from ${them}.`
    : "";
}

// ---- the graph ----

const BOX = { width: 132, height: 46, across: 38, down: 18 };
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, text) {
  const created = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
  if (text !== undefined) created.textContent = text;
  return created;
}

// Places every node in the column behind its sources.
function places() {
  const columns = new Map();
  const found = new Map();
  for (const node of nodes) {
    const before = node.sources.map((name) => found.get(name)?.column ?? -1);
    const column = node.kind === "input" ? 0 : Math.max(0, ...before) + 1;
    const row = columns.get(column) ?? 0;
    columns.set(column, row + 1);
    found.set(node.name, { column, row });
  }
  const tallest = Math.max(...columns.values());
  for (const place of found.values()) {
    const free = (tallest - columns.get(place.column)) / 2;
    place.x = 4 + place.column * (BOX.width + BOX.across);
    place.y = 4 + (place.row + free) * (BOX.height + BOX.down);
  }
  return { found, width: columns.size, height: tallest };
}

const boxes = new Map();
function buildGraph() {
  const { found, width, height } = places();
  const size = [
    width * (BOX.width + BOX.across) - BOX.across + 8,
    height * (BOX.height + BOX.down) - BOX.down + 8,
  ];
  const picture = svg("svg", { width: size[0], height: size[1], role: "img", "aria-label": "the layers" });
  for (const node of nodes) {
    const to = found.get(node.name);
    for (const name of node.sources) {
      const from = found.get(name);
      if (!from) continue;
      const [x1, y1] = [from.x + BOX.width, from.y + BOX.height / 2];
      const [x2, y2] = [to.x, to.y + BOX.height / 2];
      const bend = Math.max(BOX.across / 2, (x2 - x1) / 2);
      picture.append(svg("path", { d: `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }));
    }
  }
  nodes.forEach((node, index) => {
    const { x, y } = found.get(node.name);
    const group = svg("g", {});
    const { width: w, height: h } = BOX;
    group.append(svg("rect", { x, y, width: w, height: h, rx: 8 }));
    group.append(svg("text", { x: x + 9, y: y + 19 }, shorten(node.name, 17)));
    const what = node.kind === "input" ? describeShape(node.arrays[0]?.shape ?? []) : node.label;
    group.append(svg("text", { x: x + 9, y: y + 35, class: "small" }, shorten(what, 19)));
    const troubles = problemsOf(node);
    if (troubles.length) {
      const mark = svg("circle", { cx: x + w - 10, cy: y + 10, r: 5, class: "mark" });
      mark.append(svg("title", {}, troubles.map(({ message }) => message).join("\n")));
      group.append(mark);
    }
    group.addEventListener("click", () => {
      go(state.step < nodes.length ? index : steps.length - 1 - index);
    });
    boxes.set(node.name, { group, x });
    picture.append(group);
  });
  byId("graph").append(picture);
}

const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function problemsOf(entry) {
  const names = [entry.name, ...entry.parameters];
  return page.problems.filter(({ name }) => names.includes(name));
}

// ---- a step ----

function show() {
  const { entry, isForward } = steps[state.step];
  const at = nodes.indexOf(entry);
  nodes.forEach((node, index) => {
    const { group } = boxes.get(node.name);
    const isReached = isForward ? index <= at : true;
    const goesBack = !isForward && index >= at;
    group.setAttribute("class", `${goesBack ? "backward" : isReached ? "forward" : ""} ${index === at ? "now" : ""}`);
  });
  const graph = byId("graph");
  graph.scrollTo({ left: boxes.get(entry.name).x - graph.clientWidth / 2 + BOX.width / 2 });

  const direction = isForward ? "Forward" : "Backward";
  const label = entry.label ? ` ${entry.label}` : "";
  byId("step").textContent = `${direction}: ${entry.name}${label}`;
  byId("count").textContent = `step ${state.step + 1} of ${steps.length}`;
  byId("words").textContent = explanation(entry, isForward);
  byId("facts").textContent = facts(steps[state.step]);
  byId("formula").textContent = (isForward ? entry.forward : entry.backward).join("\n");
  byId("marks").replaceChildren(
    ...problemsOf(entry).map(({ message }) => element("p", { className: "mark", textContent: `! ${message}` })),
  );
  byId("arrays").replaceChildren(...cardsOf(entry, isForward));
  byId("slider").value = state.step;
  byId("previous").disabled = state.step === 0;
  byId("next").disabled = state.step === steps.length - 1;
}

function explanation(entry, isForward) {
  if (entry.kind === "input") {
    return isForward
      ? "The input: everything after it is computed from it."
      : "The gradient has arrived at the input: how the loss changes with each of its numbers.";
  }
  return entry.words[isForward ? 0 : 1];
}

// What the arrays of a step are called: x and y as in the formula, or their names.
function cardsOf(entry, isForward) {
  const cards = [];
  const add = (name, what, caption) => {
    for (const array of entries.get(name)?.arrays ?? []) {
      if (array[what]) cards.push(arrayCard(caption, array, what));
    }
  };
  const isInput = entry.kind === "input";
  const lone = entry.sources.length === 1;
  const x = (name) => (lone ? "x" : name);
  const y = isInput ? entry.name : entry.kind === "loss" ? "L" : "y";
  if (isForward) {
    entry.sources.forEach((name) => add(name, "value", { symbol: x(name), role: `comes from ${name}` }));
    entry.parameters.forEach((name) => add(name, "value", { symbol: name, role: "is a parameter" }));
    add(entry.name, "value", { symbol: y, role: isInput ? "is given" : "is the output" });
    return withTable(entry, ["value"], cards);
  }
  const role = isInput ? "is the end of the way back" : entry.kind === "loss" ? "is always 1" : "arrives";
  add(entry.name, "grad", { symbol: `dL/d${y}`, role });
  entry.parameters.forEach((name) => add(name, "grad", { symbol: `dL/d(${name})`, role: "trains it" }));
  entry.sources.forEach((name) => add(name, "grad", {
    symbol: lone ? "dL/dx" : `dL/d(${name})`, role: `goes on to ${name}`,
  }));
  entry.sources.forEach((name) => add(name, "value", { symbol: x(name), role: "came forward" }));
  return withTable(entry, ["value", "grad"], cards);
}

const MOST_COLUMNS = 16;

// Puts a table before the cards of a layer that treats each number by itself: a column for each.
function withTable(entry, kinds, cards) {
  const source = entries.get(entry.sources[0])?.arrays[0];
  const own = entry.arrays[0];
  if (entry.kind !== "layer" || entry.sources.length !== 1 || entry.parameters.length) return cards;
  if (!own || !source || String(own.shape) !== String(source.shape)) return cards;
  if (kinds.some((what) => !own[what] || !source[what])) return cards;
  const of = (array, what) => sampleOf(array, what).data;
  if (of(own, "value").length > MOST_COLUMNS) return cards;
  const rows = [["x", of(source, "value")], ["y", of(own, "value")]];
  if (kinds.includes("grad")) rows.push(["dL/dy", of(own, "grad")], ["dL/dx", of(source, "grad")]);
  const table = element("table");
  for (const [name, data] of rows) {
    const row = element("tr", {}, element("th", { textContent: name, scope: "row" }));
    const scale = largest(data);
    data.forEach((value, index) => {
      const cell = element("td", { textContent: format(value) });
      cell.style.background = `rgb(${colourOf(value, 2 * scale)})`;
      if (name === "dL/dx" && value === 0 && rows[2][1][index] !== 0) {
        cell.className = "stopped";
        cell.title = "the gradient is stopped here";
      }
      row.append(cell);
    });
    table.append(row);
  }
  const heading = element("h2", { textContent: "Number by number" });
  return [element("section", { className: "card" }, heading, element("div", { className: "numbers" }, table)), ...cards];
}

function go(step) {
  state.step = Math.max(0, Math.min(steps.length - 1, step));
  show();
}

function start() {
  readColours();
  byId("title").textContent = page.title;
  const notes = [];
  if (page.batch > page.samples) notes.push(`The first ${page.samples} of ${page.batch} samples are shown.`);
  if (page.error) notes.push(`The run ended with an error: ${page.error}`);
  byId("notes").textContent = notes.join(" ");
  buildGraph();
  byId("slider").max = steps.length - 1;
  byId("slider").addEventListener("input", () => go(Number(byId("slider").value)));
  byId("previous").addEventListener("click", () => go(state.step - 1));
  byId("next").addEventListener("click", () => go(state.step + 1));
  byId("sampling").hidden = page.samples < 2;
  for (let index = 0; index < page.samples; index++) {
    byId("sample").append(element("option", { value: index, textContent: String(index) }));
  }
  byId("sample").addEventListener("change", () => {
    state.sample = Number(byId("sample").value);
    show();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, select")) return;
    if (event.key === "ArrowRight") go(state.step + 1);
    if (event.key === "ArrowLeft") go(state.step - 1);
    if (event.key === "Home") go(0);
    if (event.key === "End") go(steps.length - 1);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    show();
  });
  show();
}

start();
