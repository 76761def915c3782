// A network as arithmetic: each kind of layer once forward and once backward.
//
// A value is {shape, data}: the shape of one sample, without a batch axis, and its numbers row by
// row. `forward(layer, x)` returns the data of y. `backward(layer, grad, x, y)` returns the data of
// dL/dx for grad = dL/dy. `layer` has the options and weights that nnlite wrote into the page.

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

// The error function: W. H. Press et al., "Numerical Recipes", 2nd edition, section 6.2. The
// relative error is below 1.2e-7.
const ERFC = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806,
  0.27886807, -1.13520398, 1.48851587, -0.82215223, 0.17087277,
];
function normalCdf(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + z / 2);
  const tail = (t * Math.exp(-z * z + ERFC.reduceRight((sum, term) => sum * t + term, 0))) / 2;
  return x < 0 ? tail : 1 - tail;
}
const normalPdf = (x) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

const log1pExp = (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const hardsigmoid = (x) => Math.min(Math.max(x + 3, 0), 6) / 6;

const SELU_ALPHA = 1.6732632423543772;
const SELU_SCALE = 1.0507009873554805;

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const geluTanh = (x) => Math.tanh(GELU_SCALE * (x + 0.044715 * x ** 3));

// Functions of one number: y = f(x), and its derivative from x and y.
const FUNCTIONS = {
  ReLU: [(x) => (x < 0 ? 0 : x), (x, y) => (y > 0 ? 1 : 0)],
  LeakyReLU: [
    (x, layer) => (x > 0 ? x : layer.negative_slope * x),
    (x, y, layer) => (x > 0 ? 1 : layer.negative_slope),
  ],
  ELU: [
    (x, layer) => (x > 0 ? x : layer.alpha * Math.expm1(x)),
    (x, y, layer) => (x > 0 ? 1 : layer.alpha * Math.exp(x)),
  ],
  SiLU: [
    (x) => x * sigmoid(x),
    (x) => sigmoid(x) * (1 + x * (1 - sigmoid(x))),
  ],
  SELU: [
    (x) => SELU_SCALE * (x > 0 ? x : SELU_ALPHA * Math.expm1(x)),
    (x) => SELU_SCALE * (x > 0 ? 1 : SELU_ALPHA * Math.exp(x)),
  ],
  Mish: [
    (x) => x * Math.tanh(log1pExp(x)),
    (x) => {
      const t = Math.tanh(log1pExp(x));
      return t + x * (1 - t * t) * sigmoid(x);
    },
  ],
  Hardtanh: [
    (x, { low, high }) => Math.min(Math.max(x, low), high),
    (x, y, { low, high }) => (x > low && x < high ? 1 : 0),
  ],
  Hardswish: [
    (x) => x * hardsigmoid(x),
    (x) => hardsigmoid(x) + (Math.abs(x) < 3 ? x / 6 : 0),
  ],
  Hardsigmoid: [hardsigmoid, (x) => (Math.abs(x) < 3 ? 1 / 6 : 0)],
  Softplus: [
    (x, { beta, threshold }) => (beta * x > threshold ? x : log1pExp(beta * x) / beta),
    (x, y, { beta, threshold }) => (beta * x > threshold ? 1 : sigmoid(beta * x)),
  ],
  Softsign: [(x) => x / (1 + Math.abs(x)), (x) => 1 / (1 + Math.abs(x)) ** 2],
  LogSigmoid: [(x) => -log1pExp(-x), (x) => sigmoid(-x)],
  GELU: [(x) => x * normalCdf(x), (x) => normalCdf(x) + x * normalPdf(x)],
  GELUTanh: [
    (x) => (x / 2) * (1 + geluTanh(x)),
    (x) => {
      const t = geluTanh(x);
      return (1 + t) / 2 + (x / 2) * (1 - t * t) * GELU_SCALE * (1 + 3 * 0.044715 * x * x);
    },
  ],
  Abs: [Math.abs, Math.sign],
  Exp: [Math.exp, (x, y) => y],
  Log: [Math.log, (x) => 1 / x],
  Negative: [(x) => -x, () => -1],
  Power: [
    (x, { exponent }) => x ** exponent,
    (x, y, { exponent }) => (exponent === 0 ? 0 : exponent * x ** (exponent - 1)),
  ],
  Reciprocal: [(x) => 1 / x, (x, y) => -y * y],
  Sqrt: [Math.sqrt, (x, y) => 1 / (2 * y)],
  Square: [(x) => x * x, (x) => 2 * x],
  Sigmoid: [sigmoid, (x, y) => y * (1 - y)],
  Tanh: [Math.tanh, (x, y) => 1 - y * y],
};

function elementwise([value, derivative]) {
  return {
    forward: (layer, x) => x.data.map((v) => value(v, layer)),
    backward: (layer, grad, x, y) =>
      grad.data.map((g, i) => g * derivative(x.data[i], y.data[i], layer)),
  };
}

const LAYERS = {
  ...Object.fromEntries(Object.entries(FUNCTIONS).map(([kind, f]) => [kind, elementwise(f)])),

  // y = x in another shape: Flatten, Squeeze, Identity, and Dropout after training.
  Reshape: {
    forward: (layer, x) => x.data,
    backward: (layer, grad) => grad.data,
  },

  // y = x at chosen places of each plane, or between two of them: padding and Upsample. Outside of
  // the plane y is `value`; elsewhere the weights of its pixels have the sum 1.
  Gather: {
    forward(layer, x) {
      const y = new Float32Array(layer.size).fill(layer.value);
      eachSource(layer, x, (output, pixel, weight) => {
        y[output] += weight * (x.data[pixel] - layer.value);
      });
      return y;
    },
    backward(layer, grad, x) {
      const dx = new Float32Array(x.data.length);
      eachSource(layer, x, (output, pixel, weight) => {
        dx[pixel] += weight * grad.data[output];
      });
      return dx;
    },
  },

  // y = x where x > 0, otherwise weight · x, with one weight for each channel or one for all.
  PReLU: {
    forward: ({ weight }, x) =>
      x.data.map((v, i) => (v > 0 ? v : v * slopeOf(weight.data, x, i))),
    backward: ({ weight }, grad, x) =>
      grad.data.map((g, i) => (x.data[i] > 0 ? g : g * slopeOf(weight.data, x, i))),
  },

  // y = a σ(b) for the halves of an axis, which lie in turn in memory, `block` numbers each.
  GLU: {
    forward({ block, size }, x) {
      const y = new Float32Array(size);
      y.forEach((_, i) => {
        const a = i + Math.floor(i / block) * block;
        y[i] = x.data[a] * sigmoid(x.data[a + block]);
      });
      return y;
    },
    backward({ block }, grad, x) {
      const dx = new Float32Array(x.data.length);
      grad.data.forEach((g, i) => {
        const a = i + Math.floor(i / block) * block;
        const s = sigmoid(x.data[a + block]);
        dx[a] = g * s;
        dx[a + block] = g * x.data[a] * s * (1 - s);
      });
      return dx;
    },
  },

  // y = x Wᵀ + b for each row of x.        dL/dx = dL/dy W
  Linear: {
    forward({ weight, bias, size }, x) {
      const y = new Float32Array(size);
      const [outputs, inputs] = weight.shape;
      for (let i = 0; i < size; i++) {
        const row = Math.floor(i / outputs) * inputs;
        const line = (i % outputs) * inputs;
        let sum = bias ? bias.data[i % outputs] : 0;
        for (let k = 0; k < inputs; k++) sum += weight.data[line + k] * x.data[row + k];
        y[i] = sum;
      }
      return y;
    },
    backward({ weight, size }, grad, x) {
      const dx = new Float32Array(x.data.length);
      const [outputs, inputs] = weight.shape;
      for (let i = 0; i < size; i++) {
        const row = Math.floor(i / outputs) * inputs;
        const line = (i % outputs) * inputs;
        for (let k = 0; k < inputs; k++) dx[row + k] += weight.data[line + k] * grad.data[i];
      }
      return dx;
    },
  },

  // y[o, i, j] = b[o] + Σ weight[o, c, u, v] x[c, h, w], over the pixels (h, w) that the entry
  // (u, v) of the kernel meets.
  Conv: {
    forward(layer, x) {
      const y = new Float32Array(layer.size);
      const area = layer.size / layer.weight.shape[0];
      if (layer.bias) layer.bias.data.forEach((b, o) => y.fill(b, o * area, (o + 1) * area));
      eachKernel(layer, x, (kernel, image, output) =>
        eachRow(layer, (tap, first, pixel, count, step) => {
          const w = layer.weight.data[kernel + tap];
          for (let k = 0; k < count; k++) {
            y[output + first + k] += w * x.data[image + pixel + k * step];
          }
        }),
      );
      return y;
    },
    backward(layer, grad, x) {
      const dx = new Float32Array(x.data.length);
      eachKernel(layer, x, (kernel, image, output) =>
        eachRow(layer, (tap, first, pixel, count, step) => {
          const w = layer.weight.data[kernel + tap];
          for (let k = 0; k < count; k++) {
            dx[image + pixel + k * step] += w * grad.data[output + first + k];
          }
        }),
      );
      return dx;
    },
  },

  // The gradient of a Conv of the same options, as a layer: its pixels are those of y.
  ConvTranspose: {
    forward(layer, x) {
      const y = new Float32Array(layer.size);
      const area = layer.size / layer.shape[0];
      if (layer.bias) layer.bias.data.forEach((b, o) => y.fill(b, o * area, (o + 1) * area));
      eachKernel(layer, x, (kernel, image, input) =>
        eachRow(layer, (tap, first, pixel, count, step) => {
          const w = layer.weight.data[kernel + tap];
          for (let k = 0; k < count; k++) {
            y[image + pixel + k * step] += w * x.data[input + first + k];
          }
        }),
      );
      return y;
    },
    backward(layer, grad, x) {
      const dx = new Float32Array(x.data.length);
      eachKernel(layer, x, (kernel, image, input) =>
        eachRow(layer, (tap, first, pixel, count, step) => {
          const w = layer.weight.data[kernel + tap];
          for (let k = 0; k < count; k++) {
            dx[input + first + k] += w * grad.data[image + pixel + k * step];
          }
        }),
      );
      return dx;
    },
  },

  // The largest pixel of each window; the gradient goes to the first of several.
  MaxPool: {
    forward(layer, x) {
      const y = new Float32Array(layer.size).fill(-Infinity);
      eachPixel(layer, x, (output, pixel) => {
        if (!(x.data[pixel] <= y[output])) y[output] = x.data[pixel];
      });
      return y;
    },
    backward(layer, grad, x, y) {
      const dx = new Float32Array(x.data.length);
      const done = new Uint8Array(layer.size);
      eachPixel(layer, x, (output, pixel) => {
        if (done[output] || x.data[pixel] !== y.data[output]) return;
        dx[pixel] += grad.data[output];
        done[output] = 1;
      });
      return dx;
    },
  },

  // The mean of each window; layer.areas has the number of pixels that count in each.
  AvgPool: {
    forward(layer, x) {
      const y = new Float32Array(layer.size);
      const { data: areas } = layer.areas;
      eachPixel(layer, x, (output, pixel) => {
        y[output] += x.data[pixel] / areas[output % areas.length];
      });
      return y;
    },
    backward(layer, grad, x) {
      const dx = new Float32Array(x.data.length);
      const { data: areas } = layer.areas;
      eachPixel(layer, x, (output, pixel) => {
        dx[pixel] += grad.data[output] / areas[output % areas.length];
      });
      return dx;
    },
  },

  // y = factor · x + shift for each channel: a BatchNorm after training.
  BatchNorm: {
    forward({ factor, shift }, x) {
      const area = x.data.length / x.shape[0];
      return x.data.map((v, i) => {
        const channel = Math.floor(i / area);
        return v * factor.data[channel] + shift.data[channel];
      });
    },
    backward({ factor }, grad, x) {
      const area = x.data.length / x.shape[0];
      return grad.data.map((g, i) => g * factor.data[Math.floor(i / area)]);
    },
  },

  // x̂ = (x - μ) / √(σ² + eps) over each row of `count` numbers, y = weight · x̂ + bias, where one
  // weight is for `area` numbers, and the weights recur after their last one;
  // dL/dx = (Ĝ - mean(Ĝ) - x̂ mean(Ĝ x̂)) / √(σ² + eps) for Ĝ = weight · dL/dy
  LayerNorm: {
    forward({ weight, bias, count, area, eps }, x) {
      const y = new Float32Array(x.data.length);
      for (let start = 0; start < y.length; start += count) {
        const { centred } = standardized(x.data.subarray(start, start + count), eps);
        centred.forEach((v, i) => {
          const at = Math.floor((start + i) / area);
          y[start + i] = v * recurring(weight, at, 1) + recurring(bias, at, 0);
        });
      }
      return y;
    },
    backward({ weight, count, area, eps }, grad, x) {
      const dx = new Float32Array(x.data.length);
      for (let start = 0; start < dx.length; start += count) {
        const { centred, scale } = standardized(x.data.subarray(start, start + count), eps);
        const g = centred.map((_, i) => {
          const w = recurring(weight, Math.floor((start + i) / area), 1);
          return grad.data[start + i] * w;
        });
        const mean = average(g);
        const slope = average(g.map((v, i) => v * centred[i]));
        g.forEach((v, i) => {
          dx[start + i] = scale * (v - mean - centred[i] * slope);
        });
      }
      return dx;
    },
  },

  // x̂ = x / √(mean(x²) + eps) over each row of `count` numbers, y = weight · x̂;
  // dL/dx = (Ĝ - x̂ mean(Ĝ x̂)) / √(mean(x²) + eps) for Ĝ = weight · dL/dy
  RMSNorm: {
    forward({ weight, count, eps }, x) {
      const y = new Float32Array(x.data.length);
      for (let start = 0; start < y.length; start += count) {
        const row = x.data.subarray(start, start + count);
        const scale = 1 / Math.sqrt(average(row.map((v) => v * v)) + eps);
        row.forEach((v, i) => {
          y[start + i] = v * scale * recurring(weight, i, 1);
        });
      }
      return y;
    },
    backward({ weight, count, eps }, grad, x) {
      const dx = new Float32Array(x.data.length);
      for (let start = 0; start < dx.length; start += count) {
        const row = x.data.subarray(start, start + count);
        const scale = 1 / Math.sqrt(average(row.map((v) => v * v)) + eps);
        const g = row.map((_, i) => grad.data[start + i] * recurring(weight, i, 1));
        const slope = average(g.map((v, i) => v * row[i] * scale));
        g.forEach((v, i) => {
          dx[start + i] = scale * (v - row[i] * scale * slope);
        });
      }
      return dx;
    },
  },

  // y = exp(x) / Σ exp(x) along an axis.        dL/dx = y (G - Σ G y)
  Softmax: {
    forward: (layer, x) =>
      alongAxis(layer, (at) => {
        const powers = exponentials(at, x.data);
        const total = sumOf(powers);
        return powers.map((v) => v / total);
      }),
    backward: (layer, grad, x, y) =>
      alongAxis(layer, (at) => {
        const dot = sumOf(at.map((i) => grad.data[i] * y.data[i]));
        return at.map((i) => y.data[i] * (grad.data[i] - dot));
      }),
  },

  // y = x - log Σ exp(x) along an axis.         dL/dx = G - exp(y) Σ G
  LogSoftmax: {
    forward: (layer, x) =>
      alongAxis(layer, (at) => {
        const top = Math.max(...at.map((i) => x.data[i]));
        const total = Math.log(sumOf(exponentials(at, x.data))) + top;
        return at.map((i) => x.data[i] - total);
      }),
    backward: (layer, grad, x, y) =>
      alongAxis(layer, (at) => {
        const total = sumOf(at.map((i) => grad.data[i]));
        return at.map((i) => grad.data[i] - Math.exp(y.data[i]) * total);
      }),
  },
};

// Element i of an array without an end, or what stands for an array that there is not.
const recurring = (array, i, neutral) => (array ? array.data[i % array.data.length] : neutral);

// The slope of a PReLU at place i.
const slopeOf = (slopes, x, i) =>
  slopes[slopes.length === 1 ? 0 : Math.floor(i / (x.data.length / x.shape[0]))];

const sumOf = (values) => values.reduce((sum, v) => sum + v, 0);
const average = (values) => sumOf(values) / values.length;

// exp(x - max x) at some places: nothing overflows.
function exponentials(at, data) {
  const top = Math.max(...at.map((i) => data[i]));
  return at.map((i) => Math.exp(data[i] - top));
}

function standardized(row, eps) {
  const values = Array.from(row);
  const mean = average(values);
  const scale = 1 / Math.sqrt(average(values.map((v) => (v - mean) ** 2)) + eps);
  return { centred: values.map((v) => (v - mean) * scale), scale };
}

// Calls `compute(places)` for every line along the axis, and puts what it returns there.
function alongAxis({ size, count, stride }, compute) {
  const result = new Float32Array(size);
  for (let outer = 0; outer < size; outer += count * stride) {
    for (let inner = 0; inner < stride; inner++) {
      const at = Array.from({ length: count }, (_, k) => outer + k * stride + inner);
      compute(at).forEach((v, k) => {
        result[at[k]] = v;
      });
    }
  }
  return result;
}

// ---- windows that slide over images ----

// Calls `visit` for every pair of an output row and an entry of the window that meets the image
// there: the entry's index, the place of the first output and of its pixel, the number of outputs,
// and the distance between their pixels.
function eachRow({ rows, columns }, visit) {
  for (let u = 0; u < rows.taps; u++) {
    for (let v = 0; v < columns.taps; v++) {
      const left = v * columns.dilation - columns.padding;
      const start = Math.max(0, Math.ceil(-left / columns.stride));
      const end = Math.floor((columns.inputs - 1 - left) / columns.stride) + 1;
      const count = Math.min(columns.outputs, end) - start;
      if (count <= 0) continue;
      for (let i = 0; i < rows.outputs; i++) {
        const h = i * rows.stride + u * rows.dilation - rows.padding;
        if (h < 0 || h >= rows.inputs) continue;
        const pixel = h * columns.inputs + start * columns.stride + left;
        visit(u * columns.taps + v, i * columns.outputs + start, pixel, count, columns.stride);
      }
    }
  }
}

// Calls `visit` for every kernel: where it begins, and where its image and its output do.
function eachKernel({ weight, groups, rows, columns }, x, visit) {
  const [outputs, channels] = weight.shape;
  for (let o = 0; o < outputs; o++) {
    const first = Math.floor((o * groups) / outputs) * channels;
    for (let c = 0; c < channels; c++) {
      visit(
        (o * channels + c) * rows.taps * columns.taps,
        (first + c) * rows.inputs * columns.inputs,
        o * rows.outputs * columns.outputs,
      );
    }
  }
}

// Calls `visit(output, pixel)` for every output of a pool and every pixel in its window, which
// slides, or is one of the `parts` of each axis, given by their ends.
function eachPixel(layer, x, visit) {
  const { rows, columns } = layer;
  const area = rows.inputs * columns.inputs;
  const outputs = rows.outputs * columns.outputs;
  for (let c = 0; c < x.data.length / area; c++) {
    if (rows.parts) {
      rows.parts.forEach(([top, bottom], i) =>
        columns.parts.forEach(([left, right], j) => {
          for (let h = top; h < bottom; h++) {
            for (let w = left; w < right; w++) {
              visit(c * outputs + i * columns.outputs + j, c * area + h * columns.inputs + w);
            }
          }
        }),
      );
      continue;
    }
    eachRow(layer, (tap, first, pixel, count, step) => {
      for (let k = 0; k < count; k++) {
        visit(c * outputs + first + k, c * area + pixel + k * step);
      }
    });
  }
}

// Calls `visit(output, pixel, weight)` for every output of a Gather and every pixel that it depends
// on. Along an axis, output i is (1 - part[i]) x[first[i]] + part[i] x[first[i] + 1], of which the
// last has no follower but itself; it is outside of the image where first[i] is -1.
function eachSource({ rows, columns }, x, visit) {
  const [rowSources, columnSources] = [rows, columns].map(({ inputs, first, part }) =>
    first.map((k, i) => {
      if (k < 0) return [];
      return part[i] ? [[k, 1 - part[i]], [Math.min(k + 1, inputs - 1), part[i]]] : [[k, 1]];
    }),
  );
  const area = rows.inputs * columns.inputs;
  let output = 0;
  for (let c = 0; c < x.data.length / area; c++) {
    for (const fromRows of rowSources) {
      for (const fromColumns of columnSources) {
        for (const [h, ofRow] of fromRows) {
          for (const [w, ofColumn] of fromColumns) {
            visit(output, c * area + h * columns.inputs + w, ofRow * ofColumn);
          }
        }
        output += 1;
      }
    }
  }
}

// ---- the network ----

// Each layer takes the values with the numbers layer.inputs: 0 is the input of the network, and
// k + 1 is what layer k returns.
class Network {
  constructor(description) {
    this.inputShape = description.input_shape;
    this.layers = description.layers.map(decoded);
  }

  // Returns all values, from the input to the output.
  forward(data) {
    const values = [{ shape: this.inputShape, data: Float32Array.from(data) }];
    for (const layer of this.layers) {
      const inputs = layer.inputs.map((index) => values[index]);
      values.push({ shape: layer.shape, data: LAYERS[layer.kind].forward(layer, ...inputs) });
    }
    return values;
  }

  // Returns dL/d(input), for the gradient `grad` of the value with the number `last`.
  backward(values, grad, last = this.layers.length) {
    const grads = values.map(() => null);
    grads[last] = Float32Array.from(grad);
    for (let k = last - 1; k >= 0; k--) {
      if (!grads[k + 1]) continue;
      const layer = this.layers[k];
      const inputs = layer.inputs.map((index) => values[index]);
      const upstream = { shape: layer.shape, data: grads[k + 1] };
      const found = LAYERS[layer.kind].backward(layer, upstream, ...inputs, values[k + 1]);
      layer.inputs.forEach((index, place) => {
        const part = layer.inputs.length > 1 ? found[place] : found;
        grads[index] = grads[index] ? grads[index].map((v, i) => v + part[i]) : part;
      });
    }
    return grads[0] || new Float32Array(values[0].data.length);
  }
}

// Returns a layer with its arrays as numbers.
function decoded(layer) {
  const arrays = Object.entries(layer).filter(([, option]) => option && option.base64 !== undefined);
  const numbers = arrays.map(([name, array]) => [name, { shape: array.shape, data: decode(array) }]);
  return { ...layer, ...Object.fromEntries(numbers), size: layer.shape.reduce((a, b) => a * b, 1) };
}
