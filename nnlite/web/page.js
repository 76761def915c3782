// The page of a network: an input, the output, and every layer in between.

const page = readData("data");
const network = new Network(page);
const mean = decode(page.mean);
const std = decode(page.std);
const examples = page.examples.map(decode);
const PALETTE = [
  [234, 88, 12], [37, 99, 235], [22, 163, 74], [147, 51, 234], [202, 138, 4],
  [8, 145, 178], [219, 39, 119], [101, 163, 13], [120, 113, 108], [79, 70, 229],
];

const state = { raw: null, values: null, picked: null };
let input = null;

// ---- what the network computes ----

const standardise = (raw) => raw.map((v, i) => (v - mean[i]) / std[i]);

// Turns scores into what is shown: probabilities, or the values as they are.
function shown(scores) {
  if (page.activation === "sigmoid") return scores.map(sigmoid);
  if (page.activation === "exp") return scores.map(Math.exp);
  if (page.activation !== "softmax") return scores;
  const powers = exponentials([...scores.keys()], scores);
  const total = sumOf(powers);
  return Float32Array.from(powers, (v) => v / total);
}

const best = (scores) => scores.indexOf(Math.max(...scores));

// Returns the value and the place in it whose gradient is shown: the winning score, or what has
// been picked.
function explained(values) {
  if (state.picked) return state.picked;
  return { value: page.score, index: best(values[page.score].data) };
}

// Returns the gradient of a number in the network with respect to the raw input.
function gradientOf(values, { value, index }) {
  const grad = new Float32Array(values[value].data.length);
  grad[index] = 1;
  return network.backward(values, grad, value).map((g, i) => g / std[i]);
}

// ---- the output ----

const rows = [];
function buildOutputs() {
  const count = network.layers.at(-1).size;
  for (let index = 0; index < count; index++) {
    const name = element("span", { className: "name", textContent: visible(page.labels[index]) });
    const bar = element("span");
    const value = element("span", { className: "value" });
    const row = element("button", {
      className: "output", title: "Show what speaks for it",
      onclick: () => pick({ value: page.score, index }),
    }, name, element("span", { className: "track" }, bar), value);
    rows.push({ row, bar, value });
    byId("outputs").append(row);
  }
}

// More outputs than this are sorted, the largest first.
const FEW = 20;

const arePercentages = page.activation !== "none" || page.probabilities;

function showOutputs(values) {
  const figures = shown(values.at(-1).data);
  const scale = arePercentages ? 1 : largest(figures) || 1;
  const winner = best(figures);
  const { value, index } = explained(values);
  if (rows.length > FEW) {
    const order = [...figures.keys()].sort((a, b) => figures[b] - figures[a]);
    order.forEach((k, rank) => {
      rows[k].row.style.order = rank;
    });
  }
  rows.forEach(({ row, bar, value: text }, k) => {
    row.classList.toggle("best", k === winner && rows.length > 1);
    row.classList.toggle("explained", state.picked !== null && value === page.score && k === index);
    bar.style.width = `${(100 * Math.abs(figures[k])) / scale}%`;
    text.textContent = arePercentages ? `${(100 * figures[k]).toFixed(1)} %` : format(figures[k]);
  });
  const first = visible(page.labels[winner]);
  const answer = isWriter ? `The next is ${first}` : `It looks like ${first}`;
  byId("answer").textContent = rows.length > 1 && arePercentages ? answer : "Output";
}

// ---- a text that is written on ----

// Whether the outputs are the probabilities of the characters that may come next.
const isWriter =
  arePercentages && page.activation !== "sigmoid" && page.alphabet?.length === page.labels.length;

// Returns the code of a character: with the probabilities at temperature 1, with the largest alone
// near 0.
function next(temperature) {
  const figures = Array.from(shown(state.values.at(-1).data), (p) => p ** (1 / temperature));
  let rest = Math.random() * sumOf(figures);
  const found = figures.findIndex((figure) => (rest -= figure) < 0);
  return found < 0 ? best(figures) : found;
}

// ---- the layers ----

const cards = [];
function buildLayers() {
  network.layers.forEach((layer, k) => {
    const readout = element("p", { className: "quiet readout" });
    const scale = element("span", { className: "quiet" });
    const title = layer.name === "" ? layer.label : `${layer.name}  ${layer.label}`;
    const card = element("section", { className: "card", "aria-label": title },
      element("div", { className: "heading" }, element("h2", { textContent: title }), scale),
      element("p", { className: "quiet mono", textContent: describeShape(layer.shape) }));
    const picture = new Picture({
      label: `values of ${title}`,
      onPick: (index) => pick({ value: k + 1, index: placeOf(k, index) }),
    });
    picture.hover = (index) => {
      readout.textContent = index === null || !state.values ? describePicked(k + 1) : tell(k, index);
    };
    card.append(picture.canvas, readout);
    byId("layers").append(card);
    cards.push({ picture, readout, scale, layer });
  });
}

// In a plane, each picture has the surfaces of the units, and a click means the unit.
const placeOf = (k, index) => (page.input === "point" ? Math.floor(index / SURFACE ** 2) : index);

function tell(k, index) {
  const place = placeOf(k, index);
  const value = state.values[k + 1];
  return `[${unravel(place, value.shape).join(", ")}] = ${format(value.data[place])}`;
}

function describePicked(value) {
  if (state.picked?.value !== value) return "";
  const { shape } = state.values[value];
  return `shown: what raises [${unravel(state.picked.index, shape).join(", ")}]`;
}

const SURFACE = 24;

function showLayers(values) {
  const surfaces = page.input === "point" ? surfacesOf(values) : null;
  cards.forEach(({ picture, readout, scale }, k) => {
    const { shape, data } = values[k + 1];
    const marked = state.picked?.value === k + 1 && shape.length === 1 ? state.picked.index : null;
    const drawn = surfaces
      ? picture.draw([data.length, SURFACE, SURFACE], surfaces[k], { marked, dot: input.place(input.point) })
      : picture.draw(shape, data, { marked });
    scale.textContent = `±${format(drawn.scale, 3)}`;
    readout.textContent = describePicked(k + 1);
    if (drawn.shown < drawn.tiles) {
      readout.textContent = `the first ${drawn.shown} of ${drawn.tiles} ${readout.textContent}`;
    }
  });
}

// ---- two inputs: every unit as a surface over the plane ----

let plane = { key: "", surfaces: null, colours: null };
const PLANE = 72;

function surfacesOf() {
  const key = JSON.stringify(input.range);
  if (plane.key !== key) {
    const points = input.grid(SURFACE).map((point) => network.forward(standardise(point)));
    const surfaces = network.layers.map(({ size }, k) => {
      const surface = new Float32Array(size * points.length);
      points.forEach((values, at) => values[k + 1].data.forEach((v, unit) => {
        surface[unit * points.length + at] = v;
      }));
      return surface;
    });
    const outputs = input.grid(PLANE).map((point) =>
      shown(network.forward(standardise(point)).at(-1).data));
    plane = { key, surfaces, outputs };
  }
  return plane.surfaces;
}

// Returns the colour of an output: of probabilities the mixture of the colours of the classes.
function planeColour(figures, scale) {
  const soften = (colour) => colour.map((c, i) => COLOURS.zero[i] + 0.75 * (c - COLOURS.zero[i]));
  if (!arePercentages) return soften(colourOf(figures[0], scale));
  if (figures.length === 1) return soften(colourOf(2 * figures[0] - 1, 1));
  const mixed = [0, 1, 2].map((i) =>
    sumOf(Array.from(figures, (p, k) => p * PALETTE[k % PALETTE.length][i])));
  return soften(mixed);
}

function showPlane(grad) {
  const scale = largest(plane.outputs.map((figures) => figures[0]));
  const targetColour = (target) => {
    if (target === undefined) return COLOURS.ink;
    if (rows.length > 1 && arePercentages) return PALETTE[target % PALETTE.length];
    return colourOf(arePercentages ? 2 * target - 1 : target, arePercentages ? 1 : scale);
  };
  input.draw(plane.outputs.map((figures) => planeColour(figures, scale)), PLANE, grad, targetColour);
}

// ---- what the network sees, and what speaks for its answer ----

let seen = null;
function buildSeen() {
  const shape = page.input_shape;
  if (["point", "numbers", "text"].includes(page.input)) {
    byId("seen").remove();
    return;
  }
  const image = new Picture({ label: "the input as the network gets it", most: 168 });
  const heat = new Picture({ label: "gradient of the score with respect to the input", most: 168 });
  const text = element("p", { className: "quiet" });
  const readout = element("p", { className: "quiet readout" });
  heat.hover = (index) => {
    readout.textContent = index === null ? "" : `derivative ${format(seen.grad[index])}`;
  };
  byId("seen").append(
    element("div", {}, element("h2", { textContent: "What the network sees" }), image.canvas),
    element("div", {}, element("h2", { textContent: "Which pixels speak for it" }), heat.canvas, text, readout),
    element("div", { className: "quiet key" }, "against", element("span"), "for"),
  );
  seen = { image, heat, text, shape, grad: null };
}

function explainedName({ value, index }) {
  if (value === page.score) return page.labels[index];
  const { name, label, shape } = network.layers[value - 1];
  return `${name} ${label} [${unravel(index, shape).join(", ")}]`;
}

function showExplanation(values) {
  const target = explained(values);
  const grad = gradientOf(values, target);
  if (input?.explain) input.explain(grad);
  if (page.input === "point") showPlane(grad);
  if (!seen) return;
  seen.grad = grad;
  seen.image.draw(page.input_shape, state.raw, { scale: Math.max(1, largest(state.raw)) });
  seen.heat.draw(page.input_shape, grad);
  seen.text.textContent = `gradient of the score of ${explainedName(target)}`;
}

// ---- everything at once ----

function pick(target) {
  const isSame = state.picked?.value === target.value && state.picked?.index === target.index;
  state.picked = isSame ? null : target;
  update();
}

let isPlanned = false;
function update() {
  if (isPlanned) return;
  isPlanned = true;
  requestAnimationFrame(() => {
    isPlanned = false;
    if (input === null) return;
    const begin = performance.now();
    state.values = network.forward(standardise(state.raw));
    byId("took").textContent = `${(performance.now() - begin).toFixed(1)} ms`;
    showOutputs(state.values);
    showLayers(state.values);
    showExplanation(state.values);
  });
}

function changed(raw) {
  state.raw = Float32Array.from(raw);
  update();
}

function start() {
  document.title = page.title;
  byId("title").textContent = page.title;
  byId("subtitle").textContent = page.subtitle;
  readColours();
  buildOutputs();
  buildLayers();
  buildSeen();
  const kinds = {
    drawing: DrawingInput, image: ImageInput, point: PointInput, numbers: NumbersInput, text: TextInput,
  };
  const given = { shape: page.input_shape, examples, start: mean, next: isWriter ? next : null };
  const options = { ...page, ...given };
  input = new kinds[page.input](byId("input"), options, changed);
  update();
  window.addEventListener("resize", update);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    update();
  });
}

start();
