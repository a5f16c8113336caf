const ARRAYS = {
  float32: (values) => Float32Array.from(values, (value) => value ?? NaN), // JSON has no NaN
  float64: (values) => Float64Array.from(values, (value) => value ?? NaN),
  uint8: (values) => Uint8Array.from(values),
  string: (values) => values,
};

/**
 * Put rows to a model, batch by batch.
 *
 * `ort` is onnxruntime-node or onnxruntime-web, whose API is one. The question has `inputs` (name, dtype, and shape of
 * one row) and `batches` (nested rows by input name). Returns, for each batch, type, dims and data of every output.
 */
export async function ask(ort, model, { inputs, batches }) {
  const session = await ort.InferenceSession.create(model);
  const tensor = ({ dtype, shape }, rows) =>
    new ort.Tensor(dtype, ARRAYS[dtype](rows.flat(Infinity)), [rows.length, ...shape]);
  const answers = [];
  for (const batch of batches) {
    const feeds = inputs.map((input) => [input.name, tensor(input, batch[input.name])]);
    const outputs = Object.entries(await session.run(Object.fromEntries(feeds)));
    const plain = ({ type, dims, data }) => ({ type, dims, data: Array.from(data, Number) });
    answers.push(Object.fromEntries(outputs.map(([name, output]) => [name, plain(output)])));
  }
  return answers;
}
