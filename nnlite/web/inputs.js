// The ways to give the network an input. Each is a class that fills the card of the input, and
// calls `changed(values)` with the numbers of one sample, before they are standardised.

// ---- a drawing, placed as MNIST's digits are ----

// The side of MNIST's images, of the box that a digit is scaled to, and the width of a stroke.
const MNIST = { side: 28, box: 20, stroke: 2.4 };
const OVERSAMPLING = 8;

// Returns strokes as an image of height × width from 0 to 1: scaled to the box with their aspect
// ratio kept, and moved until the centre of mass is in the middle. Each pixel is the mean of 8 × 8.
function rasterize(strokes, height, width) {
  const unit = (Math.min(height, width) / MNIST.side) * OVERSAMPLING;
  const points = strokes.flat();
  const image = new Float32Array(height * width);
  if (!points.length) return image;
  const [left, right] = extent(points.map(([x]) => x));
  const [top, bottom] = extent(points.map(([, y]) => y));
  // A dot stays a dot: less than a fifth of the drawing is not blown up further.
  const side = Math.max(right - left, bottom - top, 0.2);
  const scale = ((MNIST.box - MNIST.stroke) * unit) / side;

  const canvas = element("canvas", { width: width * OVERSAMPLING, height: height * OVERSAMPLING });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: MNIST.stroke * unit });
  const paint = (shiftX, shiftY) => {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.translate(shiftX, shiftY);
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y]) => {
        context.lineTo((x - (left + right) / 2) * scale, (y - (top + bottom) / 2) * scale);
      });
      if (stroke.length === 1) context.lineTo((stroke[0][0] - (left + right) / 2) * scale + 0.1,
        (stroke[0][1] - (top + bottom) / 2) * scale);
      context.stroke();
    }
    return context.getImageData(0, 0, canvas.width, canvas.height).data;
  };
  // MNIST's images have their centre of mass in the middle of pixel 14: half a pixel off theirs.
  const middle = [(canvas.width + unit) / 2, (canvas.height + unit) / 2];
  const centre = centreOfMass(paint(...middle), canvas.width);
  const pixels = paint(2 * middle[0] - centre[0], 2 * middle[1] - centre[1]);
  for (let index = 0; index < canvas.width * canvas.height; index++) {
    const row = Math.floor(index / canvas.width / OVERSAMPLING);
    const column = Math.floor((index % canvas.width) / OVERSAMPLING);
    image[row * width + column] += pixels[4 * index + 3] / 255 / OVERSAMPLING ** 2;
  }
  return image;
}

const extent = (values) => [Math.min(...values), Math.max(...values)];

// Returns x and y of the centre of mass of the opacity.
function centreOfMass(pixels, width) {
  let [total, x, y] = [0, 0, 0];
  for (let index = 0; index < pixels.length / 4; index++) {
    const mass = pixels[4 * index + 3];
    total += mass;
    x += mass * ((index % width) + 0.5);
    y += mass * (Math.floor(index / width) + 0.5);
  }
  return [x / total, y / total];
}

class DrawingInput {
  constructor(card, { shape, examples }, changed) {
    this.size = shape.slice(-2);
    this.changed = changed;
    this.strokes = [];
    this.canvas = element("canvas", {
      className: "surface drawing", id: "drawing", tabIndex: 0,
      "aria-label": "Draw here with mouse or finger",
    });
    this.message = messageLine();
    const clear = element("button", { textContent: "Clear", onclick: () => this.clear() });
    const undo = element("button", { textContent: "Undo", onclick: () => this.undo() });
    const buttons = element("div", { className: "buttons" }, clear, undo);
    buttons.append(fileButton("Open an image", (file) => this.open(file)));
    card.append(this.canvas, buttons, this.message);
    addExamples(card, examples, (values) => {
      this.strokes = [];
      this.redraw();
      changed(values);
    });
    acceptDrops(card, (file) => this.open(file));
    this.listen();
    this.clear();
    window.addEventListener("resize", () => this.redraw());
  }

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    let drawing = null; // the id of the pointer that draws
    this.canvas.addEventListener("pointerdown", (event) => {
      if (drawing !== null || event.button) return;
      event.preventDefault();
      drawing = event.pointerId;
      this.canvas.setPointerCapture(drawing);
      this.strokes.push([at(event)]);
      this.update();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== drawing) return;
      const events = event.getCoalescedEvents?.() ?? [];
      this.strokes.at(-1).push(...(events.length ? events : [event]).map(at));
      this.update();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.canvas.addEventListener(name, (event) => {
        if (event.pointerId === drawing) drawing = null;
      });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" || event.key === "Delete") this.clear();
      if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    });
  }

  clear() {
    this.strokes = [];
    this.update();
  }

  undo() {
    this.strokes.pop();
    this.update();
  }

  update() {
    this.redraw();
    this.changed(rasterize(this.strokes, ...this.size));
  }

  // Shows the strokes as they were drawn.
  redraw() {
    const ratio = window.devicePixelRatio || 1;
    const side = this.canvas.clientWidth * ratio;
    Object.assign(this.canvas, { width: side, height: side });
    const context = this.canvas.getContext("2d");
    Object.assign(context, {
      lineCap: "round", lineJoin: "round", lineWidth: side / 14,
      strokeStyle: "#f4f1ea", fillStyle: "rgb(255 255 255 / 0.35)", font: `${15 * ratio}px system-ui`,
      textAlign: "center",
    });
    if (!this.strokes.length) context.fillText("draw here", side / 2, side / 2);
    for (const stroke of this.strokes) {
      context.beginPath();
      stroke.forEach(([x, y]) => context.lineTo(x * side, y * side));
      if (stroke.length === 1) context.lineTo(stroke[0][0] * side + 0.1, stroke[0][1] * side);
      context.stroke();
    }
  }

  async open(file) {
    const values = await imageValues(file, [1, ...this.size], this.message);
    if (values === null) return;
    this.strokes = [];
    this.redraw();
    // Ink is bright here: a picture on white paper is inverted.
    const [height, width] = this.size;
    const edge = values.filter((_, i) => i < width || i >= width * (height - 1));
    const paper = edge.reduce((sum, v) => sum + v, 0) / edge.length;
    this.changed(paper > 0.5 ? values.map((v) => 1 - v) : values);
  }
}

// ---- an image ----

// Returns the pixels of an image file, from 0 to 1, in the shape (C, H, W); or null, with a message.
async function imageValues(file, [channels, height, width], message) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  message.textContent = bitmap ? "" : `${file.name} cannot be read as an image.`;
  if (!bitmap) return null;
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const area = height * width;
  return Float32Array.from({ length: channels * area }, (_, index) => {
    const pixel = 4 * (index % area);
    if (channels === 3) return data[pixel + Math.floor(index / area)] / 255;
    return (0.299 * data[pixel] + 0.587 * data[pixel + 1] + 0.114 * data[pixel + 2]) / 255;
  });
}

class ImageInput {
  constructor(card, { shape, examples }, changed) {
    const message = messageLine();
    const open = async (file) => {
      const values = await imageValues(file, shape, message);
      if (values !== null) changed(values);
    };
    card.append(
      element("h2", { textContent: "Drop an image here" }),
      element("p", { className: "quiet", textContent: `It is scaled to ${describeShape(shape)}.` }),
      element("div", { className: "buttons" }, fileButton("Open an image", open)),
      message,
    );
    addExamples(card, examples, changed);
    acceptDrops(card, open);
    changed(examples[0] ?? new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5));
  }
}

// ---- numbers: a form, or a file ----

const MOST_FIELDS = 40;

class NumbersInput {
  constructor(card, { shape, features, indices, examples, start }, changed) {
    this.count = shape.reduce((a, b) => a * b, 1);
    this.indices = indices;
    this.changed = changed;
    this.message = messageLine();
    card.append(element("h2", { textContent: "Input" }));
    this.fields = [];
    if (this.count <= MOST_FIELDS) {
      const form = element("div", { className: "fields" });
      for (let index = 0; index < this.count; index++) {
        const field = element("input", { type: "number", step: "any" });
        const bar = element("i");
        field.addEventListener("input", () => this.read());
        form.append(element("label", {}, features?.[index] ?? `x${index}`, field, bar));
        this.fields.push({ field, bar });
      }
      card.append(form);
    } else {
      this.text = element("textarea", { rows: 6, placeholder: `${this.count} numbers` });
      this.text.addEventListener("input", () => this.parse(this.text.value));
      card.append(this.text);
    }
    const open = async (file) => this.parse(await file.text());
    card.append(
      element("div", { className: "buttons" }, fileButton("Open a file of numbers", open)),
      this.message,
    );
    addExamples(card, examples, (values) => this.set(values));
    acceptDrops(card, open);
    this.set(examples[0] ?? start);
  }

  set(values) {
    this.message.textContent = "";
    this.fields.forEach(({ field }, index) => {
      field.value = Number(values[index].toPrecision(6));
    });
    if (this.text) this.text.value = Array.from(values, (v) => Number(v.toPrecision(6))).join(" ");
    this.changed(values);
  }

  read() {
    const values = this.fields.map(({ field }) => field.valueAsNumber);
    const fault = values.every(Number.isFinite) ? this.faultOf(values) : "Every field needs a number.";
    this.message.textContent = fault;
    if (!fault) this.changed(Float32Array.from(values));
  }

  // Says what is wrong with numbers that are to be indices, if they are.
  faultOf(values) {
    const isIndex = (value) => Number.isInteger(value) && value >= 0 && value < this.indices;
    if (this.indices === null || values.every(isIndex)) return "";
    return `Expected whole numbers from 0 to ${this.indices - 1}.`;
  }

  // Takes the numbers of a text, such as a line of a table.
  parse(text) {
    const words = text.split(/[\s,;[\]]+/).filter((word) => word);
    const values = words.map(Number);
    const isComplete = values.length === this.count && values.every(Number.isFinite);
    const fault = isComplete
      ? this.faultOf(values)
      : `Expected ${this.count} numbers, got ${words.length} words.`;
    if (fault) this.message.textContent = fault;
    else this.set(values);
  }

  // Shows under each field which way it moves the score.
  explain(grad) {
    const scale = largest(grad);
    this.fields.forEach(({ bar }, index) => {
      bar.style.background = `rgb(${colourOf(grad[index], scale)})`;
      bar.title = `derivative of the score: ${format(grad[index])}`;
    });
  }
}

// ---- a text, of which the network gets the codes of the last characters ----

const PAGE_OF_TEXT = 300; // characters that are written at once

class TextInput {
  // `next(temperature)`, if any, returns the code of a character drawn from the output.
  constructor(card, { shape, alphabet, examples, next }, changed) {
    Object.assign(this, { length: shape[0], alphabet, changed, next, isWriting: false });
    this.text = element("textarea", { rows: 8, "aria-label": "Text", placeholder: "type here" });
    this.text.addEventListener("input", () => this.read());
    this.message = messageLine();
    this.seen = element("p", { className: "mono codes" });
    const clear = element("button", { textContent: "Clear", onclick: () => this.set("") });
    const buttons = element("div", { className: "buttons" }, clear);
    card.append(element("h2", { textContent: "Text" }), this.text, buttons, this.message);
    if (next) {
      this.button = element("button", { textContent: "Write", onclick: () => this.write() });
      this.temperature = element("input", {
        type: "range", min: 0.1, max: 1.5, step: 0.05, value: 0.6, "aria-label": "Temperature",
      });
      const figure = element("span", { textContent: "0.6" });
      this.temperature.addEventListener("input", () => {
        figure.textContent = this.temperature.value;
      });
      buttons.prepend(this.button);
      buttons.append(element("label", { className: "quiet key" }, "temperature", this.temperature, figure));
    }
    card.append(
      element("h2", { textContent: "What the network sees" }),
      this.seen,
      element("div", { className: "quiet key" }, "against", element("span"), "for"),
    );
    const texts = examples.map((codes) => Array.from(codes, (code) => alphabet[code] ?? "").join(""));
    addExamples(card, texts, (text) => this.set(text));
    this.set(texts[0] ?? "");
  }

  set(text) {
    this.text.value = text;
    this.isWriting = false;
    this.read();
  }

  // Takes the text; shorter than the input it is filled up with code 0 in front.
  read() {
    const characters = [...this.text.value];
    const unknown = characters.find((character) => !this.alphabet.includes(character));
    this.message.textContent = unknown === undefined ? "" : `“${unknown}” is not in the alphabet.`;
    if (unknown !== undefined) return;
    const codes = characters.slice(-this.length).map((character) => this.alphabet.indexOf(character));
    this.codes = [...Array(this.length - codes.length).fill(0), ...codes];
    this.changed(Float32Array.from(this.codes));
  }

  // Appends characters to the text, each drawn from what the network expects after those before it.
  async write() {
    this.isWriting = !this.isWriting && !this.message.textContent;
    this.button.textContent = this.isWriting ? "Stop" : "Write";
    for (let count = 0; this.isWriting && count < PAGE_OF_TEXT; count++) {
      this.text.value += this.alphabet[this.next(Number(this.temperature.value))];
      this.text.scrollTop = this.text.scrollHeight;
      this.read();
      await new Promise(requestAnimationFrame); // after that of the page, which has been asked first
    }
    this.isWriting = false;
    this.button.textContent = "Write";
  }

  // Shows under each character which way it moves the score.
  explain(grad) {
    const scale = largest(grad);
    const characters = this.codes.map((code, index) => {
      const shown = element("span", { textContent: visible(this.alphabet[code]) });
      shown.style.background = `rgb(${colourOf(grad[index], scale)})`;
      shown.title = `gradient · vector: ${format(grad[index])}`;
      return shown;
    });
    this.seen.replaceChildren(...characters);
  }
}

// ---- a point in the plane ----

class PointInput {
  constructor(card, { features, examples, targets, range, start }, changed) {
    Object.assign(this, { examples, targets, changed, range, point: Array.from(start) });
    this.canvas = element("canvas", {
      className: "surface drawing", id: "plane", tabIndex: 0,
      "aria-label": "The plane of the inputs: click or drag to move the point",
    });
    const zoom = (factor) => () => {
      this.range = this.range.map(([low, high]) => {
        const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
        return [middle - half, middle + half];
      });
      this.moved();
    };
    this.axes = element("p", { className: "quiet" });
    this.features = features ?? ["x0", "x1"];
    card.append(
      this.canvas,
      this.axes,
      element("div", { className: "buttons" },
        element("button", { textContent: "Zoom in", onclick: zoom(1 / 1.5) }),
        element("button", { textContent: "Zoom out", onclick: zoom(1.5) })),
    );
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.canvas.setPointerCapture(event.pointerId);
      this.to(event);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.canvas.hasPointerCapture(event.pointerId)) this.to(event);
    });
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    this.canvas.addEventListener("keydown", (event) => {
      if (!steps[event.key]) return;
      event.preventDefault();
      this.point = this.point.map((value, axis) => {
        const [low, high] = this.range[axis];
        return value + (steps[event.key][axis] * (high - low)) / 50;
      });
      this.moved();
    });
    this.moved();
  }

  to(event) {
    const box = this.canvas.getBoundingClientRect();
    const at = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    this.point = at.map((t, axis) => this.range[axis][0] + t * (this.range[axis][1] - this.range[axis][0]));
    this.moved();
  }

  moved() {
    const texts = this.features.map((name, axis) => `${name} = ${format(this.point[axis], 3)}`);
    this.axes.textContent = texts.join(", ");
    this.changed(Float32Array.from(this.point));
  }

  // Where a point lies in the picture, from 0 to 1.
  place(point) {
    const [x, y] = this.range.map(([low, high], axis) => (point[axis] - low) / (high - low));
    return [x, 1 - y];
  }

  // The middles of the cells of a grid, row by row from the top.
  grid(side) {
    const [[left, right], [bottom, top]] = this.range;
    return Array.from({ length: side * side }, (_, index) => [
      left + ((right - left) * ((index % side) + 0.5)) / side,
      top - ((top - bottom) * (Math.floor(index / side) + 0.5)) / side,
    ]);
  }

  // Draws the colours of a grid, the examples, the point, and an arrow along `grad`.
  draw(colours, side, grad, colourOfTarget) {
    const ratio = window.devicePixelRatio || 1;
    const width = this.canvas.clientWidth * ratio;
    Object.assign(this.canvas, { width, height: width });
    const context = this.canvas.getContext("2d");
    const small = element("canvas", { width: side, height: side });
    const pixels = new ImageData(side, side);
    colours.forEach((colour, index) => pixels.data.set([...colour, 255], 4 * index));
    small.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(small, 0, 0, width, width);
    const dot = (point, radius, fill, edge) => {
      const [x, y] = this.place(point);
      context.beginPath();
      context.arc(x * width, y * width, radius * ratio, 0, 7);
      Object.assign(context, { fillStyle: fill, strokeStyle: edge, lineWidth: 1.5 * ratio });
      context.fill();
      context.stroke();
    };
    this.examples.forEach((point, index) => {
      dot(point, 3, `rgb(${colourOfTarget(this.targets?.[index])})`, `rgb(${COLOURS.zero})`);
    });
    const spans = this.range.map(([low, high]) => high - low);
    const slope = [grad[0] * spans[0], -grad[1] * spans[1]];
    const length = Math.hypot(...slope);
    const [x, y] = this.place(this.point).map((t) => t * width);
    if (length > 0) {
      const [dx, dy] = slope.map((part) => (part / length) * 34 * ratio);
      Object.assign(context, { strokeStyle: `rgb(${COLOURS.ink})`, lineWidth: 2 * ratio });
      context.beginPath();
      context.moveTo(x, y);
      context.lineTo(x + dx, y + dy);
      context.moveTo(x + 0.75 * dx - 0.15 * dy, y + 0.75 * dy + 0.15 * dx);
      context.lineTo(x + dx, y + dy);
      context.lineTo(x + 0.75 * dx + 0.15 * dy, y + 0.75 * dy - 0.15 * dx);
      context.stroke();
    }
    dot(this.point, 6, `rgb(${COLOURS.ink})`, `rgb(${COLOURS.zero})`);
  }
}

// ---- messages, files and examples ----

const messageLine = () => element("p", { className: "message", role: "alert" });

function fileButton(text, open) {
  const input = element("input", { type: "file" });
  input.addEventListener("change", () => input.files[0] && open(input.files[0]));
  return element("label", { className: "file" }, text, input);
}

function acceptDrops(card, open) {
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("dropping");
  });
  card.addEventListener("dragleave", () => card.classList.remove("dropping"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("dropping");
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
}

function addExamples(card, examples, show) {
  if (!examples.length) return;
  const buttons = examples.map((values, index) =>
    element("button", { textContent: String(index + 1), onclick: () => show(values) }));
  card.append(
    element("p", { className: "quiet", textContent: "Examples" }),
    element("div", { className: "buttons" }, ...buttons),
  );
}
