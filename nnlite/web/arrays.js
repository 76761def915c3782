// Arithmetic of whole arrays, and their parts: more kinds of layers, as in network.js.

// Returns where the numbers of an array of this shape are in memory, row by row: a step along axis
// k is `strides[k]` numbers long, and 0 where the array is broadcast.
function placesOf(shape, strides, offset = 0) {
  let found = [offset];
  shape.forEach((size, axis) => {
    found = found.flatMap((at) => Array.from({ length: size }, (_, i) => at + i * strides[axis]));
  });
  return found;
}

// Functions of two numbers, and their derivatives with respect to each.
const half = (a, b) => (a === b ? 0.5 : 0);
const BINARY = {
  Add: [(a, b) => a + b, () => 1, () => 1],
  Subtract: [(a, b) => a - b, () => 1, () => -1],
  Multiply: [(a, b) => a * b, (a, b) => b, (a) => a],
  Divide: [(a, b) => a / b, (a, b) => 1 / b, (a, b) => -a / b / b],
  Maximum: [Math.max, (a, b) => (a > b ? 1 : half(a, b)), (a, b) => (b > a ? 1 : half(a, b))],
  Minimum: [Math.min, (a, b) => (a < b ? 1 : half(a, b)), (a, b) => (b < a ? 1 : half(a, b))],
};

// y = f(a, b), where both are broadcast to the shape of y.
function ofTwo([value, byFirst, bySecond]) {
  return {
    forward({ shape, strides }, a, b) {
      const [first, second] = strides.map((each) => placesOf(shape, each));
      return Float32Array.from(first, (at, i) => value(a.data[at], b.data[second[i]]));
    },
    backward({ shape, strides }, grad, a, b) {
      const [first, second] = strides.map((each) => placesOf(shape, each));
      const [da, db] = [a, b].map(({ data }) => new Float32Array(data.length));
      grad.data.forEach((g, i) => {
        const [u, v] = [a.data[first[i]], b.data[second[i]]];
        da[first[i]] += g * byFirst(u, v);
        db[second[i]] += g * bySecond(u, v);
      });
      return [da, db];
    },
  };
}

Object.assign(LAYERS, {
  ...Object.fromEntries(Object.entries(BINARY).map(([kind, f]) => [kind, ofTwo(f)])),

  // A value without inputs: the same for every sample.
  Weight: {
    forward: ({ weight }) => weight.data,
    backward: () => [],
  },

  // y = the numbers of x at chosen places: parts, and axes in another order.
  View: {
    forward: ({ sizes, strides, offset }, x) =>
      Float32Array.from(placesOf(sizes, strides[0], offset), (at) => x.data[at]),
    backward({ sizes, strides, offset }, grad, x) {
      const dx = new Float32Array(x.data.length);
      placesOf(sizes, strides[0], offset).forEach((at, i) => {
        dx[at] += grad.data[i];
      });
      return dx;
    },
  },

  // y has in turn a block of numbers of each input.
  Concatenate: {
    forward({ blocks, size }, ...inputs) {
      const y = new Float32Array(size);
      const rows = size / sumOf(blocks);
      let place = 0;
      for (let row = 0; row < rows; row++) {
        inputs.forEach(({ data }, k) => {
          y.set(data.subarray(row * blocks[k], (row + 1) * blocks[k]), place);
          place += blocks[k];
        });
      }
      return y;
    },
    backward({ blocks, size }, grad, ...inputs) {
      const rows = size / sumOf(blocks);
      const parts = blocks.map((block) => new Float32Array(rows * block));
      let place = 0;
      for (let row = 0; row < rows; row++) {
        parts.forEach((part, k) => {
          part.set(grad.data.subarray(place, place + blocks[k]), row * blocks[k]);
          place += blocks[k];
        });
      }
      return parts.length > 1 ? parts : parts[0];
    },
  },

  // y = scale · Σ x: x of shape `over` is summed up in y, which is broadcast to that shape.
  Sum: {
    forward({ over, strides, scale, size }, x) {
      const y = new Float32Array(size);
      placesOf(over, strides[0]).forEach((at, i) => {
        y[at] += scale * x.data[i];
      });
      return y;
    },
    backward: ({ over, strides, scale }, grad) =>
      Float32Array.from(placesOf(over, strides[0]), (at) => scale * grad.data[at]),
  },

  // y = A B for a stack of matrices.          dL/dA = G Bᵀ    dL/dB = Aᵀ G
  MatMul: {
    forward(layer, a, b) {
      const y = new Float32Array(layer.size);
      eachProduct(layer, (i, j, k) => {
        y[k] += a.data[i] * b.data[j];
      });
      return y;
    },
    backward(layer, grad, a, b) {
      const [da, db] = [a, b].map(({ data }) => new Float32Array(data.length));
      eachProduct(layer, (i, j, k) => {
        da[i] += grad.data[k] * b.data[j];
        db[j] += grad.data[k] * a.data[i];
      });
      return [da, db];
    },
  },
});

// Calls `visit` with the places in A, B and y for every product of a number of A and one of B.
function eachProduct({ rows, inner, columns, stack, strides }, visit) {
  const [first, second] = strides.map((each) => placesOf(stack, each));
  first.forEach((left, matrix) => {
    for (let i = 0; i < rows; i++) {
      for (let k = 0; k < inner; k++) {
        for (let j = 0; j < columns; j++) {
          visit(
            left + i * inner + k,
            second[matrix] + k * columns + j,
            (matrix * rows + i) * columns + j,
          );
        }
      }
    }
  });
}
