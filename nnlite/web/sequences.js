// Layers of sequences: Embedding, attention and recurrence. More kinds of layers, as in network.js.

// W x + b
function affine(weight, bias, x) {
  const [rows, columns] = weight.shape;
  return Float32Array.from({ length: rows }, (_, i) => {
    let sum = bias ? bias.data[i] : 0;
    for (let k = 0; k < columns; k++) sum += weight.data[i * columns + k] * x[k];
    return sum;
  });
}

// Adds Wᵀ g to dx.
function addTransposed(weight, g, dx) {
  const columns = weight.shape[1];
  g.forEach((v, i) => {
    for (let k = 0; k < columns; k++) dx[k] += weight.data[i * columns + k] * v;
  });
}

// ---- recurrence ----

// One step of each kind, with u = W_ih x + b_ih, v = W_hh h + b_hh and H units. `step` returns the
// new state {h, c}, and what `back` needs; `back` gets dL/dh and dL/dc of the new state and returns
// dL/du, dL/dv, and dL/dh and dL/dc of the state before, without the path through v.
const blank = (count) => new Float32Array(count);
const STEPS = {
  RNN: {
    step(u, v, state, { relu }) {
      const h = u.map((_, i) => (relu ? Math.max(u[i] + v[i], 0) : Math.tanh(u[i] + v[i])));
      return { h, c: state.c };
    },
    back({ h }, before, dh, dc, { relu }) {
      const da = dh.map((g, i) => g * (relu ? Number(h[i] > 0) : 1 - h[i] * h[i]));
      return { du: da, dv: da, dh: blank(h.length), dc };
    },
  },
  LSTM: {
    step(u, v, state) {
      const size = state.h.length;
      const a = u.map((each, i) => each + v[i]);
      const [i, f, o] = [0, 1, 3].map((k) => a.slice(k * size, (k + 1) * size).map(sigmoid));
      const g = a.slice(2 * size, 3 * size).map(Math.tanh);
      const c = state.c.map((each, k) => f[k] * each + i[k] * g[k]);
      return { h: c.map((each, k) => o[k] * Math.tanh(each)), c, i, f, g, o };
    },
    back({ c, i, f, g, o }, before, dh, dcAfter) {
      const size = c.length;
      const da = blank(4 * size);
      const dc = blank(size);
      for (let k = 0; k < size; k++) {
        const tanh = Math.tanh(c[k]);
        const flow = dcAfter[k] + dh[k] * o[k] * (1 - tanh * tanh);
        da[k] = flow * g[k] * i[k] * (1 - i[k]);
        da[size + k] = flow * before.c[k] * f[k] * (1 - f[k]);
        da[2 * size + k] = flow * i[k] * (1 - g[k] * g[k]);
        da[3 * size + k] = dh[k] * tanh * o[k] * (1 - o[k]);
        dc[k] = flow * f[k];
      }
      return { du: da, dv: da, dh: blank(size), dc };
    },
  },
  GRU: {
    step(u, v, state) {
      const size = state.h.length;
      const [r, z] = [0, size].map((at) => state.h.map((_, k) => sigmoid(u[at + k] + v[at + k])));
      const n = state.h.map((_, k) => Math.tanh(u[2 * size + k] + r[k] * v[2 * size + k]));
      const h = state.h.map((each, k) => (1 - z[k]) * n[k] + z[k] * each);
      return { h, c: state.c, r, z, n, vn: v.slice(2 * size) };
    },
    back({ r, z, n, vn }, before, dh, dc) {
      const size = r.length;
      const [du, dv] = [blank(3 * size), blank(3 * size)];
      for (let k = 0; k < size; k++) {
        const dn = dh[k] * (1 - z[k]) * (1 - n[k] * n[k]);
        du[k] = dv[k] = dn * vn[k] * r[k] * (1 - r[k]);
        du[size + k] = dv[size + k] = dh[k] * (before.h[k] - n[k]) * z[k] * (1 - z[k]);
        du[2 * size + k] = dn;
        dv[2 * size + k] = dn * r[k];
      }
      return { du, dv, dh: dh.map((g, k) => g * z[k]), dc };
    },
  },
};

// Returns the states of a recurrent layer before and after each step, in the order of the steps.
function statesOf(layer, x) {
  const [length, features] = x.shape;
  const size = layer.shape[1];
  const states = [{ h: blank(size), c: blank(size) }];
  for (let step = 0; step < length; step++) {
    const t = layer.reverse ? length - 1 - step : step;
    const u = affine(layer.weight_ih, layer.bias_ih, x.data.subarray(t * features, (t + 1) * features));
    const v = affine(layer.weight_hh, layer.bias_hh, states[step].h);
    states.push(STEPS[layer.kind].step(u, v, states[step], layer));
  }
  return states;
}

const RECURRENT = {
  forward(layer, x) {
    const y = blank(layer.size);
    const [length, size] = layer.shape;
    statesOf(layer, x).slice(1).forEach(({ h }, step) => {
      y.set(h, (layer.reverse ? length - 1 - step : step) * size);
    });
    return y;
  },
  backward(layer, grad, x) {
    const [length, features] = x.shape;
    const size = layer.shape[1];
    const states = statesOf(layer, x);
    const dx = blank(x.data.length);
    let [dh, dc] = [blank(size), blank(size)];
    for (let step = length - 1; step >= 0; step--) {
      const t = layer.reverse ? length - 1 - step : step;
      const flow = dh.map((g, k) => g + grad.data[t * size + k]);
      const found = STEPS[layer.kind].back(states[step + 1], states[step], flow, dc, layer);
      addTransposed(layer.weight_ih, found.du, dx.subarray(t * features, (t + 1) * features));
      [dh, dc] = [found.dh, found.dc];
      addTransposed(layer.weight_hh, found.dv, dh);
      // Windows of truncated backpropagation are counted from the end.
      if (layer.truncate && (length - step) % layer.truncate === 0) [dh, dc] = [blank(size), blank(size)];
    }
    return dx;
  },
};

// ---- attention ----

// Calls `visit(h, i, j, q, k)` for every head, step of the query and step of the key that it may
// read, with the places at which the features of the head begin in both.
function eachPair({ heads, causal }, [length, width], steps, visit) {
  const size = width / heads;
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < length; i++) {
      const end = causal ? Math.min(i + 1, steps) : steps;
      for (let j = 0; j < end; j++) visit(h, i, j, i * width + h * size, j * width + h * size);
    }
  }
}

Object.assign(LAYERS, {
  RNN: RECURRENT,
  LSTM: RECURRENT,
  GRU: RECURRENT,

  // y_t = the vector of index x_t. An index has no gradient; in its place stands Σ G y, to first
  // order the change of L if the vector were scaled.
  Embedding: {
    forward({ weight, size }, x) {
      const y = new Float32Array(size);
      const width = weight.shape[1];
      x.data.forEach((index, t) => {
        y.set(weight.data.subarray(index * width, (index + 1) * width), t * width);
      });
      return y;
    },
    backward({ weight }, grad, x, y) {
      const width = weight.shape[1];
      return x.data.map((_, t) => {
        let sum = 0;
        for (let k = t * width; k < (t + 1) * width; k++) sum += grad.data[k] * y.data[k];
        return sum;
      });
    },
  },

  // A = softmax(Q Kᵀ / √D) for each head of D features, over the steps that may be read;
  // dS = A (dA - Σ A dA)    dQ = dS K / √D    dK = dSᵀ Q / √D
  AttentionWeights: {
    forward(layer, q, k) {
      const a = new Float32Array(layer.size);
      const [heads, length, steps] = layer.shape;
      const size = q.shape[1] / heads;
      const scores = new Float32Array(layer.size).fill(-Infinity);
      eachPair(layer, q.shape, steps, (h, i, j, ofQ, ofK) => {
        let sum = 0;
        for (let d = 0; d < size; d++) sum += q.data[ofQ + d] * k.data[ofK + d];
        scores[(h * length + i) * steps + j] = sum / Math.sqrt(size);
      });
      for (let row = 0; row < a.length; row += steps) {
        const top = Math.max(...scores.subarray(row, row + steps));
        let total = 0;
        for (let j = row; j < row + steps; j++) total += a[j] = Math.exp(scores[j] - top);
        for (let j = row; j < row + steps; j++) a[j] /= total;
      }
      return a;
    },
    backward(layer, grad, q, k, a) {
      const [heads, length, steps] = layer.shape;
      const size = q.shape[1] / heads;
      const [dq, dk] = [q, k].map(({ data }) => new Float32Array(data.length));
      const dots = Float32Array.from({ length: heads * length }, (_, row) => {
        let sum = 0;
        for (let j = row * steps; j < (row + 1) * steps; j++) sum += a.data[j] * grad.data[j];
        return sum;
      });
      eachPair(layer, q.shape, steps, (h, i, j, ofQ, ofK) => {
        const row = h * length + i;
        const at = row * steps + j;
        const ds = (a.data[at] * (grad.data[at] - dots[row])) / Math.sqrt(size);
        for (let d = 0; d < size; d++) {
          dq[ofQ + d] += ds * k.data[ofK + d];
          dk[ofK + d] += ds * q.data[ofQ + d];
        }
      });
      return [dq, dk];
    },
  },

  // y = A V for each head.                    dA = G Vᵀ    dV = Aᵀ G
  Attention: {
    forward(layer, a, v) {
      const y = new Float32Array(layer.size);
      const [, length, steps] = a.shape;
      const size = layer.shape[1] / layer.heads;
      eachPair(layer, layer.shape, steps, (h, i, j, ofY, ofV) => {
        const w = a.data[(h * length + i) * steps + j];
        for (let d = 0; d < size; d++) y[ofY + d] += w * v.data[ofV + d];
      });
      return y;
    },
    backward(layer, grad, a, v) {
      const [da, dv] = [a, v].map(({ data }) => new Float32Array(data.length));
      const [, length, steps] = a.shape;
      const size = layer.shape[1] / layer.heads;
      eachPair(layer, layer.shape, steps, (h, i, j, ofY, ofV) => {
        const at = (h * length + i) * steps + j;
        for (let d = 0; d < size; d++) {
          da[at] += grad.data[ofY + d] * v.data[ofV + d];
          dv[ofV + d] += a.data[at] * grad.data[ofY + d];
        }
      });
      return [da, dv];
    },
  },
});
